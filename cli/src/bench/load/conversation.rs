//! One connection, its messages, and their replies.

use std::cell::{Cell, Ref, RefCell};
use std::rc::Rc;

use bowline::{CloseCode, Message, Payload, Sender, TrySendError, WebSocket};
use tokio::task::spawn_local;

use crate::bench::load::dial::loss_kind;
use crate::bench::load::station::{Stage, Station};
use crate::bench::load::window::Window;
use crate::bench::plan::schedule::Schedule;
use crate::bench::plan::template::Reply;
use crate::bench::plan::{Mode, Pace};
use crate::bench::tally::UNEXPECTED;

/// One connection.
///
/// Its own task receives. In the open model, the pacer of the thread sends; in the closed model, the task
/// sends as well, once for each reply.
pub(crate) struct Conversation {
    station: Rc<Station>,
    /// The number of the connection among all of the run.
    pub(crate) index: u64,
    pub(crate) sender: Sender,
    /// The sequence number of the next message.
    next: Cell<u64>,
    flow: Cell<Flow>,
    window: RefCell<Window>,
}

/// The sender of the messages of a schedule.
///
/// ```text
/// Free --the server takes no more--> Blocked --what was due meanwhile is sent--> Free
///                                                                     any --lost--> Ended
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Flow {
    /// The pacer, which never waits.
    Free,
    /// A task that waits for the server to take the messages that are due.
    Blocked,
    /// Nobody.
    Ended,
}

/// The connections of a thread that were opened.
#[derive(Default)]
pub(crate) struct Conversations(RefCell<Vec<Rc<Conversation>>>);

impl Conversations {
    pub(crate) fn add(&self, conversation: Rc<Conversation>) {
        self.0.borrow_mut().push(conversation);
    }

    /// The connections in the order in which their messages are due.
    pub(crate) fn in_order(&self) -> Vec<Rc<Conversation>> {
        let mut conversations = self.0.borrow().clone();
        conversations.sort_unstable_by_key(|conversation| conversation.index);
        conversations
    }
}

impl Conversation {
    pub(crate) fn new(station: Rc<Station>, index: u64, sender: Sender) -> Self {
        station.opened();
        let (next, flow) = (Cell::default(), Cell::new(Flow::Free));
        Self { station, index, sender, next, flow, window: RefCell::default() }
    }

