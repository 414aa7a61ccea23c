//! Schedules of failures, against the presence of a real broker.
//!
//! People come and go on three hubs of this process, and on a node in a process of its own. Meanwhile, the
//! broker is killed, stopped and emptied; lines to it are cut and stalled; hubs end, and the process is
//! killed and stopped. On each hub, somebody watches each room from its beginning to its end. Afterwards:
//!
//! - Once a few leases are over, all hubs agree on who is present and how many, and that is who is there.
//! - Nobody has joined twice, or left without being there, in the frames of any watcher.
//! - The frames of each watcher lead to those who are there.
//!
//! A schedule that fails prints its seed, with which `BOWLINE_HUB_SEED=<seed>` replays the events.

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bowline::{WebSocket, pair};
use bowline_hub::{Engine, EngineError, Hub, HubLimits, Member};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::presence::{Seen, builder, keys};
use crate::process::{NodeProcess, announce, lines};
use crate::proxy::{Line, Proxy};
use crate::random::{Random, for_each_seed};
use crate::{Outcome, TestResult};

const HUBS: usize = 3;
const EVENTS: u64 = 12;
/// The number of schedules at the same time.
const THREADS: usize = 4;
const ROOMS: [&str; 2] = ["room/a", "room/b.1"];
const PEOPLE: [&str; 6] = ["ann", "ben", "cat", "dan", "eve", "fay"];
const LEASE: Duration = Duration::from_secs(2);
const LINGER: Duration = Duration::from_millis(300);
/// The time within which everybody must agree after the last failure.
const CALM: Duration = Duration::from_secs(30);
/// The time for a schedule.
const PATIENCE: Duration = Duration::from_secs(300);
/// The URL of the broker, for the process of a node.
const URL: &str = "BOWLINE_PRESENCE_URL";

/// A broker of the schedules.
pub trait Broker: Sized {
    /// The engine for this broker.
    type Engine: Engine;

    /// The scheme of its URLs.
    const SCHEME: &str;

    /// The test that calls [`serve`].
    const NODE: &str;

    /// Starts a broker that keeps its data. Returns `None` if there is none on this machine.
    fn start() -> impl Future<Output = Result<Option<Self>, Box<dyn Error>>>;

    /// Connects to a broker.
    fn connect(url: &str) -> impl Future<Output = Result<Self::Engine, EngineError>>;

    /// Returns the address, such as `127.0.0.1:6379`.
    fn address(&self) -> String;

    /// Sends a signal to the process, such as `-STOP`.
    fn signal(&self, name: &str) -> TestResult;

    /// Kills the broker without any warning.
    fn kill(&mut self) -> TestResult;

    /// Removes the data of a broker that was killed.
    fn forget(&mut self) -> TestResult;

    /// Starts a broker that was killed.
    fn restart(&mut self) -> impl Future<Output = TestResult>;
}

async fn hub<B: Broker>(url: &str) -> Result<Hub, Box<dyn Error>> {
    let limits = HubLimits::default()
        .presence_lease(LEASE)
        .presence_linger(LINGER)
        .engine_timeout(Duration::from_secs(1));
    Ok(builder(B::connect(url).await?).limits(limits).build()?)
}

/// Opens a tab of somebody. The second socket is the client.
async fn open(hub: &Hub, room: &str, person: &str) -> Outcome<(Member, [WebSocket; 2])> {
    let (client, server) = pair();
    let member = hub.join(&server)?;
    let _start = member.subscribe(room, None).await?;
    member.appear(room, person).await?;
    Ok((member, [server, client]))
}

/// The node in a process of its own: opens and closes the tabs that the schedule names, until that is over.
pub async fn serve<B: Broker>() -> TestResult {
    let Ok(url) = std::env::var(URL) else { return Ok(()) };
    let hub = hub::<B>(&url).await?;
    let (mut lines, mut tabs) = (lines(), Vec::new());
    announce("ready");
    while let Some(line) = lines.recv().await {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["open", room, person] => match open(&hub, room, person).await {
                Ok(tab) => {
                    tabs.push(tab);
                    announce("open");
                }
                Err(error) => announce(&format!("not open: {error}")),
            },
            // The tabs are numbered as the schedule numbers them.
            ["close", number] => drop(tabs.swap_remove(number.parse()?)),
            _ => return Err(format!("an unknown line: {line}").into()),
        }
    }
    Ok(())
}

