//! Streams of all kinds carry a connection: a WebSocket inside a WebSocket, TCP, one waker for everything.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bowline::{
    Acceptor, Adoption, CloseCode, Connector, Error, Limits, Message, Role, Sender, WebSocket, pair,
};
use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use crate::support::frames::Frame;
use crate::support::{self, open, peer_of};

type Receiving = Pin<Box<dyn Future<Output = (WebSocket, Result<Option<Message>, Error>)> + Send>>;
type Sending = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// A stream of bytes through a WebSocket.
struct Tunnel {
    receiving: Receiving,
    received: Bytes,
    sender: Sender,
    sending: Option<Sending>,
}

impl Tunnel {
    fn new(socket: WebSocket) -> Self {
        let sender = socket.sender();
        Self { receiving: receive(socket), received: Bytes::new(), sender, sending: None }
    }

    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(sending) = &mut self.sending {
            ready!(sending.as_mut().poll(cx)).map_err(io::Error::other)?;
            self.sending = None;
        }
        Poll::Ready(Ok(()))
    }
}

fn receive(mut socket: WebSocket) -> Receiving {
    Box::pin(async move {
        let message = socket.recv().await;
        (socket, message)
    })
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.received.is_empty() {
            let (socket, message) = ready!(self.receiving.as_mut().poll(cx));
            self.receiving = receive(socket);
            match message.map_err(io::Error::other)? {
                Some(message) => self.received = message.into_bytes(),
                None => return Poll::Ready(Ok(())),
            }
        }
        let count = buf.remaining().min(self.received.len());
        buf.put_slice(&self.received[..count]);
        self.received.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_sent(cx))?;
        let (sender, bytes) = (self.sender.clone(), buf.to_vec());
        self.sending = Some(Box::pin(async move { sender.send(bytes).await }));
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_sent(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_sent(cx))?;
        let sender = self.sender.clone();
        tokio::spawn(async move { sender.close(CloseCode::NORMAL, "").await });
        Poll::Ready(Ok(()))
    }
}

async fn exchange(mut client: WebSocket, mut server: WebSocket) {
    let echo = tokio::spawn(async move {
        while let Some(message) = server.recv().await.unwrap() {
            server.send(message).await.unwrap();
        }
    });
    for size in [0, 1, 125, 126, 70_000, 300_000] {
        let payload: Vec<u8> = (0..size).map(|i: u32| (i % 251) as u8).collect();
        // Several at once, so that both levels have more than one message in memory.
        let sender = client.sender();
        let sending = async {
            for _ in 0..5 {
                sender.send(&payload).await.unwrap();
            }
        };
        let receiving = async {
            for _ in 0..5 {
                assert_eq!(client.recv().await.unwrap().unwrap().into_bytes(), payload);
            }
        };
        tokio::join!(sending, receiving);
    }
    client.ping().await.unwrap();
    client.close(CloseCode::NORMAL, "").await.unwrap();
    echo.await.unwrap();
}

#[tokio::test]
async fn a_websocket_inside_a_websocket() {
    let (client, server) = pair();
    let client = Connector::new().adopt(Tunnel::new(client), Adoption::new()).unwrap();
    let server = Acceptor::new().adopt(Tunnel::new(server), Adoption::new()).unwrap();
    exchange(client, server).await;
}

#[tokio::test]
async fn a_websocket_inside_a_websocket_inside_a_websocket() {
    let (client, server) = pair();
    let client = Connector::new().adopt(Tunnel::new(client), Adoption::new()).unwrap();
    let server = Acceptor::new().adopt(Tunnel::new(server), Adoption::new()).unwrap();
    let client = Connector::new().adopt(Tunnel::new(client), Adoption::new()).unwrap();
    let server = Acceptor::new().adopt(Tunnel::new(server), Adoption::new()).unwrap();
    exchange(client, server).await;
}

#[tokio::test]
async fn a_tcp_stream_takes_the_fast_path() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (client, server) =
        tokio::join!(tokio::net::TcpStream::connect(listener.local_addr().unwrap()), async {
            listener.accept().await.unwrap().0
        },);
    let client = Connector::new().adopt(client.unwrap(), Adoption::new()).unwrap();
    let server = Acceptor::new().adopt(server, Adoption::new()).unwrap();
    assert!(client.is_tcp_fast_path() && server.is_tcp_fast_path());
    assert_eq!(client.peer_addr(), server.local_addr());
    assert!(client.peer_addr().is_some());
    exchange(client, server).await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_unix_socket_carries_a_connection() {
    let (client, server) = tokio::net::UnixStream::pair().unwrap();
    let client = Connector::new().adopt(client, Adoption::new()).unwrap();
    let server = Acceptor::new().adopt(server, Adoption::new()).unwrap();
    assert!(!client.is_tcp_fast_path());
    exchange(client, server).await;
}

