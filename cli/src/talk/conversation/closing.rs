//! The last steps: closing the connection, and emptying the queue of stdout.

use std::future::Future;
use std::io;
use std::time::Duration;

use bowline::{CloseFrame, WebSocket};
use tokio::time::timeout;

use crate::exit::Exit;
use crate::talk::arguments::Verbosity;
use crate::talk::display::Display;
use crate::talk::ending::End;
use crate::talk::interruption::{Interruption, Interruptions};

/// The time for each of the last steps after `--timeout`.
const AFTER_TIMEOUT: Duration = Duration::from_secs(1);

/// Closes the connection politely. A second interruption ends the wait for the peer's Close frame.
pub(super) async fn close(
    socket: &WebSocket,
    frame: &CloseFrame,
    end: &End,
    display: &Display,
    interruptions: &mut Interruptions,
) {
    let closed = unless_interrupted(socket.close(frame.code(), frame.reason()), end, interruptions).await;
    if let Some(Err(error)) = closed {
        display.notice(Verbosity::Heads, &error);
    }
}

/// Waits until everything received is on stdout, and returns the status of the process.
pub(super) async fn finish(
    display: Display,
    end: &End,
    exit: Exit,
    interruptions: &mut Interruptions,
) -> Exit {
    match unless_interrupted(display.finish(), end, interruptions).await {
        // A reader that has seen enough, such as `head`, is no failure.
        Some(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => exit,
        Some(Err(error)) => {
            super::super::fail(&format_args!("writing to stdout failed: {error}"), Exit::Failure)
        }
        Some(Ok(())) | None => exit,
    }
}

/// Waits for a future, unless another interruption comes, or the time is up.
async fn unless_interrupted<F: Future>(
    future: F,
    end: &End,
    interruptions: &mut Interruptions,
) -> Option<F::Output> {
    let time = match end {
        End::Interrupted(Interruption::TimedOut) => AFTER_TIMEOUT,
        // The library limits the time for closing, and a reader of stdout may take any time.
        _ => Duration::MAX,
    };
    tokio::select! {
        output = timeout(time, future) => output.ok(),
        _ = interruptions.next() => None,
    }
}
