//! The negotiation of permessage-deflate (RFC 7692 5 and 7.1).

use alloc::borrow::Cow;
use alloc::string::ToString;
use core::fmt;

use crate::header::Extension;

const NAME: &str = "permessage-deflate";
const SERVER_NO_CONTEXT_TAKEOVER: &str = "server_no_context_takeover";
const CLIENT_NO_CONTEXT_TAKEOVER: &str = "client_no_context_takeover";
const SERVER_MAX_WINDOW_BITS: &str = "server_max_window_bits";
const CLIENT_MAX_WINDOW_BITS: &str = "client_max_window_bits";

/// The parameters of permessage-deflate: the wishes of one side, or the outcome of the negotiation.
///
/// - negotiation by a server: [`accept`](Self::accept)
/// - negotiation by a client: [`offer`](Self::offer), [`verify`](Self::verify)
///
/// ```
/// use bowline_proto::DeflateParameters;
/// use bowline_proto::header::Extension;
///
/// let client = DeflateParameters { server_max_window_bits: 10, ..Default::default() };
/// let offer = client.offer().to_string();
/// assert_eq!(offer, "permessage-deflate; server_max_window_bits=10; client_max_window_bits");
///
/// let server = DeflateParameters::default();
/// let offers = Extension::parse_list(&offer).expect("the offer follows the grammar");
/// let (agreed, answer) = server.accept(&offers).expect("the offer is valid");
/// assert_eq!(agreed.server_max_window_bits, 10);
/// assert_eq!(answer.to_string(), "permessage-deflate; server_max_window_bits=10");
///
/// assert_eq!(client.verify(&[answer]), Ok(Some(agreed)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeflateParameters {
    /// Set if the server compresses each message without reference to earlier messages.
    pub server_no_context_takeover: bool,
    /// Set if the client compresses each message without reference to earlier messages.
    pub client_no_context_takeover: bool,
    /// The base-2 logarithm of the size of the server's window in bytes, from 8 to 15.
    ///
    /// A window is the distance over which compressed data may refer back.
    pub server_max_window_bits: u8,
    /// The base-2 logarithm of the size of the client's window in bytes, from 8 to 15.
    pub client_max_window_bits: u8,
}

impl Default for DeflateParameters {
    /// Returns parameters without restrictions: both sides take their context over, in windows of 15 bits.
    fn default() -> Self {
        Self {
            server_no_context_takeover: false,
            client_no_context_takeover: false,
            server_max_window_bits: 15,
            client_max_window_bits: 15,
        }
    }
}

/// The reason why the answer of a server does not fit the offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidAnswer {
    /// RFC 6455 4.1: the server chose an extension that was not offered.
    NotOffered,
    /// RFC 7692 7.1: a parameter is unknown, repeated, or has an invalid value.
    Parameter,
    /// RFC 7692 7.1.1.1: `server_no_context_takeover` was offered but is missing.
    ContextTakeover,
    /// RFC 7692 7.1.2: the server's window is larger than requested, or the client's than announced.
    WindowBits,
}

impl fmt::Display for InvalidAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotOffered => "the server chose an extension that was not offered",
            Self::Parameter => {
                "the server chose permessage-deflate with an unknown, repeated or invalid parameter"
            }
            Self::ContextTakeover => {
                "the server chose permessage-deflate without server_no_context_takeover, which was asked for"
            }
            Self::WindowBits => "the server chose permessage-deflate with a larger window than was offered",
        })
    }
}

impl core::error::Error for InvalidAnswer {}

impl DeflateParameters {
    /// The smallest window, in bits, with which this crate compresses. Windows of 8 bits are only supported
    /// for decompression.
    pub const MIN_WINDOW_BITS: u8 = 9;

    /// Chooses one of a client's offers on behalf of a server, whose wishes are `self`.
    ///
    /// Returns the negotiated parameters and the answer, or `None` if all offers are declined. A server can't
    /// limit the window of a client that does not offer `client_max_window_bits`.
    pub fn accept(self, offers: &[Extension<'_>]) -> Option<(Self, Extension<'static>)> {
        // RFC 7692 5.1, 7.1: the offers are in the client's order of preference. The server takes the first
        // well-formed offer that it can meet.
        offers.iter().filter(|offer| offer.name == NAME).find_map(|offer| self.accept_one(offer))
    }

    fn accept_one(self, offer: &Extension<'_>) -> Option<(Self, Extension<'static>)> {
        let offered = Given::parse(offer)?;
        let server_max_window_bits = match offered.server_window {
            // RFC 7692 7.1.2.1: in an offer, the parameter has a value.
            Window::Any => return None,
            Window::Of(bits) => bits.min(self.server_max_window_bits),
            Window::NotGiven => self.server_max_window_bits,
        };
        if server_max_window_bits < Self::MIN_WINDOW_BITS {
            return None;
        }
        let client_max_window_bits = match offered.client_window {
            Window::Any => self.client_max_window_bits,
            Window::Of(bits) => bits.min(self.client_max_window_bits),
            // RFC 7692 7.1.2.2: without the parameter in the offer, the answer may not have it.
            Window::NotGiven => 15,
        };
        let agreed = Self {
            // RFC 7692 7.1.1.1: a side that is asked not to take its context over has to comply.
            server_no_context_takeover: offered.server_no_context_takeover || self.server_no_context_takeover,
            client_no_context_takeover: offered.client_no_context_takeover || self.client_no_context_takeover,
            server_max_window_bits,
            client_max_window_bits,
        };
        let was_asked = !matches!(offered.server_window, Window::NotGiven);
        let server_window = Window::of(server_max_window_bits, was_asked);
        let answer = agreed.extension(server_window, Window::of(client_max_window_bits, false));
        Some((agreed, answer))
    }

    /// Returns the offer of a client whose wishes are `self`.
    pub fn offer(self) -> Extension<'static> {
        let client_window = match self.client_max_window_bits {
            // RFC 7692 7.1.2.2: without a value, the parameter lets the server choose.
            15.. => Window::Any,
            bits => Window::Of(bits),
        };
        self.extension(Window::of(self.server_max_window_bits, false), client_window)
    }

