//! Clients that publish, receive and check, as a Rust program does it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bowline::{Connector, WebSocket};
use clap::builder::RangedI64ValueParser;
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};

use crate::protocol::{FromClient, Said, ToClient};
use crate::sequence::{Counts, Sequence};

/// The rooms of the robots. HAProxy sends them to different nodes.
const ROOMS: [&str; 3] = ["lobby", "garden", "harbour"];

/// The number of robots in each room.
const PER_ROOM: usize = 2;

/// The largest number of messages that a robot publishes in a second.
pub(crate) const MAX_RATE: u32 = 100;

/// The bounds of the pauses before another attempt to connect.
const BACKOFF: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(3)];

/// The pause after a refusal.
const REFUSED: Duration = Duration::from_millis(500);

/// Returns the parser of a rate for the command line.
pub(crate) fn rates() -> RangedI64ValueParser<u32> {
    RangedI64ValueParser::new().range(..=i64::from(MAX_RATE))
}

/// The robots, which end when this value is dropped.
pub(crate) struct Robots {
    rate: watch::Sender<u32>,
    findings: Arc<[Findings]>,
    _tasks: JoinSet<()>,
}

/// The findings of one robot.
#[derive(Default)]
struct Findings(Mutex<Counts>);

/// The findings of all robots.
#[derive(Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Summary {
    /// The number of messages that each robot publishes in a second.
    rate: u32,
    robots: usize,
    #[serde(flatten)]
    counts: Counts,
}

impl Robots {
    /// Starts all robots as clients of HAProxy.
    pub(crate) fn start(port: u16, rate: u32) -> Self {
        let rate = watch::Sender::new(rate);
        let findings: Arc<[Findings]> = (0..ROOMS.len() * PER_ROOM).map(|_| Findings::default()).collect();
        let mut tasks = JoinSet::new();
        for index in 0..findings.len() {
            let (name, room) = (format!("robot {}", index + 1), ROOMS[index % ROOMS.len()]);
            let url = format!("ws://127.0.0.1:{port}/rooms/{room}");
            let robot = Robot {
                name,
                sequence: Sequence::default(),
                next: 1,
                rate: rate.subscribe(),
                findings: (Arc::clone(&findings), index),
            };
            tasks.spawn(robot.run(url));
        }
        Self { rate, findings, _tasks: tasks }
    }

    /// Sets the number of messages that each robot publishes in a second.
    pub(crate) fn set_rate(&self, rate: u32) {
        self.rate.send_replace(rate.min(MAX_RATE));
    }

    pub(crate) fn summary(&self) -> Summary {
        let mut sum = Counts::default();
        for findings in &*self.findings {
            let counts = *findings.0.lock().unwrap_or_else(PoisonError::into_inner);
            sum.received += counts.received;
            sum.gaps += counts.gaps;
            sum.doubles += counts.doubles;
            sum.losses += counts.losses;
        }
        Summary { rate: *self.rate.borrow(), robots: self.findings.len(), counts: sum }
    }
}

struct Robot {
    name: String,
    sequence: Sequence,
    /// The number of the message to publish next. The message is repeated until it is accepted.
    next: u64,
    rate: watch::Receiver<u32>,
    findings: (Arc<[Findings]>, usize),
}

/// The state of the message that was published last.
#[derive(Clone, Copy, PartialEq)]
enum Publishing {
    /// There is none, or it is accepted.
    Idle,
    /// Its answer has not arrived.
    Unanswered,
    /// The broker is away. The message is repeated at this time.
    Refused(Instant),
}

impl Robot {
    async fn run(mut self, url: String) {
        let [base, max] = BACKOFF;
        let mut client = Connector::new().reconnecting(url).backoff(base, max);
        loop {
            // All errors here are those of a cluster that is about to recover.
            if let Ok((socket, _)) = client.connect().await {
                let _ = self.talk(socket).await;
            }
        }
    }

    /// Continues after the last position, with the message that was not accepted.
    async fn talk(&mut self, mut socket: WebSocket) -> Result<(), bowline::Error> {
        let hello = FromClient::Hello {
            name: self.name.clone(),
            publisher: self.name.clone(),
            since: self.sequence.last.clone(),
        };
        socket.send_json(&hello).await?;
        let mut publishing = Publishing::Idle;
        let mut ticks = ticks(*self.rate.borrow_and_update());
        loop {
            tokio::select! {
                received = socket.recv_json() => match received? {
                    Some(message) => publishing = self.receive(message, publishing),
                    None => return Ok(()),
                },
                () = tick(&mut ticks), if publishing == Publishing::Idle => {
                    let said = Said { number: self.next, text: "beep".to_owned() };
                    socket.send_json(&FromClient::Publish(said)).await?;
                    publishing = Publishing::Unanswered;
                }
                () = refused(publishing) => publishing = Publishing::Idle,
                _ = self.rate.changed() => ticks = self::ticks(*self.rate.borrow_and_update()),
            }
        }
    }

    fn receive(&mut self, message: ToClient, publishing: Publishing) -> Publishing {
        match message {
            ToClient::Welcome { at, .. } => self.sequence.start(at),
            ToClient::Lost { at } => self.sequence.lose(at),
            ToClient::Message { at, before, message } => self.sequence.receive(at, &before, &message),
            ToClient::Accepted { number } if number == self.next => {
                self.next += 1;
                return Publishing::Idle;
            }
            ToClient::Refused { number, .. } if number == self.next => {
                return Publishing::Refused(Instant::now() + REFUSED);
            }
            _ => {}
        }
        let (findings, index) = &self.findings;
        *findings[*index].0.lock().unwrap_or_else(PoisonError::into_inner) = self.sequence.counts;
        publishing
    }
}

/// Returns a clock for a number of messages in a second.
fn ticks(rate: u32) -> Option<Interval> {
    let mut ticks = interval(Duration::from_secs(1).checked_div(rate)?);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Some(ticks)
}

/// Waits for the next tick, or forever.
async fn tick(ticks: &mut Option<Interval>) {
    match ticks {
        Some(ticks) => drop(ticks.tick().await),
        None => std::future::pending().await,
    }
}

/// Waits until a refused message may be repeated, or forever.
async fn refused(publishing: Publishing) {
    match publishing {
        Publishing::Refused(until) => sleep_until(until).await,
        Publishing::Idle | Publishing::Unanswered => std::future::pending().await,
    }
}
