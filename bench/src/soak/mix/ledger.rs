//! The account of every message of a connection: the accepted messages of each sender, and the received ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

use bowline::{DeflateParameters, Error, ErrorKind, MessageKind};
use tokio_util::sync::CancellationToken;

use super::cancel::Cancels;
use super::plan::{Carrier, ConnectionPlan, GroupPlan, How, Side, Way};
use super::record::{HEADER, LAST, Record, TORN};
use super::run::{Run, Violation};
use super::watchdog::{Probe, Watched};

/// A connection, or an attempt to connect, as both of its sides see it.
pub struct Talk {
    pub run: Arc<Run>,
    pub group: Arc<GroupPlan>,
    pub plan: ConnectionPlan,
    attempt: usize,
    directions: [Direction; 2],
    /// Cancelled if the connection hangs. All of its tasks are then dropped.
    pub given_up: CancellationToken,
    /// The number of sides that may still cancel their handshake, or have cancelled it.
    cancelling: AtomicU32,
    /// Set if a check has failed.
    is_blamed: AtomicBool,
}

/// The account of one side's messages.
struct Direction {
    lines: Vec<Line>,
    /// Set if the last message has arrived.
    ended: AtomicBool,
}

/// The account of one sender, in numbers of messages.
#[derive(Default)]
struct Line {
    accepted: AtomicU32,
    /// Set if one more message may have been accepted: a sink is flushed after the message is accepted.
    in_doubt: AtomicBool,
    received: AtomicU32,
    /// Set if the last received message was not read to its end.
    unread: AtomicBool,
}

impl Talk {
    pub fn new(run: &Arc<Run>, group: &Arc<GroupPlan>, plan: &ConnectionPlan, attempt: usize) -> Arc<Self> {
        let direction = |side: Side| Direction {
            lines: plan.side(side).senders.iter().map(|_| Line::default()).collect(),
            ended: AtomicBool::new(false),
        };
        let talk = Self {
            attempt,
            run: Arc::clone(run),
            group: Arc::clone(group),
            plan: plan.clone(),
            directions: Side::BOTH.map(direction),
            given_up: CancellationToken::new(),
            cancelling: AtomicU32::new(0),
            is_blamed: AtomicBool::new(false),
        };
        let polls = [talk.connect_polls(), talk.accept_polls()];
        let cancelling = polls.into_iter().filter(|polls| *polls < usize::MAX).count();
        talk.cancelling.store(cancelling as u32, SeqCst);
        Arc::new(talk)
    }

    /// Returns whether the attempt is cancelled on purpose, or may be. Nothing is expected of such an
    /// attempt.
    pub fn is_void(&self) -> bool {
        self.cancelling.load(SeqCst) > 0
    }

    /// Notes that the handshake of one side ended before the planned cancellation.
    pub fn handshake_done(&self, polls: usize) {
        if polls < usize::MAX {
            self.cancelling.fetch_sub(1, SeqCst);
        }
    }

    /// Returns the number of polls after which the attempt to connect is cancelled.
    pub fn connect_polls(&self) -> usize {
        self.plan.connects_cancelled.get(self.attempt).copied().unwrap_or(usize::MAX)
    }

    /// Returns the number of polls after which the attempt to accept is cancelled.
    pub fn accept_polls(&self) -> usize {
        let is_due = self.attempt == 0 && self.group.carrier == Carrier::Unix;
        self.plan.accept_cancelled.filter(|_| is_due).unwrap_or(usize::MAX)
    }

    pub fn probe(self: &Arc<Self>, side: Side, task: impl std::fmt::Display) -> Probe {
        let watched: Arc<Self> = Arc::clone(self);
        self.run.watchdog.probe(watched, format!("{side:?}, {task}"))
    }

    /// Returns the decisions of a task: the futures that it drops, and others.
    pub fn cancels(&self, side: Side, task: &str) -> Cancels {
        self.run.cancels(self.plan.side(side).cancels, (self.plan.number, side as usize, task))
    }

