//! Connected WebSockets over HTTP/3, with the interface that the tests of `bowline` use for its own
//! transports.

use std::any::Any;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bowline::{Limits, Role, Server, WebSocket};
use bowline_http3::Http3Connection;
use quinn::{RecvStream, SendStream, TransportConfig, VarInt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;

use crate::raw::{ACCEPTED, RawClient, RawServer, SERVER_SETTINGS, request};
use crate::support::options::Options;
use crate::support::{Running, serve};

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    Http3,
}

impl Carrier {
    /// Returns `true` if the drop of a `WebSocket` ends its connection. Under a server, the handler's result
    /// does.
    #[expect(clippy::unused_self, reason = "the other carriers have another answer")]
    pub(crate) fn ends_on_drop(self, role: Role) -> bool {
        role == Role::Client
    }
}

pub(crate) const CARRIERS: &[Carrier] = &[Carrier::Http3];

/// Creates a connection of the library as `role`, and the other end by hand.
pub(crate) async fn with_raw_peer(
    role: Role,
    _: Carrier,
    options: impl Into<Options>,
) -> (WebSocket, Box<dyn Stream>) {
    with_peer_of(role, &options.into(), TransportConfig::default()).await
}

/// Creates a connection whose peer accepts so many bytes of a stream before it has read them.
pub(crate) async fn with_narrow_peer(
    role: Role,
    limits: Limits,
    window: u32,
) -> (WebSocket, Box<dyn Stream>) {
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(VarInt::from_u32(window));
    with_peer_of(role, &limits.into(), transport).await
}

async fn with_peer_of(
    role: Role,
    options: &Options,
    transport: TransportConfig,
) -> (WebSocket, Box<dyn Stream>) {
    match role {
        Role::Client => {
            let server = RawServer::with_transport(transport);
            let connector = options.connector(server.connector());
            let url = format!("wss://{}/", server.address());
            let serving = async {
                let (quic, kept) = server.accept(&[SERVER_SETTINGS]).await;
                let (mut send, mut receive) = quic.accept_bi().await.unwrap();
                // The head has less than 16,384 bytes, and more than 63.
                let mut header = [0; 3];
                receive.read_exact(&mut header).await.unwrap();
                let len = usize::from(u16::from_be_bytes([header[1] & 0x3f, header[2]]));
                receive.read_exact(&mut vec![0; len]).await.unwrap();
                send.write_all(ACCEPTED).await.unwrap();
                RawStream::new(send, receive, Box::new((quic, kept)))
            };
            let connecting = async {
                let connection = Http3Connection::open(&connector, url).await.unwrap();
                connection.connect("/a-path-that-makes-the-head-long-enough").await.unwrap().0
            };
            let (mut peer, socket) = tokio::join!(serving, connecting);
            peer.keep(Box::new(server));
            (socket, Box::new(peer))
        }
        Role::Server => {
            let (running, mut sockets) = serve_channel(options).await;
            let client = RawClient::connect_with(&running, transport).await;
            let (send, mut receive) = client.request(&request()).await;
            let mut response = [0; 5];
            receive.read_exact(&mut response).await.unwrap();
            assert_eq!(response, ACCEPTED);
            let socket = sockets.recv().await.unwrap();
            (socket, Box::new(RawStream::new(send, receive, Box::new((client, running)))))
        }
    }
}

/// Creates two connections of the library, the client's and the server's.
pub(crate) async fn both(_: Carrier) -> (WebSocket, WebSocket) {
    let (running, mut sockets) = serve_channel(&Options::default()).await;
    let (client, _) = running.connect().await.connect("/").await.unwrap();
    (client, sockets.recv().await.unwrap())
}

/// Serves WebSockets that arrive at the receiver.
async fn serve_channel(options: &Options) -> (Running, mpsc::UnboundedReceiver<WebSocket>) {
    let (sockets, received) = mpsc::unbounded_channel();
    let server = Server::new().acceptor(options.acceptor());
    let running = serve(server, move |socket: WebSocket| {
        let (sender, sockets) = (socket.sender(), sockets.clone());
        async move {
            let _ = sockets.send(socket);
            // The end of the handler would close the WebSocket.
            sender.closed().await;
            Ok(())
        }
    })
    .await;
    (running, received)
}

/// The bytes of a WebSocket on a stream of quinn.
struct RawStream {
    send: SendStream,
    receive: RecvStream,
    /// The rest of the DATA frame that is being received.
    left: usize,
    header: Vec<u8>,
    /// The rest of a DATA frame that is being sent.
    unsent: Vec<u8>,
    finished: bool,
    kept: Vec<Box<dyn Any + Send>>,
}

impl RawStream {
    fn new(send: SendStream, receive: RecvStream, kept: Box<dyn Any + Send>) -> Self {
        let kept = vec![kept];
        Self { send, receive, left: 0, header: Vec::new(), unsent: Vec::new(), finished: false, kept }
    }

    fn keep(&mut self, kept: Box<dyn Any + Send>) {
        self.kept.push(kept);
    }

    /// Takes the length out of a header that is whole. The frames of this crate are DATA.
    fn begin_frame(&mut self) {
        let Some((&first, rest)) = self.header.get(1..).and_then(<[u8]>::split_first) else { return };
        if rest.len() + 1 == 1 << (first >> 6) {
            assert_eq!(self.header[0], 0x00, "{:x?}", self.header);
            self.left =
                rest.iter().fold(usize::from(first & 0x3f), |len, byte| (len << 8) | usize::from(*byte));
            self.header.clear();
        }
    }
}

impl AsyncRead for RawStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.left == 0 {
            let mut byte = [0];
            let mut one = ReadBuf::new(&mut byte);
            ready!(Pin::new(&mut this.receive as &mut (dyn AsyncRead + Unpin)).poll_read(cx, &mut one))?;
            let Some(&byte) = one.filled().first() else { return Poll::Ready(Ok(())) };
            this.header.push(byte);
            this.begin_frame();
        }
        let mut part = buf.take(this.left);
        ready!(Pin::new(&mut this.receive as &mut (dyn AsyncRead + Unpin)).poll_read(cx, &mut part))?;
        let count = part.filled().len();
        this.left -= count;
        // The part is the beginning of what was not filled, and its bytes were written.
        let bytes = part.filled().to_vec();
        buf.put_slice(&bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for RawStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.as_mut().poll_flush(cx))?;
        let payload = &buf[..buf.len().min(10_000)];
        let len = u16::try_from(payload.len()).unwrap() | 0x4000;
        self.unsent = [&[0x00][..], &len.to_be_bytes(), payload].concat();
        let _ = self.as_mut().poll_flush(cx)?;
        Poll::Ready(Ok(payload.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while !this.unsent.is_empty() {
            let count = ready!(AsyncWrite::poll_write(Pin::new(&mut this.send), cx, &this.unsent))?;
            this.unsent.drain(..count);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        self.finished = true;
        let _ = self.send.finish();
        Poll::Ready(Ok(()))
    }
}

impl Drop for RawStream {
    fn drop(&mut self) {
        if !self.finished {
            let _ = self.send.reset(0x10c_u32.into());
        }
    }
}