/// The mock stream remembers only its last waker, of either direction. The reader, the senders and the
/// connection's task are all woken nevertheless.
#[tokio::test]
async fn a_stream_that_keeps_only_the_last_waker_wakes_everybody() {
    for role in [Role::Client, Role::Server] {
        let (mut socket, wire) = open(role, Limits::default().write_buffer(1));
        wire.set_room(0);
        let (one, two) = (socket.sender(), socket.sender());
        let receiving = tokio::spawn(async move {
            let message = socket.recv().await;
            (socket, message)
        });
        let sending = [
            tokio::spawn(async move { one.send("one").await }),
            tokio::spawn(async move {
                two.send("two").await?;
                two.flush().await
            }),
        ];
        support::settle().await;
        wire.feed_frame(peer_of(role), &Frame::text("wake the reader"));
        let (socket, message) = receiving.await.unwrap();
        assert_eq!(message.unwrap(), Some("wake the reader".into()));
        wire.set_room(usize::MAX);
        for sending in sending {
            sending.await.unwrap().unwrap();
        }
        // The task answers while nobody reads.
        wire.take_written();
        wire.feed_frame(peer_of(role), &Frame::ping("wake the task"));
        assert_eq!(wire.next_frame(role).await, Frame::pong("wake the task"));
        drop(socket);
    }
}

#[tokio::test]
async fn bytes_that_came_with_the_handshake_come_first() {
    let (stream, wire) = support::wire::wire();
    let mut leftover = Frame::text("early").encode(Role::Client);
    let late = leftover.split_off(5);
    let mut socket =
        Acceptor::new().adopt(stream, Adoption::new().leftover(leftover).subprotocol("chat")).unwrap();
    wire.feed(&late);
    assert_eq!(socket.recv().await.unwrap(), Some("early".into()));
    assert_eq!(socket.subprotocol(), Some("chat"));

    let (stream, _wire) = support::wire::wire();
    let leftover: Vec<u8> =
        (0..1000_u16).flat_map(|i| Frame::text(i.to_string()).encode(Role::Client)).collect();
    let mut socket = Acceptor::new().adopt(stream, Adoption::new().leftover(leftover)).unwrap();
    for number in 0..1000_u16 {
        assert_eq!(socket.recv().await.unwrap(), Some(number.to_string().into()));
    }
}

/// The facts of a handshake that was completed elsewhere, on both sides.
#[tokio::test]
async fn an_adopted_stream_has_the_facts_that_it_is_given() {
    let (peer, local) = (([192, 0, 2, 1], 49152), ([192, 0, 2, 2], 443));
    let adoption = || Adoption::new().subprotocol("chat.v1").peer_addr(peer).local_addr(local);
    let (client, server) = tokio::io::duplex(1024);
    for socket in [
        Acceptor::new().adopt(server, adoption()).unwrap(),
        Connector::new().adopt(client, adoption()).unwrap(),
    ] {
        assert_eq!(socket.subprotocol(), Some("chat.v1"));
        assert_eq!(socket.peer_addr(), Some(peer.into()));
        assert_eq!(socket.local_addr(), Some(local.into()));
    }
}

/// The addresses that the application knows replace those of a TCP stream, such as those of a proxy.
#[tokio::test]
async fn given_addresses_replace_those_of_the_stream() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stream, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let client = stream.unwrap();
    let local = client.local_addr().unwrap();
    let adoption = Adoption::new().peer_addr(([192, 0, 2, 1], 49152));
    let server = Acceptor::new().adopt(accepted.unwrap().0, adoption).unwrap();
    assert_eq!(server.peer_addr(), Some(([192, 0, 2, 1], 49152).into()));
    assert_eq!(server.local_addr(), Some(address));
    let client = Connector::new().adopt(client, Adoption::new()).unwrap();
    assert_eq!(client.local_addr(), Some(local));
}

#[tokio::test]
async fn an_adoption_with_an_invalid_setting_names_it() {
    let stream = || tokio::io::duplex(1).0;
    let wrong = || Adoption::new().subprotocol("chat v1");
    let limits = || bowline::Limits::default().write_buffer(0);
    for (adopted, named) in [
        (Acceptor::new().adopt(stream(), wrong()), "Adoption::subprotocol is \"chat v1\""),
        (Connector::new().adopt(stream(), wrong()), "Adoption::subprotocol is \"chat v1\""),
        (Acceptor::new().limits(limits()).adopt(stream(), Adoption::new()), "Limits::write_buffer is 0"),
        (Connector::new().limits(limits()).adopt(stream(), Adoption::new()), "Limits::write_buffer is 0"),
    ] {
        let error = adopted.unwrap_err();
        assert_eq!(error.kind(), bowline::ErrorKind::InvalidInput);
        assert!(error.to_string().contains(named), "{error}");
    }
}
