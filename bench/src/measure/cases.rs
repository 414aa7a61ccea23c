//! The cases of the benchmark.

use anyhow::{Result, ensure};

use crate::frames::Kind;
use crate::servers::Behavior;

/// A group of cases that share a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    OneInFlight,
    SixteenInFlight,
    Client,
    Tls,
    Http2,
    Json,
    Http3,
    Compression,
    Handshakes,
    Idle,
    CompressionIdle,
    FanOut,
    FanOutCompressed,
    Burst,
    Chat,
    Rooms,
    Threads,
    Connections,
    Fragments,
    Stream,
}

impl Group {
    pub fn title(self) -> &'static str {
        match self {
            Self::OneInFlight => "Echo, 1 message in flight on each of 32 connections",
            Self::SixteenInFlight => "Echo, 16 messages in flight on each of 32 connections",
            Self::Client => "The client side, 32 connections",
            Self::Tls => "Echo over TLS, 32 connections",
            Self::Http2 => "Echo over HTTP/2: 32 connections of 1 stream, and 1 connection of 100 streams",
            Self::Json => "Echo of JSON documents, parsed and serialized, 32 connections",
            Self::Http3 => "Echo over HTTP/3: 32 connections of 1 stream, and 1 connection of 100 streams",
            Self::Compression => "Echo of compressed JSON, 32 connections",
            Self::Handshakes => "Opening handshakes, 8 at a time",
            Self::CompressionIdle => "Memory of 1,000 connections that may compress",
            Self::Idle => "Memory of 10,000 idle connections",
            Self::FanOut => "Fan-out of one message to 10,000 connections",
            Self::FanOutCompressed => "Fan-out of one compressed message to 1,000 connections",
            Self::Burst => "A burst of 16 messages to 1,000 connections",
            Self::Chat => "A chat room of 100 members, each message to all",
            Self::Rooms => "100 rooms of 100 members, each with a message to all",
            Self::Threads => "Threads",
            Self::Connections => "Growth: from 32 to 10,000 active connections",
            Self::Fragments => "Growth: text in fragments of 64 bytes",
            Self::Stream => "Growth: a message that is streamed back as it arrives",
        }
    }

    /// Returns the note above the table.
    pub fn note(self) -> &'static str {
        match self {
            Self::OneInFlight | Self::SixteenInFlight => "Costs are those of the server, per message.",
            Self::Client => {
                "Costs are those of the client, per message. The client sends back the messages of the \
                 load, which is the server here. The floor is a client without a library."
            }
            Self::Tls => "Costs are those of the server, per message. The floor is an echo over rustls.",
            Self::Http2 => {
                "Costs are those of the server, per message. The floor is an echo of request bodies by \
                 hyper, which unmasks the frames in them. The limit is an echo over hyper's upgraded streams \
                 (extended CONNECT), which copies their bytes. Connections are in clear text unless the name \
                 of the case contains \"tls\"."
            }
            Self::Json => {
                "Costs are those of the server, per message. bowline uses `recv_json` and `send_json`. The \
                 floor is bowline, too, but calls `serde_json` by hand between `recv` and `send`."
            }
            Self::Http3 => {
                "Costs are those of the server, per message. The floor is an echo on bare streams of quinn."
            }
            Self::Compression => {
                "Without context takeover, at level 6, the default of all libraries, and at level 1. Costs \
                 are those of the server, per message. The floor sends the compressed bytes back unchanged."
            }
            Self::Handshakes => {
                "Costs are those of the server, per connection: accepting, the opening handshake, and the \
                 end by a reset."
            }
            Self::Idle => {
                "Bytes of resident memory per connection: (now - before the first connection) / 10,000. \
                 First when \
                 all are open, then when each has echoed 4 KiB once."
            }
            Self::CompressionIdle => {
                "Bytes of resident memory per connection: (now - before the first connection) / 1,000. \
                 First when \
                 all are open, then when each has echoed 4 KiB of compressed JSON once. Without context \
                 takeover."
            }
            Self::Burst => {
                "Costs are those of the server, per message delivered to one connection. The floor writes \
                 16 ready \
                 frames at once, and bowline uses `Sender::batch`; in the second case, both write each \
                 message \
                 by itself. `bowline-hub` publishes 16 messages to a topic to which all connections \
                 subscribe. p50 and p99 are the times until a connection had all messages of a round."
            }
            Self::FanOutCompressed => {
                "Costs are those of the server, per message delivered to one connection. 1 KiB of JSON is \
                 compressed at level 6 without context takeover. The floor compresses each message once, and \
                 writes its frame to each socket; bowline does so by `Prepared`. `bowline-unprepared` sends \
                 a `Message` to each connection, which compresses the message each time."
            }
            Self::Rooms => {
                "Costs are those of the server, per message delivered to one connection. The second case is \
                 that of a server with two threads: see the note about threads below. p50 and p99 are the \
                 times until a connection had all messages of a round."
            }
            Self::FanOut | Self::Chat => {
                "Costs are those of the server, per message delivered to one connection. p50 and p99 are \
                 the times \
                 until a connection had all messages of a round."
            }
            Self::Threads => {
                "The server runs on one core with a current-thread runtime, and on two with a multi-thread \
                 runtime. The load needs a core of its own. On a machine with two cores, the load takes \
                 that core from the server's second thread. The load's cost per message is printed beside \
                 the server's."
            }
            Self::Connections => {
                "Growth is the cost relative to that at 32 connections. With more connections, every \
                 library costs more, since the caches of the kernel and the processor hold less of each. \
                 Compare the growth with the floor's."
            }
            Self::Fragments => {
                "Costs are per byte. Growth is the cost relative to that of the smaller message: 1 is \
                 linear."
            }
            Self::Stream => {
                "Costs are per byte. Peak memory is the server's largest resident memory. Growth is the \
                 cost relative to that of the smaller message."
            }
        }
    }

    /// Returns whether the rows of a library show the growth of its cost from the group's first case.
    pub fn shows_growth(self) -> bool {
        matches!(self, Self::Connections | Self::Fragments | Self::Stream)
    }
}

