//! The messages of one connection: sending and receiving, each in a future of its own.

use std::cell::Cell;
use std::future::{Future, pending, poll_fn};
use std::task::Poll;
use std::time::Duration;

use bowline::bytes::Bytes;
use bowline::http::HeaderMap;
use bowline::{ControlFrame, Error, ErrorKind, Sender, WebSocket};
use tokio::sync::mpsc::{self, Receiver};
use tokio::time::{Instant, sleep_until};

use crate::talk::arguments::Linger;
use crate::talk::conversation::ending::End;
use crate::talk::conversation::event::{Event, show};
use crate::talk::conversation::interruption::Interruption;
use crate::talk::conversation::outbox::Outbox;
use crate::talk::display::style::in_words;
use crate::talk::display::{Display, Verbosity};
use crate::talk::goal::Goal;
use crate::talk::head;
use crate::talk::item::{Item, Order};

/// The default time for which a server may be silent, once everything is sent.
const LINGER: Duration = Duration::from_secs(1);

/// A connection that brings more than this is not silent, although no message is complete yet. Pings are
/// smaller.
const PART_OF_MESSAGE: u64 = 1024;

/// The messages of one connection.
pub(super) struct Exchange<'a> {
    display: &'a Display,
    goal: &'a Goal,
    patience: Patience,
    received: &'a Cell<u64>,
    /// The time of the last message, or `None` while one is being written to stdout.
    last: Cell<Option<Instant>>,
}

/// The time for which the server may be silent once everything is sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Patience {
    For(Duration),
    Endless,
    /// For the default time if anything was sent, or else endless: a listener has nothing to wait for.
    AfterSending,
}

impl Patience {
    pub(super) fn new(linger: Option<Linger>, goal: &Goal) -> Self {
        match linger {
            Some(Linger::For(time)) => Self::For(time),
            Some(Linger::Forever) => Self::Endless,
            None if goal.is_set() => Self::Endless,
            None => Self::AfterSending,
        }
    }

    fn time(self, sent: u64) -> Option<Duration> {
        match self {
            Self::For(time) => Some(time),
            Self::AfterSending if sent > 0 => Some(LINGER),
            Self::AfterSending | Self::Endless => None,
        }
    }

    /// The time before a close that the input asks for. Even an endless wait is for messages, not instead of
    /// the close.
    fn time_before_close(self, sent: u64) -> Option<Duration> {
        match self {
            Self::For(time) => Some(time),
            Self::AfterSending | Self::Endless => (sent > 0).then_some(LINGER),
        }
    }
}

impl<'a> Exchange<'a> {
    /// `received` is the number of messages received in the whole conversation.
    pub(super) fn new(
        display: &'a Display,
        goal: &'a Goal,
        patience: Patience,
        received: &'a mut u64,
    ) -> Self {
        let (received, last) = (Cell::from_mut(received), Cell::new(Some(Instant::now())));
        Self { display, goal, patience, received, last }
    }

    /// Receives and shows messages and events until the end.
    pub(super) async fn receive(&self, socket: &mut WebSocket, events: &mut Receiver<Event>) -> End {
        loop {
            let received = tokio::select! {
                biased;
                Some(event) = events.recv() => {
                    if show(event, self.display).await.is_err() {
                        return End::StdoutEnded;
                    }
                    continue;
                }
                received = socket.recv() => received,
            };
            let item = match received {
                Ok(Some(message)) => Item::Message(message),
                Ok(None) => return End::ClosedByPeer(socket.close_frame()),
                Err(error) => return End::Failed(error),
            };
            self.received.set(self.received.get() + 1);
            self.last.set(None);
            if self.display.received(&item).await.is_err() {
                return End::StdoutEnded;
            }
            self.last.set(Some(Instant::now()));
            if self.goal.is_met_by(self.received.get(), &item) {
                return End::Enough;
            }
        }
    }

    /// The time to wait for replies before the connection is closed, if this end is one to wait after. At a
    /// prompt, the user has decided when to close.
    pub(super) fn time_for_replies(&self, end: &End, sent: u64) -> Option<Duration> {
        match end {
            End::Asked(_) | End::BadInput(_) if !self.display.has_prompt() => {
                self.patience.time_before_close(sent)
            }
            _ => None,
        }
    }

    /// Waits for the replies to what was sent: until the server is silent for this time.
    pub(super) async fn await_replies(&self, sender: &Sender, time: Duration) -> End {
        if sender.flush().await.is_err() {
            // `receive` returns the reason.
            return pending().await;
        }
        self.silence(sender, time).await
    }

    /// Carries out the orders of the outbox, and then waits until the server is silent.
    pub(super) async fn send(
        &self,
        sender: &Sender,
        outbox: &mut Outbox,
        headers: &HeaderMap,
        reports: &mpsc::Sender<Event>,
    ) -> End {
        // Messages that were read together leave together.
        let mut batch = None;
        loop {
            if !outbox.is_ready() {
                batch = None;
            }
            let order = match outbox.peek().await {
                Ok(Some(order)) => order,
                Ok(None) => break,
                Err(error) => return End::BadInput(error),
            };
            let carried_out = match order {
                Order::Send(item @ Item::Message(message)) => {
                    let sent = batch.get_or_insert_with(|| sender.batch()).send(message.clone()).await;
                    self.sent(sent, item).await
                }
                order => {
                    batch = None;
                    self.carry_out(order, sender, headers, reports).await
                }
            };
            match carried_out {
                Ok(()) => outbox.was_done(),
                Err(end) => return end,
            }
        }
        if sender.flush().await.is_err() {
            // `receive` returns the reason.
            return pending().await;
        }
        if self.goal.is_to_send() {
            return End::Enough;
        }
        match self.patience.time(outbox.done()) {
            Some(time) => self.silence(sender, time).await,
            None => pending().await,
        }
    }

