//! Floods and sizes (RFC 6455 10.4): the server may close or accept, but goes on to serve.

use crate::check::script::{Answer, Case, Needs, must};
use crate::check::wire::frame::{binary, continuation, ping, pong, text};
use crate::check::wire::head::{Edit, Pace};

const CHUNK: usize = 64 << 10;

/// 17 MiB, just over what many servers allow.
const LARGE: usize = 17 << 20;

pub(super) fn cases() -> Vec<Case> {
    [heads(), lengths(), floods()].concat()
}

fn case(id: &str, title: &str) -> Case {
    must(format!("limit.{id}"), "RFC 6455 10.4", title)
}

fn heads() -> Vec<Case> {
    let case = |id: &str, title: &str| case(id, title).needs(Needs::Http1).answer(Answer::Anything);
    vec![
        case("head-1-mib", "a request with a header of 1 MiB")
            .request([Edit::Add("X-Large", "x".repeat(1 << 20))])
            .survives(),
        case("head-10000-headers", "a request with 10,000 headers")
            .request([Edit::AddMany("X-Many", "x", 10_000)])
            .survives(),
        case("head-unfinished", "half a request, and nothing more").pace(Pace::Truncated).survives(),
    ]
}

fn lengths() -> Vec<Case> {
    vec![
        case("length-1-gib", "the start of a frame that announces 1 GiB")
            .send([binary("start").announcing(1 << 30)])
            .survives(),
        case("length-2-62", "the start of a frame that announces 2^62 bytes")
            .send([binary("start").announcing(1 << 62)])
            .survives(),
        case("message-17-mib", "a message of 17 MiB in one frame")
            .send([binary("").announcing(LARGE as u64)])
            .repeat_bytes(vec![0; CHUNK], LARGE / CHUNK)
            .send([ping("last")])
            .survives(),
        case("fragments-17-mib", "a message of 17 MiB in fragments of 64 KiB")
            .send([binary("").more()])
            .repeat(&continuation(vec![0; CHUNK]).more(), LARGE / CHUNK)
            .send([continuation(""), ping("last")])
            .survives(),
    ]
}

fn floods() -> Vec<Case> {
    vec![
        case("fragments-100000", "a message in 100,000 fragments of one byte")
            .send([text("x").more()])
            .repeat(&continuation("x").more(), 100_000)
            .send([continuation("x"), ping("last")])
            .survives(),
        case("fragments-empty", "a message in 100,000 empty fragments")
            .send([text("").more()])
            .repeat(&continuation("").more(), 100_000)
            .send([continuation(""), ping("last")])
            .survives(),
        case("ping-flood", "10,000 pings").repeat(&ping([b'x'; 125]), 10_000).send([ping("last")]).survives(),
        case("pong-flood", "10,000 pongs").repeat(&pong([b'x'; 125]), 10_000).send([ping("last")]).survives(),
    ]
}
