//! Agreeing on permessage-deflate (RFC 7692 5 and 7.1).

use alloc::borrow::Cow;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::fmt;

use crate::header::Extension;

const NAME: &str = "permessage-deflate";
const SERVER_NO_CONTEXT_TAKEOVER: &str = "server_no_context_takeover";
const CLIENT_NO_CONTEXT_TAKEOVER: &str = "client_no_context_takeover";
const SERVER_MAX_WINDOW_BITS: &str = "server_max_window_bits";
const CLIENT_MAX_WINDOW_BITS: &str = "client_max_window_bits";

/// How messages are compressed: what one side wishes, or what both have agreed on.
///
/// - negotiation of a server: [`accept`](Self::accept)
/// - negotiation of a client: [`offer`](Self::offer), [`verify`](Self::verify)
///
/// ```
/// use bowline_proto::DeflateParameters;
/// use bowline_proto::header::Extension;
///
/// let offers = Extension::parse_list("permessage-deflate; server_max_window_bits=10").expect("it follows the grammar");
/// let (agreed, answer) = DeflateParameters::default().accept(&offers).expect("there is nothing wrong with it");
/// assert_eq!(agreed.server_max_window_bits, 10);
/// assert_eq!(answer.to_string(), "permessage-deflate; server_max_window_bits=10");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeflateParameters {
    /// The server compresses each message without reference to earlier ones.
    pub server_no_context_takeover: bool,
    /// The client compresses each message without reference to earlier ones.
    pub client_no_context_takeover: bool,
    /// The base-2 logarithm of the size of the server's window, 8 to 15: how far back it refers.
    pub server_max_window_bits: u8,
    /// The same for the client.
    pub client_max_window_bits: u8,
}

impl Default for DeflateParameters {
    /// Everything that is possible: both take their context over, in windows of 15 bits.
    fn default() -> Self {
        Self {
            server_no_context_takeover: false,
            client_no_context_takeover: false,
            server_max_window_bits: 15,
            client_max_window_bits: 15,
        }
    }
}

/// Why the answer of a server does not fit what was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidAnswer {
    /// RFC 6455 4.1: an extension that was not offered.
    NotOffered,
    /// RFC 7692 7.1: a parameter that is unknown, repeated, or has a value that it can't have.
    Parameter,
    /// RFC 7692 7.1.1.1: `server_no_context_takeover` was asked for, and is missing.
    ContextTakeover,
    /// RFC 7692 7.1.2: a window is larger than was asked for, or than was said to be used.
    WindowBits,
}

impl fmt::Display for InvalidAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotOffered => "the server chose an extension that was not offered",
            Self::Parameter => "the server chose permessage-deflate with a parameter that makes no sense",
            Self::ContextTakeover => {
                "the server chose permessage-deflate without server_no_context_takeover, which was asked for"
            }
            Self::WindowBits => "the server chose permessage-deflate with a larger window than was offered",
        })
    }
}

impl core::error::Error for InvalidAnswer {}

impl DeflateParameters {
    /// The smallest window, in bits, that messages are compressed with here. (Windows of 8 bits are only read.)
    pub const MIN_WINDOW_BITS: u8 = 9;

    /// A server's choice among the offers of a client: what holds then, and the answer. `None` declines all.
    ///
    /// `self` is what the server wishes. A client that does not offer `client_max_window_bits` can't be held to it.
    pub fn accept(&self, offers: &[Extension<'_>]) -> Option<(Self, Extension<'static>)> {
        // RFC 7692 5.1, 7.1: the first offer in the client's order of preference that is well-formed and can be met.
        offers.iter().filter(|offer| offer.name == NAME).find_map(|offer| self.accept_one(offer))
    }

    fn accept_one(&self, offer: &Extension<'_>) -> Option<(Self, Extension<'static>)> {
        let offered = Given::parse(offer)?;
        let server_max_window_bits = match offered.server_max_window_bits {
            // RFC 7692 7.1.2.1: in an offer it has a value.
            Some(None) => return None,
            Some(Some(bits)) => bits.min(self.server_max_window_bits),
            None => self.server_max_window_bits,
        };
        if server_max_window_bits < Self::MIN_WINDOW_BITS {
            return None;
        }
        let client_max_window_bits = match offered.client_max_window_bits {
            Some(bits) => bits.unwrap_or(15).min(self.client_max_window_bits),
            // RFC 7692 7.1.2.2: it may not be in the answer if it was not in the offer.
            None => 15,
        };
        let agreed = Self {
            // RFC 7692 7.1.1.1: who is asked for it has to comply.
            server_no_context_takeover: offered.server_no_context_takeover || self.server_no_context_takeover,
            client_no_context_takeover: offered.client_no_context_takeover || self.client_no_context_takeover,
            server_max_window_bits,
            client_max_window_bits,
        };
        let server_bits = offered.server_max_window_bits.is_some() || server_max_window_bits < 15;
        let answer = agreed.extension(
            server_bits.then_some(server_max_window_bits),
            (client_max_window_bits < 15).then_some(Some(client_max_window_bits)),
        );
        Some((agreed, answer))
    }

    /// The offer of a client that wishes `self`.
    pub fn offer(&self) -> Extension<'static> {
        let server_bits = (self.server_max_window_bits < 15).then_some(self.server_max_window_bits);
        let client_bits = (self.client_max_window_bits < 15).then_some(self.client_max_window_bits);
        // RFC 7692 7.1.2.2: without a value it says that the server may choose one.
        self.extension(server_bits, Some(client_bits))
    }

