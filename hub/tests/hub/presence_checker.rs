//! A check of presence, over random schedules.
//!
//! People come and go on several nodes, in several tabs, with and without a word. Nodes are cut off, stopped
//! and killed; the broker restarts with its data, without, and with old data; calls fail after they were
//! carried out, or take long. Each client builds a view from the frames that it receives, in which nobody may
//! join twice or leave without being there. Once everything is calm, every view and the answer of every node
//! must be the truth.
//!
//! A run that fails prints its seed. `BOWLINE_HUB_SEED=<seed> cargo test -p bowline-hub --test hub presence`
//! replays the run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bowline::{WebSocket, pair};
use bowline_hub::{Hub, HubStats, Member, PresenceNews, Present, Rule};
use bowline_hub_testing::random::{Random, seeds};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::support::presence_broker::{CallFaults, PresenceBroker, Restart};

const SEEDS: u64 = 30;
const NODES: usize = 3;
const STEPS: u64 = 80;
const TOPICS: [&str; 2] = ["room/a", "room/b"];
const KEYS: [&str; 6] = ["ann", "ben", "cat", "dan", "eve", "fay"];
/// The time after which nothing changes any more: a few leases.
const CALM: Duration = Duration::from_secs(150);

/// The people that a client knows of, with their information.
#[derive(Debug, Default)]
struct Seen {
    people: BTreeMap<String, String>,
    /// The first frame that did not fit.
    error: Option<String>,
}

/// A connection with a member, and the client behind it.
struct Tab {
    node: usize,
    topic: &'static str,
    /// The key and the information, if the member has appeared.
    present: Option<(&'static str, String)>,
    member: Member,
    seen: Arc<Mutex<Seen>>,
    client: JoinHandle<()>,
    _server: WebSocket,
}

impl Drop for Tab {
    fn drop(&mut self) {
        self.client.abort();
    }
}

struct Scene {
    broker: PresenceBroker,
    hubs: Vec<Hub>,
    /// The number of each hub in the broker.
    numbers: Vec<usize>,
    hubs_so_far: usize,
    tabs: Vec<Tab>,
    random: Random,
    /// The numbers of hubs that are gone.
    past: Vec<HubStats>,
}

fn build(broker: &PresenceBroker) -> Hub {
    let frame = |who: &Present| format!("{} {}", who.key, who.info);
    Hub::builder(broker.clone())
        .workers(2)
        .rule("room/", Rule::new().presence())
        .presence(move |_, news| {
            let text = match news {
                PresenceNews::Here(all) => {
                    let all: Vec<_> = all.iter().map(|who| frame(who)).collect();
                    format!("! {}", all.join(","))
                }
                PresenceNews::Joined(who) => format!("+ {}", frame(who)),
                PresenceNews::Updated(who) => format!("= {}", frame(who)),
                PresenceNews::Left(who) => format!("- {}", frame(who)),
                _ => return None,
            };
            Some(text.into())
        })
        .build()
        .unwrap()
}

impl Seen {
    /// Notes a frame. Returns `None` if it contradicts the earlier ones.
    fn note(&mut self, frame: &str) -> Option<()> {
        let (kind, rest) = frame.split_once(' ')?;
        if kind == "!" {
            let all = rest.split(',').filter(|who| !who.is_empty());
            self.people =
                all.map(|who| who.split_once(' ')).map(|who| Some(own(who?))).collect::<Option<_>>()?;
            return Some(());
        }
        let (key, info) = own(rest.split_once(' ')?);
        match (kind, self.people.contains_key(&key)) {
            ("+", false) | ("=", true) => drop(self.people.insert(key, info)),
            ("-", true) => drop(self.people.remove(&key)),
            _ => return None,
        }
        Some(())
    }
}

fn own((key, info): (&str, &str)) -> (String, String) {
    (key.to_owned(), info.to_owned())
}

async fn watch(mut socket: WebSocket, seen: Arc<Mutex<Seen>>) {
    while let Ok(Some(frame)) = socket.recv().await {
        let mut seen = seen.lock().unwrap();
        if seen.note(frame.as_text().unwrap()).is_none() && seen.error.is_none() {
            seen.error = Some(format!("{frame:?} after {:?}", seen.people));
        }
    }
}

impl Scene {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut fault = |most| if random.permille(500) { random.below(most) } else { 0 };
        let faults = CallFaults { refused: fault(200), delayed: fault(700), delay: fault(1500) };
        let broker = PresenceBroker::new(!seed, faults);
        let hubs = (0..NODES).map(|_| build(&broker)).collect();
        let (numbers, tabs, past) = ((0..NODES).collect(), Vec::new(), Vec::new());
        Self { broker, hubs, numbers, hubs_so_far: NODES, tabs, random, past }
    }

