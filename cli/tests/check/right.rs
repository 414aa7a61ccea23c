//! No finding on right servers: the library, over everything that carries it.

use bowline::{CloseCode, WebSocket};
use tokio::net::TcpListener;

use crate::support::{check, echo, right_server, serve, tls};

#[tokio::test]
async fn the_library_is_right_over_http1() {
    let address = serve(right_server()).await.to_string();
    check(&["--strict", "--echo", &address]).await.expect_right();
}

#[tokio::test]
async fn the_library_is_right_over_http2() {
    let address = serve(right_server()).await.to_string();
    check(&["--strict", "--echo", "--http", "2", &address]).await.expect_right();
}

#[tokio::test]
async fn the_library_is_right_without_compression() {
    let address = serve(bowline::Server::new()).await.to_string();
    let outcome = check(&["--strict", "--echo", &address]).await;
    outcome.expect_right();
    assert!(outcome.stdout.contains("skipped"), "{}", outcome.stdout);
}

#[tokio::test]
async fn the_library_is_right_over_tls() {
    let (config, certificate) = tls();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("certificate.pem");
    std::fs::write(&file, certificate).unwrap();
    let address = serve(right_server().tls(config)).await;
    let url = format!("wss://localhost:{}", address.port());
    let options = ["--strict", "--echo", "-4", "--cacert", file.to_str().unwrap()];
    check(&[&options[..], &[&url]].concat()).await.expect_right();
    check(&[&options[..], &["--http", "2", &url]].concat()).await.expect_right();
}

#[cfg(feature = "http3")]
#[tokio::test]
async fn the_library_is_right_over_http3() {
    let (config, certificate) = tls();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("certificate.pem");
    std::fs::write(&file, certificate).unwrap();
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let url = format!("localhost:{}", socket.local_addr().unwrap().port());
    tokio::spawn(bowline_http3::Http3Server::new(right_server().tls(config)).serve(socket, echo));
    let options = ["--strict", "--echo", "--http", "3", "-4", "--wait", "2s", "--cacert"];
    let options = [&options[..], &[file.to_str().unwrap()]].concat();
    check(&[&options[..], &[&url]].concat()).await.expect_right();
    let outcome = check(&[&options[..], &["--case", "http3.reset", "-vv", &url]].concat()).await;
    outcome.expect_right();
    assert!(outcome.stdout.contains(":protocol \"websocket\""), "{}", outcome.stdout);
}

#[cfg(unix)]
#[tokio::test]
async fn the_library_is_right_over_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(async move { right_server().serve(listener, echo).await });
    // The host need not exist, and --yes is not needed.
    check(&["--unix", path.to_str().unwrap(), "ws://example.com"]).await.expect_right();
}

/// Servers that are no echo servers: cases that the application ends don't apply.
#[tokio::test]
async fn an_application_may_close_at_any_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let closing = |socket: WebSocket| async move {
        socket.close(CloseCode(4000), "not for you").await?;
        Ok(())
    };
    tokio::spawn(async move { right_server().serve(listener, closing).await });
    let outcome = check(&[&address]).await;
    outcome.expect_right();
    assert!(outcome.stdout.contains(" skipped"), "{}", outcome.stdout);
    let outcome = check(&["--case", "control.ping-0", "-v", &address]).await;
    assert!(outcome.stdout.contains("skip  control.ping-0"), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("the application closed with the code 4000"), "{}", outcome.stdout);
}

#[tokio::test]
async fn an_application_may_greet_and_answer_something_else() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let greeting = |mut socket: WebSocket| async move {
        socket.send("welcome").await?;
        while let Some(message) = socket.recv().await? {
            socket.send(format!("{} bytes", message.as_bytes().len())).await?;
        }
        Ok(())
    };
    tokio::spawn(async move { right_server().serve(listener, greeting).await });
    check(&["--strict", &address]).await.expect_right();
}
