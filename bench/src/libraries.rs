//! Which libraries take part in which case.

use clap::ValueEnum;

use crate::cases::Workload;
use crate::servers::Library;

pub const FLOOR: &str = "floor";
pub const BOWLINE: &str = "bowline";

/// Those that can do it, by their names on the command line.
pub fn of(workload: Workload) -> Vec<String> {
    let some = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    match workload {
        Workload::Stream(_) => some(&[FLOOR, BOWLINE]),
        Workload::Broadcast { .. } => some(&[FLOOR, BOWLINE, "tokio-tungstenite"]),
        Workload::Echo(messages) if messages.tls => some(&[FLOOR, BOWLINE]),
        Workload::Idle { tls: true, .. } => some(&[FLOOR, BOWLINE]),
        Workload::Echo(_) | Workload::Client(_) | Workload::Handshakes | Workload::Idle { .. } => {
            Library::value_variants().iter().filter_map(name).collect()
        }
    }
}

fn name<V: ValueEnum>(value: &V) -> Option<String> {
    value.to_possible_value().map(|value| value.get_name().to_owned())
}

/// Whether it is neither the floor nor bowline.
pub fn is_peer(library: &str) -> bool {
    library != FLOOR && library != BOWLINE
}

/// Whether its loop gathers replies by hand, and flushes once for all that was ready.
pub fn is_batched(library: &str) -> bool {
    library.ends_with("batch")
}
