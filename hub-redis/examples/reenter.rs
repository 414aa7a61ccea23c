//! Measures how fast a node enters its people again after its Redis was restarted without data.
//!
//! ```sh
//! cargo run --release -p bowline-hub-redis --example reenter -- 100000
//! ```
//!
//! The number is that of the entries: people, each in a room.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bowline::{WebSocket, pair};
use bowline_hub::{Hub, HubLimits, Member, Rule};
use bowline_hub_testing::Outcome;
use bowline_hub_testing::process::free_port;
use redis::aio::MultiplexedConnection;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// The number of rooms of a member.
const ROOMS: usize = 100;

/// A Redis that keeps nothing.
struct Server(Child);

impl Server {
    async fn start(port: u16) -> Outcome<Self> {
        let mut command = Command::new("redis-server");
        command.args([
            "--bind",
            "127.0.0.1",
            "--port",
            &port.to_string(),
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        let server = Self(command.stdout(Stdio::null()).spawn()?);
        while connect(port).await.is_err() {
            sleep(Duration::from_millis(5)).await;
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A process that has ended is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn connect(port: u16) -> redis::RedisResult<MultiplexedConnection> {
    redis::Client::open(format!("redis://127.0.0.1:{port}"))?.get_multiplexed_async_connection().await
}

/// Waits until the node has entered so many.
async fn entered(port: u16, entries: usize) -> Outcome<()> {
    let mut connection = connect(port).await?;
    loop {
        let nodes: Vec<String> =
            redis::cmd("KEYS").arg("bowline:node:*").query_async(&mut connection).await?;
        for node in nodes {
            if redis::cmd("SCARD").arg(node).query_async::<usize>(&mut connection).await? == entries {
                return Ok(());
            }
        }
        sleep(Duration::from_millis(10)).await;
    }
}

async fn appear(hub: Hub, number: usize) -> Outcome<(Member, [WebSocket; 2])> {
    let (client, server) = pair();
    let member = hub.join(&server)?;
    for room in 0..ROOMS {
        let room = format!("room/{room}");
        let _start = member.subscribe(&room, None).await?;
        member.appear(&room, format!("user-{number}")).await?;
    }
    Ok((member, [client, server]))
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let entries = std::env::args().nth(1).map_or(Ok(100_000), |number| number.parse::<usize>())?;
    let entries = entries.next_multiple_of(ROOMS);
    let port = free_port();
    let server = Server::start(port).await?;
    let limits = HubLimits::default().engine_timeout(Duration::from_secs(60));
    let engine = bowline_hub_redis::connect(&format!("redis://127.0.0.1:{port}")).await?;
    let hub = Hub::builder(engine).rule("room/", Rule::new().presence()).limits(limits).build()?;

    let began = Instant::now();
    let mut joining = JoinSet::new();
    for number in 0..entries / ROOMS {
        joining.spawn(appear(hub.clone(), number));
    }
    let _members = joining.join_all().await.into_iter().collect::<Outcome<Vec<_>>>()?;
    entered(port, entries).await?;
    println!("{entries} entries are made after {:.2?}", began.elapsed());

    drop(server);
    let _server = Server::start(port).await?;
    let began = Instant::now();
    entered(port, entries).await?;
    println!("after the restart, all are made again after {:.2?}", began.elapsed());
    Ok(())
}