/// A failure. Times are in milliseconds.
#[derive(Clone, Copy, Debug)]
enum Failure {
    KillBroker { away: u64 },
    EmptyBroker { away: u64 },
    StopBroker { time: u64 },
    Line { hub: usize, line: Line, time: u64 },
    EndHub(usize),
    KillProcess,
    StopProcess { time: u64 },
}

impl Failure {
    fn random(random: &mut Random) -> Self {
        let time = random.below(3000);
        match random.below(10) {
            0 => Self::KillBroker { away: time },
            1 => Self::EmptyBroker { away: time },
            2 => Self::StopBroker { time },
            3 | 4 => {
                let line = [Line::Cut, Line::Stalled, Line::StalledToServer, Line::StalledToClient];
                Self::Line { hub: random.index(HUBS), line: line[random.index(4)], time }
            }
            5 | 6 => Self::EndHub(random.index(HUBS)),
            7 | 8 => Self::KillProcess,
            _ => Self::StopProcess { time },
        }
    }
}

/// A tab of somebody.
struct Tab {
    room: &'static str,
    person: &'static str,
    member: Member,
    _sockets: [WebSocket; 2],
}

/// Somebody who only looks.
struct Watcher {
    room: &'static str,
    seen: Arc<Mutex<Sight>>,
    reader: JoinHandle<()>,
    _connection: (Member, WebSocket),
}

/// The people that a watcher has seen.
#[derive(Default)]
struct Sight {
    seen: Seen,
    frames: Vec<String>,
    /// The first frame that did not fit.
    error: Option<String>,
}

impl Watcher {
    async fn start(hub: &Hub, room: &'static str) -> Outcome<Self> {
        let (mut client, server) = pair();
        let member = hub.join(&server)?;
        let _start = member.subscribe(room, None).await?;
        let seen = Arc::<Mutex<Sight>>::default();
        let noted = Arc::clone(&seen);
        let reader = tokio::spawn(async move {
            while let Ok(Some(frame)) = client.recv().await {
                let mut sight = noted.lock().unwrap_or_else(PoisonError::into_inner);
                let frame = frame.as_text().unwrap_or("no text");
                sight.frames.push(frame.to_owned());
                if let Err(error) = sight.seen.note(frame) {
                    sight.error.get_or_insert(error);
                }
            }
        });
        Ok(Self { room, seen, reader, _connection: (member, server) })
    }

