//! Foreign code calls back into the connection that called it: wakers, payloads, streams, errors. Any such
//! call under a lock of the connection would hang.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bowline::{
    Acceptor, Adoption, CloseCode, Connector, Limits, Message, MessageKind, Role, Sender, TrySendError,
    WebSocket,
};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use crate::support::frames::{Frame, encode_all};
use crate::support::pairs::{CARRIERS, with_raw_peer};
use crate::support::wire::{Stream, Wire, wire};
use crate::support::{open, peer_of, poll_once, settle};

/// Runs a test on a thread of its own, to distinguish hangs from failures.
fn bounded(test: impl AsyncFnOnce() + Send + 'static) {
    let (done, result) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test());
        done.send(()).unwrap();
    });
    result.recv_timeout(Duration::from_secs(60)).expect("it hangs or fails");
}

/// The calls of foreign code, which must not hang in any context.
#[derive(Clone, Default)]
struct CallBack(Arc<Called>);

#[derive(Default)]
struct Called {
    sender: Mutex<Option<Sender>>,
    count: AtomicUsize,
}

impl CallBack {
    fn to(sender: Sender) -> Self {
        let call_back = Self::default();
        *call_back.0.sender.lock().unwrap() = Some(sender);
        call_back
    }

    fn call(&self) {
        let sender = self.0.sender.lock().unwrap().clone();
        if let Some(sender) = sender {
            let _ = (sender.is_closed(), sender.close_frame(), format!("{sender:?}"));
            let _ = sender.try_send("from within");
            let _ = sender.try_send(vec![7; 100_000]);
        }
        self.0.count.fetch_add(1, Ordering::SeqCst);
    }

    fn count(&self) -> usize {
        self.0.count.load(Ordering::SeqCst)
    }
}

// ---- payloads

/// A payload whose drop calls back.
struct Owner(Vec<u8>, CallBack);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.1.call();
    }
}

fn payload(size: usize, call_back: &CallBack) -> Bytes {
    Bytes::from_owner(Owner(vec![1; size], call_back.clone()))
}

#[test]
fn a_payload_may_call_when_it_is_dropped() {
    for role in [Role::Client, Role::Server] {
        for &carrier in CARRIERS {
            for size in [1, 1024, 20_000, 100_000, 3_000_000] {
                bounded(async move || {
                    let (socket, peer) = with_raw_peer(role, carrier, Limits::default()).await;
                    let (mut reading, writing) = tokio::io::split(peer);
                    let draining =
                        tokio::spawn(
                            async move { tokio::io::copy(&mut reading, &mut tokio::io::sink()).await },
                        );
                    let call_back = CallBack::to(socket.sender());
                    socket.send(payload(size, &call_back)).await.unwrap();
                    socket.flush().await.unwrap();
                    while let Err(TrySendError::Full(_)) = socket.try_send(payload(size, &call_back)) {
                        socket.flush().await.unwrap();
                    }
                    socket.sender().send(Message::from(payload(size, &call_back))).await.unwrap();
                    socket.flush().await.unwrap();
                    assert_eq!(call_back.count(), 3, "{role:?} over {carrier:?}, {size} bytes");
                    drop((socket, writing));
                    let _ = draining.await;
                });
            }
        }
    }
}

/// Payloads that are never written are dropped with the connection.
#[test]
fn a_payload_that_is_thrown_away_may_call() {
    for role in [Role::Client, Role::Server] {
        for how in 0..4 {
            bounded(async move || {
                let limits =
                    Limits::default().write_buffer(10_000_000).close_timeout(Duration::from_millis(50));
                let (mut socket, wire) = open(role, limits);
                wire.set_room(1000);
                let call_back = CallBack::to(socket.sender());
                for _ in 0..3 {
                    socket.send(payload(100_000, &call_back)).await.unwrap();
                }
                let mut waiting = Box::pin(socket.sender().into_waiting(payload(100_000, &call_back)));
                let _ = poll_once(waiting.as_mut()).await;
                match how {
                    0 => wire.break_writing(io::ErrorKind::BrokenPipe),
                    1 => wire.break_off(io::ErrorKind::ConnectionReset),
                    2 => drop(socket.close(CloseCode::NORMAL, "").await),
                    _ => {
                        drop(socket);
                        wire.until(Wire::is_dropped).await;
                        drop(waiting);
                        assert_eq!(call_back.count(), 4);
                        return;
                    }
                }
                let _ = socket.recv().await;
                wire.until(Wire::is_dropped).await;
                drop(waiting);
                assert_eq!(call_back.count(), 4);
            });
        }
    }
}

trait IntoWaiting {
    fn into_waiting(self, payload: Bytes) -> impl Future<Output = Result<(), bowline::Error>>;
}

impl IntoWaiting for Sender {
    async fn into_waiting(self, payload: Bytes) -> Result<(), bowline::Error> {
        self.send(payload).await
    }
}

