//! The load on servers that send messages to all connections: fan-out, bursts and chat.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use hdrhistogram::Histogram;
use mio::{Events, Interest, Poll, Token};

use super::runs::{self, Span};
use super::wire;
use crate::frames::{Counter, Kind, encode_masked, payload};
use crate::servers::MEMBERS;

#[derive(clap::Args, Clone, Debug)]
pub struct Broadcast {
    #[arg(long)]
    pub address: SocketAddr,
    #[arg(long)]
    pub connections: usize,
    /// Bytes in a message.
    #[arg(long)]
    pub size: usize,
    /// Each connection sends a message of its own in each round. Without this, the first connection requests
    /// a burst from the server.
    #[arg(long)]
    pub chat: bool,
    /// The connections are in rooms of [`MEMBERS`], the first member of which requests its messages.
    #[arg(long)]
    pub rooms: bool,
    /// Messages in the server's burst.
    #[arg(long, default_value_t = 1)]
    pub burst: usize,
    /// The kind of the server's own messages.
    #[arg(long, default_value = "binary")]
    pub kind: Kind,
}

pub fn run(load: &Broadcast) -> Result<()> {
    let poll = Poll::new()?;
    let mut members = Vec::with_capacity(load.connections);
    for number in 0..load.connections {
        let mut stream = wire::open_plain(load.address, load.kind.is_compressed())?;
        if load.rooms {
            let mut join = Vec::new();
            encode_masked(Kind::Text, format!("join {}", number / MEMBERS).as_bytes(), number, &mut join);
            write_whole(&mut stream, &join)?;
        }
        poll.registry().register(&mut stream, Token(number), Interest::READABLE)?;
        let mut message = Vec::new();
        if load.chat {
            encode_masked(Kind::Text, &payload(Kind::Text, load.size, number), number, &mut message);
        } else if number == 0 || load.rooms && number % MEMBERS == 0 {
            encode_masked(Kind::Text, format!("go {}", load.size).as_bytes(), number, &mut message);
        }
        members.push(Member { stream, message, received: Counter::keeping(), missing: 0 });
    }
    // The response to a handshake may arrive before the server has added the connection to its list.
    std::thread::sleep(Duration::from_millis(500));
    let mut running = Running {
        poll,
        members,
        burst: load.burst,
        rooms: if load.rooms { load.connections.div_ceil(MEMBERS) } else { 1 },
        events: Events::with_capacity(1024),
        buffer: vec![0; 256 * 1024],
    };
    running.check(load)?;
    runs::obey(|span, latencies| {
        let began = Instant::now();
        let (mut messages, mut rounds) = (0, 0);
        loop {
            messages += running.round(latencies)?;
            rounds += 1;
            let done = match span {
                Span::Time(time) => began.elapsed() >= time,
                Span::Rounds(count) => rounds >= count,
            };
            if done {
                return Ok(messages);
            }
        }
    })
}

struct Member {
    stream: mio::net::TcpStream,
    /// The bytes to send in each round, possibly none.
    message: Vec<u8>,
    received: Counter,
    /// The number of missing messages in this round.
    missing: usize,
}

struct Running {
    poll: Poll,
    members: Vec<Member>,
    /// The messages that each member receives for each message that is sent.
    burst: usize,
    rooms: usize,
    events: Events,
    buffer: Vec<u8>,
}

impl Running {
    /// Checks that each connection receives the right messages, byte for byte, in any order.
    fn check(&mut self, load: &Broadcast) -> Result<()> {
        self.round(&mut Histogram::new(3)?)?;
        let mut expected: Vec<Vec<u8>> = match load.chat {
            true => (0..load.connections).map(|number| payload(Kind::Text, load.size, number)).collect(),
            false => vec![payload(load.kind, load.size, 0); load.burst],
        };
        expected.sort();
        for member in &mut self.members {
            let received = std::mem::take(&mut member.received);
            let payloads = received.messages();
            let mut messages: Vec<_> = payloads.chunks(load.size).collect();
            messages.sort();
            ensure!(
                received.is_compressed() == load.kind.is_compressed(),
                "the messages are compressed, or not, against what was negotiated"
            );
            ensure!(messages == expected, "a member got wrong messages");
        }
        Ok(())
    }

    /// Sends the messages of a round, waits until all connections have received them, and returns their
    /// number.
    fn round(&mut self, latencies: &mut Histogram<u64>) -> Result<usize> {
        let began = Instant::now();
        let sending = self.members.iter().filter(|member| !member.message.is_empty()).count();
        let each = sending / self.rooms * self.burst;
        for member in &mut self.members {
            member.missing = each;
        }
        for member in &mut self.members {
            write_whole(&mut member.stream, &member.message)?;
        }
        let mut waiting = self.members.len();
        while waiting > 0 {
            self.poll.poll(&mut self.events, Some(Duration::from_secs(30)))?;
            ensure!(!self.events.is_empty(), "{waiting} members got nothing for 30 s");
            for event in &self.events {
                let member = &mut self.members[event.token().0];
                let before = member.missing;
                member.read(&mut self.buffer)?;
                if before > 0 && member.missing == 0 {
                    waiting -= 1;
                    let _ = latencies.record(began.elapsed().as_nanos() as u64);
                }
            }
        }
        Ok(each * self.members.len())
    }
}

/// Writes a small message, after the socket has consumed the previous ones.
fn write_whole(stream: &mut mio::net::TcpStream, message: &[u8]) -> Result<()> {
    let count = stream.write(message)?;
    ensure!(count == message.len(), "a message was not taken whole");
    Ok(())
}

impl Member {
    fn read(&mut self, buffer: &mut [u8]) -> Result<()> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => bail!("the server ended the connection"),
                Ok(count) => {
                    let messages = self.received.count(&buffer[..count]);
                    ensure!(messages <= self.missing, "the server sent more than was asked for");
                    self.missing -= messages;
                    // A short read has emptied the socket.
                    if count < buffer.len() {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
