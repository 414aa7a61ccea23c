//! A node: a server of rooms, each of which is a topic of the hub.

use std::error::Error;
use std::time::Duration;

use bowline::http::request::Parts;
use bowline::http::{Response, StatusCode};
use bowline::{Acceptor, CloseCode, Limits, Payload, Rejection, Server, WebSocket};
use bowline_hub::{
    Engine, ErrorKind, Hub, HubLimits, Member, PresenceNews, Rule, Since, Start, TopicMessage,
};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::protocol::{FromClient, Published, Said, ToClient};

type HandlerError = Box<dyn Error + Send + Sync>;

/// The beginning of the paths of rooms.
pub(crate) const ROOMS: &str = "/rooms/";

/// The path at which HAProxy asks whether the node is to receive clients.
pub(crate) const HEALTH: &str = "/health";

/// The number of messages that a new page receives.
const SHOWN: u64 = 50;

/// The number of messages that a client may have missed.
const MISSED: usize = 10_000;

/// The time within which a client says who it is.
const HELLO: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub(crate) struct NodeArguments {
    #[arg(long)]
    name: String,
    #[arg(long)]
    port: u16,
    #[arg(long)]
    broker: String,
}

/// The state that all clients share.
#[derive(Clone)]
struct Node {
    name: String,
    hub: Hub,
}

/// Serves rooms until the process ends.
pub(crate) async fn run(arguments: NodeArguments) -> Result<(), Box<dyn Error>> {
    let hub = match arguments.broker.split_once(':') {
        Some(("nats", _)) => build(bowline_hub_nats::connect(&arguments.broker).await?)?,
        _ => build(bowline_hub_redis::connect(&arguments.broker).await?)?,
    };
    let listener = TcpListener::bind(("127.0.0.1", arguments.port)).await?;
    let node = Node { name: arguments.name, hub: hub.clone() };
    Server::new()
        .acceptor(Acceptor::new().limits(Limits::default().message_size(4096)))
        .on_request(async |head: Parts| match room(&head) {
            Some(_) => Ok(head),
            None => Err(Rejection::from(StatusCode::NOT_FOUND)),
        })
        .fallback(move |head: Parts| {
            let response = answer(&head, &hub);
            async { response }
        })
        .on_error(|error| {
            if !error.is_noise() {
                eprintln!("{error}");
            }
        })
        .serve(listener, move |head: Parts, socket: WebSocket| {
            let node = node.clone();
            async move { node.talk(&head, socket).await }
        })
        .await?;
    Ok(())
}

fn build(engine: impl Engine) -> Result<Hub, bowline_hub::Error> {
    Hub::builder(engine)
        // A client that comes back within an hour receives up to 10,000 messages.
        .rule("room/", Rule::new().history(MISSED, Duration::from_secs(3600)).presence())
        .limits(
            HubLimits::default()
                .replay(MISSED as u64)
                // Shorter than the defaults, for those who watch.
                .presence_linger(Duration::from_secs(8))
                .presence_lease(Duration::from_secs(12)),
        )
        .frame(frame)
        .presence(|_, news| presence(news))
        .lost(|_, now| json(&ToClient::Lost { at: Some(now.to_string()) }))
        .build()
}

/// Returns the name of a room, which stays as the URL has it.
fn room(head: &Parts) -> Option<&str> {
    head.uri.path().strip_prefix(ROOMS).filter(|room| !room.is_empty())
}

/// Answers the health check of HAProxy. A node without its broker is not sent new clients.
fn answer(head: &Parts, hub: &Hub) -> Response<&'static str> {
    let (status, text) = match head.uri.path() {
        HEALTH if hub.is_healthy() => (StatusCode::OK, "ok"),
        HEALTH => (StatusCode::SERVICE_UNAVAILABLE, "the broker is away"),
        _ => (StatusCode::NOT_FOUND, "not found"),
    };
    let mut response = Response::new(text);
    *response.status_mut() = status;
    response
}

/// Makes the frame of a message, once for all members on this node.
fn frame(message: TopicMessage<'_>) -> Payload<'static> {
    let text = message.text().expect("only `publish` below publishes, and publishes text");
    let (at, before) = (message.position().to_string(), message.before().to_string());
    let message = serde_json::from_str(text).expect("only `publish` below publishes, and publishes JSON");
    json(&ToClient::Message { at, before, message })
}

/// Makes the frame about who is in a room.
fn presence(news: PresenceNews<'_>) -> Option<Payload<'static>> {
    let message = match news {
        PresenceNews::Here(all) => ToClient::Here { names: all.iter().map(|who| who.key.clone()).collect() },
        PresenceNews::Joined(who) => ToClient::Joined { name: who.key.clone() },
        PresenceNews::Left(who) => ToClient::Left { name: who.key.clone() },
        _ => return None,
    };
    Some(json(&message))
}

fn json(message: &ToClient) -> Payload<'static> {
    serde_json::to_string(message).expect("messages have no maps with keys that are no text").into()
}

impl Node {
    async fn talk(&self, head: &Parts, mut socket: WebSocket) -> Result<(), HandlerError> {
        let topic = format!("room/{}", room(head).unwrap_or_default());
        let Some(FromClient::Hello { name, publisher, since }) = timeout(HELLO, socket.recv_json()).await??
        else {
            socket.close(CloseCode::POLICY_VIOLATION, "the first message is a hello").await?;
            return Ok(());
        };
        // Dropping the member leaves the room.
        let member = self.hub.join(&socket)?;
        // An error ends the connection with 1011, and the client comes back.
        self.enter(&member, &topic, since, &socket).await?;
        member.appear(&topic, name.as_str()).await?;
        while let Some(message) = socket.recv_json().await? {
            let FromClient::Publish(said) = message else { continue };
            let answer = self.publish(&topic, &publisher, &name, said).await?;
            socket.send_json(&answer).await?;
        }
        Ok(())
    }

    /// Sends what the client has missed, and makes it live.
    async fn enter(
        &self,
        member: &Member,
        topic: &str,
        since: Option<String>,
        socket: &WebSocket,
    ) -> Result<(), HandlerError> {
        // A new page starts with the last messages.
        let mut since = match since {
            Some(position) => Since::Position(position.parse()?),
            None => Since::Last(SHOWN),
        };
        loop {
            match member.subscribe(topic, since).await? {
                Start::Live(position) => {
                    let welcome = ToClient::Welcome { node: self.name.clone(), at: position.to_string() };
                    return Ok(socket.send_json(&welcome).await?);
                }
                // An application with a database sends the state of the room here, and continues from the
                // position.
                Start::Lost(_) => {
                    socket.send_json(&ToClient::Lost { at: None }).await?;
                    since = Since::Last(SHOWN);
                }
            }
        }
    }

    /// Publishes a message. A client that gets no answer, or a refusal, repeats the message with its number,
    /// perhaps to another node: the key makes it one message.
    async fn publish(
        &self,
        topic: &str,
        publisher: &str,
        name: &str,
        said: Said,
    ) -> Result<ToClient, HandlerError> {
        let Said { number, text } = said;
        let key = format!("{publisher} {number}");
        let message = Published { publisher: publisher.to_owned(), name: name.to_owned(), number, text };
        match self.hub.publish_once(topic, &key, serde_json::to_string(&message)?).await {
            Ok(_) => Ok(ToClient::Accepted { number }),
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                Ok(ToClient::Refused { number, reason: error.to_string() })
            }
            Err(error) => Err(error.into()),
        }
    }
}
