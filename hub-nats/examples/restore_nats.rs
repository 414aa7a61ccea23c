//! Measures how fast a node is back after its NATS was restarted.
//!
//! ```sh
//! cargo run --release -p bowline-hub-nats --example restore_nats -- 100000 1000
//! ```
//!
//! The numbers are those of the topics, and of those that get a message while the node can't reach NATS.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bowline_hub::EngineError;
use bowline_hub_nats::Nats;
use bowline_hub_testing::Outcome;
use bowline_hub_testing::restore::{Broker, Numbers, measure};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::sleep;

/// A NATS that keeps its data.
struct Server(Child);

impl Broker for Server {
    type Engine = Nats;

    async fn start(port: u16, folder: &Path) -> Outcome<Self> {
        let mut command = Command::new("nats-server");
        command.args(["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd"]).arg(folder);
        let server = Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        while !is_up(port).await {
            sleep(Duration::from_millis(5)).await;
        }
        Ok(server)
    }

    async fn stop(self) {}

    async fn connect(port: u16) -> Result<Nats, EngineError> {
        bowline_hub_nats::connect(&format!("nats://127.0.0.1:{port}")).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A process that has ended is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns `true` once the server greets its clients.
async fn is_up(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else { return false };
    stream.read_u8().await.is_ok()
}

#[tokio::main]
async fn main() -> Outcome<()> {
    measure::<Server>(Numbers::from_arguments(Numbers { topics: 100_000, missed: 1000 })?).await
}
