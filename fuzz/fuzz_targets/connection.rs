//! A whole connection, driven by a script: the output consists of whole frames, no message is lost or
//! repeated, nothing hangs, and the connection ends.
#![no_main]

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bowline::{
    Acceptor, Adoption, CloseCode, Connector, Error, ErrorKind, Limits, MessageKind, MessageReader,
    MessageWriter, Role, WebSocket,
};
use bowline_fuzz::{Messages, Outgoing, Wire, block_on_paused, encode_frame, messages_in, take_byte, wire};
use bowline_proto::{Opcode, ReceiveLimits};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

const MESSAGE_SIZE: usize = 40_000;
const FRAMES_PER_MESSAGE: u32 = 8;
const WRITE_BUFFER: usize = 300;

/// A time longer than any deadline of the library.
const LONG: Duration = Duration::from_secs(120);

/// The largest number of steps of a script.
const STEPS: usize = 100;

// the role, then steps: a byte for the operation, and its arguments
fuzz_target!(|script: &[u8]| {
    let mut script = script;
    let role = if take_byte(&mut script) & 1 == 0 { Role::Client } else { Role::Server };
    block_on_paused(async {
        let mut run = Run::new(role);
        for _ in 0..STEPS {
            if script.is_empty() {
                break;
            }
            run.step(&mut script).await;
            run.look();
        }
        run.end().await;
    });
});

/// A send, close, ping or flush in progress, and the message that it sends, if any.
struct Pending {
    work: Pin<Box<dyn Future<Output = Result<(), Error>>>>,
    message: Option<(MessageKind, Vec<u8>)>,
}

struct Run {
    role: Role,
    socket: Option<WebSocket>,
    sender: bowline::Sender,
    wire: Wire,
    pending: Vec<Pending>,
    writer: Option<(MessageWriter, Vec<u8>)>,
    /// The number of messages created.
    made: u16,
    outgoing: Outgoing,
    /// The accepted messages.
    accepted: Vec<(MessageKind, Vec<u8>)>,
    /// All bytes fed so far, read or unread.
    fed: Vec<u8>,
    pings_fed: Vec<Vec<u8>>,
    /// The received messages; of a message that was read in part, the part.
    received: Vec<(MessageKind, Vec<u8>, Part)>,
    /// The number of bytes that the library had read at our close.
    closed_at: Option<usize>,
    /// Set if the transport has failed, so that accepted messages may be lost.
    cut: bool,
    /// Set if the transport accepts all bytes.
    has_room: bool,
    end: Option<Result<(), ErrorKind>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Whole,
    Start,
}

impl Run {
    fn new(role: Role) -> Self {
        let (stream, wire) = wire();
        let limits = Limits::default()
            .message_size(MESSAGE_SIZE)
            .frames_per_message(FRAMES_PER_MESSAGE)
            .write_buffer(WRITE_BUFFER);
        let socket = match role {
            Role::Client => Connector::new().limits(limits).adopt(stream, Adoption::new()).unwrap(),
            Role::Server => Acceptor::new().limits(limits).adopt(stream, Adoption::new()).unwrap(),
        };
        Self {
            role,
            sender: socket.sender(),
            socket: Some(socket),
            wire,
            pending: Vec::new(),
            writer: None,
            made: 0,
            outgoing: Outgoing::of(role),
            accepted: Vec::new(),
            fed: Vec::new(),
            pings_fed: Vec::new(),
            received: Vec::new(),
            closed_at: None,
            cut: false,
            has_room: true,
            end: None,
        }
    }

    fn peer(&self) -> Role {
        if self.role == Role::Client { Role::Server } else { Role::Client }
    }

    // ---- the steps

