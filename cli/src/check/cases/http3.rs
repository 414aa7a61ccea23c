//! WebSockets over HTTP/3 (RFC 9220). With `--http 3`, the other chapters use it, too.

use super::streams::Chapter;
use crate::check::script::{Case, Needs};

pub(super) fn cases() -> Vec<Case> {
    Chapter { name: "http3", streams: "RFC 9220 3", requests: "RFC 9220 3", needs: Needs::Http3 }.cases()
}