    /// Opens a tab, which appears if there is a key.
    async fn open(&mut self, node: usize, topic: &'static str, key: Option<&'static str>) {
        let (socket, server) = pair();
        let member = self.hubs[node].join(server.sender()).unwrap();
        // The node may be cut off.
        if member.subscribe(topic, None).await.is_err() {
            return;
        }
        let seen = Arc::<Mutex<Seen>>::default();
        let client = tokio::spawn(watch(socket, Arc::clone(&seen)));
        self.tabs.push(Tab { node, topic, present: None, member, seen, client, _server: server });
        if let Some(key) = key {
            self.appear(self.tabs.len() - 1, key).await;
        }
    }

    async fn appear(&mut self, tab: usize, key: &'static str) {
        let info = format!("info-{}", self.random.below(4));
        let tab = &mut self.tabs[tab];
        let present = Present::new(key).info(info.as_str());
        if tab.member.appear(tab.topic, present).await.is_ok() {
            tab.present = Some((key, info));
        }
    }

    /// A client does something.
    async fn come_or_go(&mut self) {
        let (node, topic) = (self.random.index(NODES), TOPICS[self.random.index(TOPICS.len())]);
        let key = KEYS[self.random.index(KEYS.len())];
        match self.random.below(6) {
            0 | 1 => self.open(node, topic, Some(key)).await,
            2 if self.tabs.len() < 10 => self.open(node, topic, None).await,
            _ if self.tabs.is_empty() => {}
            3 => {
                let index = self.random.index(self.tabs.len());
                let tab = &mut self.tabs[index];
                tab.member.disappear(tab.topic);
                tab.present = None;
            }
            4 => {
                let index = self.random.index(self.tabs.len());
                let key = self.tabs[index].present.as_ref().map_or(key, |(key, _)| key);
                self.appear(index, key).await;
            }
            _ => {
                let lost = self.tabs.swap_remove(self.random.index(self.tabs.len()));
                let key = lost.present.as_ref().map(|(key, _)| *key);
                let topic = lost.topic;
                drop(lost);
                if self.random.permille(500) {
                    // The client connects again, to any node.
                    sleep(Duration::from_millis(self.random.below(18_000))).await;
                    self.open(node, topic, key).await;
                }
            }
        }
    }

    /// Something fails.
    async fn fail(&mut self) {
        let node = self.random.index(NODES);
        let time = Duration::from_millis(self.random.below(60_000));
        match self.random.below(8) {
            0 | 1 => {
                self.broker.disconnect(self.numbers[node]);
                self.during(time).await;
                self.broker.reconnect(self.numbers[node]);
            }
            2 => {
                self.broker.kill(self.numbers[node]);
                self.during(time).await;
                // Deliveries were lost, so a real connection would have ended.
                self.broker.resume(self.numbers[node]);
                self.broker.disconnect(self.numbers[node]);
                self.broker.reconnect(self.numbers[node]);
            }
            3 | 4 => {
                if self.random.permille(700) {
                    self.broker.kill(self.numbers[node]);
                }
                self.tabs.retain(|tab| tab.node != node);
                self.past.push(self.hubs[node].stats());
                self.hubs[node] = build(&self.broker);
                self.numbers[node] = self.hubs_so_far;
                self.hubs_so_far += 1;
            }
            5 => self.broker.save(),
            6 => self.broker.flush(),
            _ => {
                let restarts = [Restart::WithEverything, Restart::WithNothing, Restart::RolledBack];
                self.broker.restart(restarts[self.random.index(restarts.len())]);
            }
        }
    }

