//! WebSockets over HTTP/2 (RFC 8441). With `--http 2`, the other chapters use it, too.

use super::streams::Chapter;
use crate::check::script::{Answer, Case, Needs, must};
use crate::check::wire::head::Edit;

pub(super) fn cases() -> Vec<Case> {
    let chapter =
        Chapter { name: "http2", streams: "RFC 8441 5", requests: "RFC 8441 4", needs: Needs::Http2 };
    [chapter.cases(), vec![request_that_ends()]].concat()
}

fn request_that_ends() -> Case {
    must("http2.request-ends", "RFC 8441 5", "a request that ends its stream at once")
        .needs(Needs::Http2)
        .request([Edit::EndOfStream])
        .answer(Answer::Anything)
        .survives()
}
