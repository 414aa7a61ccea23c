//! A conversation: sending beside receiving, until one of the ends.

mod closing;
mod ending;
mod event;
mod exchange;
mod interruption;
mod link;
mod outbox;

use std::pin::pin;

use bowline::http::{HeaderMap, Response};
use bowline::{CloseFrame, ControlFrame, WebSocket};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::connect::host_and_port;
use crate::exit::Exit;
use crate::talk::arguments::Settings;
use crate::talk::conversation::ending::{End, report};
use crate::talk::conversation::interruption::Interruptions;
use crate::talk::conversation::outbox::Outbox;
use crate::talk::display::style::{Layout, Style};
use crate::talk::display::{Display, Verbosity};
use crate::talk::head;
use crate::talk::input::Source;
use crate::talk::item::Item;
use crate::talk::prompt::{Printer, Prompt, Screen};
use event::{Event, show};
use exchange::{Exchange, Patience};
use link::Link;

/// The number of events that wait to be shown. The control frames of a flood are lost.
const EVENTS: usize = 1024;

/// A conversation, and what outlives each of its connections.
pub(super) struct Conversation {
    settings: Settings,
    outbox: Outbox,
    display: Display,
    screen: Option<Screen>,
    received: u64,
    events: Receiver<Event>,
    reports: Sender<Event>,
}

impl Conversation {
    pub(super) fn new(mut settings: Settings) -> Self {
        let (source, printer, screen) = match open_prompt(&mut settings) {
            Some((prompt, printer, screen)) => {
                (Source::Prompt(Box::new(prompt)), Some(printer), Some(screen))
            }
            None => (Source::Pipe(settings.split, settings.encoding), None, None),
        };
        let style = Style::new(settings.layout, settings.encoding, settings.split, settings.timestamps);
        let recording = std::mem::take(&mut settings.recording);
        let display = Display::new(style, settings.verbosity, recording, printer);
        let (reports, events) = channel(EVENTS);
        if display.shows_control_frames() {
            let seen = reports.clone();
            settings.target.on_control(move |frame| {
                let _ = seen.try_send(Event::Control(frame));
            });
        }
        let outbox = Outbox::new(std::mem::take(&mut settings.steps).into(), source);
        Self { settings, outbox, display, screen, received: 0, events, reports }
    }

    /// Holds the conversation, and returns the status of the process.
    pub(super) async fn run(mut self) -> Exit {
        let mut interruptions = Interruptions::new(self.settings.timeout);
        let end = self.talk(&mut interruptions).await;
        let recording_has_failed = self.display.recording_has_failed();
        let written = closing::finish(self.display, &end, self.screen.as_ref(), &mut interruptions).await;
        // An editor that waits to hand over a line is told that nobody takes it.
        drop(self.outbox);
        if let Some(screen) = self.screen {
            screen.restore().await;
        }
        match report(&end, written, &self.settings, self.received) {
            Exit::Success if recording_has_failed => Exit::Failure,
            exit => exit,
        }
    }

    /// Connects, and talks until the end, over as many connections as the settings allow.
    async fn talk(&mut self, interruptions: &mut Interruptions) -> End {
        if let Ok(request) = self.settings.target.request() {
            self.display.lines(Verbosity::Heads, &head::of_request(&request, self.settings.target.version()));
        }
        let Settings { target, reconnect, .. } = &self.settings;
        let mut link = Link::new(target, *reconnect, self.reports.clone());
        loop {
            let (socket, response) = match self.connect(&mut link, interruptions).await {
                Ok(opened) => opened,
                Err(end) => return end,
            };
            self.display.begin_recording();
            self.greet(&response);
            self.outbox.reconnect();
            let received = self.received;
            let end = self.talk_over(socket, response.headers(), interruptions).await;
            if !link.goes_on_after(&end) || self.outbox.is_at_close() {
                return end;
            }
            if let Some(loss) = self.outbox.loss(self.received - received) {
                self.display.notice(Verbosity::Notices, &loss);
            }
        }
    }

