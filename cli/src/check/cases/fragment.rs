//! Fragmented messages (RFC 6455 5.4).

use crate::check::script::{Case, must};
use crate::check::wire::frame::{binary, close, continuation, ping, text};

const PROTOCOL_ERROR: &[u16] = &[1002];

pub(super) fn cases() -> Vec<Case> {
    [valid(), invalid()].concat()
}

fn case(id: &str, title: &str) -> Case {
    must(format!("fragment.{id}"), "RFC 6455 5.4", title)
}

fn valid() -> Vec<Case> {
    vec![
        case("two", "a text message in two fragments")
            .send([text("hello, ").more(), continuation("world")])
            .alive(),
        case("binary", "a binary message in three fragments")
            .send([binary("a").more(), continuation("b").more(), continuation("c")])
            .alive(),
        case("empty", "a message of three empty fragments")
            .send([text("").more(), continuation("").more(), continuation("")])
            .alive(),
        case("hundred", "a message in 100 fragments")
            .send([text("x").more()])
            .repeat(&continuation("x").more(), 98)
            .send([continuation("x")])
            .alive(),
        case("slow", "two fragments byte by byte").send_slowly([text("a").more(), continuation("b")]).alive(),
        case("ping-between", "a ping between two fragments")
            .send([text("a").more(), ping("between")])
            .pong("between")
            .send([continuation("b")])
            .alive(),
        case("close-between", "a Close frame between two fragments")
            .send([text("a").more(), close(1000, "")])
            .closes(1000)
            .ends(),
    ]
}

fn invalid() -> Vec<Case> {
    vec![
        case("continuation-first", "a continuation frame without a message")
            .send([continuation("x")])
            .fails(PROTOCOL_ERROR),
        case("continuation-first-more", "a continuation frame without a message, and not the last")
            .send([continuation("x").more()])
            .fails(PROTOCOL_ERROR),
        case("continuation-after-message", "a continuation frame after a whole message")
            .send([text("whole"), continuation("x")])
            .fails(PROTOCOL_ERROR),
        case("continuation-after-fragments", "a continuation frame after the last fragment")
            .send([text("a").more(), continuation("b"), continuation("c")])
            .fails(PROTOCOL_ERROR),
        case("text-inside", "a text frame inside a fragmented message")
            .send([text("a").more(), text("b")])
            .fails(PROTOCOL_ERROR),
        case("binary-inside", "a binary frame inside a fragmented message")
            .send([text("a").more(), binary("b")])
            .fails(PROTOCOL_ERROR),
        case("text-inside-more", "the first fragment of a message inside another")
            .send([text("a").more(), text("b").more()])
            .fails(PROTOCOL_ERROR),
    ]
}
