//! A conversation: sending beside receiving, until one of the ends.

mod closing;
mod exchange;

use bowline::{CloseFrame, ControlFrame, WebSocket};
use tokio::sync::mpsc::{Receiver, channel};

use crate::connect::{ConnectError, in_options};
use crate::exit::Exit;
use crate::talk::arguments::{Settings, Verbosity};
use crate::talk::display::{Display, Style};
use crate::talk::encoding::Item;
use crate::talk::ending::{End, describe};
use crate::talk::head;
use crate::talk::interruption::{Interruption, Interruptions};
use crate::talk::outbox::Outbox;
use closing::close;
use exchange::{Exchange, Patience};

/// A conversation, and what outlives each of its connections.
pub(super) struct Conversation {
    settings: Settings,
    outbox: Outbox,
    display: Display,
    received: u64,
    controls: Receiver<ControlFrame>,
}

/// The number of control frames that wait to be shown. Those of a flood are lost.
const CONTROLS: usize = 1024;

impl Conversation {
    pub(super) fn new(mut settings: Settings) -> Self {
        let steps = std::mem::take(&mut settings.steps);
        let outbox = Outbox::new(steps, settings.encoding, settings.split);
        let style = Style::new(settings.encoding, settings.split, settings.timestamps);
        let display = Display::new(style, settings.verbosity, std::mem::take(&mut settings.recording));
        let (seen, controls) = channel(CONTROLS);
        if display.shows_control_frames() {
            settings.target.on_control(move |frame| {
                let _ = seen.try_send(frame);
            });
        }
        Self { settings, outbox, display, received: 0, controls }
    }

    /// Holds the conversation, and returns the status of the process.
    pub(super) async fn run(mut self) -> Exit {
        let mut interruptions = Interruptions::new(self.settings.timeout);
        let end = self.talk(&mut interruptions).await;
        let exit = self.report(&end);
        closing::finish(self.display, &end, exit, &mut interruptions).await
    }

    /// Connects, and talks until the end.
    async fn talk(&mut self, interruptions: &mut Interruptions) -> End {
        if let Ok(request) = self.settings.target.request() {
            self.display.lines(Verbosity::Heads, &head::of_request(&request));
        }
        let connected = tokio::select! {
            connected = self.settings.target.connect() => connected,
            interruption = interruptions.next() => return End::Interrupted(interruption),
        };
        match connected {
            Ok((mut socket, response)) => {
                self.display.lines(Verbosity::Heads, &head::of_response(&response));
                self.talk_over(&mut socket, interruptions).await
            }
            Err(error) => End::Unconnected(error),
        }
    }

    /// Talks over one connection, and closes it.
    async fn talk_over(&mut self, socket: &mut WebSocket, interruptions: &mut Interruptions) -> End {
        let patience = Patience::new(self.settings.linger, &self.settings.goal);
        let exchange = Exchange::new(&self.display, &self.settings.goal, patience, self.received);
        let sender = socket.sender();
        let end = tokio::select! {
            biased;
            end = exchange.receive(socket, &mut self.controls) => end,
            end = exchange.send(&sender, &mut self.outbox) => end,
            () = self.display.ended() => End::StdoutEnded,
            interruption = interruptions.next() => End::Interrupted(interruption),
        };
        self.received = exchange.received();
        if let Some(frame) = self.our_close(&end) {
            self.display.sent(&Item::Control(ControlFrame::Close(frame.clone())));
            close(socket, frame, &end, &self.display, interruptions).await;
        }
        while let Ok(frame) = self.controls.try_recv() {
            if self.display.received(&Item::Control(frame)).await.is_err() {
                break;
            }
        }
        end
    }

    /// The Close frame to send after an end, unless the connection has ended.
    fn our_close<'a>(&'a self, end: &'a End) -> Option<&'a CloseFrame> {
        match end {
            End::Unconnected(_) | End::ClosedByPeer(_) | End::Failed(_) => None,
            End::Asked(frame) => Some(frame),
            _ => Some(&self.settings.close),
        }
    }

    /// Reports how the conversation ended, and returns the status of the process.
    fn report(&self, end: &End) -> Exit {
        let display = &self.display;
        match end {
            End::Unconnected(ConnectError::Library(error)) => display.error(&head::of_refusal(error)),
            End::Unconnected(error) => display.notice(Verbosity::Errors, error),
            End::BadInput(error) => display.notice(Verbosity::Errors, error),
            End::Interrupted(Interruption::TimedOut) => {
                let time = humantime::format_duration(self.settings.timeout.unwrap_or_default());
                display.notice(Verbosity::Errors, &format_args!("timed out after {time} (--timeout)"));
            }
            End::ClosedByPeer(frame) => {
                display.notice(Verbosity::Heads, &describe(frame.as_ref()));
            }
            End::Failed(error) => match error.close_frame() {
                Some(frame) => display.notice(Verbosity::Errors, &describe(Some(frame))),
                None => display.notice(Verbosity::Errors, &in_options(error)),
            },
            End::Enough | End::Silence | End::Asked(_) | End::StdoutEnded | End::Interrupted(_) => {}
        }
        if end.is_too_early()
            && let Some(missing) = self.settings.goal.missing(self.received)
        {
            display.notice(Verbosity::Errors, &missing);
            return Exit::Failure;
        }
        end.exit()
    }
}
