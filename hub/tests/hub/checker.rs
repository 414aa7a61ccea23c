//! A check of the promise of topics with history, over random schedules.
//!
//! Publishers number their messages. Clients subscribe, vanish, and come back with the position of the last
//! message that they received, on a new connection or on the same one. Some of them are slow. The broker
//! fails in all ways that it can. Each client notes every message and every loss that it is told of.
//! Afterwards, each message must be the successor of the one before, as the broker stored them, or follow the
//! position of a loss. That excludes gaps, doubles, and other orders.
//!
//! A run that fails prints its seed. `BOWLINE_HUB_SEED=<seed> cargo test -p bowline-hub --test hub checker`
//! replays the run.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::time::Duration;

use bowline::pair;
use bowline_hub::{Engine, Hub, HubLimits, HubStats, Position, Rule};
use bowline_hub_testing::Outcome;
use bowline_hub_testing::notes::{self, END, Note, Notes, Progress};
use bowline_hub_testing::random::{Random, seeds};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::support::broker::{Broker, Faults, Stored};

const SEEDS: u64 = 20;
const TOPICS: [&str; 2] = ["chat/a", "chat/b"];
const NODES: usize = 2;
const CLIENTS: u64 = 6;
const PUBLISHERS: u64 = 3;
/// The publisher that repeats what was not acknowledged.
const ONCE: u64 = 0;
const MESSAGES: u64 = 120;
/// The number of messages in a history.
const WINDOW: usize = 40;
/// Everything that a run has produced.
struct Record {
    /// The notes of each client.
    notes: Vec<Vec<Note>>,
    stats: HubStats,
}

fn build(engine: impl Engine) -> Result<Hub, bowline_hub::Error> {
    notes::tell(Hub::builder(engine))
        .workers(2)
        .rule("chat/", Rule::new().history(WINDOW, Duration::from_secs(3600)))
        .limits(HubLimits::default().catch_up_tasks(3))
        .build()
}

/// A client that comes and goes until it has received the end.
async fn client(hubs: Vec<Hub>, topic: &'static str, mut random: Random) -> Vec<Note> {
    let mut notes = Notes::default();
    let is_slow = random.permille(400);
    loop {
        let (mut client, mut server) = pair();
        let hub = hubs[random.index(hubs.len())].clone();
        let since = notes.since;
        let serving = tokio::spawn(async move {
            let member = hub.join(server.sender()).unwrap();
            let sender = server.sender();
            // If the broker is away, the client comes back.
            notes::subscribe(&member, &sender, topic, since).await?;
            while let Some(request) = server.recv().await? {
                notes::subscribe(&member, &sender, topic, Some(request.as_text().unwrap().parse()?)).await?;
            }
            Outcome::Ok(())
        });
        let messages = random.below(60);
        let mut has_begun_again = false;
        for _ in 0..messages {
            // A client whose node misses the end comes back.
            let Ok(Ok(Some(frame))) = timeout(Duration::from_secs(5), client.recv()).await else { break };
            // Messages that were under way when the client began again come twice.
            if has_begun_again && is_passed(frame.as_text().unwrap(), notes.since) {
                continue;
            }
            if notes.add(frame.as_text().unwrap()).unwrap() == Progress::Ended {
                return notes.all;
            }
            if let Some(since) = notes.since.filter(|_| random.permille(50)) {
                has_begun_again = true;
                // A connection that has ended is noticed at the next frame.
                let _ = client.send(since.to_string()).await;
            }
            if is_slow {
                sleep(Duration::from_millis(random.below(200))).await;
            }
        }
        drop(client);
        if random.permille(500) {
            serving.abort();
        }
        sleep(Duration::from_millis(random.below(400))).await;
    }
}

/// Returns `true` if a frame is a message at a position that the client has passed.
fn is_passed(frame: &str, since: Option<Position>) -> bool {
    match (Note::parse(frame), since) {
        (Ok(Note::Message(position, _)), Some(since)) => {
            position.epoch() == since.epoch() && position.offset() <= since.offset()
        }
        _ => false,
    }
}

/// Publishes each message until that is acknowledged, with a key.
async fn publish_once(hubs: &[Hub], topic: &str, text: &str, random: &mut Random) {
    for _ in 0..200 {
        let hub = &hubs[random.index(hubs.len())];
        if hub.publish_once(topic, text, text).await.is_ok() {
            return;
        }
        sleep(Duration::from_millis(random.below(50))).await;
    }
    panic!("the broker is away for too long");
}

async fn publisher(hubs: Vec<Hub>, number: u64, mut random: Random) {
    for message in 0..MESSAGES {
        let topic = TOPICS[random.index(TOPICS.len())];
        let size = if random.permille(300) { random.index(20_000) } else { 10 };
        if number == ONCE {
            publish_once(&hubs, topic, &format!("{ONCE} {message}"), &mut random).await;
            continue;
        }
        let text = format!("{number} {message} {}", "x".repeat(size));
        // An error leaves open whether the message was published.
        let _ = hubs[random.index(hubs.len())].publish(topic, text).await;
        if random.permille(300) {
            sleep(Duration::from_millis(random.below(60))).await;
        }
    }
}