    async fn step(&mut self, script: &mut &[u8]) {
        let (what, many) = (take_byte(script), take_byte(script));
        let polls = usize::from(many % 8);
        match what % 26 {
            0 => self.recv(polls).await,
            1 => self.recv_until_idle().await,
            2 => self.read_part(many).await,
            3 | 4 => {
                let message = self.message(many);
                let (sender, (kind, payload)) = (self.sender.clone(), message.clone());
                let work = Box::pin(async move {
                    match kind {
                        MessageKind::Text => {
                            sender.send(std::str::from_utf8(&payload).expect("it is ASCII")).await
                        }
                        MessageKind::Binary => sender.send(payload).await,
                    }
                });
                self.begin(Pending { work, message: Some(message) }, usize::from(what % 26 == 3)).await;
            }
            5 => self.try_send(many),
            6 => {
                let sender = self.sender.clone();
                let work = Box::pin(async move { sender.flush().await });
                self.begin(Pending { work, message: None }, polls).await;
            }
            7 => {
                let sender = self.sender.clone();
                let work = Box::pin(async move { sender.ping().await.map(drop) });
                self.begin(Pending { work, message: None }, polls).await;
            }
            8 => self.close(take_byte(script), polls).await,
            9 => self.poll_pending(usize::from(many), usize::from(take_byte(script) % 8)).await,
            10 => {
                if !self.pending.is_empty() {
                    let at = usize::from(many) % self.pending.len();
                    self.pending.remove(at);
                }
            }
            11 => self.open_writer(many).await,
            12 => self.write(many).await,
            13 => self.finish_writer(polls).await,
            14 => self.drop_writer(),
            15 => self.feed_message(many, take_byte(script)),
            16 => {
                let payload = vec![many; usize::from(many % 126)];
                self.feed(&encode_frame(self.peer(), true, Opcode::Ping, &payload));
                self.pings_fed.push(payload);
            }
            17 => {
                // The pong to an earlier ping, counted backwards.
                let ping = self.outgoing.pings.iter().nth_back(polls).cloned();
                self.feed(&encode_frame(self.peer(), true, Opcode::Pong, &ping.unwrap_or_default()));
            }
            18 => {
                let code = [1000, 1001, 1011, 3000, 4999, 1005, 999, 1014][polls];
                let mut payload = u16::to_be_bytes(code).to_vec();
                payload.resize(usize::from(many >> 3).min(125), b'r');
                self.feed(&encode_frame(self.peer(), true, Opcode::Close, &payload));
            }
            19 => {
                let count = usize::from(many % 32).min(script.len());
                let bytes;
                (bytes, *script) = script.split_at(count);
                self.feed(bytes);
            }
            20 => match many % 8 {
                0 => {
                    self.cut = true;
                    self.wire.end();
                }
                1 => {
                    self.cut = true;
                    self.wire.break_reading();
                }
                2 => {
                    self.cut = true;
                    self.wire.break_writing();
                }
                3 => self.wire.set_hesitating(true),
                4 => self.wire.set_hesitating(false),
                _ => self.wire.set_chunk([1, 7, usize::MAX][usize::from(many % 8) - 5]),
            },
            21 => {
                self.has_room = many == u8::MAX;
                self.wire.set_room(if self.has_room { usize::MAX } else { usize::from(many) });
            }
            22 => {
                // At least some time, so that other tasks run.
                sleep(Duration::from_millis(u64::from(many.max(1)) * 200)).await;
                self.look();
                self.expect_written();
            }
            23 => {
                for _ in 0..=polls {
                    yield_now().await;
                }
            }
            24 => {
                if many > 200 {
                    self.mark_close();
                    self.socket = None;
                }
            }
            _ => self.feed_message(many, 0),
        }
    }

    /// Creates a unique message of this many bytes or kilobytes.
    fn message(&mut self, size: u8) -> (MessageKind, Vec<u8>) {
        self.made += 1;
        let mut payload = self.made.to_string().into_bytes();
        let size = if size < 192 { usize::from(size) } else { usize::from(size - 191) * 256 };
        payload.resize(payload.len().max(size), b'.');
        (if self.made % 2 == 0 { MessageKind::Text } else { MessageKind::Binary }, payload)
    }

    // ---- receiving

    async fn recv(&mut self, polls: usize) {
        let Some(socket) = &mut self.socket else { return };
        let received = poll_times(polls, &mut Box::pin(socket.recv())).await;
        if let Some(received) = received {
            self.note(received);
        }
    }

    /// Receives all messages. All fed bytes are then read.
    async fn recv_until_idle(&mut self) {
        loop {
            let Some(socket) = &mut self.socket else { return };
            let closed = self.sender.is_closed();
            let Ok(received) = timeout(Duration::from_secs(1), socket.recv()).await else {
                self.look();
                if !closed && !self.sender.is_closed() {
                    assert_eq!(self.wire.unread(), 0, "a reader that waits has read all");
                    let fed = self.messages_fed(self.fed.len());
                    // An incomplete message may have been read in part.
                    let begun = self.received.len() == fed.whole.len() + 1 && fed.begun.is_some();
                    assert!(
                        begun || self.received.len() == fed.whole.len(),
                        "a reader that waits has got all"
                    );
                }
                return;
            };
            if !self.note(received) {
                return;
            }
        }
    }

    /// Reads the start of a message, and drops the reader.
    async fn read_part(&mut self, many: u8) {
        let Some(socket) = &mut self.socket else { return };
        let polls = usize::from(many % 8);
        let start = match poll_times(polls, &mut Box::pin(socket.reader())).await {
            None => return,
            Some(Ok(Some(reader))) => Ok(read_start(reader, polls, many >> 4).await),
            Some(Ok(None)) => Err(Ok(None)),
            Some(Err(error)) => Err(Err(error)),
        };
        match start {
            Ok(start) => self.received.push(start),
            Err(end) => {
                self.note(end);
            }
        }
    }

