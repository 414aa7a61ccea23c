//! JSON for people: laid out and coloured, with every token as it was sent.
//!
//! Values are never parsed and written again. Numbers keep their digits, objects their order and their
//! duplicates, strings their escapes.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use serde_json::Value;

use crate::escape;

/// Texts of up to this many characters stay in one line.
const ONE_LINE: usize = 80;

const KEY: Style = AnsiColor::Cyan.on_default();
const STRING: Style = AnsiColor::Green.on_default();
const SCALAR: Style = AnsiColor::Yellow.on_default();

/// The use of colours.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::talk) enum Colours {
    On,
    Off,
}

/// Lays out an object or an array, or returns `None` for any other text. Control characters are escaped.
pub(in crate::talk) fn lay_out(text: &str, colours: Colours) -> Option<String> {
    let text = text.trim();
    let is_nested = text.starts_with(['{', '[']) && serde_json::from_str::<Value>(text).is_ok();
    is_nested.then(|| {
        let fits = text.chars().count() <= ONE_LINE && !text.contains('\n');
        Layouter { out: String::with_capacity(text.len() * 2), colours, fits, depth: 0 }.lay_out(text)
    })
}

struct Layouter {
    out: String,
    colours: Colours,
    /// Set if everything stays in one line.
    fits: bool,
    depth: usize,
}

impl Layouter {
    /// Writes the tokens of valid JSON.
    fn lay_out(mut self, text: &str) -> String {
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let end = token_end(rest, first);
            let (token, after) = rest.split_at(end);
            rest = after;
            let next = rest.trim_start().chars().next();
            match first {
                '{' | '[' => self.open(first, next),
                '}' | ']' => self.close(first),
                ',' => {
                    self.out.push(',');
                    self.break_line();
                }
                ':' => self.out.push_str(if self.fits { ":" } else { ": " }),
                '"' => self.token(token, if next == Some(':') { KEY } else { STRING }),
                _ if first.is_ascii_whitespace() => {
                    if self.fits {
                        self.out.push_str(token);
                    }
                }
                _ => self.token(token, SCALAR),
            }
        }
        self.out
    }

    fn open(&mut self, bracket: char, next: Option<char>) {
        self.out.push(bracket);
        self.depth += 1;
        // Empty ones stay closed up.
        if !matches!(next, Some('}' | ']')) {
            self.break_line();
        }
    }

    fn close(&mut self, bracket: char) {
        self.depth -= 1;
        if !self.out.ends_with(['{', '[']) {
            self.break_line();
        }
        self.out.push(bracket);
    }

    fn break_line(&mut self) {
        if !self.fits {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n("  ", self.depth));
        }
    }

    fn token(&mut self, token: &str, style: Style) {
        let token = escape::json(token);
        match self.colours {
            Colours::On => {
                let _ = write!(self.out, "{style}{token}{style:#}");
            }
            Colours::Off => self.out.push_str(&token),
        }
    }
}

/// The end of the token that begins with `first`.
fn token_end(text: &str, first: char) -> usize {
    match first {
        '{' | '}' | '[' | ']' | ',' | ':' => 1,
        '"' => {
            let mut is_escaped = false;
            let mut characters = text.char_indices().skip(1);
            let end = characters.find(|&(_, character)| {
                let ends = character == '"' && !is_escaped;
                is_escaped = character == '\\' && !is_escaped;
                ends
            });
            end.map_or(text.len(), |(at, _)| at + 1)
        }
        _ if first.is_ascii_whitespace() => {
            text.find(|character: char| !character.is_ascii_whitespace()).unwrap_or(text.len())
        }
        _ => text
            .find(|character: char| character.is_ascii_whitespace() || "{}[],:\"".contains(character))
            .unwrap_or(text.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Colours, lay_out};

    #[test]
    fn long_objects_are_indented_with_their_tokens_kept() {
        let text = format!(
            r#"{{"b":1.10e5,"a":[ ],"b":12345678901234567890,"s":"\u00e9\"{{,:",{n},"l":"{l}"}}"#,
            n = r#""n":[null,{"x":{}}]"#,
            l = "x".repeat(80)
        );
        let expected = format!(
            r#"{{
  "b": 1.10e5,
  "a": [],
  "b": 12345678901234567890,
  "s": "\u00e9\"{{,:",
  "n": [
    null,
    {{
      "x": {{}}
    }}
  ],
  "l": "{}"
}}"#,
            "x".repeat(80)
        );
        assert_eq!(lay_out(&text, Colours::Off), Some(expected));
    }

    #[test]
    fn short_objects_stay_as_they_are() {
        let text = r#"{"a": [1,  2], "b":{}}"#;
        assert_eq!(lay_out(text, Colours::Off).as_deref(), Some(text));
        let coloured = lay_out(text, Colours::On).unwrap();
        assert!(coloured.contains("\u{1b}[36m\"a\"\u{1b}[0m"), "{coloured:?}");
    }

    #[test]
    fn other_texts_are_left_alone() {
        for text in ["", "hello", "1", "\"a\"", "{", "{a:1}", "[1] x"] {
            assert_eq!(lay_out(text, Colours::Off), None, "{text}");
        }
        // Deeper than serde_json reads.
        assert_eq!(lay_out(&("[".repeat(1000) + &"]".repeat(1000)), Colours::Off), None);
    }

    #[test]
    fn control_characters_are_escaped_inside_strings() {
        let text = "{\"a\":\"\u{9b}\u{202e}\"}";
        assert_eq!(lay_out(text, Colours::Off).unwrap(), r#"{"a":"\u009b\u202e"}"#);
    }
}
