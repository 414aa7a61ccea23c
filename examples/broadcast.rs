//! Broadcasts messages to many clients, some of which don't read, with three ways to treat slow clients.
//!
//! `cargo run --release -p bowline-examples --example broadcast`

use std::error::Error;
use std::time::Duration;

use bowline::{CloseCode, Prepared, Sender, TrySendError, WebSocket};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

const FAST: usize = 20;
const STUCK: usize = 5;
const MESSAGES: usize = 1000;
const SIZE: usize = 10_000;

/// The time that all clients wait for a slow one.
const PATIENCE: Duration = Duration::from_millis(100);

/// The treatment of a client whose write buffer is full.
#[derive(Clone, Copy, Debug)]
enum Policy {
    /// Drops the message for this client. Suits prices or positions, where the next message makes up for a
    /// lost one.
    Drop,
    /// Closes the connection with 1008; the client may reconnect. Suits applications in which every message
    /// counts.
    Kick,
    /// Waits for the client for a while, then closes the connection. Suits applications in no hurry.
    Wait,
}

#[derive(Default)]
struct Tally {
    dropped: usize,
    kicked: usize,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    for policy in [Policy::Drop, Policy::Kick, Policy::Wait] {
        let (mut subscribers, mut reading, stuck) = connect_all().await?;
        let mut tally = Tally::default();
        let mut ticks = interval(Duration::from_millis(1));
        for _ in 0..MESSAGES {
            ticks.tick().await;
            // A prepared message is encoded once, and not copied for each client.
            let message = Prepared::new(vec![7; SIZE]);
            for subscriber in std::mem::take(&mut subscribers) {
                if deliver(policy, &message, &subscriber, &mut tally).await {
                    subscribers.push(subscriber);
                }
            }
        }
        // Stuck clients would not answer a Close frame.
        drop(stuck);
        for subscriber in subscribers {
            tokio::spawn(async move { subscriber.close(CloseCode::NORMAL, "").await });
        }
        let mut received = 0;
        while let Some(count) = reading.join_next().await {
            received += count?;
        }
        let Tally { dropped, kicked } = tally;
        println!("{policy:?}: {FAST} clients that read received {received} messages in all;");
        println!("      {dropped} messages were dropped, and {kicked} clients kicked");
    }
    Ok(())
}

/// Sends a message to a client according to the policy. Returns whether the client stays.
async fn deliver(policy: Policy, message: &Prepared, subscriber: &Sender, tally: &mut Tally) -> bool {
    match subscriber.try_send(message) {
        Ok(()) => return true,
        Err(TrySendError::Closed(_)) => return false,
        Err(TrySendError::Full(_)) => {}
    }
    match policy {
        Policy::Drop => {
            tally.dropped += 1;
            return true;
        }
        // If the timeout drops the `send`, nothing was sent.
        Policy::Wait if matches!(timeout(PATIENCE, subscriber.send(message)).await, Ok(Ok(()))) => {
            return true;
        }
        Policy::Wait | Policy::Kick => tally.kicked += 1,
    }
    let subscriber = subscriber.clone();
    tokio::spawn(async move { subscriber.close(CloseCode::POLICY_VIOLATION, "too slow").await });
    false
}

/// Starts a server and its clients. Returns the server's senders, the tasks that count the messages of
/// reading clients, and the stuck clients.
async fn connect_all() -> Result<(Vec<Sender>, JoinSet<usize>, Vec<WebSocket>), Box<dyn Error + Send + Sync>>
{
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("ws://{}", listener.local_addr()?);
    let (subscribe, mut subscriptions) = mpsc::unbounded_channel();
    tokio::spawn(bowline::serve(listener, move |mut socket: WebSocket| {
        let subscribe = subscribe.clone();
        async move {
            subscribe.send(socket.sender())?;
            // The server ignores messages of clients.
            while socket.recv().await?.is_some() {}
            Ok(())
        }
    }));
    let (mut subscribers, mut reading, mut stuck) = (Vec::new(), JoinSet::new(), Vec::new());
    for number in 0..FAST + STUCK {
        let mut socket = bowline::connect(&url).await?;
        subscribers.push(subscriptions.recv().await.ok_or("the server has ended")?);
        if number >= FAST {
            stuck.push(socket);
            continue;
        }
        reading.spawn(async move {
            let mut count = 0;
            while let Ok(Some(_)) = socket.recv().await {
                count += 1;
            }
            count
        });
    }
    Ok((subscribers, reading, stuck))
}
