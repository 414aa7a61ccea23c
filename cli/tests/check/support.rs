//! The program, and right servers for it.

use std::net::SocketAddr;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bowline::rustls::ServerConfig;
use bowline::rustls::pki_types::PrivateKeyDer;
use bowline::{Acceptor, Compression, Server, WebSocket};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::timeout;

/// A program that takes longer hangs.
const PATIENCE: Duration = Duration::from_mins(2);

/// The end of the program.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// The ids of the cases with a finding.
    pub(crate) fn findings(&self) -> Vec<&str> {
        self.stdout
            .lines()
            .filter_map(|line| line.strip_prefix("FAIL  "))
            .map(|line| line.split(' ').next().unwrap())
            .collect()
    }

    /// Asserts that the server has no fault.
    #[track_caller]
    pub(crate) fn expect_right(&self) {
        assert_eq!(self.status, 0, "{}{}", self.stdout, self.stderr);
        assert!(self.stdout.contains("no findings"), "{}", self.stdout);
        assert_eq!(self.stderr, "");
    }
}

/// The command line of `bowline check` with these arguments, with pipes.
pub(crate) fn command(arguments: &[&str]) -> Command {
    with_pipes(Command::new(env!("CARGO_BIN_EXE_bowline")), arguments)
}

/// As [`command`], with at most 512 MiB of address space, where a shell can set this limit.
pub(crate) fn limited_command(arguments: &[&str]) -> Command {
    if !cfg!(target_os = "linux") {
        return command(arguments);
    }
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -v 524288 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_bowline")]);
    with_pipes(shell, arguments)
}

fn with_pipes(mut command: Command, arguments: &[&str]) -> Command {
    command.arg("check").args(arguments).kill_on_drop(true);
    for variable in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "http_proxy", "https_proxy", "all_proxy"] {
        command.env_remove(variable).env_remove(variable.to_uppercase());
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs `bowline check` with these arguments.
pub(crate) async fn check(arguments: &[&str]) -> Outcome {
    run(command(arguments)).await
}

/// Runs a command line, and waits for its end.
pub(crate) async fn run(mut command: Command) -> Outcome {
    let child = command.spawn().unwrap();
    let output = timeout(PATIENCE, child.wait_with_output()).await.expect("the program hangs").unwrap();
    let Output { status, stdout, stderr } = output;
    Outcome {
        status: status.code().expect("the program was killed"),
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
    }
}

/// An echo server of the library, which accepts compression and HTTP/2.
pub(crate) fn right_server() -> Server {
    Server::new().acceptor(Acceptor::new().compression(Compression::ContextTakeover)).http2()
}

/// Starts a server that echoes, and returns its address.
pub(crate) async fn serve(server: Server) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { server.serve(listener, echo).await });
    address
}

/// Sends every message back.
pub(crate) async fn echo(mut socket: WebSocket) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    while let Some(message) = socket.recv().await? {
        socket.send(message).await?;
    }
    Ok(())
}

/// A configuration of TLS with a new certificate for localhost, and that certificate in PEM.
pub(crate) fn tls() -> (Arc<ServerConfig>, String) {
    let identity = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(identity.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(bowline::crypto_provider().unwrap())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![identity.cert.der().clone()], key)
        .unwrap();
    (Arc::new(config), identity.cert.pem())
}
