//! Close codes and Close frames (RFC 6455 5.5.1 and 7.4, and the IANA registry).

use bowline_proto::{CloseCode, CloseFrame, Failure, Limit, Misuse, Violation};

#[test]
fn rfc6455_7_4_which_codes_may_be_sent() {
    // RFC 6455 11.7 and the "WebSocket Close Code Number Registry", without the reserved 1004, 1005, 1006 and
    // 1015.
    let registered = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014];
    for code in (0..=u16::MAX).step_by(if cfg!(miri) { 331 } else { 1 }) {
        // RFC 6455 7.4.2: 3000-3999 are registered for libraries, and 4000-4999 are free for applications.
        let expected = registered.contains(&code) || (3000..=3999).contains(&code) || code / 1000 == 4;
        assert_eq!(CloseCode(code).is_allowed(), expected, "{code}");
        let frame = CloseFrame::new(CloseCode(code), "");
        if expected || code == 1005 {
            assert_eq!(frame.unwrap().code(), CloseCode(code));
        } else {
            assert_eq!(frame, Err(Misuse::ReservedCloseCode(code)));
        }
    }
}

#[test]
fn rfc6455_7_4_1_the_names_of_the_codes() {
    let names = [
        (CloseCode::NORMAL, 1000),
        (CloseCode::GOING_AWAY, 1001),
        (CloseCode::PROTOCOL_ERROR, 1002),
        (CloseCode::UNSUPPORTED_DATA, 1003),
        (CloseCode::NO_STATUS, 1005),
        (CloseCode::ABNORMAL, 1006),
        (CloseCode::INVALID_DATA, 1007),
        (CloseCode::POLICY_VIOLATION, 1008),
        (CloseCode::MESSAGE_TOO_BIG, 1009),
        (CloseCode::MANDATORY_EXTENSION, 1010),
        (CloseCode::INTERNAL_ERROR, 1011),
        (CloseCode::SERVICE_RESTART, 1012),
        (CloseCode::TRY_AGAIN_LATER, 1013),
        (CloseCode::BAD_GATEWAY, 1014),
        (CloseCode::TLS_HANDSHAKE, 1015),
    ];
    for (name, code) in names {
        assert_eq!(name, CloseCode::from(code));
        assert_eq!(u16::from(name), code);
        assert_eq!(name.to_string(), code.to_string());
        assert_eq!(format!("{name:?}"), format!("CloseCode({code})"));
    }
}

#[test]
fn rfc6455_5_5_a_reason_has_at_most_123_bytes() {
    for len in 0..=123 {
        let reason = "r".repeat(len);
        assert_eq!(CloseFrame::new(CloseCode::NORMAL, &reason).unwrap().reason(), reason);
    }
    for len in 124..200 {
        assert_eq!(
            CloseFrame::new(CloseCode::NORMAL, &"r".repeat(len)),
            Err(Misuse::CloseReasonTooLong(len))
        );
    }
    // The limit counts bytes, not characters.
    assert!(CloseFrame::new(CloseCode::NORMAL, &"€".repeat(41)).is_ok());
    assert_eq!(CloseFrame::new(CloseCode::NORMAL, &"€".repeat(42)), Err(Misuse::CloseReasonTooLong(126)));
}

#[test]
fn rfc6455_5_5_1_a_frame_without_a_code_has_no_reason() {
    assert_eq!(CloseFrame::new(CloseCode::NO_STATUS, "").unwrap().reason(), "");
    assert_eq!(CloseFrame::new(CloseCode::NO_STATUS, "why"), Err(Misuse::ReasonWithoutCode));
    assert_eq!(CloseFrame::new(CloseCode::ABNORMAL, ""), Err(Misuse::ReservedCloseCode(1006)));
}

#[test]
fn a_close_frame_is_displayed_for_people() {
    assert_eq!(CloseFrame::new(CloseCode::GOING_AWAY, "restart").unwrap().to_string(), "1001 (restart)");
    assert_eq!(CloseFrame::new(CloseCode(4000), "").unwrap().to_string(), "4000");
    assert_eq!(CloseFrame::new(CloseCode::NO_STATUS, "").unwrap().to_string(), "no code");
}

