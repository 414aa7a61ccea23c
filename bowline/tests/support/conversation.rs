//! A random conversation between a client and a server of the library over a simulated network, with the
//! promises that must hold.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use bowline::{
    Acceptor, CloseCode, Connector, Error, ErrorKind, Limits, Message, MessageKind, MessageReader, Payload,
    Prepared, Role, Sender, TrySendError, WebSocket,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::{LocalSet, spawn_local, yield_now};
use tokio::time::{Instant, sleep, timeout};

use super::modes::{MODES, Mode, compress};
use super::network::{Conditions, Fault, Network, network};
use super::poll_times;
use super::random::Random;

/// The random parameters of a whole conversation.
#[derive(Clone, Debug)]
struct Plan {
    conditions: Conditions,
    /// Set if the network delivers all bytes soon, and both applications read all the time and close at the
    /// end. The connection then has to end in order.
    orderly: bool,
    mode: Mode,
    write_buffer: usize,
    close_timeout: Duration,
    keepalive: Duration,
    largest: usize,
    /// The time at which a side closes, if none has.
    ends_after: Duration,
    messages: usize,
    senders: [usize; 2],
}

impl Plan {
    fn new(random: &mut Random) -> Self {
        let (delay, chunk, capacity) = match random.within(0..=3) {
            0 => (0, random.choose(&[1, 7, 100, 100_000]), random.choose(&[16, 1000, 65_536])),
            1 | 2 => (3, random.choose(&[50, 1000, 100_000]), random.choose(&[8192, 65_536])),
            _ => (100, random.choose(&[1000, 100_000]), 131_072),
        };
        let lateness = if chunk.min(capacity) < 1000 { 0 } else { random.choose(&[0, 0, 3]) };
        let after = Duration::from_millis(random.within(0..=1500) as u64);
        let sides = random.choose(&[[true, true], [true, false], [false, true]]);
        let heals = Duration::from_millis(random.choose(&[100, 2_000, 15_000, 60_000]));
        let fault = match random.within(0..=9) {
            0 => Some((after, Fault::Reset)),
            1 => Some((after, Fault::Vanish(sides))),
            2 => Some((after, Fault::Stall(sides, None))),
            3 => Some((after, Fault::Stall(sides, Some(heals)))),
            _ => None,
        };
        Self {
            orderly: fault.is_none() && random.percent(60),
            mode: random.choose(MODES),
            write_buffer: random.choose(&[1, 100, 4096, 65_536]),
            close_timeout: Duration::from_secs(5),
            keepalive: Duration::from_secs(random.choose(&[2, 20])),
            largest: (chunk * 300).min(random.choose(&[130, 3000, 70_000])),
            ends_after: Duration::from_millis(random.within(0..=2000) as u64),
            messages: random.within(0..=12),
            senders: [random.within(0..=3), random.within(0..=3)],
            conditions: Conditions {
                delay,
                chunk,
                capacity,
                hesitation: random.choose(&[0, 0, 10, 40]),
                lateness,
                holds_back: random.percent(30),
                vectored: random.percent(50),
                one_waker: random.percent(30),
                fault,
            },
        }
    }
}

/// The events of one side.
#[derive(Default)]
struct Side {
    /// The messages in the order in which the library has accepted them.
    accepted: Vec<Message>,
    /// The number of flushed messages.
    flushed: usize,
    received: Vec<Received>,
    /// The codes with which this side has started to close, or may have.
    closed_with: Vec<CloseCode>,
    /// Set if the side has dropped its `WebSocket` before the end.
    dropped: bool,
    end: Option<End>,
    next: usize,
}

enum Received {
    Whole(Message),
    /// The number of bytes after which the reader was dropped, or failed.
    Part(MessageKind, Vec<u8>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    Normal,
    Failed(ErrorKind, Option<CloseCode>),
}

impl End {
    fn of(error: &Error) -> Self {
        Self::Failed(error.kind(), error.close_frame().map(bowline::CloseFrame::code))
    }
}

/// The outcome of a conversation, for statistics.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// A hash of all events and their times.
    pub digest: u64,
    pub messages: usize,
    pub parts: usize,
    pub orderly: usize,
    pub normal_ends: usize,
    pub closed_ends: usize,
    pub disconnected_ends: usize,
    pub timed_out_ends: usize,
    pub full: usize,
    pub dropped_sends: usize,
    pub pings: usize,
}

