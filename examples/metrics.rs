//! A server with limits on its load, whose numbers are at `/metrics` in the format of Prometheus: those of
//! the server, and the sums of those of its connections.
//!
//! `/healthz` answers as long as the server is alive. After Ctrl-C, the connections are closed evenly over
//! 20 s.
//!
//! ```sh
//! cargo run -p bowline-examples --example metrics -- 127.0.0.1:8080
//! curl http://127.0.0.1:8080/metrics
//! ```

use std::error::Error;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bowline::{CloseCode, ConnectionStats, Sender, Server, ServerStats, ShutdownOptions, WebSocket};
use clap::Parser;
use http::request::Parts;
use http::{Response, StatusCode};
use tokio::net::TcpListener;

#[derive(Parser)]
struct Arguments {
    /// The address to listen on; port 0 selects a free port.
    #[arg(default_value = "127.0.0.1:8080")]
    address: String,
    /// The largest number of connections.
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// The largest number of handshakes within a second.
    #[arg(long, default_value_t = 1000)]
    handshakes_per_second: u32,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let listener = TcpListener::bind(&arguments.address).await?;
    println!("listening on http://{}/metrics", listener.local_addr()?);
    let ctrl_c = async { tokio::signal::ctrl_c().await.unwrap_or(()) };
    let restart = ShutdownOptions::new(Duration::from_secs(30))
        .spread(Duration::from_secs(20))
        .close_frame(CloseCode::SERVICE_RESTART, "please connect again");
    let server = Server::new()
        .connections(arguments.connections)
        .handshakes_per_second(arguments.handshakes_per_second)
        .shutdown(ctrl_c, restart)
        .on_error(|error| eprintln!("{error}"));
    let traffic = Traffic::default();
    let server = with_pages(server, traffic.clone());
    let shutdown = server.serve(listener, move |socket| echo(socket, traffic.clone())).await?;
    println!("{} connections closed, {} were ended", shutdown.closed(), shutdown.ended());
    Ok(())
}

async fn echo(mut socket: WebSocket, traffic: Traffic) -> Result<(), Box<dyn Error + Send + Sync>> {
    let _counted = traffic.add(socket.sender());
    while let Some(message) = socket.recv().await? {
        socket.send(message).await?;
    }
    Ok(())
}

/// The traffic of all connections. Only the page and the two ends of a connection take the lock.
#[derive(Clone, Default)]
struct Traffic(Arc<Mutex<Connections>>);

#[derive(Default)]
struct Connections {
    open: Vec<Sender>,
    /// The sum of the connections that have ended.
    ended: Sum,
}

#[derive(Clone, Copy, Default)]
struct Sum {
    /// Received and sent.
    messages: [u64; 2],
    /// Read and written.
    bytes: [u64; 2],
    pending: u64,
}

impl Sum {
    fn add(&mut self, stats: ConnectionStats) {
        self.messages[0] += stats.messages_received();
        self.messages[1] += stats.messages_sent();
        self.bytes[0] += stats.bytes_read();
        self.bytes[1] += stats.bytes_written();
        self.pending += stats.pending() as u64;
    }
}

impl Traffic {
    /// Counts a connection until the returned guard is dropped.
    fn add(&self, sender: Sender) -> Counted {
        self.connections().open.push(sender.clone());
        Counted { traffic: self.clone(), sender }
    }

