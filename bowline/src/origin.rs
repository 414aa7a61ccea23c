//! Which web pages may open connections (RFC 6454, RFC 6455 10.2).

use std::fmt;
use std::sync::Arc;

use http::header::{HOST, HeaderMap, ORIGIN};

use crate::authority::split_authority;
use crate::header_lines::Occurrence;

/// The origins that a server allows beside its own.
#[derive(Clone, Default)]
pub(crate) struct Origins {
    patterns: Vec<Pattern>,
    check: Option<Arc<dyn Check>>,
}

/// What the user's own closure has to be.
trait Check: Fn(&str, &HeaderMap) -> bool + Send + Sync {}

impl<F: Fn(&str, &HeaderMap) -> bool + Send + Sync> Check for F {}

impl Origins {
    pub(crate) fn allow(&mut self, pattern: Pattern) {
        self.patterns.push(pattern);
    }

    pub(crate) fn allow_if(&mut self, check: impl Fn(&str, &HeaderMap) -> bool + Send + Sync + 'static) {
        self.check = Some(Arc::new(check));
    }

    /// Whether a request comes from where it may. `authority` is that of an absolute URL in the request line.
    pub(crate) fn allows(&self, headers: &HeaderMap, authority: Option<&str>) -> bool {
        let origin = match Occurrence::of(headers, ORIGIN) {
            // Not from a browser.
            Occurrence::None => return true,
            Occurrence::Repeated => return false,
            Occurrence::Once(origin) => origin,
        };
        let Ok(text) = origin.to_str() else { return false };
        let parsed = Origin::parse(text);
        let host = authority.or_else(|| headers.get(HOST)?.to_str().ok());
        self.patterns.iter().any(|pattern| pattern.matches(parsed.as_ref()))
            || parsed.zip(host).is_some_and(|(origin, host)| origin.is_served_at(host))
            || self.check.as_ref().is_some_and(|check| check(text, headers))
    }
}

impl fmt::Debug for Origins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let check = self.check.as_ref().map(|_| "a closure");
        f.debug_struct("Origins").field("patterns", &self.patterns).field("check", &check).finish()
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
    fn is_served_at(&self, host: &str) -> bool {
        let Some((host, port)) = split_authority(host) else { return false };
        // Behind a proxy that ends TLS we can't know our own scheme, so the page's decides on the default.
        self.host.eq_ignore_ascii_case(host) && self.port == port.or_else(|| default_port(self.scheme))
    }
}

/// A description of origins: see [`Acceptor::allow_origin`](crate::Acceptor::allow_origin).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    Any,
    Like { scheme: Option<Box<str>>, host: HostPattern, port: Option<u16> },
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

    fn matches(&self, origin: Option<&Origin<'_>>) -> bool {
        let (Self::Like { scheme, host, port }, Some(origin)) = (self, origin) else {
            return *self == Self::Any;
        };
        scheme.as_ref().is_none_or(|scheme| scheme.eq_ignore_ascii_case(origin.scheme))
            && host.matches(origin.host)
            && origin.port == port.or_else(|| default_port(origin.scheme))
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
