//! Frames (RFC 6455 5.1 and 5.2).

use crate::check::script::{Case, must, should};
use crate::check::wire::frame::{BINARY, Frame, binary, close, ping, text};

const PROTOCOL_ERROR: &[u16] = &[1002];

pub(super) fn cases() -> Vec<Case> {
    [masking(), reserved_bits(), opcodes(), lengths(), valid_lengths(), boundaries()].concat()
}

fn masking() -> Vec<Case> {
    vec![
        must("frame.unmasked", "RFC 6455 5.1", "a text frame that is not masked")
            .send([text("hello").unmasked()])
            .fails(PROTOCOL_ERROR),
        must("frame.unmasked-ping", "RFC 6455 5.1", "a ping that is not masked")
            .send([ping("hello").unmasked()])
            .fails(PROTOCOL_ERROR),
        must("frame.unmasked-close", "RFC 6455 5.1", "a Close frame that is not masked")
            .send([close(1000, "").unmasked()])
            .fails_in_time(PROTOCOL_ERROR),
        must("frame.key-of-zeros", "RFC 6455 5.3", "a ping masked with a key of zeros")
            .send([ping("zeros").masked_with([0; 4])])
            .pong("zeros"),
        must("frame.key-of-ones", "RFC 6455 5.3", "a ping masked with a key of ones")
            .send([ping("ones").masked_with([0xff; 4])])
            .pong("ones"),
    ]
}

fn reserved_bits() -> Vec<Case> {
    vec![
        must("frame.rsv1", "RFC 6455 5.2", "a text frame with RSV1, without an extension")
            .send([text("hello").reserved(4)])
            .fails(PROTOCOL_ERROR),
        must("frame.rsv2", "RFC 6455 5.2", "a text frame with RSV2")
            .send([text("hello").reserved(2)])
            .fails(PROTOCOL_ERROR),
        must("frame.rsv3", "RFC 6455 5.2", "a text frame with RSV3")
            .send([text("hello").reserved(1)])
            .fails(PROTOCOL_ERROR),
        must("frame.rsv-ping", "RFC 6455 5.2", "a ping with RSV3")
            .send([ping("hello").reserved(1)])
            .fails(PROTOCOL_ERROR),
        must("frame.rsv-close", "RFC 6455 5.2", "a Close frame with RSV2")
            .send([close(1000, "").reserved(2)])
            .fails_in_time(PROTOCOL_ERROR),
    ]
}

fn opcodes() -> Vec<Case> {
    let unknown = (3..=7).chain(11..=15);
    unknown
        .map(|opcode| {
            let id = format!("frame.opcode-{opcode:x}");
            must(id, "RFC 6455 5.2", format!("a frame with the reserved opcode {opcode:#x}"))
                .send([Frame::new(opcode, "hello")])
                .fails(PROTOCOL_ERROR)
        })
        .collect()
}

fn lengths() -> Vec<Case> {
    vec![
        should("frame.length-16-for-125", "RFC 6455 5.2", "125 bytes with a length of 16 bits")
            .send([binary([b'x'; 125]).length_in_16_bits()])
            .fails(PROTOCOL_ERROR),
        should("frame.length-64-for-125", "RFC 6455 5.2", "125 bytes with a length of 64 bits")
            .send([binary([b'x'; 125]).length_in_64_bits()])
            .fails(PROTOCOL_ERROR),
        should("frame.length-64-for-65535", "RFC 6455 5.2", "65,535 bytes with a length of 64 bits")
            .send([binary(vec![b'x'; 65_535]).length_in_64_bits()])
            .fails(PROTOCOL_ERROR),
        must("frame.length-msb", "RFC 6455 5.2", "a length whose most significant bit is set")
            .send([Frame::new(BINARY, "hello").announcing(1 << 63)])
            .fails_in_time(&[1002, 1009]),
    ]
}

fn valid_lengths() -> Vec<Case> {
    let sizes = [0_usize, 125, 126, 65_535, 65_536];
    let case = |size: usize| {
        let title = format!("a binary message of {size} bytes");
        must(format!("frame.size-{size}"), "RFC 6455 5.2", title).send([binary(vec![b'x'; size])]).alive()
    };
    let empty_text =
        must("frame.size-0-text", "RFC 6455 5.6", "an empty text message").send([text("")]).alive();
    sizes.map(case).into_iter().chain([empty_text]).collect()
}

/// TCP has no boundaries: frames arrive in any pieces.
fn boundaries() -> Vec<Case> {
    vec![
        must("frame.slow", "RFC 6455 5.2", "a ping byte by byte").send_slowly([ping("slow")]).pong("slow"),
        must("frame.slow-text", "RFC 6455 5.2", "a text message byte by byte")
            .send_slowly([text("slow"), ping("after text")])
            .pong("after text"),
        must("frame.together", "RFC 6455 5.2", "three pings and a message in one write")
            .send([ping("1"), ping("2"), binary("message"), ping("3")])
            .pong("3"),
    ]
}