impl Outcome {
    pub fn add(&mut self, other: &Self) {
        self.digest ^= other.digest;
        self.messages += other.messages;
        self.parts += other.parts;
        self.orderly += other.orderly;
        self.normal_ends += other.normal_ends;
        self.closed_ends += other.closed_ends;
        self.disconnected_ends += other.disconnected_ends;
        self.timed_out_ends += other.timed_out_ends;
        self.full += other.full;
        self.dropped_sends += other.dropped_sends;
        self.pings += other.pings;
    }
}

/// The state that all tasks of a conversation share.
struct Talk {
    plan: Plan,
    sides: [RefCell<Side>; 2],
    outcome: RefCell<Outcome>,
    start: Instant,
    log: bool,
}

impl Talk {
    fn note(&self, side: usize, what: &str, count: usize) {
        let at = self.start.elapsed().as_millis();
        if self.log {
            println!("{at:>6} ms  {}  {what} {count}", ["client", "server"][side]);
        }
        let mut outcome = self.outcome.borrow_mut();
        let text = what.bytes().map(u64::from);
        let numbers = [u64::try_from(at).unwrap(), side as u64, count as u64];
        for number in text.chain(numbers) {
            outcome.digest = (outcome.digest.rotate_left(5) ^ number).wrapping_mul(0x517c_c1b7_2722_0a95);
        }
    }

    /// Returns a message unlike all others of its side.
    fn message(&self, side: usize, random: &mut Random) -> Message {
        let number = {
            let mut this = self.sides[side].borrow_mut();
            this.next += 1;
            this.next
        };
        let wanted = match random.within(0..=9) {
            0 => 0,
            1..=6 => random.within(0..=200).min(self.plan.largest),
            _ => random.within(0..=self.plan.largest),
        };
        if random.percent(50) {
            let mut text = format!("{number}:");
            while text.len() < wanted {
                text.push(random.choose(&['a', 'ß', '水', '🪢']));
            }
            Message::Text(text.into())
        } else {
            let mut bytes = format!("{number}:").into_bytes();
            bytes.resize_with(wanted.max(bytes.len()), || random.next().to_le_bytes()[0]);
            Message::Binary(bytes.into())
        }
    }

    fn accepted(&self, side: usize, message: Message) {
        self.note(side, "accepted", message.as_bytes().len());
        self.sides[side].borrow_mut().accepted.push(message);
    }

    fn received(&self, side: usize, received: Received) {
        match &received {
            Received::Whole(message) => self.note(side, "received", message.as_bytes().len()),
            Received::Part(_, bytes) => {
                self.outcome.borrow_mut().parts += 1;
                self.note(side, "received a part", bytes.len());
            }
        }
        self.sides[side].borrow_mut().received.push(received);
    }

    fn ended(&self, side: usize, end: &End) {
        self.note(side, &format!("ended: {end:?}"), 0);
        let known = self.sides[side].borrow_mut().end.get_or_insert(end.clone()).clone();
        assert_eq!(known, *end, "it stays ended in the same way");
    }
}

/// Runs a conversation. Panics if a promise is broken.
pub fn converse(seed: u64, log: bool) -> Outcome {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let local = LocalSet::new();
    runtime.block_on(local.run_until(async {
        // Far longer than the sum of all timeouts.
        timeout(Duration::from_secs(3600), converse_now(seed, log)).await.expect("nothing hangs")
    }))
}

