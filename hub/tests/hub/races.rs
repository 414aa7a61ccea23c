//! Schedules in which calls, engines and runtimes get in each other's way.

mod confirmation;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bowline::{CloseCode, Message, WebSocket, pair};
use bowline_hub::{
    Delivery, Engine, EngineError, HistoryEntry, HistoryPage, Inbox, Lease, Memory, NodeId, Position,
    Predecessor, PresenceChange, Present, Since, Start, Topic,
};
use bowline_hub_testing::TestResult;
use bowline_hub_testing::client::{builder, receive};
use bowline_hub_testing::presence::{self, ROOM, Visitor};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, advance, sleep, timeout};

type Asked = mpsc::UnboundedSender<oneshot::Sender<Vec<Present>>>;

struct Scripted {
    inbox: Arc<Mutex<Option<Inbox>>>,
    asked: Asked,
}

impl Engine for Scripted {
    fn start(&mut self, inbox: Inbox) -> Result<(), EngineError> {
        *self.inbox.lock().unwrap() = Some(inbox);
        Ok(())
    }
    async fn publish(&self, _: &Topic, _: Message, _: u64) -> Result<Position, EngineError> {
        Ok(Position::UNTRACKED)
    }
    async fn want(&self, _: &Topic) -> Result<(), EngineError> {
        Ok(())
    }
    async fn unwant(&self, _: &Topic) -> Result<(), EngineError> {
        Ok(())
    }
    async fn history(&self, _: &Topic, _: u64, _: usize) -> Result<HistoryPage, EngineError> {
        Err(EngineError::new("none"))
    }
    async fn begin(&self, _: NodeId, _: Duration) -> Result<(), EngineError> {
        Ok(())
    }
    async fn renew(&self, _: NodeId, _: Duration) -> Result<Lease, EngineError> {
        Ok(Lease::Held)
    }
    async fn reap(&self, _: NodeId) -> Result<usize, EngineError> {
        Ok(0)
    }
    async fn present(&self, _: &Topic) -> Result<Vec<Present>, EngineError> {
        let (reply, answer) = oneshot::channel();
        self.asked.send(reply).unwrap();
        answer.await.map_err(|_| EngineError::new("gone"))
    }
}

/// A join that arrives during a read, its leave is lost (reported), and the read is repeated.
#[tokio::test(start_paused = true)]
async fn ghost_in_the_view() -> TestResult {
    let shared = Arc::new(Mutex::new(None));
    let (asked, mut asks) = mpsc::unbounded_channel();
    let hub = presence::builder(Scripted { inbox: shared.clone(), asked }).build()?;
    let inbox = shared.lock().unwrap().clone().unwrap();
    let mut client = Visitor::subscribe(&hub, ROOM).await?;
    let first = asks.recv().await.unwrap();
    let topic = inbox.topic(ROOM);
    drop(inbox.change(PresenceChange { topic, key: "ghost".into(), info: Some(String::new()) }));
    sleep(Duration::from_millis(5)).await;
    // The change "ghost has left" is lost, and the engine says so.
    inbox.changes_lost(ROOM);
    sleep(Duration::from_millis(5)).await;
    first.send(Vec::new()).unwrap();
    let second = asks.recv().await.unwrap();
    // Nobody is present.
    second.send(Vec::new()).unwrap();
    client.expect(&["here "]).await?;
    client.expect_nothing_for(Duration::from_secs(1)).await?;
    Ok(())
}

async fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) {
    let mut future = Some(future);
    std::future::poll_fn(move |cx| {
        if let Some(future) = future.take() {
            assert!(future.poll(cx).is_pending());
        }
        std::task::Poll::Ready(())
    })
    .await;
}