    /// Carries out an order other than to send a message.
    async fn carry_out(
        &self,
        order: &Order,
        sender: &Sender,
        headers: &HeaderMap,
        reports: &mpsc::Sender<Event>,
    ) -> Result<(), End> {
        match order {
            Order::Send(Item::Control(ControlFrame::Close(frame))) => return Err(End::Asked(frame.clone())),
            Order::Send(item) => self.sent(send_item(sender, item).await, item).await?,
            Order::Ping(payload) => {
                tokio::spawn(ping(sender.clone(), payload.clone(), reports.clone()));
            }
            Order::Headers => self.display.lines(Verbosity::Errors, &head::of_headers(headers)),
            Order::Stats => self.display.lines(Verbosity::Errors, &statistics(sender)),
            Order::Leave => return Err(End::Left),
            Order::Interrupt => return Err(End::Interrupted(Interruption::Signal(2))),
        }
        Ok(())
    }

    /// Shows an item that was sent.
    async fn sent(&self, sent: Result<(), Error>, item: &Item) -> Result<(), End> {
        match sent {
            Ok(()) => {
                self.display.sent(item);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::InvalidInput => {
                if self.display.has_prompt() {
                    self.display.notice(Verbosity::Errors, &error);
                    return Ok(());
                }
                Err(End::BadInput(error.to_string()))
            }
            // `receive` returns the reason. The item stays for the next connection.
            Err(_) => pending().await,
        }
    }

    /// Waits until nothing was received for this time.
    async fn silence(&self, sender: &Sender, time: Duration) -> End {
        let (mut begin, mut seen) = (Instant::now(), sender.stats().bytes_read());
        loop {
            // While stdout accepts nothing, silence proves nothing.
            let since = self.last.get().map_or_else(Instant::now, |last| last.max(begin));
            let Some(until) = since.checked_add(time) else { return pending().await };
            sleep_until(until).await;
            let read = sender.stats().bytes_read();
            let was_silent = self.last.get().is_some_and(|last| last <= since);
            if was_silent && read - seen <= PART_OF_MESSAGE {
                return End::Silence;
            }
            if was_silent {
                // A large message is on its way.
                begin = Instant::now();
            }
            seen = read;
        }
    }
}

/// Sends anything but a Close frame.
async fn send_item(sender: &Sender, item: &Item) -> Result<(), Error> {
    match item {
        Item::Message(message) => sender.send(message.clone()).await,
        Item::Control(ControlFrame::Ping(payload)) => send_ping(sender, payload).await,
        Item::Control(ControlFrame::Pong(payload)) => sender.pong(payload).await,
        Item::Control(ControlFrame::Close(_)) => Ok(()),
    }
}

/// Sends a ping, without waiting for its pong.
async fn send_ping(sender: &Sender, payload: &Bytes) -> Result<(), Error> {
    // Now there is room, and the ping is sent when its future is polled first.
    sender.flush().await?;
    let (sender, payload) = (sender.clone(), payload.clone());
    let mut ping = Box::pin(async move { sender.ping().payload(payload).await });
    match poll_fn(|cx| Poll::Ready(ping.as_mut().poll(cx))).await {
        Poll::Ready(result) => result.map(drop),
        Poll::Pending => {
            tokio::spawn(ping);
            Ok(())
        }
    }
}

/// Sends a ping for the prompt, and reports its round-trip time.
async fn ping(sender: Sender, payload: Vec<u8>, reports: mpsc::Sender<Event>) {
    let ping = if payload.is_empty() { sender.ping() } else { sender.ping().payload(payload) };
    let report = match ping.await {
        Ok(round_trip) => format!("pong after {}", in_words(round_trip)),
        // `receive` returns the reason of all other errors.
        Err(error) if error.kind() == ErrorKind::InvalidInput => error.to_string(),
        Err(_) => return,
    };
    let _ = reports.send(Event::Report(Verbosity::Errors, report)).await;
}

/// The numbers of a connection, for the prompt.
fn statistics(sender: &Sender) -> Vec<String> {
    let stats = sender.stats();
    let mut lines = vec![
        format!(
            "sent: {} messages, {} bytes ({} with all frames and headers)",
            stats.messages_sent(),
            stats.payload_bytes_sent(),
            stats.bytes_written()
        ),
        format!(
            "received: {} messages, {} bytes ({} with all frames and headers)",
            stats.messages_received(),
            stats.payload_bytes_received(),
            stats.bytes_read()
        ),
    ];
    lines.extend(stats.round_trip().map(|time| format!("last round trip: {}", in_words(time))));
    lines
}
