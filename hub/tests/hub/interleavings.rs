//! Every order of the steps of a subscription beside publishing and leaving.
//!
//! The engine of these tests answers nothing by itself. A call of the engine is two steps, the reading of its
//! state and the answer. A message is two steps, too: its place in the history, and its delivery.
//!
//! A test walks through all orders of these steps, of members that come and go, and of the worker, which runs
//! after each step or only after several. For that, the test repeats the whole conversation, and decides
//! differently at the last place where it can.

mod world;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bowline::{WebSocket, pair};
use bowline_hub::{Hub, Member, Position, Start};
use bowline_hub_testing::client::builder;
use tokio::runtime;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use world::{Steered, Step};

/// The time for which a topic without members is still wanted, and a little more.
const LINGER: Duration = Duration::from_secs(6);

/// The decisions of one conversation: at each place, the one that is taken, and how many there are.
#[derive(Default)]
struct Decisions {
    path: Vec<(usize, usize)>,
    depth: usize,
}

impl Decisions {
    fn next(&mut self, count: usize) -> usize {
        if self.depth == self.path.len() {
            self.path.push((0, count));
        }
        let (taken, known) = self.path[self.depth];
        assert_eq!(known, count, "a conversation is not the same when it is repeated");
        self.depth += 1;
        taken
    }

    /// Goes to the next conversation. Returns `false` after the last one.
    fn advance(&mut self) -> bool {
        self.depth = 0;
        while let Some((taken, count)) = self.path.pop() {
            if taken + 1 < count {
                self.path.push((taken + 1, count));
                return true;
            }
        }
        false
    }
}

/// A conversation about one topic, which has two messages at the beginning.
#[derive(Clone, Copy)]
struct Scenario {
    topic: &'static str,
    /// The message after which the member subscribes, or none for those from now on.
    since: Option<usize>,
    /// The other member, if there is one.
    company: Company,
    /// The messages that are published.
    messages: usize,
    /// The deliveries that are lost.
    losses: usize,
    /// The number of steps that follow another one before the worker has run.
    crowding: usize,
    leaver: Leaver,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Company {
    Alone,
    /// The topic is open, and a member is live in it.
    Live,
}

/// The member that leaves at some time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaver {
    Nobody,
    /// The member that was there, and with it the topic if nobody else comes within the time.
    Company,
    /// The member that subscribes, also while it does.
    Subscriber,
}

/// A step of the conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Engine(Step),
    Subscribe,
    Leave,
    /// The time passes after which a topic without members is no longer wanted.
    Linger,
}

/// A member, and the answer to its subscription.
type Outcome = (Member, Result<Start, bowline_hub::Error>);

/// A client, and the member that it is.
struct Client {
    socket: WebSocket,
    subscribing: JoinHandle<()>,
    outcome: Arc<Mutex<Option<Outcome>>>,
}

impl Client {
    fn subscribe(hub: &Hub, topic: &'static str, since: Option<Position>) -> Self {
        let (socket, server) = pair();
        let hub = hub.clone();
        let outcome = Arc::new(Mutex::new(None));
        let kept = Arc::clone(&outcome);
        let subscribing = tokio::spawn(async move {
            let member = hub.join(server.sender()).unwrap();
            let start = member.subscribe(topic, since).await;
            *kept.lock().unwrap() = Some((member, start));
            // The connection stays open.
            std::future::pending::<()>().await;
            drop(server);
        });
        Self { socket, subscribing, outcome }
    }

    /// Leaves, as a handler does that ends.
    fn leave(&self) {
        self.subscribing.abort();
        drop(self.outcome.lock().unwrap().take());
    }

    fn start(&self) -> Option<Start> {
        let outcome = self.outcome.lock().unwrap();
        outcome.as_ref().map(|(_, start)| *start.as_ref().expect("the engine answers"))
    }

    /// Returns the texts that have arrived.
    async fn received(&mut self) -> Vec<usize> {
        let mut numbers = Vec::new();
        while let Ok(Ok(Some(frame))) = timeout(Duration::from_millis(1), self.socket.recv()).await {
            let text = frame.as_text().unwrap().split_once(' ').unwrap().1;
            numbers.push(text.parse().unwrap());
        }
        numbers
    }
}

/// Lets all tasks run until they wait. The clock is paused, and moves on when there is nothing else to do.
async fn run() {
    sleep(Duration::from_millis(1)).await;
}

/// A conversation under way.
struct Conversation {
    scenario: Scenario,
    engine: Steered,
    hub: Hub,
    company: Option<Client>,
    subscriber: Option<Client>,
    has_left: bool,
    has_lingered: bool,
    /// The number of messages when the subscriber was seen to be live.
    live_at: Option<usize>,
}

impl Conversation {
    async fn new(scenario: Scenario) -> Self {
        let engine = Steered::new(scenario.messages, scenario.losses);
        let hub = builder(engine.clone()).workers(1).build().unwrap();
        let mut company = None;
        if scenario.company == Company::Live {
            let client = Client::subscribe(&hub, scenario.topic, None);
            while client.start().is_none() {
                run().await;
                engine.answer_all();
            }
            company = Some(client);
        }
        let (subscriber, has_left, has_lingered, live_at) = (None, false, false, None);
        Self { scenario, engine, hub, company, subscriber, has_left, has_lingered, live_at }
    }

