//! A whole site from one `Server`: a page, a health check, and a WebSocket that sets a cookie.
//!
//! `cargo run -p bowline-examples --example page_server`, then open <http://127.0.0.1:8080> in a browser.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bowline::{Acceptance, Rejection, Server, WebSocket};
use http::header::{CONTENT_TYPE, COOKIE, SET_COOKIE};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use tokio::net::TcpListener;

const PAGE: &str = "<!doctype html><title>bowline</title><pre></pre><script>
const socket = new WebSocket('ws://' + location.host + '/greetings');
socket.onmessage = event => document.querySelector('pre').append(event.data);
</script>";

/// The number of a visitor, which a cookie carries from one connection to the next.
#[derive(Clone, Copy)]
struct Visitor {
    number: u32,
    visits: u32,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:8080").await?;
    println!("listening on {}", listener.local_addr()?);
    let visitors = Arc::new(AtomicU32::new(0));
    Server::new()
        .fallback(answer)
        .on_request(move |head| {
            let acceptance = welcome(head, &visitors);
            async { acceptance }
        })
        .on_error(|error| eprintln!("{error}"))
        .serve(listener, greet)
        .await?;
    Ok(())
}

/// Answers what is no WebSocket.
async fn answer(head: Parts) -> Response<&'static str> {
    let (status, kind, body) = match (head.method, head.uri.path()) {
        (Method::GET | Method::HEAD, "/") => (StatusCode::OK, "text/html; charset=utf-8", PAGE),
        (Method::GET | Method::HEAD, "/healthz") => (StatusCode::OK, "text/plain", "ok\n"),
        _ => (StatusCode::NOT_FOUND, "text/plain", "there is no such page\n"),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

/// Accepts a WebSocket at the path of this server's page, and counts the visit in a cookie.
fn welcome(mut head: Parts, visitors: &AtomicU32) -> Result<Acceptance, Rejection> {
    if head.uri.path() != "/greetings" {
        return Err(StatusCode::NOT_FOUND.into());
    }
    let mut visitor = known_visitor(&head)
        .unwrap_or_else(|| Visitor { number: visitors.fetch_add(1, Ordering::Relaxed) + 1, visits: 0 });
    visitor.visits = visitor.visits.saturating_add(1);
    head.extensions.insert(visitor);
    let cookie = format!("visitor={}.{}; HttpOnly; SameSite=Strict", visitor.number, visitor.visits);
    Ok(Acceptance::from(head).header(SET_COOKIE, cookie))
}

/// Reads the cookie of an earlier visit. A real server signs what it believes.
fn known_visitor(head: &Parts) -> Option<Visitor> {
    let cookies = head.headers.get(COOKIE)?.to_str().ok()?;
    let value = cookies.split("; ").find_map(|cookie| cookie.strip_prefix("visitor="))?;
    let (number, visits) = value.split_once('.')?;
    Some(Visitor { number: number.parse().ok()?, visits: visits.parse().ok()? })
}

async fn greet(head: Parts, mut socket: WebSocket) -> Result<(), Box<dyn Error + Send + Sync>> {
    let Visitor { number, visits } = head.extensions.get().copied().ok_or("the request has no visitor")?;
    socket.send(format!("welcome, visitor {number}: this is visit {visits}\n")).await?;
    // Until the page is closed.
    while socket.recv().await?.is_some() {}
    Ok(())
}
