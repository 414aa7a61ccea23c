//! The check of origins: which web pages may open connections (RFC 6454, RFC 6455 10.2).

use std::fmt;
use std::sync::Arc;

use http::Extensions;
use http::header::{HOST, HeaderMap, ORIGIN};
use http::uri::{Authority, Scheme, Uri};

use crate::handshake::authority::split_authority;
use crate::handshake::headers::Occurrence;
use crate::transport::tls::TlsInfo;

/// The origins that a server allows in addition to its own.
#[derive(Clone, Default)]
pub(crate) struct Origins {
    patterns: Vec<Pattern>,
    check: Option<Arc<dyn OriginCheck>>,
}

/// The scheme by which a request has reached the server, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestScheme {
    /// `https`, because TLS is terminated here, or the request says so.
    Https,
    /// Unknown: clear text may come from a proxy that terminates TLS.
    Unknown,
}

impl RequestScheme {
    /// Returns the scheme of a request with this target and these extensions.
    pub(crate) fn of(target: &Uri, extensions: &Extensions) -> Self {
        let is_https = target.scheme() == Some(&Scheme::HTTPS) || extensions.get::<TlsInfo>().is_some();
        if is_https { Self::Https } else { Self::Unknown }
    }
}

/// The user's closure that decides about origins.
trait OriginCheck: Fn(&str, &HeaderMap) -> bool + Send + Sync {}

impl<F: Fn(&str, &HeaderMap) -> bool + Send + Sync> OriginCheck for F {}

impl Origins {
    pub(crate) fn allow(&mut self, pattern: Pattern) {
        self.patterns.push(pattern);
    }

    pub(crate) fn allow_if(&mut self, check: impl Fn(&str, &HeaderMap) -> bool + Send + Sync + 'static) {
        self.check = Some(Arc::new(check));
    }

    /// Returns an error, for the server only, if a request may not connect. `target` is the request's target,
    /// or that of HTTP/2's pseudo-headers.
    pub(crate) fn check(
        &self,
        headers: &HeaderMap,
        target: &Uri,
        scheme: RequestScheme,
    ) -> Result<(), String> {
        let origin = match Occurrence::of(headers, ORIGIN) {
            // The client is not a browser.
            Occurrence::None => return Ok(()),
            Occurrence::Repeated => return Err("the request has more than one Origin header".to_owned()),
            Occurrence::Once(origin) => origin,
        };
        let Ok(text) = origin.to_str() else {
            return Err(format!("the Origin header is not text: {origin:?}"));
        };
        let parsed = Origin::parse(text);
        let host = target.authority().map(Authority::as_str).or_else(|| headers.get(HOST)?.to_str().ok());
        let is_allowed = self.patterns.iter().any(|pattern| pattern.matches(text, parsed.as_ref()))
            || parsed.as_ref().zip(host).is_some_and(|(origin, host)| origin.is_served_at(host, scheme))
            || self.check.as_ref().is_some_and(|check| check(text, headers));
        if is_allowed { Ok(()) } else { Err(describe_foreign(text, parsed.as_ref(), host, scheme)) }
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

/// An origin, as the value of an Origin header has it (RFC 6454 6.1).
struct Origin<'a> {
    scheme: &'a str,
    host: &'a str,
    /// The port, or `None` for the default port of an unknown scheme.
    port: Option<u16>,
}

impl<'a> Origin<'a> {
    /// Parses an origin. Returns `None` for `null` and other text that is not an origin.
    fn parse(text: &'a str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let (host, port) = split_authority(authority)?;
        Some(Self { scheme, host, port: port.or_else(|| default_port(scheme)) })
    }

    /// Returns `true` if the page was loaded from `host`, the value of a Host header.
    fn is_served_at(&self, host: &str, scheme: RequestScheme) -> bool {
        let Some((host, port)) = split_authority(host) else { return false };
        // RFC 6454 5: another scheme is another origin. A server after a proxy that terminates TLS can't know
        // its own scheme, so the page's scheme decides on the default port. Only `http` and `https` load a
        // page from a host.
        let is_ours = self.scheme.eq_ignore_ascii_case("https")
            || scheme == RequestScheme::Unknown && self.scheme.eq_ignore_ascii_case("http");
        is_ours
            && self.host.eq_ignore_ascii_case(host)
            && self.port == port.or_else(|| default_port(self.scheme))
    }
}

/// A pattern of origins: see [`Acceptor::allow_origin`](crate::Acceptor::allow_origin).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    Any,
    /// The value `null`, which browsers send for pages without an origin of their own (RFC 6454 6.1).
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
    /// All names with this ending, which begins with a dot.
    Below(Box<str>),
}

impl Pattern {
    /// Parses a pattern. Returns `None` if the text does not have the documented form.
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

    /// Returns `true` if the pattern matches the value of an Origin header. `origin` is the value, if it
    /// parses.
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

/// Describes an origin that is not allowed, and the way to allow it.
fn describe_foreign(
    text: &str,
    origin: Option<&Origin<'_>>,
    host: Option<&str>,
    scheme: RequestScheme,
) -> String {
    let host = host.unwrap_or_default();
    match origin {
        None if text == "null" => "the page has no origin of its own (Origin: null), and \
             Acceptor::allow_origin(\"null\") allows such pages"
            .to_owned(),
        None => format!("the Origin {text:?} is no origin, and Acceptor::check_origin may allow it"),
        Some(origin)
            if scheme == RequestScheme::Https && origin.is_served_at(host, RequestScheme::Unknown) =>
        {
            format!(
                "the origin {text:?} has the host of the request, {host:?}, but not its scheme, https: \
                 Acceptor::allow_origin({text:?}) allows it"
            )
        }
        Some(_) => format!(
            "the origin {text:?} does not fit the host of the request, {host:?}: \
             Acceptor::allow_origin({text:?}) allows it"
        ),
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
