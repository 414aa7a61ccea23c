//! Programs in runtimes and threads of another kind.

use bowline::Server;
use tokio::net::TcpListener;
use tokio::task::{LocalSet, spawn_blocking};

use crate::programs;
use crate::support::{connector, soon, start_bowline};

#[tokio::test]
async fn smol() {
    let url = format!("ws://{}/", start_bowline(Server::new()).await);
    let answer = soon(spawn_blocking(move || programs::smol::ask(&url, "hello"))).await.unwrap();
    assert_eq!(answer.unwrap(), Some("hello".into()));
}

#[tokio::test]
async fn handlers_that_are_not_send() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let local = LocalSet::new();
    local.spawn_local(programs::handlers_that_are_not_send::serve(listener));
    let visiting = async {
        for visitor in 1..=3 {
            let (mut socket, _) = soon(connector().connect(&url)).await.unwrap();
            let greeting = format!("you are visitor {visitor}");
            assert_eq!(soon(socket.recv()).await.unwrap(), Some(greeting.into()));
            assert_eq!(soon(socket.recv()).await.unwrap(), None);
        }
    };
    local.run_until(visiting).await;
}
