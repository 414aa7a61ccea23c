//! Publishers and clients that come and go, while servers, connections and hubs fail by a schedule.
//!
//! Publishers number their messages, and clients note every message and every loss that they are told of.
//! Afterwards, the rules of `check` must hold. A run that fails prints its seed, with which
//! `BOWLINE_HUB_SEED=<seed> cargo test -p bowline-hub-nats --test nats chaos` replays the schedule.

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bowline::pair;
use bowline_hub::{Hub, HubLimits, Position, Rule};
use bowline_hub_testing::client::publish;
use bowline_hub_testing::notes::{self, END, Note, Notes, Progress};
use bowline_hub_testing::proxy::{Line, Proxy};
use bowline_hub_testing::random::{Random, seeds};
use bowline_hub_testing::{Outcome, TestResult};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::cluster;
use crate::server::Server;

const TOPICS: [&str; 2] = ["chat/a", "chat/b"];
const NODES: usize = 2;
const PUBLISHERS: u64 = 2;
const CLIENTS: u64 = 6;
const EVENTS: u64 = 10;
/// The first version of NATS that is known to keep what a stopped leader acknowledges.
const SAFE: (u32, u32) = (2, 15);
/// The time within which nodes find out that NATS has lost what it had acknowledged.
const DISCOVERY: Duration = Duration::from_secs(30);
/// The time within which everybody must have received the end.
const PATIENCE: Duration = Duration::from_secs(120);

/// The kind of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Schedule {
    /// The data survives, so nobody may lose a message.
    Durable,
    /// The stream or its data vanish now and then.
    Lossy,
    /// One server of three fails at a time, so nobody may lose a message.
    Cluster,
    /// One server of three stops at a time, until the others have elected another leader.
    ///
    /// NATS 2.9 loses acknowledged messages then, of which everybody must be told.
    Stopped,
}

/// The promise of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Promise {
    NothingIsLost,
    /// Each gap begins with a notice.
    LossesAreTold,
    /// Each gap is followed by a notice: the broker loses what it has acknowledged, or stores it twice.
    LossesAreToldLater,
}

impl Schedule {
    fn promise(self) -> Promise {
        match self {
            Self::Durable | Self::Cluster => Promise::NothingIsLost,
            Self::Lossy => Promise::LossesAreTold,
            Self::Stopped if Server::version() >= Some(SAFE) => Promise::NothingIsLost,
            Self::Stopped => Promise::LossesAreToldLater,
        }
    }
}

/// The hubs, each with its proxy. A hub may be replaced.
type Hubs = Arc<Vec<(Proxy, Mutex<Hub>)>>;

/// Builds a hub that is connected by a proxy, or by the other servers while that fails.
async fn hub(proxy: &Proxy, others: &str) -> Result<Hub, Box<dyn Error>> {
    let url = format!("{}{others}", proxy.url("nats"));
    Ok(notes::tell(Hub::builder(bowline_hub_nats::connect(&url).await?))
        .workers(2)
        .rule("chat/", Rule::new().history(100_000, Duration::from_secs(300)))
        .limits(HubLimits::default().replay(u64::MAX))
        .build()?)
}

/// Returns the URLs of all servers but the first, each after a comma.
fn others(servers: &[Server]) -> String {
    let mut urls = vec![String::new()];
    urls.extend(servers.iter().skip(1).map(Server::url));
    urls.join(",")
}

fn node(hubs: &Hubs, index: usize) -> Hub {
    hubs[index].1.lock().unwrap().clone()
}

/// Publishes numbered messages, and returns the numbers of those that were acknowledged, with their topics.
async fn publisher(
    hubs: Hubs,
    number: u64,
    mut random: Random,
    stop: watch::Receiver<bool>,
) -> Vec<(u64, usize)> {
    let mut acknowledged = Vec::new();
    let mut message = 0;
    while !*stop.borrow() {
        message += 1;
        let topic = random.index(TOPICS.len());
        let hub = node(&hubs, random.index(NODES));
        if hub.publish(TOPICS[topic], format!("{number} {message}")).await.is_ok() {
            acknowledged.push((message, topic));
        }
        sleep(Duration::from_millis(2 + random.below(4))).await;
    }
    acknowledged
}

/// A client that comes and goes, and returns its notes once it has received the end.
async fn client(hubs: Hubs, topic: &'static str, mut random: Random) -> Outcome<Vec<Note>> {
    let mut notes = Notes::default();
    loop {
        let (mut client, server) = pair();
        let hub = node(&hubs, random.index(NODES));
        let since = notes.since;
        let serving = tokio::spawn(async move {
            let member = hub.join(server.sender())?;
            notes::subscribe(&member, &server.sender(), topic, since).await?;
            server.closed().await;
            Outcome::Ok(())
        });
        for _ in 0..20 + random.below(200) {
            let Ok(Ok(Some(frame))) = timeout(Duration::from_millis(700), client.recv()).await else { break };
            if notes.add(frame.as_text().ok_or("not a text")?)? == Progress::Ended {
                return Ok(notes.all);
            }
        }
        drop(client);
        serving.abort();
    }
}

