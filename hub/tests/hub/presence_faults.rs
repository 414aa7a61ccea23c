//! Presence while nodes and brokers fail, one failure at a time.

use std::time::Duration;

use bowline_hub::{ErrorKind, HubEvent, HubLimits, Memory, Present};
use bowline_hub_testing::TestResult;
use bowline_hub_testing::presence::{ROOM, Visitor, builder, keys};
use tokio::time::{Instant, sleep, timeout};

use crate::support::presence_broker::{CallFaults, PresenceBroker, Restart};

const LEASE: Duration = Duration::from_secs(30);

fn broker() -> PresenceBroker {
    PresenceBroker::new(0, CallFaults::default())
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_killed_has_left_after_30_s_and_once() -> TestResult {
    let broker = broker();
    let (dying, one, other) = (
        builder(broker.clone()).build()?,
        builder(broker.clone()).build()?,
        builder(broker.clone()).build()?,
    );
    let alice = Visitor::appear(&dying, ROOM, "alice").await?;
    let _tab = Visitor::appear(&dying, ROOM, "bob").await?;
    let _bob = Visitor::appear(&other, ROOM, "bob").await?;
    let mut watchers = [Visitor::subscribe(&one, ROOM).await?, Visitor::subscribe(&other, ROOM).await?];
    for watcher in &mut watchers {
        watcher.expect(&["here alice bob"]).await?;
    }
    sleep(Duration::from_secs(65)).await;
    broker.kill(0);
    let killed = Instant::now();
    drop((dying, alice));
    for watcher in &mut watchers {
        watcher.expect(&["- alice"]).await?;
        assert!(killed.elapsed() <= LEASE, "{:?}", killed.elapsed());
    }
    for watcher in &mut watchers {
        watcher.expect_nothing_for(2 * LEASE).await?;
    }
    assert_eq!(keys(&one, ROOM).await?, ["bob"]);
    assert_eq!(one.stats().reaped + other.stats().reaped, 2);
    Ok(())
}

/// The hub tells the broker that it ends, and nobody who connects elsewhere is missed.
#[tokio::test(start_paused = true)]
async fn a_node_that_ends_in_order_has_left_after_the_linger_time() -> TestResult {
    let memory = Memory::new();
    let (ending, here) = (builder(memory.clone()).build()?, builder(memory).build()?);
    let (alice, bob) =
        (Visitor::appear(&ending, ROOM, "alice").await?, Visitor::appear(&ending, ROOM, "bob").await?);
    let mut watcher = Visitor::subscribe(&here, ROOM).await?;
    watcher.expect(&["here alice bob"]).await?;
    sleep(2 * LEASE).await;
    let ended = Instant::now();
    drop((alice, bob, ending));
    sleep(Duration::from_secs(10)).await;
    let _alice = Visitor::appear(&here, ROOM, "alice").await?;
    watcher.expect(&["- bob"]).await?;
    assert!((15..=17).contains(&ended.elapsed().as_secs()), "{:?}", ended.elapsed());
    watcher.expect_nothing_for(2 * LEASE).await?;
    Ok(())
}

/// The keeper of the lease ends with the runtime, without a word to the broker.
#[test]
fn a_runtime_that_is_dropped_is_a_node_that_is_gone() -> TestResult {
    let limits = HubLimits::default()
        .presence_lease(Duration::from_millis(300))
        .presence_linger(Duration::from_millis(100));
    let memory = Memory::new();
    let runtimes = [tokio::runtime::Runtime::new()?, tokio::runtime::Runtime::new()?];
    let [gone, here] = runtimes;
    let alice = gone.block_on(async {
        let hub = builder(memory.clone()).limits(limits.clone()).build()?;
        Visitor::appear(&hub, ROOM, "alice").await
    })?;
    here.block_on(async {
        let hub = builder(memory).limits(limits).build()?;
        let mut watcher = Visitor::subscribe(&hub, ROOM).await?;
        watcher.expect(&["here alice"]).await?;
        gone.shutdown_background();
        watcher.expect(&["- alice"]).await?;
        let error = alice.member.appear(ROOM, "alice").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed);
        drop(alice);
        Ok(())
    })
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_stopped_for_a_minute_enters_everybody_again() -> TestResult {
    let broker = broker();
    let (stopped, here) = (builder(broker.clone()).build()?, builder(broker.clone()).build()?);
    let _alice = Visitor::appear(&stopped, ROOM, "alice").await?;
    let mut watcher = Visitor::subscribe(&here, ROOM).await?;
    watcher.expect(&["here alice"]).await?;
    sleep(2 * LEASE).await;
    let mut events = stopped.events();
    broker.kill(0);
    watcher.expect(&["- alice"]).await?;
    sleep(LEASE).await;
    assert!(!stopped.is_healthy() && here.is_healthy());
    broker.resume(0);
    watcher.expect(&["+ alice"]).await?;
    assert_eq!(events.recv().await, Some(HubEvent::LeaseLapsed { entries: 1 }));
    assert!(stopped.is_healthy());
    assert_eq!(stopped.stats().lapses, 1);
    watcher.expect_nothing_for(4 * LEASE).await?;
    assert_eq!(keys(&stopped, ROOM).await?, ["alice"]);
    Ok(())
}

/// Its members see the others as they were, and are told of everything afterwards.
#[tokio::test(start_paused = true)]
async fn a_node_that_is_cut_off_alone_is_unhealthy_and_its_members_have_left() -> TestResult {
    let broker = broker();
    let (alone, here) = (builder(broker.clone()).build()?, builder(broker.clone()).build()?);
    let mut alice = Visitor::appear(&alone, ROOM, "alice").await?;
    alice.expect(&["here ", "+ alice"]).await?;
    let mut bob = Visitor::appear(&here, ROOM, "bob").await?;
    bob.expect(&["here alice", "+ bob"]).await?;
    alice.expect(&["+ bob"]).await?;
    sleep(2 * LEASE).await;
    broker.disconnect(0);
    assert!(!alone.is_healthy());
    bob.expect(&["- alice"]).await?;
    bob.member.disappear(ROOM);
    let _carol = Visitor::appear(&here, ROOM, "carol").await?;
    bob.expect(&["- bob", "+ carol"]).await?;
    alice.expect_nothing_for(LEASE).await?;
    broker.reconnect(0);
    bob.expect(&["+ alice"]).await?;
    let frame = timeout(LEASE, alice.socket.recv()).await??.ok_or("the end")?.into_text()?;
    let other = if frame.as_str() == "- bob" { "+ carol" } else { "- bob" };
    alice.expect(&[other]).await?;
    assert!(alone.is_healthy());
    Ok(())
}

/// A hub that reaps the dead dies in the middle. The next one goes on, and nobody's leave is told twice.
#[tokio::test(start_paused = true)]
async fn a_node_that_dies_while_it_reaps_is_replaced() -> TestResult {
    let broker = broker();
    let (dying, reaper) = (builder(broker.clone()).build()?, builder(broker.clone()).build()?);
    let mut clients = Vec::new();
    for key in ["a", "b", "c", "d", "e", "f", "g"] {
        clients.push(Visitor::appear(&dying, ROOM, key).await?);
    }
    sleep(LEASE).await;
    broker.kill(0);
    sleep(Duration::from_secs(10)).await;
    // This hub does not reap yet when the lease ends.
    let last = builder(broker.clone()).build()?;
    let mut watcher = Visitor::subscribe(&last, ROOM).await?;
    watcher.expect(&["here a b c d e f g"]).await?;
    broker.set_faults(CallFaults { delayed: 1000, delay: 300, ..CallFaults::default() });
    let mut left = Vec::new();
    while left.len() < 7 {
        let frame = timeout(3 * LEASE, watcher.socket.recv()).await??.ok_or("the end")?.into_text()?;
        if left.is_empty() {
            broker.kill(1);
        }
        left.push(frame.to_string());
    }
    left.sort();
    assert_eq!(left, ["- a", "- b", "- c", "- d", "- e", "- f", "- g"]);
    watcher.expect_nothing_for(3 * LEASE).await?;
    assert!(reaper.stats().reaped < 7 && last.stats().reaped > 0);
    assert_eq!(keys(&last, ROOM).await?, [""; 0]);
    Ok(())
}

/// A broker that stood still finds all leases ended, because nobody could renew. Nobody is dead.
#[tokio::test(start_paused = true)]
async fn a_broker_that_was_away_for_longer_than_a_lease_buries_nobody() -> TestResult {
    let broker = broker();
    let hubs = [
        builder(broker.clone()).build()?,
        builder(broker.clone()).build()?,
        builder(broker.clone()).build()?,
    ];
    let mut clients = Vec::new();
    for (hub, key) in hubs.iter().zip(["alice", "bob", "carol"]) {
        clients.push(Visitor::appear(hub, ROOM, key).await?);
    }
    let mut watcher = Visitor::subscribe(&hubs[0], ROOM).await?;
    watcher.expect(&["here alice bob carol"]).await?;
    sleep(2 * LEASE).await;
    (0..3).for_each(|node| broker.disconnect(node));
    watcher.expect_nothing_for(3 * LEASE).await?;
    // One is much faster than the others.
    broker.reconnect(0);
    watcher.expect_nothing_for(Duration::from_secs(20)).await?;
    (1..3).for_each(|node| broker.reconnect(node));
    watcher.expect_nothing_for(4 * LEASE).await?;
    assert_eq!(hubs.iter().map(|hub| hub.stats().reaped).sum::<u64>(), 0);
    assert_eq!(keys(&hubs[1], ROOM).await?, ["alice", "bob", "carol"]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_loses_its_data_is_filled_again_without_news() -> TestResult {
    let broker = broker();
    let (here, there) = (builder(broker.clone()).build()?, builder(broker.clone()).build()?);
    let (_alice, bob) =
        (Visitor::appear(&here, ROOM, "alice").await?, Visitor::appear(&there, ROOM, "bob").await?);
    let mut watcher = Visitor::subscribe(&here, ROOM).await?;
    watcher.expect(&["here alice bob"]).await?;
    // One of the nodes needs longer to come back.
    broker.disconnect(1);
    broker.restart(Restart::WithNothing);
    sleep(Duration::from_secs(4)).await;
    broker.reconnect(1);
    watcher.expect_nothing_for(2 * LEASE).await?;
    assert_eq!(keys(&there, ROOM).await?, ["alice", "bob"]);
    // Without a restart, nodes find out at their next renewals.
    broker.flush();
    watcher.expect_nothing_for(2 * LEASE).await?;
    assert_eq!(keys(&there, ROOM).await?, ["alice", "bob"]);
    // Somebody who leaves while nothing is there is not forgotten, either.
    broker.flush();
    bob.member.disappear(ROOM);
    watcher.expect(&["- bob"]).await?;
    watcher.expect_nothing_for(2 * LEASE).await?;
    Ok(())
}

/// The snapshot contains somebody who has left since, and lacks somebody who has come.
#[tokio::test(start_paused = true)]
async fn a_broker_that_rolls_back_leaves_no_ghosts_and_nobody_missing() -> TestResult {
    let broker = broker();
    let (here, there) = (builder(broker.clone()).build()?, builder(broker.clone()).build()?);
    let ghost = Visitor::appear(&here, ROOM, "ghost").await?;
    broker.save();
    ghost.member.disappear(ROOM);
    let _alice = Visitor::appear(&here, ROOM, "alice").await?;
    let mut watcher = Visitor::subscribe(&there, ROOM).await?;
    sleep(2 * LEASE).await;
    watcher.expect(&["here alice"]).await?;
    broker.restart(Restart::RolledBack);
    sleep(3 * LEASE).await;
    assert_eq!(keys(&there, ROOM).await?, ["alice"]);
    // The members may have been told of the ghost, but then also of its end.
    let mut told = Vec::new();
    while let Ok(frame) = timeout(Duration::from_secs(1), watcher.socket.recv()).await {
        told.push(frame?.ok_or("the end")?.into_text()?.to_string());
    }
    assert!(told.is_empty() || told == ["+ ghost", "- ghost"], "{told:?}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn while_the_broker_is_away_appearing_fails_and_disappearing_is_made_up_for() -> TestResult {
    let broker = broker();
    let (here, there) = (builder(broker.clone()).build()?, builder(broker.clone()).build()?);
    let alice = Visitor::appear(&here, ROOM, "alice").await?;
    let bob = Visitor::subscribe(&here, ROOM).await?;
    let mut watcher = Visitor::subscribe(&there, ROOM).await?;
    watcher.expect(&["here alice"]).await?;
    broker.disconnect(0);
    alice.member.disappear(ROOM);
    let asked = Instant::now();
    assert_eq!(bob.member.appear(ROOM, "bob").await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(asked.elapsed() <= Duration::from_secs(2));
    assert_eq!(here.present(ROOM).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(here.count(ROOM).await.unwrap_err().kind(), ErrorKind::Unavailable);
    broker.reconnect(0);
    watcher.expect(&["- alice"]).await?;
    watcher.expect_nothing_for(4 * LEASE).await?;
    bob.member.appear(ROOM, "bob").await?;
    watcher.expect(&["+ bob"]).await?;
    Ok(())
}

/// The hub can't know of any of these calls that it was not carried out. So it gives up its lease in the end,
/// and remembers no attempt from then on.
#[tokio::test(start_paused = true)]
async fn attempts_with_ever_new_keys_are_not_all_remembered() -> TestResult {
    let broker = broker();
    let (here, there) = (builder(broker.clone()).build()?, builder(broker.clone()).build()?);
    let alice = Visitor::appear(&here, ROOM, "alice").await?;
    let bob = Visitor::subscribe(&here, ROOM).await?;
    broker.disconnect(0);
    for number in 0..10_500 {
        let error = bob.member.appear(ROOM, format!("bob-{number}")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
    assert_eq!(here.stats().entries, 1);
    broker.reconnect(0);
    sleep(4 * LEASE).await;
    assert_eq!(here.stats().entries, 1);
    assert_eq!(keys(&there, ROOM).await?, ["alice"]);
    drop(alice);
    Ok(())
}

/// Nothing arrives, and nobody is told. The call fails after the time of the limit.
#[tokio::test(start_paused = true)]
async fn a_broker_that_falls_silent_fails_calls_after_2_s() -> TestResult {
    let broker = broker();
    let hub = builder(broker.clone()).build()?;
    let bob = Visitor::subscribe(&hub, ROOM).await?;
    broker.kill(0);
    let asked = Instant::now();
    let error = bob.member.appear(ROOM, "bob").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(asked.elapsed().as_secs(), 2);
    broker.resume(0);
    sleep(2 * LEASE).await;
    assert_eq!(keys(&hub, ROOM).await?, [""; 0]);
    Ok(())
}

/// A hub that is more patient than its lease is told by the lease.
#[tokio::test(start_paused = true)]
async fn a_patient_hub_is_unhealthy_when_its_lease_is_over() -> TestResult {
    let broker = broker();
    let limits = HubLimits::default().engine_timeout(10 * LEASE);
    let hub = builder(broker.clone()).limits(limits).build()?;
    let _alice = Visitor::appear(&hub, ROOM, "alice").await?;
    broker.kill(0);
    sleep(LEASE + Duration::from_secs(1)).await;
    assert!(!hub.is_healthy());
    broker.resume(0);
    sleep(LEASE).await;
    assert!(hub.is_healthy());
    assert_eq!(keys(&hub, ROOM).await?, ["alice"]);
    Ok(())
}

/// A hub that starts while the broker is away appears as soon as the broker is there.
#[tokio::test(start_paused = true)]
async fn a_hub_that_starts_without_a_broker_begins_its_lease_later() -> TestResult {
    let broker = broker();
    let hub = builder(broker.clone()).build()?;
    broker.disconnect(0);
    sleep(4 * LEASE).await;
    broker.reconnect(0);
    let _alice = Visitor::appear(&hub, ROOM, "alice").await?;
    assert_eq!(keys(&hub, ROOM).await?, ["alice"]);
    Ok(())
}

/// Many changes at once become one list.
#[tokio::test(start_paused = true)]
async fn many_changes_while_the_broker_was_away_are_told_as_a_list() -> TestResult {
    let broker = broker();
    let (here, there) = (builder(broker.clone()).build()?, builder(broker.clone()).build()?);
    let mut watcher = Visitor::subscribe(&here, ROOM).await?;
    watcher.expect(&["here "]).await?;
    broker.disconnect(0);
    let mut clients = Vec::new();
    for number in 10..60 {
        clients.push(Visitor::appear(&there, ROOM, &number.to_string()).await?);
    }
    broker.reconnect(0);
    let all: Vec<_> = (10..60).map(|number| number.to_string()).collect();
    watcher.expect(&[&format!("here {}", all.join(" "))]).await?;
    watcher.expect_nothing_for(LEASE).await?;
    Ok(())
}

/// The answer may be older than changes that arrive before it, and newer than others.
#[tokio::test(start_paused = true)]
async fn changes_during_a_read_are_neither_lost_nor_undone() -> TestResult {
    for seed in 0..30 {
        let broker = PresenceBroker::new(seed, CallFaults::default());
        let (here, there) = (builder(broker.clone()).build()?, builder(broker.clone()).build()?);
        let mut clients = Vec::new();
        for key in ["a", "b", "c", "d"] {
            clients.push(Visitor::appear(&there, ROOM, key).await?);
        }
        // The hubs have begun their leases, after which they read everything once more.
        sleep(LEASE).await;
        broker.set_faults(CallFaults { delayed: 1000, delay: 400, ..CallFaults::default() });
        let mut watcher = Visitor::subscribe(&here, ROOM).await?;
        for (client, key) in clients.iter().zip(["a", "b", "c", "d"]) {
            client.member.disappear(ROOM);
            if key > "b" {
                client.member.appear(ROOM, Present::new(key).info("again")).await?;
            }
        }
        watcher.know("c d").await?;
    }
    Ok(())
}

/// A call is under way while the lease lapses. What it has entered is gone with the old lease.
#[tokio::test(start_paused = true)]
async fn a_call_for_a_lease_that_has_lapsed_counts_for_nothing() -> TestResult {
    for seed in 0..30 {
        let broker = PresenceBroker::new(seed, CallFaults::default());
        let hub = builder(broker.clone()).build()?;
        let client = Visitor::subscribe(&hub, ROOM).await?;
        sleep(Duration::from_secs(1)).await;
        broker.set_faults(CallFaults { delayed: 1000, delay: 900, ..CallFaults::default() });
        let appearing = client.member.appear(ROOM, "alice");
        let losing = async {
            sleep(Duration::from_millis(900)).await;
            broker.set_faults(CallFaults::default());
            broker.restart(Restart::WithNothing);
        };
        let (appeared, ()) = tokio::join!(appearing, losing);
        appeared?;
        sleep(2 * LEASE).await;
        assert_eq!(keys(&hub, ROOM).await?, ["alice"], "seed {seed}");
    }
    Ok(())
}