/// The end of an old, cancelled subscription ends the new one.
#[tokio::test(start_paused = true)]
async fn stale_claim() -> TestResult {
    let hub = builder(Memory::new()).build()?;
    let (mut client, server) = pair();
    let member = hub.join(server.sender())?;
    let mut old = Box::pin(member.subscribe("chat/a", None));
    poll_once(old.as_mut()).await;
    member.unsubscribe("chat/a").await;
    assert!(matches!(member.subscribe("chat/a", None).await?, Start::Live(_)));
    assert!(old.await.is_err());
    sleep(Duration::from_millis(10)).await;
    hub.publish("chat/a", "x").await?;
    let got = timeout(Duration::from_secs(5), receive(&mut client)).await;
    assert!(
        got.is_ok(),
        "the member was told that it is live, and receives nothing; topics {}",
        member.topic_count()
    );
    Ok(())
}

/// The end of an old, cancelled appearance ends the new one.
#[tokio::test(start_paused = true)]
async fn stale_undo() -> TestResult {
    let hub = presence::builder(Memory::new()).build()?;
    let client = Visitor::subscribe(&hub, ROOM).await?;
    sleep(Duration::from_secs(1)).await;
    let mut old = Box::pin(client.member.appear(ROOM, "alice"));
    poll_once(old.as_mut()).await;
    client.member.disappear(ROOM);
    client.member.appear(ROOM, "alice").await?;
    drop(old);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(hub.count(ROOM).await?, 1);
    Ok(())
}

/// After `unsubscribe` has returned, an old replay goes on, beside a new one.
#[tokio::test(start_paused = true)]
async fn unsubscribe_during_a_replay() -> TestResult {
    let hub = builder(Memory::new()).build()?;
    let start = hub.publish("chat/a", "first").await?;
    for number in 0..90 {
        hub.publish("chat/a", number.to_string()).await?;
    }
    let (mut client, server) = pair();
    let member = Arc::new(hub.join(server.sender())?);
    server.send(vec![0; 200 * 1024]).await?;
    let old = tokio::spawn({
        let member = member.clone();
        async move { member.subscribe("chat/a", Some(start)).await.map_err(|e| e.to_string()) }
    });
    sleep(Duration::from_millis(10)).await;
    member.unsubscribe("chat/a").await;
    let new = tokio::spawn({
        let member = member.clone();
        async move { member.subscribe("chat/a", Some(start)).await.map_err(|e| e.to_string()) }
    });
    sleep(Duration::from_millis(10)).await;
    client.recv().await?;
    let mut seen = Vec::new();
    while let Ok(Ok((_, text))) = timeout(Duration::from_secs(1), receive(&mut client)).await {
        seen.push(text);
    }
    println!("old {:?} new {:?}", old.await, new.await);
    let zeros = seen.iter().filter(|text| *text == "0").count();
    assert_eq!((zeros, seen.len()), (1, 90), "{seen:?}");
    Ok(())
}

#[derive(Clone)]
struct Hanging(Memory2, Arc<AtomicBool>);
#[derive(Clone)]
struct Memory2(Arc<Mutex<Option<Inbox>>>);

impl Engine for Hanging {
    fn start(&mut self, inbox: Inbox) -> Result<(), EngineError> {
        *self.0.0.lock().unwrap() = Some(inbox);
        Ok(())
    }
    async fn publish(&self, _: &Topic, _: Message, _: u64) -> Result<Position, EngineError> {
        std::future::pending().await
    }
    async fn want(&self, _: &Topic) -> Result<(), EngineError> {
        Ok(())
    }
    async fn unwant(&self, _: &Topic) -> Result<(), EngineError> {
        Ok(())
    }
    async fn history(&self, _: &Topic, _: u64, _: usize) -> Result<HistoryPage, EngineError> {
        if self.1.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        let top = Position::new(1, 0, 0);
        Ok(HistoryPage { top, anchor: Some(0), newer: 0, entries: Vec::new() })
    }
    async fn begin(&self, _: NodeId, _: Duration) -> Result<(), EngineError> {
        Ok(())
    }
    async fn renew(&self, _: NodeId, _: Duration) -> Result<Lease, EngineError> {
        Ok(Lease::Held)
    }
    async fn enter(&self, _: &Topic, _: NodeId, _: &Present) -> Result<Lease, EngineError> {
        if self.1.load(Ordering::Relaxed) {
            return Err(EngineError::new("out of reach"));
        }
        std::future::pending().await
    }
    async fn exit(&self, _: &Topic, _: NodeId, _: &str) -> Result<(), EngineError> {
        Err(EngineError::new("out of reach"))
    }
    async fn present(&self, _: &Topic) -> Result<Vec<Present>, EngineError> {
        Ok(Vec::new())
    }
}

