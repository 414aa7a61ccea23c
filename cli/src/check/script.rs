//! The language of the cases.
//!
//! A [`Case`] is a list of [`Step`]s after an opening handshake: frames to send, and what the server has to
//! do then. [`must`] and [`should`] begin a case, and read like a sentence of a specification:
//!
//! ```text
//! must("frame.rsv2", "RFC 6455 5.2", "a text frame with RSV2")
//!     .send([text("hello").reserved(2)])
//!     .fails(&[1002])
//! ```

use super::wire::frame::{Frame, encoded, ping};
use super::wire::head::{Edit, Pace};
use super::wire::inbox::Kind;

/// The payload of the ping that follows a fault. A server that answers it has not failed the connection.
pub(crate) const AFTER: &[u8] = b"after the fault";

/// The payload of the ping that follows something valid.
pub(crate) const STILL: &[u8] = b"still there?";

/// One thing that a server has to do right.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) id: String,
    /// The RFC and the section.
    pub(crate) section: &'static str,
    pub(crate) level: Level,
    /// The title, which says what is sent.
    pub(crate) title: String,
    pub(crate) needs: Needs,
    pub(crate) opening: Opening,
    pub(crate) steps: Vec<Step>,
}

/// The level of a requirement (RFC 2119).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Level {
    Must,
    /// Asked of servers with `--strict` alone.
    Should,
}

/// The servers to which a case applies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Needs {
    Any,
    /// A server that echoes messages.
    Echo,
    Http1,
    Http2,
    Http3,
}

/// The opening handshake of a case.
#[derive(Clone, Debug)]
pub(crate) struct Opening {
    /// The changes to a correct request.
    pub(crate) edits: Vec<Edit>,
    pub(crate) pace: Pace,
    pub(crate) answer: Answer,
}

/// The response that is expected.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    /// The handshake succeeds. Its details are the business of other cases.
    Opened,
    /// The handshake succeeds, and every header is right.
    Valid,
    /// As `Valid`, or the server refuses.
    ValidOrRefused,
    /// The handshake succeeds without an extension.
    Plain,
    /// As `Plain`, or the server refuses.
    PlainOrRefused,
    /// Anything but a success: a status, of these if it is strict, or the end of the connection.
    Rejected { statuses: &'static [u16], header: Option<&'static str> },
    /// Compression is agreed on, or the case does not apply.
    Compressed,
    /// Whatever the server wants.
    Anything,
}

/// A step after the opening handshake.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Writes bytes at once.
    Write(Vec<u8>),
    /// Writes bytes one by one, each in a packet of its own.
    WriteSlowly(Vec<u8>),
    /// Writes the same bytes many times.
    Repeat {
        bytes: Vec<u8>,
        times: usize,
    },
    /// Ends the direction to the server, without a Close frame.
    EndOfStream,
    /// Ends the connection abruptly. Over HTTP/2 and HTTP/3, resets the stream.
    Reset,
    Expect(Expectation),
}

