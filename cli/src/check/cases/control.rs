//! Control frames: pings and pongs (RFC 6455 5.5).

use crate::check::script::{Case, must, should};
use crate::check::wire::frame::{CLOSE, Frame, close, ping, pong};

const PROTOCOL_ERROR: &[u16] = &[1002];

pub(super) fn cases() -> Vec<Case> {
    [pings(), pongs(), oversized(), fragmented()].concat()
}

fn pings() -> Vec<Case> {
    let sized = [0, 1, 124, 125].map(|size: u8| {
        // Every byte is another one, and most are no UTF-8.
        let payload: Vec<u8> = (0..size).map(|index| 0xff - index).collect();
        must(
            format!("control.ping-{size}"),
            "RFC 6455 5.5.3",
            format!("a ping with a payload of {size} bytes"),
        )
        .send([ping(payload.clone())])
        .pong(payload)
    });
    let many = must("control.ping-many", "RFC 6455 5.5.3", "ten pings, of which the last must be answered")
        .repeat(&ping("one of ten"), 9)
        .send([ping("the last")])
        .pong("the last");
    let in_turn = must("control.ping-twice", "RFC 6455 5.5.2", "a ping, and another after its pong")
        .send([ping("first")])
        .pong("first")
        .send([ping("second")])
        .pong("second");
    sized.into_iter().chain([many, in_turn]).collect()
}

fn pongs() -> Vec<Case> {
    vec![
        must("control.pong-unsolicited", "RFC 6455 5.5.3", "a pong without a ping")
            .send([pong("unsolicited")])
            .alive(),
        must("control.pong-empty", "RFC 6455 5.5.3", "an empty pong without a ping").send([pong("")]).alive(),
        must("control.pong-125", "RFC 6455 5.5", "a pong of 125 bytes").send([pong([b'x'; 125])]).alive(),
    ]
}

/// RFC 6455 5.5: control frames have a payload of at most 125 bytes.
fn oversized() -> Vec<Case> {
    let case = |id: &str, title: &str, frame: Frame| {
        must(format!("control.{id}"), "RFC 6455 5.5", title).send([frame]).fails(PROTOCOL_ERROR)
    };
    vec![
        case("ping-126", "a ping of 126 bytes", ping([b'x'; 126])),
        case("ping-65536", "a ping of 65,536 bytes", ping(vec![b'x'; 65_536])),
        case("pong-126", "a pong of 126 bytes", pong([b'x'; 126])),
        case("close-126", "a Close frame of 126 bytes", close(1000, [b'x'; 124])),
        should("control.ping-length-16", "RFC 6455 5.5", "a ping whose length has 16 bits")
            .send([ping("short").length_in_16_bits()])
            .fails(PROTOCOL_ERROR),
    ]
}

/// RFC 6455 5.5: control frames are not fragmented.
fn fragmented() -> Vec<Case> {
    let case = |id: &str, title: &str, frame: Frame| {
        must(format!("control.{id}"), "RFC 6455 5.5", title).send([frame.more()]).fails(PROTOCOL_ERROR)
    };
    vec![
        case("ping-fragmented", "a ping without the fin bit", ping("part")),
        case("pong-fragmented", "a pong without the fin bit", pong("part")),
        case("close-fragmented", "a Close frame without the fin bit", Frame::new(CLOSE, [3, 232])),
    ]
}