fn hanging() -> Hanging {
    Hanging(Memory2(Arc::default()), Arc::default())
}

/// The broker is back, and its histories don't answer.
#[tokio::test(start_paused = true)]
async fn subscribe_waits_for_all_fills() -> TestResult {
    let engine = hanging();
    let hub = builder(engine.clone()).build()?;
    let mut members = Vec::new();
    for number in 0..1280 {
        let (client, server) = pair();
        let member = hub.join(server.sender())?;
        let _start = member.subscribe(&format!("chat/{number}"), None).await?;
        members.push((client, server, member));
    }
    engine.1.store(true, Ordering::Relaxed);
    engine.0.0.lock().unwrap().as_ref().unwrap().reconnected();
    sleep(Duration::from_millis(10)).await;
    let mut tasks = Vec::new();
    let began = Instant::now();
    for number in 0..1280 {
        let (_client, server) = pair();
        let member = hub.join(server.sender())?;
        tasks.push(tokio::spawn(async move {
            let _server = server;
            let outcome = member.subscribe(&format!("chat/{number}"), None).await;
            (began.elapsed(), outcome.is_ok())
        }));
    }
    let mut longest = Duration::ZERO;
    for task in tasks {
        longest = longest.max(task.await?.0);
    }
    assert!(longest < Duration::from_secs(5), "subscribe took {longest:?}, with engine_timeout 2 s");
    Ok(())
}

/// The first of the last messages can't be framed.
#[tokio::test(start_paused = true)]
async fn last_with_a_frame_that_panics() -> TestResult {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let hub = builder(Memory::new())
        .frame(move |message| {
            counted.fetch_add(1, Ordering::Relaxed);
            assert_ne!(message.text(), Some("bad"));
            format!("{} {}", message.position(), message.text().unwrap()).into()
        })
        .build()?;
    for text in ["bad", "one", "two"] {
        hub.publish("chat/a", text).await?;
    }
    let (mut client, server) = pair();
    let member = hub.join(server.sender())?;
    let start = member.subscribe("chat/a", Since::Last(3)).await?;
    let got = timeout(Duration::from_secs(1), receive(&mut client)).await;
    assert!(
        matches!(start, Start::Lost(_)) || got.is_ok(),
        "{start:?} without the messages one and two, after {} calls of the frame",
        calls.load(Ordering::Relaxed)
    );
    Ok(())
}

/// A caller on another runtime, while that of the hub ends.
#[test]
fn the_runtime_ends_during_a_publish() {
    let [one, two] = [tokio::runtime::Runtime::new().unwrap(), tokio::runtime::Runtime::new().unwrap()];
    let hub = one.block_on(async { builder(hanging()).build().unwrap() });
    let task = two.spawn(async move { hub.publish("chat/a", "x").await.map_err(|e| e.to_string()) });
    std::thread::sleep(Duration::from_millis(200));
    one.shutdown_background();
    let outcome = two.block_on(async { timeout(Duration::from_secs(5), task).await });
    println!("{outcome:?}");
    assert!(matches!(outcome, Ok(Ok(Err(_)))), "{outcome:?}");
}

/// Events end with the hub.
#[tokio::test(start_paused = true)]
async fn events_end() -> TestResult {
    let memory = Memory::new();
    let hub = builder(memory.clone()).build()?;
    let (_client, server) = pair();
    let member = hub.join(server.sender())?;
    let _start = member.subscribe("chat/a", None).await?;
    let mut events = hub.events();
    drop((member, hub));
    let end = timeout(Duration::from_secs(60), events.recv()).await;
    assert!(end.is_ok());
    drop(memory);
    Ok(())
}