    /// Checks the server's answer to an [`offer`](Self::offer) on behalf of a client.
    ///
    /// Returns the negotiated parameters, or `None` if the server declined the offer.
    ///
    /// # Errors
    ///
    /// Returns an [`InvalidAnswer`] if the answer does not fit the offer. The client must then fail the
    /// connection (RFC 7692 7.1).
    pub fn verify(self, answer: &[Extension<'_>]) -> Result<Option<Self>, InvalidAnswer> {
        let answer = match answer {
            [] => return Ok(None),
            [answer] if answer.name == NAME => answer,
            _ => return Err(InvalidAnswer::NotOffered),
        };
        let given = Given::parse(answer).ok_or(InvalidAnswer::Parameter)?;
        if self.server_no_context_takeover && !given.server_no_context_takeover {
            return Err(InvalidAnswer::ContextTakeover);
        }
        let (server_bits, client_bits) = match (given.server_window, given.client_window) {
            // RFC 7692 7.1.2: in an answer, both parameters have values.
            (Window::Any, _) | (_, Window::Any) => return Err(InvalidAnswer::Parameter),
            (server, client) => (server.bits(15), client.bits(self.client_max_window_bits)),
        };
        if server_bits > self.server_max_window_bits || client_bits > self.client_max_window_bits {
            return Err(InvalidAnswer::WindowBits);
        }
        Ok(Some(Self {
            server_no_context_takeover: given.server_no_context_takeover,
            client_no_context_takeover: given.client_no_context_takeover || self.client_no_context_takeover,
            server_max_window_bits: server_bits,
            client_max_window_bits: client_bits,
        }))
    }

    fn extension(self, server_window: Window, client_window: Window) -> Extension<'static> {
        let flag = |set: bool, name| set.then_some((Cow::Borrowed(name), None));
        let window = |window, name| match window {
            Window::NotGiven => None,
            Window::Any => Some((Cow::Borrowed(name), None)),
            Window::Of(bits) => Some((Cow::Borrowed(name), Some(Cow::Owned(bits.to_string())))),
        };
        let parameters = [
            flag(self.server_no_context_takeover, SERVER_NO_CONTEXT_TAKEOVER),
            flag(self.client_no_context_takeover, CLIENT_NO_CONTEXT_TAKEOVER),
            window(server_window, SERVER_MAX_WINDOW_BITS),
            window(client_window, CLIENT_MAX_WINDOW_BITS),
        ];
        Extension { name: Cow::Borrowed(NAME), parameters: parameters.into_iter().flatten().collect() }
    }
}

/// A parameter that limits the size of a window.
#[derive(Clone, Copy, Default)]
enum Window {
    #[default]
    NotGiven,
    /// The parameter is given without a value.
    Any,
    Of(u8),
}

impl Window {
    /// Returns the parameter for a window of `bits`. The largest window is only given if `always` is set.
    fn of(bits: u8, always: bool) -> Self {
        if bits < 15 || always { Self::Of(bits) } else { Self::NotGiven }
    }

    fn bits(self, default: u8) -> u8 {
        match self {
            Self::Of(bits) => bits,
            Self::NotGiven | Self::Any => default,
        }
    }

    /// Parses a decimal number from 8 to 15 without leading zeros (RFC 7692 7.1.2), or a missing value.
    fn parse(value: Option<&str>) -> Option<Self> {
        let Some(value) = value else { return Some(Self::Any) };
        let bits = value.parse().ok().filter(|bits| (8..=15).contains(bits))?;
        (value.len() == if bits < 10 { 1 } else { 2 }).then_some(Self::Of(bits))
    }

    /// Sets the parameter. Returns `true` if the parameter was not given before and `value` is valid.
    fn set(&mut self, value: Option<&str>) -> bool {
        let is_new = matches!(self, Self::NotGiven);
        *self = Self::parse(value).unwrap_or_default();
        is_new && !matches!(self, Self::NotGiven)
    }
}

/// The parameters of one offer or answer.
#[derive(Default)]
struct Given {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_window: Window,
    client_window: Window,
}

impl Given {
    /// Parses the parameters of an extension (RFC 7692 7.1).
    ///
    /// Returns `None` if a parameter is unknown, repeated, or has an invalid value.
    fn parse(extension: &Extension<'_>) -> Option<Self> {
        let mut given = Self::default();
        for (name, value) in &extension.parameters {
            let value = value.as_deref();
            let is_new = match &**name {
                SERVER_NO_CONTEXT_TAKEOVER => set_flag(&mut given.server_no_context_takeover, value),
                CLIENT_NO_CONTEXT_TAKEOVER => set_flag(&mut given.client_no_context_takeover, value),
                SERVER_MAX_WINDOW_BITS => given.server_window.set(value),
                CLIENT_MAX_WINDOW_BITS => given.client_window.set(value),
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
