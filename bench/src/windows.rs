//! WebSockets over HTTP/2 with windows of several sizes: their throughput to near and far peers, and the
//! memory that they hold unread.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bowline::{Acceptor, Connector, Http2Connection, Limits, Server, WebSocket};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

use crate::allocations;
use crate::statistics::median;

const KIB: usize = 1024;
const WINDOWS: [usize; 6] = [64 * KIB, 128 * KIB, 256 * KIB, 512 * KIB, 1024 * KIB, 4096 * KIB];

/// The size of a sent message.
const MESSAGE_SIZE: usize = 64 * KIB;

/// The number of unread WebSockets.
const UNREAD: usize = 100;

#[derive(clap::Args, Clone, Debug)]
pub struct Windows {
    /// The duration of each measurement
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// The round trip over which a far peer is reached, in milliseconds
    #[arg(long, default_value_t = 50)]
    round_trip: u64,
}

pub fn run(options: &Windows) -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(measure(options))
}

async fn measure(options: &Windows) -> Result<()> {
    allocations::start();
    let time = Duration::from_secs_f64(options.seconds);
    let far = Duration::from_millis(options.round_trip);
    let mut near_rates = vec![Vec::new(); WINDOWS.len()];
    let mut far_rates = near_rates.clone();
    // The windows take turns, like the libraries in the other measurements.
    for round in 0..options.rounds {
        for turn in 0..WINDOWS.len() {
            let index = (round + turn) % WINDOWS.len();
            near_rates[index].push(rate(WINDOWS[index], Duration::ZERO, time).await?);
            far_rates[index].push(rate(WINDOWS[index], far, time).await?);
        }
    }
    println!(
        "One WebSocket over HTTP/2, both ends on one thread; messages of 64 KiB. Medians of {}.\n",
        options.rounds
    );
    println!("window      MB/s near  MB/s over {far:?}  bytes held unread, each of {UNREAD}");
    for (index, window) in WINDOWS.into_iter().enumerate() {
        let (near, far) = (median(&near_rates[index]), median(&far_rates[index]));
        println!("{:>5} KiB{near:>13.0}{far:>16.1}{:>20}", window / KIB, held(window).await?);
    }
    Ok(())
}

/// Returns how many megabytes per second arrive at a client with this round-trip time.
async fn rate(window: usize, round_trip: Duration, time: Duration) -> Result<f64> {
    let mut tasks = JoinSet::new();
    let connection = connect(window, round_trip, &mut tasks).await?;
    let (mut socket, _) = connection.connect("/").await?;
    // Waits until the window limits the sender.
    let warm = Instant::now() + time / 5 + 4 * round_trip;
    while Instant::now() < warm {
        receive(&mut socket).await?;
    }
    let (began, mut bytes) = (Instant::now(), 0);
    while began.elapsed() < time {
        bytes += receive(&mut socket).await?;
    }
    Ok(bytes as f64 / began.elapsed().as_secs_f64() / 1e6)
}

async fn receive(socket: &mut WebSocket) -> Result<usize> {
    Ok(socket.recv().await?.context("the server closed the connection")?.len())
}

/// Returns how many bytes both ends hold for each unread WebSocket.
async fn held(window: usize) -> Result<i64> {
    let mut tasks = JoinSet::new();
    let connection = connect(window, Duration::ZERO, &mut tasks).await?;
    let before = allocations::held();
    let mut sockets = Vec::new();
    for _ in 0..UNREAD {
        sockets.push(connection.connect("/").await?.0);
    }
    // Waits until the sender is blocked.
    let mut last = 0;
    loop {
        sleep(Duration::from_millis(200)).await;
        let now = allocations::held() - before;
        if now == last {
            return Ok(now / UNREAD as i64);
        }
        last = now;
    }
}

/// Opens a connection to a server that sends as much as possible on each WebSocket. Dropping `tasks` ends
/// both.
async fn connect(window: usize, round_trip: Duration, tasks: &mut JoinSet<()>) -> Result<Http2Connection> {
    let limits = Limits::default().stream_window(window);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut address = listener.local_addr()?;
    let server = Server::new().acceptor(Acceptor::new().limits(limits.clone())).http2();
    tasks.spawn(async move {
        let served = server.serve(listener, send_without_end);
        if let Err(error) = served.await {
            eprintln!("the server: {error}");
        }
    });
    if !round_trip.is_zero() {
        address = relay(address, round_trip / 2, tasks).await?;
    }
    Ok(Connector::new().limits(limits).connect_http2(format!("ws://{address}")).await?)
}

async fn send_without_end(socket: WebSocket) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let message = Bytes::from(vec![7; MESSAGE_SIZE]);
    loop {
        socket.send(message.clone()).await?;
    }
}

/// Opens a port that relays to another one, and delays all bytes.
async fn relay(to: SocketAddr, delay: Duration, tasks: &mut JoinSet<()>) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tasks.spawn(async move {
        let Ok((client, _)) = listener.accept().await else { return };
        let Ok(server) = TcpStream::connect(to).await else { return };
        let _ = client.set_nodelay(true);
        let _ = server.set_nodelay(true);
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        tokio::join!(pass(from_client, to_server, delay), pass(from_server, to_client, delay));
    });
    Ok(address)
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) {
    let (sender, mut under_way) = mpsc::unbounded_channel();
    let reading = async move {
        loop {
            let mut bytes = Vec::with_capacity(64 * KIB);
            match from.read_buf(&mut bytes).await {
                Ok(count) if count > 0 => {}
                _ => break,
            }
            if sender.send((tokio::time::Instant::now() + delay, bytes)).is_err() {
                break;
            }
        }
    };
    let writing = async move {
        while let Some((at, bytes)) = under_way.recv().await {
            sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                break;
            }
        }
    };
    tokio::join!(reading, writing);
}
