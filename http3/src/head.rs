//! The heads of requests and responses, as field sections (RFC 9114 4.2, 4.3).

use std::fmt;

use bowline::ConnectProtocol;
use bytes::Bytes;
use http::header::{
    CONNECTION, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri, Version};

use crate::qpack::{Secrecy, SectionEncoder, SectionError, decode_section};

/// The reason why a head is refused.
#[derive(Debug)]
pub(crate) enum HeadError {
    Section(SectionError),
    /// RFC 9114 4.1.2: the message is malformed.
    Malformed(&'static str),
    /// There are more headers than `Limits::max_headers`.
    TooMany,
}

impl From<SectionError> for HeadError {
    fn from(error: SectionError) -> Self {
        Self::Section(error)
    }
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Section(error) => error.fmt(f),
            Self::Malformed(why) => f.write_str(why),
            Self::TooMany => f.write_str("it has too many headers"),
        }
    }
}

/// The limits on a head.
#[derive(Clone, Copy)]
pub(crate) struct HeadLimits {
    /// With 32 bytes for each header.
    pub(crate) size: usize,
    pub(crate) headers: usize,
}

/// Encodes the head of a request. The `:protocol` is in its extensions.
pub(crate) fn encode_request(request: &Request<()>) -> Vec<u8> {
    let mut section = SectionEncoder::new();
    let uri = request.uri();
    section.push(":method", request.method().as_str().as_bytes(), Secrecy::Ordinary);
    let pseudo = [
        (":scheme", uri.scheme_str()),
        (":authority", uri.authority().map(Authority::as_str)),
        (":path", uri.path_and_query().map(PathAndQuery::as_str)),
        (":protocol", request.extensions().get().map(ConnectProtocol::as_str)),
    ];
    for (name, value) in pseudo {
        if let Some(value) = value {
            section.push(name, value.as_bytes(), Secrecy::Ordinary);
        }
    }
    push_headers(&mut section, request.headers());
    section.finish()
}

/// Encodes the head of a response.
pub(crate) fn encode_response<B>(response: &Response<B>) -> Vec<u8> {
    let mut section = SectionEncoder::new();
    section.push(":status", response.status().as_str().as_bytes(), Secrecy::Ordinary);
    push_headers(&mut section, response.headers());
    section.finish()
}

fn push_headers(section: &mut SectionEncoder, headers: &HeaderMap) {
    for (name, value) in headers {
        let secrecy = if value.is_sensitive() { Secrecy::Secret } else { Secrecy::Ordinary };
        section.push(name.as_str(), value.as_bytes(), secrecy);
    }
}

/// Decodes the head of a request.
pub(crate) fn decode_request(section: &[u8], limits: HeadLimits) -> Result<Request<()>, HeadError> {
    let Fields { pseudo, headers } = Fields::decode(section, limits, PseudoHeaders::request)?;
    let PseudoHeaders { method, scheme, authority, path, protocol, .. } = pseudo;
    let method = method.ok_or(HeadError::Malformed("the request has no :method"))?;
    let method =
        Method::from_bytes(&method).map_err(|_| HeadError::Malformed("the :method is not a token"))?;
    let is_extended = protocol.is_some();
    // RFC 8441 4: only a CONNECT has a :protocol.
    if is_extended && method != Method::CONNECT {
        return Err(HeadError::Malformed("a request with a :protocol is not a CONNECT"));
    }
    let mut request = Request::new(());
    if method == Method::CONNECT && !is_extended {
        // RFC 9114 4.4: a CONNECT has an :authority, and neither a :scheme nor a :path.
        if scheme.is_some() || path.is_some() {
            return Err(HeadError::Malformed("a CONNECT without a :protocol has a :scheme or a :path"));
        }
        let authority = authority.ok_or(HeadError::Malformed("a CONNECT has no :authority"))?;
        let mut parts = http::uri::Parts::default();
        parts.authority = Some(parse_authority(&authority)?);
        *request.uri_mut() = Uri::from_parts(parts).expect("an authority alone is a URI");
    } else {
        *request.uri_mut() = uri(scheme, authority, path, &headers)?;
    }
    if let Some(protocol) = protocol {
        let protocol =
            String::from_utf8(protocol).map_err(|_| HeadError::Malformed("the :protocol is not a token"))?;
        request.extensions_mut().insert(ConnectProtocol::new(protocol));
    }
    *request.method_mut() = method;
    *request.version_mut() = Version::HTTP_3;
    *request.headers_mut() = headers;
    Ok(request)
}

/// Decodes the head of a response.
pub(crate) fn decode_response(section: &[u8], limits: HeadLimits) -> Result<Response<()>, HeadError> {
    let Fields { pseudo, headers } = Fields::decode(section, limits, PseudoHeaders::response)?;
    let status = pseudo.status.ok_or(HeadError::Malformed("the response has no :status"))?;
    let status =
        StatusCode::from_bytes(&status).map_err(|_| HeadError::Malformed("the :status is not a status"))?;
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.version_mut() = Version::HTTP_3;
    *response.headers_mut() = headers;
    Ok(response)
}