    /// Counts an exercised feature.
    pub fn covered(&self, compression: Option<DeflateParameters>) {
        self.run.counts.connections.fetch_add(1, SeqCst);
        let (plan, group) = (&self.plan, &self.group);
        let mut coverage = self.run.coverage();
        let mut add = |what: String| *coverage.entry(what).or_default() += 1;
        add(format!("carrier {:?}", group.carrier));
        add(format!("ending {:?}{}", plan.ending.how, if plan.ending.is_complete() { "" } else { " early" }));
        if let Some(fault) = group.fault {
            add(format!("fault {:?}", fault.kind));
        }
        match (compression, &group.compression) {
            (Some(agreed), Some(plan)) => {
                plan.levels.iter().for_each(|level| add(format!("compression level {level}")));
                let takeover = [!agreed.client_no_context_takeover, !agreed.server_no_context_takeover];
                add(format!("compression takeover {takeover:?}"));
                let bits = [agreed.client_max_window_bits, agreed.server_max_window_bits];
                bits.iter().for_each(|bits| add(format!("compression window bits {bits:>2}")));
            }
            _ => add("compression off".to_owned()),
        }
        for side in &plan.sides {
            add(format!("reading {:?}", side.reading));
            side.senders.iter().for_each(|sender| add(format!("sending {:?}", sender.way)));
        }
    }

    /// Returns whether the transport is intact, and both sides stay until the end.
    pub fn is_undisturbed(&self) -> bool {
        self.group.fault.is_none() && self.plan.ending.how != How::Drop
    }

    /// Records a violation, unless nothing was expected.
    pub fn blame(&self, what: impl std::fmt::Display) {
        if self.is_void() || self.given_up.is_cancelled() {
            return;
        }
        let GroupPlan { number, carrier, runtimes, compression, capacity, fault, .. } = &*self.group;
        let plan = &self.plan;
        let text = format!("group {number}, connection {}: {what}", plan.number);
        if self.is_blamed.swap(true, SeqCst) {
            // Further violations are mostly consequences of the first.
            return self.run.violated(Violation::More, text);
        }
        let place = format!("{carrier:?}, runtimes {runtimes:?}, capacity {capacity}, {fault:?}");
        self.run.violated(Violation::First, format!("{text}\n  {place}\n  {compression:?}\n  {plan:?}"));
    }

    /// Notes that a sender or pinger failed, or found the connection closed.
    pub fn sending_failed(&self, side: Side, error: &Error) {
        let is_early = !self.is_undisturbed() || !self.plan.ending.is_complete();
        let is_due = matches!(error.kind(), ErrorKind::Closed | ErrorKind::Disconnected | ErrorKind::Io);
        if !(is_early && is_due) {
            self.blame(format_args!("{side:?}: sending failed with {error:?}"));
        }
    }

    pub fn accepted(&self, side: Side, sender: u8) {
        let line = &self.directions[side as usize].lines[usize::from(sender)];
        line.accepted.fetch_add(1, SeqCst);
        line.in_doubt.store(false, SeqCst);
    }

    /// Notes a message that may be accepted although sending it fails.
    pub fn in_doubt(&self, side: Side, sender: u8) {
        self.directions[side as usize].lines[usize::from(sender)].in_doubt.store(true, SeqCst);
    }

    /// Returns the channel of a sender's messages.
    pub fn channel(&self, side: Side, sender: u8) -> u32 {
        let senders = &self.plan.side(side).senders;
        let is_prepared = senders.get(usize::from(sender)).is_some_and(|plan| plan.way == Way::Prepared);
        if is_prepared { self.group.number } else { self.plan.number }
    }

    /// Notes a header from `side`. Returns whether it is the expected one.
    fn check(&self, side: Side, kind: Option<MessageKind>, record: &Record) -> Result<(), String> {
        let Record { channel, sender, number, .. } = *record;
        let direction = &self.directions[side as usize];
        let expected = match direction.lines.get(usize::from(sender)) {
            Some(line) => line.received.load(SeqCst),
            None if sender == LAST || sender == TORN => 0,
            None => return Err(format!("{record:?} is of no sender")),
        };
        // Messages prepared for all connections have one common sender.
        let is_right = channel == self.channel(side, sender)
            && number == expected
            && kind.is_none_or(|kind| kind == record.kind)
            && (sender == TORN || !direction.ended.load(SeqCst));
        if is_right {
            Ok(())
        } else {
            Err(format!("{record:?} arrived as {kind:?}, when {expected} was to come"))
        }
    }

    fn received(&self, side: Side, record: &Record, is_whole: bool) -> Result<(), String> {
        let direction = &self.directions[side as usize];
        match direction.lines.get(usize::from(record.sender)) {
            Some(line) => {
                line.received.fetch_add(1, SeqCst);
                line.unread.store(!is_whole, SeqCst);
                self.run.counts.messages.fetch_add(1, SeqCst);
                self.run.counts.bytes.fetch_add((HEADER + record.len) as u64, SeqCst);
            }
            None if record.sender == LAST => direction.ended.store(true, SeqCst),
            None if is_whole => return Err(format!("{record:?} is whole, but was never finished")),
            None => {}
        }
        Ok(())
    }

