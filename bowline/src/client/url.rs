//! The URL of a WebSocket (RFC 6455 3).

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::HeaderValue;
use http::uri::{PathAndQuery, Uri};
use percent_encoding::percent_decode_str;

use crate::error::{Error, ErrorKind};
use crate::handshake::authority::split_authority;

/// The largest size of a host and a port: a name (RFC 1035 2.3.4, as it is written), a colon and five digits.
const MAX_ADDRESS: usize = 253 + 6;

/// The largest size of a path and a query that [`PathAndQuery`] can hold.
const MAX_TARGET: usize = u16::MAX as usize - 1;

/// The URL of a server, checked.
#[derive(Clone)]
pub(crate) struct Url {
    scheme: Scheme,
    /// An IPv6 address has its brackets.
    host: String,
    /// `None` for the default of the scheme.
    port: Option<u16>,
    path_and_query: PathAndQuery,
    authorization: Option<HeaderValue>,
}

/// The scheme of a URL, which decides on TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Ws,
    Wss,
}

impl Scheme {
    fn default_port(self) -> u16 {
        match self {
            Self::Ws => 80,
            Self::Wss => 443,
        }
    }

    /// Returns the scheme for clients and proxies that know only those of HTTP.
    fn http_name(self) -> &'static str {
        match self {
            Self::Ws => "http",
            Self::Wss => "https",
        }
    }
}

impl Url {
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let parts = UrlParts::split(text, &["ws", "wss", "http", "https"])
            .map_err(|text| invalid(format!("the URL {text}")))?;
        let UrlParts { scheme, userinfo, host, port, target } = parts;
        let is_secure = ["wss", "https"].iter().any(|secure| secure.eq_ignore_ascii_case(scheme));
        let scheme = if is_secure { Scheme::Wss } else { Scheme::Ws };
        let server = Self {
            scheme,
            host: host.to_owned(),
            port: port.filter(|port| *port != scheme.default_port()),
            path_and_query: PathAndQuery::from_static("/"),
            authorization: None,
        };
        let url = server.with_target(target)?;
        Ok(Self { authorization: userinfo.map(basic_authorization).transpose()?, ..url })
    }

    pub(crate) fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Returns the host: a name, or an address without brackets.
    pub(crate) fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// Returns the value of a Host header, which omits the default port (RFC 6455 4.1).
    pub(crate) fn authority(&self) -> String {
        match self.port {
            Some(port) => format!("{}:{port}", self.host),
            None => self.host.clone(),
        }
    }

    /// Returns the host and the port, also the default port.
    pub(crate) fn address(&self) -> String {
        format!("{}:{}", self.host, self.port.unwrap_or(self.scheme.default_port()))
    }

    pub(crate) fn path_and_query(&self) -> PathAndQuery {
        self.path_and_query.clone()
    }

    /// Returns the credentials in the URL, as the value of an Authorization header.
    pub(crate) fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }

    /// Replaces the path and the query.
    pub(crate) fn with_target(self, target: &str) -> Result<Self, Error> {
        Ok(Self { path_and_query: parse_path_and_query(target)?, ..self })
    }

    /// Returns the URL that a redirect from this one leads to, if it may be followed.
    ///
    /// The host and the port stay the same, so credentials reach the same server, and TLS is never given up.
    /// A redirect from the default port of one scheme to that of the other is followed, too.
    pub(crate) fn redirected(&self, location: &str) -> Option<Self> {
        // RFC 9110 10.2.2: a fragment is for the user agent.
        let location = location.split('#').next()?;
        let (first_segment, _) = location.split_at(location.find(['/', '?']).unwrap_or(location.len()));
        // RFC 3986 4.2: a first segment with a colon begins with a scheme.
        let next = if first_segment.contains(':') {
            self.on_same_server(Self::parse(location).ok()?)?
        } else if location.starts_with("//") {
            let absolute = format!("{}:{location}", self.scheme.http_name());
            self.on_same_server(Self::parse(&absolute).ok()?)?
        } else {
            self.clone().with_target(&self.merged_with(location)).ok()?
        };
        let target = without_dot_segments(next.path_and_query.as_str());
        next.with_target(&target).ok()
    }

    /// Returns the target of another URL with the credentials of this one, if both are on the same server.
    fn on_same_server(&self, other: Self) -> Option<Self> {
        let is_same = other.host.eq_ignore_ascii_case(&self.host) && other.port == self.port;
        let gives_up_tls = self.scheme == Scheme::Wss && other.scheme == Scheme::Ws;
        (is_same && !gives_up_tls).then(|| Self { authorization: self.authorization.clone(), ..other })
    }

    /// Returns the path and the query that a reference without a host leads to (RFC 3986 5.2.2).
    fn merged_with(&self, reference: &str) -> String {
        let path = self.path_and_query.path();
        match reference.bytes().next() {
            None => self.path_and_query.as_str().to_owned(),
            Some(b'/') => reference.to_owned(),
            Some(b'?') => format!("{path}{reference}"),
            // RFC 3986 5.2.3: a relative path replaces everything after the last slash.
            Some(_) => format!("{}{reference}", path.trim_end_matches(|character| character != '/')),
        }
    }

    /// Returns the URL with the scheme `http` or `https`, for HTTP clients.
    pub(crate) fn http_uri(&self) -> Uri {
        self.uri(&self.authority(), self.path_and_query())
    }

    /// Returns the URL to dial, with a port and without a path.
    pub(crate) fn dial_uri(&self) -> Uri {
        self.uri(&self.address(), PathAndQuery::from_static("/"))
    }

    fn uri(&self, authority: &str, path_and_query: PathAndQuery) -> Uri {
        Uri::builder()
            .scheme(self.scheme.http_name())
            .authority(authority)
            .path_and_query(path_and_query)
            .build()
            .expect("every part was checked")
    }
}

