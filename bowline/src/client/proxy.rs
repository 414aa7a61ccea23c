//! Which proxy to use.

use std::fmt;

use http::Uri;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};

use crate::client::url::UrlParts;
use crate::error::{Error, ErrorKind};
use crate::handshake::authority::split_authority;
use crate::transport::tls;

/// The proxy that a [`Connector`](crate::Connector) goes through, if any.
///
/// Proxies of HTTP (`http://`; and `https://`, with the feature `tls`) are asked for a tunnel with CONNECT, also for
/// ws://. Those of SOCKS 5 resolve the name themselves for `socks5h://`; for `socks5://` it is resolved here. A user
/// name and a password may be in the proxy's URL.
#[derive(Clone)]
pub struct Proxy(Choice);

#[derive(Clone)]
enum Choice {
    Environment,
    None,
    Explicit(Intercept),
}

impl Proxy {
    /// What the environment says when a connection is made; the default.
    ///
    /// That is `HTTP_PROXY` for ws://, `HTTPS_PROXY` for wss://, `ALL_PROXY` for both, and `NO_PROXY` with names,
    /// addresses and networks to be reached directly; in lower case too. They are read by hyper-util, much as curl does.
    pub fn environment() -> Self {
        Self(Choice::Environment)
    }

    /// No proxy, whatever the environment says.
    pub fn none() -> Self {
        Self(Choice::None)
    }

    /// This proxy, for all hosts: `http://user:password@host:port`, `https://...`, `socks5://...` or `socks5h://...`.
    /// What is no letter and no digit in the user name and the password has to be percent-encoded.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if it is not the URL of a proxy.
    pub fn new(url: impl AsRef<str>) -> Result<Self, Error> {
        let url = url.as_ref();
        let invalid = |text| Error::new(ErrorKind::InvalidInput, format!("the proxy's URL {text}"));
        // hyper-util takes more, and other characters for the ends of the parts.
        let parts = UrlParts::split(url, &["http", "https", "socks5", "socks5h"]).map_err(invalid)?;
        if !["", "/"].contains(&parts.target) {
            return Err(invalid(
                "has a path, a query or a fragment, which that of a proxy can't have".to_owned(),
            ));
        }
        let matcher = Matcher::builder().all(url.to_owned()).build();
        let intercept = matcher.intercept(&Uri::from_static("http://any.example"));
        let intercept = intercept
            .ok_or_else(|| invalid("is not of the form `scheme://[user:password@]host[:port]`".to_owned()))?;
        check(intercept).map(|intercept| Self(Choice::Explicit(intercept)))
    }

    /// The proxy on the way to `target`, if there is one.
    pub(crate) fn on_the_way_to(&self, target: &Uri) -> Result<Option<Intercept>, Error> {
        match &self.0 {
            Choice::None => Ok(None),
            Choice::Explicit(intercept) => Ok(Some(intercept.clone())),
            Choice::Environment => Matcher::from_env().intercept(target).map(check).transpose(),
        }
    }
}

impl Default for Proxy {
    fn default() -> Self {
        Self::environment()
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Choice::Environment => f.write_str("Proxy::environment()"),
            Choice::None => f.write_str("Proxy::none()"),
            Choice::Explicit(intercept) => f.debug_tuple("Proxy").field(intercept.uri()).finish(),
        }
    }
}

fn check(intercept: Intercept) -> Result<Intercept, Error> {
    // If it is not a host and a port, it may be the beginning of a password.
    if intercept.uri().authority().is_none_or(|address| split_authority(address.as_str()).is_none()) {
        let text = "the proxy's URL in the environment is not of the form `scheme://[user:password@]host[:port]`: \
                    percent-encode `/`, `?` and `#` in its user name or password";
        return Err(Error::new(ErrorKind::InvalidInput, text));
    }
    match intercept.uri().scheme_str() {
        Some("http" | "socks5" | "socks5h") => Ok(intercept),
        Some("https") if tls::IS_SUPPORTED => Ok(intercept),
        scheme => {
            let scheme = scheme.unwrap_or_default();
            let text = format!(
                "a proxy with the scheme {scheme:?} is not supported (https needs the feature `tls`)"
            );
            Err(Error::new(ErrorKind::InvalidInput, text))
        }
    }
}
