//! `--reconnect`.

use bowline::Server;
use tokio::net::TcpListener;

use crate::support::{acceptor, answer, run, serve, url};

#[tokio::test]
async fn a_subscription_is_sent_again_after_each_loss() {
    let address = serve().await;
    for path in ["/echo/1", "/echo-and-fail"] {
        let arguments = [&url(address, path), "--reconnect", "-r", "-m", "subscribe", "-n", "3"];
        let outcome = run(&arguments, b"").await.expect(0, "subscribe\nsubscribe\nsubscribe\n");
        assert_eq!(outcome.stderr.matches("next attempt in ").count(), 2, "{}", outcome.stderr);
        assert!(!outcome.stderr.contains("not sent again"), "{}", outcome.stderr);
    }
}

#[tokio::test]
async fn messages_that_may_be_lost_are_counted_after_each_loss() {
    let address = serve().await;
    // The server reads one of the messages.
    let arguments = [&url(address, "/close/1000/"), "--reconnect", "-m", "-", "--linger", "10ms"];
    let outcome = run(&arguments, b"1\n2\n3\n").await.expect(0, "");
    let notice = "bowline: messages sent over the connection that ended: 3, received: 0; \
                  any that did not arrive are not sent again\n";
    assert_eq!(outcome.stderr.matches(notice).count(), 1, "{}", outcome.stderr);
}

#[tokio::test]
async fn lines_are_sent_once_and_in_order_over_several_connections() {
    let address = serve().await;
    // Each connection is closed after one reply. A line that was sent before may be lost with the connection.
    let outcome = run(&[&url(address, "/echo/1"), "--reconnect", "-q", "--linger", "4s"], b"1\n2\n3\n").await;
    assert_eq!((outcome.status, outcome.stderr.as_str()), (0, ""));
    let numbers: Vec<u32> = outcome.text().lines().map(|line| line.parse().unwrap()).collect();
    assert!(!numbers.is_empty() && numbers.is_sorted(), "{numbers:?}");
}

#[tokio::test]
async fn attempts_end_when_they_are_in_vain() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let outcome = run(&[&url(address, "/"), "--reconnect=2"], b"").await.expect(3, "");
    assert_eq!(outcome.stderr.matches("next attempt in ").count(), 1, "{}", outcome.stderr);
    let address = serve().await;
    let outcome = run(&[&url(address, "/refuse"), "--reconnect"], b"").await.expect(4, "");
    assert!(outcome.stderr.contains("401"), "{}", outcome.stderr);
    run(&[&url(address, "/"), "--reconnect=0"], b"").await.expect(2, "");
    let outcome = run(&["--reconnect", "3", &url(address, "/")], b"").await.expect(2, "");
    assert!(outcome.stderr.contains("the option: --reconnect=3"), "{}", outcome.stderr);
}

#[cfg(unix)]
#[tokio::test]
async fn every_way_to_a_server_is_taken_again() {
    let path = std::env::temp_dir().join(format!("bowline-reconnect-{}.sock", std::process::id()));
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(Server::new().acceptor(acceptor()).serve(listener, answer));
    let socket = path.to_str().unwrap();
    let arguments = ["ws://name.invalid/echo/1", "--unix", socket, "--reconnect", "-r", "-m", "a", "-n", "2"];
    run(&arguments, b"").await.expect(0, "a\na\n");
    std::fs::remove_file(&path).unwrap();
    let outcome = run(&["ws://name.invalid/", "--unix", socket, "--reconnect=1"], b"").await.expect(3, "");
    assert!(outcome.stderr.starts_with("bowline: connecting to "), "{}", outcome.stderr);
    let port = serve().await.port();
    let named = format!("ws://name.invalid:{port}/echo/1");
    let resolve = format!("name.invalid:{port}:127.0.0.1");
    run(&[&named, "--resolve", &resolve, "--reconnect", "-r", "-m", "a", "-n", "2"], b"")
        .await
        .expect(0, "a\na\n");
}