/// The parts of a URL that has an authority (RFC 3986 3). All parts but the target are checked.
pub(crate) struct UrlParts<'a> {
    pub(crate) scheme: &'a str,
    userinfo: Option<&'a str>,
    host: &'a str,
    port: Option<u16>,
    /// The path, the query and the fragment.
    pub(crate) target: &'a str,
}

impl<'a> UrlParts<'a> {
    /// Splits a URL with one of these schemes.
    ///
    /// An error is a predicate whose subject is the URL. It contains neither the user name nor the password.
    pub(crate) fn split(text: &'a str, schemes: &[&str]) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once("://").filter(|(scheme, _)| may_be_scheme(scheme)) else {
            return Err(format!("has no scheme: it must begin with {}://", schemes.join(":// or ")));
        };
        if !schemes.iter().any(|known| known.eq_ignore_ascii_case(scheme)) {
            return Err(format!("has the scheme {scheme:?}, which is none of {}", schemes.join(", ")));
        }
        let (authority, target) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (userinfo, address) = match authority.rsplit_once('@') {
            Some((userinfo, address)) => (Some(userinfo), address),
            None => (None, authority),
        };
        if userinfo.is_some_and(|userinfo| disallowed(userinfo, ":").is_some()) {
            let text = "has a character in its user name or password that must be percent-encoded";
            return Err(text.to_owned());
        }
        // An `@` in a path is valid. After an invalid host, however, it may be the end of a password.
        let is_clear = !target.contains('@');
        match split_authority(address).filter(|_| address.len() <= MAX_ADDRESS) {
            Some((host, port)) if is_clear || !address.ends_with(':') => {
                Ok(Self { scheme, userinfo, host, port, target })
            }
            _ if is_clear => Err(describe_address(address)),
            _ => Err("has an `@` in its path: percent-encode `/`, `?` and `#` in a user name or password"
                .to_owned()),
        }
    }
}

