//! The programs of the page whose frameworks take long to compile.

use std::time::Duration;

use bowline::CloseCode;
use rocket::fairing::AdHoc;
use salvo::conn::tcp::TcpAcceptor;
use salvo::fuse::FuseConfig;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::programs;
use crate::support::{connector, expect_echo, soon, start, status_of_foreign_origin};

#[tokio::test]
async fn salvo() {
    let authority = start(programs::salvo::serve).await;
    expect_echo(&format!("ws://{authority}/echo")).await;
    assert_eq!(status_of_foreign_origin(&format!("ws://{authority}/echo")).await, 403);
}

#[tokio::test]
async fn salvo_leaves_silent_websockets_alone() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let fuse = FuseConfig::disabled().with_connection_idle_timeout(Duration::from_millis(100));
    let server = salvo::Server::new(TcpAcceptor::try_from(listener).unwrap()).fuse_config(fuse);
    tokio::spawn(server.serve(programs::salvo::router()));

    let (mut socket, _) = soon(connector().connect(format!("ws://{address}/echo"))).await.unwrap();
    // A connection that is younger, and as silent.
    let mut other = TcpStream::connect(address).await.unwrap();
    let ended = soon(other.read_u8()).await;
    assert!(ended.is_err(), "salvo ends silent connections");
    socket.send("hello").await.unwrap();
    assert_eq!(soon(socket.recv()).await.unwrap(), Some("hello".into()));
    soon(socket.close(CloseCode::NORMAL, "")).await.unwrap();
}

#[tokio::test]
async fn poem() {
    let authority = start(programs::poem::serve).await;
    expect_echo(&format!("ws://{authority}/echo")).await;
    assert_eq!(status_of_foreign_origin(&format!("ws://{authority}/echo")).await, 403);
}

#[tokio::test]
async fn rocket() {
    let (sender, port) = oneshot::channel();
    let config = rocket::Config {
        port: 0,
        log_level: rocket::config::LogLevel::Off,
        shutdown: rocket::config::Shutdown { ctrlc: false, ..Default::default() },
        ..rocket::Config::debug_default()
    };
    let liftoff = AdHoc::on_liftoff("port", |rocket| {
        let _ = sender.send(rocket.config().port);
        Box::pin(async {})
    });
    tokio::spawn(programs::rocket::mount(rocket::custom(config)).attach(liftoff).launch());
    let url = format!("ws://127.0.0.1:{}/echo", soon(port).await.unwrap());
    expect_echo(&url).await;
    assert_eq!(status_of_foreign_origin(&url).await, 403);
}

#[tokio::test]
async fn actix_web() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/echo", listener.local_addr().unwrap());
    std::thread::spawn(|| actix_web::rt::System::new().block_on(programs::actix_web::serve(listener)));
    expect_echo(&url).await;
    assert_eq!(status_of_foreign_origin(&url).await, 403);
}

#[tokio::test]
async fn graphql() {
    let url = format!("ws://{}/graphql", start(programs::graphql::serve).await);
    let connector = connector().subprotocols(["graphql-transport-ws"]);
    let (mut socket, _) = soon(connector.connect(url)).await.unwrap();
    assert_eq!(socket.subprotocol(), Some("graphql-transport-ws"));
    socket.send(json!({ "type": "connection_init" }).to_string()).await.unwrap();
    let subscribe =
        json!({ "id": "1", "type": "subscribe", "payload": { "query": "subscription { below(end: 2) }" } });
    socket.send(subscribe.to_string()).await.unwrap();
    let mut received = Vec::new();
    while received.len() < 4 {
        let message = soon(socket.recv()).await.unwrap().unwrap();
        let message: Value = serde_json::from_slice(message.as_bytes()).unwrap();
        received.push((message["type"].clone(), message["payload"]["data"]["below"].clone()));
    }
    let expected = [
        (json!("connection_ack"), Value::Null),
        (json!("next"), json!(0)),
        (json!("next"), json!(1)),
        (json!("complete"), Value::Null),
    ];
    assert_eq!(received, expected);

    // The subprotocol has close codes of its own, here that of a second `connection_init`.
    socket.send(json!({ "type": "connection_init" }).to_string()).await.unwrap();
    assert!(soon(socket.recv()).await.is_err());
    assert_eq!(socket.close_frame().unwrap().code(), CloseCode(4429));
}
