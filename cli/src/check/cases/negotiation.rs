//! Subprotocols and extensions (RFC 6455 9.1 and 11.3.4, RFC 7692 7.1).

use crate::check::script::{Answer, Case, must};
use crate::check::wire::head::Edit;

const EXTENSIONS: &str = "Sec-WebSocket-Extensions";
const SUBPROTOCOL: &str = "Sec-WebSocket-Protocol";

pub(super) fn cases() -> Vec<Case> {
    [subprotocols(), extensions(), invalid_offers(), valid_offers()].concat()
}

fn offer(id: &str, section: &'static str, value: &str) -> Case {
    must(format!("negotiation.{id}"), section, format!("{EXTENSIONS}: {value}"))
        .request([Edit::Set(EXTENSIONS, value.into())])
}

fn subprotocols() -> Vec<Case> {
    let unknown = || Edit::Set(SUBPROTOCOL, "x-bowline-unknown".into());
    vec![
        must("negotiation.subprotocol-none", "RFC 6455 4.2.2", "no subprotocol")
            .request([Edit::Remove(SUBPROTOCOL)])
            .answer(Answer::ValidOrRefused),
        must("negotiation.subprotocol-unknown", "RFC 6455 4.2.2", "the subprotocol x-bowline-unknown")
            .request([unknown()])
            .answer(Answer::ValidOrRefused),
        must("negotiation.subprotocol-lines", "RFC 6455 11.3.4", "subprotocols in two headers")
            .request([unknown(), Edit::Add(SUBPROTOCOL, "x-bowline-other".into())])
            .answer(Answer::ValidOrRefused),
    ]
}

fn extensions() -> Vec<Case> {
    vec![
        offer("extension-unknown", "RFC 6455 9.1", "x-bowline-unknown").answer(Answer::Plain).alive(),
        offer("extension-unknown-parameters", "RFC 6455 9.1", "x-bowline-unknown; level=9; \"q\"=\"a, b\"")
            .answer(Answer::PlainOrRefused),
        offer("extension-malformed", "RFC 6455 9.1", "permessage-deflate; =1").answer(Answer::PlainOrRefused),
        offer("extension-empty", "RFC 6455 9.1", "permessage-deflate;").answer(Answer::PlainOrRefused),
    ]
}

/// RFC 7692 7.1: a server declines an offer with parameters that are unknown, invalid or repeated.
fn invalid_offers() -> Vec<Case> {
    let invalid = [
        ("unknown-parameter", "RFC 7692 7.1", "x_bowline_unknown"),
        ("repeated", "RFC 7692 7.1", "client_no_context_takeover; client_no_context_takeover"),
        ("takeover-value", "RFC 7692 7.1.1.1", "server_no_context_takeover=1"),
        ("server-bits-7", "RFC 7692 7.1.2.1", "server_max_window_bits=7"),
        ("server-bits-16", "RFC 7692 7.1.2.1", "server_max_window_bits=16"),
        ("server-bits-zero", "RFC 7692 7.1.2.1", "server_max_window_bits=010"),
        ("server-bits-missing", "RFC 7692 7.1.2.1", "server_max_window_bits"),
        ("client-bits-7", "RFC 7692 7.1.2.2", "client_max_window_bits=7"),
    ];
    let case = |(id, section, parameters)| {
        offer(&format!("deflate-{id}"), section, &format!("permessage-deflate; {parameters}"))
            .answer(Answer::PlainOrRefused)
    };
    invalid.into_iter().map(case).collect()
}

fn valid_offers() -> Vec<Case> {
    vec![
        must("negotiation.deflate", "RFC 7692 7.1", "a correct offer of permessage-deflate")
            .answer(Answer::Compressed),
        offer("deflate-second-choice", "RFC 7692 5.1", "permessage-deflate; x_unknown=1, permessage-deflate")
            .answer(Answer::ValidOrRefused),
        offer("deflate-quoted", "RFC 6455 9.1", "permessage-deflate; client_max_window_bits=\"12\"")
            .answer(Answer::ValidOrRefused),
    ]
}