    /// Opens the next connection.
    async fn connect(
        &mut self,
        link: &mut Link,
        interruptions: &mut Interruptions,
    ) -> Result<(WebSocket, Response<()>), End> {
        let mut connecting = pin!(link.connect());
        loop {
            tokio::select! {
                connected = &mut connecting => return connected.map_err(End::Unconnected),
                Some(event) = self.events.recv() => {
                    show(event, &self.display).await.map_err(|_| End::StdoutEnded)?;
                }
                () = self.display.ended() => return Err(End::StdoutEnded),
                interruption = interruptions.next() => return Err(End::Interrupted(interruption)),
            }
        }
    }

    /// Says that the connection is open.
    fn greet(&self, response: &Response<()>) {
        self.display.lines(Verbosity::Heads, &head::of_connection(response));
        self.display.lines(Verbosity::Heads, &head::of_response(response));
        if self.settings.layout == Layout::Prompt {
            let text = format!("connected to {}, /help for help", self.settings.target.shown_url());
            self.display.notice(Verbosity::Notices, &text);
        }
    }

    /// Talks over one connection, and closes it.
    async fn talk_over(
        &mut self,
        mut socket: WebSocket,
        headers: &HeaderMap,
        interruptions: &mut Interruptions,
    ) -> End {
        let (ours, last) = self.exchange(&mut socket, headers, interruptions).await;
        let is_open = last.leaves_open();
        let end = match ours {
            Some(ours) => ours.after_replies(last),
            None => last,
        };
        if is_open {
            let frame = self.our_close(&end);
            self.display.sent(&Item::Control(ControlFrame::Close(frame.clone())));
            closing::close(&socket, frame, &end, &self.display, interruptions).await;
        }
        closing::show_last_events(&mut self.events, &self.display, &end, interruptions).await;
        end
    }

    /// Sends and receives until an end. If this side wanted to end, and waited for replies first, returns its
    /// end and that of the wait.
    async fn exchange(
        &mut self,
        socket: &mut WebSocket,
        headers: &HeaderMap,
        interruptions: &mut Interruptions,
    ) -> (Option<End>, End) {
        let patience = Patience::new(self.settings.linger, &self.settings.goal);
        let exchange = Exchange::new(&self.display, &self.settings.goal, patience, &mut self.received);
        let sender = socket.sender();
        // One future for both waits: a message that waits for room on stdout must not be lost between them.
        let mut receiving = pin!(exchange.receive(socket, &mut self.events));
        // In random order: a server that never stops sending must not hide a signal.
        let end = tokio::select! {
            end = &mut receiving => end,
            end = exchange.send(&sender, &mut self.outbox, headers, &self.reports) => end,
            () = self.display.ended() => End::StdoutEnded,
            interruption = interruptions.next() => End::Interrupted(interruption),
        };
        let Some(time) = exchange.time_for_replies(&end, self.outbox.done()) else { return (None, end) };
        // The library discards data that arrives after our Close frame, so the replies come first.
        let last = tokio::select! {
            last = &mut receiving => last,
            last = exchange.await_replies(&sender, time) => last,
            () = self.display.ended() => End::StdoutEnded,
            interruption = interruptions.next() => End::Interrupted(interruption),
        };
        (Some(end), last)
    }

    /// The Close frame to send after an end.
    fn our_close<'a>(&'a self, end: &'a End) -> &'a CloseFrame {
        match end {
            End::Asked(frame) => frame,
            _ => &self.settings.close,
        }
    }
}

/// Opens the prompt, if the settings ask for one. On terminals without the means for it, lines are read as
/// from a pipe.
fn open_prompt(settings: &mut Settings) -> Option<(Prompt, Printer, Screen)> {
    if settings.layout != Layout::Prompt {
        return None;
    }
    let (host, port) = host_and_port(settings.target.url());
    let prompt = Prompt::new(host, port, settings.encoding).ok();
    if prompt.is_none() {
        settings.layout = Layout::of_stdout();
    }
    prompt
}
