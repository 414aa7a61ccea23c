//! A WebSocket of a case after its opening handshake: it writes any bytes, and reads events.

use std::pin::pin;
use std::time::Duration;

use bowline_proto::Inflater;
use tokio::time::{Instant, timeout, timeout_at};

use super::carrier::Carrier;
use super::frame::{encoded, pong};
use super::http2::Http2Client;
use super::http3::Http3Client;
use super::inbox::{Inbox, Received};
use super::transcript::{Direction, Transcript};

/// The bytes of one write of a repetition.
const REPEATED: usize = 64 << 10;

/// A connection that carries many streams.
pub(crate) enum Below {
    Http2(Http2Client),
    Http3(Http3Client),
}

/// An open WebSocket.
pub(crate) struct Session {
    carrier: Carrier,
    /// The connection below, for more streams, if it carries them.
    below: Option<Below>,
    inbox: Inbox,
    transcript: Transcript,
    /// The time in which the server has to do what a step expects.
    wait: Duration,
}

impl Session {
    /// A session on a carrier, from which the response of HTTP/1.1 has been read, and `leftover` after it.
    pub(crate) fn new(carrier: Carrier, leftover: Vec<u8>, transcript: Transcript, wait: Duration) -> Self {
        let mut session = Self { carrier, below: None, inbox: Inbox::new(), transcript, wait };
        session.inbox.take_leftover(leftover, &mut session.transcript);
        session
    }

    /// Keeps the connection below.
    pub(crate) fn keep(&mut self, below: Below) {
        self.below = Some(below);
    }

    pub(crate) fn below(&self) -> Option<&Below> {
        self.below.as_ref()
    }

    /// Accepts compressed messages from now on.
    pub(crate) fn allow_compression(&mut self, inflater: Inflater) {
        self.inbox.allow_compression(inflater);
    }

    pub(crate) fn into_transcript(self) -> Transcript {
        self.transcript
    }

    /// The moment until which the server has to do what a step expects.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.wait
    }

    /// Writes bytes, while everything that arrives is read. The end of the connection shows in the events.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.transcript.add(Direction::Sent, bytes);
        self.write_and_read(bytes).await;
    }

    /// Writes the same bytes many times.
    pub(crate) async fn write_repeatedly(&mut self, bytes: &[u8], times: usize) {
        self.transcript.add(Direction::Sent, bytes);
        let note = format!("the last {} bytes {} times more", bytes.len(), times.saturating_sub(1));
        self.transcript.note(Direction::Sent, note);
        let at_once = (REPEATED / bytes.len().max(1)).clamp(1, times.max(1));
        let chunk = bytes.repeat(at_once);
        let mut left = times;
        while left > 0 && !self.inbox.has_ended() {
            let count = left.min(at_once);
            if !self.write_and_read(&chunk[..count * bytes.len()]).await {
                return;
            }
            left -= count;
        }
    }

    /// Writes each byte in a packet of its own, as far as the system does so.
    pub(crate) async fn write_slowly(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.transcript.add(Direction::Sent, &[*byte]);
            if !self.write_and_read(&[*byte]).await {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Ends the direction to the server.
    pub(crate) async fn end_stream(&mut self) {
        self.transcript.note(Direction::Sent, "the end of the stream");
        // A server that is gone has told so in its own direction.
        let _ = timeout(self.wait, self.carrier.writer.shutdown()).await;
    }

    /// Ends the connection, or the stream of HTTP/2 or HTTP/3, abruptly.
    pub(crate) fn reset(&mut self) {
        self.transcript.note(Direction::Sent, "a reset");
        self.carrier.reset();
    }

    /// Returns the next event, or `None` at the deadline.
    pub(crate) async fn next(&mut self, deadline: Instant) -> Option<Received> {
        loop {
            if let Some(event) = self.inbox.pop() {
                return Some(event);
            }
            // A timeout would not end while there is always something to read.
            if self.inbox.has_ended() || Instant::now() >= deadline {
                return None;
            }
            // A closed channel is the end of a connection that this side has reset.
            let incoming = timeout_at(deadline, self.carrier.incoming.recv()).await.ok()??;
            self.inbox.take(incoming, &mut self.transcript);
            for payload in self.inbox.take_owed() {
                self.write(&encoded([pong(payload)])).await;
            }
        }
    }

    /// Puts events back, in front of all others.
    pub(crate) fn put_back(&mut self, events: Vec<Received>) {
        self.inbox.put_back(events);
    }

    /// Returns an event that has arrived already.
    pub(crate) fn next_here(&mut self) -> Option<Received> {
        while let Ok(incoming) = self.carrier.incoming.try_recv() {
            self.inbox.take(incoming, &mut self.transcript);
        }
        self.inbox.pop()
    }

    /// Returns `false` if the bytes were not written.
    async fn write_and_read(&mut self, bytes: &[u8]) -> bool {
        let Carrier { writer, incoming, .. } = &mut self.carrier;
        let mut writing = pin!(timeout(self.wait, writer.write(bytes)));
        let result = loop {
            tokio::select! {
                biased;
                result = &mut writing => break result,
                Some(incoming) = incoming.recv(), if !self.inbox.has_ended() => {
                    self.inbox.take(incoming, &mut self.transcript);
                }
            }
        };
        let problem = match result {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the server does not read".to_owned(),
        };
        self.transcript.note(Direction::Sent, format!("writing failed: {problem}"));
        false
    }
}
