//! Opens connections over each carrier: the client's side here, the server's side where it is expected.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bowline::{
    Acceptor, Adoption, CompressionOptions, Connector, DeflateParameters, Error, Http2Connection, WebSocket,
};
use tokio::net::UnixStream;

use super::cancel::at_most;
use super::plan::{Carrier, CompressionPlan, GroupPlan, Side};
use super::relay;
use super::run::Run;
use super::servers::{Expected, Registry, Servers, acceptor, compression, limits};
use super::side::{Task, run};

/// The servers that the groups of a run connect to.
pub struct Network {
    pub run: Arc<Run>,
    pub servers: Servers,
    pub registry: Arc<Registry>,
}

/// The resources that the connections of a group share.
pub struct Group {
    pub network: Arc<Network>,
    pub plan: Arc<GroupPlan>,
    connector: Connector,
    http2: Option<Http2Connection>,
    /// The address of the relay, if there is one.
    _relay: Option<Task<()>>,
}

/// The client's side of a connection, and the resources that have to live as long.
pub struct Opened {
    pub socket: WebSocket,
    pub tasks: Vec<Task<()>>,
}

impl Group {
    /// Opens the resources that all connections share.
    pub async fn open(network: Arc<Network>, plan: Arc<GroupPlan>) -> Result<Self, Error> {
        let mut connector = Connector::new().limits(limits()).tls(Arc::clone(&network.servers.client_tls));
        if let Some(plan) = &plan.compression {
            connector = connector.compression(options(plan, Side::Client));
        }
        let mut group = Self { network, plan, connector, http2: None, _relay: None };
        if group.plan.carrier.is_http2() {
            let (url, relay) = group.url().await;
            let opening = group.connector.connect_http2(url);
            group.http2 = Some(opening.await?);
            group._relay = relay;
        }
        Ok(group)
    }

    /// Returns the address to connect to over TCP.
    async fn url(&self) -> (String, Option<Task<()>>) {
        let mut address = self.network.servers.address(&self.plan);
        let mut task = None;
        if let Some(fault) = self.plan.fault {
            let listening = relay::listen(address, fault).await.expect("there are ports for all");
            address = listening.0;
            task = Some(Task(tokio::spawn(listening.1)));
        }
        let scheme = if self.plan.carrier.is_tls() { "wss" } else { "ws" };
        (format!("{scheme}://{address}"), task)
    }

    /// Opens a connection whose server's side is `expected`.
    pub async fn connect(&self, path: &str, expected: Expected) -> Result<Opened, Error> {
        let mut tasks = Vec::new();
        let socket = match self.plan.carrier {
            Carrier::Memory => {
                let (client, server) = self.memory(&mut tasks);
                let acceptor = acceptor(self.server_options());
                let parameters = self.plan.compression.as_ref().map(parameters);
                tasks.push(self.on_server(async move {
                    let Expected { talk, done } = expected;
                    let socket = match parameters {
                        Some(parameters) => {
                            acceptor.adopt(server, Adoption::new().compression(parameters)).unwrap()
                        }
                        None => acceptor.adopt(server, Adoption::new()).unwrap(),
                    };
                    let _ = done.send(run(&talk, Side::Server, socket).await);
                }));
                match parameters {
                    Some(parameters) => {
                        self.connector.adopt(client, Adoption::new().compression(parameters)).unwrap()
                    }
                    None => self.connector.adopt(client, Adoption::new()).unwrap(),
                }
            }
            Carrier::Unix => {
                let (client, server) = self.unix(&mut tasks).expect("there are descriptors for all");
                let acceptor = acceptor(self.server_options());
                tasks.push(self.on_server(accept(acceptor, server, expected)));
                self.connector.connect_over(format!("ws://localhost{path}"), client).await?.0
            }
            Carrier::Tcp | Carrier::Tls => {
                self.network.registry.expect(path.to_owned(), expected);
                let (url, relay) = self.url().await;
                tasks.extend(relay);
                self.connector.connect(url + path).await?.0
            }
            Carrier::Http2 | Carrier::Http2Tls => {
                self.network.registry.expect(path.to_owned(), expected);
                let connection = self.http2.as_ref().expect("it was opened before");
                connection.connect(path).await?.0
            }
        };
        Ok(Opened { socket, tasks })
    }

