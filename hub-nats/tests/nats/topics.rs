//! Topics over NATS: what works, and what becomes of each failure.

use std::collections::HashSet;
use std::net::TcpListener;
use std::sync::Arc;

use bowline::Message;
use bowline_hub::{Engine, ErrorKind, Hub, HubEvent, Position};
use bowline_hub_testing::client::{Client, publish, until};
use bowline_hub_testing::proxy::{Line, Proxy};
use bowline_hub_testing::{PATIENCE, TestResult};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::client::hub;
use crate::engine::Bare;
use crate::server::Server;

#[tokio::test]
async fn two_nodes_exchange_messages_without_history() -> TestResult {
    let Some(server) = Server::start("").await? else { return Ok(()) };
    let (here, there) = (hub(&server.url()).await?, hub(&server.url()).await?);
    let mut client = Client::live(&here, "news of today.*").await?;
    assert_eq!(there.publish("news of today.*", "1").await?, Position::UNTRACKED);
    there.publish("news of tomorrow", "another topic").await?;
    here.publish("news of today.*", "2").await?;
    client.expect(&["1", "2"]).await?;
    let binary = vec![0_u8, 255];
    there.publish("news of today.*", binary).await?;
    client.expect(&["?"]).await?;
    Ok(())
}

/// Many topics at once take few operations, and each of them works.
#[tokio::test]
async fn many_topics_are_wanted_at_once() -> TestResult {
    let Some(server) = Server::start("").await? else { return Ok(()) };
    let (here, there) = (hub(&server.url()).await?, hub(&server.url()).await?);
    let mut clients = Vec::new();
    let mut joining = JoinSet::new();
    for number in 0..300 {
        let hub = here.clone();
        joining.spawn(async move {
            let topic = format!("news/{number}");
            Client::live(&hub, &topic).await.map(|client| (client, topic)).map_err(|error| error.to_string())
        });
    }
    while let Some(joined) = joining.join_next().await {
        clients.push(joined??);
    }
    for (_, topic) in &clients {
        there.publish(topic, topic.as_str()).await?;
    }
    for (client, topic) in &mut clients {
        client.expect(&[topic]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn while_the_server_is_away_calls_fail_and_nothing_is_sent_later() -> TestResult {
    let Some(mut server) = Server::start("").await? else { return Ok(()) };
    let hub = hub(&server.url()).await?;
    let mut events = hub.events();
    let mut client = Client::live(&hub, "news").await?;
    server.kill()?;
    until(&mut events, |event| matches!(event, HubEvent::Disconnected(_))).await?;
    assert!(!hub.is_healthy());
    let error = hub.publish("news", "unsent").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let error = client.member.subscribe("more", None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);

    server.restart().await?;
    until(&mut events, |event| *event == HubEvent::Reconnected).await?;
    publish(&hub, "news", "1").await?;
    client.expect(&["1"]).await?;
    Ok(())
}

/// Nothing tells the node that its server has stopped, apart from pings without an answer.
#[cfg(unix)]
#[tokio::test]
async fn a_server_that_falls_silent_is_noticed() -> TestResult {
    let Some(server) = Server::start("").await? else { return Ok(()) };
    let hub = hub(&server.url()).await?;
    let mut events = hub.events();
    let mut client = Client::live(&hub, "news").await?;
    server.signal("-STOP")?;
    until(&mut events, |event| matches!(event, HubEvent::Disconnected(_))).await?;
    server.signal("-CONT")?;
    until(&mut events, |event| *event == HubEvent::Reconnected).await?;
    publish(&hub, "news", "1").await?;
    client.expect(&["1"]).await?;
    Ok(())
}

/// The line of a node is stalled until its server gives up. Messages with history arrive nevertheless, and
/// the events say when the others were lost.
#[tokio::test]
async fn a_node_that_is_too_slow_for_its_server_is_told_and_misses_nothing() -> TestResult {
    let settings = "max_pending: 65536\nmax_payload: 65536\nwrite_deadline: \"1s\"";
    let Some(server) = Server::start(settings).await? else { return Ok(()) };
    let proxy = Proxy::start(server.address()).await?;
    let (slow, other) = (hub(&proxy.url("nats")).await?, hub(&server.url()).await?);
    let (mut events, mut client) = (slow.events(), Client::live(&slow, "chat/a").await?);
    let filler = Client::live(&slow, "news").await?;
    other.publish("chat/a", "1").await?;
    client.expect(&["1"]).await?;
    proxy.set(Line::StalledToClient);
    let (news, mut number) = ("x".repeat(60_000), 1);
    while !server.log()?.contains("Slow Consumer") {
        assert!(number < 5000, "the server buffers without a bound");
        other.publish("news", news.as_str()).await?;
        number += 1;
        if number <= 50 {
            other.publish("chat/a", number.to_string()).await?;
        }
    }
    until(&mut events, |event| matches!(event, HubEvent::Disconnected(_))).await?;
    proxy.set(Line::Open);
    until(&mut events, |event| *event == HubEvent::Reconnected).await?;
    for expected in 2..=number.min(50) {
        client.expect(&[&expected.to_string()]).await?;
    }
    other.publish("chat/a", "the last").await?;
    client.expect(&["the last"]).await?;
    assert_eq!(slow.stats().lost, 0);
    drop(filler);
    Ok(())
}

/// The servers are strangers, so that a message shows which one a node has chosen.
#[tokio::test]
async fn nodes_with_the_same_url_divide_themselves_among_the_servers() -> TestResult {
    let (Some(one), Some(other)) = (Server::start("").await?, Server::start("").await?) else {
        return Ok(());
    };
    let mut nodes = Vec::new();
    for _ in 0..20 {
        let node = hub(&format!("{},{}", one.url(), other.url())).await?;
        let client = Client::live(&node, "news").await?;
        nodes.push((node, client));
    }
    for server in [&one, &other] {
        hub(&server.url()).await?.publish("news", server.url()).await?;
    }
    let mut seen = HashSet::new();
    for (_, client) in &mut nodes {
        let frame = timeout(PATIENCE, client.socket.recv()).await??.ok_or("the end")?;
        seen.insert(frame.into_text()?);
    }
    assert_eq!(seen.len(), 2, "{seen:?}");
    Ok(())
}

/// A server that takes no data for a while must still learn that a topic is wanted no more.
#[cfg(unix)]
#[tokio::test]
async fn a_topic_that_was_left_while_the_server_was_slow_is_received_once() -> TestResult {
    let Some(server) = Server::start("").await? else { return Ok(()) };
    let mut bare = Bare::start(&server.url(), "news").await?;
    let other = Bare::start(&server.url(), "other").await?;
    bare.engine.want(&bare.topic).await?;
    server.signal("-STOP")?;
    let mut publishing = JoinSet::new();
    let refused = async {
        loop {
            let (engine, topic) = (Arc::clone(&bare.engine), other.topic.clone());
            let message = Message::Text("x".repeat(1_000_000).into());
            publishing.spawn(async move { engine.publish(&topic, message, 0).await });
            tokio::task::yield_now().await;
            if let Some(published) = publishing.try_join_next() {
                return published;
            }
        }
    };
    assert!(timeout(PATIENCE, refused).await??.is_err());
    let (engine, topic) = (Arc::clone(&bare.engine), bare.topic.clone());
    let unwanted = tokio::spawn(async move { engine.unwant(&topic).await });
    tokio::task::yield_now().await;
    // Requests are handled in order.
    assert!(bare.engine.publish(&bare.topic, Message::Text("unsent".into()), 0).await.is_err());
    server.signal("-CONT")?;
    unwanted.await??;
    bare.engine.want(&bare.topic).await?;
    for number in 1..=3 {
        let text = number.to_string();
        bare.engine.publish(&bare.topic, Message::Text(text.as_str().into()), 0).await?;
        let frame = timeout(PATIENCE, bare.socket.recv()).await??.ok_or("the end")?;
        assert_eq!(frame.as_text(), Some(&*text));
    }
    Ok(())
}

#[tokio::test]
async fn credentials_of_the_url_are_checked_by_the_server() -> TestResult {
    let settings = "authorization { user: me, password: \"s@cret\" }";
    let Some(server) = Server::start(settings).await? else { return Ok(()) };
    let url = |user: &str| format!("nats://{user}127.0.0.1:{}", server.port);
    assert!(bowline_hub_nats::connect(&url("me:s%40cret@")).await.is_ok());
    for user in ["", "me:wrong@", "token@"] {
        let error = bowline_hub_nats::connect(&url(user)).await.unwrap_err();
        assert!(error.to_string().contains("Authorization Violation"), "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn a_message_that_is_too_large_for_the_server_is_an_error_that_names_the_setting() -> TestResult {
    let Some(server) = Server::start("max_payload: 1KB").await? else { return Ok(()) };
    let hub = hub(&server.url()).await?;
    let mut client = Client::live(&hub, "news").await?;
    let error = hub.publish("news", "x".repeat(1025)).await.unwrap_err();
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("max_payload"));
    hub.publish("news", "1").await?;
    client.expect(&["1"]).await?;
    Ok(())
}

#[tokio::test]
async fn what_a_user_may_not_publish_is_an_error() -> TestResult {
    let settings = "authorization { users: [{ user: me, password: me, permissions: {
        publish: { deny: \"bowline.live.secret\" } } }] }";
    let Some(server) = Server::start(settings).await? else { return Ok(()) };
    let hub = hub(&format!("nats://me:me@127.0.0.1:{}", server.port)).await?;
    let error = hub.publish("secret", "1").await.unwrap_err();
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("Permissions Violation"));
    hub.publish("news", "1").await?;
    assert!(hub.is_healthy());
    Ok(())
}

#[tokio::test]
async fn a_server_that_expects_a_key_is_an_error_that_says_so() -> TestResult {
    let key = "UAAACAQDAQCQMBYIBEFAWDANBYHRAEISCMKBKFQXDAMRUGY4DUPB63NN";
    let settings = format!("authorization {{ users: [{{ nkey: {key} }}, {{ user: me, password: me }}] }}");
    let Some(server) = Server::start(&settings).await? else { return Ok(()) };
    let error = bowline_hub_nats::connect(&server.url()).await.unwrap_err().to_string();
    assert!(error.contains("Authorization Violation") && error.contains("NKEYS"), "{error}");
    // The same server may know users with passwords, too.
    bowline_hub_nats::connect(&format!("nats://me:me@{}", server.address())).await?;
    Ok(())
}

/// Starts a server with a user, and a hub that is connected as this user.
async fn restricted(permissions: &str) -> Result<Option<(Server, Hub)>, Box<dyn std::error::Error>> {
    let user = format!("user: me, password: me, permissions: {{ {permissions} }}");
    let settings = format!("authorization {{ users: [{{ {user} }}, {{ user: other, password: other }}] }}");
    let Some(server) = Server::start(&settings).await? else { return Ok(None) };
    let hub = hub(&format!("nats://me:me@{}", server.address())).await?;
    Ok(Some((server, hub)))
}

/// The server answers nothing to a request that it refuses. The error names the subject nevertheless, long
/// before the call would time out.
#[tokio::test]
async fn a_request_that_a_user_may_not_make_is_an_error_that_names_the_subject() -> TestResult {
    for (permissions, subject) in [
        ("publish: { deny: \"$JS.API.>\" }", "$JS.API.STREAM.INFO.bowline"),
        ("publish: { deny: \"bowline.store.>\" }", "bowline.store.chat/a"),
        ("subscribe: { deny: \"_INBOX.>\" }", "_INBOX."),
    ] {
        let Some((_server, hub)) = restricted(permissions).await? else { return Ok(()) };
        for _ in 0..2 {
            let error = hub.publish("chat/a", "1").await.unwrap_err();
            let cause = std::error::Error::source(&error).ok_or(format!("{error} has no cause"))?.to_string();
            assert!(cause.contains("Permissions Violation") && cause.contains(subject), "{cause}");
        }
        // Topics without history ask nothing.
        let mut client = Client::live(&hub, "news").await?;
        hub.publish("news", "1").await?;
        client.expect(&["1"]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_user_who_may_not_hear_the_news_of_streams_or_a_topic_connects_again() -> TestResult {
    let denied = "subscribe: { deny: [\"$JS.EVENT.>\", \"bowline.live.secret\"] }";
    let Some((mut server, hub)) = restricted(denied).await? else { return Ok(()) };
    assert!(Client::live(&hub, "secret").await.is_err());
    let mut client = Client::live(&hub, "news").await?;
    let mut events = hub.events();
    server.kill()?;
    server.restart().await?;
    until(&mut events, |event| *event == HubEvent::Reconnected).await?;
    hub.publish("news", "1").await?;
    client.expect(&["1"]).await?;
    Ok(())
}

#[tokio::test]
async fn an_address_without_a_server_is_an_error() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert!(bowline_hub_nats::connect(&format!("nats://127.0.0.1:{port}")).await.is_err());
    assert!(bowline_hub_nats::connect("http://127.0.0.1").await.is_err());
}