/// The messages of a case, and their connections.
#[derive(Clone, Copy, Debug)]
pub struct Messages {
    pub connections: usize,
    /// The number of messages in flight on each connection.
    pub depth: usize,
    /// Bytes in a message.
    pub size: usize,
    pub kind: Kind,
    /// The level of compression, if the messages are compressed.
    pub level: u8,
    /// The threads of the server's runtime.
    pub threads: usize,
    pub carrier: Carrier,
}

/// The protocols below the WebSockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    Tcp,
    Tls,
    /// HTTP/2 in clear text, with this many WebSockets on each TCP connection.
    Http2 {
        streams: usize,
    },
    /// HTTP/2 over TLS, with this many WebSockets on each TCP connection.
    Http2OverTls {
        streams: usize,
    },
    /// HTTP/3, with this many WebSockets on each QUIC connection.
    Http3 {
        streams: usize,
    },
}

/// The job of the measured process.
#[derive(Clone, Copy, Debug)]
pub enum Workload {
    /// A server that sends back each message.
    Echo(Messages),
    /// A client that sends back each message.
    Client(Messages),
    /// A server that sends back each message piece by piece, as it arrives.
    Stream(Messages),
    /// A server that parses each message as JSON, and sends back the document.
    Json(Messages),
    Handshakes,
    Idle {
        connections: usize,
        carrier: Carrier,
        /// The kind of the message that each connection echoes.
        kind: Kind,
    },
    /// A server that sends messages to all connections: its own on request, or in a chat each message that a
    /// connection sends.
    Broadcast {
        connections: usize,
        size: usize,
        behavior: Behavior,
        /// The threads of the server's runtime.
        threads: usize,
    },
}

/// A workload with a name.
#[derive(Clone, Debug)]
pub struct Case {
    pub group: Group,
    pub name: String,
    pub workload: Workload,
}

impl Case {
    /// Returns what carries the messages.
    pub fn carrier(&self) -> Carrier {
        match self.workload {
            Workload::Echo(Messages { carrier, .. }) | Workload::Idle { carrier, .. } => carrier,
            _ => Carrier::Tcp,
        }
    }

    /// Returns the features that this case needs.
    fn features(&self) -> &'static [&'static str] {
        match self.carrier() {
            Carrier::Tcp | Carrier::Tls => &[],
            Carrier::Http2 { .. } | Carrier::Http2OverTls { .. } => &["http2"],
            Carrier::Http3 { .. } => &["http3"],
        }
    }

    /// Returns the command that measures this case alone.
    pub fn command(&self) -> String {
        let frameworks: &[_] = if cfg!(feature = "frameworks") { &["frameworks"] } else { &[] };
        let features = match &[frameworks, self.features()].concat()[..] {
            [] => String::new(),
            features => format!(" --features {}", features.join(",")),
        };
        format!("cargo run --release --manifest-path bench/Cargo.toml{features} -- --case {}", self.name)
    }

    /// Returns whether the server writes each message of a burst by itself.
    pub fn is_one_by_one(&self) -> bool {
        matches!(self.workload, Workload::Broadcast { behavior: Behavior::BurstOneByOne, .. })
    }

    /// Returns the number of units in a message, by which costs are divided.
    pub fn units_per_message(&self) -> usize {
        match (self.group, self.workload) {
            (Group::Fragments | Group::Stream, Workload::Echo(messages) | Workload::Stream(messages)) => {
                messages.size
            }
            _ => 1,
        }
    }
}

