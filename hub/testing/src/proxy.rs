//! A TCP proxy between a node and its broker, which cuts and stalls connections.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The state of the line through a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// Everything passes.
    Open,
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
    fn is_stalled(self, line: Line) -> bool {
        match self {
            Self::ToServer => matches!(line, Line::Stalled | Line::StalledToServer),
            Self::ToClient => matches!(line, Line::Stalled | Line::StalledToClient),
        }
    }
}

/// The line of new connections.
type Shared = Arc<Mutex<watch::Sender<Line>>>;

/// A proxy to one address at a time.
pub struct Proxy {
    address: SocketAddr,
    target: Arc<Mutex<String>>,
    line: Shared,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy to an address, such as `127.0.0.1:6379`.
    pub async fn start(target: impl Into<String>) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let target = Arc::new(Mutex::new(target.into()));
        let line = Shared::new(Mutex::new(watch::Sender::new(Line::Open)));
        let task = tokio::spawn(accept(listener, Arc::clone(&target), Arc::clone(&line)));
        Ok(Self { address, target, line, task })
    }

    /// Returns the address at which the proxy listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the address as a URL with a scheme, such as `redis`.
    pub fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}", self.address)
    }

    /// Changes the line of all connections.
    pub fn set(&self, line: Line) {
        lock(&self.line).send_replace(line);
    }

    /// Returns the line of the connections that there are. New connections have another line, which is open.
    pub fn part(&self) -> watch::Sender<Line> {
        std::mem::replace(&mut *lock(&self.line), watch::Sender::new(Line::Open))
    }

    /// Sends new connections to another address.
    pub fn lead_to(&self, target: String) {
        *lock(&self.target) = target;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.set(Line::Cut);
    }
}

async fn accept(listener: TcpListener, target: Arc<Mutex<String>>, line: Shared) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        let line = lock(&line).subscribe();
        if *line.borrow() != Line::Cut {
            let target = lock(&target).clone();
            tokio::spawn(connect(client, target, line));
        }
    }
}

async fn connect(client: TcpStream, target: String, mut line: watch::Receiver<Line>) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let there = pass(from_client, to_server, Direction::ToServer, line.clone());
    let back = pass(from_server, to_client, Direction::ToClient, line.clone());
    tokio::select! {
        // The end of one direction ends both, as with a server that is killed.
        _ = there => {}
        _ = back => {}
        _ = line.wait_for(|line| *line == Line::Cut) => {}
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    direction: Direction,
    mut line: watch::Receiver<Line>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        // An error is the end of the proxy.
        let _ = line.wait_for(|line| !direction.is_stalled(*line)).await;
        to.write_all(&buffer[..count]).await?;
    }
}
