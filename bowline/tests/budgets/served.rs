//! The memory of a connection under `Server::serve`.

use std::future::ready;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

use bowline::{Acceptor, Connections, Connector, Proxy, Server, TlsInfo, WebSocket};
use http::request::Parts;
use tokio::net::TcpListener;

use crate::support::allocations::held;
use crate::support::http::{HandlerResult, Head, echo, start};
use crate::support::tls::mutual_configs;
use crate::support::{settle, warm_up};

const CONNECTIONS: isize = 100;

/// Waits for a message.
async fn wait(mut socket: WebSocket) -> HandlerResult {
    socket.recv().await?;
    Ok(())
}

/// Returns the memory of each connection of a server whose handlers wait for a message.
async fn memory_of_each(server: Server, request: fn() -> Head) -> isize {
    warm_up().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(server.serve(listener, wait));
    let each = memory_of_each_at(address, request).await;
    serving.abort();
    each
}

/// Returns the memory of each connection to a server in this process.
async fn memory_of_each_at(address: SocketAddr, request: fn() -> Head) -> isize {
    // The clients block on a thread of their own, whose memory is not counted.
    let open = |count: isize| {
        tokio::task::spawn_blocking(move || {
            let request = request().text();
            let upgrade = |_| {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.write_all(request.as_bytes()).unwrap();
                stream.read_exact(&mut [0; 12]).unwrap();
                stream
            };
            (0..count).map(upgrade).collect::<Vec<_>>()
        })
    };
    let _first = open(10).await.unwrap();
    settle().await;
    let before = held();
    let _clients = open(CONNECTIONS).await.unwrap();
    settle().await;
    (held() - before) / CONNECTIONS
}

/// The limits on the load take a permit for each connection, and an entry for each address.
#[tokio::test]
async fn limits_on_the_load_take_little() {
    let without = memory_of_each(Server::new(), Head::request).await;
    let server =
        Server::new().connections(1000).connections_per_address(1000).handshakes_per_second(1_000_000);
    let with = memory_of_each(server, Head::request).await;
    assert!((0..64).contains(&(with - without)), "{with} bytes, {without} without limits");
}

/// A call of its own, and the task from which the application makes the call, take about 1.2 KiB.
#[tokio::test]
async fn connections_that_the_application_accepted_take_a_little_more() {
    warm_up().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::new();
    let accepting = tokio::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            tokio::spawn(server.serve_connection(stream, peer, wait));
        }
    });
    let each = memory_of_each_at(address, Head::request).await;
    accepting.abort();
    assert!(each < 3050, "{each} bytes");
}

/// Neither the head of the request nor the buffer into which the head was read is kept.
#[tokio::test]
async fn on_error_keeps_the_method_and_the_uri_of_a_request() {
    fn long() -> Head {
        Head::request().with(&format!("Cookie: {}", "x".repeat(12_000)))
    }
    let line = "GET /chat".len().cast_signed();
    for request in [Head::request, long] {
        let without = memory_of_each(Server::new(), request).await;
        assert!(without < 1850, "{without} bytes");
        let with = memory_of_each(Server::new().on_error(drop), request).await;
        let kept = with - without;
        // The line, and its entry in a map.
        assert!((0..=line + 40).contains(&kept), "{kept} bytes for the request");
    }
}

#[tokio::test]
async fn connections_take_what_their_docs_say_for_each_websocket() {
    let without = memory_of_each(Server::new(), Head::request).await;
    let connections = Connections::new();
    let acceptor = Acceptor::new().connections(&connections);
    let with = memory_of_each(Server::new().acceptor(acceptor), Head::request).await;
    let more = with - without;
    assert!((0..=200).contains(&more), "{more} bytes");
}

/// Under the default options, only the connection of TLS itself holds the certificates of its client.
#[tokio::test]
async fn the_certificates_of_a_client_are_copied_for_those_who_keep_them() {
    let names = || (0..500).map(|number| format!("device-{number}.example.com"));
    let kept = Arc::new(Mutex::new(Vec::with_capacity(100)));
    let keep = |kept: &Arc<Mutex<Vec<TlsInfo>>>| {
        let kept = Arc::clone(kept);
        move |head: Parts| {
            kept.lock().unwrap().push(head.extensions.get::<TlsInfo>().unwrap().clone());
            ready(Ok(head))
        }
    };
    let mut each = Vec::new();
    for server in [Server::new(), Server::new().on_request(keep(&kept))] {
        // New configurations, so that both servers have resumed the same number of sessions.
        let (config, client, _) = mutual_configs(names());
        let address = start(server.tls(config), echo).await;
        let url = format!("wss://localhost:{}/", address.port());
        let connector = Connector::new().tls(client).proxy(Proxy::none());
        let mut sockets = vec![connector.connect(&url).await.unwrap().0];
        settle().await;
        let before = held();
        for _ in 0..20 {
            sockets.push(connector.connect(&url).await.unwrap().0);
        }
        settle().await;
        each.push((held() - before) / 20);
    }
    let kept = kept.lock().unwrap();
    // A client that resumes its session does not send its certificate again, and is known all the same.
    assert!(kept.iter().all(|tls| tls.peer_certificates().len() == 1));
    let size = kept[0].peer_certificates()[0].len().cast_signed();
    let copied = each[1] - each[0];
    assert!((size..size + 200).contains(&copied), "{copied} bytes for a certificate of {size} bytes");
}
