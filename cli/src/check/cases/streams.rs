//! Cases about the streams of a connection, which HTTP/2 and HTTP/3 have in common.

use crate::check::script::{Answer, Case, Needs, must, should};
use crate::check::wire::frame::{close, ping, text};
use crate::check::wire::head::Edit;

/// A version of HTTP with streams.
pub(super) struct Chapter {
    pub(super) name: &'static str,
    /// The section about streams, and the one about requests.
    pub(super) streams: &'static str,
    pub(super) requests: &'static str,
    pub(super) needs: Needs,
}

impl Chapter {
    pub(super) fn cases(&self) -> Vec<Case> {
        [self.requests(), self.streams()].concat()
    }

    fn on_streams(&self, id: &str, title: &str) -> Case {
        must(format!("{}.{id}", self.name), self.streams, title).needs(self.needs)
    }

    fn requests(&self) -> Vec<Case> {
        let unknown =
            must(format!("{}.protocol-unknown", self.name), self.requests, ":protocol x-bowline-unknown");
        vec![
            unknown.needs(self.needs).request([Edit::Protocol("x-bowline-unknown")]).rejected(&[]),
            self.on_streams("no-protocol", "a POST request with the headers of a WebSocket")
                .request([Edit::Method("POST")])
                .answer(Answer::Anything)
                .survives(),
        ]
    }

    fn streams(&self) -> Vec<Case> {
        vec![
            self.on_streams("data-in-pieces", "a ping in DATA frames of one byte")
                .send_slowly([ping("slow")])
                .pong("slow"),
            self.on_streams("data-together", "three pings in one DATA frame")
                .send([ping("1"), ping("2"), ping("3")])
                .pong("3"),
            self.on_streams("close-ends-stream", "a Close frame").send([close(1000, "")]).closes(1000).ends(),
            should(
                format!("{}.end-of-stream", self.name),
                self.streams,
                "the end of the stream without a Close frame",
            )
            .needs(self.needs)
            .end_of_stream()
            .ends(),
            self.on_streams("reset", "a reset of the stream, and another stream").reset().sibling_opens(),
            self.on_streams("close-of-stream", "a Close frame, and another stream of the connection")
                .send([close(1000, "")])
                .closes(1000)
                .sibling_opens(),
            self.on_streams("fault-of-stream", "a frame with RSV2, and another stream of the connection")
                .send([text("x").reserved(2)])
                .fails(&[1002])
                .sibling_opens(),
        ]
    }
}