    /// Records a result of receiving. Returns whether it was a message.
    fn note(&mut self, received: Result<Option<bowline::Message>, Error>) -> bool {
        let end = match received {
            Ok(Some(message)) => {
                assert_eq!(self.end, None, "no message comes behind the end");
                self.received.push((message.kind(), message.as_bytes().to_vec(), Part::Whole));
                return true;
            }
            Ok(None) => Ok(()),
            Err(error) => Err(error.kind()),
        };
        assert_eq!(*self.end.get_or_insert(end), end, "the end stays the same");
        false
    }

    // ---- sending

    async fn begin(&mut self, pending: Pending, polls: usize) {
        self.pending.push(pending);
        self.poll_pending(self.pending.len() - 1, polls).await;
    }

    async fn poll_pending(&mut self, at: usize, polls: usize) {
        if self.pending.is_empty() {
            return;
        }
        let at = at % self.pending.len();
        let (read, closed) = (self.wire.read(), self.sender.is_closed());
        if let Some(result) = poll_times(polls, &mut self.pending[at].work).await {
            let pending = self.pending.remove(at);
            if result.is_ok() {
                self.accepted.extend(pending.message);
            }
        }
        // A close may receive its first poll here.
        if !closed && self.sender.is_closed() {
            self.closed_at.get_or_insert(read);
        }
    }

    fn try_send(&mut self, size: u8) {
        let (kind, payload) = self.message(size);
        let sent = match kind {
            MessageKind::Text => {
                let text = String::from_utf8(payload.clone()).expect("it is ASCII");
                self.sender.try_send(text).is_ok()
            }
            MessageKind::Binary => self.sender.try_send(&payload).is_ok(),
        };
        if sent {
            self.accepted.push((kind, payload));
        }
    }

    async fn open_writer(&mut self, many: u8) {
        if self.writer.is_some() {
            return;
        }
        let kind = if many & 0x80 == 0 { MessageKind::Text } else { MessageKind::Binary };
        let mut opening = Box::pin(self.sender.writer(kind));
        let opened = poll_times(usize::from(many % 8), &mut opening).await;
        drop(opening);
        if let Some(Ok(writer)) = opened {
            self.writer = Some((writer, Vec::new()));
        }
    }

    async fn write(&mut self, many: u8) {
        let (_, piece) = self.message(many);
        let Some((writer, written)) = &mut self.writer else { return };
        let wrote = poll_times(2, &mut poll_fn(|cx| Pin::new(&mut *writer).poll_write(cx, &piece))).await;
        if let Some(Ok(count)) = wrote {
            written.extend_from_slice(&piece[..count]);
        }
        if many % 2 == 0 {
            let _ = poll_times(2, &mut poll_fn(|cx| Pin::new(&mut *writer).poll_flush(cx))).await;
        }
    }

    async fn finish_writer(&mut self, polls: usize) {
        let Some((writer, written)) = self.writer.take() else { return };
        let kind = writer.kind();
        let read = self.wire.read();
        let closed = self.sender.is_closed();
        let mut finishing = Box::pin(writer.finish());
        let finished = poll_times(polls, &mut finishing).await;
        drop(finishing);
        match finished {
            Some(Ok(())) => self.accepted.push((kind, written)),
            _ if !closed && self.sender.is_closed() => self.closed_at = self.closed_at.or(Some(read)),
            _ => {}
        }
    }

    fn drop_writer(&mut self) {
        if self.writer.is_some() {
            let (read, closed) = (self.wire.read(), self.sender.is_closed());
            self.writer = None;
            if !closed && self.sender.is_closed() {
                self.closed_at = self.closed_at.or(Some(read));
            }
        }
    }

    async fn close(&mut self, code: u8, polls: usize) {
        let code = [1000, 1001, 4000, 1005][usize::from(code % 4)];
        if polls > 0 && code != 1005 {
            self.mark_close();
        }
        let sender = self.sender.clone();
        let work = Box::pin(async move { sender.close(CloseCode(code), "why").await.map(drop) });
        self.begin(Pending { work, message: None }, polls).await;
    }

    fn mark_close(&mut self) {
        let read = self.wire.read();
        self.closed_at.get_or_insert(read);
    }

    // ---- the peer

    fn feed(&mut self, bytes: &[u8]) {
        self.fed.extend_from_slice(bytes);
        self.wire.feed(bytes);
    }

    /// Feeds a message in fragments.
    fn feed_message(&mut self, size: u8, fragments: u8) {
        let (kind, payload) = self.message(size);
        let pieces: Vec<&[u8]> =
            payload.chunks(payload.len() / (usize::from(fragments % 10) + 1) + 1).collect();
        for (number, piece) in pieces.iter().enumerate() {
            let opcode = if number == 0 { kind.into() } else { Opcode::Continuation };
            let fin = number + 1 == pieces.len();
            self.feed(&encode_frame(self.peer(), fin, opcode, piece));
        }
    }

