//! The work that the server does for a connection.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bowline::http::request::Parts;
use bowline::{Acceptance, Rejection, Server, WebSocket};
use clap::Args;

use super::alt_svc::AltSvc;
use super::broadcast::Members;
use super::exec::Program;
use super::gateway::{self, Upstream};
use super::guard::HostGuard;
use super::log::{ConnectionLog, HandlerError, Log};
use super::pump::Framing;
use crate::connect::Size;

/// The options that select the mode.
#[derive(Args, Debug)]
pub(crate) struct ModeArguments {
    /// Send each message to all clients, its sender included. Default: return each message to its sender
    #[arg(long, group = "mode", help_heading = "Mode")]
    broadcast: bool,
    /// Relay each connection: tcp:HOST:PORT, unix:PATH, or a ws:// or wss:// URL
    #[arg(long, value_name = "TARGET", group = "mode", help_heading = "Mode")]
    pub(crate) to: Option<Upstream>,
    /// Run a program for each connection. All that follows is its command line
    #[arg(
        long,
        value_name = "CMD",
        num_args = 1..,
        allow_hyphen_values = true,
        group = "mode",
        help_heading = "Mode",
    )]
    exec: Vec<String>,
    /// Start a server, talk to it, print what happens, and end
    #[arg(long, conflicts_with_all = ["mode", "files"], help_heading = "Mode")]
    pub(crate) demo: bool,
    /// Bytes instead of lines for --exec, and binary messages for --to
    #[arg(short, long, requires = "mode", conflicts_with = "broadcast", help_heading = "Mode")]
    binary: bool,
}

/// The work that the server does for a connection.
#[derive(Clone)]
pub(crate) enum Mode {
    /// Returns each message to its sender.
    Echo,
    /// Sends each message to all clients.
    Broadcast(Arc<Members>),
    /// Runs a program.
    Exec(Arc<Program>),
    /// Relays to another server.
    Gateway(Arc<Upstream>, Framing),
}

impl Mode {
    /// The mode that the options select; clap has checked that they select one.
    pub(crate) fn new(arguments: ModeArguments) -> Self {
        let framing = if arguments.binary { Framing::Bytes } else { Framing::Lines };
        match (arguments.to, arguments.broadcast) {
            (Some(upstream), _) => Self::Gateway(Arc::new(upstream), framing),
            (None, true) => Self::Broadcast(Arc::default()),
            (None, false) if arguments.exec.is_empty() => Self::Echo,
            (None, false) => Self::Exec(Arc::new(Program::new(arguments.exec, framing))),
        }
    }

    /// Adds the checks of requests. A gateway connects before it accepts, so that a failure is a status.
    pub(crate) fn check_requests(
        &self,
        server: Server,
        guard: HostGuard,
        alt_svc: AltSvc,
        max_size: Size,
    ) -> Server {
        let upstream = match self {
            Self::Gateway(upstream, _) => Some(Arc::clone(upstream)),
            _ => None,
        };
        server.on_request(move |head: Parts| {
            let (upstream, guard, alt_svc) = (upstream.clone(), guard.clone(), alt_svc.clone());
            async move {
                guard.check_page(&head)?;
                let acceptance = match upstream {
                    Some(upstream) => gateway::connect(&upstream, head, max_size).await?,
                    None => Acceptance::from(head),
                };
                Ok::<_, Rejection>(alt_svc.add_to(acceptance))
            }
        })
    }

    /// The handler of the server.
    pub(crate) fn handler(
        self,
        log: Log,
    ) -> impl Fn(Parts, WebSocket) -> Pin<Box<dyn Future<Output = Result<(), HandlerError>> + Send>>
    + Send
    + Sync
    + 'static {
        move |head, socket| {
            let mode = self.clone();
            Box::pin(async move {
                let log = log.connection(&head, &socket);
                let sender = socket.sender();
                let result = mode.handle(head, socket, &log).await;
                log.ended(sender.close_frame().as_ref());
                result
            })
        }
    }

    async fn handle(&self, head: Parts, socket: WebSocket, log: &ConnectionLog) -> Result<(), HandlerError> {
        match self {
            Self::Echo => echo(socket, log).await,
            Self::Broadcast(members) => members.take_part(socket, log).await,
            Self::Exec(program) => program.run(&head, socket, log).await,
            Self::Gateway(_, framing) => gateway::relay(&head, socket, *framing, log).await,
        }
    }
}

async fn echo(mut socket: WebSocket, log: &ConnectionLog) -> Result<(), HandlerError> {
    while let Some(message) = socket.recv().await? {
        log.received(&message);
        socket.send(message).await?;
    }
    Ok(())
}