    fn server_options(&self) -> Option<CompressionOptions> {
        self.plan.compression.as_ref().map(|plan| options(plan, Side::Server))
    }

    /// Starts a task on the server's runtime.
    fn on_server(&self, task: impl Future<Output = ()> + Send + 'static) -> Task<()> {
        Task(self.network.run.runtimes[self.plan.runtimes[Side::Server as usize]].spawn(task))
    }

    fn memory(&self, tasks: &mut Vec<Task<()>>) -> (tokio::io::DuplexStream, tokio::io::DuplexStream) {
        let pair = || tokio::io::duplex(self.plan.capacity);
        let (client, mut one) = pair();
        let Some(fault) = self.plan.fault else { return (client, one) };
        let (mut other, server) = pair();
        tasks.push(Task(tokio::spawn(async move {
            // Both sides are dropped then, whatever the result.
            let _ = relay::relay(&mut one, &mut other, fault).await;
        })));
        (client, server)
    }

    /// Returns the client's stream, and the server's stream for its own runtime.
    fn unix(&self, tasks: &mut Vec<Task<()>>) -> io::Result<(UnixStream, std::os::unix::net::UnixStream)> {
        let pair = || {
            let (one, other) = std::os::unix::net::UnixStream::pair()?;
            one.set_nonblocking(true)?;
            other.set_nonblocking(true)?;
            io::Result::Ok((UnixStream::from_std(one)?, other))
        };
        let (client, other) = pair()?;
        let Some(fault) = self.plan.fault else { return Ok((client, other)) };
        let mut other = UnixStream::from_std(other)?;
        let (mut one, server) = pair()?;
        tasks.push(Task(tokio::spawn(async move {
            let _ = relay::relay(&mut other, &mut one, fault).await;
        })));
        Ok((client, server))
    }
}

/// Performs the opening handshake of a server over a Unix socket. A planned cancellation ends the attempt.
async fn accept(acceptor: Acceptor, stream: std::os::unix::net::UnixStream, expected: Expected) {
    let Expected { talk, done } = expected;
    let stream = UnixStream::from_std(stream).expect("it does not block");
    match at_most(talk.accept_polls(), acceptor.accept_stream(stream)).await {
        Some(Ok((socket, _))) => {
            talk.handshake_done(talk.accept_polls());
            let _ = done.send(run(&talk, Side::Server, socket).await);
        }
        // The client reports the reason.
        Some(Err(_)) => {}
        None => {
            talk.run.counts.cancelled.fetch_add(1, Relaxed);
        }
    }
}

/// Returns how one side compresses, if the other agrees.
fn options(plan: &CompressionPlan, side: Side) -> CompressionOptions {
    let takeover = plan.takeover.iter().all(|takeover| *takeover);
    let options = compression(takeover)
        .options()
        .level(plan.levels[side as usize])
        .client_max_window_bits(plan.window_bits[Side::Client as usize])
        .server_max_window_bits(plan.window_bits[Side::Server as usize]);
    match plan.threshold {
        Some(threshold) => options.threshold(threshold),
        None => options,
    }
}

/// Returns the parameters for both sides of a carrier without a handshake.
fn parameters(plan: &CompressionPlan) -> DeflateParameters {
    DeflateParameters {
        server_no_context_takeover: !plan.takeover[Side::Server as usize],
        client_no_context_takeover: !plan.takeover[Side::Client as usize],
        server_max_window_bits: plan.window_bits[Side::Server as usize],
        client_max_window_bits: plan.window_bits[Side::Client as usize],
    }
}