    /// Clients come and go while something is broken.
    async fn during(&mut self, time: Duration) {
        for _ in 0..self.random.below(4) {
            sleep(time / 4).await;
            Box::pin(self.come_or_go()).await;
        }
    }

    async fn run(&mut self) {
        for _ in 0..STEPS {
            let pause = if self.random.permille(500) { 100 } else { 5000 };
            sleep(Duration::from_millis(self.random.below(pause))).await;
            if self.random.permille(200) {
                self.fail().await;
            } else {
                self.come_or_go().await;
            }
        }
        self.broker.set_faults(CallFaults::default());
        for node in 0..NODES {
            for topic in TOPICS {
                self.open(node, topic, None).await;
            }
        }
        sleep(CALM).await;
    }

    /// Returns the keys that are present, with the information that their members have.
    fn truth(&self, topic: &str) -> BTreeMap<String, BTreeSet<String>> {
        let mut truth = BTreeMap::<_, BTreeSet<_>>::new();
        for tab in self.tabs.iter().filter(|tab| tab.topic == topic) {
            if let Some((key, info)) = tab.present.clone() {
                truth.entry(key.to_owned()).or_default().insert(info);
            }
        }
        truth
    }

    async fn check(&self) {
        for topic in TOPICS {
            let truth = self.truth(topic);
            let mut answers = BTreeSet::new();
            for hub in &self.hubs {
                let present = hub.present(topic).await.unwrap();
                let present: BTreeMap<_, _> = present.into_iter().map(|who| (who.key, who.info)).collect();
                assert!(
                    present.keys().eq(truth.keys()),
                    "{topic}: {present:?} is told, and {truth:?} is true"
                );
                assert_eq!(hub.count(topic).await.unwrap(), truth.len());
                answers.insert(present);
            }
            assert_eq!(answers.len(), 1, "the nodes differ: {answers:?}");
            let present = answers.first().unwrap();
            for tab in self.tabs.iter().filter(|tab| tab.topic == topic) {
                let seen = tab.seen.lock().unwrap();
                assert_eq!(seen.error, None);
                assert_eq!(seen.people, *present, "the view of a client on node {} in {topic}", tab.node);
            }
        }
    }

    fn totals(&self) -> HubStats {
        let mut totals = HubStats::default();
        for stats in self.past.iter().copied().chain(self.hubs.iter().map(Hub::stats)) {
            totals.lapses += stats.lapses;
            totals.reaped += stats.reaped;
            totals.renewals += stats.renewals;
        }
        totals
    }
}

fn check_schedules(seeds: &[u64]) {
    let mut totals = HubStats::default();
    for &seed in seeds {
        println!("seed {seed}");
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let stats = builder.enable_all().start_paused(true).build().unwrap().block_on(async {
            let mut scene = Scene::new(seed);
            scene.run().await;
            scene.check().await;
            scene.totals()
        });
        totals.lapses += stats.lapses;
        totals.reaped += stats.reaped;
    }
    // The schedules are worth something only if all of this happens in them.
    assert!(seeds.len() == 1 || totals.lapses > 0 && totals.reaped > 0, "{totals:?}");
}

#[test]
fn everybody_sees_who_is_present_whatever_fails() {
    check_schedules(&seeds(0..SEEDS));
}

#[test]
#[ignore = "takes a minute"]
fn everybody_sees_who_is_present_in_thousands_of_schedules() {
    check_schedules(&seeds(1000..4000));
}
