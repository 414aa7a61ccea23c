//! Protection of servers on loopback addresses from web pages.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use bowline::Rejection;
use bowline::http::header::{HOST, ORIGIN};
use bowline::http::request::Parts;
use bowline::http::uri::Authority;
use bowline::http::{StatusCode, Uri};

use super::address::Bound;

/// A check of `Host` for servers that only this machine reaches.
///
/// The owner of a site can point its name at 127.0.0.1 (DNS rebinding). A page of that site is then of the
/// same origin as its requests, and would reach a program that `--exec` runs. So a page has to name this
/// machine, or a host of `--allow-origin`.
#[derive(Clone, Debug)]
pub(crate) struct HostGuard {
    /// The patterns of `--allow-origin`.
    allowed: Arc<[String]>,
    /// Set once the address is bound.
    reach: Arc<OnceLock<Reach>>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Reach {
    /// This machine alone.
    Loopback,
    /// Other machines, too, whose users know the server by any name.
    Network,
}

impl HostGuard {
    pub(crate) fn new(allowed: &[String]) -> Self {
        Self { allowed: allowed.into(), reach: Arc::default() }
    }

    /// Decides by the address that was bound whether hosts are checked.
    pub(crate) fn set(&self, bound: &Bound) {
        let local = bound.tcp_address().is_some_and(|address| address.ip().is_loopback());
        // It is set once, before the first request.
        let _ = self.reach.set(if local { Reach::Loopback } else { Reach::Network });
    }

    /// Rejects a page that reached this machine by a name that is not the machine's own. Clients that are no
    /// browsers may use any name.
    pub(crate) fn check_page(&self, head: &Parts) -> Result<(), Rejection> {
        if !head.headers.contains_key(ORIGIN) || self.allows_host_of(head) {
            return Ok(());
        }
        Err(Rejection::from(StatusCode::FORBIDDEN)
            .with_source("the page's Host is neither localhost, an address, nor a host of --allow-origin"))
    }

    /// Returns `true` if the request may name its host.
    pub(crate) fn allows_host_of(&self, head: &Parts) -> bool {
        if self.reach.get() == Some(&Reach::Network) {
            return true;
        }
        let Some(authority) = authority_of(head) else { return false };
        let host = authority.host().trim_matches(['[', ']']).to_ascii_lowercase();
        host == "localhost"
            || host.parse::<IpAddr>().is_ok()
            || self.allowed.iter().any(|pattern| names(pattern, &host))
    }
}

fn authority_of(head: &Parts) -> Option<Authority> {
    match head.uri.authority() {
        Some(authority) => Some(authority.clone()),
        None => head.headers.get(HOST)?.to_str().ok()?.parse().ok(),
    }
}

/// Returns `true` if the host is one of the pattern of an origin.
fn names(pattern: &str, host: &str) -> bool {
    let authority = pattern.split_once("://").map_or(pattern, |(_, authority)| authority);
    match authority.strip_prefix("*.") {
        Some(domain) => parse_host(domain).is_some_and(|domain| host.ends_with(&format!(".{domain}"))),
        None => authority == "*" || parse_host(authority).is_some_and(|allowed| allowed == host),
    }
}

fn parse_host(authority: &str) -> Option<String> {
    let url: Uri = format!("http://{authority}/").parse().ok()?;
    url.host().map(str::to_ascii_lowercase)
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn a_pattern_names_its_host_alone() {
        for pattern in ["example.com", "https://example.com", "http://example.com:3000", "*"] {
            assert!(names(pattern, "example.com"), "{pattern}");
        }
        for pattern in ["localhost:3000", "*.example.com", "https://*.example.com", "null", ""] {
            assert!(!names(pattern, "example.com"), "{pattern}");
        }
        assert!(names("https://*.example.com:8443", "a.example.com"));
        assert!(!names("*.example.com", "badexample.com"));
    }
}
