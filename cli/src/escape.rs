//! A server's text on terminals: it can neither control the terminal nor forge what this program prints.

use std::fmt::Write as _;

/// Escapes control characters, and characters that change the direction of text, for one line of a terminal.
pub(crate) fn line(text: &str) -> String {
    escape(text, &[])
}

/// Escapes as [`line`] does, except for newlines and tabs.
pub(crate) fn text(text: &str) -> String {
    escape(text, &['\n', '\t'])
}

/// Escapes as [`line`] does, inside strings of JSON, which remain the same strings.
pub(crate) fn json(line: &str) -> String {
    let mut escaped = String::with_capacity(line.len());
    for character in line.chars() {
        if is_dangerous(character) {
            let _ = write!(escaped, "\\u{:04x}", u32::from(character));
        } else {
            escaped.push(character);
        }
    }
    escaped
}

fn escape(text: &str, kept: &[char]) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if is_dangerous(character) && !kept.contains(&character) {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// Returns whether a character controls the terminal or the direction of text: C0, DEL, C1, separators of
/// lines, and the controls of Unicode's bidirectional algorithm.
fn is_dangerous(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    #[test]
    fn controls_of_terminals_and_of_direction_are_escaped() {
        let hostile = "a\u{1b}[2J\u{7}\u{7f}\u{9b}31m\r\u{202e}b\u{2066}\u{2028}\u{61c}";
        let escaped = r"a\u{1b}[2J\u{7}\u{7f}\u{9b}31m\r\u{202e}b\u{2066}\u{2028}\u{61c}";
        assert_eq!(super::line(hostile), escaped);
        assert_eq!(super::text(hostile), escaped);
    }

    #[test]
    fn json_stays_json() {
        let line = "\"a\u{7f}\u{9b}\u{202e}b\"";
        let escaped = super::json(line);
        assert_eq!(escaped, r#""a\u007f\u009b\u202eb""#);
        let value = |text: &str| serde_json::from_str::<String>(text).unwrap();
        assert_eq!(value(&escaped), value(line));
    }

    #[test]
    fn newlines_and_tabs_stay_in_messages_but_not_in_lines() {
        assert_eq!(super::text("a\n\tb é 日本"), "a\n\tb é 日本");
        assert_eq!(super::line("a\n\tb é 日本"), "a\\n\\tb é 日本");
    }
}
