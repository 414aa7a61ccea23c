//! The closing handshake (RFC 6455 5.5.1, 7.1 and 7.4).

use crate::check::script::{AFTER, Case, must, should};
use crate::check::wire::frame::{CLOSE, Frame, bare_close, close, ping, text};

const PROTOCOL_ERROR: &[u16] = &[1002];

pub(super) fn cases() -> Vec<Case> {
    [handshakes(), valid_codes(), invalid_codes(), invalid_bodies(), ends()].concat()
}

fn handshakes() -> Vec<Case> {
    let case = |id: &str, title: &str| must(format!("close.{id}"), "RFC 6455 5.5.1", title);
    vec![
        case("normal", "a Close frame with the code 1000").send([close(1000, "")]).closes(1000),
        case("bare", "a Close frame without a code").send([bare_close()]).closes(None),
        case("reason", "a Close frame with a reason")
            .send([close(1000, "Auf Wiedersehen, tschüß")])
            .closes(1000),
        case("reason-123", "a Close frame with a reason of 123 bytes")
            .send([close(1000, [b'x'; 123])])
            .closes(1000),
        case("after-ping", "a Close frame after a ping and its pong")
            .send([ping("before")])
            .pong("before")
            .send([close(1000, "")])
            .closes(1000),
        case("then-text", "a text message after the Close frame")
            .send([close(1000, ""), text("too late")])
            .closes(1000)
            .ends(),
        // RFC 6455 5.5.2: a server that has received a Close frame need not answer pings any more.
        should("close.then-ping", "RFC 6455 5.5.2", "a ping after the Close frame")
            .send([close(1000, ""), ping(AFTER)])
            .closes(1000)
            .ends(),
        case("twice", "two Close frames").send([close(1000, ""), close(1001, "")]).closes(1000).ends(),
        case("slow", "a Close frame byte by byte").send_slowly([close(1000, "slow")]).closes(1000),
    ]
}

fn valid_codes() -> Vec<Case> {
    let required = [1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999];
    // In the registry of IANA, since RFC 6455.
    let registered = [1012, 1013, 1014];
    let sent = |case: Case, code: u16| case.send([close(code, "")]).closes(code);
    let title = |code: u16| format!("a Close frame with the code {code}");
    let required =
        required.map(|code| sent(must(format!("close.code-{code}"), "RFC 6455 7.4", title(code)), code));
    let registered =
        registered.map(|code| sent(should(format!("close.code-{code}"), "RFC 6455 7.4", title(code)), code));
    required.into_iter().chain(registered).collect()
}

fn invalid_codes() -> Vec<Case> {
    let title = |code: u16| format!("a Close frame with the code {code}, which is never sent");
    let required = [0, 999, 1004, 1005, 1006, 1015].map(|code: u16| {
        must(format!("close.code-{code}"), "RFC 6455 7.4", title(code))
            .send([close(code, "")])
            .fails(PROTOCOL_ERROR)
    });
    // Not assigned to anything.
    let recommended = [1016, 1100, 2000, 2999, 5000, 65_535].map(|code: u16| {
        should(format!("close.code-{code}"), "RFC 6455 7.4.2", title(code))
            .send([close(code, "")])
            .fails(PROTOCOL_ERROR)
    });
    required.into_iter().chain(recommended).collect()
}

fn invalid_bodies() -> Vec<Case> {
    vec![
        must("close.one-byte", "RFC 6455 5.5.1", "a Close frame with a payload of one byte")
            .send([Frame::new(CLOSE, [3])])
            .fails(PROTOCOL_ERROR),
        must("close.reason-invalid", "RFC 6455 5.5.1", "a Close frame whose reason is not UTF-8")
            .send([close(1000, b"\xff\xfe")])
            .fails(&[1007, 1002]),
        must(
            "close.reason-truncated",
            "RFC 6455 5.5.1",
            "a Close frame whose reason ends within a character",
        )
        .send([close(1000, b"ok \xe2\x82")])
        .fails(&[1007, 1002]),
    ]
}

fn ends() -> Vec<Case> {
    vec![
        // RFC 6455 5.5.1: the server closes TCP at once, a client waits for the server.
        must("close.server-ends", "RFC 6455 7.1.1", "a Close frame, and nothing more")
            .send([close(1000, "")])
            .closes(1000)
            .ends(),
        must("close.server-ends-bare", "RFC 6455 7.1.1", "a Close frame without a code, and nothing more")
            .send([bare_close()])
            .closes(None)
            .ends(),
        should("close.half-closed", "RFC 6455 7.1.4", "the end of the stream without a Close frame")
            .end_of_stream()
            .ends(),
    ]
}
