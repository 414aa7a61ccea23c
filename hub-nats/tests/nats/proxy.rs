//! A TCP proxy between a node and its server, which fails on command.

use std::error::Error;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The state of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Open,
    /// Nothing passes, and nobody is told.
    Stalled,
    /// All connections are closed, and new ones as well.
    Cut,
}

pub(crate) struct Proxy {
    pub(crate) port: u16,
    line: Arc<watch::Sender<Line>>,
    _task: JoinSet<()>,
}

impl Proxy {
    /// Forwards to a port of this machine.
    pub(crate) async fn start(target: u16) -> Result<Self, Box<dyn Error>> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let line = Arc::new(watch::Sender::new(Line::Open));
        let state = Arc::clone(&line);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                connections.spawn(forward(near, target, state.subscribe()));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { port, line, _task: task })
    }

    pub(crate) fn set(&self, line: Line) {
        self.line.send_replace(line);
    }
}

async fn forward(near: TcpStream, target: u16, mut line: watch::Receiver<Line>) {
    let Ok(far) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    let (near_reader, near_writer) = near.into_split();
    let (far_reader, far_writer) = far.into_split();
    let cut = async { line.clone().wait_for(|line| *line == Line::Cut).await.is_ok() };
    tokio::select! {
        _ = cut => {}
        () = pump(near_reader, far_writer, line.clone()) => {}
        () = pump(far_reader, near_writer, line.clone()) => {}
    }
    line.mark_unchanged();
}

async fn pump(
    mut reader: impl AsyncReadExt + Unpin,
    mut writer: impl AsyncWriteExt + Unpin,
    mut line: watch::Receiver<Line>,
) {
    let mut buf = [0; 4096];
    while let Ok(size @ 1..) = reader.read(&mut buf).await {
        if line.wait_for(|line| *line != Line::Stalled).await.is_err() {
            return;
        }
        if writer.write_all(&buf[..size]).await.is_err() {
            return;
        }
    }
}
