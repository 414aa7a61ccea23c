//! The last steps: closing the connection, and emptying the queue of stdout.

use std::future::Future;
use std::io;
use std::time::Duration;

use bowline::{CloseFrame, WebSocket};
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

use crate::connect::in_options;
use crate::talk::conversation::ending::End;
use crate::talk::conversation::event::{Event, show};
use crate::talk::conversation::interruption::{Interruption, Interruptions};
use crate::talk::display::{Display, Verbosity};
use crate::talk::prompt::Screen;

/// The time for a last step after `--timeout`, and for the last messages at a prompt.
const SHORT: Duration = Duration::from_secs(1);

/// The time for all last steps after a signal: for a server that answers no Close frame, and for a stdout
/// that nobody reads.
const AFTER_SIGNAL: Duration = Duration::from_secs(3);

/// The time that the last steps after a signal have in any case, so that a server that answers no Close frame
/// keeps no messages from stdout.
const LEAST: Duration = Duration::from_millis(500);

/// Closes the connection politely. A second interruption ends the wait for the peer's Close frame.
pub(super) async fn close(
    socket: &WebSocket,
    frame: &CloseFrame,
    end: &End,
    display: &Display,
    interruptions: &mut Interruptions,
) {
    let close = socket.close(frame.code(), frame.reason());
    let time = time(end, interruptions);
    if let Some(Err(error)) = unless_interrupted(close, time, interruptions).await {
        display.notice(Verbosity::Heads, &in_options(&error));
    }
}

/// Shows the events that are left, such as the Close frame of the peer.
pub(super) async fn show_last_events(
    events: &mut Receiver<Event>,
    display: &Display,
    end: &End,
    interruptions: &mut Interruptions,
) {
    while let Ok(event) = events.try_recv() {
        let time = time(end, interruptions);
        let shown = unless_interrupted(show(event, display), time, interruptions).await;
        if !matches!(shown, Some(Ok(()))) {
            return;
        }
    }
}

/// Waits until everything received is on stdout.
pub(super) async fn finish(
    display: Display,
    end: &End,
    screen: Option<&Screen>,
    interruptions: &mut Interruptions,
) -> io::Result<()> {
    let time = if screen.is_some() { SHORT } else { time(end, interruptions) };
    unless_interrupted(display.finish(), time, interruptions).await.unwrap_or(Ok(()))
}

/// The time for a last step that begins now.
fn time(end: &End, interruptions: &Interruptions) -> Duration {
    match end {
        End::Interrupted(Interruption::TimedOut) => SHORT,
        End::Interrupted(Interruption::Signal(_)) => {
            AFTER_SIGNAL.saturating_sub(interruptions.since_first()).max(LEAST)
        }
        // The library limits the time for closing, and a reader of stdout may take any time.
        _ => Duration::MAX,
    }
}

/// Waits for a future, unless another interruption comes, or the time is up.
async fn unless_interrupted<F: Future>(
    future: F,
    time: Duration,
    interruptions: &mut Interruptions,
) -> Option<F::Output> {
    tokio::select! {
        output = timeout(time, future) => output.ok(),
        _ = interruptions.next() => None,
    }
}