/// Does to the broker what a schedule says.
async fn mischief(broker: Broker, mut random: Random) {
    for _ in 0..15 {
        sleep(Duration::from_millis(random.below(200))).await;
        let topic = TOPICS[random.index(TOPICS.len())];
        match random.below(5) {
            0 => broker.lose_history(topic),
            1 => broker.save(topic),
            2 => broker.roll_back(topic),
            _ => {
                let node = random.index(NODES);
                broker.disconnect(node);
                sleep(Duration::from_millis(random.below(300))).await;
                broker.reconnect(node);
            }
        }
    }
}

/// Runs a schedule to its end.
async fn run(seed: u64, hubs: Vec<Hub>, broker: Option<Broker>) -> Record {
    let mut random = Random::new(seed);
    let mut next = || Random::new(random.number());
    let mut clients = JoinSet::new();
    let mut notes = Vec::new();
    for number in 0..CLIENTS {
        let topic = TOPICS[usize::try_from(number).unwrap() % TOPICS.len()];
        clients.spawn(client(hubs.clone(), topic, next()));
    }
    let mut work = JoinSet::new();
    for number in 0..PUBLISHERS {
        work.spawn(publisher(hubs.clone(), number, next()));
    }
    if let Some(broker) = &broker {
        work.spawn(mischief(broker.clone(), next()));
    }
    while let Some(outcome) = work.join_next().await {
        outcome.unwrap();
    }
    if let Some(broker) = &broker {
        broker.set_faults(Faults::default());
    }
    // Clients that are away must not miss the end for good.
    let ending = async {
        while !clients.is_empty() {
            for topic in TOPICS {
                hubs[0].publish(topic, END).await.unwrap();
            }
            if let Ok(Some(noted)) = timeout(Duration::from_secs(3), clients.join_next()).await {
                notes.push(noted.unwrap());
            }
        }
    };
    timeout(Duration::from_secs(600), ending).await.unwrap_or_else(|_| panic!("seed {seed}: a client hangs"));
    let mut stats = hubs[0].stats();
    for hub in &hubs[1..] {
        let other = hub.stats();
        stats.gaps += other.gaps;
        stats.lost += other.lost;
        stats.caught_up += other.caught_up;
        stats.closed_slow += other.closed_slow;
    }
    Record { notes, stats }
}

/// Checks the notes of a client against everything that the broker has ever stored.
fn check(notes: &[Note], stored: &HashMap<Position, Stored>) -> Result<(), Box<dyn Error>> {
    let mut last: Option<Position> = None;
    let mut once = HashSet::new();
    for note in notes {
        match note {
            Note::Start(position) | Note::Lost(position) => {
                last = Some(*position);
                // A history that is lost takes its keys along.
                once.clear();
            }
            Note::Message(position, text) => {
                if text.starts_with(&format!("{ONCE} ")) && !once.insert(text) {
                    return Err(format!("{text} was published once, and received twice").into());
                }
                let truth = stored.get(position).ok_or("a message that was never stored")?;
                if truth.text != *text {
                    return Err("another text than that of the position".into());
                }
                if let Some(last) = last {
                    let is_next = position.epoch() == last.epoch()
                        && position.offset() > last.offset()
                        && truth.previous == last.tag();
                    if !is_next {
                        return Err(format!("{position:?} came after {last:?}").into());
                    }
                }
                last = Some(*position);
            }
        }
    }
    Ok(())
}

fn in_runtime<T>(run: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().start_paused(true).build().unwrap().block_on(run)
}

fn faulty(seed: u64) -> Faults {
    let mut random = Random::new(!seed);
    let mut fault = || if random.permille(500) { random.below(200) } else { 0 };
    Faults {
        dropped: fault(),
        repeated: fault(),
        late: fault(),
        stale: fault(),
        refused: fault(),
        delayed: fault(),
        slow_answers: fault() / 10,
    }
}

#[test]
fn every_client_sees_an_unbroken_sequence_or_is_told_whatever_the_broker_does() {
    check_schedules(&seeds(0..SEEDS));
}

#[test]
#[ignore = "takes a minute"]
fn every_client_sees_an_unbroken_sequence_or_is_told_in_thousands_of_schedules() {
    check_schedules(&(1000..4000).collect::<Vec<_>>());
}

fn check_schedules(seeds: &[u64]) {
    let (mut losses, mut totals) = (0, HubStats::default());
    for seed in seeds {
        let record = in_runtime(async {
            let broker = if seed % 2 == 0 {
                Broker::new(*seed, faulty(*seed))
            } else {
                Broker::with_shared_offsets(*seed, faulty(*seed))
            };
            let hubs = (0..NODES).map(|_| build(broker.clone()).unwrap()).collect();
            let record = run(*seed, hubs, Some(broker.clone())).await;
            for notes in &record.notes {
                if let Err(error) = check(notes, &broker.stored()) {
                    panic!("seed {seed}: {error}");
                }
            }
            record
        });
        losses += record.notes.iter().flatten().filter(|note| matches!(note, Note::Lost(_))).count();
        totals.gaps += record.stats.gaps;
        totals.lost += record.stats.lost;
        totals.caught_up += record.stats.caught_up;
        totals.closed_slow += record.stats.closed_slow;
    }
    println!("{losses} losses were told; {totals:?}");
    if seeds.len() > 1 {
        // The schedules are worth something only if all of this happens in them.
        assert!(losses > 0 && totals.gaps > 0 && totals.caught_up > 0 && totals.lost > 0, "{totals:?}");
    }
}