    fn check(&self, truth: &BTreeSet<String>) -> Result<(), String> {
        let sight = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match &sight.error {
            Some(error) => Err(format!("{}: {error}, in {:?}", self.room, sight.frames)),
            None if sight.seen.keys == *truth => Ok(()),
            None => Err(format!("{}: {:?} lead to others than {truth:?}", self.room, sight.frames)),
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// A hub, with all that is on it.
struct Node {
    proxy: Proxy,
    hub: Hub,
    tabs: Vec<Tab>,
    watchers: Vec<Watcher>,
}

/// Everything that a schedule changes.
struct Scene<B> {
    broker: B,
    nodes: Vec<Node>,
    process: NodeProcess,
    /// The tabs of the process: rooms and people.
    process_tabs: Vec<(&'static str, &'static str)>,
    random: Random,
    events: Vec<String>,
}

impl<B: Broker> Scene<B> {
    async fn start(seed: u64) -> Result<Option<Self>, Box<dyn Error>> {
        let Some(broker) = B::start().await? else { return Ok(None) };
        let mut nodes = Vec::new();
        for _ in 0..HUBS {
            let proxy = Proxy::start(broker.address()).await?;
            let hub = again(async || hub::<B>(&proxy.url(B::SCHEME)).await).await?;
            nodes.push(Node { proxy, hub, tabs: Vec::new(), watchers: Vec::new() });
        }
        let process = again(async || start_process(&broker).await).await?;
        let (process_tabs, events) = (Vec::new(), Vec::new());
        let mut scene = Self { broker, nodes, process, process_tabs, random: Random::new(seed), events };
        for node in 0..HUBS {
            scene.watch(node).await?;
        }
        Ok(Some(scene))
    }

    /// Lets somebody watch each room on a hub.
    async fn watch(&mut self, node: usize) -> TestResult {
        let Node { hub, watchers, .. } = &mut self.nodes[node];
        for room in ROOMS {
            let watching = async {
                loop {
                    match Watcher::start(hub, room).await {
                        Ok(watcher) => return watcher,
                        // The broker may still be busy with the last failure.
                        Err(_) => sleep(Duration::from_millis(20)).await,
                    }
                }
            };
            watchers.push(timeout(CALM, watching).await.map_err(|_| "nobody can watch")?);
        }
        Ok(())
    }

    /// Somebody comes or goes on a hub of this process.
    async fn come_or_go(&mut self) {
        let (room, person) = (ROOMS[self.random.index(2)], PEOPLE[self.random.index(PEOPLE.len())]);
        let node = &mut self.nodes[self.random.index(HUBS)];
        match self.random.below(5) {
            0 | 1 => {
                // The broker may be away.
                let Ok((member, sockets)) = open(&node.hub, room, person).await else { return };
                self.events.push(format!("{person} comes to {room}"));
                node.tabs.push(Tab { room, person, member, _sockets: sockets });
            }
            _ if node.tabs.is_empty() => {}
            kind => {
                let tab = node.tabs.swap_remove(self.random.index(node.tabs.len()));
                if kind == 2 {
                    // Otherwise, the connection is lost.
                    tab.member.disappear(tab.room);
                }
                self.events.push(format!("{} goes from {}", tab.person, tab.room));
            }
        }
    }

    /// Somebody comes or goes on the process.
    async fn come_or_go_there(&mut self) -> TestResult {
        let (room, person) = (ROOMS[self.random.index(2)], PEOPLE[self.random.index(PEOPLE.len())]);
        if self.process_tabs.is_empty() || self.random.permille(600) {
            self.process.tell(&format!("open {room} {person}"))?;
            if self.process.hear().await? == "open" {
                self.process_tabs.push((room, person));
                self.events.push(format!("{person} comes to {room} of the process"));
            }
        } else {
            let number = self.random.index(self.process_tabs.len());
            self.process.tell(&format!("close {number}"))?;
            let (room, person) = self.process_tabs.swap_remove(number);
            self.events.push(format!("{person} goes from {room} of the process"));
        }
        Ok(())
    }

    /// People come and go for a time, in milliseconds.
    async fn pass(&mut self, time: u64) {
        for _ in 0..4 {
            sleep(Duration::from_millis(time / 4)).await;
            self.come_or_go().await;
        }
    }

    async fn happen(&mut self, failure: Failure) -> TestResult {
        self.events.push(format!("{failure:?}"));
        match failure {
            Failure::KillBroker { away } => {
                self.broker.kill()?;
                self.pass(away).await;
                self.broker.restart().await?;
            }
            Failure::EmptyBroker { away } => {
                self.broker.kill()?;
                self.broker.forget()?;
                self.pass(away).await;
                self.broker.restart().await?;
            }
            Failure::StopBroker { time } => {
                self.broker.signal("-STOP")?;
                self.pass(time).await;
                self.broker.signal("-CONT")?;
            }
            Failure::Line { hub, line, time } => {
                self.nodes[hub].proxy.set(line);
                self.pass(time).await;
                self.nodes[hub].proxy.set(Line::Open);
            }
            Failure::EndHub(node) => {
                let Node { proxy, hub: ended, tabs, watchers } = &mut self.nodes[node];
                tabs.clear();
                watchers.clear();
                *ended = again(async || hub::<B>(&proxy.url(B::SCHEME)).await).await?;
                self.watch(node).await?;
            }
            Failure::KillProcess => {
                self.process.kill()?;
                self.process_tabs.clear();
                self.process = again(async || start_process(&self.broker).await).await?;
            }
            Failure::StopProcess { time } => {
                self.process.signal("-STOP")?;
                self.pass(time).await;
                self.process.signal("-CONT")?;
            }
        }
        self.events.push("over".to_owned());
        Ok(())
    }

    fn truth(&self, room: &str) -> BTreeSet<String> {
        let here = self.nodes.iter().flat_map(|node| &node.tabs).map(|tab| (tab.room, tab.person));
        let all = here.chain(self.process_tabs.iter().copied());
        all.filter(|(of, _)| *of == room).map(|(_, person)| person.to_owned()).collect()
    }

    /// Compares what is told with what is true.
    async fn check(&self) -> Result<(), String> {
        for room in ROOMS {
            let truth = self.truth(room);
            for node in &self.nodes {
                let told = keys(&node.hub, room).await.map_err(|error| error.to_string())?;
                if !told.iter().eq(&truth) {
                    return Err(format!("{room}: {told:?} are present, and {truth:?} are there"));
                }
                let count = node.hub.count(room).await.map_err(|error| error.to_string())?;
                if count != truth.len() {
                    return Err(format!("{room}: {count} are counted, and {truth:?} are there"));
                }
                for watcher in node.watchers.iter().filter(|watcher| watcher.room == room) {
                    watcher.check(&truth)?;
                }
            }
        }
        Ok(())
    }

    async fn run(&mut self) -> TestResult {
        for _ in 0..EVENTS {
            for _ in 0..self.random.below(4) {
                self.come_or_go().await;
                if self.random.permille(500) {
                    self.come_or_go_there().await?;
                }
            }
            sleep(Duration::from_millis(self.random.below(500))).await;
            let failure = Failure::random(&mut self.random);
            self.happen(failure).await?;
        }
        self.agree().await?;
        // The entries of nodes that are gone, and of requests that were given up, don't come back.
        sleep(LEASE * 2).await;
        self.agree().await
    }

    /// Waits until everything that is told is true. On a machine that is busy, a lease may lapse in between.
    async fn agree(&self) -> TestResult {
        let mut outcome = Err("nothing was compared".to_owned());
        let agreement = async {
            while outcome.is_err() {
                sleep(Duration::from_millis(50)).await;
                outcome = self.check().await;
            }
        };
        if timeout(CALM, agreement).await.is_err() {
            return Err(outcome.unwrap_err().into());
        }
        Ok(())
    }
}

/// Tries something again that fails while the broker is busy with the last failure.
async fn again<T>(attempt: impl AsyncFn() -> Result<T, Box<dyn Error>>) -> Result<T, Box<dyn Error>> {
    let mut failure = "no attempt has ended".to_owned();
    let succeeded = async {
        loop {
            match attempt().await {
                Ok(output) => return output,
                Err(error) => failure = error.to_string(),
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let outcome = timeout(CALM, succeeded).await;
    Ok(outcome.map_err(|_| format!("nothing succeeds for {CALM:?}: {failure}"))?)
}

async fn start_process<B: Broker>(broker: &B) -> Result<NodeProcess, Box<dyn Error>> {
    let url = format!("{}://{}", B::SCHEME, broker.address());
    NodeProcess::start(B::NODE, &[(URL, &url)]).await
}

/// Runs the schedules of some seeds.
///
/// # Panics
///
/// Panics if a schedule fails, with its seed and its events.
pub fn check_schedules<B: Broker>(seeds: &[u64]) {
    for_each_seed(seeds, THREADS, |seed, runtime| {
        runtime.block_on(async {
            let Some(mut scene) = Scene::<B>::start(seed).await.unwrap_or_else(|error| panic!("{error}"))
            else {
                return;
            };
            let outcome = timeout(PATIENCE, scene.run()).await;
            if let Err(error) = outcome.unwrap_or_else(|_| Err("the schedule hangs".into())) {
                panic!("seed {seed}: {error}\n{:#?}", scene.events);
            }
        });
    });
}
