//! Values of options, as users of curl write them.

use std::net::IpAddr;
use std::str::FromStr;

use bowline::http::header::{HeaderName, HeaderValue};

/// A header as users of curl write it: `name: value`.
#[derive(Clone, Debug)]
pub(super) struct Header(pub(super) HeaderName, pub(super) HeaderValue);

impl FromStr for Header {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text.split_once(':').ok_or("a header is written as NAME: VALUE")?;
        let name = name.trim().parse().map_err(|error| format!("{name:?}: {error}"))?;
        let value = value.trim().parse().map_err(|error| format!("the value: {error}"))?;
        Ok(Self(name, value))
    }
}

/// An address that replaces name resolution, as curl's option of the same name.
#[derive(Clone, Debug)]
pub(super) struct Resolve {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) address: IpAddr,
}

impl FromStr for Resolve {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.splitn(3, ':');
        let (Some(host), Some(port), Some(address)) = (parts.next(), parts.next(), parts.next()) else {
            return Err("expected HOST:PORT:ADDRESS".into());
        };
        let port = port.parse().map_err(|error| format!("the port {port:?}: {error}"))?;
        let address = address
            .trim_matches(['[', ']'])
            .parse()
            .map_err(|error| format!("the address {address:?}: {error}"))?;
        Ok(Self { host: host.to_owned(), port, address })
    }
}

/// A number of bytes: `1000`, `64K`, `64M`, `1G`, in powers of 1024.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size(pub(crate) usize);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let trimmed = text.trim_end_matches(['B', 'b']).trim_end_matches('i');
        let (digits, shift) = match trimmed.chars().last() {
            Some('k' | 'K') => (&trimmed[..trimmed.len() - 1], 10),
            Some('m' | 'M') => (&trimmed[..trimmed.len() - 1], 20),
            Some('g' | 'G') => (&trimmed[..trimmed.len() - 1], 30),
            _ => (trimmed, 0),
        };
        let number: usize =
            digits.trim().parse().map_err(|_| "expected a number of bytes, such as 64K or 16M")?;
        number.checked_mul(1 << shift).map(Self).ok_or_else(|| "the size is too large".into())
    }
}
