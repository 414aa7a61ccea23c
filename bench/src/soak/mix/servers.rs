//! The servers that the carriers over TCP connect to: on each runtime, in clear text and over TLS, with each
//! compression.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use bowline::{Acceptor, Compression, CompressionOptions, Limits, Server, ShutdownSummary, WebSocket};
use http::request::Parts;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::ledger::Talk;
use super::plan::{GroupPlan, How, Side, VARIANTS};
use super::side::{Outcome, run};

/// A timeout longer than the watchdog's, so that the watchdog reports hanging operations.
const PATIENCE: Duration = Duration::from_secs(120);

/// The time limit for the servers' shutdown.
const DEADLINE: Duration = Duration::from_secs(30);

/// A server's side that waits for its connection.
pub struct Expected {
    pub talk: Arc<Talk>,
    pub done: oneshot::Sender<Outcome>,
}

/// The waiting sides, by the paths that their clients request.
#[derive(Default)]
pub struct Registry(Mutex<HashMap<String, Expected>>);

impl Registry {
    pub fn expect(&self, path: String, expected: Expected) {
        self.expected().insert(path, expected);
    }

    pub fn take(&self, path: &str) -> Option<Expected> {
        self.expected().remove(path)
    }

    pub fn is_empty(&self) -> bool {
        self.expected().is_empty()
    }

    fn expected(&self) -> MutexGuard<'_, HashMap<String, Expected>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A server with its address.
struct Listening {
    runtime: usize,
    variant: usize,
    is_tls: bool,
    address: SocketAddr,
}

pub struct Servers {
    listening: Vec<Listening>,
    tasks: Vec<JoinHandle<std::io::Result<ShutdownSummary>>>,
    stop: CancellationToken,
    pub client_tls: Arc<ClientConfig>,
}

impl Servers {
    pub fn start(runtimes: &[Handle], registry: &Arc<Registry>) -> Result<Self> {
        let (server_tls, client_tls) = certificates()?;
        let stop = CancellationToken::new();
        let (mut listening, mut tasks) = (Vec::new(), Vec::new());
        for (runtime, handle) in runtimes.iter().enumerate() {
            for variant in 0..VARIANTS.len() {
                for is_tls in [false, true] {
                    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
                    listener.set_nonblocking(true)?;
                    let address = listener.local_addr()?;
                    listening.push(Listening { runtime, variant, is_tls, address });
                    let acceptor = acceptor(VARIANTS[variant].map(|(level, takeover)| {
                        let options = compression(takeover).options().level(level);
                        if variant % 2 == 0 { options.threshold(16) } else { options }
                    }));
                    let mut server = Server::new().acceptor(acceptor).http2();
                    if is_tls {
                        server = server.tls(Arc::clone(&server_tls));
                    }
                    let stopped = stop.clone().cancelled_owned();
                    let registry = Arc::clone(registry);
                    tasks.push(handle.spawn(async move {
                        let listener = TcpListener::from_std(listener)?;
                        let handler = move |head: Parts, socket: WebSocket| {
                            let expected = registry.take(head.uri.path());
                            async move { handle_one(expected, socket).await }
                        };
                        server.shutdown(stopped, DEADLINE).serve(listener, handler).await
                    }));
                }
            }
        }
        Ok(Self { listening, tasks, stop, client_tls })
    }

    pub fn count(&self) -> usize {
        self.tasks.len()
    }

    /// Returns the server that a group connects to.
    pub fn address(&self, plan: &GroupPlan) -> SocketAddr {
        let variant = plan.compression.as_ref().map_or(0, |compression| compression.variant);
        let runtime = plan.runtimes[Side::Server as usize];
        let found = self.listening.iter().find(|one| {
            one.runtime == runtime && one.variant == variant && one.is_tls == plan.carrier.is_tls()
        });
        found.expect("there is a server of each kind").address
    }

    /// Shuts the servers down. Returns how many connections were still open.
    pub async fn stop(self) -> Result<usize> {
        self.stop.cancel();
        let mut open = 0;
        for task in self.tasks {
            let shutdown = task.await??;
            open += shutdown.closed() + shutdown.ended();
        }
        Ok(open)
    }
}

/// Serves an expected side, or a client that has given up.
async fn handle_one(
    expected: Option<Expected>,
    mut socket: WebSocket,
) -> Result<(), Box<dyn StdError + Send + Sync>> {
    let Some(Expected { talk, done }) = expected else {
        while socket.recv().await?.is_some() {}
        return Ok(());
    };
    let outcome = run(&talk, Side::Server, socket).await;
    // Nobody waits for the result if the client gave up.
    let _ = done.send(outcome);
    let ending = &talk.plan.ending;
    if ending.how == How::Leave && ending.code != 1000 {
        return Err("it is planned that the handler fails".into());
    }
    Ok(())
}

pub fn acceptor(compression: Option<CompressionOptions>) -> Acceptor {
    let acceptor = Acceptor::new().limits(limits());
    match compression {
        Some(options) => acceptor.compression(options),
        None => acceptor,
    }
}

pub fn compression(takeover: bool) -> Compression {
    if takeover { Compression::ContextTakeover } else { Compression::NoContextTakeover }
}

/// Returns the default limits, apart from larger messages.
pub fn limits() -> Limits {
    Limits::default()
        .message_size(4 << 20)
        .frames_per_message(1 << 22)
        .handshake_timeout(PATIENCE)
        .close_timeout(PATIENCE)
}

fn certificates() -> Result<(Arc<ServerConfig>, Arc<ClientConfig>)> {
    let signed = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key.into())?;
    let mut roots = RootCertStore::empty();
    roots.add(signed.cert.der().clone())?;
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok((Arc::new(server), Arc::new(client)))
}
