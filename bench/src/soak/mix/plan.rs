//! The plan of a group of connections, drawn from the seed and the number of the group alone.

use bowline::MessageKind;

use crate::soak::peer::Random;

/// The compression variants of servers: level and context takeover. Each variant has its own listener.
pub const VARIANTS: [Option<(u8, bool)>; 5] =
    [None, Some((1, true)), Some((1, false)), Some((6, true)), Some((6, false))];

/// The number of runtimes: one with a single thread, one with two.
pub const RUNTIMES: usize = 2;

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    Memory,
    Tcp,
    Tls,
    Http2,
    /// HTTP/2 over TLS.
    Http2Tls,
    Unix,
}

impl Carrier {
    pub const ALL: [Self; 6] = [Self::Memory, Self::Tcp, Self::Tls, Self::Http2, Self::Http2Tls, Self::Unix];

    pub fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Http2Tls)
    }

    pub fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::Http2Tls)
    }

    /// Returns whether the server's side runs in a handler of `Server::serve`.
    pub fn is_served(self) -> bool {
        !matches!(self, Self::Memory | Self::Unix)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

impl Side {
    pub const BOTH: [Self; 2] = [Self::Client, Self::Server];

    pub fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// Concurrent connections of one carrier; with HTTP/2, in one HTTP/2 connection.
#[derive(Clone, Debug)]
pub struct GroupPlan {
    pub number: u32,
    pub carrier: Carrier,
    /// The runtime of each side.
    pub runtimes: [usize; 2],
    pub compression: Option<CompressionPlan>,
    /// The capacity of a memory pair, in bytes.
    pub capacity: usize,
    /// The fault of the transport; for each connection on its own, unless they share it.
    pub fault: Option<Fault>,
    pub connections: Vec<ConnectionPlan>,
}

/// The plan of compression. Each array has one value for the client and one for the server.
#[derive(Clone, Debug)]
pub struct CompressionPlan {
    pub levels: [u8; 2],
    pub takeover: [bool; 2],
    pub window_bits: [u8; 2],
    pub threshold: Option<usize>,
    /// The index of the server's variant, for carriers with a `Server`.
    pub variant: usize,
}

/// A fault that a relay causes after this many bytes.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub kind: FaultKind,
    pub after: u64,
}

#[derive(Clone, Copy, Debug)]
pub enum FaultKind {
    /// Both sides receive a reset.
    Reset,
    /// The stream of this side ends, and its later bytes are lost.
    HalfClose(Side),
}

#[derive(Clone, Debug)]
pub struct ConnectionPlan {
    pub number: u32,
    /// The attempts to connect that are dropped, each after this many polls.
    pub connects_cancelled: Vec<usize>,
    /// The number of polls after which the first attempt to accept is dropped.
    pub accept_cancelled: Option<usize>,
    pub ending: Ending,
    pub sides: [SidePlan; 2],
    /// The kind of the messages of each side, if all are of one kind.
    pub kinds: [Option<MessageKind>; 2],
}

impl ConnectionPlan {
    pub fn side(&self, side: Side) -> &SidePlan {
        &self.sides[side as usize]
    }
}

#[derive(Clone, Debug)]
pub struct Ending {
    pub how: How,
    pub by: Closers,
    /// The number of received messages after which the end begins. Without it, the end begins when both sides
    /// have sent all messages.
    pub after: Option<u32>,
    pub code: u16,
    pub reason: String,
    /// Set if the closing side continues to receive.
    pub reads_on: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Close,
    /// A `MessageWriter` is dropped in the middle of its message.
    Torn,
    /// The `WebSocket` is dropped.
    Drop,
    /// The handler returns.
    Leave,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closers {
    One(Side),
    Both,
}

impl Ending {
    pub fn is_by(&self, side: Side) -> bool {
        self.by == Closers::Both || self.by == Closers::One(side)
    }

    /// Returns whether all messages are sent before the end.
    pub fn is_complete(&self) -> bool {
        self.after.is_none() && matches!(self.how, How::Close | How::Leave)
    }
}

#[derive(Clone, Debug)]
pub struct SidePlan {
    pub senders: Vec<SenderPlan>,
    /// The number of pings that each task sends, and the task's runtime.
    pub pingers: Vec<(u32, usize)>,
    pub reading: Reading,
    /// One in this many receives is delayed; 0 means none.
    pub slow: u64,
    /// One in this many futures is dropped before it is ready; 0 means none.
    pub cancels: u64,
}

#[derive(Clone, Copy, Debug)]
pub struct SenderPlan {
    pub way: Way,
    pub messages: u32,
    /// The size of the largest body, in bytes.
    pub largest: usize,
    pub runtime: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `send`, `try_send` and `writer` at random.
    Any,
    Sink,
    /// The sink of a split `WebSocket`.
    SplitSink,
    Bytes,
    Prepared,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    Recv,
    Reader,
    Stream,
    Split,
    Bytes,
    Json,
}

/// The number of messages of each kind that a group has prepared.
pub const PREPARED: u32 = 24;

impl GroupPlan {
    pub fn new(seed: u64, number: u32, only: Option<Carrier>) -> Self {
        let mut random = Random(seed ^ (u64::from(number) << 32) ^ 0x50AC);
        random.next();
        let carrier = only.unwrap_or(Carrier::ALL[random.below(6) as usize]);
        let runtimes = [0; 2].map(|_: usize| random.below(RUNTIMES as u64) as usize);
        let compression = CompressionPlan::draw(&mut random);
        let capacity = 1 << (10 + random.below(7));
        let fault = (random.below(5) == 0).then(|| Fault::draw(&mut random));
        let most = if carrier.is_http2() { 16 } else { 6 };
        let count = 1 + random.below(most) as u32;
        let connections =
            (0..count).map(|place| ConnectionPlan::draw(&mut random, number * 64 + place, carrier)).collect();
        Self { number, carrier, runtimes, compression, capacity, fault, connections }
    }
}

impl CompressionPlan {
    fn draw(random: &mut Random) -> Option<Self> {
        let variant = random.below(VARIANTS.len() as u64) as usize;
        let (level, _) = VARIANTS[variant]?;
        let mut bool = || random.below(2) == 0;
        // A handshake negotiates compression for both sides or neither, and for neither if the server
        // declines.
        let both = bool();
        let takeover = [both || bool(), both || bool()];
        let client_level = if bool() { 1 } else { 6 };
        let threshold = if bool() { Some(16) } else { None };
        let window_bits =
            [0; 2].map(|_: u8| if random.below(4) > 0 { 15 } else { 9 + random.below(7) as u8 });
        Some(Self { levels: [client_level, level], takeover, window_bits, threshold, variant })
    }
}

impl Fault {
    fn draw(random: &mut Random) -> Self {
        let kind = match random.below(4) {
            0 => FaultKind::HalfClose(Side::Client),
            1 => FaultKind::HalfClose(Side::Server),
            _ => FaultKind::Reset,
        };
        // Faults occur from the middle of the handshake to the middle of large messages.
        let most = 1 << (8 + random.below(12));
        Self { kind, after: random.below(most) }
    }
}

impl ConnectionPlan {
    fn draw(random: &mut Random, number: u32, carrier: Carrier) -> Self {
        let cancels = if random.below(6) == 0 { 1 + random.below(2) } else { 0 };
        let connects_cancelled = (0..cancels).map(|_| 1 + random.below(6) as usize).collect();
        let accept_cancelled = (random.below(8) == 0).then(|| 1 + random.below(4) as usize);
        let ending = Ending::draw(random, carrier);
        let mut sides = [SidePlan::draw(random), SidePlan::draw(random)];
        let mut kinds = [None; 2];
        for side in Side::BOTH {
            let (this, that) = (side as usize, side.other() as usize);
            if random.below(10) == 0 {
                sides[this].senders.iter_mut().for_each(|sender| sender.way = Way::Json);
                sides[that].reading = Reading::Json;
            }
        }
        // A byte stream uses one kind of message for both directions.
        let any = if random.below(2) == 0 { MessageKind::Text } else { MessageKind::Binary };
        for side in Side::BOTH {
            let (this, that) = (side as usize, side.other() as usize);
            let is_json = sides[that].reading == Reading::Json;
            let plan = &mut sides[this];
            match plan.reading {
                Reading::Split if !is_json => plan.senders[0].way = Way::SplitSink,
                Reading::Bytes if !is_json && random.below(2) == 0 => {
                    plan.senders.truncate(1);
                    plan.senders[0].way = Way::Bytes;
                }
                _ => {}
            }
            let writes_bytes = plan.senders[0].way == Way::Bytes;
            if is_json {
                kinds[this] = Some(MessageKind::Text);
            } else if writes_bytes || sides[that].reading == Reading::Bytes {
                kinds[this] = Some(any);
            }
        }
        Self { number, connects_cancelled, accept_cancelled, ending, sides, kinds }
    }
}

impl Ending {
    fn draw(random: &mut Random, carrier: Carrier) -> Self {
        let how = match random.below(20) {
            0..2 => How::Torn,
            2..4 if !carrier.is_served() => How::Drop,
            4..6 if carrier.is_served() => How::Leave,
            _ => How::Close,
        };
        let side = if random.below(2) == 0 { Side::Client } else { Side::Server };
        let by = match how {
            How::Leave => Closers::One(Side::Server),
            How::Close if random.below(4) == 0 => Closers::Both,
            How::Close | How::Torn | How::Drop => Closers::One(side),
        };
        let after = match how {
            How::Leave => None,
            How::Torn | How::Drop => Some(random.below(40) as u32),
            How::Close => (random.below(3) == 0).then(|| random.below(40) as u32),
        };
        let mut code = match random.below(4) {
            0 => 1000,
            1 => [1001, 1003, 1008, 1009, 1011, 1012, 1013][random.below(7) as usize],
            _ => 3000 + random.below(2000) as u16,
        };
        let mut reason = match random.below(3) {
            0 => "r".repeat(random.below(124) as usize),
            1 => "\u{e9}".repeat(random.below(62) as usize),
            _ => String::new(),
        };
        match how {
            How::Torn => (code, reason) = (1011, "a message was not finished".to_owned()),
            How::Leave => (code, reason) = (if code % 2 == 0 { 1000 } else { 1011 }, String::new()),
            How::Close | How::Drop => {}
        }
        Self { how, by, after, code, reason, reads_on: random.below(4) > 0 }
    }
}

impl SidePlan {
    fn draw(random: &mut Random) -> Self {
        let senders = (0..1 + random.below(4)).map(|_| SenderPlan::draw(random)).collect();
        let pingers = (0..random.below(4))
            .map(|_| (1 + random.below(12) as u32, random.below(RUNTIMES as u64) as usize))
            .collect();
        let reading = [
            Reading::Recv,
            Reading::Recv,
            Reading::Reader,
            Reading::Reader,
            Reading::Stream,
            Reading::Split,
            Reading::Bytes,
        ][random.below(7) as usize];
        let slow = [0, 0, 2, 10][random.below(4) as usize];
        let cancels = [0, 2, 5][random.below(3) as usize];
        Self { senders, pingers, reading, slow, cancels }
    }
}

impl SenderPlan {
    fn draw(random: &mut Random) -> Self {
        let way = [Way::Any, Way::Any, Way::Any, Way::Sink, Way::Prepared][random.below(5) as usize];
        let (largest, most) = match random.below(50) {
            0 => (2 << 20, 3),
            1..6 => (128 << 10, 12),
            6..20 => (8 << 10, 50),
            _ => (512, 150),
        };
        let most = if way == Way::Prepared { PREPARED } else { most };
        let messages = random.below(u64::from(most) + 1) as u32;
        Self { way, messages, largest, runtime: random.below(RUNTIMES as u64) as usize }
    }
}
