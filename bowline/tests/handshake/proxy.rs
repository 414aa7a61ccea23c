//! Proxies: explicit ones, and those of the environment.

use std::error::Error;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use bowline::{Connector, ErrorKind, HandshakeTimes, Limits, Proxy, Server, WebSocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::sync::mpsc;

use crate::support::http::{Head, echo, http_proxy, listen, read_head, soon, start, tunnel};

/// The request of a client to a SOCKS 5 proxy (RFC 1928, RFC 1929).
#[derive(Debug, PartialEq)]
struct Asked {
    credentials: Option<(String, String)>,
    /// 1 for an IPv4 address, 3 for a name.
    address_type: u8,
    address: Vec<u8>,
    port: u16,
}

/// Starts a SOCKS 5 proxy that connects to `target`, whatever the request.
async fn socks_proxy(target: SocketAddr) -> (SocketAddr, mpsc::UnboundedReceiver<Asked>) {
    let (sender, asked) = mpsc::unbounded_channel();
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            sender.send(answer_socks(&mut stream).await).unwrap();
            let mut target = TcpStream::connect(target).await.unwrap();
            let _ = copy_bidirectional(&mut stream, &mut target).await;
        }
    });
    (address, asked)
}

async fn answer_socks(stream: &mut TcpStream) -> Asked {
    assert_eq!(stream.read_u8().await.unwrap(), 5);
    let methods = counted(stream).await;
    let method = methods[0];
    stream.write_all(&[5, method]).await.unwrap();
    let credentials = match method {
        0 => None,
        2 => {
            assert_eq!(stream.read_u8().await.unwrap(), 1);
            let (user, password) = (counted(stream).await, counted(stream).await);
            stream.write_all(&[1, 0]).await.unwrap();
            Some((String::from_utf8(user).unwrap(), String::from_utf8(password).unwrap()))
        }
        other => panic!("method {other}"),
    };
    let mut request = [0; 4];
    stream.read_exact(&mut request).await.unwrap();
    assert_eq!(request[..3], [5, 1, 0]);
    let address_type = request[3];
    let address = match address_type {
        1 => {
            let mut address = vec![0; 4];
            stream.read_exact(&mut address).await.unwrap();
            address
        }
        3 => counted(stream).await,
        other => panic!("address type {other}"),
    };
    let port = stream.read_u16().await.unwrap();
    stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
    Asked { credentials, address_type, address, port }
}

/// Reads a length byte and as many bytes.
async fn counted(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = vec![0; usize::from(stream.read_u8().await.unwrap())];
    stream.read_exact(&mut bytes).await.unwrap();
    bytes
}

async fn assert_echo(connector: &Connector, url: &str) -> WebSocket {
    let (mut socket, _) = soon(connector.connect(url)).await.unwrap();
    socket.send("hello").await.unwrap();
    assert_eq!(soon(socket.recv()).await.unwrap(), Some("hello".into()));
    socket
}

fn through(proxy: &str) -> Connector {
    Connector::new().proxy(Proxy::new(proxy).unwrap())
}

#[tokio::test]
async fn an_http_proxy_is_asked_for_a_tunnel() {
    let target = start(Server::new(), echo).await;
    let (proxy, mut heads) = http_proxy(target).await;
    // The name is not resolved locally: it does not exist.
    assert_echo(&through(&format!("http://{proxy}")), "ws://name.invalid/chat").await;
    let head = heads.recv().await.unwrap();
    assert!(head.text().starts_with("CONNECT name.invalid:80 HTTP/1.1\r\n"), "{head:?}");
    assert_eq!(head.get("host").as_deref(), Some("name.invalid:80"));
    assert_eq!(head.get("proxy-authorization"), None);

    // `Aladdin:open sesame`, the example of RFC 7617 2.
    let proxy = format!("http://Aladdin:open%20sesame@{proxy}");
    assert_echo(&through(&proxy), "ws://[::1]:8080/chat").await;
    let head = heads.recv().await.unwrap();
    assert!(head.text().starts_with("CONNECT [::1]:8080 HTTP/1.1\r\n"), "{head:?}");
    assert_eq!(head.get("proxy-authorization").as_deref(), Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="));
}

#[tokio::test]
async fn a_connection_through_a_proxy_is_on_the_fast_path() {
    let target = start(Server::new(), echo).await;
    let (proxy, _heads) = http_proxy(target).await;
    let connector = through(&format!("http://{proxy}"));
    let (socket, _) = soon(connector.connect("ws://name.invalid/")).await.unwrap();
    assert!(socket.is_tcp_fast_path());
    assert_eq!(socket.peer_addr(), Some(proxy));
}

#[tokio::test]
async fn a_refusal_of_the_proxy_is_an_io_error() {
    for (answer, named) in [("407 Proxy Authentication Required", "authorization"), ("403 Forbidden", "")] {
        let (listener, address) = listen().await;
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_head(&mut stream).await;
            stream.write_all(format!("HTTP/1.1 {answer}\r\n\r\n").as_bytes()).await.unwrap();
        });
        let error =
            soon(through(&format!("http://{address}")).connect("ws://name.invalid/")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        assert!(error.source().unwrap().to_string().contains(named), "{error:?}");
    }
}