impl Workload {
    /// Returns how many files each process has to open.
    pub fn files(self) -> u64 {
        let connections = match self {
            Self::Echo(messages) | Self::Client(messages) | Self::Stream(messages) | Self::Json(messages) => {
                messages.connections
            }
            Self::Idle { connections, .. } | Self::Broadcast { connections, .. } => connections,
            Self::Handshakes => 64,
        };
        connections as u64 + 64
    }

    pub fn threads(self) -> usize {
        match self {
            Self::Echo(messages) => messages.threads,
            Self::Broadcast { threads, .. } => threads,
            _ => 1,
        }
    }
}

/// The default compression level of all libraries.
pub const DEFAULT_LEVEL: u8 = 6;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Returns all cases, in the order of the report.
pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |group, name: String, workload| cases.push(Case { group, name, workload });
    for size in [16, 125, KIB, 16 * KIB, MIB] {
        add(Group::OneInFlight, format!("echo-{}-x1", name(size)), Workload::Echo(messages(1, size)));
    }
    add(Group::OneInFlight, "text-1KiB-x1".into(), Workload::Echo(text(1, KIB)));
    let fragments = Messages { kind: Kind::Fragments, ..messages(1, 64 * KIB) };
    add(Group::OneInFlight, "fragments-64KiB-x1".into(), Workload::Echo(fragments));
    for size in [16, 125, KIB, 16 * KIB] {
        add(Group::SixteenInFlight, format!("echo-{}-x16", name(size)), Workload::Echo(messages(16, size)));
    }
    add(Group::SixteenInFlight, "text-1KiB-x16".into(), Workload::Echo(text(16, KIB)));
    for (depth, sizes) in [(1, &[16, 125, KIB, 16 * KIB, MIB][..]), (16, &[16, 125, KIB, 16 * KIB])] {
        for size in sizes {
            let name = format!("client-{}-x{depth}", name(*size));
            add(Group::Client, name, Workload::Client(messages(depth, *size)));
        }
        add(Group::Client, format!("client-text-1KiB-x{depth}"), Workload::Client(text(depth, KIB)));
    }
    for (depth, size) in [(1, KIB), (16, 16), (16, KIB), (1, 16 * KIB)] {
        let workload = Workload::Echo(Messages { carrier: Carrier::Tls, ..messages(depth, size) });
        add(Group::Tls, format!("tls-{}-x{depth}", name(size)), workload);
    }
    if cfg!(feature = "http2") {
        let plain = |streams| Carrier::Http2 { streams };
        let tls = |streams| Carrier::Http2OverTls { streams };
        for (connections, carrier, prefix) in [
            (32, plain(1), "http2"),
            (100, plain(100), "http2-shared"),
            (32, tls(1), "http2-tls"),
            (100, tls(100), "http2-tls-shared"),
        ] {
            for depth in [1, 16] {
                let workload = Workload::Echo(Messages { connections, carrier, ..messages(depth, KIB) });
                add(Group::Http2, format!("{prefix}-1KiB-x{depth}"), workload);
            }
        }
    }
    for depth in [1, 16] {
        let workload = Workload::Json(Messages { kind: Kind::Document, ..messages(depth, KIB) });
        add(Group::Json, format!("json-{}-x{depth}", name(KIB)), workload);
    }
    if cfg!(feature = "http3") {
        for (connections, streams, prefix) in [(32, 1, "http3"), (100, 100, "http3-shared")] {
            for depth in [1, 16] {
                let carrier = Carrier::Http3 { streams };
                let workload = Workload::Echo(Messages { connections, carrier, ..messages(depth, KIB) });
                add(Group::Http3, format!("{prefix}-1KiB-x{depth}"), workload);
            }
        }
    }
    for (level, suffix) in [(DEFAULT_LEVEL, ""), (1, "-level-1")] {
        for size in [KIB, 16 * KIB] {
            let workload = Workload::Echo(Messages { kind: Kind::Json, level, ..messages(1, size) });
            add(Group::Compression, format!("compressed-{}-x1{suffix}", name(size)), workload);
        }
    }
    add(Group::Handshakes, "handshakes".into(), Workload::Handshakes);
    let broadcast =
        |connections, size, behavior| Workload::Broadcast { connections, size, behavior, threads: 1 };
    let idle = |connections, carrier, kind| Workload::Idle { connections, carrier, kind };
    add(Group::Idle, "idle".into(), idle(10_000, Carrier::Tcp, Kind::Binary));
    add(Group::Idle, "idle-tls".into(), idle(10_000, Carrier::Tls, Kind::Binary));
    if cfg!(feature = "http2") {
        let carrier = Carrier::Http2 { streams: 100 };
        add(Group::Idle, "idle-http2".into(), idle(10_000, carrier, Kind::Binary));
    }
    if cfg!(feature = "http3") {
        for (streams, name) in [(1, "idle-http3-connections"), (100, "idle-http3")] {
            let connections = if streams == 1 { 1_000 } else { 10_000 };
            add(Group::Idle, name.into(), idle(connections, Carrier::Http3 { streams }, Kind::Binary));
        }
    }
    add(Group::CompressionIdle, "idle-compressed".into(), idle(1_000, Carrier::Tcp, Kind::Json));
    for size in [KIB, 64 * KIB] {
        add(Group::FanOut, format!("fan-out-{}", name(size)), broadcast(10_000, size, Behavior::FanOut));
    }
    let compressed = broadcast(1_000, KIB, Behavior::FanOutCompressed);
    add(Group::FanOutCompressed, format!("fan-out-compressed-{}", name(KIB)), compressed);
    for (behavior, suffix) in [(Behavior::Burst, ""), (Behavior::BurstOneByOne, "-one-by-one")] {
        add(Group::Burst, format!("burst-16B{suffix}"), broadcast(1_000, 16, behavior));
    }
    add(Group::Chat, "chat-125B".into(), broadcast(100, 125, Behavior::Chat));
    for threads in [1, 2] {
        let workload =
            Workload::Broadcast { connections: 10_000, size: 125, behavior: Behavior::Rooms, threads };
        add(Group::Rooms, format!("rooms-100x100-{}-threads-{threads}", name(125)), workload);
    }
    for (depth, size) in [(1, 16), (16, KIB)] {
        for threads in [1, 2] {
            let workload = Workload::Echo(Messages { threads, ..messages(depth, size) });
            add(Group::Threads, format!("threads-{threads}-{}-x{depth}", name(size)), workload);
        }
    }
    for connections in [32, 10_000] {
        let workload = Workload::Echo(Messages { connections, ..messages(1, KIB) });
        add(Group::Connections, format!("connections-{connections}"), workload);
    }
    for size in [MIB, 4 * MIB] {
        let messages = Messages { connections: 1, kind: Kind::TinyFragments, ..messages(1, size) };
        add(Group::Fragments, format!("tiny-fragments-{}", name(size)), Workload::Echo(messages));
    }
    for size in [MIB, 64 * MIB] {
        let messages = Messages { connections: 1, ..messages(1, size) };
        add(Group::Stream, format!("stream-{}", name(size)), Workload::Stream(messages));
    }
    cases
}

