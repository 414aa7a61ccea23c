//! Close frames: the codes and reasons that may be sent and received.
#![no_main]

use bowline_fuzz::{NO_LIMITS, Outgoing, Receiver, Seen, encode_frame};
use bowline_proto::{CloseCode, CloseFrame, Failure, Misuse, Opcode, Role, SendHalf, Violation};
use libfuzzer_sys::fuzz_target;

// the payload of a Close frame
fuzz_target!(|payload: &[u8]| {
    receive(&payload[..payload.len().min(125)]);
    let Some((code, reason)) = payload.split_first_chunk() else { return };
    if let Ok(reason) = std::str::from_utf8(reason) {
        send(u16::from_be_bytes(*code), reason);
    }
});

fn receive(payload: &[u8]) {
    let expected = match payload {
        [] => Ok((1005, "")),
        [_] => Err(Violation::CloseBodyTooShort),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if is_registered(code) {
                let reason = std::str::from_utf8(reason).map_err(|_| Violation::InvalidCloseReason);
                reason.map(|reason| (code, reason))
            } else {
                Err(Violation::InvalidCloseCode(code))
            }
        }
    };
    for (role, peer) in [(Role::Client, Role::Server), (Role::Server, Role::Client)] {
        let mut receiver = Receiver::new(role, NO_LIMITS);
        let result = receiver.arrive(&encode_frame(peer, true, Opcode::Close, payload));
        assert_eq!(result.err(), expected.err().map(Failure::Violation));
        if let Ok(expected) = expected {
            let [Seen::Close(frame)] = &*receiver.seen else { panic!("one Close frame") };
            assert_eq!((frame.code().0, frame.reason()), expected);
        }
    }
}

fn send(code: u16, reason: &str) {
    let expected = if code == 1005 {
        if reason.is_empty() { Ok(()) } else { Err(Misuse::ReasonWithoutCode) }
    } else if !is_registered(code) {
        Err(Misuse::ReservedCloseCode(code))
    } else if reason.len() > 123 {
        Err(Misuse::CloseReasonTooLong(reason.len()))
    } else {
        Ok(())
    };
    let frame = CloseFrame::new(CloseCode(code), reason);
    assert_eq!(frame.as_ref().map(drop), expected.as_ref().map(drop));
    let Ok(frame) = frame else { return };
    for role in [Role::Client, Role::Server] {
        let (mut half, mut sent, mut outgoing) = (SendHalf::new(role), Vec::new(), Outgoing::of(role));
        half.close(&frame, [1, 2, 3, 4], &mut sent).expect("the first Close frame");
        outgoing.arrive(&sent);
        assert!(outgoing.is_whole());
        let payload =
            if code == 1005 { Vec::new() } else { [&code.to_be_bytes(), reason.as_bytes()].concat() };
        assert_eq!(outgoing.close, Some(payload));
    }
}

/// Returns whether a code may be sent: a second implementation of RFC 6455 7.4 and the IANA registry.
fn is_registered(code: u16) -> bool {
    const REGISTERED: [u16; 12] = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014];
    REGISTERED.contains(&code) || code / 1000 == 3 || code / 1000 == 4
}