    /// A client's check of the answer to [`offer`](Self::offer): what holds then, or `None` if it was declined.
    ///
    /// # Errors
    ///
    /// What is wrong with the answer. The connection is to be failed (RFC 7692 7.1).
    pub fn verify(&self, answer: &[Extension<'_>]) -> Result<Option<Self>, InvalidAnswer> {
        let answer = match answer {
            [] => return Ok(None),
            [answer] if answer.name == NAME => answer,
            _ => return Err(InvalidAnswer::NotOffered),
        };
        let given = Given::parse(answer).ok_or(InvalidAnswer::Parameter)?;
        if self.server_no_context_takeover && !given.server_no_context_takeover {
            return Err(InvalidAnswer::ContextTakeover);
        }
        // RFC 7692 7.1.2: in an answer, both have values.
        let (Some(server_bits), Some(client_bits)) = (
            given.server_max_window_bits.unwrap_or(Some(15)),
            given.client_max_window_bits.unwrap_or(Some(15)),
        ) else {
            return Err(InvalidAnswer::Parameter);
        };
        let too_large = given.client_max_window_bits.is_some() && client_bits > self.client_max_window_bits;
        if server_bits > self.server_max_window_bits || too_large {
            return Err(InvalidAnswer::WindowBits);
        }
        Ok(Some(Self {
            server_no_context_takeover: given.server_no_context_takeover,
            client_no_context_takeover: given.client_no_context_takeover || self.client_no_context_takeover,
            server_max_window_bits: server_bits,
            client_max_window_bits: client_bits.min(self.client_max_window_bits),
        }))
    }

    fn extension(&self, server_bits: Option<u8>, client_bits: Option<Option<u8>>) -> Extension<'static> {
        let flag = |set: bool, name| set.then_some((Cow::Borrowed(name), None));
        let value = |bits: u8| Cow::Owned(bits.to_string());
        let parameters = [
            flag(self.server_no_context_takeover, SERVER_NO_CONTEXT_TAKEOVER),
            flag(self.client_no_context_takeover, CLIENT_NO_CONTEXT_TAKEOVER),
            server_bits.map(|bits| (Cow::Borrowed(SERVER_MAX_WINDOW_BITS), Some(value(bits)))),
            client_bits.map(|bits| (Cow::Borrowed(CLIENT_MAX_WINDOW_BITS), bits.map(value))),
        ];
        let parameters: Vec<_> = parameters.into_iter().flatten().collect();
        Extension { name: Cow::Borrowed(NAME), parameters }
    }
}

/// The parameters of one offer or answer. A window may come without its value.
#[derive(Default)]
struct Given {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: Option<Option<u8>>,
    client_max_window_bits: Option<Option<u8>>,
}

impl Given {
    /// RFC 7692 7.1: `None` if a parameter is unknown, repeated, or has a value that it can't have.
    fn parse(extension: &Extension<'_>) -> Option<Self> {
        let mut given = Self::default();
        for (name, value) in &extension.parameters {
            let value = value.as_deref();
            let is_new = match &**name {
                SERVER_NO_CONTEXT_TAKEOVER => set_flag(&mut given.server_no_context_takeover, value),
                CLIENT_NO_CONTEXT_TAKEOVER => set_flag(&mut given.client_no_context_takeover, value),
                SERVER_MAX_WINDOW_BITS => set_bits(&mut given.server_max_window_bits, value),
                CLIENT_MAX_WINDOW_BITS => set_bits(&mut given.client_max_window_bits, value),
                _ => false,
            };
            if !is_new {
                return None;
            }
        }
        Some(given)
    }
}

fn set_flag(flag: &mut bool, value: Option<&str>) -> bool {
    value.is_none() && !core::mem::replace(flag, true)
}

/// RFC 7692 7.1.2: a decimal number from 8 to 15 without leading zeros.
fn set_bits(bits: &mut Option<Option<u8>>, value: Option<&str>) -> bool {
    let parsed = match value {
        None => None,
        Some("8") => Some(8),
        Some("9") => Some(9),
        Some(value) => match value.parse() {
            Ok(bits @ 10..=15) if value.len() == 2 => Some(bits),
            _ => return false,
        },
    };
    bits.replace(parsed).is_none()
}
