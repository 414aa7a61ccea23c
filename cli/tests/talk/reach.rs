//! The ways to a server: headers, addresses, Unix sockets, proxies, TLS, HTTP/2, refusals.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use bowline::Server;
use bowline::rustls::pki_types::pem::PemObject;
use bowline::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use bowline::rustls::server::WebPkiClientVerifier;
use bowline::rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{acceptor, answer, deaf_server, run, serve, url};

/// Asserts that the request has these lines.
async fn expect_head(arguments: &[&str], lines: &[&str]) {
    let outcome = run(arguments, b"").await;
    assert_eq!(outcome.status, 0, "{arguments:?}: {}", outcome.stderr);
    for line in lines {
        assert!(outcome.text().lines().any(|found| found == *line), "{line:?}: {}", outcome.text());
    }
}

#[tokio::test]
async fn headers_are_sent_as_given() {
    let address = serve().await;
    let head = url(address, "/head");
    expect_head(&[&head, "-H", "X-One: 1", "-H", "x-one:2"], &["x-one: 1", "x-one: 2"]).await;
    expect_head(&[&head, "-u", "user:pass:word"], &["authorization: Basic dXNlcjpwYXNzOndvcmQ="]).await;
    expect_head(&[&head, "--bearer", "abc"], &["authorization: Bearer abc"]).await;
    expect_head(&[&head, "-s", "one", "-s", "two"], &["sec-websocket-protocol: one, two"]).await;
    expect_head(&[&head, "--host", "other"], &["host: other"]).await;
    expect_head(&[&head, "-H", "Host: other"], &["host: other"]).await;
    expect_head(&[&head, "--host", "a.test", "--origin", "http://a.test"], &["origin: http://a.test"]).await;
    expect_head(&[&head, "-z"], &["sec-websocket-extensions: permessage-deflate; client_max_window_bits"])
        .await;
    let userinfo = format!("ws://me:secret@{address}/head");
    expect_head(&[&userinfo], &["authorization: Basic bWU6c2VjcmV0"]).await;
    let token = file("token", "from-a-file\n");
    expect_head(
        &[&head, "--bearer", &format!("@{}", token.display())],
        &["authorization: Bearer from-a-file"],
    )
    .await;
    std::fs::remove_file(token).unwrap();
}

#[tokio::test]
async fn compressed_messages_pass() {
    let address = serve().await;
    let text = "x".repeat(10_000);
    let expected = format!("{text}\n");
    run(&[&url(address, "/echo"), "-z", "-n", "1"], text.as_bytes()).await.expect(0, &expected);
}

#[tokio::test]
async fn an_address_may_replace_name_resolution() {
    let address = serve().await;
    let port = address.port();
    let named = format!("ws://name.invalid:{port}/head");
    let resolve = format!("name.invalid:{port}:127.0.0.1");
    expect_head(&[&named, "--resolve", &resolve], &[&format!("host: name.invalid:{port}")]).await;
    let other = format!("other.invalid:{port}:127.0.0.1");
    run(&[&named, "--resolve", &other], b"").await.expect(3, "");
    run(&[&named, "--resolve", "nonsense"], b"").await.expect(2, "");
}

#[tokio::test]
async fn the_family_of_addresses_may_be_chosen() {
    let address = serve().await;
    run(&[&url(address, "/echo"), "-4", "-m", "a"], b"").await.expect(0, "a\n");
    let outcome = run(&[&url(address, "/echo"), "-6", "-m", "a"], b"").await.expect(3, "");
    assert!(outcome.stderr.contains("no address of the family"), "{}", outcome.stderr);
}

#[cfg(unix)]
#[tokio::test]
async fn a_unix_socket_leads_to_a_server() {
    let path = std::env::temp_dir().join(format!("bowline-talk-{}.sock", std::process::id()));
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(Server::new().acceptor(acceptor()).serve(listener, answer));
    let socket = path.to_str().unwrap();
    expect_head(&["ws://name.invalid/head", "--unix", socket], &["host: name.invalid"]).await;
    std::fs::remove_file(&path).unwrap();
    let outcome = run(&["ws://name.invalid/head", "--unix", socket], b"").await.expect(3, "");
    assert!(outcome.stderr.contains(socket), "{}", outcome.stderr);
}

