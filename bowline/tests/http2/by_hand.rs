//! `Acceptor::respond` and `ServerHandshake::finish` on h2 alone, which the library sees as any other stream.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bowline::{Acceptor, CloseCode, Connector, ErrorKind, HttpVersion, WebSocket};
use bytes::Bytes;
use h2::{RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;

use crate::support::http::{listen, soon};

/// A stream of h2 as bytes.
struct H2Stream {
    receive: RecvStream,
    send: SendStream<Bytes>,
    unread: Bytes,
}

impl AsyncRead for H2Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            let Some(data) = ready!(self.receive.poll_data(cx)) else { return Poll::Ready(Ok(())) };
            self.unread = data.map_err(io::Error::other)?;
        }
        let count = self.unread.len().min(buf.remaining());
        buf.put_slice(&self.unread.split_to(count));
        let released = self.receive.flow_control().release_capacity(count);
        Poll::Ready(released.map_err(io::Error::other))
    }
}

impl AsyncWrite for H2Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.send.reserve_capacity(buf.len());
        let capacity = loop {
            match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(0)) => {}
                Some(capacity) => break capacity.map_err(io::Error::other)?,
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        };
        let count = capacity.min(buf.len());
        self.send.send_data(Bytes::copy_from_slice(&buf[..count]), false).map_err(io::Error::other)?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.send.send_data(Bytes::new(), true).map_err(io::Error::other))
    }
}

/// Starts a server on h2 that hands over its WebSockets.
async fn start(acceptor: Acceptor) -> (SocketAddr, mpsc::UnboundedReceiver<WebSocket>) {
    let (listener, address) = listen().await;
    let (sender, sockets) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let (stream, peer) = listener.accept().await.unwrap();
        let mut builder = h2::server::Builder::new();
        let mut connection = builder.enable_connect_protocol().handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            match acceptor.respond(&request) {
                Ok((response, handshake)) => {
                    let send = respond.send_response(response, false).unwrap();
                    let stream = H2Stream { receive: request.into_body(), send, unread: Bytes::new() };
                    sender.send(handshake.peer_addr(peer).finish(stream, Vec::new())).unwrap();
                }
                Err(rejection) => {
                    let response = rejection.into_response::<String>().map(drop);
                    respond.send_response(response, true).unwrap();
                }
            }
        }
    });
    (address, sockets)
}

/// Two WebSockets on one connection: messages of all sizes, and the close.
#[tokio::test]
async fn websockets_on_h2_alone() {
    let (address, mut sockets) = start(Acceptor::new().subprotocols(["chat.v1"])).await;
    let client = Connector::new().subprotocols(["chat.v1"]);
    let connection = soon(client.connect_http2(format!("ws://{address}"))).await.unwrap();
    for path in ["/news", "/chat"] {
        let (mut client, response) = soon(connection.connect(path)).await.unwrap();
        assert_eq!(response.status(), 200);
        let mut server = soon(sockets.recv()).await.unwrap();
        assert_eq!((client.subprotocol(), server.subprotocol()), (Some("chat.v1"), Some("chat.v1")));
        assert_eq!(server.peer_addr(), client.local_addr());
        for size in [0, 10, 300_000] {
            let message = vec![7_u8; size];
            let (sent, received) = tokio::join!(client.send(&message), soon(server.recv()));
            sent.unwrap();
            assert_eq!(received.unwrap(), Some(message.clone().into()));
            let (sent, received) = tokio::join!(server.send(&message), soon(client.recv()));
            sent.unwrap();
            assert_eq!(received.unwrap(), Some(message.into()));
        }
        let (closed, received) = tokio::join!(client.close(CloseCode::NORMAL, "done"), server.recv());
        assert_eq!(closed.unwrap().code(), CloseCode::NORMAL);
        assert_eq!(received.unwrap(), None);
    }
}

#[tokio::test]
async fn a_rejection_on_h2_alone() {
    let (address, _sockets) = start(Acceptor::new()).await;
    let client = Connector::new().http_version(HttpVersion::Http2).origin("https://evil.example");
    let error = soon(client.connect(format!("ws://{address}"))).await.unwrap_err();
    assert_eq!((error.kind(), error.response().unwrap().status().as_u16()), (ErrorKind::Handshake, 403));
}
