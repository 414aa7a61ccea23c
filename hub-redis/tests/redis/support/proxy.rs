//! A TCP proxy that cuts and stalls connections.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The behaviour of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    /// Everything passes.
    Fair,
    /// All connections end, and new ones end at once.
    Cut,
    /// Nothing passes, and the connections stay open.
    Stalled,
    /// Commands don't pass, and answers do.
    StalledToServer,
    /// Answers don't pass, and commands do.
    StalledToClient,
}

/// The direction of bytes.
#[derive(Clone, Copy)]
enum Direction {
    ToServer,
    ToClient,
}

impl Direction {
    fn is_stalled(self, weather: Weather) -> bool {
        match self {
            Self::ToServer => matches!(weather, Weather::Stalled | Weather::StalledToServer),
            Self::ToClient => matches!(weather, Weather::Stalled | Weather::StalledToClient),
        }
    }
}

/// The weather of new connections.
type Shared = Arc<Mutex<watch::Sender<Weather>>>;

/// A proxy to one address at a time.
pub(crate) struct Proxy {
    address: SocketAddr,
    target: Arc<Mutex<String>>,
    weather: Shared,
    task: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(target: String) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let target = Arc::new(Mutex::new(target));
        let weather = Shared::new(Mutex::new(watch::Sender::new(Weather::Fair)));
        let task = tokio::spawn(accept(listener, Arc::clone(&target), Arc::clone(&weather)));
        Ok(Self { address, target, weather, task })
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    pub(crate) fn set(&self, weather: Weather) {
        self.weather.lock().unwrap().send_replace(weather);
    }

    /// Returns the weather of the connections that there are. From now on, it is fair for new ones.
    pub(crate) fn part(&self) -> watch::Sender<Weather> {
        std::mem::replace(&mut *self.weather.lock().unwrap(), watch::Sender::new(Weather::Fair))
    }

    /// Sends new connections to another address.
    pub(crate) fn lead_to(&self, target: String) {
        *self.target.lock().unwrap() = target;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.set(Weather::Cut);
    }
}

async fn accept(listener: TcpListener, target: Arc<Mutex<String>>, weather: Shared) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        let weather = weather.lock().unwrap().subscribe();
        if *weather.borrow() != Weather::Cut {
            let target = target.lock().unwrap().clone();
            tokio::spawn(connect(client, target, weather));
        }
    }
}

async fn connect(client: TcpStream, target: String, mut weather: watch::Receiver<Weather>) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let there = pass(from_client, to_server, Direction::ToServer, weather.clone());
    let back = pass(from_server, to_client, Direction::ToClient, weather.clone());
    tokio::select! {
        // The end of one direction ends both, as with a server that is killed.
        _ = there => {}
        _ = back => {}
        _ = weather.wait_for(|weather| *weather == Weather::Cut) => {}
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    direction: Direction,
    mut weather: watch::Receiver<Weather>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        // An error is the end of the proxy.
        let _ = weather.wait_for(|weather| !direction.is_stalled(*weather)).await;
        to.write_all(&buffer[..count]).await?;
    }
}
