//! The page, and its buttons: a WebSocket that shows the cluster, and kills programs.
//!
//! HAProxy and this server listen at the loopback address alone. Pages of other origins are refused by the
//! check of `Origin`, which is on by default. Such a page could still have a name of its own for this machine
//! (DNS rebinding), so `Host` has to be one of the names below.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bowline::http::header::{CONTENT_TYPE, HOST};
use bowline::http::request::Parts;
use bowline::http::{HeaderValue, Response, StatusCode};
use bowline::{Rejection, Server, WebSocket};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval};

use crate::cluster::{Cluster, Data, Status};
use crate::robot::{Robots, Summary};

/// The path of the buttons.
const CONTROL: &str = "/control";

/// The names of this machine.
const HOSTS: [&str; 2] = ["127.0.0.1", "localhost"];

/// The time between two looks at the findings of the robots.
const REFRESH: Duration = Duration::from_millis(500);

/// The files of the page: path, type and content.
const FILES: [(&str, &str, &str); 4] = [
    ("/", "text/html; charset=utf-8", include_str!("../page/index.html")),
    ("/page.css", "text/css; charset=utf-8", include_str!("../page/page.css")),
    ("/page.js", "text/javascript; charset=utf-8", include_str!("../page/page.js")),
    ("/room.js", "text/javascript; charset=utf-8", include_str!("../page/room.js")),
];

/// Everything that the buttons reach.
struct Demo {
    cluster: Cluster,
    robots: Robots,
}

/// A button of the page.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Order {
    /// Kills a program.
    Kill {
        name: String,
        #[serde(default)]
        data: Data,
    },
    /// Sets the number of messages that each robot publishes in a second.
    Load { rate: u32 },
}

/// The state of everything, as the page shows it.
#[derive(PartialEq, Serialize)]
struct View {
    programs: Vec<Status>,
    robots: Summary,
}

pub(crate) async fn bind() -> io::Result<TcpListener> {
    TcpListener::bind("127.0.0.1:0").await
}

/// Serves the page and its buttons.
pub(crate) async fn serve(listener: TcpListener, cluster: Cluster, robots: Robots) -> io::Result<()> {
    let demo = Arc::new(Demo { cluster, robots });
    Server::new()
        .on_request(async |head: Parts| match head.uri.path() {
            _ if !is_local(&head) => Err(Rejection::from(StatusCode::FORBIDDEN)),
            CONTROL => Ok(head),
            _ => Err(Rejection::from(StatusCode::NOT_FOUND)),
        })
        .fallback(file)
        .serve(listener, move |socket: WebSocket| control(Arc::clone(&demo), socket))
        .await?;
    Ok(())
}

/// Carries out the orders of a page, and shows it each change of the cluster.
async fn control(demo: Arc<Demo>, mut socket: WebSocket) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut board = demo.cluster.board();
    let mut refresh = interval(REFRESH);
    refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut shown = None;
    loop {
        tokio::select! {
            order = socket.recv_json() => match order? {
                Some(Order::Kill { name, data }) => demo.cluster.kill(&name, data),
                Some(Order::Load { rate }) => demo.robots.set_rate(rate),
                None => return Ok(()),
            },
            _ = refresh.tick() => {}
            changed = board.changed() => changed?,
        }
        let view = View { programs: board.borrow_and_update().clone(), robots: demo.robots.summary() };
        if shown.as_ref() != Some(&view) {
            socket.send_json(&view).await?;
            shown = Some(view);
        }
    }
}

async fn file(head: Parts) -> Response<&'static str> {
    let found = FILES.iter().find(|(path, _, _)| *path == head.uri.path());
    let Some((_, kind, content)) = found else {
        let mut response = Response::new("not found");
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    };
    let mut response = Response::new(*content);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Returns `true` if a request was sent to this machine by one of its own names.
fn is_local(head: &Parts) -> bool {
    let host = head.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    HOSTS.contains(&host.split(':').next().unwrap_or_default())
}