    /// Returns the messages in the first bytes that were fed, according to the protocol core alone.
    fn messages_fed(&self, read: usize) -> Messages {
        let limits =
            ReceiveLimits { message_size: MESSAGE_SIZE as u64, frames_per_message: FRAMES_PER_MESSAGE };
        messages_in(self.role, limits, &self.fed[..read])
    }

    // ---- what has to hold

    /// Checks the output.
    fn look(&mut self) {
        self.outgoing.arrive(&self.wire.take_written());
        let sent = &self.outgoing.messages;
        assert!(self.accepted.starts_with(sent), "what is sent is what was accepted, in that order");
        let mut fed = self.pings_fed.iter();
        for pong in &self.outgoing.pongs {
            // The list doesn't contain pings in raw bytes.
            let _ = fed.any(|ping| ping == pong);
        }
    }

    /// Checks that accepted messages are written without a further call.
    fn expect_written(&self) {
        if self.has_room && !self.cut && !self.sender.is_closed() {
            assert!(self.outgoing.is_whole());
            assert_eq!(self.outgoing.messages.len(), self.accepted.len());
        }
    }

    /// Ends the connection in any state.
    async fn end(&mut self) {
        self.has_room = true;
        self.wire.set_room(usize::MAX);
        self.drop_writer();
        self.look();
        if self.socket.is_some() {
            self.mark_close();
            let sender = self.sender.clone();
            let messages = self.messages_fed(self.fed.len()).whole.len();
            let closing = timeout(LONG, sender.close(CloseCode::NORMAL, ""));
            let _ = closing.await.expect("close never hangs");
            let socket = self.socket.as_mut().expect("it is there");
            let mut rest = Vec::new();
            // The bound covers each fed message, and the end twice.
            for _ in 0..messages + 2 {
                rest.push(timeout(LONG, socket.recv()).await.expect("recv never hangs behind the end"));
            }
            for received in rest {
                self.note(received);
            }
            assert!(self.end.is_some());
            self.check_received();
        }
        timeout(LONG, self.sender.closed()).await.expect("a connection that was closed is closed");
        for pending in std::mem::take(&mut self.pending) {
            let sent = timeout(LONG, pending.work).await.expect("nobody waits behind the end");
            assert!(pending.message.is_none() || sent.is_err(), "nothing is sent behind the end");
        }
        self.socket = None;
        sleep(LONG).await;
        self.look();
        assert!(self.wire.is_dropped(), "the transport is let go of");
    }

    /// Checks that no message was lost, repeated or invented.
    fn check_received(&self) {
        let Messages { whole, begun } = self.messages_fed(self.wire.read());
        let mut received = self.received.iter();
        for ((fed_kind, fed_payload, _), (kind, payload, part)) in whole.iter().zip(&mut received) {
            assert_eq!(kind, fed_kind);
            match part {
                Part::Whole => assert_eq!(payload, fed_payload),
                Part::Start => assert!(fed_payload.starts_with(payload)),
            }
        }
        // The start of the last, incomplete message may have been read.
        if let Some((kind, payload, part)) = received.next() {
            let begun = begun.expect("it has begun");
            assert_eq!((*kind, *part), (begun.0, Part::Start));
            assert!(begun.1.starts_with(payload));
        }
        assert_eq!(received.len(), 0, "no more than was fed");
        let kept = self.closed_at.unwrap_or(usize::MAX);
        let due = whole.iter().filter(|(_, _, end)| *end <= kept).count();
        assert!(self.received.len() >= due, "{} of {due}", self.received.len());
    }
}

/// Polls a future this many times, and lets other tasks run in between.
async fn poll_times<T>(times: usize, work: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
    for _ in 0..times {
        let polled = poll_fn(|cx| Poll::Ready(Pin::new(&mut *work).poll(cx))).await;
        if let Poll::Ready(result) = polled {
            return Some(result);
        }
        yield_now().await;
    }
    None
}

/// Reads the start of a message, with this many reads.
async fn read_start(mut reader: MessageReader<'_>, polls: usize, reads: u8) -> (MessageKind, Vec<u8>, Part) {
    let (kind, mut start) = (reader.kind(), Vec::new());
    for _ in 0..reads {
        let mut buf = [0; 16];
        let read = poll_times(polls, &mut Box::pin(reader.read(&mut buf))).await;
        match read {
            Some(Ok(0)) => return (kind, start, Part::Whole),
            Some(Ok(count)) => start.extend_from_slice(&buf[..count]),
            Some(Err(_)) | None => break,
        }
    }
    (kind, start, Part::Start)
}