async fn converse_now(seed: u64, log: bool) -> Outcome {
    let mut random = Random::new(seed);
    let plan = Plan::new(&mut random);
    if log {
        println!("{plan:#?}");
    }
    let (network, client, server) = network(plan.conditions.clone(), random.fork());
    let driver = spawn_local(network.clone().run());
    let fault = spawn_local(network.clone().run_fault());

    let limits = Limits::default().write_buffer(plan.write_buffer).close_timeout(plan.close_timeout);
    let connector = Connector::new().limits(limits.clone()).keepalive(plan.keepalive);
    let acceptor = Acceptor::new().limits(limits).keepalive(plan.keepalive);
    let sockets = [
        plan.mode.adopt(Role::Client, &connector, &acceptor, client),
        plan.mode.adopt(Role::Server, &connector, &acceptor, server),
    ];

    let talk = Rc::new(Talk {
        plan,
        sides: Default::default(),
        outcome: RefCell::default(),
        start: Instant::now(),
        log,
    });
    let mut tasks = Vec::new();
    let closer = random.within(0..=2);
    for (side, socket) in sockets.into_iter().enumerate() {
        for _ in 0..talk.plan.senders[side] {
            tasks.push(spawn_local(send(Rc::clone(&talk), side, socket.sender(), random.fork())));
        }
        if closer == side || closer == 2 {
            let (talk, sender, random) = (Rc::clone(&talk), socket.sender(), random.fork());
            tasks.push(spawn_local(async move {
                sleep(talk.plan.ends_after).await;
                close(&talk, side, &sender, random).await;
            }));
        }
        tasks.push(spawn_local(own(Rc::clone(&talk), side, socket, random.fork())));
    }
    for task in tasks {
        task.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    }

    // The application has dropped everything, and the library follows soon.
    let soon = talk.plan.close_timeout + Duration::from_millis(20);
    timeout(soon, network.dropped()).await.expect("the transport is dropped");
    driver.abort();
    fault.abort();
    let _ = (driver.await, fault.await);
    yield_now().await;
    let alive = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    assert_eq!(alive, 0, "no task is left");
    check(&talk, &network);
    let mut outcome = *talk.outcome.borrow();
    outcome.digest ^= network.digest();
    outcome
}

// ---- what the tasks do

/// Runs one of several senders of a side.
async fn send(talk: Rc<Talk>, side: usize, sender: Sender, mut random: Random) {
    for _ in 0..talk.plan.messages {
        let goes_on = match random.within(0..=12) {
            0..=3 => {
                let message = talk.message(side, &mut random);
                let prepared = random.percent(30).then(|| Prepared::new(message.clone()));
                let payload = prepared.as_ref().map_or_else(|| message.clone().into(), Payload::from);
                let payload = compress(payload, random.percent(70));
                sent(&talk, side, &sender.send(payload).await, message)
            }
            4 => drop_send(&talk, side, &sender, &mut random).await,
            5 => try_send(&talk, side, &sender, &mut random),
            6 | 7 => write(&talk, side, &sender, &mut random).await,
            8 => flush(&talk, side, &sender).await,
            // A ping also fails if the peer has ended its direction, although messages may still be sent.
            9 => ping(&talk, side, &sender, &mut random).await || !sender.is_closed(),
            10 => send_batch(&talk, side, &sender, &mut random).await,
            _ => {
                sleep(Duration::from_millis(random.within(0..=300) as u64)).await;
                true
            }
        };
        if !goes_on {
            assert!(sender.is_closed());
            sender.closed().await;
            assert!(matches!(sender.try_send("more"), Err(TrySendError::Closed(_))));
            assert!(sender.send("more").await.is_err());
            return;
        }
    }
}

/// Notes the result of a send. Returns whether the connection is still open.
fn sent(talk: &Talk, side: usize, result: &Result<(), Error>, message: Message) -> bool {
    match result {
        Ok(()) => talk.accepted(side, message),
        Err(error) => talk.note(side, &format!("not sent: {:?}", error.kind()), 0),
    }
    result.is_ok()
}

/// Sends several messages in a batch, which is now and then kept for a while, or leaked.
async fn send_batch(talk: &Talk, side: usize, sender: &Sender, random: &mut Random) -> bool {
    let batch = sender.batch();
    let mut goes_on = true;
    for _ in 0..random.within(1..=8) {
        let message = talk.message(side, random);
        let send = batch.send(message.clone());
        let result = if random.percent(20) { give_up(random, send).await } else { Some(send.await) };
        match result {
            Some(result) => goes_on = sent(talk, side, &result, message),
            None => talk.outcome.borrow_mut().dropped_sends += 1,
        }
        if !goes_on {
            break;
        }
        if random.percent(10) {
            sleep(Duration::from_millis(random.within(0..=300) as u64)).await;
        }
    }
    if random.percent(20) {
        std::mem::forget(batch);
    }
    goes_on
}

