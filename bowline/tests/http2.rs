//! WebSockets over HTTP/2 (RFC 8441): `Server`, hyper's server, `Connector`, `Http2Connection`.

mod support;

use std::convert::Infallible;
use std::net::SocketAddr;

use bowline::{CloseCode, Connector, ErrorKind, HttpVersion, Server, WebSocket};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};

use support::http::{echo, listen, soon, start};

fn over_http2() -> Connector {
    Connector::new().http_version(HttpVersion::Http2)
}

async fn exchange(socket: &mut WebSocket) {
    for message in ["one", "two"] {
        socket.send(message).await.unwrap();
        assert_eq!(soon(socket.recv()).await.unwrap(), Some(message.into()));
    }
    let large = vec![7_u8; 900_000];
    socket.send(&large).await.unwrap();
    assert_eq!(soon(socket.recv()).await.unwrap(), Some(large.into()));
}

/// A server of the user's own, by hyper.
async fn serve_with_hyper() -> SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service_fn(|mut request: http::Request<Incoming>| async move {
                Ok::<_, Infallible>(match bowline::accept(&mut request) {
                    Ok((response, upgrade)) => {
                        tokio::spawn(async move { echo(upgrade.await?).await });
                        response
                    }
                    Err(rejection) => rejection.into_response::<String>(),
                })
            });
            tokio::spawn(async move {
                let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                builder.http2().enable_connect_protocol();
                let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn a_server_by_prior_knowledge() {
    let address = start(Server::new().http2(), echo).await;
    let (mut socket, response) = soon(over_http2().connect(format!("ws://{address}"))).await.unwrap();
    assert_eq!((response.status(), response.version()), (http::StatusCode::OK, http::Version::HTTP_2));
    exchange(&mut socket).await;
    let close = soon(socket.close(CloseCode::NORMAL, "done")).await.unwrap().unwrap();
    assert_eq!((close.code(), close.reason()), (CloseCode::NORMAL, "done"));
    // On the same port, HTTP/1.1.
    let mut socket = soon(bowline::connect(format!("ws://{address}"))).await.unwrap();
    exchange(&mut socket).await;
}

#[tokio::test]
async fn under_hyper() {
    let address = serve_with_hyper().await;
    let (mut socket, _) = soon(over_http2().connect(format!("ws://{address}"))).await.unwrap();
    exchange(&mut socket).await;
    let close = soon(socket.close(CloseCode::NORMAL, "done")).await.unwrap().unwrap();
    assert_eq!((close.code(), close.reason()), (CloseCode::NORMAL, "done"));
}

#[tokio::test]
async fn many_on_one_connection() {
    let address = start(Server::new().http2(), echo).await;
    let connection = soon(Connector::new().connect_http2(format!("ws://{address}"))).await.unwrap();
    let tasks: Vec<_> = (0..100)
        .map(|number| {
            let connection = connection.clone();
            tokio::spawn(async move {
                let (mut socket, _) = soon(connection.connect(format!("/{number}"))).await.unwrap();
                exchange(&mut socket).await;
                soon(socket.close(CloseCode::NORMAL, "")).await.unwrap();
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn a_server_without_http2() {
    let address = start(Server::new(), echo).await;
    let error = soon(over_http2().connect(format!("ws://{address}"))).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Handshake | ErrorKind::Disconnected), "{error:?}");
}
