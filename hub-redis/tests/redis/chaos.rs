//! Publishers and clients that come and go, while the server is killed again and again.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::time::Duration;

use bowline::pair;
use bowline_hub::{Hub, HubLimits, Position, Rule, Start};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::server::{DURABLE, Server, TestResult, VOLATILE};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const TOPIC: &str = "chat/a";
const KILLS: u64 = 4;
const CLIENTS: u64 = 4;
/// The time within which everybody must have received the end.
const PATIENCE: Duration = Duration::from_secs(120);

/// A note of a client.
enum Note {
    Message(Position, String),
    Lost(Position),
}

async fn hub(server: &Server) -> Result<Hub, Box<dyn Error>> {
    Ok(Hub::builder(bowline_hub_redis::connect(&server.url()).await?)
        .rule("chat/", Rule::new().history(100_000, Duration::from_secs(300)))
        .limits(HubLimits::default().replay(u64::MAX))
        .frame(|message| format!("message {} {}", message.position(), message.text().unwrap_or("?")).into())
        .lost(|_, now| format!("lost {now} ").into())
        .build()?)
}

/// Publishes numbered messages, and returns those that were acknowledged.
async fn publisher(hub: Hub, number: u64) -> HashMap<Position, String> {
    let mut acknowledged = HashMap::new();
    for message in 0..600 {
        let text = format!("{number}-{message}");
        if let Ok(position) = hub.publish(TOPIC, text.as_str()).await {
            acknowledged.insert(position, text);
        }
        sleep(Duration::from_millis(4)).await;
    }
    acknowledged
}

/// A client that comes and goes, and returns its notes once it has received the end.
async fn client(hubs: [Hub; 2], number: u64) -> Outcome<Vec<Note>> {
    let (mut notes, mut since) = (Vec::new(), None);
    for round in 0.. {
        let (mut client, server) = pair();
        let hub = hubs[usize::from((round + number) % 2 == 1)].clone();
        let from: Option<Position> = since;
        let serving = tokio::spawn(async move {
            let member = hub.join(server.sender())?;
            let mut from = from;
            while let Start::Lost(now) = member.subscribe(TOPIC, from).await? {
                server.send(format!("lost {now} ")).await?;
                from = Some(now);
            }
            server.closed().await;
            Outcome::Ok(())
        });
        for _ in 0..20 + 17 * number {
            let Ok(Ok(Some(frame))) = timeout(Duration::from_millis(700), client.recv()).await else { break };
            let frame = frame.into_text()?;
            let mut parts = frame.splitn(3, ' ');
            let (kind, position) = (parts.next().ok_or("no kind")?, parts.next().ok_or("no position")?);
            let (position, text) = (position.parse()?, parts.next().ok_or("no text")?.to_owned());
            since = Some(position);
            if text == "end" {
                return Ok(notes);
            }
            notes.push(if kind == "lost" { Note::Lost(position) } else { Note::Message(position, text) });
        }
        drop(client);
        serving.abort();
    }
    Err("the rounds don't end".into())
}

/// Kills the server again and again, and returns the notes of all clients and all acknowledged messages.
async fn run(mut server: Server) -> Result<(Vec<Vec<Note>>, HashMap<Position, String>), Box<dyn Error>> {
    let hubs = [hub(&server).await?, hub(&server).await?];
    let (mut publishers, mut clients) = (JoinSet::new(), JoinSet::new());
    for number in 0..2 {
        publishers.spawn(publisher(hubs[usize::from(number == 1)].clone(), number));
    }
    for number in 0..CLIENTS {
        clients.spawn(client(hubs.clone(), number));
    }
    for kill in 0..KILLS {
        sleep(Duration::from_millis(200 + 130 * kill)).await;
        server.kill()?;
        sleep(Duration::from_millis(100 * kill)).await;
        server.restart().await?;
    }
    let mut acknowledged = HashMap::new();
    while let Some(published) = publishers.join_next().await {
        acknowledged.extend(published?);
    }
    let mut notes = Vec::new();
    let ending = async {
        while notes.len() < usize::try_from(CLIENTS)? {
            // A client that is away receives one of these.
            let _ = hubs[0].publish(TOPIC, "end").await;
            if let Ok(Some(noted)) = timeout(Duration::from_millis(300), clients.join_next()).await {
                notes.push(noted??);
            }
        }
        Outcome::Ok(())
    };
    timeout(PATIENCE, ending).await?.map_err(|error| error.to_string())?;
    Ok((notes, acknowledged))
}

/// Checks that a client has seen an unbroken sequence, or was told. Returns the number of losses.
fn check(notes: &[Note]) -> usize {
    let (mut last, mut texts, mut losses) = (None::<Position>, HashSet::new(), 0);
    for note in notes {
        match note {
            Note::Lost(now) => {
                losses += 1;
                last = Some(*now);
            }
            Note::Message(position, text) => {
                assert!(texts.insert(text), "{text} was received twice");
                if let Some(last) = last {
                    let follows = (last.epoch(), last.offset() + 1);
                    assert_eq!((position.epoch(), position.offset()), follows, "a gap before {text}");
                }
                last = Some(*position);
            }
        }
    }
    losses
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_server_may_be_killed_at_any_time_without_a_loss() -> TestResult {
    let Some(server) = Server::start(DURABLE).await? else { return Ok(()) };
    let (notes, acknowledged) = run(server).await?;
    assert!(acknowledged.len() > 100, "only {} messages were published", acknowledged.len());
    for notes in notes {
        assert_eq!(check(&notes), 0, "a loss was told");
        let seen: HashMap<_, _> = notes
            .iter()
            .filter_map(|note| match note {
                Note::Message(position, text) => Some((*position, text)),
                Note::Lost(_) => None,
            })
            .collect();
        let first = seen.keys().map(|position| position.offset()).min().ok_or("a client saw nothing")?;
        for (position, text) in &acknowledged {
            assert!(
                position.offset() < first || seen.get(position) == Some(&text),
                "{text} was acknowledged and not received"
            );
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volatile_server_that_is_killed_causes_losses_that_are_told() -> TestResult {
    let Some(server) = Server::start(VOLATILE).await? else { return Ok(()) };
    let (notes, _) = run(server).await?;
    let losses: usize = notes.iter().map(|notes| check(notes)).sum();
    assert!(losses > 0, "the history was lost {KILLS} times, and nobody was told");
    Ok(())
}