struct Owner(Option<bowline_hub::Hub>, mpsc::UnboundedSender<()>);
impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        b"payload"
    }
}
impl Drop for Owner {
    fn drop(&mut self) {
        if let Some(hub) = self.0.take() {
            let mut future = Box::pin(async move { hub.publish("chat/a", "from the drop").await.is_ok() });
            let waker = std::task::Waker::noop();
            let _ = future.as_mut().poll(&mut std::task::Context::from_waker(waker));
        }
        let _ = self.1.send(());
    }
}

/// A payload whose drop publishes.
#[test]
fn payload_dropped_under_the_lock() {
    let (sender, mut dropped) = mpsc::unbounded_channel();
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let outcome = runtime.block_on(async {
            let hub = builder(Memory::new()).build().unwrap();
            let bytes = bowline::bytes::Bytes::from_owner(Owner(Some(hub.clone()), sender));
            hub.publish("chat/a", Message::Binary(bytes)).await.is_ok()
        });
        done.send(outcome).unwrap();
    });
    let outcome = is_done.recv_timeout(Duration::from_secs(5));
    assert_eq!(outcome, Ok(true));
    assert!(dropped.try_recv().is_ok());
}

struct Bomb;
impl AsRef<[u8]> for Bomb {
    fn as_ref(&self) -> &[u8] {
        b"payload"
    }
}
impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("the drop of a payload");
    }
}

/// A payload whose drop panics.
#[tokio::test]
async fn a_worker_that_dies_is_silent() -> TestResult {
    let hub = builder(Memory::new()).workers(2).build()?;
    let (mut client, server) = pair();
    let member = hub.join(server.sender())?;
    let _start = member.subscribe("news", None).await?;
    let bytes = bowline::bytes::Bytes::from_owner(Bomb);
    let _ = hub.publish("news", Message::Binary(bytes)).await;
    sleep(Duration::from_millis(100)).await;
    let published = hub.publish("news", "after").await;
    let mut got = Vec::new();
    while let Ok(Ok((_, text))) = timeout(Duration::from_secs(1), receive(&mut client)).await {
        got.push(text);
    }
    assert!(
        got.iter().any(|text| text == "after") || !hub.is_healthy() || published.is_err(),
        "got {got:?}, published {published:?}, healthy {}",
        hub.is_healthy()
    );
    Ok(())
}

/// An engine whose pages are made by a function of the offset and the limit.
struct Fixed {
    inbox: Arc<Mutex<Option<Inbox>>>,
    page: fn(u64, usize) -> HistoryPage,
}

impl Engine for Fixed {
    fn start(&mut self, inbox: Inbox) -> Result<(), EngineError> {
        *self.inbox.lock().unwrap() = Some(inbox);
        Ok(())
    }
    async fn publish(&self, _: &Topic, _: Message, _: u64) -> Result<Position, EngineError> {
        Err(EngineError::new("no"))
    }
    async fn want(&self, _: &Topic) -> Result<(), EngineError> {
        Ok(())
    }
    async fn unwant(&self, _: &Topic) -> Result<(), EngineError> {
        Ok(())
    }
    async fn history(&self, _: &Topic, after: u64, limit: usize) -> Result<HistoryPage, EngineError> {
        Ok((self.page)(after, limit))
    }
}

/// A page of a history without messages.
fn empty(after: u64, _: usize) -> HistoryPage {
    let top = Position::new(1, 0, 0);
    HistoryPage { top, anchor: (after == 0).then_some(0), newer: 0, entries: Vec::new() }
}