async fn drop_send(talk: &Talk, side: usize, sender: &Sender, random: &mut Random) -> bool {
    let message = talk.message(side, random);
    let send = sender.send(message.clone());
    if let Some(result) = give_up(random, send).await {
        return sent(talk, side, &result, message);
    }
    // The message must not arrive.
    talk.outcome.borrow_mut().dropped_sends += 1;
    true
}

/// Drops a future after some polls, or some time.
async fn give_up<F: Future>(random: &mut Random, future: F) -> Option<F::Output> {
    if random.percent(50) {
        poll_times(random.within(1..=5), future).await
    } else {
        timeout(Duration::from_millis(random.within(0..=200) as u64), future).await.ok()
    }
}

fn try_send(talk: &Talk, side: usize, sender: &Sender, random: &mut Random) -> bool {
    let message = talk.message(side, random);
    match sender.try_send(message.clone()) {
        Ok(()) => talk.accepted(side, message),
        Err(TrySendError::Full(returned)) => {
            talk.outcome.borrow_mut().full += 1;
            assert_eq!(returned, message);
        }
        Err(TrySendError::Closed(_)) => return false,
    }
    true
}

/// Writes a message piece by piece, now and then not to its end.
async fn write(talk: &Talk, side: usize, sender: &Sender, random: &mut Random) -> bool {
    let message = talk.message(side, random);
    let kind = message.kind();
    let Some(opened) = (if random.percent(20) {
        give_up(random, sender.writer(kind)).await
    } else {
        Some(sender.writer(kind).await)
    }) else {
        return true;
    };
    let Ok(mut writer) = opened else { return false };
    let gives_up = random.percent(4);
    let mut rest = message.as_bytes();
    while !rest.is_empty() {
        if gives_up && random.percent(20) {
            talk.note(side, "gives up writing", rest.len());
            // If a part of the message is in transit, the connection is closed.
            talk.sides[side].borrow_mut().closed_with.push(CloseCode::INTERNAL_ERROR);
            return true;
        }
        let most = random.within(1..=rest.len().min(20_000));
        let Ok(count) = writer.write(&rest[..most]).await else { return false };
        rest = &rest[count..];
        if random.percent(20) && writer.flush().await.is_err() {
            return false;
        }
        if random.percent(10) {
            sleep(Duration::from_millis(random.within(0..=20) as u64)).await;
        }
    }
    sent(talk, side, &writer.finish().await, message)
}

async fn flush(talk: &Talk, side: usize, sender: &Sender) -> bool {
    let accepted = talk.sides[side].borrow().accepted.len();
    let result = sender.flush().await;
    talk.note(side, "flushed", accepted);
    if result.is_ok() {
        let flushed = &mut talk.sides[side].borrow_mut().flushed;
        *flushed = accepted.max(*flushed);
        return true;
    }
    false
}

async fn ping(talk: &Talk, side: usize, sender: &Sender, random: &mut Random) -> bool {
    let start = Instant::now();
    match give_up(random, sender.ping()).await {
        Some(Ok(round_trip)) => {
            assert!(round_trip <= start.elapsed());
            talk.outcome.borrow_mut().pings += 1;
            talk.note(side, "pong", 0);
            true
        }
        Some(Err(_)) => false,
        None => true,
    }
}

