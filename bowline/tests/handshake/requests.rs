//! `Server::serve_requests`: the requests of an HTTP stack that is not the library's own.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bowline::{
    Acceptor, Adoption, CloseCode, ConnectProtocol, Connector, Error, ErrorKind, Exchange, Limits, Message,
    Rejection, RejectionReason, RequestConnection, Requests, Server, ShutdownSummary, WebSocket,
};
use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Version};
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

type HandlerResult = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// The answer to a request: the response, and the stream if the response opens a WebSocket.
type Answer = (Response<Bytes>, Option<DuplexStream>);

/// A stack in memory: its requests come from a channel, and each answer goes back by another.
struct MemoryExchange {
    answer: oneshot::Sender<Answer>,
}

impl Exchange for MemoryExchange {
    type Stream = DuplexStream;

    fn poll_abandoned(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.answer.poll_closed(cx).map(|()| io::ErrorKind::ConnectionReset.into())
    }

    async fn open(self, response: Response<()>) -> io::Result<DuplexStream> {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let sent = self.answer.send((response.map(|()| Bytes::new()), Some(far)));
        sent.map(|()| near).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    async fn respond(self, response: Response<Bytes>) -> io::Result<()> {
        self.answer.send((response, None)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// A connection of the stack, from the client's side.
struct Client {
    requests: mpsc::UnboundedSender<(Request<()>, MemoryExchange)>,
}

impl Client {
    fn send(&self, request: Request<()>) -> oneshot::Receiver<Answer> {
        let (answer, answered) = oneshot::channel();
        self.requests.send((request, MemoryExchange { answer })).unwrap();
        answered
    }

    async fn open(&self, path: &str) -> WebSocket {
        let (response, stream) = self.send(connect(path)).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        Connector::new().adopt(stream.unwrap(), Adoption::new()).unwrap()
    }
}

fn connect(path: &str) -> Request<()> {
    Request::connect(format!("https://example.com{path}"))
        .version(Version::HTTP_3)
        .header("sec-websocket-version", "13")
        .extension(ConnectProtocol::new("websocket"))
        .body(())
        .unwrap()
}

const PEER: ([u8; 4], u16) = ([192, 0, 2, 1], 4433);

/// Serves connections of the stack in memory. The result of each call of the sender is one more connection.
fn stack<H: bowline::Handler<M>, M: 'static>(
    server: Server,
    handler: H,
) -> (mpsc::UnboundedSender<oneshot::Sender<Option<Client>>>, JoinHandle<io::Result<ShutdownSummary>>) {
    let (accept, mut accepted) = mpsc::unbounded_channel::<oneshot::Sender<Option<Client>>>();
    let receive = move |requests: Requests| async move {
        while let Some(reply) = accepted.recv().await {
            requests.ready().await;
            let (sender, receiver) = mpsc::unbounded_channel();
            let begun = requests.begin(SocketAddr::from(PEER), |served| serve_connection(served, receiver));
            let _ = reply.send(begun.then_some(Client { requests: sender }));
        }
        Ok(())
    };
    (accept, tokio::spawn(server.serve_requests(handler, receive)))
}

async fn serve_connection(
    served: RequestConnection,
    mut receiver: mpsc::UnboundedReceiver<(Request<()>, MemoryExchange)>,
) -> Result<(), Error> {
    loop {
        tokio::select! {
            request = receiver.recv() => match request {
                Some(request) => served.serve(async { Ok(request) }),
                None => return Ok(()),
            },
            () = served.stopped() => return Ok(()),
            () = served.unused() => return Err(Error::new(ErrorKind::Timeout, "nobody used the connection")),
        }
    }
}

async fn another(accept: &mpsc::UnboundedSender<oneshot::Sender<Option<Client>>>) -> Option<Client> {
    let (reply, replied) = oneshot::channel();
    accept.send(reply).unwrap();
    replied.await.unwrap()
}

async fn echo(mut socket: WebSocket) -> HandlerResult {
    assert_eq!(socket.peer_addr(), Some(PEER.into()));
    while let Some(message) = socket.recv().await? {
        socket.send(message).await?;
    }
    Ok(())
}

#[tokio::test]
async fn handlers_checks_pages_and_numbers_are_those_of_the_server() {
    let (reports, server) = (Arc::new(Mutex::new(Vec::new())), Server::new());
    let reported = Arc::clone(&reports);
    let server = server
        .on_request(|head: Parts| async move {
            assert_eq!(head.extensions.get(), Some(&SocketAddr::from(PEER)));
            if head.uri.path() == "/secret" { Err(Rejection::from(StatusCode::FORBIDDEN)) } else { Ok(head) }
        })
        .fallback(|head: Parts| async move { Response::new(format!("a page at {}", head.uri.path())) })
        .on_error(move |error| reported.lock().unwrap().push(error.to_string()));
    let numbers = server.clone();
    let (accept, _serving) = stack(server, echo);
    let client = another(&accept).await.unwrap();

    let mut socket = client.open("/echo").await;
    socket.send("hello").await.unwrap();
    assert_eq!(socket.recv().await.unwrap(), Some(Message::from("hello")));

    let (response, stream) = client.send(connect("/secret")).await.unwrap();
    assert_eq!((response.status(), stream.is_none()), (StatusCode::FORBIDDEN, true));

    let page = |method: Method| {
        let uri = "https://example.com/index.html";
        Request::builder().method(method).uri(uri).version(Version::HTTP_3).body(()).unwrap()
    };
    let (response, _) = client.send(page(Method::GET)).await.unwrap();
    assert_eq!(
        (&response.body()[..], response.headers()["content-length"].as_bytes()),
        (&b"a page at /index.html"[..], &b"21"[..])
    );
    let (response, _) = client.send(page(Method::HEAD)).await.unwrap();
    assert_eq!(
        (&response.body()[..], response.headers()["content-length"].as_bytes()),
        (&b""[..], &b"21"[..])
    );

    socket.close(CloseCode::NORMAL, "").await.unwrap();
    let stats = numbers.stats();
    assert_eq!(stats.accepted(), 1);
    assert!(stats.rejections().any(|counted| counted == (RejectionReason::OnRequest, 1)));
    let reports = reports.lock().unwrap();
    assert!(reports[0].starts_with("192.0.2.1:4433 CONNECT /secret: "), "{reports:?}");
}

#[tokio::test]
async fn a_check_is_dropped_when_the_client_gives_its_request_up() {
    let (begun, mut has_begun) = mpsc::unbounded_channel();
    let (held, mut dropped) = mpsc::unbounded_channel::<()>();
    let held = Mutex::new(Some(held));
    let server = Server::new().on_request(move |_: Parts| {
        let (held, _) = (held.lock().unwrap().take(), begun.send(()));
        async move {
            std::future::pending::<()>().await;
            drop(held);
            Err::<Parts, _>(Rejection::from(StatusCode::NOT_FOUND))
        }
    });
    let (accept, _serving) = stack(server, echo);
    let client = another(&accept).await.unwrap();
    let answered = client.send(connect("/"));
    has_begun.recv().await.unwrap();
    drop(answered);
    assert_eq!(dropped.recv().await, None);
}

#[tokio::test]
async fn a_shutdown_ends_the_requests_and_counts_them() {
    let (stop, stopped) = oneshot::channel::<()>();
    let signal = async { stopped.await.unwrap_or(()) };
    let (accept, serving) = stack(Server::new().shutdown(signal, Duration::from_secs(10)), echo);
    let client = another(&accept).await.unwrap();
    let mut socket = client.open("/").await;
    stop.send(()).unwrap();
    assert_eq!(socket.recv().await.unwrap(), None);
    assert_eq!(socket.close_frame().unwrap().code(), CloseCode::GOING_AWAY);
    let summary = serving.await.unwrap().unwrap();
    assert_eq!((summary.closed(), summary.ended()), (1, 0));
}

#[tokio::test]
async fn connections_beyond_the_limit_are_refused() {
    let (accept, _serving) = stack(Server::new().connections(1), echo);
    let client = another(&accept).await.unwrap();
    let mut socket = client.open("/").await;
    // The connection counts as its WebSockets, or as one more: there is no room for a second.
    let (response, _) = client.send(connect("/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    socket.send("hello").await.unwrap();
    assert!(socket.recv().await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn unused_connections_and_slow_requests_end() {
    let (reports, mut reported) = mpsc::unbounded_channel();
    let server = Server::new()
        .on_request(|_: Parts| std::future::pending::<Result<Parts, Rejection>>())
        .on_error(move |error| drop(reports.send(error.to_string())));
    let (accept, _serving) = stack(server, echo);
    let client = another(&accept).await.unwrap();
    // A request alone is no use.
    let answered = client.send(connect("/"));
    assert!(answered.await.is_err());
    let mut texts = [reported.recv().await.unwrap(), reported.recv().await.unwrap()];
    texts.sort();
    assert!(texts[0].contains("CONNECT /: ") && texts[0].contains("Limits::handshake_timeout"), "{texts:?}");
    assert!(texts[1].contains("nobody used the connection"), "{texts:?}");
}

#[tokio::test]
async fn requests_beyond_max_streams_wait() {
    let limits = Limits::default().max_streams(1);
    let (accept, _serving) = stack(Server::new().acceptor(Acceptor::new().limits(limits)), echo);
    let client = another(&accept).await.unwrap();
    let first = client.open("/").await;
    let mut second = client.send(connect("/"));
    tokio::task::yield_now().await;
    assert!(second.try_recv().is_err());
    first.close(CloseCode::NORMAL, "").await.unwrap();
    let (response, _) = second.await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn invalid_options_and_errors_of_the_stack_are_returned() {
    let acceptor = Acceptor::new().limits(Limits::default().write_buffer(0));
    let serving = Server::new().acceptor(acceptor).serve_requests(echo, |_| async { Ok(()) });
    assert!(serving.await.unwrap_err().to_string().contains("Limits::write_buffer"));
    let broken = Server::new().serve_requests(echo, |_| async { Err(io::Error::other("no network")) });
    assert_eq!(broken.await.unwrap_err().to_string(), "no network");
}

#[tokio::test]
async fn the_kind_of_an_error_inside_of_an_io_error_is_kept() {
    struct Timed(DuplexStream);
    impl tokio::io::AsyncRead for Timed {
        fn poll_read(
            self: std::pin::Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut tokio::io::ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Ready(Err(Error::new(ErrorKind::Timeout, "the peer is silent").into()))
        }
    }
    impl tokio::io::AsyncWrite for Timed {
        fn poll_write(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            std::pin::Pin::new(&mut self.0).poll_write(cx, buf)
        }

        fn poll_flush(self: std::pin::Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: std::pin::Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }
    let (near, _far) = tokio::io::duplex(1024);
    let mut socket = Connector::new().adopt(Timed(near), Adoption::new()).unwrap();
    let error = socket.recv().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("the peer is silent"), "{error}");
}
