//! The judgement on the response of an opening handshake.

use bowline_proto::header::Extension;
use bowline_proto::{DeflateParameters, Inflater};

use crate::check::finding::{Finding, Strictness};
use crate::check::wire::head::{RequestHead, ResponseHead};
use crate::connect::Version;

/// Checks every header of a response that accepts (RFC 6455 4.2.2, RFC 8441 5).
pub(crate) fn check_accepted(
    request: &RequestHead,
    head: &ResponseHead,
    version: Version,
) -> Result<(), Finding> {
    if version == Version::Http1 {
        check_upgrade(request, head)?;
    }
    check_subprotocol(request, head)?;
    let offered = extensions(&request.values("sec-websocket-extensions").collect::<Vec<_>>().join(", "));
    let offered: Vec<String> = offered.unwrap_or_default();
    for extension in agreed(head)? {
        if !offered.contains(&extension) {
            let expected = "no extension that was not offered";
            return Err(Finding::new(expected, format!("Sec-WebSocket-Extensions: {extension}")));
        }
    }
    Ok(())
}

fn check_upgrade(request: &RequestHead, head: &ResponseHead) -> Result<(), Finding> {
    if head.tokens("upgrade") != ["websocket"] {
        let observed = format!("Upgrade: {}", head.value("upgrade").unwrap_or("(absent)"));
        return Err(Finding::new("Upgrade: websocket", observed));
    }
    if !head.tokens("connection").iter().any(|token| token == "upgrade") {
        let observed = format!("Connection: {}", head.value("connection").unwrap_or("(absent)"));
        return Err(Finding::new("Connection: Upgrade", observed));
    }
    let accept = request.accept().unwrap_or_default();
    let answers: Vec<_> = head.headers.get_all("sec-websocket-accept").iter().collect();
    if answers.len() != 1 || answers[0].as_bytes() != accept.as_bytes() {
        let observed = format!(
            "{} of them, {}",
            answers.len(),
            head.value("sec-websocket-accept").unwrap_or("the header is absent")
        );
        return Err(Finding::new(format!("one Sec-WebSocket-Accept: {accept}"), observed));
    }
    Ok(())
}

fn check_subprotocol(request: &RequestHead, head: &ResponseHead) -> Result<(), Finding> {
    let chosen: Vec<_> = head.headers.get_all("sec-websocket-protocol").iter().collect();
    let [chosen] = chosen[..] else {
        return match chosen.len() {
            0 => Ok(()),
            count => Err(Finding::new("at most one Sec-WebSocket-Protocol", format!("{count} of them"))),
        };
    };
    let offered = request.values("sec-websocket-protocol");
    let mut offered = offered.flat_map(|value| value.split(',')).map(str::trim);
    if offered.any(|offered| offered.as_bytes() == chosen.as_bytes()) {
        return Ok(());
    }
    let observed = format!("Sec-WebSocket-Protocol: {}", chosen.as_bytes().escape_ascii());
    Err(Finding::new("no subprotocol that was not offered", observed))
}

/// Checks that no extension was agreed on.
pub(crate) fn check_plain(head: &ResponseHead) -> Result<(), Finding> {
    if agreed(head)?.is_empty() {
        return Ok(());
    }
    let value = head.value("sec-websocket-extensions").unwrap_or_default();
    let observed = format!("Sec-WebSocket-Extensions: {value}");
    Err(Finding::new("the offer of the extension is declined", observed))
}

/// The value of Sec-WebSocket-Extensions with which compression is offered.
pub(crate) fn compression_offer() -> String {
    DeflateParameters::default().offer().to_string()
}

/// Returns a decompressor for what was agreed on, or `None` if the server has declined compression.
pub(crate) fn agreed_compression(head: &ResponseHead) -> Result<Option<Inflater>, Finding> {
    let value = extensions_header(head);
    let invalid = |why: String| {
        Finding::new("an answer to the offer of permessage-deflate", format!("\"{value}\": {why}"))
    };
    if value.is_empty() {
        return Ok(None);
    }
    let parsed = Extension::parse_list(&value).ok_or_else(|| invalid("malformed".into()))?;
    match DeflateParameters::default().verify(&parsed) {
        Ok(None) => Ok(None),
        Ok(Some(agreed)) => {
            let takes_context_over = !agreed.server_no_context_takeover;
            Ok(Some(Inflater::new(4 << 20, agreed.server_max_window_bits, takes_context_over)))
        }
        Err(why) => Err(invalid(why.to_string())),
    }
}

/// Checks a response that refuses.
pub(crate) fn check_rejected(
    head: &ResponseHead,
    (statuses, header): (&[u16], Option<&str>),
    strictness: Strictness,
) -> Result<(), Finding> {
    let status = head.status;
    if strictness == Strictness::Should && !statuses.is_empty() && !statuses.contains(&status) {
        return Err(Finding::new(format!("the status {}", listed(statuses)), format!("the status {status}")));
    }
    match header {
        Some(header) if head.value(header).is_none() => {
            let observed = format!("the status {status} without this header");
            Err(Finding::new(format!("a refusal with the header {header}"), observed))
        }
        _ => Ok(()),
    }
}

/// Alternatives in words.
pub(crate) fn listed(numbers: &[u16]) -> String {
    numbers.iter().map(u16::to_string).collect::<Vec<_>>().join(" or ")
}

fn extensions_header(head: &ResponseHead) -> String {
    let values = head.headers.get_all("sec-websocket-extensions").iter();
    values.filter_map(|value| value.to_str().ok()).collect::<Vec<_>>().join(", ")
}

/// The names of the extensions in the response.
fn agreed(head: &ResponseHead) -> Result<Vec<String>, Finding> {
    let value = extensions_header(head);
    extensions(&value)
        .ok_or_else(|| Finding::new("a well-formed header", format!("Sec-WebSocket-Extensions: {value}")))
}

fn extensions(value: &str) -> Option<Vec<String>> {
    if value.is_empty() {
        return Some(Vec::new());
    }
    let parsed = Extension::parse_list(value)?;
    Some(parsed.into_iter().map(|extension| extension.name.into_owned()).collect())
}
