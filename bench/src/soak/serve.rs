//! The server of the soak: an echo with all of bowline's defaults, which counts messages and ends.
//!
//! The process writes its address, and then accepts commands. The answer to "held" is the number of bytes of
//! heap, to "counts" the [`Counts`], and to "shut down" "CLOSED ENDED" after all connections have ended.

use std::error::Error;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use bowline::{ErrorKind, Server, WebSocket};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::control::{listen, say};
use crate::{allocations, process};

/// The time limit of a shutdown.
const DEADLINE: Duration = Duration::from_secs(60);

#[derive(clap::Args, Clone, Debug)]
pub struct Serve {
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

/// The counts of the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub opened: u64,
    /// Received messages.
    pub received: u64,
    /// Messages that `send` accepted.
    pub sent: u64,
    /// Connections that ended with a closing handshake.
    pub normal: u64,
    /// Connections that ended without a Close frame, or with an error of the operating system.
    pub lost: u64,
    /// Connections that keepalive ended.
    pub timed_out: u64,
    /// Connections that ended after a violation of the protocol.
    pub violated: u64,
    /// Connections that ended in another way; there should be none.
    pub other: u64,
}

impl Counts {
    pub fn ended(&self) -> u64 {
        self.normal + self.lost + self.timed_out + self.violated + self.other
    }

    fn numbers(&self) -> [u64; 8] {
        let Self { opened, received, sent, normal, lost, timed_out, violated, other } = *self;
        [opened, received, sent, normal, lost, timed_out, violated, other]
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.numbers().map(|number| number.to_string()).join(" "))
    }
}

impl FromStr for Counts {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let numbers: Vec<u64> = text.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        let [opened, received, sent, normal, lost, timed_out, violated, other] =
            numbers.try_into().ok().context("the server has eight counts")?;
        Ok(Self { opened, received, sent, normal, lost, timed_out, violated, other })
    }
}

/// The counts in progress.
#[derive(Debug, Default)]
struct Live {
    opened: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    normal: AtomicU64,
    lost: AtomicU64,
    timed_out: AtomicU64,
    violated: AtomicU64,
    other: AtomicU64,
}

impl Live {
    fn counts(&self) -> Counts {
        let of = |count: &AtomicU64| count.load(Ordering::SeqCst);
        Counts {
            opened: of(&self.opened),
            received: of(&self.received),
            sent: of(&self.sent),
            normal: of(&self.normal),
            lost: of(&self.lost),
            timed_out: of(&self.timed_out),
            violated: of(&self.violated),
            other: of(&self.other),
        }
    }

    fn count_end(&self, end: &Result<(), bowline::Error>) {
        let count = match end.as_ref().map_err(bowline::Error::kind) {
            Ok(()) => &self.normal,
            Err(ErrorKind::Disconnected | ErrorKind::Io) => &self.lost,
            Err(ErrorKind::Timeout) => &self.timed_out,
            Err(ErrorKind::Protocol) => &self.violated,
            Err(_) => &self.other,
        };
        add(count);
    }
}

fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::SeqCst);
}

pub fn run(options: &Serve) -> Result<()> {
    allocations::start();
    process::allow_files(process::most_files())?;
    let mut builder = match options.threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if options.threads > 1 {
        builder.worker_threads(options.threads);
    }
    builder.enable_all().build()?.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let live = Arc::new(Live::default());
        say(listener.local_addr()?);
        let (stop, stopped) = oneshot::channel();
        let answers = Arc::clone(&live);
        let (here, gone) = oneshot::channel::<()>();
        std::thread::spawn(move || {
            answer(&answers, stop);
            drop(here);
        });
        let handler = move |socket: WebSocket| {
            let live = Arc::clone(&live);
            async move {
                add(&live.opened);
                let end = echo(&live, socket).await;
                live.count_end(&end);
                end.map_err(Box::<dyn Error + Send + Sync>::from)
            }
        };
        let signal = async {
            let _ = stopped.await;
        };
        let shutdown = Server::new().shutdown(signal, DEADLINE).serve(listener, handler).await?;
        say(format_args!("{} {}", shutdown.closed(), shutdown.ended()));
        // Further commands may follow.
        let _ = gone.await;
        Ok(())
    })
}

async fn echo(live: &Live, mut socket: WebSocket) -> Result<(), bowline::Error> {
    while let Some(message) = socket.recv().await? {
        add(&live.received);
        socket.send(message).await?;
        add(&live.sent);
    }
    Ok(())
}

/// Answers until the measuring process ends.
fn answer(live: &Live, stop: oneshot::Sender<()>) {
    let mut stop = Some(stop);
    while let Some(line) = listen() {
        match line.as_str() {
            "held" => say(allocations::held()),
            "counts" => say(live.counts()),
            "shut down" => drop(stop.take()),
            _ => break,
        }
    }
    if stop.is_some() {
        std::process::exit(1);
    }
}