    /// Returns whether all messages of `side` have arrived.
    pub fn has_ended(&self, side: Side) -> bool {
        self.directions[side as usize].ended.load(SeqCst)
    }

    /// Checks that the messages that arrived from `side` are those that were accepted, or a prefix of them if
    /// `complete` is false.
    pub fn balance(&self, side: Side, is_complete: bool) -> Result<(), String> {
        for (sender, line) in self.directions[side as usize].lines.iter().enumerate() {
            let (accepted, received) = (line.accepted.load(SeqCst), line.received.load(SeqCst));
            let most = accepted + u32::from(line.in_doubt.load(SeqCst) || line.unread.load(SeqCst));
            let least = if is_complete { accepted } else { 0 };
            if !(least..=most).contains(&received) {
                return Err(format!(
                    "{side:?}, sender {sender}: {accepted} messages were accepted, and {received} received"
                ));
            }
        }
        Ok(())
    }
}

impl Watched for Talk {
    fn blame(&self, what: String) {
        Self::blame(self, what);
    }

    fn given_up(&self) -> &CancellationToken {
        &self.given_up
    }
}

/// The received messages of one side, checked as they arrive.
pub struct Inbox {
    talk: Arc<Talk>,
    /// The sending side.
    from: Side,
    /// The number of received messages.
    pub count: u32,
    /// Set if messages are pieces of a stream of records.
    is_stream: bool,
    unparsed: Vec<u8>,
}

impl Inbox {
    pub fn new(talk: &Arc<Talk>, from: Side) -> Self {
        let is_stream = talk.plan.side(from).senders[0].way == Way::Bytes;
        Self { talk: Arc::clone(talk), from, count: 0, is_stream, unparsed: Vec::new() }
    }

    pub fn is_stream(&self) -> bool {
        self.is_stream
    }

    /// Returns the number of senders, without the sender of the last message.
    pub fn senders(&self) -> usize {
        self.talk.plan.side(self.from).senders.len()
    }

    /// Accepts a message, or a piece of a stream if the sender writes one.
    pub fn message(&mut self, kind: MessageKind, bytes: &[u8]) -> Result<(), String> {
        if self.is_stream {
            return self.piece(bytes);
        }
        let Some((header, body)) = bytes.split_at_checked(HEADER) else {
            return Err(format!("a message of {} bytes", bytes.len()));
        };
        let record = self.header(Some(kind), header)?;
        if body != record.body() {
            return Err(format!("{record:?} has another body, of {} bytes", body.len()));
        }
        self.arrived(&record)
    }

    /// Accepts a piece of a stream of records.
    pub fn piece(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.unparsed.extend_from_slice(bytes);
        let mut start = 0;
        while let Some((header, rest)) = self.unparsed[start..].split_at_checked(HEADER) {
            let record = Record::parse(header)?;
            let Some(body) = rest.get(..record.len) else { break };
            self.talk.check(self.from, None, &record)?;
            if body != record.body() {
                return Err(format!("{record:?} has another body"));
            }
            self.count += 1;
            self.talk.received(self.from, &record, true)?;
            start += HEADER + record.len;
        }
        self.unparsed.drain(..start);
        Ok(())
    }

    /// Accepts a header whose body follows.
    pub fn header(&self, kind: Option<MessageKind>, header: &[u8]) -> Result<Record, String> {
        let record = Record::parse(header)?;
        self.talk.check(self.from, kind, &record)?;
        Ok(record)
    }

    /// Accepts a message in parts.
    pub fn parts(&mut self, record: &Record, body: &str) -> Result<(), String> {
        self.talk.check(self.from, Some(MessageKind::Text), record)?;
        if body.as_bytes() != record.body() {
            return Err(format!("{record:?} has another body, of {} bytes", body.len()));
        }
        self.arrived(record)
    }

    /// Notes that the body of the message has arrived and is correct.
    pub fn arrived(&mut self, record: &Record) -> Result<(), String> {
        self.count += 1;
        self.talk.received(self.from, record, true)
    }

    /// Notes that the rest of the message is not read.
    pub fn skipped(&mut self, record: &Record) -> Result<(), String> {
        self.count += 1;
        self.talk.received(self.from, record, false)
    }

    /// Returns whether no part of an incomplete record is left.
    pub fn is_empty(&self) -> bool {
        self.unparsed.is_empty()
    }
}