#[test]
fn a_reason_can_not_forge_what_stands_around_it() {
    for (reason, shown) in [
        ("x\r\nFAKE LOG LINE\u{1b}[2J", r"4000 (x\r\nFAKE LOG LINE\u{1b}[2J)"),
        ("\0\t\u{7f}\u{85}\u{9b}", r"4000 (\0\t\u{7f}\u{85}\u{9b})"),
        // Line and paragraph separators, and characters that change the direction of text.
        ("\u{2028}\u{2029}", r"4000 (\u{2028}\u{2029})"),
        ("\u{202e}txet\u{202c}\u{2066}\u{200f}", r"4000 (\u{202e}txet\u{202c}\u{2066}\u{200f})"),
        // Invisible characters.
        ("a\u{ad}\u{200b}\u{2060}\u{feff}\u{e0041}", r"4000 (a\u{ad}\u{200b}\u{2060}\u{feff}\u{e0041})"),
        // A backslash is distinguished from an escape.
        (r"C:\new", r"4000 (C:\\new)"),
        ("it's \"fine\"", "4000 (it's \"fine\")"),
        ("héllo, 世界, नमस्ते, שלום, 😀", "4000 (héllo, 世界, नमस्ते, שלום, 😀)"),
    ] {
        let frame = CloseFrame::new(CloseCode(4000), reason).unwrap();
        assert_eq!(frame.to_string(), shown);
        assert_eq!(frame.reason(), reason);
        assert!(!format!("{frame:?}").contains(char::is_control));
    }
}

#[test]
fn rfc6455_7_4_1_the_code_for_each_failure() {
    let codes: [(Failure, CloseCode); 17] = [
        (Violation::ReservedBits.into(), CloseCode::PROTOCOL_ERROR),
        (Violation::UnknownOpcode(3).into(), CloseCode::PROTOCOL_ERROR),
        (Violation::UnmaskedFrame.into(), CloseCode::PROTOCOL_ERROR),
        (Violation::MaskedFrame.into(), CloseCode::PROTOCOL_ERROR),
        (Violation::NonMinimalLength.into(), CloseCode::PROTOCOL_ERROR),
        (Violation::LengthOverflow.into(), CloseCode::PROTOCOL_ERROR),
        (Violation::FragmentedControlFrame.into(), CloseCode::PROTOCOL_ERROR),
        (Violation::OversizedControlFrame.into(), CloseCode::PROTOCOL_ERROR),
        (Violation::UnexpectedContinuation.into(), CloseCode::PROTOCOL_ERROR),
        (Violation::ExpectedContinuation.into(), CloseCode::PROTOCOL_ERROR),
        (Violation::CloseBodyTooShort.into(), CloseCode::PROTOCOL_ERROR),
        (Violation::InvalidCloseCode(1005).into(), CloseCode::PROTOCOL_ERROR),
        (Violation::InvalidText.into(), CloseCode::INVALID_DATA),
        (Violation::InvalidCloseReason.into(), CloseCode::INVALID_DATA),
        (Limit::MessageSize(1).into(), CloseCode::MESSAGE_TOO_BIG),
        (Limit::CompressedSize(1).into(), CloseCode::MESSAGE_TOO_BIG),
        (Limit::FramesPerMessage(1).into(), CloseCode::POLICY_VIOLATION),
    ];
    for (failure, code) in codes {
        assert_eq!(CloseCode::from(failure), code, "{failure:?}");
        // A Close frame can carry the code.
        assert!(CloseFrame::new(code, "").is_ok());
    }
}

#[test]
fn errors_name_the_numbers() {
    let texts = [
        (Failure::from(Limit::MessageSize(17)).to_string(), "17"),
        (Failure::from(Limit::FramesPerMessage(18)).to_string(), "18"),
        (Failure::from(Limit::CompressedSize(19)).to_string(), "19"),
        (Failure::from(Violation::UnknownOpcode(0xB)).to_string(), "0xb"),
        (Violation::InvalidCloseCode(1016).to_string(), "1016"),
        (Misuse::ReservedCloseCode(1006).to_string(), "1006"),
        (Misuse::ReasonWithoutCode.to_string(), "1005"),
        (Misuse::CloseReasonTooLong(124).to_string(), "124"),
        (Misuse::OversizedControlFrame(126).to_string(), "126"),
    ];
    for (text, number) in texts {
        assert!(text.contains(number), "{text}");
        assert!(!text.ends_with('.') && text.starts_with(char::is_lowercase), "{text}");
    }
}
