//! Members whose connections don't keep up.

use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bowline::{CloseCode, CloseFrame, Connector, Message, WebSocket, pair};
use bowline_hub::{Hub, HubLimits, Member, Memory, Position, Rule, Slow, Start};
use bowline_hub_testing::TestResult;
use bowline_hub_testing::client::{builder, receive, receive_until};
use tokio::net::TcpListener;

/// Larger than everything that a pair holds: 64 KiB on the way, and 64 KiB in the write buffer.
const BIG: usize = 200 * 1024;

/// Subscribes a connection that is stuck: its client reads nothing, and its buffers are full.
async fn stuck(hub: &Hub, topic: &str) -> Result<(WebSocket, WebSocket, Member), Box<dyn Error>> {
    let (client, server) = pair();
    let member = hub.join(server.sender())?;
    let Start::Live(_) = member.subscribe(topic, None).await? else { return Err("lost".into()) };
    server.send(vec![0; BIG]).await?;
    Ok((client, server, member))
}

async fn publish(hub: &Hub, topic: &str, numbers: std::ops::Range<u32>) -> TestResult {
    for number in numbers {
        hub.publish(topic, number.to_string()).await?;
    }
    Ok(())
}

/// Waits until the numbers of a hub are as expected.
async fn until(hub: &Hub, condition: impl Fn(&bowline_hub::HubStats) -> bool) {
    let wait = async {
        while !condition(&hub.stats()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), wait).await;
    assert!(waited.is_ok(), "the numbers are {:?}", hub.stats());
}

