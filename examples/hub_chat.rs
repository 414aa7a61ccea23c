//! A chat whose clients come back without missing a message, with `bowline-hub`.
//!
//! Run `cargo run -p bowline-examples --example hub_chat`, then open <http://127.0.0.1:8080/#lobby> in
//! several windows. A page that loses its connection names the position of its last message when it connects
//! again.
//!
//! With a Redis, several servers are one chat:
//!
//! ```sh
//! cargo run -p bowline-examples --features redis --example hub_chat -- 8080 redis://127.0.0.1 &
//! cargo run -p bowline-examples --features redis --example hub_chat -- 8081 redis://127.0.0.1 &
//! ```
//!
//! A frame of the server is one word, a position, and perhaps a text: `start` names the position from which a
//! new page continues, `message` is a message, and `lost` tells that messages are missing. The frames about
//! who is there have no position: `here` with all names, `joined` and `left` with one. Several pages of one
//! browser are one person, and a page that loses its connection for a moment does not leave.

use std::error::Error;
use std::time::Duration;

use bowline::{CloseCode, Limits, Rejection, Server, ShutdownOptions, WebSocket};
use bowline_hub::{Engine, Hub, Memory, Position, PresenceNews, Rule, Since, Start};
use http::request::Parts;
use http::{Response, StatusCode};
use tokio::net::TcpListener;

type HandlerError = Box<dyn Error + Send + Sync>;

const ROOMS: &str = "/rooms/";

/// The number of messages that a new page receives.
const SHOWN: u64 = 50;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let port = arguments.next().map_or(Ok(8080), |port| port.parse())?;
    let hub = match arguments.next() {
        None => build(Memory::new())?,
        #[cfg(feature = "redis")]
        Some(url) => build(bowline_hub_redis::connect(&url).await?)?,
        #[cfg(not(feature = "redis"))]
        Some(_) => return Err("the URL of a Redis needs `--features redis`".into()),
    };
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("listening on http://{}", listener.local_addr()?);
    // On Ctrl-C, the pages are sent away one by one, over 20 s, and come back to another server.
    let stop = async { tokio::signal::ctrl_c().await.unwrap_or(()) };
    let drain = ShutdownOptions::new(Duration::from_secs(30))
        .spread(Duration::from_secs(20))
        .close_frame(CloseCode::SERVICE_RESTART, "");
    let acceptor = bowline::Acceptor::new().limits(Limits::default().message_size(4096));
    Server::new()
        .acceptor(acceptor)
        .fallback(async |_: Parts| {
            let mut page = Response::new(include_str!("hub_chat.html"));
            let html = http::HeaderValue::from_static("text/html; charset=utf-8");
            page.headers_mut().insert(http::header::CONTENT_TYPE, html);
            page
        })
        .on_request(|head: Parts| async {
            match head.uri.path().strip_prefix(ROOMS) {
                Some(room) if !room.is_empty() => Ok(head),
                _ => Err(Rejection::from(StatusCode::NOT_FOUND)),
            }
        })
        .shutdown(stop, drain)
        .on_error(|error| eprintln!("{error}"))
        .serve(listener, move |head: Parts, socket: WebSocket| {
            let hub = hub.clone();
            async move { talk(&hub, &head, socket).await }
        })
        .await?;
    Ok(())
}

fn build(engine: impl Engine) -> Result<Hub, bowline_hub::Error> {
    Hub::builder(engine)
        // A page that comes back within an hour receives up to 1,000 messages.
        .rule("room/", Rule::new().history(1000, Duration::from_secs(3600)).presence())
        .frame(|message| format!("message {} {}", message.position(), message.text().unwrap_or("")).into())
        .lost(|_, now| format!("lost {now}").into())
        .presence(|_, news| {
            let text = match news {
                PresenceNews::Here(all) => {
                    let names: Vec<_> = all.iter().map(|who| who.key.as_str()).collect();
                    format!("here {}", names.join(" "))
                }
                PresenceNews::Joined(who) => format!("joined {}", who.key),
                PresenceNews::Left(who) => format!("left {}", who.key),
                _ => return None,
            };
            Some(text.into())
        })
        .build()
}

/// Returns a parameter of the query.
fn parameter<'a>(head: &'a Parts, name: &str) -> Option<&'a str> {
    let mut parameters = head.uri.query()?.split('&').filter_map(|parameter| parameter.split_once('='));
    parameters.find(|(found, _)| *found == name).map(|(_, value)| value)
}

async fn talk(hub: &Hub, head: &Parts, mut socket: WebSocket) -> Result<(), HandlerError> {
    let topic = format!("room/{}", head.uri.path().strip_prefix(ROOMS).unwrap_or(""));
    // A position that is none counts as that of a new page.
    let position: Option<Position> = parameter(head, "since").and_then(|since| since.parse().ok());
    // The page says who it is. An application takes the name from its session.
    let name = parameter(head, "name").filter(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    let mut since = position.map_or(Since::Last(SHOWN), Since::Position);

    let member = hub.join(&socket)?;
    let start = loop {
        match member.subscribe(&topic, since).await? {
            Start::Live(position) => break position,
            // An application with a database sends the state of the room here.
            Start::Lost(now) => {
                socket.send(format!("lost {now}")).await?;
                since = now.into();
            }
        }
    };
    if position.is_none() {
        socket.send(format!("start {start}")).await?;
    }
    if let Some(name) = name.filter(|name| !name.is_empty()) {
        member.appear(&topic, name).await?;
    }
    while let Some(message) = socket.recv().await? {
        hub.publish(&topic, message.into_text()?).await?;
    }
    Ok(())
}