/// The reaction of the server to the steps before.
#[derive(Clone, Debug)]
pub(crate) enum Expectation {
    /// The server fails the connection: a Close frame, with one of these codes if it is strict, or the end.
    Fails(&'static [u16]),
    /// The server answers the Close frame, with this code if it is strict.
    Closes(Option<u16>),
    /// The server ends the connection below.
    Ends,
    /// A pong with this payload.
    Pong(Vec<u8>),
    /// The server still answers pings, or has closed for a reason of the application.
    Alive,
    /// This message comes back.
    Echo(Kind, Vec<u8>),
    /// The server closes, accepts or waits: all is right if it answers on another connection.
    Survives,
    /// Another stream of the same HTTP/2 or HTTP/3 connection opens, and answers pings.
    SiblingOpens,
}

/// Begins a case that RFCs require.
pub(crate) fn must(id: impl Into<String>, section: &'static str, title: impl Into<String>) -> Case {
    let opening = Opening { edits: Vec::new(), pace: Pace::AtOnce, answer: Answer::Opened };
    let (id, title) = (id.into(), title.into());
    Case { id, section, level: Level::Must, title, needs: Needs::Any, opening, steps: Vec::new() }
}

/// Begins a case that RFCs recommend.
pub(crate) fn should(id: impl Into<String>, section: &'static str, title: impl Into<String>) -> Case {
    Case { level: Level::Should, ..must(id, section, title) }
}

impl Case {
    fn then(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    pub(crate) fn needs(mut self, needs: Needs) -> Self {
        self.needs = needs;
        self
    }

    /// Changes the request of the opening handshake.
    pub(crate) fn request(mut self, edits: impl IntoIterator<Item = Edit>) -> Self {
        self.opening.edits.extend(edits);
        self
    }

    pub(crate) fn pace(mut self, pace: Pace) -> Self {
        self.opening.pace = pace;
        self
    }

    /// Says which response is expected.
    pub(crate) fn answer(mut self, answer: Answer) -> Self {
        self.opening.answer = answer;
        self
    }

    /// Expects a refusal, with one of these statuses if it is strict.
    pub(crate) fn rejected(self, statuses: &'static [u16]) -> Self {
        self.answer(Answer::Rejected { statuses, header: None })
    }

    /// Sends frames with one write.
    pub(crate) fn send<const N: usize>(self, frames: [Frame; N]) -> Self {
        self.then(Step::Write(encoded(frames)))
    }

    /// Sends frames byte by byte.
    pub(crate) fn send_slowly<const N: usize>(self, frames: [Frame; N]) -> Self {
        self.then(Step::WriteSlowly(encoded(frames)))
    }

    /// Sends bytes many times.
    pub(crate) fn repeat_bytes(self, bytes: impl Into<Vec<u8>>, times: usize) -> Self {
        self.then(Step::Repeat { bytes: bytes.into(), times })
    }

    /// Sends a frame many times.
    pub(crate) fn repeat(self, frame: &Frame, times: usize) -> Self {
        self.then(Step::Repeat { bytes: encoded([frame.clone()]), times })
    }

    pub(crate) fn end_of_stream(self) -> Self {
        self.then(Step::EndOfStream)
    }

    pub(crate) fn reset(self) -> Self {
        self.then(Step::Reset)
    }

    /// Expects that the server fails the connection after the last step, and answers nothing that follows.
    pub(crate) fn fails(mut self, codes: &'static [u16]) -> Self {
        match self.steps.last_mut() {
            // With the fault in one write, so that the server has no time to close in between.
            Some(Step::Write(bytes)) => ping(AFTER).encode(bytes),
            _ => self = self.send([ping(AFTER)]),
        }
        self.fails_in_time(codes)
    }

    /// Expects that the server fails the connection after the last step, whatever it does before that.
    pub(crate) fn fails_in_time(self, codes: &'static [u16]) -> Self {
        self.then(Step::Expect(Expectation::Fails(codes)))
    }

    /// Expects a Close frame in answer to one with this code.
    pub(crate) fn closes(self, code: impl Into<Option<u16>>) -> Self {
        self.then(Step::Expect(Expectation::Closes(code.into())))
    }

    pub(crate) fn ends(self) -> Self {
        self.then(Step::Expect(Expectation::Ends))
    }

    pub(crate) fn pong(self, payload: impl Into<Vec<u8>>) -> Self {
        self.then(Step::Expect(Expectation::Pong(payload.into())))
    }

    /// Expects that the server takes no offence: it answers another ping.
    pub(crate) fn alive(self) -> Self {
        self.send([ping(STILL)]).then(Step::Expect(Expectation::Alive))
    }

    /// Expects that this message comes back.
    pub(crate) fn echoes(self, kind: Kind, payload: impl Into<Vec<u8>>) -> Self {
        self.then(Step::Expect(Expectation::Echo(kind, payload.into()))).needs(Needs::Echo)
    }

    /// Expects that the server answers on another connection afterwards.
    pub(crate) fn survives(self) -> Self {
        self.then(Step::Expect(Expectation::Survives))
    }

    pub(crate) fn sibling_opens(self) -> Self {
        self.then(Step::Expect(Expectation::SiblingOpens))
    }

    /// Returns `true` if no other case may run at the same time: the server may be busy, or gone.
    pub(crate) fn runs_alone(&self) -> bool {
        let survives = |step: &Step| matches!(step, Step::Expect(Expectation::Survives));
        self.steps.iter().any(survives)
    }
}
