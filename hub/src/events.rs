//! The news of a hub.

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

/// The number of events that a receiver may be late.
const CAPACITY: usize = 256;

/// An event of a hub, as [`HubEvents::recv`] returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HubEvent {
    /// The engine has lost its broker, for the given reason. Members stay, and `publish` fails.
    Disconnected(String),
    /// The engine has its broker again. Topics with history receive what they missed.
    Reconnected,
    /// The engine has lost a part of its broker, such as one of several servers. `publish` and `subscribe`
    /// fail for the topics of this part, and only for these.
    PartDisconnected {
        /// The name of the part, such as the address of the server.
        part: String,
        /// The reason.
        reason: String,
    },
    /// The engine has a part of its broker again. Its topics with history receive what they missed.
    PartReconnected {
        /// The name of the part.
        part: String,
    },
    /// Messages of a topic without history found no room in the inbox of a worker, and are lost: see
    /// [`HubLimits::inbox`](crate::HubLimits::inbox).
    InboxOverflow {
        /// The name of the topic.
        topic: String,
        /// The number of lost messages.
        messages: u64,
    },
    /// Messages of a topic with history are lost for members that were level. These members were told, or
    /// their connections were closed.
    Lost {
        /// The name of the topic.
        topic: String,
        /// The number of members.
        members: usize,
    },
    /// The function of [`HubBuilder::frame`](crate::HubBuilder::frame) panicked. Members of a topic with
    /// history are told that a message is lost.
    FramePanicked {
        /// The name of the topic.
        topic: String,
        /// The text of the panic.
        panic: String,
    },
    /// The lease of this hub had lapsed, because the hub could not renew it in time, or because the broker
    /// had lost data. Or the hub has given the lease up, because more than 10,000 calls about presence have
    /// failed. Its members may have been absent for a while, and are entered again.
    LeaseLapsed {
        /// The number of entries.
        entries: usize,
    },
    /// The function of [`HubBuilder::presence`](crate::HubBuilder::presence) panicked. The news was not sent.
    PresencePanicked {
        /// The name of the topic.
        topic: String,
        /// The text of the panic.
        panic: String,
    },
    /// A worker of the hub panicked, most likely in the drop of a payload of the application's. The members
    /// of its topics are closed with 1013, and calls of the hub fail.
    WorkerPanicked {
        /// The text of the panic.
        panic: String,
    },
    /// The receiver was late, and so many events were dropped.
    Missed(u64),
}

/// A receiver of the events of a hub. [`Hub::events`](crate::Hub::events) returns one.
///
/// A receiver sees the events from its creation on.
#[derive(Debug)]
pub struct HubEvents(broadcast::Receiver<HubEvent>);

impl HubEvents {
    /// Waits for the next event. Returns `None` once the hub is gone.
    ///
    /// The hub never waits for a receiver: more than 256 events that were not received become one
    /// [`HubEvent::Missed`].
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe. A dropped future has received no event.
    pub async fn recv(&mut self) -> Option<HubEvent> {
        match self.0.recv().await {
            Ok(event) => Some(event),
            Err(RecvError::Lagged(missed)) => Some(HubEvent::Missed(missed)),
            Err(RecvError::Closed) => None,
        }
    }
}

/// The source of the events.
#[derive(Clone, Debug)]
pub(crate) struct EventSource(broadcast::Sender<HubEvent>);

/// A source of events that does not keep receivers waiting after the end of the hub. Engines have it.
#[derive(Clone, Debug)]
pub(crate) struct WeakEventSource(broadcast::WeakSender<HubEvent>);

impl WeakEventSource {
    pub(crate) fn emit(&self, event: HubEvent) {
        if let Some(source) = self.0.upgrade() {
            EventSource(source).emit(event);
        }
    }
}

impl EventSource {
    pub(crate) fn new() -> Self {
        Self(broadcast::Sender::new(CAPACITY))
    }

    pub(crate) fn emit(&self, event: HubEvent) {
        // Without a receiver, nobody wants to know.
        let _ = self.0.send(event);
    }

    pub(crate) fn downgrade(&self) -> WeakEventSource {
        WeakEventSource(self.0.downgrade())
    }

    pub(crate) fn subscribe(&self) -> HubEvents {
        HubEvents(self.0.subscribe())
    }
}
