//! A value that lives as long as its connection is in use.

use std::mem;

use crate::connection::outbound::deferred::Deferred;
use crate::connection::outbound::{Outbound, Phase};

/// A value that is dropped when the `WebSocket` was dropped and the transport is closed, whichever is last.
///
/// ```text
///           attach            detach
/// Absent ----------> Held ------------> Left
///    ^                 |                  | finish
///    |                 '- detach, if the  |
///    |                    transport is    |
///    |                    closed          |
///    '-----------------v------------------'
/// ```
///
/// The connections of an application are registered by such values: a shutdown waits until both the handler
/// and the last byte are gone. The drop of the value may call the connection, so it runs after the lock.
#[derive(Default)]
#[cfg_attr(not(feature = "server"), allow(dead_code, reason = "only servers attach values"))]
pub(crate) enum Attachment {
    #[default]
    Absent,
    /// The `WebSocket` exists.
    Held(Box<dyn Send>),
    /// The `WebSocket` was dropped, and the transport is not closed.
    Left(Box<dyn Send>),
}

impl Outbound {
    /// Keeps `value` until the `WebSocket` was dropped and the transport is closed.
    #[cfg(feature = "server")]
    pub(crate) fn attach(&mut self, value: Box<dyn Send>) {
        self.rare.get_or_insert_default().attachment = Attachment::Held(value);
    }

    /// Records that the `WebSocket` was dropped.
    pub(crate) fn detach(&mut self) {
        let Some(rare) = &mut self.rare else { return };
        rare.attachment = match mem::take(&mut rare.attachment) {
            Attachment::Held(value) if matches!(self.phase, Phase::Finished(_)) => {
                self.deferred.push(Deferred::DropAttachment(value));
                Attachment::Absent
            }
            Attachment::Held(value) => Attachment::Left(value),
            attachment => attachment,
        };
    }

    /// Records that the transport is closed.
    pub(super) fn release_attachment(&mut self) {
        let Some(rare) = &mut self.rare else { return };
        rare.attachment = match mem::take(&mut rare.attachment) {
            Attachment::Left(value) => {
                self.deferred.push(Deferred::DropAttachment(value));
                Attachment::Absent
            }
            attachment => attachment,
        };
    }
}
