//! The grammar of the handshake's headers: tokens, lists of tokens, and extensions (RFC 6455 4.3, 9.1).

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// Returns `true` if `text` is a token (RFC 9110 5.6.2).
///
/// The name of every subprotocol and extension is a token.
///
/// ```
/// use bowline_proto::header::is_token;
///
/// assert!(is_token("graphql-transport-ws"));
/// assert!(!is_token("two words"));
/// assert!(!is_token(""));
/// ```
pub fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_byte)
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Parses a list of tokens, as in `Sec-WebSocket-Protocol` and `Connection`.
///
/// Returns `None` if an element is not a token. Empty elements are skipped (RFC 9110 5.6.1).
///
/// ```
/// use bowline_proto::header::parse_tokens;
///
/// assert_eq!(parse_tokens("chat, , superchat"), Some(vec!["chat", "superchat"]));
/// assert_eq!(parse_tokens("chat superchat"), None);
/// ```
pub fn parse_tokens(value: &str) -> Option<Vec<&str>> {
    let elements = value.split(',').map(trim).filter(|element| !element.is_empty());
    elements.map(|element| is_token(element).then_some(element)).collect()
}

/// An extension with its parameters, as offered or accepted in `Sec-WebSocket-Extensions` (RFC 6455 9.1).
///
/// [`Display`](fmt::Display) writes the extension in the form of the header. All names and values must be
/// tokens.
///
/// ```
/// use bowline_proto::header::Extension;
///
/// let value = "permessage-deflate; server_max_window_bits=\"10\"; client_max_window_bits";
/// let extensions = Extension::parse_list(value).expect("it follows the grammar");
/// assert_eq!(extensions[0].name, "permessage-deflate");
/// assert_eq!(extensions[0].parameters[1], ("client_max_window_bits".into(), None));
/// assert_eq!(
///     extensions[0].to_string(),
///     "permessage-deflate; server_max_window_bits=10; client_max_window_bits"
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension<'a> {
    /// The registered name.
    pub name: Cow<'a, str>,
    /// The names and values of the parameters, in order and with repetitions. Values are optional.
    pub parameters: Vec<(Cow<'a, str>, Option<Cow<'a, str>>)>,
}

impl<'a> Extension<'a> {
    /// Parses the value of a header, which is a list of extensions.
    ///
    /// Returns `None` if the value does not follow the grammar.
    pub fn parse_list(value: &'a str) -> Option<Vec<Self>> {
        let mut rest = value;
        let mut extensions = Vec::new();
        loop {
            rest = trim(rest);
            if let Some(after) = rest.strip_prefix(',') {
                rest = after;
            } else if rest.is_empty() {
                return Some(extensions);
            } else {
                let extension;
                (extension, rest) = Self::parse(rest)?;
                extensions.push(extension);
                if !rest.is_empty() && !rest.starts_with(',') {
                    return None;
                }
            }
        }
    }

    /// Parses one extension, up to the comma after it.
    fn parse(value: &'a str) -> Option<(Self, &'a str)> {
        let (name, mut rest) = take_token(value)?;
        let mut parameters = Vec::new();
        while let Some(after) = trim(rest).strip_prefix(';') {
            let (name, after) = take_token(trim(after))?;
            let after = trim(after);
            let (value, after) = match after.strip_prefix('=').map(trim) {
                None => (None, after),
                Some(after) if after.starts_with('"') => {
                    let (value, after) = take_quoted(after)?;
                    (Some(value), after)
                }
                Some(after) => {
                    let (value, after) = take_token(after)?;
                    (Some(value.into()), after)
                }
            };
            parameters.push((name.into(), value));
            rest = after;
        }
        Some((Self { name: name.into(), parameters }, trim(rest)))
    }
}

impl fmt::Display for Extension<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        for (name, value) in &self.parameters {
            write!(f, "; {name}")?;
            if let Some(value) = value {
                write!(f, "={value}")?;
            }
        }
        Ok(())
    }
}

/// Removes optional whitespace, which is spaces and tabs (RFC 9110 5.6.3), from both ends.
fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

fn take_token(text: &str) -> Option<(&str, &str)> {
    let end = text.bytes().position(|byte| !is_token_byte(byte)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// Parses a quoted string (RFC 9110 5.6.4), whose unescaped value must be a token (RFC 6455 9.1).
fn take_quoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices().skip(1);
    while let Some((position, character)) = characters.next() {
        match character {
            '"' => return is_token(&value).then(|| (value.into(), &text[position + 1..])),
            '\\' => value.push(characters.next()?.1),
            _ => value.push(character),
        }
    }
    None
}
