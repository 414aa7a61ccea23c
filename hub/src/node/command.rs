//! The commands that a worker accepts.

use tokio::sync::oneshot;

use crate::engine::HistoryPage;
use crate::error::Error;
use crate::node::membership::MemberKey;
use crate::position::Position;
use crate::presence::Present;
use crate::topic::Topic;

/// A command to the worker of a topic.
pub(crate) enum Command {
    /// A member asks to be live.
    Admit(Topic, Request),
    /// A member leaves, or a part of it: see [`Departure`].
    Leave(Topic, MemberKey, Departure),
    /// The engine wants the topic, or could not. The page is empty, and has the top of the history.
    Opened(Topic, Result<HistoryPage, Error>),
    /// A read of the history has ended. The number is that of the fill.
    Page(Topic, u64, Result<HistoryPage, Error>),
    /// A read of who is present has ended. The number is that of the read.
    Seen(Topic, u64, Result<Vec<Present>, Error>),
    /// Changes of presence may be lost in all topics.
    LookAround,
    /// The engine no longer wants the topic.
    Closed(Topic),
}

/// The wish of a member to be live.
pub(crate) struct Request {
    pub(crate) member: MemberKey,
    pub(crate) origin: Origin,
    /// Receives the answer, and the topic as the worker holds it.
    pub(crate) reply: oneshot::Sender<Result<(Admission, Topic), Error>>,
}

/// The point from which a member asks to be live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A new subscription that starts with the next message.
    Now,
    /// A new subscription from a position that the client names.
    Since(Position),
    /// A member that was admitted as one behind, with its ticket, and has received everything up to the
    /// position.
    Behind { ticket: u64, at: Position },
    /// A member as before, after the worker has compared the topic with its history.
    Verified { ticket: u64, at: Position },
}

/// The answer to a [`Request`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// The member is live, and has received everything up to the position.
    Live(Position),
    /// The member reads from the history after the position, and asks again with the ticket.
    Behind { ticket: u64, at: Position },
    /// The topic has no history. The member was not admitted.
    Lost(Position),
}

/// The reason for which a member leaves.
pub(crate) enum Departure {
    /// The subscription ends, whatever its state. The sender is told when nothing more is sent.
    Unsubscribe(Option<oneshot::Sender<()>>),
    /// The catch-up with this ticket has ended, because the connection is closed.
    CatchUp(u64),
    /// A request has waited for too long. Unless the worker has answered already, it drops the request.
    Request,
}
