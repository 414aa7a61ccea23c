//! Protection of servers on loopback addresses from web pages.

use bowline::Rejection;
use bowline::http::StatusCode;
use bowline::http::header::{HOST, ORIGIN};
use bowline::http::request::Parts;

use super::address::Bound;

/// A check of `Host` for servers that only this machine reaches.
///
/// The owner of a site can point its name at 127.0.0.1 (DNS rebinding). A page of that site is then of the
/// same origin as its requests, and would reach a program that `--exec` runs. So a page has to name this
/// machine.
#[derive(Clone, Copy, Debug)]
pub(crate) enum HostGuard {
    /// The server is open to other machines, or origins were allowed by hand.
    Off,
    /// Pages have to name `localhost` or an address.
    Loopback,
}

impl HostGuard {
    pub(crate) fn new(bound: &Bound, allowed: &[String]) -> Self {
        let local = bound.tcp_address().is_some_and(|address| address.ip().is_loopback());
        if local && allowed.is_empty() { Self::Loopback } else { Self::Off }
    }

    /// Rejects a page that reached this machine by a name that is not the machine's own.
    pub(crate) fn check(self, head: &Parts) -> Result<(), Rejection> {
        let is_page = head.headers.contains_key(ORIGIN);
        if !is_page || matches!(self, Self::Off) || is_local(head) {
            return Ok(());
        }
        Err(Rejection::from(StatusCode::FORBIDDEN)
            .with_source("the page's Host is neither localhost nor an address: see --allow-origin"))
    }
}

fn is_local(head: &Parts) -> bool {
    let host = match head.uri.host() {
        Some(host) => host.to_owned(),
        None => match head.headers.get(HOST).and_then(|host| host.to_str().ok()?.parse().ok()) {
            Some(authority) => bowline::http::uri::Authority::host(&authority).to_owned(),
            None => return false,
        },
    };
    let host = host.trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost") || host.parse::<std::net::IpAddr>().is_ok()
}
