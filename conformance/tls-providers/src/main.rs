//! Tests bowline's choice of a provider of cryptography, in a build with none, one or two of them.
//!
//! The features of this package decide which providers there are: see the script `run`. A default provider is
//! installed at most once in a process. So each case is a process of its own, started by the first one:
//!
//! | case | provider of `connect` |
//! |---|---|
//! | `nothing-installed` | that of bowline's features: `ring`, then `aws-lc-rs`; without them, an error |
//! | `installed-before` | the installed one |
//! | `installed-later` | as in the first case, and then the installed one |
//!
//! The server recognises the provider of its client by the first message of the TLS handshake. The installed
//! one supports a single cipher suite. Of the others, only `aws-lc-rs` supports the key exchange
//! `X25519MLKEM768`.

use std::error::Error;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bowline::{Connector, ErrorKind, Proxy, Server, WebSocket};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, ClientConfig, NamedGroup, RootCertStore, ServerConfig};
use tokio::net::TcpListener;
use tokio::time::timeout;

type Failure = Box<dyn Error + Send + Sync>;

const CASES: [&str; 3] = ["nothing-installed", "installed-before", "installed-later"];

/// The variable with the file of trusted certificates, which bowline finds where the system's would be.
const ROOTS: &str = "SSL_CERT_FILE";

/// A provider, as a server recognises it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recognised {
    Installed,
    Ring,
    AwsLcRs,
}

fn main() -> Result<ExitCode, Failure> {
    let Some(case) = std::env::args().nth(1) else { return run_all() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { timeout(Duration::from_secs(30), run(&case)).await })??;
    Ok(ExitCode::SUCCESS)
}

/// Runs each case in a process of its own.
fn run_all() -> Result<ExitCode, Failure> {
    let identity = Identity::create()?;
    let mut outcome = ExitCode::SUCCESS;
    println!("providers of bowline: {:?}, in the build: {}", of_features(), ANY_PROVIDER.is_some());
    for case in CASES {
        let status =
            Command::new(std::env::current_exe()?).arg(case).env(ROOTS, identity.certificate()).status()?;
        println!("    {case}: {status}");
        if !status.success() {
            outcome = ExitCode::FAILURE;
        }
    }
    Ok(outcome)
}

async fn run(case: &str) -> Result<(), Failure> {
    match case {
        "nothing-installed" => {
            expect(of_features()).await?;
            assert!(CryptoProvider::get_default().is_none(), "bowline has installed a provider");
        }
        "installed-before" => {
            if install() {
                expect(Some(Recognised::Installed)).await?;
            }
        }
        "installed-later" => {
            expect(of_features()).await?;
            if install() {
                expect(Some(Recognised::Installed)).await?;
            }
        }
        other => return Err(format!("there is no case {other:?}").into()),
    }
    Ok(())
}

/// Checks that `connect` and `crypto_provider` use `expected`, or return an error that says what to do.
async fn expect(expected: Option<Recognised>) -> Result<(), Failure> {
    let Some(expected) = expected else {
        // Nothing listens there, which is not reached.
        for error in [bowline::crypto_provider().err(), connect(Connector::new(), 1).await.err()] {
            let error = error.ok_or("there is a provider without a feature for it")?;
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            let text = error.to_string();
            assert!(text.contains("`ring`") && text.contains("install_default"), "{text}");
        }
        return check_own_configurations().await;
    };
    let provider = bowline::crypto_provider()?;
    let (server, offers) = Offers::configuration(Arc::clone(&provider))?;
    let address = serve(server).await?;
    let ours = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots()?)
        .with_no_client_auth();
    for connector in [Connector::new(), Connector::new(), Connector::new().tls(Arc::new(ours))] {
        echo(connect(connector, address.port()).await?).await?;
        assert_eq!(offers.last(), Some(expected));
    }
    Ok(())
}

/// Checks that configurations which the application has made with a provider need no other.
async fn check_own_configurations() -> Result<(), Failure> {
    let Some(provider) = ANY_PROVIDER.map(|create| Arc::new(create())) else { return Ok(()) };
    let (server, _) = Offers::configuration(Arc::clone(&provider))?;
    let address = serve(server).await?;
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots()?)
        .with_no_client_auth();
    echo(connect(Connector::new().tls(Arc::new(client)), address.port()).await?).await
}

