//! The authority of a URL, an origin or a Host header: a host and a port (RFC 3986 3.2).

use std::net::Ipv6Addr;

/// Splits `host[:port]`, or returns `None` if the text has another form. An IPv6 address keeps its brackets.
pub(crate) fn split_authority(authority: &str) -> Option<(&str, Option<u16>)> {
    let host_end = match authority.strip_prefix('[') {
        Some(rest) => rest.find(']')? + 2,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at(host_end);
    let port = match rest.strip_prefix(':') {
        None if rest.is_empty() => None,
        // RFC 3986 3.2.3: an empty port means the default port.
        Some("") => None,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
        _ => return None,
    };
    is_host(host).then_some((host, port))
}

fn is_host(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(is_host_byte),
    }
}

/// Returns `true` if a registered name may contain the byte (RFC 3986 3.2.2). `%` is left out, because no
/// name that resolves contains it.
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::split_authority;

    #[test]
    fn hosts_and_ports_are_split() {
        for (authority, expected) in [
            ("example.com", Some(("example.com", None))),
            ("example.com:", Some(("example.com", None))),
            ("example.com:8080", Some(("example.com", Some(8080)))),
            ("[::1]", Some(("[::1]", None))),
            ("[::1]:81", Some(("[::1]", Some(81)))),
            ("", None),
            (":80", None),
            ("example.com:65536", None),
            ("example.com:+80", None),
            ("example.com:80:80", None),
            ("::1", None),
            ("[::1", None),
            ("[::1]80", None),
            ("[nonsense]", None),
            ("user@example.com", None),
            ("example.com/path", None),
            ("bücher.example", None),
        ] {
            assert_eq!(split_authority(authority), expected, "{authority:?}");
        }
    }
}
