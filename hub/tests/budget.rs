//! The memory of a subscription.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering};
use std::time::Duration;

use bowline::{Message, pair};
use bowline_hub::{
    Engine, EngineError, HistoryPage, Hub, HubLimits, Inbox, Lease, Memory, NodeId, Position, Present, Rule,
    Topic,
};

/// An allocator that counts the bytes that are held.
struct Counting;

static HELD: AtomicIsize = AtomicIsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(bytes: usize) -> isize {
    isize::try_from(bytes).expect("no allocation is larger than isize::MAX")
}

#[expect(unsafe_code, reason = "an allocator is unsafe by nature; this one hands everything on")]
// SAFETY: all calls go to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(count(layout.size()), Ordering::Relaxed);
        // SAFETY: the caller's promises are handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(count(layout.size()), Ordering::Relaxed);
        // SAFETY: the caller's promises are handed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn held() -> isize {
    HELD.load(Ordering::Relaxed)
}

/// Returns the bytes of a subscription, for so many members in so many topics each.
///
/// The caller keeps the hub and its members: what they free must not be counted with the next ones.
async fn bytes_per_subscription(members: usize, topics: usize) -> (isize, impl Sized) {
    let rule = Rule::new().history(100, Duration::from_secs(300));
    let hub = Hub::builder(Memory::new()).workers(1).rule("", rule).build().unwrap();
    let mut joined = Vec::new();
    for _ in 0..members {
        let (client, server) = pair();
        let member = hub.join(server.sender()).unwrap();
        joined.push((client, server, member));
    }
    // The first message on a connection, and the topics themselves, are not counted.
    for topic in 0..topics {
        let _start = joined[0].2.subscribe(&format!("topic/{topic}"), None).await.unwrap();
    }
    let before = held();
    for (_, _, member) in &joined[1..] {
        for topic in 0..topics {
            let _start = member.subscribe(&format!("topic/{topic}"), None).await.unwrap();
        }
    }
    let subscriptions = (members - 1) * topics;
    assert_eq!(hub.stats().subscriptions, u64::try_from(members * topics).unwrap());
    ((held() - before) / isize::try_from(subscriptions).unwrap(), (hub, joined))
}

/// Returns the bytes of a topic with one member, in the hub and its engine.
///
/// Tables grow by doubling, so the mean of four sizes is taken, two of them just after a table has grown.
async fn bytes_per_topic(rule: Rule) -> (isize, impl Sized) {
    let (mut sum, mut kept) = (0, Vec::new());
    for topics in [6000, 7000, 8000, 9000] {
        let hub = Hub::builder(Memory::new()).workers(1).rule("", rule.clone()).build().unwrap();
        let connection = |_| {
            let (client, server) = pair();
            let member = hub.join(server.sender()).unwrap();
            (client, server, member)
        };
        let joined: Vec<_> = (0..topics / 100).map(connection).collect();
        let before = held();
        for topic in 0..topics {
            let (_, _, member) = &joined[topic / 100];
            let _start = member.subscribe(&format!("topic/{topic}"), None).await.unwrap();
        }
        sum += (held() - before) / isize::try_from(topics).unwrap();
        kept.push((hub, joined));
    }
    (sum / 4, kept)
}

/// One test, as the allocator counts what all threads hold.
#[tokio::test]
async fn a_hub_remembers_few_bytes() {
    let (bytes, _kept) = bytes_per_subscription(200, 100).await;
    println!("a subscription takes {bytes} bytes");
    assert!(bytes <= 24, "a subscription takes {bytes} bytes");
    let (bytes, _kept) = bytes_per_topic(Rule::new()).await;
    println!("a topic with one member takes {bytes} bytes");
    assert!(bytes <= 120, "a topic with one member takes {bytes} bytes");
    let (bytes, _kept) = bytes_per_topic(Rule::new().history(100, Duration::from_secs(300))).await;
    println!("a topic with one member and an empty history takes {bytes} bytes");
    assert!(bytes <= 380, "a topic with one member and an empty history takes {bytes} bytes");
    attempts_to_appear_are_not_remembered().await;
    a_member_that_reads_nothing_makes_the_hub_keep_little().await;
}

/// A client that reads nothing is behind for as long as it likes. The hub keeps some of the last messages
/// for it, up to a size.
async fn a_member_that_reads_nothing_makes_the_hub_keep_little() {
    let hub = Hub::builder(Memory::new()).rule("chat/", Rule::new().history(1, Duration::from_secs(300)));
    let hub = hub.limits(HubLimits::default().held_back(256 * 1024)).build().unwrap();
    let (_stuck, full) = pair();
    let slow = hub.join(full.sender()).unwrap();
    full.send(vec![0; 200 * 1024]).await.unwrap();
    let (mut client, server) = pair();
    let member = hub.join(server.sender()).unwrap();
    for member in [&slow, &member] {
        let _start = member.subscribe("chat/a", None).await.unwrap();
    }
    let before = held();
    for _ in 0..100 {
        hub.publish("chat/a", vec![0; 60_000]).await.unwrap();
        client.recv().await.unwrap();
    }
    assert_eq!(hub.stats().catching_up, 1);
    let grown = held() - before;
    assert!(grown < 1024 * 1024, "{grown} bytes after 100 messages of 60,000");
}

/// An engine whose broker is away, and that says so at once.
struct Away;

impl Engine for Away {
    fn start(&mut self, _inbox: Inbox) -> Result<(), EngineError> {
        Ok(())
    }

    async fn publish(&self, _topic: &Topic, _message: Message, _tag: u64) -> Result<Position, EngineError> {
        Err(EngineError::new("away"))
    }

    async fn want(&self, _topic: &Topic) -> Result<(), EngineError> {
        Ok(())
    }

    async fn unwant(&self, _topic: &Topic) -> Result<(), EngineError> {
        Ok(())
    }

    async fn history(&self, _topic: &Topic, _after: u64, _limit: usize) -> Result<HistoryPage, EngineError> {
        Err(EngineError::new("away"))
    }

    async fn begin(&self, _node: NodeId, _time: Duration) -> Result<(), EngineError> {
        Ok(())
    }

    async fn renew(&self, _node: NodeId, _time: Duration) -> Result<Lease, EngineError> {
        Err(EngineError::new("away"))
    }

    async fn enter(&self, _topic: &Topic, _node: NodeId, _present: &Present) -> Result<Lease, EngineError> {
        Err(EngineError::new("away"))
    }
}

/// A client that tries again and again while the broker is away makes the hub remember nothing.
async fn attempts_to_appear_are_not_remembered() {
    let hub = Hub::builder(Away).rule("room/", Rule::new().presence()).build().unwrap();
    let (_client, server) = pair();
    let member = hub.join(server.sender()).unwrap();
    let _start = member.subscribe("room/1", None).await.unwrap();
    for _ in 0..100 {
        assert!(member.appear("room/1", "alice").await.is_err());
    }
    let before = held();
    for _ in 0..10_000 {
        assert!(member.appear("room/1", "alice").await.is_err());
    }
    let grown = held() - before;
    assert!(grown < 4096, "{grown} bytes after 10,000 attempts");
}