#[tokio::test]
async fn a_proxy_that_never_answers_times_out() {
    let (listener, address) = listen().await;
    let limits = Limits::default().handshake_timeout(Duration::from_millis(100));
    let connector = through(&format!("http://{address}")).limits(limits);
    let error = soon(connector.connect("ws://name.invalid/")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("proxy"), "{error}");
    drop(listener);
}

#[tokio::test]
async fn a_socks_proxy_resolves_the_name_for_socks5h() {
    let target = start(Server::new(), echo).await;
    let (proxy, mut asked) = socks_proxy(target).await;
    assert_echo(&through(&format!("socks5h://user:pass@{proxy}")), "ws://name.invalid/").await;
    let expected = Asked {
        credentials: Some(("user".to_owned(), "pass".to_owned())),
        address_type: 3,
        address: b"name.invalid".to_vec(),
        port: 80,
    };
    assert_eq!(asked.recv().await.unwrap(), expected);
}

#[tokio::test]
async fn the_name_is_resolved_here_for_socks5() {
    let target = start(Server::new(), echo).await;
    let (proxy, mut asked) = socks_proxy(target).await;
    let connector = through(&format!("socks5://{proxy}"));
    assert_echo(&connector, "ws://127.0.0.1:8080/").await;
    let expected = Asked { credentials: None, address_type: 1, address: vec![127, 0, 0, 1], port: 8080 };
    assert_eq!(asked.recv().await.unwrap(), expected);
    for (url, is_resolved) in [("ws://127.0.0.1:8080/", false), ("ws://localhost:8080/", true)] {
        let (_socket, response) = soon(connector.connect(url)).await.unwrap();
        let times = response.extensions().get::<HandshakeTimes>().unwrap();
        assert_eq!(times.resolved().is_some(), is_resolved, "{url}: {times:?}");
    }

    let error = soon(connector.connect("ws://name.invalid/")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("resolving name.invalid:80"), "{error}");
}

#[test]
fn urls_that_are_no_proxys_are_refused() {
    for url in
        ["", "proxy.example:3128", "ftp://proxy.example", "http://", "http://a b", "socks4://proxy.example"]
    {
        let error = Proxy::new(url).expect_err(url);
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{url}");
    }
    for (url, named) in [
        ("http://user:secret/x@proxy.example", "percent-encode"),
        ("http://user:secret?x@proxy.example", "percent-encode"),
        ("http://user:secret#x@proxy.example", "percent-encode"),
        ("http://user:/secret@proxy.example", "percent-encode"),
        ("http://user:80/secret@proxy.example", "path"),
        ("http://user:sec@secret@proxy.example", "percent-encode"),
        (r"http://user:sec\ret@proxy.example", "percent-encode"),
        ("http://user:sec ret@proxy.example", "percent-encode"),
        ("http://user:secret%@proxy.example", "percent-encode"),
        ("socks5://user:secret/x@proxy.example:1080", "percent-encode"),
        ("http://user:secret@proxy.example:http", "http"),
        ("http://user:secret@proxy example", "proxy example"),
        ("http://user:secret@[fe80::1%25eth0]:3128", "zone"),
        ("http://proxy.example/pac", "path"),
        ("http://proxy.example?a", "path"),
        ("http://proxy.example#a", "path"),
        ("ftp://user:secret@proxy.example", "\"ftp\""),
        ("user:secret@proxy.example://", "http"),
    ] {
        let error = Proxy::new(url).expect_err(url);
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{url}");
        let text = error.to_string();
        assert!(text.contains(named) && !text.contains("secret"), "{url}: {text}");
        assert!(text.contains("proxy"), "{url}: {text}");
    }
    for url in ["HTTP://proxy.example/", "http://user:p%2Fq%40@proxy.example:3128", "http://user@[::1]:3128/"]
    {
        Proxy::new(url).expect(url);
    }
    let parsed: Proxy = "http://user:secret@proxy.example".parse().unwrap();
    let from_uri = Proxy::new(http::Uri::from_static("http://user:secret@proxy.example")).unwrap();
    assert_eq!(format!("{parsed:?}"), format!("{from_uri:?}"));
    let error = "ftp://user:secret@proxy.example".parse::<Proxy>().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let debug = format!("{:?}", Proxy::new("http://user:secret@proxy.example").unwrap());
    assert!(debug.contains("proxy.example") && !debug.contains("secret"), "{debug}");
}

#[cfg(feature = "tls")]
mod tls {
    use std::sync::Arc;

    use super::*;
    use crate::support::tls::configs;
    use tokio_rustls::TlsAcceptor;

