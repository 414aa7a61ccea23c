//! Subscribing beside publishing, on several threads and without pauses.

use std::error::Error;
use std::time::Duration;

use bowline::{WebSocket, pair};
use bowline_hub::{Hub, HubLimits, Memory, Position, Rule, Start};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const CLIENTS: usize = 4;
const ROUNDS: usize = 25;

fn hub() -> Outcome<Hub> {
    Ok(Hub::builder(Memory::new())
        .rule("chat/", Rule::new().history(1_000_000, Duration::from_secs(3600)))
        .limits(HubLimits::default().replay(u64::MAX))
        .frame(|message| message.position().to_string().into())
        .build()?)
}

/// Publishes as fast as it goes until somebody stops the tasks, or at most for a while.
fn publish(hub: &Hub) -> JoinSet<Outcome<()>> {
    let mut publishers = JoinSet::new();
    for _ in 0..2 {
        let hub = hub.clone();
        publishers.spawn(async move {
            for _ in 0..500_000 {
                hub.publish("chat/a", "x").await?;
                tokio::task::yield_now().await;
            }
            Ok(())
        });
    }
    publishers
}

/// Receives some messages, each of which must follow the one before.
async fn receive(client: &mut WebSocket, since: &mut Option<Position>, messages: usize) -> Outcome<()> {
    for _ in 0..messages {
        let position: Position = client.recv().await?.ok_or("the end")?.into_text()?.parse()?;
        if let Some(since) = since {
            assert_eq!(position.offset(), since.offset() + 1, "a gap or a double");
        }
        *since = Some(position);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn members_that_come_and_go_beside_publishers_miss_nothing() -> Outcome<()> {
    let hub = hub()?;
    let publishers = publish(&hub);
    let mut clients = JoinSet::<Outcome<()>>::new();
    for number in 0..CLIENTS {
        let hub = hub.clone();
        clients.spawn(async move {
            let mut since = None;
            for round in 0..ROUNDS {
                let (mut client, server) = pair();
                let member = hub.join(server.sender())?;
                let from = since;
                let subscribe = async {
                    let start = member.subscribe("chat/a", from).await?;
                    assert!(matches!(start, Start::Live(_)));
                    std::future::pending().await
                };
                // Some clients leave while they are sent what they missed.
                tokio::select! {
                    received = receive(&mut client, &mut since, 3 + number * round) => received?,
                    failed = subscribe => return failed,
                }
            }
            Ok(())
        });
    }
    while let Some(outcome) = clients.join_next().await {
        outcome??;
    }
    drop(publishers);
    assert_eq!(hub.stats().lost, 0);
    Ok(())
}

/// Clients over TCP name the position of their last message in the first message of a connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clients_over_tcp_that_come_and_go_miss_nothing() -> Outcome<()> {
    let hub = hub()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("ws://{}", listener.local_addr()?);
    let handler = {
        let hub = hub.clone();
        move |mut socket: WebSocket| {
            let hub = hub.clone();
            async move {
                let since = socket.recv().await?.ok_or("no position")?.into_text()?;
                let member = hub.join(socket.sender())?;
                let start = member.subscribe("chat/a", since.parse().ok()).await?;
                assert!(matches!(start, Start::Live(_)));
                while socket.recv().await?.is_some() {}
                Ok(())
            }
        }
    };
    let server = tokio::spawn(bowline::serve(listener, handler));
    let publishers = publish(&hub);
    let mut clients = JoinSet::<Outcome<()>>::new();
    for number in 0..CLIENTS {
        let url = url.clone();
        clients.spawn(async move {
            let mut since = None;
            for round in 0..ROUNDS {
                let mut client = bowline::connect(&url).await?;
                client
                    .send(since.map_or("from now on".to_owned(), |since: Position| since.to_string()))
                    .await?;
                receive(&mut client, &mut since, 3 + number * round).await?;
            }
            Ok(())
        });
    }
    while let Some(outcome) = clients.join_next().await {
        outcome??;
    }
    drop(publishers);
    server.abort();
    assert_eq!(hub.stats().lost, 0);
    Ok(())
}
