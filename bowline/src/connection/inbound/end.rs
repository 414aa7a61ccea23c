//! The end of receiving: why nothing more arrives, and when the application learns of it.
//!
//! Three things are tracked separately, since they happen in any order: which data the application still
//! receives ([`Delivery`]), why nothing more arrives ([`End`]), and whether the stream of bytes itself has
//! ended ([`StreamEnd`]).
//!
//! Receiving ends once, by the peer's Close frame, a violation or limit, the end of the stream, or an error
//! of the transport. The application learns of the end after every message that arrived before, and only
//! after the outbound half has acted on it. A `send` that follows such a `recv` therefore reports the same
//! end.
//!
//! A peer may shut down its direction of the stream and still receive. If the application has been handed a
//! message, it may be about to reply. The connection then stays open for sending until the application has
//! learned of the end.

use bowline_proto::{CloseCode, CloseFrame, Failure};

use crate::connection::inbound::assembler::Assembler;
use crate::connection::inbound::effect::Effect;
use crate::connection::inbound::{Advance, Delivery, HandedOut, Inbound};
use crate::error::{Error, ErrorKind};
use crate::transport::ReadTransport;

const ENDED: &str = "the peer ended the connection without a Close frame";

/// The end of receiving, and its reason.
pub(crate) struct End {
    /// `Ok` after a normal Close frame.
    pub(super) outcome: Result<(), Error>,
    /// Our side sent the first Close frame: whatever the outcome, the application receives a normal end.
    pub(super) closed_by_us: bool,
    pub(super) notice: Notice,
}

/// The stage at which the application may be told about the end.
///
/// ```text
/// Unsettled --outbound has reacted--> Settled --a read finds nothing left--> Due
///                                        ^                                    |
///                                        '-- an undelivered message begins ---'
///                                            to be decompressed
/// ```
///
/// The end of a stream that stays open in our direction is settled at once: the outbound half has only to
/// give up its pings.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notice {
    /// The outbound half has not reacted to the end yet.
    Unsettled,
    /// The application may learn of the end, after everything that arrived before.
    Settled,
    /// Everything that arrived before has been parsed.
    Due,
}

/// The end of the stream of bytes, which is not always that of the connection.
///
/// ```text
/// Open --end, and the application may be replying--> HalfOpen --it has learned of the end--> Told
///   '--------------------- any other end, or an error of the transport ----------------------^
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamEnd {
    /// Bytes may still arrive.
    Open,
    /// The peer sends nothing more, but may still receive. The application has not learned of that yet.
    HalfOpen,
    /// The end of the stream ends the connection.
    Told,
}

impl Inbound {
    /// Returns the outcome of receiving, once everything that arrived before has been taken.
    pub(super) fn end(&self) -> Option<Result<(), Error>> {
        let end = self.due_end()?;
        Some(if end.closed_by_us { Ok(()) } else { end.outcome.clone() })
    }

    /// Returns the end, once everything that arrived before has been parsed.
    pub(super) fn due_end(&self) -> Option<&End> {
        self.end.as_ref().filter(|end| end.notice == Notice::Due)
    }

    /// Returns the reason why an open message will not be completed.
    pub(super) fn interruption(&self) -> Error {
        match &self.end {
            Some(End { outcome: Err(error), closed_by_us: false, .. }) => error.clone(),
            _ => Error::new(ErrorKind::Closed, "the connection was closed in the middle of the message"),
        }
    }

    /// Parses everything in memory, as our side closes. Whole messages become undelivered ones; later data is
    /// discarded.
    ///
    /// Returns the requests to the outbound half that were found on the way.
    pub(crate) fn close(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.end.is_some() || matches!(self.delivery, Delivery::Arrived | Delivery::Missed) {
            return effects;
        }
        if self.delivery == Delivery::Nothing {
            while let Some(effect) = self.next_effect() {
                effects.push(effect);
            }
            return effects;
        }
        self.delivery = Delivery::Collecting;
        // Decompressing is more work than may be done at once, and is left to the caller that takes the
        // message.
        if let Some(decompressor) =
            self.decompressor.as_mut().filter(|decompressor| decompressor.is_pending())
        {
            let (pending, last) = decompressor.take_pending();
            self.set_rest_aside(0..pending, last);
            self.buffer.consume(pending);
        }
        // The open message keeps its reader; the messages after it queue up.
        let mut read = None;
        loop {
            if self.message.has_reader() && self.message.is_whole() {
                read = Some(std::mem::take(&mut self.message));
            }
            if let Some(message) = self.message.finish() {
                self.undelivered.get_or_insert_default().push(message);
            }
            match self.advance() {
                Advance::Data => {}
                Advance::Effect(effect) => effects.push(effect),
                Advance::NeedsBytes => break,
            }
        }
        let (begun, rest) =
            self.undelivered.as_mut().map(|undelivered| undelivered.end()).unwrap_or_default();
        let is_whole = begun.is_some();
        if !self.message.has_reader() {
            self.message = read.or(begun).unwrap_or_default();
        }
        if let Some(decompressor) =
            self.decompressor.as_mut().filter(|_| is_whole || self.message.has_reader())
        {
            decompressor.continue_with(rest, is_whole);
        }
        self.delivery = Delivery::Arrived;
        self.half.discard_data();
        effects
    }

