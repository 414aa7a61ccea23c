//! The bytes by which a peer that doesn't read is behind: `Limits::unsent` and `Limits::write_buffer`.

use std::sync::Arc;
use std::time::Duration;

use bowline::{Acceptance, Acceptor, Adoption, Connector, Limits, Server, WebSocket};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::support::http::listen;
use crate::support::tls::configs;

const KIB: usize = 1024;
const MESSAGE: usize = 1000;
const UNSENT: usize = 16 * KIB;

/// The most that is accepted with `UNSENT`: the write buffer, one more message, the unsent bytes, a write of
/// the operating system that was begun below this limit, and two receive buffers. Linux begins with 128 KiB.
/// A peer of this library has also read 256 KiB once.
const BOUND: usize = 64 * KIB + MESSAGE + UNSENT + 64 * KIB + 2 * 128 * KIB + 256 * KIB;

/// Sends until the peer, which reads nothing, has made no more room for a while. Returns the bytes that were
/// accepted.
async fn fill(socket: &WebSocket) -> usize {
    let mut accepted = 0;
    while let Ok(sent) = timeout(Duration::from_millis(300), socket.send(&[7; MESSAGE])).await {
        sent.unwrap();
        accepted += MESSAGE;
    }
    assert!(socket.try_send("more").is_err(), "the write buffer is full");
    assert!((64 * KIB..66 * KIB).contains(&socket.pending()), "{} bytes wait", socket.pending());
    accepted
}

fn limited() -> Limits {
    Limits::default().unsent(UNSENT)
}

#[tokio::test]
async fn unsent_bounds_what_a_peer_that_does_not_read_is_behind() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut accepted = Vec::new();
    for limits in [Limits::default(), limited()] {
        let peer = TcpStream::connect(address).await.unwrap();
        let stream = listener.accept().await.unwrap().0;
        let socket = Acceptor::new().limits(limits).adopt(stream, Adoption::new()).unwrap();
        assert_eq!(socket.pending(), 0);
        accepted.push(fill(&socket).await);
        drop(peer);
    }
    let [free, limited] = accepted[..] else { unreachable!() };
    assert!(limited <= BOUND, "{limited} bytes were accepted");
    // By default, the send buffer of Linux grows to 4 MiB.
    if cfg!(target_os = "linux") {
        assert!(free >= 2 * limited, "{limited} bytes were accepted with the limit, {free} without");
    }
}

/// Returns the server's and the client's end of a connection through `server`.
async fn connect(server: Server, scheme: &str, connector: Connector) -> (WebSocket, WebSocket) {
    let (listener, address) = listen().await;
    let (opening, mut opened) = mpsc::unbounded_channel();
    let handler = move |socket: WebSocket| {
        let opening = opening.clone();
        async move {
            opening.send(socket)?;
            std::future::pending::<()>().await;
            Ok(())
        }
    };
    tokio::spawn(async move { server.serve(listener, handler).await });
    let client = connector.connect(&format!("{scheme}://localhost:{}", address.port())).await.unwrap();
    (opened.recv().await.unwrap(), client.0)
}

#[tokio::test]
async fn unsent_holds_on_both_sides_and_over_tls() {
    let (server_tls, client_tls) = configs();
    for scheme in ["ws", "wss"] {
        let connector = |limits| Connector::new().tls(Arc::clone(&client_tls)).limits(limits);
        let server = |limits| {
            let server = Server::new().acceptor(Acceptor::new().limits(limits));
            if scheme == "wss" { server.tls(Arc::clone(&server_tls)) } else { server }
        };
        let (sending, _client) = connect(server(limited()), scheme, connector(Limits::default())).await;
        let accepted = fill(&sending).await;
        assert!(accepted <= BOUND, "{scheme}: a server accepted {accepted} bytes");
        // The request decides.
        let chosen = server(Limits::default())
            .on_request(|head: http::request::Parts| async { Ok(Acceptance::from(head).limits(limited())) });
        let (sending, _client) = connect(chosen, scheme, connector(Limits::default())).await;
        let accepted = fill(&sending).await;
        assert!(accepted <= BOUND, "{scheme}: a server accepted {accepted} bytes for a request");
        let (_server, sending) = connect(server(Limits::default()), scheme, connector(limited())).await;
        let accepted = fill(&sending).await;
        assert!(accepted <= BOUND, "{scheme}: a client accepted {accepted} bytes");
    }
}
