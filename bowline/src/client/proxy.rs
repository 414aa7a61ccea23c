//! The choice of a proxy.

use std::fmt;
use std::str::FromStr;

use http::Uri;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};

use crate::client::url::UrlParts;
use crate::error::{Error, ErrorKind};
use crate::handshake::authority::split_authority;
use crate::transport::tls;

/// The proxy through which a [`Connector`](crate::Connector) connects, if any.
///
/// | scheme | proxy |
/// |---|---|
/// | `http` | HTTP; a tunnel is opened by CONNECT, for ws:// too |
/// | `https` | the same over TLS, with the feature `tls` |
/// | `socks5` | SOCKS 5 (RFC 1928); the client resolves the name |
/// | `socks5h` | SOCKS 5; the proxy resolves the name |
///
/// The proxy's URL may contain a user name and a password.
///
/// ```
/// use bowline::{Connector, Proxy};
///
/// # fn example() -> Result<(), bowline::Error> {
/// let proxy = Proxy::new("socks5h://user:password@proxy.example.com:1080")?;
/// let connector = Connector::new().proxy(proxy);
/// # Ok(())
/// # }
/// # example().unwrap();
/// ```
#[derive(Clone)]
pub struct Proxy(Choice);

#[derive(Clone)]
enum Choice {
    Environment,
    None,
    Explicit(Intercept),
}

impl Proxy {
    /// Chooses the proxy that the environment names at the time of connecting. This is the default.
    ///
    /// `HTTP_PROXY` is used for ws://, `HTTPS_PROXY` for wss://, and `ALL_PROXY` for both. `NO_PROXY` lists
    /// names, addresses and networks to connect to directly. The lower-case names work too. hyper-util reads
    /// the variables, much as curl does.
    ///
    /// ```
    /// let connector = bowline::Connector::new().proxy(bowline::Proxy::from_env());
    /// ```
    pub fn from_env() -> Self {
        Self(Choice::Environment)
    }

    /// Chooses no proxy, whatever the environment names.
    ///
    /// ```
    /// let connector = bowline::Connector::new().proxy(bowline::Proxy::none());
    /// ```
    pub fn none() -> Self {
        Self(Choice::None)
    }

    /// Chooses this proxy for all hosts, whatever the environment names.
    ///
    /// The URL has the form `scheme://[user:password@]host[:port]`. In the user name and the password,
    /// characters other than letters and digits must be percent-encoded.
    ///
    /// ```
    /// # fn example() -> Result<(), bowline::Error> {
    /// let proxy = bowline::Proxy::new("http://proxy.example.com:3128")?;
    /// # Ok(())
    /// # }
    /// # example().unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::InvalidInput`] if `url` is not the URL of a proxy.
    pub fn new(url: impl fmt::Display) -> Result<Self, Error> {
        let url = url.to_string();
        let invalid = |text| Error::new(ErrorKind::InvalidInput, format!("the proxy's URL {text}"));
        // hyper-util accepts more URLs, and splits some of them at other characters.
        let parts = UrlParts::split(&url, &["http", "https", "socks5", "socks5h"]).map_err(invalid)?;
        if !["", "/"].contains(&parts.target) {
            return Err(invalid(
                "has a path, a query or a fragment, which the URL of a proxy can't have".to_owned(),
            ));
        }
        let matcher = Matcher::builder().all(url.clone()).build();
        let intercept = matcher.intercept(&Uri::from_static("http://any.example"));
        let intercept = intercept
            .ok_or_else(|| invalid("is not of the form `scheme://[user:password@]host[:port]`".to_owned()))?;
        check_proxy(intercept).map(|intercept| Self(Choice::Explicit(intercept)))
    }

    /// Returns the proxy on the way to `target`, if there is one.
    pub(crate) fn on_the_way_to(&self, target: &Uri) -> Result<Option<Intercept>, Error> {
        match &self.0 {
            Choice::None => Ok(None),
            Choice::Explicit(intercept) => Ok(Some(intercept.clone())),
            Choice::Environment => Matcher::from_env().intercept(target).map(check_proxy).transpose(),
        }
    }
}

impl FromStr for Proxy {
    type Err = Error;

    /// Chooses a proxy for all hosts, as [`Proxy::new`] does.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::InvalidInput`] if `url` is not the URL of a proxy.
    fn from_str(url: &str) -> Result<Self, Error> {
        Self::new(url)
    }
}

impl Default for Proxy {
    fn default() -> Self {
        Self::from_env()
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Choice::Environment => f.write_str("Proxy::from_env()"),
            Choice::None => f.write_str("Proxy::none()"),
            Choice::Explicit(intercept) => f.debug_tuple("Proxy").field(intercept.uri()).finish(),
        }
    }
}

fn check_proxy(intercept: Intercept) -> Result<Intercept, Error> {
    // An authority that is not a host and a port may be the beginning of a password.
    if intercept.uri().authority().is_none_or(|address| split_authority(address.as_str()).is_none()) {
        let text = "the proxy's URL in the environment is not of the form \
                    `scheme://[user:password@]host[:port]`: percent-encode `/`, `?` and `#` in its user \
                    name or password";
        return Err(Error::new(ErrorKind::InvalidInput, text));
    }
    match intercept.uri().scheme_str() {
        Some("http" | "socks5" | "socks5h") => Ok(intercept),
        Some("https") if tls::IS_SUPPORTED => Ok(intercept),
        scheme => {
            let scheme = scheme.unwrap_or_default();
            let text = format!(
                "a proxy with the scheme {scheme:?} is not supported (https needs the feature `ring` or \
                 `aws-lc-rs`)"
            );
            Err(Error::new(ErrorKind::InvalidInput, text))
        }
    }
}