#[tokio::test]
async fn a_proxy_leads_to_a_server() {
    let address = serve().await;
    let (proxy, heads) = proxy(address, "200 OK").await;
    let proxy_url = format!("http://{proxy}");
    run(&["ws://name.invalid/echo", "--proxy", &proxy_url, "-m", "a"], b"").await.expect(0, "a\n");
    assert!(heads.await.unwrap().starts_with("CONNECT name.invalid:80 HTTP/1.1\r\n"));
    let (proxy, _heads) = self::proxy(address, "403 Forbidden").await;
    let proxy_url = format!("http://{proxy}");
    let outcome = run(&["ws://name.invalid/echo", "--proxy", &proxy_url, "-m", "a"], b"").await.expect(3, "");
    assert!(outcome.stderr.starts_with("bowline: "), "{}", outcome.stderr);
    run(&["ws://localhost/", "--proxy", "ftp://localhost"], b"").await.expect(2, "");
    run(&[&url(address, "/echo"), "--proxy", "none", "-m", "a"], b"").await.expect(0, "a\n");
}

/// A proxy for one connection, which leads to `target`. Returns its address, and the head of its request.
async fn proxy(target: SocketAddr, status: &'static str) -> (SocketAddr, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let head = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let (mut stream, head) = read_head(stream).await;
        stream.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).await.unwrap();
        if status.starts_with("200") {
            let mut server = TcpStream::connect(target).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut stream, &mut server).await });
        }
        head
    });
    (address, head)
}

async fn read_head(stream: TcpStream) -> (BufReader<TcpStream>, String) {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        stream.read_line(&mut head).await.unwrap();
    }
    (stream, head)
}

#[tokio::test]
async fn http2_leads_to_a_server() {
    let address = serve().await;
    let outcome = run(&[&url(address, "/echo"), "--http", "2", "-m", "a", "-v"], b"").await.expect(0, "a\n");
    for line in ["> :protocol: websocket", "> :path: /echo", "< HTTP/2.0 200 OK"] {
        assert!(outcome.stderr.lines().any(|found| found == line), "{line}: {}", outcome.stderr);
    }
    assert!(!outcome.stderr.contains("sec-websocket-key"), "{}", outcome.stderr);
}

#[tokio::test]
async fn a_certificate_is_checked_unless_told_otherwise() {
    let identity = Identity::new();
    let address = serve_tls(&identity, None).await;
    let echo = format!("wss://localhost:{}/echo", address.port());
    let outcome = run(&[&echo, "-m", "a"], b"").await.expect(3, "");
    assert!(outcome.stderr.contains("certificate"), "{}", outcome.stderr);
    run(&[&echo, "-m", "a", "-k"], b"").await.expect(0, "a\n");
    let cacert = file("cacert.pem", &identity.certificate);
    run(&[&echo, "-m", "a", "--cacert", cacert.to_str().unwrap()], b"").await.expect(0, "a\n");
    let wrong_name = format!("wss://name.invalid:{}/echo", address.port());
    let resolve = format!("name.invalid:{}:127.0.0.1", address.port());
    let arguments = [&wrong_name, "-m", "a", "--cacert", cacert.to_str().unwrap(), "--resolve", &resolve];
    run(&arguments, b"").await.expect(3, "");
    std::fs::remove_file(&cacert).unwrap();
    let other = Identity::new();
    let cacert = file("other-cacert.pem", &other.certificate);
    run(&[&echo, "-m", "a", "--cacert", cacert.to_str().unwrap()], b"").await.expect(3, "");
    std::fs::write(&cacert, "no certificate").unwrap();
    run(&[&echo, "--cacert", cacert.to_str().unwrap()], b"").await.expect(2, "");
    std::fs::remove_file(&cacert).unwrap();
}

