//! The connections of a conversation: one, or with `--reconnect` one after the other.

use bowline::http::Response;
use bowline::{Reconnecting, WebSocket};
use tokio::sync::mpsc::Sender;

use crate::connect::{ConnectError, Target, in_options};
use crate::talk::arguments::Reconnect;
use crate::talk::conversation::ending::End;
use crate::talk::conversation::event::Event;
use crate::talk::display::Verbosity;

/// The connections of a conversation.
pub(super) enum Link {
    Once(Box<Target>),
    Again(Box<Reconnecting>),
}

impl Link {
    pub(super) fn new(target: &Target, reconnect: Reconnect, reports: Sender<Event>) -> Self {
        let client = match reconnect {
            Reconnect::Never => return Self::Once(Box::new(target.clone())),
            Reconnect::Always => target.reconnecting(),
            Reconnect::Attempts(attempts) => target.reconnecting().attempts(attempts.get()),
        };
        Self::Again(Box::new(client.on_retry(move |retry| {
            let text = in_options(retry);
            let _ = reports.try_send(Event::Report(Verbosity::Notices, text));
        })))
    }

    /// Opens the next connection, after the pause that is due.
    pub(super) async fn connect(&mut self) -> Result<(WebSocket, Response<()>), ConnectError> {
        match self {
            Self::Once(target) => target.connect().await,
            Self::Again(client) => Ok(client.connect().await?),
        }
    }

    /// Returns whether another connection follows one that has ended so.
    pub(super) fn goes_on_after(&self, end: &End) -> bool {
        matches!(self, Self::Again(_)) && matches!(end, End::ClosedByPeer(_) | End::Failed(_))
    }
}
