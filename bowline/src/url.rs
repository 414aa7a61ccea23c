//! The URL of a WebSocket (RFC 6455 3).

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::HeaderValue;
use http::uri::{PathAndQuery, Uri};
use percent_encoding::percent_decode_str;

use crate::authority::split_authority;
use crate::error::{Error, ErrorKind};

/// Where to connect to.
#[derive(Clone, Debug)]
pub(crate) struct Url {
    scheme: Scheme,
    /// An IPv6 address has its brackets.
    host: String,
    /// `None` for the default of the scheme.
    port: Option<u16>,
    path_and_query: PathAndQuery,
    authorization: Option<HeaderValue>,
}

/// Whether there is TLS.
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

    /// The name for clients and proxies that know HTTP only.
    fn http_name(self) -> &'static str {
        match self {
            Self::Ws => "http",
            Self::Wss => "https",
        }
    }
}

impl Url {
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(invalid("the URL has no scheme: it has to begin with ws:// or wss://"));
        };
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "ws" | "http" => Scheme::Ws,
            "wss" | "https" => Scheme::Wss,
            _ => {
                let text = format!("the URL's scheme {scheme:?} is none of ws, wss, http and https");
                return Err(invalid(text));
            }
        };
        let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(authority_end);
        let (userinfo, authority) = match authority.rsplit_once('@') {
            Some((userinfo, authority)) => (Some(userinfo), authority),
            None => (None, authority),
        };
        if !authority.is_ascii() {
            return Err(invalid(format!(
                "the host of {authority:?} is not ASCII: write it in punycode (xn--...)"
            )));
        }
        let Some((host, port)) = split_authority(authority) else {
            return Err(invalid(format!(
                "{authority:?} in the URL is not of the form `host` or `host:port`"
            )));
        };
        Ok(Self {
            scheme,
            host: host.to_owned(),
            port: port.filter(|port| *port != scheme.default_port()),
            path_and_query: parse_path_and_query(target)?,
            authorization: userinfo.map(basic_authorization).transpose()?,
        })
    }

    pub(crate) fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host, an IPv6 address without its brackets.
    #[cfg(feature = "tls")]
    pub(crate) fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// The value of a Host header: the default port is left out (RFC 6455 4.1).
    pub(crate) fn authority(&self) -> String {
        match self.port {
            Some(port) => format!("{}:{port}", self.host),
            None => self.host.clone(),
        }
    }

    /// The host and the port, default or not.
    pub(crate) fn address(&self) -> String {
        format!("{}:{}", self.host, self.port.unwrap_or(self.scheme.default_port()))
    }

    pub(crate) fn path_and_query(&self) -> PathAndQuery {
        self.path_and_query.clone()
    }

    /// Basic authentication, from the user name and password in the URL.
    pub(crate) fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }

    /// The same server, but another path, and maybe a query.
    #[cfg(feature = "http2")]
    pub(crate) fn with_target(&self, target: &str) -> Result<Self, Error> {
        Ok(Self { path_and_query: parse_path_and_query(target)?, ..self.clone() })
    }

    /// The URL for HTTP clients: http or https.
    pub(crate) fn http_uri(&self) -> Uri {
        self.uri(&self.authority(), self.path_and_query())
    }

    /// Where to dial: with the port in any case, without the path.
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

fn parse_path_and_query(target: &str) -> Result<PathAndQuery, Error> {
    // RFC 6455 3: fragment identifiers must not be used.
    if target.contains('#') {
        return Err(invalid(
            "the URL has a fragment, which WebSocket URLs can't have: remove # and what follows",
        ));
    }
    if !target.is_ascii() {
        return Err(invalid("the path or query of the URL is not ASCII: percent-encode it"));
    }
    // RFC 6455 3: an empty path is `/`.
    let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
    PathAndQuery::try_from(target).map_err(|error| {
        let text = "the path or query of the URL has a character that has to be percent-encoded";
        Error::with_source(ErrorKind::InvalidInput, text, error)
    })
}

/// RFC 7617 2: the base64 of `user:password`.
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
