//! Measures how fast a node is back after its Redis was restarted.
//!
//! ```sh
//! cargo run --release -p bowline-hub-redis --example restore_redis -- 100000 100000
//! ```
//!
//! The numbers are those of the topics, and of those that get a message while the node can't reach Redis.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bowline_hub::EngineError;
use bowline_hub_redis::Redis;
use bowline_hub_testing::Outcome;
use bowline_hub_testing::restore::{Broker, Numbers, measure};
use tokio::time::sleep;

/// A Redis that keeps its data.
struct Server {
    process: Child,
    port: u16,
}

impl Broker for Server {
    type Engine = Redis;

    async fn start(port: u16, folder: &Path) -> Outcome<Self> {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"]).arg(folder);
        command.args(["--save", "", "--appendonly", "yes", "--appendfsync", "no"]);
        let server = Self { process: command.stdout(Stdio::null()).spawn()?, port };
        while server.command("PING").await.is_err() {
            sleep(Duration::from_millis(5)).await;
        }
        Ok(server)
    }

    async fn stop(self) {
        // There is no answer.
        let _ = self.command("SHUTDOWN").await;
    }

    async fn connect(port: u16) -> Result<Redis, EngineError> {
        bowline_hub_redis::connect(&url(port)).await
    }
}

impl Server {
    async fn command(&self, name: &str) -> redis::RedisResult<()> {
        let mut connection = redis::Client::open(url(self.port))?.get_multiplexed_async_connection().await?;
        redis::cmd(name).exec_async(&mut connection).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A process that has ended is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn url(port: u16) -> String {
    format!("redis://127.0.0.1:{port}")
}

#[tokio::main]
async fn main() -> Outcome<()> {
    measure::<Server>(Numbers::from_arguments(Numbers { topics: 100_000, missed: 100_000 })?).await
}
