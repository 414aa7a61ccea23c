//! The messages that are sent, and the numbers in the replies.

use regex_lite::Regex;

use crate::connect::UsageError;

/// The place in a message where its number goes.
const NUMBER: &str = "{{id}}";

/// The digits of the number in a message that has a size. They are enough for 2^53 messages.
const DIGITS: usize = 16;

/// The messages of a run: all are the same, apart from a number that tells them apart.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    /// The texts between the numbers.
    pieces: Vec<String>,
    /// The least number of digits.
    digits: usize,
    replies: Replies,
}

/// The way in which a reply is related to a message.
#[derive(Clone, Debug)]
enum Replies {
    /// By its number, which is where the message has it.
    Numbered,
    /// By order, as the messages have no number.
    Ordered,
    /// By a pattern. Its first group, if it has one, is the number.
    Matching(Regex),
}

/// The relation of a message that was received to those that were sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reply {
    /// A reply to the message with this number.
    To(u64),
    /// A reply to the oldest message that has none.
    ToNext,
    /// A message that `--match` says is no reply.
    Ignored,
    /// A message that has no number.
    Unexpected,
}

impl Template {
    /// Messages of a size in bytes. They have a number if there is room for it.
    pub(crate) fn of_size(size: usize) -> Self {
        let pieces = match size.checked_sub(DIGITS) {
            Some(rest) => vec![String::new(), ".".repeat(rest)],
            None => vec![".".repeat(size)],
        };
        Self::new(pieces, DIGITS)
    }

    /// Messages with the text of `--message`.
    pub(crate) fn of_text(text: &str) -> Result<Self, UsageError> {
        let pieces: Vec<_> = text.split(NUMBER).map(str::to_owned).collect();
        for piece in &pieces {
            let unknown = piece.match_indices("{{").find_map(|(at, _)| {
                let (name, _) = piece[at + 2..].split_once("}}")?;
                let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase());
                is_name.then_some(name)
            });
            if let Some(name) = unknown {
                let text = format!("--message: {{{{{name}}}}} is unknown; a message may contain {NUMBER}");
                return Err(UsageError(text));
            }
        }
        Ok(Self::new(pieces, 1))
    }

    fn new(pieces: Vec<String>, digits: usize) -> Self {
        let replies = if pieces.len() > 1 { Replies::Numbered } else { Replies::Ordered };
        Self { pieces, digits, replies }
    }

    /// Relates replies to messages by a pattern.
    pub(crate) fn matching(mut self, pattern: Regex) -> Self {
        self.replies = Replies::Matching(pattern);
        self
    }

    /// Returns whether a reply says to which message it belongs.
    pub(crate) fn is_numbered(&self) -> bool {
        match &self.replies {
            Replies::Numbered => true,
            Replies::Ordered => false,
            Replies::Matching(pattern) => pattern.captures_len() > 1,
        }
    }

    /// Returns whether the messages have a number.
    pub(crate) fn has_number(&self) -> bool {
        self.pieces.len() > 1
    }

    /// Replaces the contents of `buf` by the message with this number.
    pub(crate) fn write(&self, number: u64, buf: &mut String) {
        buf.clear();
        for (at, piece) in self.pieces.iter().enumerate() {
            if at > 0 {
                push_number(buf, number, self.digits);
            }
            buf.push_str(piece);
        }
    }

    /// Finds out to which message a reply belongs.
    pub(crate) fn identify(&self, reply: &[u8]) -> Reply {
        match &self.replies {
            Replies::Ordered => Reply::ToNext,
            Replies::Numbered => self.number_in(reply).map_or(Reply::Unexpected, Reply::To),
            Replies::Matching(pattern) => {
                let Ok(text) = str::from_utf8(reply) else { return Reply::Ignored };
                let Some(found) = pattern.captures(text) else { return Reply::Ignored };
                match found.get(1) {
                    None if pattern.captures_len() > 1 => Reply::Ignored,
                    None => Reply::ToNext,
                    Some(number) => number.as_str().parse().map_or(Reply::Unexpected, Reply::To),
                }
            }
        }
    }

    /// Returns the number in a reply, which usually is where it was in the message. A server may put
    /// something before it.
    fn number_in(&self, reply: &[u8]) -> Option<u64> {
        let before = self.pieces.first()?.as_bytes();
        if let Some(number) = reply.strip_prefix(before).and_then(leading_number) {
            return Some(number);
        }
        if before.is_empty() {
            return reply.iter().position(u8::is_ascii_digit).and_then(|at| leading_number(&reply[at..]));
        }
        let at = reply.windows(before.len()).position(|bytes| bytes == before)?;
        leading_number(&reply[at + before.len()..])
    }
}

/// Appends a number with at least so many digits.
fn push_number(buf: &mut String, mut number: u64, least: usize) {
    // The digits of the largest number.
    let mut digits = [b'0'; 20];
    let mut at = digits.len();
    while number > 0 || digits.len() - at < least {
        at -= 1;
        digits[at] = b'0' + u8::try_from(number % 10).expect("a digit");
        number /= 10;
    }
    buf.push_str(str::from_utf8(&digits[at..]).expect("digits are ASCII"));
}

fn leading_number(bytes: &[u8]) -> Option<u64> {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit());
    let mut number = None;
    for digit in digits {
        let value = number.unwrap_or(0_u64).checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
        number = Some(value);
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(template: &Template, number: u64) -> String {
        let mut buf = "old".to_owned();
        template.write(number, &mut buf);
        buf
    }

    #[test]
    fn a_message_has_its_size_and_its_number() {
        for size in [0, 1, 15, 16, 17, 1000] {
            let template = Template::of_size(size);
            let message = written(&template, 1234);
            assert_eq!(message.len(), size);
            let reply = if size < DIGITS { Reply::ToNext } else { Reply::To(1234) };
            assert_eq!(template.identify(message.as_bytes()), reply);
        }
    }

    #[test]
    fn a_text_has_its_number_wherever_it_is() {
        let template = Template::of_text(r#"{"id":{{id}},"again":"{{id}}"}"#).unwrap();
        assert_eq!(written(&template, 7), r#"{"id":7,"again":"7"}"#);
        assert_eq!(template.identify(br#"{"id":70,"#), Reply::To(70));
        assert_eq!(template.identify(br#"echo: {"id":0}"#), Reply::To(0));
        assert_eq!(template.identify(br#"{"hello":1}"#), Reply::Unexpected);
        assert_eq!(template.identify(br#"{"id":99999999999999999999}"#), Reply::Unexpected);
        assert!(Template::of_text("{{name}}").is_err());
        assert!(Template::of_text(r#"{{"a":{"b":1}}"#).is_ok());
    }

    #[test]
    fn a_pattern_says_which_replies_count() {
        let text = Template::of_text("ask {{id}}").unwrap();
        let numbered = text.clone().matching(Regex::new(r"^answer (\d+)").unwrap());
        assert_eq!(numbered.identify(b"answer 12"), Reply::To(12));
        assert_eq!(numbered.identify(b"news"), Reply::Ignored);
        assert_eq!(numbered.identify(b"\xff"), Reply::Ignored);
        let ordered = text.matching(Regex::new("^answer").unwrap());
        assert_eq!(ordered.identify(b"answer 12"), Reply::ToNext);
    }
}
