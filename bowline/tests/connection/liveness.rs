//! Deadlines hold whatever the peer sends, and however late they are checked.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bowline::{Acceptor, Adoption, CloseCode, Connector, ErrorKind, Limits, Role, Server, WebSocket};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::support::frames::{Frame, encode_all};
use crate::support::pairs::{CARRIERS, with_raw_peer};
use crate::support::{self, peer_of};

const CLOSE_TIMEOUT: Duration = Duration::from_millis(100);

/// A time far longer than any of these tests takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn limits() -> Limits {
    Limits::default().close_timeout(CLOSE_TIMEOUT).frames_per_message(u32::MAX).message_size(1 << 25)
}

/// Bytes that a peer may send forever.
fn floods(role: Role) -> Vec<(&'static str, Vec<u8>)> {
    let small = |frame: Frame| encode_all(role, &vec![frame; 10_000]);
    let mut fragments = vec![Frame::continuation("").unfinished(); 10_000];
    fragments[0] = Frame::text("a").unfinished();
    fragments[9_999] = Frame::continuation("");
    vec![
        ("pongs", small(Frame::pong(""))),
        ("pings", small(Frame::ping("?"))),
        ("text", small(Frame::text("news"))),
        ("empty messages", small(Frame::binary(""))),
        ("empty fragments", encode_all(role, &fragments)),
        ("one large frame", Frame::binary(vec![1; 1 << 21]).encode(role)),
    ]
}

// ---- a stream that is always ready

/// A peer that repeats its bytes, as fast as they are read.
struct Endless {
    bytes: Vec<u8>,
    position: usize,
    /// Set if bytes can be written.
    takes: bool,
    /// Set if our direction can be shut down.
    ends: bool,
    dropped: Arc<AtomicBool>,
}