/// Builds the URI of a request from its pseudo-headers (RFC 9114 4.3.1).
fn uri(
    scheme: Option<Vec<u8>>,
    authority: Option<Vec<u8>>,
    path: Option<Vec<u8>>,
    headers: &HeaderMap,
) -> Result<Uri, HeadError> {
    let scheme = scheme.ok_or(HeadError::Malformed("the request has no :scheme"))?;
    let path = path.ok_or(HeadError::Malformed("the request has no :path"))?;
    // RFC 9114 4.3.1: a path begins with a slash, but for the one of OPTIONS that concerns the whole server.
    if path.first() != Some(&b'/') && path != b"*" {
        return Err(HeadError::Malformed("the :path does not begin with a slash"));
    }
    let host = headers.get(HOST).map(HeaderValue::as_bytes);
    let authority = match (authority, host) {
        // RFC 9114 4.3.1: both have the same value.
        (Some(authority), Some(host)) if authority != host => {
            return Err(HeadError::Malformed("the :authority is not the Host"));
        }
        (Some(authority), _) => authority,
        (None, Some(host)) => host.to_vec(),
        (None, None) => return Err(HeadError::Malformed("the request has neither an :authority nor a Host")),
    };
    let mut parts = http::uri::Parts::default();
    parts.scheme =
        Some(Scheme::try_from(&scheme[..]).map_err(|_| HeadError::Malformed("the :scheme is not a scheme"))?);
    parts.authority = Some(parse_authority(&authority)?);
    let path = PathAndQuery::from_maybe_shared(Bytes::from(path));
    parts.path_and_query = Some(path.map_err(|_| HeadError::Malformed("the :path is not a path"))?);
    Uri::from_parts(parts).map_err(|_| HeadError::Malformed("the pseudo-headers are not a URI"))
}

fn parse_authority(bytes: &[u8]) -> Result<Authority, HeadError> {
    // RFC 9114 4.3.1: an :authority has no userinfo.
    if bytes.contains(&b'@') {
        return Err(HeadError::Malformed("the :authority has a userinfo"));
    }
    Authority::try_from(bytes).map_err(|_| HeadError::Malformed("the :authority is not a host and a port"))
}

/// The pseudo-headers of a message (RFC 9114 4.3).
#[derive(Default)]
struct PseudoHeaders {
    method: Option<Vec<u8>>,
    scheme: Option<Vec<u8>>,
    authority: Option<Vec<u8>>,
    path: Option<Vec<u8>>,
    protocol: Option<Vec<u8>>,
    status: Option<Vec<u8>>,
}

impl PseudoHeaders {
    fn request(&mut self, name: &[u8]) -> Option<&mut Option<Vec<u8>>> {
        Some(match name {
            b":method" => &mut self.method,
            b":scheme" => &mut self.scheme,
            b":authority" => &mut self.authority,
            b":path" => &mut self.path,
            b":protocol" => &mut self.protocol,
            _ => return None,
        })
    }

    fn response(&mut self, name: &[u8]) -> Option<&mut Option<Vec<u8>>> {
        (name == b":status").then_some(&mut self.status)
    }
}

/// The fields of a message.
struct Fields {
    pseudo: PseudoHeaders,
    headers: HeaderMap,
}

impl Fields {
    fn decode(
        section: &[u8],
        limits: HeadLimits,
        place: impl for<'a> Fn(&'a mut PseudoHeaders, &[u8]) -> Option<&'a mut Option<Vec<u8>>>,
    ) -> Result<Self, HeadError> {
        let (mut pseudo, mut headers) = (PseudoHeaders::default(), HeaderMap::new());
        decode_section(section, limits.size, |name, value| {
            if name.first() != Some(&b':') {
                return push_header(&mut headers, name, value, limits.headers);
            }
            // RFC 9114 4.3: pseudo-headers come first, and each of them is known and occurs once.
            if !headers.is_empty() {
                return Err(HeadError::Malformed("a pseudo-header follows a header"));
            }
            let unknown = HeadError::Malformed("a pseudo-header is unknown");
            match place(&mut pseudo, name).ok_or(unknown)?.replace(value.to_vec()) {
                None => Ok(()),
                Some(_) => Err(HeadError::Malformed("a pseudo-header occurs twice")),
            }
        })?;
        Ok(Self { pseudo, headers })
    }
}

/// Returns `true` for a header of a connection of HTTP/1.1, which makes a message malformed (RFC 9114 4.2).
pub(crate) fn is_of_connection(name: &HeaderName, value: &[u8]) -> bool {
    [CONNECTION, TRANSFER_ENCODING, UPGRADE].contains(name)
        || ["keep-alive", "proxy-connection"].contains(&name.as_str())
        || (name == TE && value != b"trailers")
}

fn push_header(headers: &mut HeaderMap, name: &[u8], value: &[u8], max: usize) -> Result<(), HeadError> {
    // RFC 9114 4.2: names are in lower case.
    let is_lower = !name.iter().any(u8::is_ascii_uppercase);
    let name = HeaderName::from_lowercase(name).ok().filter(|_| is_lower);
    let name = name.ok_or(HeadError::Malformed("the name of a header is not a token in lower case"))?;
    if is_of_connection(&name, value) {
        return Err(HeadError::Malformed("a header is one of a connection of HTTP/1.1"));
    }
    let value = HeaderValue::from_bytes(value)
        .map_err(|_| HeadError::Malformed("the value of a header has an invalid character"))?;
    if name == COOKIE {
        // RFC 9114 4.2.1: the lines of a cookie are one value.
        if let Some(cookie) = headers.get_mut(COOKIE) {
            let joined = [cookie.as_bytes(), b"; ", value.as_bytes()].concat();
            *cookie = HeaderValue::from_bytes(&joined).expect("both parts are values");
            return Ok(());
        }
    }
    if headers.len() == max {
        return Err(HeadError::TooMany);
    }
    headers.append(name, value);
    Ok(())
}
