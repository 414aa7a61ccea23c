//! WebSockets over HTTP/2 (RFC 8441). With `--http 2`, the other chapters use it, too.

use crate::check::script::{Answer, Case, Needs, must, should};
use crate::check::wire::frame::{close, ping, text};
use crate::check::wire::head::Edit;

pub(super) fn cases() -> Vec<Case> {
    [requests(), streams()].concat()
}

fn case(id: &str, section: &'static str, title: &str) -> Case {
    must(format!("http2.{id}"), section, title).needs(Needs::Http2)
}

fn requests() -> Vec<Case> {
    vec![
        case("protocol-unknown", "RFC 8441 4", ":protocol x-bowline-unknown")
            .request([Edit::Protocol("x-bowline-unknown")])
            .rejected(&[]),
        case("no-protocol", "RFC 8441 5", "a POST request with the headers of a WebSocket")
            .request([Edit::Method("POST")])
            .answer(Answer::Anything)
            .survives(),
        case("request-ends", "RFC 8441 5", "a request that ends its stream at once")
            .request([Edit::EndOfStream])
            .answer(Answer::Anything)
            .survives(),
    ]
}

fn streams() -> Vec<Case> {
    vec![
        case("data-in-pieces", "RFC 8441 5", "a ping in DATA frames of one byte")
            .send_slowly([ping("slow")])
            .pong("slow"),
        case("data-together", "RFC 8441 5", "three pings in one DATA frame")
            .send([ping("1"), ping("2"), ping("3")])
            .pong("3"),
        case("close-ends-stream", "RFC 8441 5", "a Close frame").send([close(1000, "")]).closes(1000).ends(),
        should("http2.end-of-stream", "RFC 8441 5", "END_STREAM without a Close frame")
            .needs(Needs::Http2)
            .end_of_stream()
            .ends(),
        case("reset", "RFC 8441 5", "RST_STREAM with CANCEL, and another stream").reset().sibling_opens(),
        case("close-of-stream", "RFC 8441 5", "a Close frame, and another stream of the connection")
            .send([close(1000, "")])
            .closes(1000)
            .sibling_opens(),
        case("fault-of-stream", "RFC 8441 5", "a frame with RSV2, and another stream of the connection")
            .send([text("x").reserved(2)])
            .fails(&[1002])
            .sibling_opens(),
    ]
}
