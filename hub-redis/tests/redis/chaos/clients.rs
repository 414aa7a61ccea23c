//! Clients and publishers, and what they note.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bowline_hub::Position;
use bowline_hub_testing::Outcome;
use bowline_hub_testing::notes::{Note, Notes, Progress};
use bowline_hub_testing::random::Random;
use tokio::time::{sleep, timeout};

use crate::chaos::world::Nodes;
use crate::support::node::ONCE;

/// A client that comes and goes, and returns its noted once it has received the end.
pub(crate) async fn client(nodes: Arc<Nodes>, mut random: Random) -> Outcome<Vec<Note>> {
    let mut noted = Notes::default();
    let is_slow = random.permille(400);
    loop {
        sleep(Duration::from_millis(random.below(30))).await;
        let Some(mut socket) = nodes.connect(&mut random).await else { continue };
        let since = noted.since.map_or_else(|| "now".to_owned(), |position| position.to_string());
        if socket.send(format!("subscribe {since}")).await.is_err() {
            continue;
        }
        for _ in 0..=random.below(150) {
            let Ok(Ok(Some(frame))) = timeout(Duration::from_millis(700), socket.recv()).await else { break };
            if noted.add(frame.as_text().ok_or("not a text")?)? == Progress::Ended {
                return Ok(noted.all);
            }
            if is_slow && random.permille(200) {
                sleep(Duration::from_millis(random.below(60))).await;
            }
        }
    }
}

/// Publishes until the schedule is over, and returns what was acknowledged.
pub(crate) async fn publisher(
    nodes: Arc<Nodes>,
    number: u64,
    is_over: Arc<AtomicBool>,
    mut random: Random,
) -> Outcome<HashMap<Position, String>> {
    let mut acknowledged = HashMap::new();
    // The first publisher repeats what was not acknowledged.
    let kind = if number == 0 { ONCE } else { "message" };
    let (mut count, mut unacknowledged) = (0, None::<String>);
    loop {
        sleep(Duration::from_millis(random.below(10))).await;
        let Some(mut socket) = nodes.connect(&mut random).await else { continue };
        if socket.send("publish").await.is_err() {
            continue;
        }
        for _ in 0..random.below(60) {
            if is_over.load(Ordering::Relaxed) && unacknowledged.is_none() {
                return Ok(acknowledged);
            }
            let text = unacknowledged.take().unwrap_or_else(|| {
                count += 1;
                let size = if random.permille(100) { random.index(50_000) } else { 0 };
                format!("{kind}-{number}-{count} {}", "x".repeat(size))
            });
            let answer = match socket.send(&text).await {
                Ok(()) => timeout(Duration::from_secs(1), socket.recv()).await,
                Err(error) => Ok(Err(error)),
            };
            let position = match answer {
                Ok(Ok(Some(answer))) => answer.into_text()?.parse().ok(),
                _ => None,
            };
            match position {
                Some(position) => drop(acknowledged.insert(position, text)),
                None if kind == ONCE => unacknowledged = Some(text),
                None => {}
            }
            if position.is_none() {
                break;
            }
            sleep(Duration::from_millis(random.below(8))).await;
        }
    }
}

/// Publishes a message. The nodes may still be busy with the last event.
pub(crate) async fn publish(nodes: &Nodes, text: &str, random: &mut Random) -> Position {
    loop {
        if let Some(position) = try_publish(nodes, text, random).await {
            return position;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

async fn try_publish(nodes: &Nodes, text: &str, random: &mut Random) -> Option<Position> {
    let mut socket = nodes.connect(random).await?;
    socket.send("publish").await.ok()?;
    socket.send(text).await.ok()?;
    socket.recv().await.ok()??.as_text()?.parse().ok()
}

/// Checks that the last position of a client is accepted, and a forged one is not.
pub(crate) async fn hold_positions(
    nodes: &Nodes,
    noted: &[Note],
    random: &mut Random,
) -> Result<(), Box<dyn Error>> {
    let Some(Note::Message(last, _)) = noted.last() else { return Err("the last note is no message".into()) };
    let forged = Position::new(last.epoch(), last.offset(), last.tag() ^ 1);
    // The next message, at the latest, tells how the position was received.
    let next = publish(nodes, "next", random).await;
    for (position, is_known) in [(*last, true), (forged, false)] {
        let frame = loop {
            match first_frame(nodes, position, random).await {
                Some(frame) => break frame,
                None => sleep(Duration::from_millis(20)).await,
            }
        };
        match Note::parse(&frame).map_err(|error| error.to_string())? {
            Note::Message(first, _) if is_known => {
                assert_eq!((first.epoch(), first.offset()), (last.epoch(), last.offset() + 1));
                assert!(first.offset() <= next.offset());
            }
            Note::Lost(_) if !is_known => {}
            note => return Err(format!("{position} is known: {is_known}, and leads to {note:?}").into()),
        }
    }
    Ok(())
}

/// Subscribes from a position, and returns the first frame, unless the node fails.
async fn first_frame(nodes: &Nodes, position: Position, random: &mut Random) -> Option<String> {
    let mut socket = nodes.connect(random).await?;
    socket.send(format!("subscribe {position}")).await.ok()?;
    let frame = timeout(Duration::from_secs(10), socket.recv()).await.ok()?.ok()??;
    frame.as_text().map(str::to_owned)
}
