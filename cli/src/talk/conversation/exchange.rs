//! The messages of one connection: sending and receiving, each in a future of its own.

use std::cell::Cell;
use std::future::{Future, pending, poll_fn};
use std::task::Poll;
use std::time::Duration;

use bowline::bytes::Bytes;
use bowline::{ControlFrame, Error, ErrorKind, Sender, WebSocket};
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, sleep_until};

use crate::talk::arguments::{Goal, Linger};
use crate::talk::display::Display;
use crate::talk::encoding::Item;
use crate::talk::ending::End;
use crate::talk::outbox::Outbox;

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
    received: Cell<u64>,
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
}

impl<'a> Exchange<'a> {
    pub(super) fn new(display: &'a Display, goal: &'a Goal, patience: Patience, received: u64) -> Self {
        let (received, last) = (Cell::new(received), Cell::new(Some(Instant::now())));
        Self { display, goal, patience, received, last }
    }

    /// The number of messages received in the whole conversation.
    pub(super) fn received(&self) -> u64 {
        self.received.get()
    }

    /// Receives and prints messages until the end.
    pub(super) async fn receive(&self, socket: &mut WebSocket, controls: &mut Receiver<ControlFrame>) -> End {
        loop {
            let received = tokio::select! {
                biased;
                Some(frame) = controls.recv() => {
                    if self.display.received(&Item::Control(frame)).await.is_err() {
                        return End::StdoutEnded;
                    }
                    continue;
                }
                received = socket.recv() => received,
            };
            match received {
                Ok(Some(message)) => {
                    self.received.set(self.received.get() + 1);
                    self.last.set(None);
                    let item = Item::Message(message);
                    if self.display.received(&item).await.is_err() {
                        return End::StdoutEnded;
                    }
                    self.last.set(Some(Instant::now()));
                    if self.goal.is_met_by(self.received.get(), &item) {
                        return End::Enough;
                    }
                }
                Ok(None) => return End::ClosedByPeer(socket.close_frame()),
                Err(error) => return End::Failed(error),
            }
        }
    }

    /// Sends what there is to send, and then waits until the server is silent.
    pub(super) async fn send(&self, sender: &Sender, outbox: &mut Outbox) -> End {
        loop {
            match outbox.peek().await {
                Ok(Some(item)) => match send_item(sender, item).await {
                    Ok(()) => {
                        self.display.sent(item);
                        outbox.was_sent();
                    }
                    Err(end) => return end,
                },
                Ok(None) => break,
                Err(error) => return End::BadInput(error),
            }
        }
        if sender.flush().await.is_err() {
            // `receive` returns the reason.
            return pending().await;
        }
        if self.goal.is_to_send() {
            return End::Enough;
        }
        match self.patience.time(outbox.sent()) {
            Some(time) => self.silence(sender, time).await,
            None => pending().await,
        }
    }

    /// Waits until nothing was received for this time.
    async fn silence(&self, sender: &Sender, time: Duration) -> End {
        let sent = Instant::now();
        let mut checked = (sent, sender.stats().bytes_read());
        loop {
            // While stdout accepts nothing, silence proves nothing.
            let last = self.last.get().map_or_else(Instant::now, |last| last.max(checked.0));
            let Some(until) = last.checked_add(time) else { return pending().await };
            sleep_until(until).await;
            let read = sender.stats().bytes_read();
            let is_idle = self.last.get().is_some_and(|received| received <= last);
            if is_idle && read - checked.1 <= PART_OF_MESSAGE {
                return End::Silence;
            }
            checked = (if is_idle { Instant::now() } else { last }, read);
        }
    }
}

async fn send_item(sender: &Sender, item: &Item) -> Result<(), End> {
    let sent = match item {
        Item::Message(message) => sender.send(message.clone()).await,
        Item::Control(ControlFrame::Close(frame)) => return Err(End::Asked(frame.clone())),
        Item::Control(ControlFrame::Ping(payload)) => send_ping(sender, payload).await,
        Item::Control(ControlFrame::Pong(payload)) => sender.pong(payload).await,
    };
    match sent {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::InvalidInput => Err(End::BadInput(error.to_string())),
        // `receive` returns the reason. The item stays for the next connection.
        Err(_) => pending().await,
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

impl Goal {
    /// Returns whether the conversation waits for certain messages.
    pub(super) fn is_set(&self) -> bool {
        self.count.is_some() || self.until.is_some()
    }

    /// Returns whether the conversation ends once everything is sent.
    fn is_to_send(&self) -> bool {
        self.count == Some(0)
    }

    /// Returns whether enough was received. `item` is the last one of them.
    fn is_met_by(&self, received: u64, item: &Item) -> bool {
        let is_enough = self.count.is_some_and(|count| count > 0 && received >= count);
        let is_the_one = match (&self.until, item) {
            (Some(pattern), Item::Message(bowline::Message::Text(text))) => pattern.is_match(text),
            _ => false,
        };
        is_enough || is_the_one
    }

    /// Describes what was waited for in vain, if anything was.
    pub(super) fn missing(&self, received: u64) -> Option<String> {
        match (self.count, &self.until) {
            (Some(count), _) if received < count => {
                Some(format!("received {received} of {count} messages (--count)"))
            }
            (_, Some(pattern)) => Some(format!("no message matched {} (--until)", pattern.as_str())),
            _ => None,
        }
    }
}