    /// Takes steps until none is left. Notes them for the report of a failure.
    async fn hold(&mut self, decisions: &mut Decisions, acts: &mut Vec<Act>) {
        let (mut crowded, mut has_run) = (0, true);
        loop {
            let possible = self.possible(has_run);
            if possible.is_empty() {
                run().await;
                if self.engine.steps().is_empty() {
                    return;
                }
                continue;
            }
            let act = possible[decisions.next(possible.len())];
            acts.push(act);
            self.perform(act).await;
            has_run = crowded == self.scenario.crowding || decisions.next(2) == 0;
            if has_run {
                run().await;
            } else {
                crowded += 1;
            }
            if self.live_at.is_none() && self.subscriber.as_ref().is_some_and(|it| it.start().is_some()) {
                self.live_at = Some(self.engine.count());
            }
        }
    }

    fn possible(&self, has_run: bool) -> Vec<Act> {
        let mut possible: Vec<_> = self.engine.steps().into_iter().map(Act::Engine).collect();
        if self.subscriber.is_none() {
            possible.push(Act::Subscribe);
        }
        let can_leave = match self.scenario.leaver {
            Leaver::Nobody => false,
            Leaver::Company => !self.has_left,
            Leaver::Subscriber => !self.has_left && self.subscriber.is_some(),
        };
        if can_leave {
            possible.push(Act::Leave);
        }
        // A call that waits for an answer for so long would fail.
        let can_linger = self.has_left && !self.has_lingered && has_run && !self.engine.has_calls();
        if can_linger && self.scenario.leaver == Leaver::Company {
            possible.push(Act::Linger);
        }
        possible
    }

    async fn perform(&mut self, act: Act) {
        match act {
            Act::Engine(step) => self.engine.take(step),
            Act::Subscribe => {
                let since = self.scenario.since.map(|number| self.engine.position(number));
                self.subscriber = Some(Client::subscribe(&self.hub, self.scenario.topic, since));
            }
            Act::Leave => {
                self.has_left = true;
                let is_company = self.scenario.leaver == Leaver::Company;
                let leaver = if is_company { &self.company } else { &self.subscriber };
                leaver.as_ref().expect("the leaver is there").leave();
            }
            Act::Linger => {
                self.has_lingered = true;
                sleep(LINGER).await;
            }
        }
    }

    /// Compares the messages that the members have received with those that they must have.
    async fn check(mut self) {
        let last = self.engine.count();
        let has_left = |leaver| self.has_left && self.scenario.leaver == leaver;
        let is_unbroken = |numbers: &[usize]| numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]);
        let mut subscriber = self.subscriber.take().expect("the member has subscribed");
        let received = subscriber.received().await;
        assert!(is_unbroken(&received), "the subscriber received {received:?}");
        if !has_left(Leaver::Subscriber) {
            let Some(Start::Live(start)) = subscriber.start() else { panic!("the subscriber is not live") };
            let is_tracked = start != Position::UNTRACKED;
            let expected = match self.scenario.since {
                Some(since) => since + 1,
                None if is_tracked => usize::try_from(start.offset()).unwrap() + 1,
                None => self.live_at.unwrap_or(last) + 1,
            };
            let is_early = is_tracked && received.first().is_some_and(|first| *first != expected);
            assert!(!is_early, "the subscriber received {received:?} from {expected} on");
            let missing = (expected..=last).find(|number| !received.contains(number));
            assert_eq!(missing, None, "the subscriber received {received:?} of {expected} to {last}");
        }
        let Some(company) = &mut self.company else { return };
        let received = company.received().await;
        let is_first = received.first().is_none_or(|first| *first == 3);
        assert!(is_unbroken(&received) && is_first, "the other member received {received:?}");
        assert!(has_left(Leaver::Company) || received.len() == last - 2, "it received {received:?}");
    }
}

/// Has all conversations of a scenario. Returns their number.
fn explore(scenario: Scenario) -> usize {
    let (mut decisions, mut count) = (Decisions::default(), 0);
    loop {
        let mut acts = Vec::new();
        let runtime =
            runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let converse = std::panic::AssertUnwindSafe(|| {
            runtime.block_on(async {
                let mut conversation = Conversation::new(scenario).await;
                conversation.hold(&mut decisions, &mut acts).await;
                conversation.check().await;
            });
        });
        if let Err(panic) = std::panic::catch_unwind(converse) {
            eprintln!("the conversation after {count} others, with the path {:?}: {acts:?}", decisions.path);
            std::panic::resume_unwind(panic);
        }
        count += 1;
        if !decisions.advance() {
            println!("{count} conversations");
            return count;
        }
    }
}

const CHAT: Scenario = Scenario {
    topic: "chat/lobby",
    since: Some(1),
    company: Company::Live,
    messages: 2,
    losses: 0,
    crowding: 2,
    leaver: Leaver::Nobody,
};

#[test]
fn a_member_misses_nothing_between_history_and_live() {
    explore(CHAT);
}

#[test]
fn a_first_member_misses_nothing_while_the_topic_opens() {
    explore(Scenario { company: Company::Alone, messages: 1, ..CHAT });
}

#[test]
fn a_first_member_receives_everything_from_its_start_on() {
    explore(Scenario { since: None, company: Company::Alone, crowding: 1, ..CHAT });
}

#[test]
fn a_lost_delivery_is_filled_while_a_member_subscribes() {
    explore(Scenario { losses: 1, crowding: 1, ..CHAT });
}

#[test]
fn a_member_leaves_while_another_one_subscribes() {
    explore(Scenario { messages: 1, leaver: Leaver::Company, crowding: 1, ..CHAT });
}

#[test]
fn a_member_leaves_while_it_subscribes() {
    explore(Scenario { messages: 1, leaver: Leaver::Subscriber, ..CHAT });
}

#[test]
fn a_topic_without_history_delivers_from_the_start_on() {
    explore(Scenario { topic: "price/oil", since: None, company: Company::Alone, ..CHAT });
    explore(Scenario { topic: "price/oil", since: None, messages: 1, leaver: Leaver::Company, ..CHAT });
}