async fn close(talk: &Talk, side: usize, sender: &Sender, mut random: Random) {
    let code = random.choose(&[
        CloseCode::NORMAL,
        CloseCode::GOING_AWAY,
        CloseCode::from(4000),
        CloseCode::POLICY_VIOLATION,
    ]);
    if !sender.is_closed() {
        talk.sides[side].borrow_mut().closed_with.push(code);
    }
    talk.note(side, &format!("closes with {code}"), 0);
    let start = Instant::now();
    if random.percent(20) && give_up(&mut random, sender.close(code, "dropped")).await.is_none() {
        talk.note(side, "drops close", 0);
    }
    let result = sender.close(code, "bye").await;
    talk.note(side, &format!("closed: {}", result.is_ok()), 0);
    // Timers have milliseconds.
    let limit = talk.plan.close_timeout + Duration::from_millis(2);
    assert!(start.elapsed() <= limit + Duration::from_millis(200), "close took {:?}", start.elapsed());
    assert!(sender.is_closed());
    match result {
        Ok(frame) => assert_eq!(sender.close_frame(), Some(frame)),
        Err(error) => {
            assert!(!talk.plan.orderly, "closing went wrong: {error:?}");
            let kinds = [ErrorKind::Timeout, ErrorKind::Disconnected, ErrorKind::Io, ErrorKind::Closed];
            assert!(kinds.contains(&error.kind()), "{error:?}");
        }
    }
}

/// Runs the task that owns the `WebSocket`.
async fn own(talk: Rc<Talk>, side: usize, mut socket: WebSocket, mut random: Random) {
    let orderly = talk.plan.orderly;
    let sender = socket.sender();
    for _ in 0..random.within(0..=20) {
        if talk.sides[side].borrow().end.is_some() {
            break;
        }
        match random.within(0..=9) {
            0..=2 => {
                if let Some(result) = give_up(&mut random, socket.recv()).await {
                    took(&talk, side, result);
                }
            }
            3 | 4 => read(&talk, side, &mut socket, &mut random).await,
            5 => drop(try_send(&talk, side, &sender, &mut random)),
            6 => drop(drop_send(&talk, side, &sender, &mut random).await),
            7 => drop(give_up(&mut random, sender.ping()).await),
            8 => sleep(Duration::from_millis(random.within(0..=20) as u64)).await,
            _ if orderly => yield_now().await,
            _ => match random.within(0..=9) {
                0 => sleep(Duration::from_millis(random.choose(&[300, 5000, 50_000]))).await,
                1 => return let_go(&talk, side, socket),
                2 => {
                    let message = talk.message(side, &mut random);
                    sent(&talk, side, &sender.send(message.clone()).await, message);
                }
                _ => {}
            },
        }
    }
    if !orderly && random.percent(10) {
        return let_go(&talk, side, socket);
    }
    let patience = if orderly { Duration::from_secs(60) } else { Duration::from_secs(1000) };
    let start = Instant::now();
    while talk.sides[side].borrow().end.is_none() {
        if random.percent(30) {
            read(&talk, side, &mut socket, &mut random).await;
        } else {
            took(&talk, side, socket.recv().await);
        }
        assert!(start.elapsed() < patience, "the connection has to end");
    }
    // The end stays the same.
    for _ in 0..3 {
        let result = timeout(Duration::from_millis(1), socket.recv()).await.expect("the end does not wait");
        took(&talk, side, result);
    }
    assert!(sender.is_closed());
    if let Some(End::Failed(ErrorKind::Closed, Some(code))) = talk.sides[side].borrow().end {
        assert_eq!(socket.close_frame().map(|frame| frame.code()), Some(code));
    }
    if random.percent(50) {
        let start = Instant::now();
        let _ = socket.close(CloseCode::NORMAL, "").await;
        assert!(start.elapsed() <= talk.plan.close_timeout + Duration::from_millis(2));
    }
}

fn let_go(talk: &Talk, side: usize, socket: WebSocket) {
    talk.note(side, "drops its WebSocket", 0);
    talk.sides[side].borrow_mut().dropped = true;
    drop(socket);
}

fn took(talk: &Talk, side: usize, result: Result<Option<Message>, Error>) {
    match result {
        Ok(Some(message)) => {
            assert!(talk.sides[side].borrow().end.is_none(), "nothing comes behind the end");
            talk.received(side, Received::Whole(message));
        }
        Ok(None) => talk.ended(side, &End::Normal),
        Err(error) => talk.ended(side, &End::of(&error)),
    }
}

