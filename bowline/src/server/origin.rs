//! Which web pages may open connections (RFC 6454, RFC 6455 10.2).

use std::fmt;
use std::sync::Arc;

use http::header::{HOST, HeaderMap, ORIGIN};
use http::uri::{Authority, Scheme, Uri};

use crate::handshake::authority::split_authority;
use crate::handshake::headers::Occurrence;

/// The origins that a server allows beside its own.
#[derive(Clone, Default)]
pub(crate) struct Origins {
    patterns: Vec<Pattern>,
    check: Option<Arc<dyn OriginCheck>>,
    arrival: RequestScheme,
}

/// How requests reach the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum RequestScheme {
    /// Over TLS that is ended here.
    OverTls,
    /// In clear text, which may come from a proxy that ends TLS; or nobody can tell.
    #[default]
    Unknown,
}

/// What the user's own closure has to be.
trait OriginCheck: Fn(&str, &HeaderMap) -> bool + Send + Sync {}

impl<F: Fn(&str, &HeaderMap) -> bool + Send + Sync> OriginCheck for F {}

impl Origins {
    pub(crate) fn allow(&mut self, pattern: Pattern) {
        self.patterns.push(pattern);
    }

    pub(crate) fn allow_if(&mut self, check: impl Fn(&str, &HeaderMap) -> bool + Send + Sync + 'static) {
        self.check = Some(Arc::new(check));
    }

    /// Tells how all requests reach the server.
    pub(crate) fn set_arrival(&mut self, arrival: RequestScheme) {
        self.arrival = arrival;
    }

    /// Whether a request comes from where it may. `target` is that of the request line, or of HTTP/2's pseudo-headers.
    pub(crate) fn allows(&self, headers: &HeaderMap, target: &Uri) -> bool {
        let origin = match Occurrence::of(headers, ORIGIN) {
            // Not from a browser.
            Occurrence::None => return true,
            Occurrence::Repeated => return false,
            Occurrence::Once(origin) => origin,
        };
        let Ok(text) = origin.to_str() else { return false };
        let parsed = Origin::parse(text);
        let host = target.authority().map(Authority::as_str).or_else(|| headers.get(HOST)?.to_str().ok());
        let arrival =
            if target.scheme() == Some(&Scheme::HTTPS) { RequestScheme::OverTls } else { self.arrival };
        self.patterns.iter().any(|pattern| pattern.matches(text, parsed.as_ref()))
            || parsed.zip(host).is_some_and(|(origin, host)| origin.is_served_at(host, arrival))
            || self.check.as_ref().is_some_and(|check| check(text, headers))
    }
}

impl fmt::Debug for Origins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let check = self.check.as_ref().map(|_| "a closure");
        f.debug_struct("Origins")
            .field("patterns", &self.patterns)
            .field("check", &check)
            .finish_non_exhaustive()
    }
}

/// The value of an Origin header that names one (RFC 6454 6.1).
struct Origin<'a> {
    scheme: &'a str,
    host: &'a str,
    /// `None` for the default of a scheme that we do not know.
    port: Option<u16>,
}

impl<'a> Origin<'a> {
    /// `None` for `null` and everything else that is no origin.
    fn parse(text: &'a str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let (host, port) = split_authority(authority)?;
        Some(Self { scheme, host, port: port.or_else(|| default_port(scheme)) })
    }

    /// Whether `host`, the value of a Host header, is where the page came from.
    fn is_served_at(&self, host: &str, arrival: RequestScheme) -> bool {
        let Some((host, port)) = split_authority(host) else { return false };
        // RFC 6454 5: another scheme is another origin. Behind a proxy that ends TLS we can't know our own, so the page's
        // decides on the default port. No other scheme loads a page from a host.
        let is_ours = self.scheme.eq_ignore_ascii_case("https")
            || arrival == RequestScheme::Unknown && self.scheme.eq_ignore_ascii_case("http");
        is_ours
            && self.host.eq_ignore_ascii_case(host)
            && self.port == port.or_else(|| default_port(self.scheme))
    }
}

/// A description of origins: see [`Acceptor::allow_origin`](crate::Acceptor::allow_origin).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    Any,
    /// What a browser says for a page whose origin it does not tell (RFC 6454 6.1).
    Null,
    Like {
        scheme: Option<Box<str>>,
        host: HostPattern,
        port: Option<u16>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HostPattern {
    Exactly(Box<str>),
    /// Every name that ends with this, which begins with a dot.
    Below(Box<str>),
}

impl Pattern {
    /// `None` if it is not of the form that is documented.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Any);
        }
        if text == "null" {
            return Some(Self::Null);
        }
        let (scheme, authority) = match text.split_once("://") {
            Some(("", _)) => return None,
            Some((scheme, authority)) => (Some(scheme.into()), authority),
            None => (None, text),
        };
        let (host, port) = split_authority(authority)?;
        let (host, below) = match host.strip_prefix('*') {
            Some(parent) if parent.starts_with('.') => (parent, true),
            _ => (host, false),
        };
        if host.contains('*') {
            return None;
        }
        let host = if below { HostPattern::Below(host.into()) } else { HostPattern::Exactly(host.into()) };
        Some(Self::Like { scheme, host, port })
    }

    /// Whether it describes the value of an Origin header, which is `origin` if it names one.
    fn matches(&self, text: &str, origin: Option<&Origin<'_>>) -> bool {
        match self {
            Self::Any => true,
            Self::Null => text == "null",
            Self::Like { scheme, host, port } => origin.is_some_and(|origin| {
                scheme.as_ref().is_none_or(|scheme| scheme.eq_ignore_ascii_case(origin.scheme))
                    && host.matches(origin.host)
                    && origin.port == port.or_else(|| default_port(origin.scheme))
            }),
        }
    }
}

impl HostPattern {
    fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exactly(expected) => expected.eq_ignore_ascii_case(host),
            Self::Below(parent) => {
                let name_end = host.len().saturating_sub(parent.len());
                name_end > 0 && host[name_end..].eq_ignore_ascii_case(parent)
            }
        }
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    if scheme.eq_ignore_ascii_case("http") {
        Some(80)
    } else if scheme.eq_ignore_ascii_case("https") {
        Some(443)
    } else {
        None
    }
}