/// Describes what is wrong with a host and a port.
fn describe_address(address: &str) -> String {
    if address.len() > MAX_ADDRESS {
        format!("has a host and a port of {} bytes, where a name can have at most 253", address.len())
    } else if !address.is_ascii() {
        format!("has the host of {address:?}, which is not ASCII: write it in punycode (xn--...)")
    } else if address.starts_with('[') && address.contains('%') {
        // RFC 6874: a zone has a meaning on this host only, and would have to be removed before the address
        // is sent.
        format!(
            "has an IPv6 address with a zone, {address:?}, which is not supported: connect yourself, and use \
             Connector::connect_over"
        )
    } else {
        format!("has {address:?} where its host is, which is not of the form `host` or `host:port`")
    }
}

/// Returns `true` if all characters may be in a scheme (RFC 3986 3.1). Other text may be anything, such as a
/// password.
fn may_be_scheme(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// Returns the first character that is neither unreserved, a sub-delim, percent-encoded nor in `also` (RFC
/// 3986 2).
fn disallowed(text: &str, also: &str) -> Option<char> {
    let is_hex = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_hexdigit);
    let is_allowed = |position: usize, character: char| match character {
        '%' => {
            let mut digits = text.as_bytes()[position + 1..].iter();
            is_hex(digits.next()) && is_hex(digits.next())
        }
        _ => {
            character.is_ascii_alphanumeric()
                || "-._~!$&'()*+,;=".contains(character)
                || also.contains(character)
        }
    };
    text.char_indices()
        .find(|(position, character)| !is_allowed(*position, *character))
        .map(|(_, found)| found)
}

fn parse_path_and_query(target: &str) -> Result<PathAndQuery, Error> {
    // RFC 6455 3: fragment identifiers must not be used.
    if target.contains('#') {
        return Err(invalid(
            "the URL has a fragment, which WebSocket URLs can't have: remove `#` and all that follows",
        ));
    }
    if !target.is_ascii() {
        return Err(invalid("the path or query of the URL is not ASCII: percent-encode it"));
    }
    if let Some(character) = disallowed(target, ":@/?") {
        return Err(invalid(format!(
            "the path or query of the URL has {character:?}, which must be percent-encoded"
        )));
    }
    // RFC 6455 3: an empty path is `/`.
    let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
    if target.len() > MAX_TARGET {
        return Err(invalid(format!(
            "the path and query of the URL have {} bytes, where at most {MAX_TARGET} can be sent",
            target.len()
        )));
    }
    PathAndQuery::try_from(target).map_err(|error| {
        let text = "the path or query of the URL has a character that must be percent-encoded";
        Error::with_source(ErrorKind::InvalidInput, text, error)
    })
}

/// Removes the segments `.` and `..` from the path of a target (RFC 3986 5.2.4).
fn without_dot_segments(target: &str) -> String {
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    let mut segments = Vec::new();
    for segment in path.split('/').skip(1) {
        match segment {
            "." => {}
            ".." => drop(segments.pop()),
            _ => segments.push(segment),
        }
    }
    if path.ends_with("/.") || path.ends_with("/..") {
        segments.push("");
    }
    format!("/{}{query}", segments.join("/"))
}

/// Returns the value of an Authorization header: the base64 of `user:password` (RFC 7617 2).
fn basic_authorization(userinfo: &str) -> Result<HeaderValue, Error> {
    let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
    let mut credentials: Vec<u8> = percent_decode_str(user).collect();
    if credentials.contains(&b':') {
        return Err(invalid("the user name in the URL has a colon, which basic authentication can't carry"));
    }
    credentials.push(b':');
    credentials.extend(percent_decode_str(password));
    let value = format!("Basic {}", BASE64_STANDARD.encode(credentials));
    let mut value = HeaderValue::try_from(value).expect("base64 is a header's value");
    value.set_sensitive(true);
    Ok(value)
}

fn invalid(text: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidInput, text)
}