/// Reads a message piece by piece, now and then not to its end.
async fn read(talk: &Talk, side: usize, socket: &mut WebSocket, random: &mut Random) {
    let Some(start) = give_up(random, socket.reader()).await else { return };
    let mut reader = match start {
        Ok(Some(reader)) => reader,
        Ok(None) => return talk.ended(side, &End::Normal),
        Err(error) => return talk.ended(side, &End::of(&error)),
    };
    let kind = reader.kind();
    let mut bytes = Vec::new();
    let whole = read_on(&mut reader, &mut bytes, random).await;
    drop(reader);
    talk.received(
        side,
        match (whole, kind) {
            (true, MessageKind::Binary) => Received::Whole(Message::Binary(bytes.into())),
            (true, _) => {
                Received::Whole(Message::Text(String::from_utf8(bytes).expect("it was validated").into()))
            }
            (false, kind) => Received::Part(kind, bytes),
        },
    );
}

/// Returns whether the message was read to its end.
async fn read_on(reader: &mut MessageReader<'_>, bytes: &mut Vec<u8>, random: &mut Random) -> bool {
    let gives_up = random.percent(20);
    let most = random.choose(&[1, 100, 100_000]);
    loop {
        if gives_up && random.percent(20) {
            return false;
        }
        let mut piece = vec![0; random.within(1..=most)];
        // A dropped `read` has consumed no bytes.
        let Some(result) = give_up(random, reader.read(&mut piece)).await else { continue };
        match result {
            Ok(0) => return true,
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
            Err(_) => return false,
        }
    }
}

// ---- what must hold

fn check(talk: &Talk, network: &Network) {
    let plan = &talk.plan;
    let sides = [talk.sides[0].borrow(), talk.sides[1].borrow()];
    let mut outcome = talk.outcome.borrow_mut();
    outcome.orderly += usize::from(plan.orderly);
    for (side, peer) in [(0, 1), (1, 0)] {
        let (this, peer) = (&sides[side], &sides[peer]);
        outcome.messages += this.received.len();
        // Exactly once, whole and in order.
        for (index, received) in this.received.iter().enumerate() {
            let sent = peer.accepted.get(index);
            match (received, sent) {
                (Received::Whole(message), sent) => assert_eq!(Some(message), sent, "message {index}"),
                (Received::Part(kind, bytes), Some(sent)) => {
                    assert!(*kind == sent.kind() && sent.as_bytes().starts_with(bytes), "message {index}");
                }
                // The start of an unfinished message.
                (Received::Part(..), None) => assert_eq!(index + 1, this.received.len()),
            }
        }
        let cut = plan.conditions.fault.is_some() || network.was_reset();
        if let Some(end) = &this.end {
            let by_peer = this.closed_with.is_empty();
            match end {
                End::Normal => {
                    outcome.normal_ends += 1;
                    assert!(!by_peer || !peer.closed_with.is_empty(), "someone has closed");
                }
                End::Failed(ErrorKind::Closed, code) => {
                    outcome.closed_ends += 1;
                    let code = code.expect("it names the peer's Close frame");
                    let begun = peer.closed_with.iter().chain(&this.closed_with).any(|begun| *begun == code);
                    assert!(begun, "{code:?} was sent by someone");
                    assert!(![CloseCode::NORMAL, CloseCode::GOING_AWAY].contains(&code));
                }
                End::Failed(kind, _) => {
                    assert!(!plan.orderly, "{kind:?} is not in order");
                    match kind {
                        ErrorKind::Disconnected => outcome.disconnected_ends += 1,
                        ErrorKind::Timeout => outcome.timed_out_ends += 1,
                        _ => panic!("neither the network nor the peer ends a conversation so: {kind:?}"),
                    }
                }
            }
            let closed = matches!(end, End::Normal | End::Failed(ErrorKind::Closed, _));
            if by_peer && closed {
                assert_eq!(
                    this.received.len().min(peer.accepted.len()),
                    peer.accepted.len(),
                    "all has arrived"
                );
            }
            if by_peer && !cut && !this.dropped {
                assert!(this.received.len() >= peer.flushed, "what was flushed has arrived");
            }
        }
    }
}