/// Does to servers, connections and hubs what a schedule says.
async fn mischief(
    servers: &mut [Server],
    hubs: &Hubs,
    schedule: Schedule,
    random: &mut Random,
) -> TestResult {
    let others = others(servers);
    for _ in 0..EVENTS {
        let chosen = random.index(servers.len());
        let server = &mut servers[chosen];
        sleep(Duration::from_millis(random.below(300))).await;
        let (proxy, hub_of_node) = &hubs[random.index(NODES)];
        let pause = Duration::from_millis(random.below(400));
        match (random.below(8), schedule) {
            (0..=3, Schedule::Stopped) => {
                server.signal("-STOP")?;
                sleep(pause * 30).await;
                server.signal("-CONT")?;
            }
            (0 | 1, _) => {
                server.kill()?;
                sleep(pause).await;
                server.restart().await?;
            }
            (2, _) => {
                server.signal("-STOP")?;
                sleep(pause * 4).await;
                server.signal("-CONT")?;
            }
            (3, _) => {
                proxy.set(Line::Stalled);
                sleep(pause * 12).await;
                proxy.set(Line::Open);
            }
            (4, Schedule::Lossy) => drop(server.api("STREAM.DELETE.bowline", "").await),
            (5, Schedule::Lossy) => {
                server.kill()?;
                fs::remove_dir_all(server.store())?;
                server.restart().await?;
            }
            (6, _) => {
                // The clients of the old node find the new one when they come back.
                let fresh = hub(proxy, &others).await?;
                *hub_of_node.lock().unwrap() = fresh;
            }
            _ => {
                proxy.set(Line::Cut);
                sleep(pause).await;
                proxy.set(Line::Open);
            }
        }
        if matches!(schedule, Schedule::Cluster | Schedule::Stopped) {
            cluster::wait_for_replicas(&servers[0]).await?;
        }
    }
    Ok(())
}

/// Everything that a run has produced.
struct Record {
    /// The notes of each client, with its topic.
    notes: Vec<(usize, Vec<Note>)>,
    /// The acknowledged messages of each publisher, with their topics.
    acknowledged: HashMap<String, Vec<(u64, usize)>>,
}

async fn run(mut servers: Vec<Server>, schedule: Schedule, seed: u64) -> Result<Record, Box<dyn Error>> {
    let mut random = Random::new(seed);
    let mut hubs = Vec::new();
    let others = others(&servers);
    for number in 0..NODES {
        let proxy = Proxy::start(servers[number % servers.len()].address()).await?;
        let hub = hub(&proxy, &others).await?;
        hubs.push((proxy, Mutex::new(hub)));
    }
    if matches!(schedule, Schedule::Cluster | Schedule::Stopped) {
        // The servers elect a leader first.
        let hub = hubs[0].1.lock().unwrap().clone();
        publish(&hub, "chat/begin", "begin").await?;
    }
    let hubs: Hubs = Arc::new(hubs);
    let (stop, stopped) = watch::channel(false);
    let (mut publishers, mut clients) = (JoinSet::new(), JoinSet::new());
    for number in 0..PUBLISHERS {
        let published = publisher(Arc::clone(&hubs), number, Random::new(random.number()), stopped.clone());
        publishers.spawn(async move { (number, published.await) });
    }
    for number in 0..CLIENTS {
        let topic = usize::try_from(number)? % TOPICS.len();
        let noted = client(Arc::clone(&hubs), TOPICS[topic], Random::new(random.number()));
        clients.spawn(async move { noted.await.map(|notes| (topic, notes)) });
    }
    mischief(&mut servers, &hubs, schedule, &mut random).await?;
    stop.send_replace(true);
    if schedule.promise() == Promise::LossesAreToldLater {
        sleep(DISCOVERY).await;
    }
    let mut acknowledged = HashMap::new();
    while let Some(published) = publishers.join_next().await {
        let (number, messages) = published?;
        acknowledged.insert(number.to_string(), messages);
    }
    let (mut notes, mut refusal) = (Vec::new(), None);
    let ending = async {
        while notes.len() < usize::try_from(CLIENTS)? {
            for topic in TOPICS {
                // A client that is away receives one of these.
                refusal = node(&hubs, 0).publish(topic, END).await.err();
            }
            if let Ok(Some(noted)) = timeout(Duration::from_millis(300), clients.join_next()).await {
                notes.push(noted??);
            }
        }
        Outcome::Ok(())
    };
    let Ok(ended) = timeout(PATIENCE, ending).await else {
        let log = servers[0].log().unwrap_or_default();
        return Err(format!("a client hangs; the last publication: {refusal:?}; the server:\n{log}").into());
    };
    ended.map_err(|error| error.to_string())?;
    Ok(Record { notes, acknowledged })
}