/// A loss of a message that was never sent is not told to a member that is slow.
#[tokio::test(start_paused = true)]
async fn a_loss_is_kept_from_a_slow_member() -> TestResult {
    let shared = Arc::new(Mutex::new(None));
    let hub = builder(Fixed { inbox: shared.clone(), page: empty })
        .lost(|_, now| format!("{now} lost").into())
        .build()?;
    let inbox = shared.lock().unwrap().clone().unwrap();
    let mut clients = Vec::new();
    for _ in 0..2 {
        let (client, server) = pair();
        let member = hub.join(server.sender())?;
        let _start = member.subscribe("chat/a", None).await?;
        clients.push((client, server, member));
    }
    clients[1].1.send(vec![0; 200 * 1024]).await?;
    let topic = inbox.topic("chat/a");
    drop(inbox.deliver(bowline_hub::Delivery {
        topic,
        position: Position::new(1, 1, 9),
        previous: bowline_hub::Predecessor::Tag(0),
        message: "never seen".into(),
    }));
    inbox.verify();
    assert_eq!(receive(&mut clients[0].0).await?.1, "lost");
    sleep(Duration::from_secs(1)).await;
    clients[1].0.recv().await?;
    let told = timeout(Duration::from_secs(5), receive(&mut clients[1].0)).await;
    assert!(
        matches!(&told, Ok(Ok((_, text))) if text == "lost"),
        "the slow member is not told: {told:?} {:?}",
        hub.stats()
    );
    Ok(())
}

#[tokio::test]
async fn subscribe_on_a_closed_connection() -> TestResult {
    let hub = builder(Memory::new()).build()?;
    let (client, mut server) = pair();
    let member = hub.join(server.sender())?;
    drop(client);
    let _ = server.recv().await;
    drop(server);
    let start = member.subscribe("chat/a", None).await;
    assert!(start.is_err(), "{start:?}, {:?}", hub.stats());
    Ok(())
}

/// Two nodes are frozen together (a host that was suspended), and the clock goes on.
#[test]
fn nodes_that_were_frozen_together_do_not_reap_each_other() {
    let memory = Memory::new();
    let runtime =
        || tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let (one, two) = (runtime(), runtime());
    let build = |memory: Memory| presence::builder(memory).build();
    let (_here, mut watcher) = one.block_on(async {
        let hub = build(memory.clone()).unwrap();
        let client = Visitor::subscribe(&hub, ROOM).await.unwrap();
        (hub, client)
    });
    let _bob = two.block_on(async {
        let hub = build(memory.clone()).unwrap();
        Visitor::appear(&hub, ROOM, "bob").await.unwrap()
    });
    // In small steps, so that both clocks stand nearly equal.
    for _ in 0..60 {
        one.block_on(async { sleep(Duration::from_secs(1)).await });
        two.block_on(async { sleep(Duration::from_secs(1)).await });
    }
    one.block_on(watcher.expect(&["here ", "+ bob"])).unwrap();
    one.block_on(async { advance(Duration::from_secs(40)).await });
    two.block_on(async { advance(Duration::from_secs(40)).await });
    // The first is scheduled a bit earlier.
    one.block_on(async { watcher.expect_nothing_for(Duration::from_secs(1)).await }).unwrap();
    two.block_on(async { sleep(Duration::from_secs(1)).await });
    one.block_on(async { watcher.expect_nothing_for(Duration::from_secs(1)).await }).unwrap();
}

/// Reports of lost changes don't begin a read each: another one follows the read that is under way.
#[tokio::test(start_paused = true)]
async fn reads_of_presence_do_not_pile_up() -> TestResult {
    let shared = Arc::new(Mutex::new(None));
    let (asked, mut asks) = mpsc::unbounded_channel();
    let hub = presence::builder(Scripted { inbox: shared.clone(), asked }).build()?;
    let inbox = shared.lock().unwrap().clone().unwrap();
    let mut client = Visitor::subscribe(&hub, ROOM).await?;
    let first = asks.recv().await.unwrap();
    for _ in 0..50 {
        inbox.changes_lost(ROOM);
        sleep(Duration::from_millis(2)).await;
    }
    sleep(Duration::from_secs(1)).await;
    assert!(asks.try_recv().is_err(), "a read began beside another one");
    first.send(vec![Present::new("nobody any more")]).unwrap();
    let second = asks.recv().await.unwrap();
    second.send(Vec::new()).unwrap();
    client.expect(&["here "]).await?;
    assert!(asks.try_recv().is_err(), "all reports were before this read");
    Ok(())
}