    #[tokio::test]
    async fn a_proxy_behind_tls_and_a_server_behind_tls() {
        let (server_config, client_config) = configs();
        let plain = start(Server::new(), echo).await;
        let secure = start(Server::new().tls(Arc::clone(&server_config)), echo).await;
        for (url, target) in [("ws://localhost/", plain), ("wss://localhost/", secure)] {
            let (sender, mut heads) = mpsc::unbounded_channel();
            let (listener, proxy) = listen().await;
            let acceptor = TlsAcceptor::from(Arc::clone(&server_config));
            tokio::spawn(async move {
                let (stream, _) = listener.accept().await.unwrap();
                tunnel(acceptor.accept(stream).await.unwrap(), target, sender).await;
            });
            let connector =
                through(&format!("https://localhost:{}", proxy.port())).tls(Arc::clone(&client_config));
            let socket = assert_echo(&connector, url).await;
            assert_eq!(socket.peer_addr(), Some(proxy));
            let port = if url.starts_with("wss") { 443 } else { 80 };
            assert_eq!(heads.recv().await.unwrap().second_word(), format!("localhost:{port}"));
        }
    }

    #[tokio::test]
    async fn a_server_behind_tls_through_a_plain_proxy() {
        let (server_config, client_config) = configs();
        let target = start(Server::new().tls(server_config), echo).await;
        let (proxy, mut heads) = http_proxy(target).await;
        let connector = through(&format!("http://{proxy}")).tls(client_config);
        assert_echo(&connector, "wss://localhost/").await;
        assert_eq!(heads.recv().await.unwrap().second_word(), "localhost:443");
    }
}

/// Returns whether a process with these variables connects through the proxy that returns these heads.
async fn uses_proxy(
    url: &str,
    choice: &str,
    heads: &mut mpsc::UnboundedReceiver<Head>,
    variables: &[(&str, &str)],
) -> bool {
    let mut child = Command::new(std::env::current_exe().unwrap());
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUEST_METHOD"] {
        child.env_remove(name).env_remove(name.to_lowercase());
    }
    let output = child
        .args(["--exact", "proxy::in_a_process_of_its_own", "--ignored"])
        .env("BOWLINE_TEST_URL", url)
        .env("BOWLINE_TEST_PROXY", choice)
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output();
    let output = soon(output).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{variables:?}: {said}");
    heads.try_recv().is_ok()
}

#[tokio::test]
async fn the_environment_names_proxies_and_exceptions() {
    let target = start(Server::new(), echo).await;
    let (proxy, mut heads) = http_proxy(target).await;
    let proxy = format!("http://{proxy}");
    let proxy = proxy.as_str();
    let (name, address) = ("localhost", "127.0.0.1");
    for (host, variables, expected) in [
        (address, &[][..], false),
        (address, &[("HTTP_PROXY", proxy)], true),
        (address, &[("http_proxy", proxy)], true),
        (address, &[("ALL_PROXY", proxy)], true),
        (address, &[("HTTPS_PROXY", proxy)], false),
        (address, &[("HTTP_PROXY", proxy), ("NO_PROXY", "127.0.0.1")], false),
        (address, &[("HTTP_PROXY", proxy), ("NO_PROXY", "127.0.0.0/8")], false),
        (address, &[("HTTP_PROXY", proxy), ("no_proxy", "example.com, 127.0.0.1")], false),
        (address, &[("HTTP_PROXY", proxy), ("NO_PROXY", "example.com")], true),
        (name, &[("HTTP_PROXY", proxy), ("NO_PROXY", "localhost")], false),
        (name, &[("HTTP_PROXY", proxy), ("NO_PROXY", "*")], false),
        (name, &[("HTTP_PROXY", proxy), ("NO_PROXY", "host")], true),
    ] {
        let url = format!("ws://{host}:{}/", target.port());
        let used = uses_proxy(&url, "environment", &mut heads, variables).await;
        assert_eq!(used, expected, "{host} with {variables:?}");
    }
    let url = format!("ws://{target}/");
    assert!(!uses_proxy(&url, "none", &mut heads, &[("HTTP_PROXY", proxy)]).await, "none is none");
}

#[tokio::test]
async fn a_password_of_the_environment_is_not_taken_for_a_host() {
    let (listener, address) = listen().await;
    drop(listener);
    let (_sender, mut heads) = mpsc::unbounded_channel();
    let proxy = format!("http://user:secret/x@{address}");
    let url = format!("ws://{address}/");
    assert!(!uses_proxy(&url, "refused", &mut heads, &[("HTTP_PROXY", &proxy)]).await);
}

/// This function is no test of its own. The tests above run it as a process, because the environment belongs
/// to the whole process.
#[tokio::test]
#[ignore = "run by others"]
async fn in_a_process_of_its_own() {
    // Without the variables, this is a run of all ignored tests.
    let Ok(url) = std::env::var("BOWLINE_TEST_URL") else { return };
    let connector = match std::env::var("BOWLINE_TEST_PROXY").unwrap().as_str() {
        "refused" => {
            let error = bowline::connect(url).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            assert!(
                error.to_string().contains("proxy") && !format!("{error:?}").contains("secret"),
                "{error:?}"
            );
            return;
        }
        "none" => Connector::new().proxy(Proxy::none()),
        _ => Connector::new(),
    };
    assert_echo(&connector, &url).await;
}
