//! HTTP/3: `serve --http3` beside TCP, and the commands that are its clients.

use std::process::Output;
use std::sync::Arc;

use bowline::rustls::pki_types::{CertificateDer, ServerName};
use bowline::rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::process::{Running, bowline, within};

/// Runs the program without a proxy of the environment.
async fn run(arguments: &[&str]) -> Output {
    let mut command = bowline();
    for variable in ["http_proxy", "https_proxy", "all_proxy"] {
        command.env_remove(variable).env_remove(variable.to_uppercase());
    }
    within(command.args(arguments).output()).await.unwrap()
}

#[track_caller]
fn expect(output: &Output, status: i32, stdout: &str, stderr: &[&str]) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((output.status.code(), &*out), (Some(status), stdout), "{err}");
    for part in stderr {
        assert!(err.contains(part), "{part:?} is not in {err}");
    }
}

#[tokio::test]
async fn one_port_serves_tcp_and_quic_and_tells_of_it() {
    let server = Running::start(&["--http3", "--http2"]).await;
    assert!(server.url.starts_with("wss://"), "{}", server.url);
    let port = server.authority().rsplit_once(':').unwrap().1;
    let alt_svc = format!("< alt-svc: h3=\":{port}\"; ma=86400\n");
    let url = server.at("/feed");
    let output = run(&[&url, "--http", "3", "-k", "-m", "hello", "-n", "1", "-v"]).await;
    let shown = ["> :protocol: websocket\n", "> :path: /feed\n", "* QUIC version 1, TLS 1.3, ALPN h3\n"];
    expect(&output, 0, "hello\n", &shown);
    expect(&output, 0, "hello\n", &["* connected after ", ", open after ", "< HTTP/3.0 200 OK\n", &alt_svc]);
    for (version, line) in [("1.1", "< HTTP/1.1 101 Switching Protocols\n"), ("2", "< HTTP/2.0 200 OK\n")] {
        let output = run(&[&url, "--http", version, "-k", "-m", "hello", "-n", "1", "-v"]).await;
        expect(&output, 0, "hello\n", &[line, &alt_svc]);
    }
    // Without a scheme, the URL is one of TLS.
    let output = run(&[server.authority(), "--http", "3", "-k", "-m", "hello", "-n", "1"]).await;
    expect(&output, 0, "hello\n", &[]);
}

#[tokio::test]
async fn all_modes_are_shared_with_tcp() {
    let server = Running::start(&["--http3", "--broadcast"]).await;
    let listening = tokio::spawn({
        let url = server.url.clone();
        async move { run(&[&url, "-k", "-r", "-n", "1"]).await }
    });
    // The listener may not be there yet.
    while !listening.is_finished() {
        let output = run(&[&server.url, "--http", "3", "-k", "-m", "hello", "-n", "1"]).await;
        expect(&output, 0, "hello\n", &[]);
    }
    expect(&listening.await.unwrap(), 0, "hello\n", &[]);
}

#[tokio::test]
async fn the_certificate_and_the_addresses_are_those_of_the_options() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["name.invalid".to_owned()]).unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    std::fs::write(folder.path().join("index.html"), "hello").unwrap();
    let files = folder.path().to_str().unwrap();
    let server = Running::start(&["--http3", "--cert", cert, "--key", key, "--files", files]).await;
    let port = server.authority().rsplit_once(':').unwrap().1;
    let (url, resolve) = (format!("wss://name.invalid:{port}/"), format!("name.invalid:{port}:127.0.0.1"));
    let arguments = [&url, "--http", "3", "-m", "a", "-n", "1", "--resolve", &resolve];
    let output = run(&[&arguments[..], &["--cacert", cert]].concat()).await;
    expect(&output, 0, "a\n", &[]);
    expect(&run(&arguments).await, 3, "", &["certificate"]);
    let output = run(&[&server.url, "--http", "3", "-k", "-m", "a", "-n", "1", "-4"]).await;
    expect(&output, 0, "a\n", &[]);
    let output = run(&[&server.url, "--http", "3", "-k", "-m", "a", "-6"]).await;
    expect(&output, 3, "", &["no address of the family"]);
    let page = get(server.authority(), made.cert.der().clone()).await;
    assert!(page.contains(&format!("\r\nalt-svc: h3=\":{port}\"; ma=86400\r\n")), "{page}");
    assert!(page.ends_with("\r\n\r\nhello"), "{page}");
}

/// Requests the page of the server over HTTP/1.1 and TLS.
async fn get(authority: &str, certificate: CertificateDer<'static>) -> String {
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let config = ClientConfig::builder_with_provider(bowline::crypto_provider().unwrap())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(authority).await.unwrap();
    let name = ServerName::try_from("name.invalid").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut page = String::new();
    within(stream.read_to_string(&mut page)).await.unwrap();
    page
}

#[tokio::test]
async fn options_that_quic_does_not_allow_are_named() {
    for (arguments, named) in [
        (&["ws://localhost", "--http", "3", "-m", "a"][..], "wss:// or https://"),
        (&["wss://localhost", "--http", "3", "-m", "a", "--unix", "/socket"], "--unix"),
        (&["wss://localhost", "--http", "3", "-m", "a", "--proxy", "http://localhost:1"], "--proxy none"),
        (&["wss://localhost", "--http", "3", "-m", "a", "--reconnect"], "--reconnect"),
        (&["bench", "wss://localhost", "--http", "3", "--source", "127.0.0.2"], "--source"),
        (&["check", "wss://localhost", "--http", "3", "--unix", "/socket"], "--unix"),
        (&["check", "localhost", "--http", "3", "--compress"], "--compress"),
        (&["serve", "unix:/socket", "--http3"], "--http3"),
    ] {
        let output = run(arguments).await;
        expect(&output, 2, "", &[named]);
        assert!(!String::from_utf8_lossy(&output.stderr).contains("::"), "{output:?}");
    }
}

#[tokio::test]
async fn a_port_that_udp_has_not_is_named() {
    // A server without HTTP/3 leaves UDP to others.
    let tcp = Running::start(&[]).await;
    let address = tcp.authority().to_owned();
    let _udp = tokio::net::UdpSocket::bind(&address).await.unwrap();
    tcp.kill().await;
    let output = run(&["serve", &address, "--http3"]).await;
    expect(&output, 1, "", &[&address]);
}

#[tokio::test]
async fn messages_over_quic_are_measured() {
    let server = Running::start(&["--http3"]).await;
    let options = ["-k", "-c", "3", "--rate", "100/s", "-d", "1s", "--fail-if", "errors>0", "--json"];
    let output = run(&[&["bench", &server.url, "--http", "3"], &options[..]].concat()).await;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{report}");
    assert!(report.to_string().contains("tls"), "{report}");
}

#[cfg(unix)]
#[tokio::test]
async fn a_signal_closes_connections_over_quic() {
    let server = Running::start(&["--http3"]).await;
    let url = server.url.clone();
    let mut command = bowline();
    command.args([&url, "--http", "3", "-k", "-m", "hello", "--linger", "forever", "-v"]);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = [0; 6];
    within(child.stdout.as_mut().unwrap().read_exact(&mut line)).await.unwrap();
    assert_eq!(&line, b"hello\n");
    server.signal(rustix::process::Signal::TERM);
    let output = within(child.wait_with_output()).await.unwrap();
    expect(&output, 0, "", &["1001"]);
    assert_eq!(server.end().await.0.code(), Some(143));
}