#[tokio::test(start_paused = true)]
async fn a_slow_member_catches_up_from_the_history_and_is_live_again() -> TestResult {
    let hub = builder(Memory::new()).build()?;
    let (mut client, _server, _member) = stuck(&hub, "chat/a").await?;
    publish(&hub, "chat/a", 0..50).await?;
    until(&hub, |stats| stats.catching_up == 1).await;
    assert_eq!(hub.stats().subscriptions, 0);
    assert_eq!(client.recv().await?.unwrap().len(), BIG);
    for number in 0..50 {
        assert_eq!(receive(&mut client).await?.1, number.to_string());
    }
    until(&hub, |stats| stats.caught_up == 1).await;
    publish(&hub, "chat/a", 50..52).await?;
    for number in 50..52 {
        assert_eq!(receive(&mut client).await?.1, number.to_string());
    }
    let stats = hub.stats();
    assert_eq!((stats.catching_up, stats.subscriptions, stats.lost, stats.gaps), (0, 1, 0, 0));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_slow_member_that_falls_behind_the_history_is_told() -> TestResult {
    let hub = builder(Memory::new()).lost(|_, now| format!("{now} lost").into()).build()?;
    let (mut client, _server, _member) = stuck(&hub, "chat/a").await?;
    publish(&hub, "chat/a", 0..3).await?;
    until(&hub, |stats| stats.catching_up == 1).await;
    publish(&hub, "chat/a", 3..300).await?;
    client.recv().await?;
    // These three were read from the history before the member fell behind.
    assert_eq!(receive_until(&mut client, "lost").await?, ["0", "1", "2"]);
    until(&hub, |stats| stats.caught_up == 1).await;
    publish(&hub, "chat/a", 300..301).await?;
    assert_eq!(receive(&mut client).await?.1, "300");
    assert_eq!(hub.stats().lost, 1);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn without_a_frame_for_losses_a_slow_member_is_closed() -> TestResult {
    let hub = builder(Memory::new()).build()?;
    let (mut client, _server, _member) = stuck(&hub, "chat/a").await?;
    publish(&hub, "chat/a", 0..1).await?;
    until(&hub, |stats| stats.catching_up == 1).await;
    publish(&hub, "chat/a", 1..300).await?;
    client.recv().await?;
    assert_eq!(receive(&mut client).await?.1, "0");
    let error = client.recv().await.unwrap_err();
    assert_eq!(error.close_frame().unwrap().code(), CloseCode::TRY_AGAIN_LATER);
    until(&hub, |stats| stats.catching_up == 0).await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn more_slow_members_than_the_limit_are_closed() -> TestResult {
    let limits = HubLimits::default().catch_up_tasks(1);
    let hub = builder(Memory::new()).limits(limits).build()?;
    let one = stuck(&hub, "chat/a").await?;
    let other = stuck(&hub, "chat/a").await?;
    publish(&hub, "chat/a", 0..1).await?;
    until(&hub, |stats| stats.closed_slow == 1).await;
    assert_eq!(hub.stats().catching_up, 1);
    let mut codes = Vec::new();
    for (mut client, _server, member) in [one, other] {
        client.recv().await?;
        drop(member);
        match client.recv().await {
            Ok(message) => assert!(message.is_some()),
            Err(error) => codes.extend(error.close_frame().map(bowline::CloseFrame::code)),
        }
    }
    assert_eq!(codes, [CloseCode::TRY_AGAIN_LATER]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_slow_member_skips_messages_of_a_topic_without_history() -> TestResult {
    let hub = builder(Memory::new()).build()?;
    let (mut client, _server, _member) = stuck(&hub, "news").await?;
    publish(&hub, "news", 0..10).await?;
    until(&hub, |stats| stats.skipped == 10).await;
    client.recv().await?;
    publish(&hub, "news", 10..11).await?;
    assert_eq!(receive(&mut client).await?.1, "10");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_slow_member_is_closed_if_the_rule_says_so() -> TestResult {
    let hub = builder(Memory::new()).rule("orders/", Rule::new().slow(Slow::Close)).build()?;
    let (mut client, _server, _member) = stuck(&hub, "orders/a").await?;
    publish(&hub, "orders/a", 0..1).await?;
    until(&hub, |stats| stats.closed_slow == 1).await;
    client.recv().await?;
    let error = client.recv().await.unwrap_err();
    assert_eq!(error.close_frame().unwrap().code(), CloseCode::POLICY_VIOLATION);
    Ok(())
}

/// Serves a topic whose slow members are closed. The first message of a client is a position, or empty.
async fn serve(hub: &Hub) -> std::io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("ws://{}", listener.local_addr()?);
    let hub = hub.clone();
    tokio::spawn(bowline::serve(listener, move |mut socket: WebSocket| {
        let hub = hub.clone();
        async move {
            let since: Option<Position> =
                socket.recv().await?.and_then(|message| message.as_text()?.parse().ok());
            let member = hub.join(&socket)?;
            assert!(matches!(member.subscribe("orders/a", since).await?, Start::Live(_)));
            while socket.recv().await?.is_some() {}
            Ok(())
        }
    }));
    Ok(url)
}

/// Over real sockets, with the client of the library.
#[tokio::test]
async fn a_client_that_was_too_slow_comes_back_soon_and_catches_up() -> TestResult {
    let rule = Rule::new().history(10_000, Duration::from_secs(300)).slow(Slow::Close);
    let limits = HubLimits::default().replay(10_000);
    let hub = builder(Memory::new()).rule("orders/", rule).limits(limits).build()?;
    let pauses = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&pauses);
    let mut client = Connector::new().reconnecting(serve(&hub).await?).on_retry(move |retry| {
        noted.lock().unwrap().push((retry.close_frame().map(CloseFrame::code), retry.pause()));
    });

    let (mut socket, _) = client.connect().await?;
    socket.send("").await?;
    until(&hub, |stats| stats.subscriptions == 1).await;
    // The client reads nothing until all buffers on the way are full.
    let (mut published, filling) = (0, "x".repeat(50_000));
    while hub.stats().closed_slow == 0 {
        hub.publish("orders/a", format!("{published} {filling}")).await?;
        published += 1;
    }
    let (mut last, mut next) = (None, 0);
    while let Ok(Some(frame)) = socket.recv().await {
        last = Some(expect_number(&frame, next)?);
        next += 1;
    }
    assert!(next < published, "the client has received everything");
    drop(socket);

    let (mut socket, _) = client.connect().await?;
    socket.send(last.map_or_else(String::new, |last| last.to_string())).await?;
    while next < published {
        expect_number(&socket.recv().await?.ok_or("the end")?, next)?;
        next += 1;
    }
    let pauses = pauses.lock().unwrap().clone();
    assert_eq!(pauses.len(), 1);
    assert_eq!(pauses[0].0, Some(CloseCode::POLICY_VIOLATION));
    // By `Reconnecting::backoff`, and not the 5 to 30 s of a server that is overloaded.
    assert!(pauses[0].1 <= Duration::from_millis(500), "{pauses:?}");
    Ok(())
}

/// Checks the number of a message, and returns the position.
fn expect_number(frame: &Message, number: u32) -> Result<Position, Box<dyn Error>> {
    let mut words = frame.as_text().ok_or("not a text")?.split(' ');
    let position = words.next().ok_or("no position")?.parse()?;
    assert_eq!(words.next().ok_or("no number")?.parse::<u32>()?, number);
    Ok(position)
}

#[tokio::test(start_paused = true)]
async fn a_member_that_leaves_while_it_catches_up_receives_nothing_more() -> TestResult {
    let hub = builder(Memory::new()).build()?;
    let (mut client, server, member) = stuck(&hub, "chat/a").await?;
    publish(&hub, "chat/a", 0..50).await?;
    until(&hub, |stats| stats.catching_up == 1).await;
    member.unsubscribe("chat/a").await;
    assert_eq!(hub.stats().catching_up, 0);
    client.recv().await?;
    server.send(format!("{} end", bowline_hub::Position::UNTRACKED)).await?;
    assert_eq!(receive_until(&mut client, "end").await?, Vec::<String>::new());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_is_dropped_ends_its_tasks() -> TestResult {
    let hub = builder(Memory::new()).build()?;
    let (_client, _server, member) = stuck(&hub, "chat/a").await?;
    publish(&hub, "chat/a", 0..50).await?;
    until(&hub, |stats| stats.catching_up == 1).await;
    let mut events = hub.events();
    drop(hub);
    drop(member);
    assert_eq!(events.recv().await, None);
    Ok(())
}
