//! The lines of `--json` and `--record`: one message or control frame each, without loss.
//!
//! ```text
//! {"t":1.234,"dir":"in","text":"hello"}
//! {"t":1.234,"dir":"in","binary":"AP8="}
//! {"t":1.234,"dir":"out","ping":"cHJvYmU="}
//! {"t":1.234,"dir":"in","close":4001,"reason":"logged out"}
//! ```
//!
//! `t` is the time in seconds since the conversation began. Binary messages and the payloads of pings and
//! pongs are in base64. A Close frame without a code has the code 1005 (RFC 6455 7.1.5).

use std::fmt::Write as _;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bowline::bytes::Bytes;
use bowline::{CloseCode, CloseFrame, ControlFrame, Message};
use serde_json::Value;

use crate::talk::item::Item;

/// The direction of an item.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Direction {
    In,
    Out,
}

/// Encodes an item as a line, without its newline.
pub(super) fn encode(item: &Item, direction: Direction, time: Duration) -> String {
    let direction = match direction {
        Direction::In => "in",
        Direction::Out => "out",
    };
    let mut line = format!("{{\"t\":{:.6},\"dir\":\"{direction}\",", time.as_secs_f64());
    match item {
        Item::Message(Message::Text(text)) => push(&mut line, "text", text),
        Item::Message(Message::Binary(bytes)) => push(&mut line, "binary", &BASE64_STANDARD.encode(bytes)),
        Item::Control(ControlFrame::Ping(bytes)) => push(&mut line, "ping", &BASE64_STANDARD.encode(bytes)),
        Item::Control(ControlFrame::Pong(bytes)) => push(&mut line, "pong", &BASE64_STANDARD.encode(bytes)),
        Item::Control(ControlFrame::Close(frame)) => {
            let _ = write!(line, "\"close\":{},", frame.code().0);
            push(&mut line, "reason", frame.reason());
        }
    }
    line.push('}');
    line
}

fn push(line: &mut String, name: &str, value: &str) {
    let _ = write!(line, "\"{name}\":{}", Value::from(value));
}

/// Decodes a line. Lines of the direction `in` are skipped, so that a recording can be sent again.
pub(super) fn decode(line: &[u8]) -> Result<Option<Item>, String> {
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    let value: Value = serde_json::from_slice(line).map_err(|error| format!("not JSON: {error}"))?;
    let Value::Object(mut fields) = value else { return Err(EXPECTED.into()) };
    match fields.remove("dir") {
        None => {}
        Some(Value::String(direction)) if direction == "out" => {}
        Some(Value::String(direction)) if direction == "in" => return Ok(None),
        Some(direction) => return Err(format!("\"dir\" is \"in\" or \"out\", not {direction}")),
    }
    fields.remove("t");
    let reason = fields.remove("reason");
    let mut fields = fields.into_iter();
    let (Some((name, value)), None) = (fields.next(), fields.next()) else { return Err(EXPECTED.into()) };
    if name == "close" {
        return close(&value, reason).map(Some);
    }
    let Value::String(value) = value else { return Err(format!("\"{name}\" is not a string")) };
    let binary = |value: &str| {
        BASE64_STANDARD.decode(value).map(Bytes::from).map_err(|error| format!("{name}: {error}"))
    };
    Ok(Some(match name.as_str() {
        "text" => Item::Message(Message::Text(value.into())),
        "binary" => Item::Message(Message::Binary(binary(&value)?)),
        "ping" => Item::Control(ControlFrame::Ping(binary(&value)?)),
        "pong" => Item::Control(ControlFrame::Pong(binary(&value)?)),
        _ => return Err(EXPECTED.into()),
    }))
}

fn close(code: &Value, reason: Option<Value>) -> Result<Item, String> {
    let code =
        code.as_u64().and_then(|code| u16::try_from(code).ok()).ok_or("\"close\" is not a close code")?;
    let reason = match reason {
        None => String::new(),
        Some(Value::String(reason)) => reason,
        Some(_) => return Err("\"reason\" is not a string".into()),
    };
    let frame = CloseFrame::new(CloseCode(code), &reason).map_err(|misuse| misuse.to_string())?;
    Ok(Item::Control(ControlFrame::Close(frame)))
}

const EXPECTED: &str =
    "expected an object with one of \"text\", \"binary\", \"ping\", \"pong\" and \"close\"";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bowline::bytes::Bytes;
    use bowline::{CloseCode, CloseFrame, ControlFrame, Message};

    use super::{Direction, decode, encode};
    use crate::talk::item::Item;

    #[test]
    fn every_item_survives_a_round_trip() {
        let items = [
            Item::Message(Message::from("a \"b\"\n\u{0}\u{1f600}")),
            Item::Message(Message::from(vec![0, 255])),
            Item::Control(ControlFrame::Ping(Bytes::from_static(b"\xff"))),
            Item::Control(ControlFrame::Pong(Bytes::new())),
            Item::Control(ControlFrame::Close(CloseFrame::new(CloseCode(4001), "bye").unwrap())),
            Item::Control(ControlFrame::Close(CloseFrame::new(CloseCode::NO_STATUS, "").unwrap())),
        ];
        for item in items {
            let line = encode(&item, Direction::Out, Duration::from_millis(1234));
            assert!(line.starts_with("{\"t\":1.234000,\"dir\":\"out\",") && !line.contains('\n'), "{line}");
            assert_eq!(decode(line.as_bytes()).unwrap(), Some(item.clone()), "{line}");
            let line = encode(&item, Direction::In, Duration::ZERO);
            assert_eq!(decode(line.as_bytes()).unwrap(), None, "{line}");
        }
    }

    #[test]
    fn other_lines_are_errors() {
        for line in [
            "x",
            "[]",
            "{}",
            r#"{"text":1}"#,
            r#"{"text":"a","binary":""}"#,
            r#"{"binary":"!"}"#,
            r#"{"close":1006}"#,
            r#"{"close":70000}"#,
            r#"{"dir":"up","text":"a"}"#,
            r#"{"txt":"a"}"#,
        ] {
            assert!(decode(line.as_bytes()).is_err(), "{line}");
        }
        assert_eq!(decode(b" \r").unwrap(), None);
    }
}
