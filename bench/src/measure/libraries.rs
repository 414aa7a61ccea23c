//! The libraries that take part in each case.

use clap::ValueEnum;

use super::cases::{Carrier, Case, Group, Workload};
use crate::frames::Kind;
use crate::servers::Library;

pub const FLOOR: &str = "floor";
/// The minimum cost of owned messages, locks and a handshake through hyper.
pub const LIMIT: &str = "limit";
pub const BOWLINE: &str = "bowline";
pub const UNPREPARED: &str = "bowline-unprepared";
pub const HUB: &str = "bowline-hub";

/// The libraries whose documentation shows a handshake over a plain stream.
const SHAKE_HANDS: [&str; 8] =
    [FLOOR, LIMIT, BOWLINE, "tokio-websockets", "tokio-tungstenite", "sockudo-ws", "soketto", "ratchet"];

/// Frameworks for HTTP, which serve alone, on their own runtimes.
const FRAMEWORKS: [&str; 2] = ["actix-ws", "ntex"];

/// The largest frame that ntex accepts, in bytes.
const NTEX_FRAME: usize = 64 * 1024;

/// The libraries that compress, and the floor.
const COMPRESS: [&str; 4] = [FLOOR, BOWLINE, "yawc", "sockudo-ws"];

/// Returns the libraries that take part, by their names on the command line.
pub fn of(case: &Case) -> Vec<String> {
    let all = || {
        let names = Library::value_variants().iter().filter_map(name);
        let takes_part = |library: &String| match library.as_str() {
            UNPREPARED | HUB => false,
            LIMIT => has_limit(case),
            framework if FRAMEWORKS.contains(&framework) => has_framework(case, framework),
            _ => true,
        };
        names.filter(takes_part)
    };
    let only = |names: &[&str]| all().filter(|library| names.contains(&library.as_str())).collect();
    match case.group {
        Group::SixteenInFlight => all().collect(),
        // With one message in flight there are no batches.
        Group::OneInFlight | Group::Connections | Group::Idle if case.carrier() == Carrier::Tcp => {
            all().filter(|name| !is_batched(name)).collect()
        }
        Group::Client if matches!(case.workload, Workload::Client(messages) if messages.depth == 1) => {
            all().filter(|name| !is_batched(name)).collect()
        }
        Group::Client => all().collect(),
        Group::Handshakes => only(&SHAKE_HANDS),
        Group::Http2 => only(&[FLOOR, LIMIT, BOWLINE]),
        Group::Http3 => only(&[FLOOR, BOWLINE]),
        Group::Compression => only(&COMPRESS),
        Group::CompressionIdle => only(&COMPRESS),
        // The hub gathers what is published at once.
        Group::FanOut | Group::Burst | Group::Chat | Group::Rooms if !case.is_one_by_one() => {
            [FLOOR, BOWLINE, HUB].map(str::to_owned).to_vec()
        }
        Group::FanOutCompressed => [FLOOR, BOWLINE, UNPREPARED].map(str::to_owned).to_vec(),
        _ => only(&[FLOOR, BOWLINE]),
    }
}

fn name<V: ValueEnum>(value: &V) -> Option<String> {
    value.to_possible_value().map(|value| value.get_name().to_owned())
}

/// Returns whether the limit takes part. The limit supports only unfragmented messages.
fn has_limit(case: &Case) -> bool {
    match case.workload {
        Workload::Echo(messages) | Workload::Client(messages) => {
            !matches!(messages.kind, Kind::Fragments | Kind::TinyFragments)
        }
        Workload::Handshakes => true,
        _ => false,
    }
}

/// Returns whether a framework takes part: in the echoes of a server with one thread.
fn has_framework(case: &Case, framework: &str) -> bool {
    match (case.workload, case.group) {
        (Workload::Echo(messages), Group::OneInFlight | Group::SixteenInFlight) => {
            framework != "ntex" || messages.size <= NTEX_FRAME
        }
        _ => false,
    }
}

/// Returns whether `library` is a published library other than bowline.
pub fn is_peer(library: &str) -> bool {
    ![FLOOR, LIMIT, BOWLINE, UNPREPARED, HUB].contains(&library)
}

/// Returns whether the library's loop gathers replies by hand, and flushes once per batch.
pub fn is_batched(library: &str) -> bool {
    library.ends_with("batch")
}