    /// Receives until the connection ends.
    pub(crate) async fn receive(self: Rc<Self>, mut socket: WebSocket) {
        let end = loop {
            match socket.recv().await {
                Ok(Some(message)) => {
                    let is_reply = self.received(&message);
                    if let (true, Pace::Closed { .. }) = (is_reply, self.station.plan.pace) {
                        self.send_next(&socket).await;
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.flow.set(Flow::Ended);
        if self.station.stage() == Stage::Closing {
            // Waits for the end of the transport, which the thread bounds.
            let _ = socket.close(CloseCode::NORMAL, "").await;
        } else {
            self.station.error(loss_kind(end.as_ref().err(), &socket));
        }
        self.station.ended();
    }

    /// Counts a message of the server. Returns whether the message is a reply.
    fn received(&self, message: &Message) -> bool {
        let station = &self.station;
        if station.stage() == Stage::Connecting {
            station.begin_as_ordered();
        }
        // A server may greet before the run. After it, what was missing is counted already.
        if !matches!(station.stage(), Stage::Running | Stage::Draining) {
            return false;
        }
        if station.plan.mode == Mode::Idle {
            station.tally.borrow_mut().received.count(message.len());
            return false;
        }
        let now = station.now();
        let reply = station.plan.template.identify(message.as_bytes());
        let due = match reply {
            Reply::Ignored => {
                station.tally.borrow_mut().ignored += 1;
                return false;
            }
            Reply::To(number) => self.due_of(number, now),
            Reply::ToNext => self.window.borrow_mut().take_first(),
            Reply::Unexpected => None,
        };
        let Some(due) = due else {
            station.error(UNEXPECTED);
            return false;
        };
        station.replied(due, now, message.len());
        true
    }

    /// Returns the time at which the message with this number was due, if a reply to it is expected here.
    fn due_of(&self, number: u64, now: u64) -> Option<u64> {
        let plan = &self.station.plan;
        let (sequence, sender) = (number / plan.connections, number % plan.connections);
        if plan.mode != Mode::Broadcast {
            return if sender == self.index { self.window.borrow_mut().take(sequence) } else { None };
        }
        let Pace::Open(schedule) = plan.pace else { return None };
        if sender == self.index {
            self.station.tally.borrow_mut().own += 1;
        }
        // A message that is not due yet can't have been sent.
        Some(schedule.due(sender, sequence)).filter(|&due| due <= now)
    }

    /// Sends the first messages of the closed model.
    pub(crate) async fn begin(self: Rc<Self>, in_flight: u32) {
        for _ in 0..in_flight {
            let sequence = self.next.get();
            let text = self.write(sequence).clone();
            self.push(self.station.now(), text.len());
            // `recv` reports the end of the connection.
            let _ = self.sender.send(self.payload(&text)).await;
        }
    }

    /// Sends the next message of the closed model.
    async fn send_next(&self, socket: &WebSocket) {
        if self.station.stage() != Stage::Running {
            return;
        }
        let (sequence, now) = (self.next.get(), self.station.now());
        let tried = {
            let text = self.write(sequence);
            self.push(now, text.len());
            socket.try_send(self.payload(&text)).map_err(|refused| matches!(refused, TrySendError::Full(_)))
        };
        if tried == Err(true) {
            let text = self.write(sequence).clone();
            // `recv` reports the end of the connection.
            let _ = socket.send(self.payload(&text)).await;
        }
    }

    /// Sends the message with this sequence number, which is due, unless a task is sending it already.
    pub(crate) fn send_due(self: &Rc<Self>, schedule: Schedule, sequence: u64) {
        if self.flow.get() != Flow::Free || self.next.get() > sequence {
            return;
        }
        let text = self.write(sequence);
        let due = schedule.due(self.index, sequence);
        let station = &self.station;
        station.tally.borrow_mut().lag.record(station.now().saturating_sub(due));
        match self.sender.try_send(self.payload(&text)) {
            Ok(()) => self.push(due, text.len()),
            Err(TrySendError::Full(_)) => {
                self.flow.set(Flow::Blocked);
                spawn_local(Rc::clone(self).catch_up(schedule));
            }
            Err(TrySendError::Closed(_)) => self.flow.set(Flow::Ended),
        }
    }

    /// Sends the messages that are due, as fast as the server takes them.
    async fn catch_up(self: Rc<Self>, schedule: Schedule) {
        while self.station.stage() == Stage::Running {
            let sequence = self.next.get();
            let due = schedule.due(self.index, sequence);
            if due > self.station.now() {
                self.flow.set(Flow::Free);
                return;
            }
            if due >= self.station.plan.nanos() {
                return;
            }
            let text = self.write(sequence).clone();
            if self.sender.send(self.payload(&text)).await.is_err() {
                break;
            }
            self.push(due, text.len());
        }
    }

    /// Counts the messages that are due before `elapsed`, but were not sent.
    pub(crate) fn count_unsent(&self, schedule: Schedule, elapsed: u64) {
        let kind = match self.flow.get() {
            Flow::Blocked => "messages that the server did not take",
            Flow::Free => "messages that this program was too late to send",
            Flow::Ended => return,
        };
        let unsent = schedule.due_before(self.index, elapsed).saturating_sub(self.next.get());
        self.station.tally.borrow_mut().errors_of(kind, unsent);
    }

    /// Writes the message with this sequence number.
    fn write(&self, sequence: u64) -> Ref<'_, String> {
        let plan = &self.station.plan;
        let number = sequence * plan.connections + self.index;
        plan.template.write(number, &mut self.station.scratch.borrow_mut());
        self.station.scratch.borrow()
    }

    /// A message of the kind of the run.
    pub(crate) fn payload<'a>(&self, text: &'a str) -> Payload<'a> {
        if self.station.plan.binary { text.as_bytes().into() } else { text.into() }
    }

    /// Counts a message that was sent.
    fn push(&self, due: u64, len: usize) {
        self.next.set(self.next.get() + 1);
        self.station.tally.borrow_mut().sent.count(len);
        if self.station.plan.mode != Mode::Broadcast {
            self.window.borrow_mut().push(due);
            self.station.expect_replies(1);
        }
    }
}