// ---- streams, and the errors that they return

/// A stream whose drop calls back, as do its errors.
struct Calling {
    stream: Stream,
    call_back: CallBack,
    fails: Arc<AtomicBool>,
}

#[derive(Debug)]
struct CallingError {
    _dropped: Mutex<CallBackOnDrop>,
}

struct CallBackOnDrop(CallBack);

impl std::fmt::Debug for CallBackOnDrop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CallBackOnDrop")
    }
}

impl Drop for CallBackOnDrop {
    fn drop(&mut self) {
        self.0.call();
    }
}

impl std::fmt::Display for CallingError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("it fails")
    }
}

impl std::error::Error for CallingError {}

impl Calling {
    fn error(&self) -> io::Error {
        io::Error::other(CallingError { _dropped: Mutex::new(CallBackOnDrop(self.call_back.clone())) })
    }
}

impl AsyncRead for Calling {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.fails.load(Ordering::SeqCst) {
            return Poll::Ready(Err(self.error()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Calling {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.fails.load(Ordering::SeqCst) {
            return Poll::Ready(Err(self.error()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for Calling {
    fn drop(&mut self) {
        self.call_back.call();
    }
}

#[test]
fn a_stream_and_its_errors_may_call_when_they_are_dropped() {
    for role in [Role::Client, Role::Server] {
        for how in 0..6 {
            bounded(async move || {
                let (stream, wire) = wire();
                let (call_back, fails) = (CallBack::default(), Arc::new(AtomicBool::new(false)));
                let calling = Calling { stream, call_back: call_back.clone(), fails: Arc::clone(&fails) };
                let limits = Limits::default().close_timeout(Duration::from_millis(50));
                let mut socket = match role {
                    Role::Client => Connector::new().limits(limits).adopt(calling, Adoption::new()).unwrap(),
                    Role::Server => Acceptor::new().limits(limits).adopt(calling, Adoption::new()).unwrap(),
                };
                let sender = socket.sender();
                *call_back.0.sender.lock().unwrap() = Some(sender.clone());
                settle().await;
                match how {
                    0 => drop(socket),
                    1 => {
                        wire.end();
                        assert!(socket.recv().await.is_err());
                    }
                    2 => {
                        fails.store(true, Ordering::SeqCst);
                        let _ = socket.send("fails").await;
                        assert!(socket.send("fails").await.is_err());
                        // Reading fails, too.
                        wire.feed(b"");
                    }
                    3 => assert!(socket.close(CloseCode::NORMAL, "").await.is_err()),
                    4 => {
                        wire.feed_frame(peer_of(role), &Frame::close(1000, ""));
                        wire.end();
                        assert_eq!(socket.recv().await.unwrap(), None);
                    }
                    _ => {
                        let mut writer = socket.writer(MessageKind::Binary).await.unwrap();
                        writer.write_all(b"a part").await.unwrap();
                        writer.flush().await.unwrap();
                        drop(writer);
                        drop(socket);
                    }
                }
                wire.until(Wire::is_dropped).await;
                assert!(call_back.count() > 0);
                // The stream and the connection refer to each other.
                *call_back.0.sender.lock().unwrap() = None;
                assert!(sender.is_closed());
            });
        }
    }
}

// ---- wakers

/// A waker that calls back when woken and when dropped, like that of an executor that polls at once and drops
/// a task with its last waker.
struct CallingWaker(CallBack);

impl Wake for CallingWaker {
    fn wake(self: Arc<Self>) {
        self.0.call();
    }
}

impl Drop for CallingWaker {
    fn drop(&mut self) {
        self.0.call();
    }
}

fn calling_waker(sender: &Sender) -> (Waker, CallBack) {
    let call_back = CallBack::to(sender.clone());
    (Waker::from(Arc::new(CallingWaker(call_back.clone()))), call_back)
}

/// Polls with a waker that only the connection holds afterwards.
fn poll_with_new_waker<F: Future>(future: Pin<&mut F>, sender: &Sender) -> (Poll<F::Output>, CallBack) {
    let (waker, call_back) = calling_waker(sender);
    (future.poll(&mut Context::from_waker(&waker)), call_back)
}

#[test]
fn a_waker_may_call_when_it_is_replaced_dropped_or_woken() {
    for role in [Role::Client, Role::Server] {
        for hesitates in [false, true] {
            bounded(async move || {
                // Nobody answers our Close frame.
                tokio::time::pause();
                let (mut socket, wire) = open(role, Limits::default().write_buffer(1));
                if hesitates {
                    // The stream wakes its task while it is polled, under the connection's locks.
                    wire.set_hesitating();
                }
                let sender = socket.sender();
                let others: [Sender; 4] = std::array::from_fn(|_| sender.clone());
                wire.set_room(0);
                others[0].send("fills the buffer").await.unwrap();
                {
                    let mut send = Box::pin(others[0].send("waits"));
                    let mut flush = Box::pin(others[1].flush());
                    let mut ping = Box::pin(others[2].ping());
                    let mut closed = Box::pin(others[3].closed());
                    let mut recv = Box::pin(socket.recv());
                    for _ in 0..3 {
                        assert!(poll_with_new_waker(send.as_mut(), &sender).0.is_pending());
                        assert!(poll_with_new_waker(flush.as_mut(), &sender).0.is_pending());
                        assert!(poll_with_new_waker(ping.as_mut(), &sender).0.is_pending());
                        assert!(poll_with_new_waker(closed.as_mut(), &sender).0.is_pending());
                        assert!(poll_with_new_waker(recv.as_mut(), &sender).0.is_pending());
                    }
                    settle().await;
                    wire.set_room(1000);
                    wire.feed_frame(peer_of(role), &Frame::text("hello"));
                    settle().await;
                }
                let mut recv = Box::pin(socket.recv());
                loop {
                    let (polled, call_back) = poll_with_new_waker(recv.as_mut(), &sender);
                    if polled.is_ready() {
                        assert!(call_back.count() > 0, "it was dropped");
                        break;
                    }
                    settle().await;
                }
                drop(recv);
                wire.set_room(usize::MAX);
                let mut closed = Box::pin(sender.closed());
                let (polled, call_back) = poll_with_new_waker(closed.as_mut(), &sender);
                assert!(polled.is_pending());
                drop(socket);
                wire.until(Wire::is_dropped).await;
                assert!(call_back.count() >= 2, "it was woken and dropped");
            });
        }
    }
}

/// A task that owns its connection, and is owned only by its waker, as in a small executor: dropping the
/// waker drops the connection.
#[test]
fn a_waker_may_drop_the_websocket_itself() {
    struct Task(Mutex<Option<WebSocket>>);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }

    for role in [Role::Client, Role::Server] {
        bounded(async move || {
            // Nobody answers our Close frame.
            tokio::time::pause();
            let (mut socket, wire) = open(role, Limits::default());
            let sender = socket.sender();
            let task = Arc::new(Task(Mutex::new(None)));
            let waker = Waker::from(Arc::clone(&task));
            let mut cx = Context::from_waker(&waker);
            // The waker stays with the connection, although the future is dropped.
            let mut recv = Box::pin(socket.recv());
            assert!(recv.as_mut().poll(&mut cx).is_pending());
            std::mem::forget(recv);
            *task.0.lock().unwrap() = Some(socket);
            drop((task, waker));
            assert!(!sender.is_closed());
            wire.feed_frame(peer_of(role), &Frame::ping("?"));
            wire.until(Wire::is_dropped).await;
            assert!(sender.is_closed());
        });
    }
}

// ---- the end of a poll

/// Foreign code that defers a waker of tokio's, as anything does that yields.
struct Defers(Arc<AtomicUsize>);

impl Defers {
    fn defer(&self) {
        let mut yielding = Box::pin(tokio::task::yield_now());
        let _ = yielding.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Wake for Defers {
    fn wake(self: Arc<Self>) {
        self.defer();
    }
}

impl AsRef<[u8]> for Defers {
    fn as_ref(&self) -> &[u8] {
        static BYTES: [u8; 100_000] = [7; 100_000];
        &BYTES
    }
}

impl Drop for Defers {
    fn drop(&mut self) {
        self.defer();
    }
}

/// On a runtime of one thread, replies are written while tokio holds its list of deferred wakers.
#[test]
fn foreign_code_may_defer_a_waker_at_the_end_of_a_poll() {
    bounded(async || {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let stream = listener.accept().await.unwrap().0;
        let mut socket = Acceptor::new().adopt(stream, Adoption::new()).unwrap();
        let batch = ["1", "2", "3"].map(Frame::text);
        peer.write_all(&encode_all(Role::Client, &batch)).await.unwrap();
        assert_eq!(socket.recv().await.unwrap(), Some("1".into()));

        // The ping waits for its pong, and looks at it whenever something was written.
        let (woken, dropped) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let sender = socket.sender();
        let mut ping = Box::pin(sender.ping());
        let waker = Waker::from(Arc::new(Defers(Arc::clone(&woken))));
        assert!(ping.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        settle().await;
        assert_eq!(socket.recv().await.unwrap(), Some("2".into()));
        let payload = Bytes::from_owner(Defers(Arc::clone(&dropped)));
        socket.send(payload).await.unwrap();
        assert_eq!((woken.load(Ordering::SeqCst), dropped.load(Ordering::SeqCst)), (0, 0), "it is held back");
        // The whole reply fits into the buffers of the socket.
        let (mut read, mut received) = (vec![0; 200_000], 0);
        while received <= 100_000 {
            received += peer.read(&mut read).await.unwrap();
        }
        settle().await;
        assert_eq!((woken.load(Ordering::SeqCst), dropped.load(Ordering::SeqCst)), (1, 1));
    });
}