    /// Parses up to the next request to the outbound half.
    fn next_effect(&mut self) -> Option<Effect> {
        loop {
            match self.advance() {
                Advance::Data => {}
                Advance::Effect(effect) => return Some(effect),
                Advance::NeedsBytes => return None,
            }
        }
    }

    /// Discards everything that was and will be received, as the application takes nothing any more.
    pub(crate) fn discard(&mut self) {
        self.message = Assembler::default();
        self.undelivered = None;
        self.delivery = Delivery::Nothing;
        self.half.discard_data();
    }

    /// Ends receiving, as the transport is lost or given up.
    pub(crate) fn mark_lost(&mut self, error: Error) -> Effect {
        if self.end.is_none() {
            self.set_end(Err(error.clone()));
        }
        Effect::Lost(error)
    }

    /// Sets the end of receiving, and its reason.
    fn set_end(&mut self, outcome: Result<(), Error>) {
        let closed_by_us =
            matches!(self.delivery, Delivery::Collecting | Delivery::Arrived | Delivery::Missed);
        self.end = Some(End { outcome, closed_by_us, notice: Notice::Unsettled });
    }

    /// Notes that the outbound half has reacted to the end.
    pub(crate) fn settle(&mut self) {
        if let Some(end) = self.end.as_mut().filter(|end| end.notice == Notice::Unsettled) {
            end.notice = Notice::Settled;
        }
    }

    /// Returns the transport, which the caller drops once no lock is held.
    #[must_use = "the transport has to be dropped once no lock is held"]
    pub(crate) fn release(&mut self) -> Option<ReadTransport> {
        self.buffer.park();
        self.transport.take()
    }

    /// Returns whether nothing more arrives.
    pub(crate) fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    /// Returns whether the peer's Close frame has arrived.
    pub(crate) fn has_peer_close(&self) -> bool {
        self.peer_close.is_some()
    }

    /// Returns the peer's Close frame, if that frame has arrived.
    pub(crate) fn peer_close(&self) -> Option<CloseFrame> {
        self.peer_close.as_deref().cloned()
    }

    /// Returns the result of the closing handshake, once the connection has ended: the peer's Close frame, or
    /// the reason why there is none.
    pub(crate) fn closing_result(&self) -> Result<CloseFrame, Error> {
        match (&self.peer_close, &self.end) {
            (Some(frame), _) => Ok(CloseFrame::clone(frame)),
            (None, Some(End { outcome: Err(error), .. })) => Err(error.clone()),
            (None, _) => Err(Error::new(ErrorKind::Disconnected, ENDED)),
        }
    }

    /// Returns the outcome of receiving, whichever side closed: `Ok` after a normal Close frame of the peer.
    pub(crate) fn outcome(&self) -> Result<(), Error> {
        let lost = || Err(Error::new(ErrorKind::Disconnected, ENDED));
        self.end.as_ref().map_or_else(lost, |end| end.outcome.clone())
    }

    /// Ends receiving, as the peer has ended its direction without a Close frame.
    ///
    /// The application may be about to reply to something that it was handed. In that case our direction
    /// stays open.
    pub(super) fn end_of_stream(&mut self) -> Effect {
        let error = Error::new(ErrorKind::Disconnected, ENDED);
        let may_reply = !self.delivery.discards() && self.handed_out != HandedOut::Never;
        self.set_end(Err(error.clone()));
        if !may_reply {
            self.stream = StreamEnd::Told;
            return Effect::EndOfStream(error);
        }
        self.stream = StreamEnd::HalfOpen;
        self.settle();
        Effect::HalfOpen(error)
    }

    /// Returns the error of a stream whose peer has ended its direction, if the application has not learned
    /// of it yet.
    pub(crate) fn half_open(&self) -> Option<Error> {
        let end = self.end.as_ref().filter(|_| self.stream == StreamEnd::HalfOpen)?;
        end.outcome.as_ref().err().cloned()
    }

    /// Ends a half-open stream, once the application has learned that the peer has ended its direction.
    /// Returns the request to end ours.
    pub(crate) fn end_half_open(&mut self) -> Option<Effect> {
        let ended = self.half_open().filter(|_| self.due_end().is_some())?;
        self.stream = StreamEnd::Told;
        Some(Effect::EndOfStream(ended))
    }

    /// Ends receiving, as the peer's Close frame has arrived.
    pub(super) fn close_received(&mut self, frame: CloseFrame) -> Effect {
        let outcome = match frame.code() {
            CloseCode::NORMAL | CloseCode::GOING_AWAY | CloseCode::NO_STATUS => Ok(()),
            _ => {
                let text = format!("the peer closed the connection with {frame}");
                Err(Error::with_close_frame(text, frame.clone()))
            }
        };
        // While messages are collected, the peer's Close frame arrived before ours was sent.
        let closed_by_us = matches!(self.delivery, Delivery::Arrived | Delivery::Missed);
        self.end = Some(End { outcome, closed_by_us, notice: Notice::Unsettled });
        self.peer_close = Some(Box::new(frame.clone()));
        Effect::Echo(frame)
    }

    /// Ends receiving after a violation of the peer, or after a limit was exceeded.
    pub(super) fn fail(&mut self, failure: Failure) -> Effect {
        let error = Error::of(failure);
        self.set_end(Err(error.clone()));
        self.buffer.consume(self.buffer.bytes().len());
        Effect::Fail(failure.into(), error)
    }
}