    fn sum(&self) -> Sum {
        let connections = self.connections();
        let mut sum = connections.ended;
        connections.open.iter().for_each(|sender| sum.add(sender.stats()));
        sum
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Counted {
    traffic: Traffic,
    sender: Sender,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut connections = self.traffic.connections();
        connections.open.retain(|sender| *sender != self.sender);
        connections.ended.add(self.sender.stats());
        // Nothing of an ended connection waits for long.
        connections.ended.pending = 0;
    }
}

/// Adds the pages to a server. They read the numbers from a clone of the server.
fn with_pages(server: Server, traffic: Traffic) -> Server {
    let numbers = server.clone();
    server.fallback(move |head: Parts| {
        let page = match head.uri.path() {
            "/metrics" => Response::new(prometheus(&numbers.stats(), traffic.sum())),
            "/healthz" => Response::new("ok\n".to_owned()),
            _ => {
                let mut response = Response::new("not found\n".to_owned());
                *response.status_mut() = StatusCode::NOT_FOUND;
                response
            }
        };
        async { page }
    })
}

/// Writes the numbers in the text format of Prometheus.
fn prometheus(stats: &ServerStats, traffic: Sum) -> String {
    let mut text = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, samples: &[(String, u64)]| {
        // Writing to a string never fails.
        let _ = writeln!(text, "# HELP bowline_{name} {help}\n# TYPE bowline_{name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(text, "bowline_{name}{labels} {value}");
        }
    };
    let alone = |value| [(String::new(), value)];
    metric("websockets_open", "gauge", "WebSockets that are open.", &alone(stats.open()));
    metric("websockets_total", "counter", "WebSockets that were opened.", &alone(stats.accepted()));
    metric("handlers_failed_total", "counter", "Handlers that failed.", &alone(stats.handlers_failed()));
    metric("accept_errors_total", "counter", "Failures to accept.", &alone(stats.accept_errors()));
    metric("shut_down_total", "counter", "WebSockets ended by a shutdown.", &alone(stats.shut_down()));
    let rejections: Vec<_> =
        stats.rejections().map(|(reason, count)| (format!("{{reason=\"{reason}\"}}"), count)).collect();
    metric("rejected_total", "counter", "Requests that became no WebSocket.", &rejections);
    let directions = |[received, sent]: [u64; 2]| {
        [("received", received), ("sent", sent)]
            .map(|(direction, count)| (format!("{{direction=\"{direction}\"}}"), count))
    };
    metric("messages_total", "counter", "Messages.", &directions(traffic.messages));
    metric("bytes_total", "counter", "Bytes of frames.", &directions(traffic.bytes));
    metric("pending_bytes", "gauge", "Bytes that wait to be written.", &alone(traffic.pending));
    text
}

#[cfg(test)]
mod tests {
    use bowline::{CloseCode, Server};
    use http::StatusCode;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::{Traffic, echo, with_pages};

    async fn get(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        response
    }

    #[tokio::test]
    async fn the_numbers_are_those_of_the_server() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let traffic = Traffic::default();
        let server = with_pages(Server::new().connections(2), traffic.clone());
        tokio::spawn(server.clone().serve(listener, move |socket| echo(socket, traffic.clone())));
        let url = format!("ws://{address}/");
        let mut first = bowline::connect(&url).await.unwrap();
        let mut second = bowline::connect(&url).await.unwrap();
        for socket in [&mut first, &mut second] {
            socket.send("hello").await.unwrap();
            socket.recv().await.unwrap();
        }
        let error = bowline::connect(&url).await.unwrap_err();
        assert_eq!(error.response().unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
        while server.stats().rejected() == 0 {
            tokio::task::yield_now().await;
        }

        let page = get(address, "/metrics").await;
        assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
        for line in [
            "# TYPE bowline_websockets_open gauge",
            "bowline_websockets_open 2",
            "bowline_websockets_total 2",
            "bowline_rejected_total{reason=\"connections\"} 1",
            "bowline_rejected_total{reason=\"origin\"} 0",
            "bowline_messages_total{direction=\"received\"} 2",
            "bowline_bytes_total{direction=\"sent\"} 14",
            "bowline_pending_bytes 0",
        ] {
            assert!(page.lines().any(|other| other == line), "{line} in {page}");
        }
        assert!(get(address, "/healthz").await.ends_with("\r\n\r\nok\n"));
        first.close(CloseCode::NORMAL, "").await.unwrap();
    }
}