impl AsyncRead for Endless {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while buf.remaining() > 0 {
            let rest = &self.bytes[self.position..];
            let count = rest.len().min(buf.remaining());
            buf.put_slice(&rest[..count]);
            self.position = (self.position + count) % self.bytes.len();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Endless {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.takes { Poll::Ready(Ok(buf.len())) } else { Poll::Pending }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ends { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

impl Drop for Endless {
    fn drop(&mut self) {
        self.dropped.store(true, Ordering::SeqCst);
    }
}

/// Returns a connection whose peer never stops sending, and whether the stream was dropped. The peer accepts
/// bytes if `takes` is true.
fn endless(role: Role, bytes: Vec<u8>, takes: bool) -> (WebSocket, Arc<AtomicBool>) {
    open_endless(role, bytes, takes, true)
}

fn open_endless(role: Role, bytes: Vec<u8>, takes: bool, ends: bool) -> (WebSocket, Arc<AtomicBool>) {
    let dropped = Arc::new(AtomicBool::new(false));
    let stream = Endless { bytes, position: 0, takes, ends, dropped: Arc::clone(&dropped) };
    let keepalive = Duration::from_millis(200);
    let socket = match role {
        Role::Client => {
            Connector::new().limits(limits()).keepalive(keepalive).adopt(stream, Adoption::new()).unwrap()
        }
        Role::Server => {
            Acceptor::new().limits(limits()).keepalive(keepalive).adopt(stream, Adoption::new()).unwrap()
        }
    };
    (socket, dropped)
}

async fn until_dropped(dropped: &AtomicBool) {
    while !dropped.load(Ordering::SeqCst) {
        tokio::task::yield_now().await;
    }
}

/// Repeats `case` for both roles and all floods.
async fn for_each_flood(case: impl AsyncFn(Role, Vec<u8>)) {
    for role in [Role::Client, Role::Server] {
        for (name, flood) in floods(peer_of(role)) {
            let bounded = timeout(PATIENCE, case(role, flood));
            bounded.await.unwrap_or_else(|_| panic!("{role:?} under a flood of {name} hangs"));
        }
    }
}

#[tokio::test]
async fn close_ends_under_an_endless_flood() {
    for_each_flood(async |role, flood| {
        let (socket, dropped) = endless(role, flood, true);
        let error = socket.close(CloseCode::NORMAL, "").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        until_dropped(&dropped).await;
    })
    .await;
}

#[tokio::test]
async fn a_dropped_websocket_ends_under_an_endless_flood() {
    for_each_flood(async |role, flood| {
        let (socket, dropped) = endless(role, flood, true);
        drop(socket);
        until_dropped(&dropped).await;
    })
    .await;
}

/// Our direction can't be shut down, as a TLS stream's when the transport takes no `close_notify`.
#[tokio::test]
async fn a_shutdown_that_never_ends_ends_under_an_endless_flood() {
    for_each_flood(async |role, flood| {
        for violates in [false, true] {
            let wrong = || encode_all(role, &vec![Frame::ping(""); 10_000]);
            let flood = if violates { wrong() } else { flood.clone() };
            let (mut socket, dropped) = open_endless(role, flood, true, false);
            if violates {
                // The frame has the wrong masking.
                assert_eq!(socket.recv().await.unwrap_err().kind(), ErrorKind::Protocol);
            }
            drop(socket);
            until_dropped(&dropped).await;
        }
    })
    .await;
}

/// Our Close frame, or earlier bytes, can't be written.
#[tokio::test]
async fn close_ends_under_an_endless_flood_of_a_peer_that_takes_nothing() {
    for_each_flood(async |role, flood| {
        for close in [true, false] {
            let (socket, dropped) = endless(role, flood.clone(), false);
            socket.send("stuck").await.unwrap();
            if close {
                assert_eq!(socket.close(CloseCode::NORMAL, "").await.unwrap_err().kind(), ErrorKind::Timeout);
            } else {
                drop(socket);
            }
            until_dropped(&dropped).await;
        }
    })
    .await;
}

/// The peer sends without end, but accepts nothing. This ends the connection, although it is read all the
/// time.
#[tokio::test]
async fn a_stalled_transport_is_noticed_under_an_endless_flood() {
    for_each_flood(async |role, flood| {
        for reads in [true, false] {
            let (mut socket, dropped) = endless(role, flood.clone(), false);
            let sender = socket.sender();
            sender.send("stuck").await.unwrap();
            let reading = tokio::spawn(async move {
                while reads && matches!(socket.recv().await, Ok(Some(_))) {}
                socket
            });
            assert_eq!(sender.flush().await.unwrap_err().kind(), ErrorKind::Timeout);
            until_dropped(&dropped).await;
            drop(reading.await.unwrap());
        }
    })
    .await;
}

/// Without tokio's budget, the library itself bounds a poll.
#[test]
fn one_poll_ends_outside_of_tokio() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (mut socket, _) =
        runtime.block_on(async { endless(Role::Server, floods(Role::Client)[0].1.clone(), true) });
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..3 {
        assert!(pin!(socket.recv()).poll(&mut cx).is_pending());
    }
}

// ---- real transports

/// Repeats bytes until the other end is gone, and discards received bytes.
async fn flood_and_drain(stream: impl AsyncRead + AsyncWrite + Send + 'static, bytes: Vec<u8>) {
    let (mut reading, mut writing) = tokio::io::split(stream);
    let flooding = async { while writing.write_all(&bytes).await.is_ok() {} };
    let draining = async {
        let mut buf = vec![0; 64 * 1024];
        while !matches!(reading.read(&mut buf).await, Ok(0) | Err(_)) {}
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = flooding => {}
        () = draining => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closes_and_drops_end_over_every_carrier_though_the_peer_never_stops() {
    for &carrier in CARRIERS {
        for_each_flood(async |role, flood| {
            for close in [true, false] {
                let (socket, peer) = with_raw_peer(role, carrier, limits()).await;
                let flooding = tokio::spawn(flood_and_drain(peer, flood.clone()));
                if close {
                    let error = socket.close(CloseCode::NORMAL, "").await.unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
                } else {
                    drop(socket);
                }
                flooding.await.unwrap();
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_handler_ends_the_connection_though_the_peer_never_stops() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::new().acceptor(Acceptor::new().limits(limits()));
    let serving = tokio::spawn(server.serve(listener, |_: WebSocket| async { Ok(()) }));
    for (name, flood) in floods(Role::Client) {
        let (stream, head) = support::http::upgrade(address, &support::http::Head::request()).await;
        assert_eq!(head.status(), 101);
        let flooding = timeout(PATIENCE, flood_and_drain(stream, flood));
        flooding.await.unwrap_or_else(|_| panic!("{name}: the connection is still open"));
    }
    serving.abort();
}

// ---- a process that stood still

#[cfg(unix)]
mod stopped {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{SocketAddr, TcpStream};
    use std::process::{Child, ChildStdout, Command, Stdio};
    use std::sync::Arc;
    use std::time::Duration;

    use bowline::{Acceptor, CloseCode, Limits, Role, WebSocket};
    use bowline_proto::Opcode;
    use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};
    use tokio::net::TcpListener;

    use crate::support::frames::{Frame, take_frames};

    /// The environment variable that tells the child which case it is.
    const CASE: &str = "BOWLINE_STOPPED";

    /// The prefixes of the lines with the child's address, and with the path of its certificate.
    const LISTENING: &str = "listening on ";

    const INTERVAL: Duration = Duration::from_secs(1);

    /// More than the kernel's buffers hold.
    const FILLING: usize = 16 * 1024 * 1024;

    /// The time for which the child is stopped.
    const STOPPED: Duration = Duration::from_millis(2500);

    /// The stopped process. It echoes, closes on request, and prints how the connection ended.
    #[test]
    #[ignore = "for the other tests"]
    fn child() {
        let Ok(case) = std::env::var(CASE) else { return };
        let (runtime, carrier) = case.split_once(' ').unwrap();
        let runtime = match runtime {
            "one" => tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
            _ => tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap(),
        };
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            let certificate = made.cert.der().clone();
            let hex = certificate.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
            println!("{LISTENING}{} {hex}", listener.local_addr().unwrap());
            let (stream, _) = listener.accept().await.unwrap();
            let limits = Limits::default().close_timeout(INTERVAL);
            let acceptor = Acceptor::new().limits(limits).keepalive(INTERVAL);
            let socket = if carrier == "tls" {
                let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
                let provider = Arc::new(rustls::crypto::ring::default_provider());
                let config = ServerConfig::builder_with_provider(provider)
                    .with_safe_default_protocol_versions()
                    .unwrap()
                    .with_no_client_auth()
                    .with_single_cert(vec![certificate], key)
                    .unwrap();
                let stream = tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(stream).await.unwrap();
                acceptor.adopt(stream, bowline::Adoption::new()).unwrap()
            } else {
                acceptor.adopt(stream, bowline::Adoption::new()).unwrap()
            };
            // In a task of its own, as under `serve`.
            tokio::spawn(echo(socket)).await.unwrap();
        });
    }

    async fn echo(mut socket: WebSocket) {
        loop {
            let message = match socket.recv().await {
                Ok(Some(message)) => message,
                end => return println!("ended {end:?}"),
            };
            match message.as_text() {
                Some("close") => {
                    let closed = socket.close(CloseCode::NORMAL, "").await;
                    return println!("closed {}", closed.is_ok());
                }
                Some("fill") => socket.send(vec![0; FILLING]).await.unwrap(),
                _ => socket.send(message).await.unwrap(),
            }
        }
    }

    trait Stream: Read + Write {}

    impl<T: Read + Write> Stream for T {}

    struct Peer {
        child: Child,
        lines: std::io::Lines<BufReader<ChildStdout>>,
        socket: TcpStream,
        stream: Box<dyn Stream>,
        received: Vec<u8>,
    }

    impl Peer {
        fn start(case: &str) -> Self {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "liveness::stopped::child", "--ignored", "--nocapture"])
                .env(CASE, case)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let said = lines.find_map(|line| Some(line.ok()?.split_once(LISTENING)?.1.to_owned())).unwrap();
            let (address, hex) = said.split_once(' ').unwrap();
            let address: SocketAddr = address.parse().unwrap();
            let socket = TcpStream::connect(address).unwrap();
            socket.set_nodelay(true).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            let stream: Box<dyn Stream> = if case.ends_with("tls") {
                let digits = hex.as_bytes().chunks(2).map(|two| std::str::from_utf8(two).unwrap());
                let certificate: Vec<u8> = digits.map(|two| u8::from_str_radix(two, 16).unwrap()).collect();
                let mut roots = RootCertStore::empty();
                roots.add(CertificateDer::from(certificate)).unwrap();
                let provider = Arc::new(rustls::crypto::ring::default_provider());
                let config = ClientConfig::builder_with_provider(provider)
                    .with_safe_default_protocol_versions()
                    .unwrap()
                    .with_root_certificates(roots)
                    .with_no_client_auth();
                let name = ServerName::try_from("localhost").unwrap();
                let tls = ClientConnection::new(Arc::new(config), name).unwrap();
                Box::new(StreamOwned::new(tls, socket.try_clone().unwrap()))
            } else {
                Box::new(socket.try_clone().unwrap())
            };
            Self { child, lines, socket, stream, received: Vec::new() }
        }

        fn send(&mut self, frame: &Frame) {
            self.stream.write_all(&frame.encode(Role::Client)).unwrap();
            self.stream.flush().unwrap();
        }

        fn next_frame(&mut self) -> Frame {
            loop {
                let mut frames = take_frames(Role::Server, &mut self.received);
                if !frames.is_empty() {
                    let rest: Vec<u8> =
                        frames[1..].iter().flat_map(|frame| frame.encode(Role::Server)).collect();
                    self.received.splice(0..0, rest);
                    return frames.remove(0);
                }
                let mut buf = vec![0; 1 << 20];
                let count = self.stream.read(&mut buf).expect("the child is alive and speaks");
                assert!(count > 0, "the child has ended the connection");
                self.received.extend_from_slice(&buf[..count]);
            }
        }

        /// Reads until a frame of `opcode` arrives.
        fn wait_for(&mut self, opcode: Opcode) -> Frame {
            loop {
                let frame = self.next_frame();
                if frame.opcode == opcode {
                    return frame;
                }
            }
        }

        fn signal(&self, signal: Signal) {
            kill_process(Pid::from_child(&self.child), signal).unwrap();
        }

        fn stop(&self) {
            self.signal(Signal::STOP);
            // Waits until all threads are stopped.
            let id = Some(Pid::from_child(&self.child));
            let status = waitpid(id, WaitOptions::UNTRACED).unwrap();
            assert!(status.is_some_and(|(_, status)| status.stopped()), "it has ended: {status:?}");
        }

        /// Stops the child until all of its deadlines have passed, and runs an action meanwhile.
        fn while_stopped(&mut self, something: impl FnOnce(&mut Self)) {
            self.stop();
            something(self);
            // A stopped process sends nothing, so this waits for the timeout.
            self.socket.set_read_timeout(Some(STOPPED)).unwrap();
            let nothing = self.socket.peek(&mut [0]);
            assert!(nothing.is_err(), "it is not stopped: {nothing:?}");
            self.socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            self.signal(Signal::CONT);
        }

        fn assert_alive(&mut self) {
            self.send(&Frame::text("still there?"));
            assert_eq!(self.wait_for(Opcode::Text), Frame::text("still there?"));
        }
    }

    impl Drop for Peer {
        fn drop(&mut self) {
            self.signal(Signal::CONT);
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    const CASES: [&str; 4] = ["one tcp", "two tcp", "one tls", "two tls"];

    fn for_each_case(test: impl Fn(Peer) + Send + Sync) {
        std::thread::scope(|scope| {
            for case in CASES {
                scope.spawn(|| test(Peer::start(case)));
            }
        });
    }

    #[test]
    fn a_pong_that_lies_in_the_socket_is_life() {
        for_each_case(|mut peer| {
            peer.assert_alive();
            for _ in 0..3 {
                let ping = peer.wait_for(Opcode::Ping);
                peer.while_stopped(|peer| peer.send(&Frame::pong(&ping.payload)));
                peer.assert_alive();
            }
        });
    }

    #[test]
    fn a_close_frame_that_lies_in_the_socket_is_an_answer() {
        for_each_case(|mut peer| {
            peer.send(&Frame::text("close"));
            let close = peer.wait_for(Opcode::Close);
            peer.while_stopped(|peer| {
                peer.send(&close);
                if peer.child.id() % 2 == 0 {
                    // The end may be there as well.
                    let _ = peer.socket.shutdown(std::net::Shutdown::Write);
                }
            });
            let said = peer.lines.find_map(|line| Some(line.ok()?.split_once("closed ")?.1.to_owned()));
            assert_eq!(said.as_deref(), Some("true"), "the answer was there in time");
        });
    }

    /// The child could have written during all the time in which it was stopped.
    #[test]
    fn room_in_the_socket_is_progress() {
        for_each_case(|mut peer| {
            peer.send(&Frame::text("fill"));
            let _ = peer.socket.peek(&mut [0]).unwrap();
            peer.stop();
            // The bytes in progress fit here, so that the child can continue to write as soon as it runs.
            peer.socket.set_read_timeout(Some(STOPPED)).unwrap();
            let mut buf = vec![0; 1 << 20];
            while let Ok(count) = peer.stream.read(&mut buf) {
                assert!(count > 0, "it is stopped");
                peer.received.extend_from_slice(&buf[..count]);
            }
            peer.socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            peer.signal(Signal::CONT);
            while peer.received.len() < 10 + FILLING {
                let count = peer.stream.read(&mut buf).expect("the child goes on");
                assert!(count > 0, "the child has ended the connection");
                peer.received.extend_from_slice(&buf[..count]);
            }
            // Its header has ten bytes.
            peer.received.drain(..10 + FILLING);
            peer.assert_alive();
        });
    }
}