/// The broker fails once in the middle of a replay, and the application tries again.
struct FailsOnce(Memory, AtomicBool);
impl Engine for FailsOnce {
    fn start(&mut self, inbox: Inbox) -> Result<(), EngineError> {
        Engine::start(&mut self.0, inbox)
    }
    async fn publish(&self, t: &Topic, m: Message, n: u64) -> Result<Position, EngineError> {
        Engine::publish(&self.0, t, m, n).await
    }
    async fn want(&self, t: &Topic) -> Result<(), EngineError> {
        self.0.want(t).await
    }
    async fn unwant(&self, t: &Topic) -> Result<(), EngineError> {
        self.0.unwant(t).await
    }
    async fn history(&self, t: &Topic, a: u64, l: usize) -> Result<HistoryPage, EngineError> {
        if a > 100 && !self.1.swap(true, Ordering::Relaxed) {
            return Err(EngineError::new("once"));
        }
        self.0.history(t, a, l).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_replay_that_fails_in_the_middle() -> TestResult {
    let hub = bowline_hub::Hub::builder(FailsOnce(Memory::new(), AtomicBool::new(false)))
        .rule("chat/", bowline_hub::Rule::new().history(1000, Duration::from_secs(300)))
        .frame(|message| format!("{} {}", message.position(), message.text().unwrap_or("?")).into())
        .build()?;
    let start = hub.publish("chat/a", "first").await?;
    for number in 0..250 {
        hub.publish("chat/a", number.to_string()).await?;
    }
    let (mut client, server) = pair();
    let member = hub.join(server.sender())?;
    let error = member.subscribe("chat/a", Some(start)).await.unwrap_err();
    assert_eq!(error.kind(), bowline_hub::ErrorKind::Unavailable);
    // The client comes back with another position, and not with this one.
    let again = member.subscribe("chat/a", Some(start)).await.unwrap_err();
    assert_eq!(again.kind(), bowline_hub::ErrorKind::Closed);
    let (mut seen, end) = loop_until_end(&mut client).await;
    assert_eq!(end, Some(CloseCode::TRY_AGAIN_LATER));
    let (mut client, server) = pair();
    let member = hub.join(server.sender())?;
    let since: Position = seen.last().unwrap().0;
    let start = member.subscribe("chat/a", Some(since)).await?;
    assert!(matches!(start, Start::Live(_)), "{start:?}");
    server.close(CloseCode::NORMAL, "").await.ok();
    seen.extend(loop_until_end(&mut client).await.0);
    let expected = (0..250).map(|number| number.to_string());
    assert!(seen.into_iter().map(|(_, text)| text).eq(expected));
    Ok(())
}

/// Receives until the end of the connection. Returns the messages, and the code of the Close frame.
async fn loop_until_end(client: &mut WebSocket) -> (Vec<(Position, String)>, Option<CloseCode>) {
    let mut seen = Vec::new();
    while let Ok(message) = receive(client).await {
        seen.push(message);
    }
    (seen, client.close_frame().map(|frame| frame.code()))
}

/// A call whose future is forgotten stays under way, until its member is gone.
#[tokio::test(start_paused = true)]
async fn a_call_that_is_forgotten_ends_with_its_member() -> TestResult {
    let hub = builder(Memory::new()).build()?;
    let (_client, server) = pair();
    let member = hub.join(server.sender())?;
    let mut call = Box::pin(member.subscribe("chat/a", None));
    poll_once(call.as_mut()).await;
    std::mem::forget(call);
    sleep(Duration::from_millis(10)).await;
    assert_eq!((hub.stats().subscriptions, hub.stats().topics), (1, 1));
    drop(member);
    sleep(Duration::from_secs(10)).await;
    assert_eq!((hub.stats().subscriptions, hub.stats().topics), (0, 0));
    Ok(())
}

/// The runtime of the hub ends, and that of the connections goes on.
#[test]
fn the_runtime_ends_while_members_are_elsewhere() -> TestResult {
    let [one, two] = [tokio::runtime::Runtime::new()?, tokio::runtime::Runtime::new()?];
    let hub = one.block_on(async { builder(Memory::new()).build() })?;
    let (mut client, server) = two.block_on(async { pair() });
    let member = hub.join(server.sender())?;
    let start = two.block_on(member.subscribe("chat/a", None))?;
    assert!(matches!(start, Start::Live(_)));
    drop(one);
    let end = two.block_on(async { timeout(Duration::from_secs(60), client.recv()).await });
    assert!(end.is_ok(), "the member is left in the dark");
    assert_eq!(client.close_frame().map(|frame| frame.code()), Some(CloseCode::TRY_AGAIN_LATER));
    Ok(())
}

/// The runtime of hub and connections ends, while members are sent messages.
#[test]
fn the_runtime_ends_with_its_members() -> TestResult {
    let [one, two] = [tokio::runtime::Runtime::new()?, tokio::runtime::Runtime::new()?];
    let (hub, url) = one.block_on(async {
        let hub = builder(Memory::new()).build()?;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("ws://{}", listener.local_addr()?);
        let joined = hub.clone();
        tokio::spawn(bowline::serve(listener, move |mut socket: WebSocket| {
            let hub = joined.clone();
            async move {
                let member = hub.join(&socket)?;
                let _start = member.subscribe("chat/a", None).await?;
                while socket.recv().await?.is_some() {}
                Ok(())
            }
        }));
        Ok::<_, Box<dyn std::error::Error>>((hub, url))
    })?;
    let mut clients = Vec::new();
    for _ in 0..50 {
        clients.push(two.block_on(bowline::connect(&url))?);
    }
    while hub.stats().subscriptions < 50 {
        std::thread::yield_now();
    }
    let publisher = two.spawn(async move { while hub.publish("chat/a", "x").await.is_ok() {} });
    for client in &mut clients {
        assert!(two.block_on(client.recv())?.is_some());
    }
    drop(one);
    two.block_on(async {
        for client in &mut clients {
            // Whether a Close frame could be written depends on the order in which the tasks end.
            let end = async { while let Ok(Some(_)) = client.recv().await {} };
            timeout(Duration::from_secs(60), end).await?;
        }
        Ok(timeout(Duration::from_secs(60), publisher).await??)
    })
}

const ONLY: Position = Position::new(1, 1, 7);

/// A page with one message, whose drop panics.
fn mined(after: u64, limit: usize) -> HistoryPage {
    if limit == 0 {
        return empty(after, limit);
    }
    let message = Message::Binary(bowline::bytes::Bytes::from_owner(Bomb));
    let entries = vec![HistoryEntry { position: ONLY, previous: 0, message }];
    HistoryPage { top: ONLY, anchor: Some(0), newer: 1, entries }
}

/// The task of a slow member panics.
#[tokio::test(start_paused = true)]
async fn a_slow_member_whose_task_panics_is_closed() -> TestResult {
    let shared = Arc::new(Mutex::new(None));
    let hub = builder(Fixed { inbox: shared.clone(), page: mined }).build()?;
    let inbox = shared.lock().unwrap().clone().unwrap();
    let (mut client, server) = pair();
    let member = hub.join(server.sender())?;
    let _start = member.subscribe("chat/a", None).await?;
    server.send(vec![0; 200 * 1024]).await?;
    let (topic, message) = (inbox.topic("chat/a"), Message::from("only"));
    drop(inbox.deliver(Delivery { topic, position: ONLY, previous: Predecessor::Tag(0), message }));
    while hub.stats().catching_up == 0 {
        sleep(Duration::from_millis(1)).await;
    }
    client.recv().await?;
    assert_eq!(receive(&mut client).await?, (ONLY, "?".to_owned()));
    assert!(timeout(Duration::from_secs(5), client.recv()).await.is_ok(), "the member is left in the dark");
    assert_eq!(client.close_frame().map(|frame| frame.code()), Some(CloseCode::TRY_AGAIN_LATER));
    assert_eq!(hub.stats().catching_up, 0);
    Ok(())
}