/// Returns the cases that match `names`, each of which is a full name or a part of names. Returns all cases
/// if `names` is empty.
pub fn select(names: &[String]) -> Result<Vec<Case>> {
    let all = all();
    if names.is_empty() {
        return Ok(all);
    }
    for wanted in names {
        ensure!(
            all.iter().any(|case| case.name.contains(wanted.as_str())),
            "there is no case {wanted:?}: see --list"
        );
    }
    let exact = |wanted: &String| all.iter().any(|case| case.name == *wanted);
    let means = |wanted: &String, case: &Case| match exact(wanted) {
        true => case.name == *wanted,
        false => case.name.contains(wanted.as_str()),
    };
    Ok(all.iter().filter(|case| names.iter().any(|wanted| means(wanted, case))).cloned().collect())
}

fn messages(depth: usize, size: usize) -> Messages {
    Messages {
        connections: 32,
        depth,
        size,
        kind: Kind::Binary,
        level: DEFAULT_LEVEL,
        threads: 1,
        carrier: Carrier::Tcp,
    }
}

fn text(depth: usize, size: usize) -> Messages {
    Messages { kind: Kind::Text, ..messages(depth, size) }
}

/// Formats a size for the name of a case.
fn name(size: usize) -> String {
    match size {
        0..KIB => format!("{size}B"),
        KIB..MIB => format!("{}KiB", size / KIB),
        _ => format!("{}MiB", size / MIB),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_of_a_case_measures_that_case_alone() {
        for case in all() {
            let command = case.command();
            let name = command.rsplit(' ').next().unwrap();
            let selected = select(&[name.to_owned()]).unwrap();
            assert_eq!(selected.iter().map(|case| &*case.name).collect::<Vec<_>>(), [&*case.name]);
            for carrier in ["http2", "http3"] {
                assert_eq!(command.matches(carrier).count() > 1, name.contains(carrier), "{command}");
            }
        }
    }
}
