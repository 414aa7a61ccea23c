//! The events that are displayed beside messages.

use bowline::ControlFrame;

use crate::talk::display::stdout::StdoutEnded;
use crate::talk::display::{Display, Verbosity};
use crate::talk::item::Item;

/// Something to show beside messages.
pub(super) enum Event {
    Control(ControlFrame),
    /// A notice, from outside of the conversation's own task.
    Report(Verbosity, String),
}

/// Shows an event.
pub(super) async fn show(event: Event, display: &Display) -> Result<(), StdoutEnded> {
    match event {
        Event::Control(frame) => display.received(&Item::Control(frame)).await,
        Event::Report(verbosity, text) => {
            display.notice(verbosity, &text);
            Ok(())
        }
    }
}
