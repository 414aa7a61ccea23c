//! The process of a client.

use std::net::SocketAddr;

use anyhow::Result;
use tokio::net::TcpStream;

use super::echo::{self, Side};
use super::library::Library;
use crate::allocations;
use crate::control::answer_in_background;

/// Options of the clients, which send back each received message like the servers.
#[derive(clap::Args, Clone, Debug)]
pub struct Connect {
    #[arg(long)]
    pub library: Library,
    #[arg(long)]
    pub address: SocketAddr,
    #[arg(long)]
    pub connections: usize,
    #[arg(long)]
    pub count_allocations: bool,
}

pub fn run(options: &Connect) -> Result<()> {
    if options.count_allocations {
        allocations::start();
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        answer_in_background();
        for _ in 0..options.connections {
            if options.library == Library::Bowline {
                echo::spawn(echo::bowline::connect(options.address));
                continue;
            }
            let stream = TcpStream::connect(options.address).await?;
            stream.set_nodelay(true)?;
            echo::spawn_echo(options.library, Side::Client, stream);
        }
        std::future::pending().await
    })
}
