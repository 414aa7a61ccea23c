//! The commands of the prompt.

use std::fs;

use bowline::bytes::Bytes;
use bowline::{CloseCode, CloseFrame, ControlFrame, Message, Utf8Bytes};

use crate::talk::encoding::{Encoding, decode_hex};
use crate::talk::item::{Item, Order};

/// A line of the prompt.
#[derive(Debug, PartialEq)]
pub(super) enum Command {
    Nothing,
    Help,
    Order(Order),
}

/// The text of `/help`.
pub(super) const HELP: &str = "\
A line is sent as a message. Lines that begin with / are commands:
  /ping [TEXT]             ping, and show the round-trip time
  /pong [TEXT]             send a pong unasked
  /close [CODE [REASON]]   close the connection
  /hex 00ff                send a binary message
  /file PATH               send a file: text if it is UTF-8, else a binary message
  /headers                 show the headers of the server's response
  /stats                   show what was sent and received
  //TEXT                   send /TEXT
  /help                    show this
Ctrl-D closes, Ctrl-C too, and a second Ctrl-C ends at once. A line that begins with a space is not
kept in the history.
";

/// Interprets a line.
pub(super) fn parse(line: &str, encoding: Encoding) -> Result<Command, String> {
    let Some(command) = line.strip_prefix('/') else {
        return if line.is_empty() { Ok(Command::Nothing) } else { message(line, encoding) };
    };
    if command.starts_with('/') {
        return message(command, encoding);
    }
    let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
    let rest = rest.trim();
    let item = match name {
        "help" => return Ok(Command::Help),
        "headers" => return Ok(Command::Order(Order::Headers)),
        "stats" => return Ok(Command::Order(Order::Stats)),
        "ping" => return Ok(Command::Order(Order::Ping(rest.as_bytes().to_vec()))),
        "pong" => Item::Control(ControlFrame::Pong(Bytes::copy_from_slice(rest.as_bytes()))),
        "close" => Item::Control(ControlFrame::Close(close(rest)?)),
        "hex" => Item::Message(Message::Binary(decode_hex(rest.as_bytes())?)),
        "file" => Item::Message(file(rest)?),
        _ => return Err(format!("there is no command /{name}: see /help, and send //{name} for /{name}")),
    };
    Ok(Command::Order(Order::Send(item)))
}

fn message(text: &str, encoding: Encoding) -> Result<Command, String> {
    let item = encoding.decode(text.as_bytes().to_vec())?;
    Ok(item.map_or(Command::Nothing, |item| Command::Order(Order::Send(item))))
}

fn close(arguments: &str) -> Result<CloseFrame, String> {
    let (code, reason) = match arguments {
        "" => ("1000", ""),
        arguments => arguments.split_once(' ').unwrap_or((arguments, "")),
    };
    let code = code.parse().map_err(|error| format!("the code {code:?}: {error}"))?;
    CloseFrame::new(CloseCode(code), reason.trim()).map_err(|misuse| misuse.to_string())
}

fn file(path: &str) -> Result<Message, String> {
    let bytes = fs::read(path).map_err(|error| format!("/file {path}: {error}"))?;
    let bytes = Bytes::from(bytes);
    Ok(match Utf8Bytes::try_from(bytes.clone()) {
        Ok(text) => Message::Text(text),
        Err(_) => Message::Binary(bytes),
    })
}

#[cfg(test)]
mod tests {
    use bowline::bytes::Bytes;
    use bowline::{CloseCode, CloseFrame, ControlFrame, Message};

    use super::{Command, parse};
    use crate::talk::encoding::Encoding;
    use crate::talk::item::Item;
    use crate::talk::item::Order;

    fn sent(item: Item) -> Command {
        Command::Order(Order::Send(item))
    }

    #[test]
    fn lines_are_messages_or_commands() {
        let close = |code, reason| {
            sent(Item::Control(ControlFrame::Close(CloseFrame::new(CloseCode(code), reason).unwrap())))
        };
        for (line, expected) in [
            ("", Command::Nothing),
            (" a ", sent(Item::Message(Message::from(" a ")))),
            ("//x", sent(Item::Message(Message::from("/x")))),
            ("/help", Command::Help),
            ("/ping", Command::Order(Order::Ping(Vec::new()))),
            ("/ping a b", Command::Order(Order::Ping(b"a b".to_vec()))),
            ("/pong x", sent(Item::Control(ControlFrame::Pong(Bytes::from_static(b"x"))))),
            ("/hex 00 ff", sent(Item::Message(Message::from(vec![0, 255])))),
            ("/close", close(1000, "")),
            ("/close 4001 logged out", close(4001, "logged out")),
        ] {
            assert_eq!(parse(line, Encoding::Text), Ok(expected), "{line}");
        }
        for line in ["/nonsense", "/hex 0", "/close x", "/close 1006", "/file /does/not/exist"] {
            parse(line, Encoding::Text).unwrap_err();
        }
        assert_eq!(parse("00ff", Encoding::Hex), Ok(sent(Item::Message(Message::from(vec![0, 255])))));
    }
}
