//! The addresses of servers.

use bowline_hub::EngineError;
use serde_json::{Map, Value};

/// The port of a server without one in its address.
const PORT: u16 = 4222;

/// The error of those who have a key, and no password.
pub(crate) const NO_KEYS: &str =
    "users with keys (NKEYS, JWT, .creds files) are not supported, so use a user with a password, or a token";

/// The size of a seed of NKEYS, and of a public key.
const KEY_SIZES: [usize; 2] = [58, 56];

/// The servers of a cluster, with what they are to be told about the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// Host and port, as `TcpStream::connect` accepts them.
    pub(crate) servers: Vec<String>,
    pub(crate) credentials: Credentials,
    pub(crate) security: Security,
}

/// The wish for TLS. A server that requires TLS gets it in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Security {
    Optional,
    Required,
}

/// The proof of who the client is.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    Nobody,
    User { name: String, password: String },
    Token(String),
}

impl std::fmt::Debug for Credentials {
    /// Keeps secrets out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nobody => "Nobody",
            Self::User { .. } => "User",
            Self::Token(_) => "Token",
        })
    }
}

impl Credentials {
    /// Adds the fields of the operation `CONNECT`.
    pub(crate) fn add_to(&self, fields: &mut Map<String, Value>) {
        match self {
            Self::Nobody => {}
            Self::User { name, password } => {
                fields.insert("user".to_owned(), name.as_str().into());
                fields.insert("pass".to_owned(), password.as_str().into());
            }
            Self::Token(token) => {
                fields.insert("auth_token".to_owned(), token.as_str().into());
            }
        }
    }
}

impl Addresses {
    /// Parses addresses that are separated by commas. Only the first one needs a scheme: `nats`, or `tls`.
    ///
    /// # Errors
    ///
    /// Returns an error that names the part that is invalid, without the credentials.
    pub(crate) fn parse(url: &str) -> Result<Self, EngineError> {
        let mut servers = Vec::new();
        let (mut credentials, mut security) = (Credentials::Nobody, Security::Optional);
        for part in url.split(',').map(str::trim) {
            let (scheme, rest) = part.split_once("://").unwrap_or(("nats", part));
            match scheme.to_ascii_lowercase().as_str() {
                "nats" => {}
                "tls" => security = Security::Required,
                _ => {
                    let text = format!("the scheme of NATS is nats or tls, and not {scheme}");
                    return Err(EngineError::new(text));
                }
            }
            let rest = rest.strip_suffix('/').unwrap_or(rest);
            let (user, host) = rest.rsplit_once('@').map_or((None, rest), |(user, host)| (Some(user), host));
            servers.push(server(host)?);
            if let Some(user) = user {
                let found = parse_credentials(user)?;
                if credentials != Credentials::Nobody && credentials != found {
                    return Err(EngineError::new("the servers of a cluster accept the same credentials"));
                }
                credentials = found;
            }
        }
        Ok(Self { servers, credentials, security })
    }

    /// Begins with a random server, so that the nodes with the same URL divide themselves among all.
    pub(crate) fn shuffle(&mut self) -> Result<(), EngineError> {
        let random = getrandom::u32().map_err(EngineError::new)?;
        // There are few servers.
        let first = usize::try_from(random).unwrap_or_default() % self.servers.len();
        self.servers.rotate_left(first);
        Ok(())
    }
}

/// Returns host and port.
fn server(host: &str) -> Result<String, EngineError> {
    let invalid = || EngineError::new(format!("{host:?} is no address of a server, such as host:4222"));
    if host.contains(".creds") || host.contains("creds=") {
        return Err(EngineError::new(NO_KEYS));
    }
    if host.is_empty() || host.contains(['/', '?', '#', ' ', '@']) {
        return Err(invalid());
    }
    let has_port = if host.starts_with('[') { host.contains("]:") } else { host.contains(':') };
    if !has_port {
        return Ok(format!("{host}:{PORT}"));
    }
    let (name, port) = host.rsplit_once(':').ok_or_else(invalid)?;
    let is_valid = port.parse::<u16>().is_ok_and(|port| port > 0);
    // An address of IPv6 is in brackets.
    let is_valid = is_valid && !name.is_empty() && (name.starts_with('[') || !name.contains(':'));
    if is_valid { Ok(host.to_owned()) } else { Err(invalid()) }
}

fn parse_credentials(user: &str) -> Result<Credentials, EngineError> {
    let decode = |part| {
        decode(part).ok_or_else(|| EngineError::new("a percent sign in the credentials is escaped as %25"))
    };
    if user.split(':').any(is_key) {
        return Err(EngineError::new(NO_KEYS));
    }
    Ok(match user.split_once(':') {
        Some((name, password)) => Credentials::User { name: decode(name)?, password: decode(password)? },
        None => Credentials::Token(decode(user)?),
    })
}

/// Returns `true` for a seed or a public key of NKEYS. A JWT may be a token, for an auth callout.
fn is_key(text: &str) -> bool {
    let is_base32 = text.bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'2'..=b'7'));
    is_base32 && KEY_SIZES.contains(&text.len()) && text.starts_with(['S', 'U'])
}

/// Decodes the escapes of a URL (RFC 3986 2.1).
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> (Vec<String>, Credentials) {
        let addresses = Addresses::parse(url).unwrap();
        (addresses.servers, addresses.credentials)
    }

    #[test]
    fn servers_are_separated_by_commas() {
        let servers = ["a:4222", "b:1", "[::1]:4222"].map(str::to_owned).to_vec();
        assert_eq!(parse("nats://a,b:1, [::1]"), (servers.clone(), Credentials::Nobody));
        assert_eq!(parse("nats://a/,nats://b:1,nats://[::1]:4222").0, servers);
        assert_eq!(parse("127.0.0.1").0, ["127.0.0.1:4222"]);
        assert_eq!(Addresses::parse("nats://a").unwrap().security, Security::Optional);
        assert_eq!(Addresses::parse("tls://a,b").unwrap().security, Security::Required);
    }

    #[test]
    fn credentials_are_decoded_and_not_shown() {
        let user = Credentials::User { name: "me".to_owned(), password: "s%@".to_owned() };
        assert_eq!(parse("nats://me:s%25%40@a,b").1, user);
        assert_eq!(parse("nats://secret@a").1, Credentials::Token("secret".to_owned()));
        assert_eq!(format!("{user:?}"), "User");
    }

    #[test]
    fn keys_are_refused_and_not_shown() {
        let key = "UAAACAQDAQCQMBYIBEFAWDANBYHRAEISCMKBKFQXDAMRUGY4DUPB63NN";
        for url in [
            format!("nats://{key}@a"),
            format!("nats://SU{key}@a"),
            "nats://a?creds=/home/me/nats.creds".to_owned(),
            "/home/me/nats.creds".to_owned(),
        ] {
            assert_eq!(Addresses::parse(&url).unwrap_err().to_string(), NO_KEYS, "{url}");
        }
        // Other long tokens are no keys.
        assert!(Addresses::parse(&format!("nats://{}@a", key.to_lowercase())).is_ok());
    }

    #[test]
    fn what_is_no_address_is_an_error() {
        for url in [
            "",
            "nats://",
            "redis://a",
            "nats://a:b",
            "nats://a:0",
            "nats://a?b",
            "nats://a,,b",
            "nats://::1:4222",
            "nats://a%2@b",
            "nats://me:1@a,you:2@b",
        ] {
            assert!(Addresses::parse(url).is_err(), "{url}");
        }
    }
}