async fn serve(config: ServerConfig) -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(Server::new().tls(Arc::new(config)).serve(listener, |mut socket: WebSocket| async move {
        while let Some(message) = socket.recv().await? {
            socket.send(message).await?;
        }
        Ok(())
    }));
    Ok(address)
}

async fn connect(connector: Connector, port: u16) -> Result<WebSocket, bowline::Error> {
    let (socket, _) = connector.proxy(Proxy::none()).connect(format!("wss://localhost:{port}/")).await?;
    Ok(socket)
}

async fn echo(mut socket: WebSocket) -> Result<(), Failure> {
    socket.send("hello").await?;
    assert_eq!(socket.recv().await?, Some("hello".into()));
    Ok(())
}

/// Returns the provider that bowline's features enable.
fn of_features() -> Option<Recognised> {
    match (cfg!(feature = "ring"), cfg!(feature = "aws-lc-rs")) {
        (true, _) => Some(Recognised::Ring),
        (false, true) => Some(Recognised::AwsLcRs),
        (false, false) => None,
    }
}

/// A provider that is in this build. If there are two, it is not the one that bowline would choose.
#[cfg(any(feature = "aws-lc-rs", feature = "other-crate"))]
const ANY_PROVIDER: Option<fn() -> CryptoProvider> = Some(rustls::crypto::aws_lc_rs::default_provider);
#[cfg(all(feature = "ring", not(any(feature = "aws-lc-rs", feature = "other-crate"))))]
const ANY_PROVIDER: Option<fn() -> CryptoProvider> = Some(rustls::crypto::ring::default_provider);
#[cfg(not(any(feature = "ring", feature = "aws-lc-rs", feature = "other-crate")))]
const ANY_PROVIDER: Option<fn() -> CryptoProvider> = None;

/// Installs a provider with one cipher suite, if there is a provider in this build.
fn install() -> bool {
    let Some(mut provider) = ANY_PROVIDER.map(|create| create()) else { return false };
    provider.cipher_suites.retain(|suite| suite.suite() == CipherSuite::TLS13_CHACHA20_POLY1305_SHA256);
    provider.install_default().expect("nobody else installs a provider");
    true
}

/// The files of a server's certificate and key, for as long as the value lives.
struct Identity(PathBuf);

impl Identity {
    fn create() -> Result<Self, Failure> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let folder = std::env::temp_dir().join(format!("bowline-tls-providers-{}", std::process::id()));
        fs::create_dir(&folder)?;
        let identity = Self(folder);
        fs::write(identity.certificate(), made.cert.pem())?;
        fs::write(key_beside(&identity.certificate()), made.signing_key.serialize_pem())?;
        Ok(identity)
    }

    fn certificate(&self) -> PathBuf {
        self.0.join("certificate.pem")
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn key_beside(certificate: &Path) -> PathBuf {
    certificate.with_file_name("key.pem")
}

fn certificate_file() -> Result<PathBuf, Failure> {
    Ok(std::env::var_os(ROOTS).ok_or("a case is started by this program itself, without arguments")?.into())
}

fn roots() -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate_file()?)?)?;
    Ok(roots)
}

/// The providers of clients, as a server has recognised them.
#[derive(Debug)]
struct Offers {
    key: Arc<CertifiedKey>,
    seen: Mutex<Vec<Recognised>>,
}

impl Offers {
    /// Returns the configuration of a server, and what it sees.
    fn configuration(provider: Arc<CryptoProvider>) -> Result<(ServerConfig, Arc<Self>), Failure> {
        let file = certificate_file()?;
        let key = PrivateKeyDer::from_pem_file(key_beside(&file))?;
        let certificate = CertificateDer::from_pem_file(file)?;
        let key = CertifiedKey::from_der(vec![certificate], key, &provider)?;
        let offers = Arc::new(Self { key: Arc::new(key), seen: Mutex::default() });
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&offers) as _);
        Ok((config, offers))
    }

    fn last(&self) -> Option<Recognised> {
        self.seen.lock().expect("nobody panics with it").last().copied()
    }
}

impl ResolvesServerCert for Offers {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let groups = hello.named_groups().unwrap_or_default();
        let recognised = if hello.cipher_suites() == [CipherSuite::TLS13_CHACHA20_POLY1305_SHA256] {
            Recognised::Installed
        } else if groups.contains(&NamedGroup::X25519MLKEM768) {
            Recognised::AwsLcRs
        } else {
            Recognised::Ring
        };
        self.seen.lock().expect("nobody panics with it").push(recognised);
        Some(Arc::clone(&self.key))
    }
}