/// Checks the notes of a client. No message comes twice. Between two losses, positions grow, and so do the
/// numbers of the acknowledged messages of each publisher, without one that is missing. A message that was
/// not acknowledged may come late, or never. Returns the number of losses.
fn check(record: &Record, topic: usize, notes: &[Note], promise: Promise) -> Result<usize, String> {
    let (mut last, mut losses) = (None::<Position>, 0);
    // A gap of which the client has not been told yet.
    let mut untold = None;
    let mut seen = HashMap::new();
    // The index of the last message of each publisher since the last loss.
    let mut in_run = HashMap::new();
    for note in notes {
        let (position, text) = match note {
            Note::Start(position) => {
                last = Some(*position);
                continue;
            }
            Note::Lost(now) => {
                losses += 1;
                last = Some(*now);
                in_run.clear();
                untold = None;
                continue;
            }
            Note::Message(_, text) if text == END => continue,
            Note::Message(position, text) => (position, text),
        };
        if let Some(before) = seen.insert(text, position) {
            if promise == Promise::LossesAreToldLater && before.tag() == position.tag() {
                // The broker has stored the message twice.
                last = Some(*position);
                continue;
            }
            return Err(format!("{text} came twice, at {before:?} and at {position:?}"));
        }
        if let Some(last) = last.filter(|last| last.offset() >= position.offset()) {
            return Err(format!("{text} at {} came after {}", position.offset(), last.offset()));
        }
        last = Some(*position);
        let (publisher, number) = text.split_once(' ').ok_or("a foreign message")?;
        let number: u64 = number.parse().map_err(|_| "a foreign number")?;
        let messages: &Vec<_> = record.acknowledged.get(publisher).ok_or("a foreign publisher")?;
        let mut of_topic = messages.iter().filter(|(_, other)| *other == topic);
        let Some(index) = of_topic.position(|(other, _)| *other == number) else { continue };
        if let Some(before) = in_run.insert(publisher, index) {
            if before + 1 != index {
                let gap = format!("between the messages {before} and {index} of {publisher} is a gap");
                if promise != Promise::LossesAreToldLater {
                    return Err(gap);
                }
                untold = Some(gap);
            }
        }
    }
    // The end comes after all of them.
    for (publisher, index) in in_run {
        let of_topic = record.acknowledged[publisher].iter().filter(|(_, other)| *other == topic).count();
        if index + 1 != of_topic {
            untold = Some(format!("of {of_topic} messages of {publisher}, the last one received is {index}"));
        }
    }
    if let Some(gap) = untold {
        return Err(gap);
    }
    if promise == Promise::NothingIsLost && losses > 0 {
        return Err("a loss was told, and nothing was lost".to_owned());
    }
    Ok(losses)
}

/// Checks that a position stands for the same message everywhere.
fn check_positions(record: &Record) -> Result<(), String> {
    let mut texts = HashMap::new();
    for note in record.notes.iter().flat_map(|(_, notes)| notes) {
        if let Note::Message(position, text) = note {
            if texts.insert(position, text).is_some_and(|other| other != text) {
                return Err(format!("{position:?} is the position of two messages"));
            }
        }
    }
    Ok(())
}

async fn check_schedules(schedule: Schedule, all: impl IntoIterator<Item = u64>) -> TestResult {
    let (mut losses, mut messages) = (0, 0);
    for seed in seeds(all) {
        let servers = match schedule {
            Schedule::Durable | Schedule::Lossy => Server::start("").await?.map(|server| vec![server]),
            Schedule::Cluster | Schedule::Stopped => cluster::start().await?,
        };
        let Some(servers) = servers else { return Ok(()) };
        let record = run(servers, schedule, seed).await.map_err(|error| format!("seed {seed}: {error}"))?;
        check_positions(&record).map_err(|error| format!("seed {seed}: {error}"))?;
        for (topic, notes) in &record.notes {
            let lost = check(&record, *topic, notes, schedule.promise());
            losses += lost.map_err(|error| format!("seed {seed}: {error}"))?;
        }
        messages += record.acknowledged.values().map(Vec::len).sum::<usize>();
    }
    println!("{messages} messages, {losses} losses were told");
    // On a busy machine, most of a schedule may be spent with failures.
    assert!(messages > 0, "no message was published");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_while_the_data_survives() -> TestResult {
    check_schedules(Schedule::Durable, 0..3).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_loss_is_told() -> TestResult {
    check_schedules(Schedule::Lossy, 0..3).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_while_a_majority_of_servers_works() -> TestResult {
    check_schedules(Schedule::Cluster, 0..2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_loss_of_a_server_that_was_stopped_is_told() -> TestResult {
    check_schedules(Schedule::Stopped, 0..1).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes many minutes"]
async fn every_loss_is_told_in_hundreds_of_schedules() -> TestResult {
    check_schedules(Schedule::Durable, 1000..1100).await?;
    check_schedules(Schedule::Lossy, 2000..2200).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes many minutes"]
async fn every_loss_of_a_cluster_is_told_in_dozens_of_schedules() -> TestResult {
    check_schedules(Schedule::Cluster, 3000..3020).await?;
    check_schedules(Schedule::Stopped, 4000..4020).await
}