#[tokio::test]
async fn a_client_certificate_is_sent() {
    let (of_server, of_client) = (Identity::new(), Identity::new());
    let address = serve_tls(&of_server, Some(&of_client)).await;
    let echo = format!("wss://localhost:{}/echo", address.port());
    let cert = file("cert.pem", &of_client.certificate);
    let key = file("key.pem", &of_client.key);
    let (cert_path, key_path) = (cert.to_str().unwrap(), key.to_str().unwrap());
    run(&[&echo, "-m", "a", "-k", "--cert", cert_path, "--key", key_path], b"").await.expect(0, "a\n");
    assert_ne!(run(&[&echo, "-m", "a", "-k"], b"").await.status, 0);
    run(&[&echo, "-k", "--cert", cert_path], b"").await.expect(2, "");
    run(&[&echo, "-k", "--cert", cert_path, "--key", cert_path], b"").await.expect(2, "");
    std::fs::remove_file(cert).unwrap();
    std::fs::remove_file(key).unwrap();
}

/// Starts a server that answers one request with these bytes, and leaves the connection open.
async fn answer_with(response: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = read_head(listener.accept().await.unwrap().0).await;
        stream.write_all(response.as_bytes()).await.unwrap();
        std::future::pending::<()>().await;
    });
    address
}

#[tokio::test]
async fn errors_name_nothing_of_the_library() {
    let redirect = "HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n".to_owned();
    let head = format!("HTTP/1.1 101 Switching Protocols\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let servers = [answer_with(String::new()).await, answer_with(redirect).await, answer_with(head).await];
    let [silent, redirecting, verbose] = servers.map(|address| url(address, "/"));
    let deaf = url(deaf_server().await, "/");
    let outcomes = tokio::join!(
        async { run(&[&silent], b"").await },
        async { run(&[&redirecting], b"").await },
        async { run(&[&verbose], b"").await },
        async { run(&[&deaf, "-v", "-r", "-n", "1"], b"").await },
    );
    let expected = [
        (outcomes.0, 3, "the opening handshake took longer than 10s while"),
        (outcomes.1, 4, "redirects are not followed"),
        (outcomes.2, 4, "the response's head is over the limits of"),
        (outcomes.3, 0, "the peer did not end the connection within 5s"),
    ];
    for (outcome, status, text) in expected {
        assert_eq!(outcome.status, status, "{}", outcome.stderr);
        assert!(outcome.stderr.contains(text) && !outcome.stderr.contains("::"), "{}", outcome.stderr);
    }
}

#[tokio::test]
async fn a_refusal_is_shown_with_its_body() {
    let address = serve().await;
    let outcome = run(&[&url(address, "/refuse"), "-m", "a"], b"").await.expect(4, "");
    assert!(outcome.stderr.starts_with("bowline: "), "{}", outcome.stderr);
    for part in ["401", "\n  www-authenticate: Basic realm=\"x\"\n", "\n\nno entry\n"] {
        assert!(outcome.stderr.contains(part), "{part:?}: {}", outcome.stderr);
    }
    // A server of another kind.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let (mut stream, _) = read_head(stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await.unwrap();
    });
    let outcome = run(&[&url(address, "/"), "-m", "a"], b"").await.expect(4, "");
    assert!(outcome.stderr.contains("200") && outcome.stderr.contains("\n\nhello"), "{}", outcome.stderr);
}

/// A self-signed certificate for localhost, and its key, in PEM.
struct Identity {
    certificate: String,
    key: String,
}

impl Identity {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        Self { certificate: made.cert.pem(), key: made.signing_key.serialize_pem() }
    }

    fn certificate(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()
    }
}

/// Starts a server with TLS, which demands the certificate of a client if there is one.
async fn serve_tls(identity: &Identity, client: Option<&Identity>) -> SocketAddr {
    let provider = bowline::crypto_provider().unwrap();
    let builder =
        ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let builder = match client {
        None => builder.with_no_client_auth(),
        Some(client) => {
            let mut roots = RootCertStore::empty();
            roots.add(client.certificate()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
    let config = builder.with_single_cert(vec![identity.certificate()], key).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(Server::new().acceptor(acceptor()).tls(Arc::new(config)).serve(listener, answer));
    address
}

fn file(name: &str, text: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("bowline-talk-{}-{name}", std::process::id()));
    std::fs::write(&path, text).unwrap();
    path
}
