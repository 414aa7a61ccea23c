//! The process of a server.

use anyhow::Result;
use tokio::net::TcpListener;

use super::echo::{self, Side};
#[cfg(feature = "frameworks")]
use super::frameworks;
#[cfg(feature = "http2")]
use super::http2;
#[cfg(feature = "http3")]
use super::http3;
use super::library::{Behavior, Library};
use super::{json, rooms, stream, tls};
use crate::allocations;
use crate::control::{answer_in_background, say};

#[derive(clap::Args, Clone, Debug)]
pub struct Serve {
    #[arg(long)]
    pub library: Library,
    #[arg(long, default_value = "echo")]
    pub workload: Behavior,
    #[arg(long)]
    pub tls: bool,
    /// Serve HTTP/2, with prior knowledge or over TLS.
    #[cfg(feature = "http2")]
    #[arg(long)]
    pub http2: bool,
    /// Serve HTTP/3.
    #[cfg(feature = "http3")]
    #[arg(long)]
    pub http3: bool,
    /// Compress at this level, without context takeover.
    #[arg(long)]
    pub compress: Option<u8>,
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// The URL of a Redis, for the rooms of bowline-hub
    #[arg(long)]
    pub redis: Option<String>,
    #[arg(long)]
    pub count_allocations: bool,
}

pub fn run(options: &Serve) -> Result<()> {
    if options.count_allocations {
        allocations::start();
    }
    #[cfg(feature = "frameworks")]
    if matches!(options.library, Library::ActixWs | Library::Ntex) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        say(listener.local_addr()?);
        answer_in_background();
        return frameworks::serve(options.library, listener);
    }
    let mut builder = match options.threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if options.threads > 1 {
        builder.worker_threads(options.threads);
    }
    builder.enable_all().build()?.block_on(async {
        #[cfg(feature = "http3")]
        if options.http3 {
            answer_in_background();
            return http3::serve(options.library).await;
        }
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        say(listener.local_addr()?);
        answer_in_background();
        match options.workload {
            #[cfg(feature = "http2")]
            Behavior::Echo if options.http2 => {
                let tls = options.tls.then(tls::config).transpose()?;
                return http2::serve(options.library, listener, tls).await;
            }
            Behavior::Echo if options.tls => return tls::serve(options.library, listener).await,
            Behavior::Echo => {}
            Behavior::Stream => return stream::serve(options.library, listener).await,
            Behavior::Json => return json::serve(options.library, listener).await,
            Behavior::FanOut
            | Behavior::FanOutCompressed
            | Behavior::Rooms
            | Behavior::Burst
            | Behavior::BurstOneByOne
            | Behavior::Chat => {
                let redis = options.redis.as_deref();
                return rooms::serve(options.library, options.workload, listener, redis).await;
            }
        }
        match options.library {
            Library::Bowline => Ok(echo::bowline::serve(listener, options.compress).await?),
            library => loop {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let side = options.compress.map_or(Side::Server, |level| Side::CompressingServer { level });
                echo::spawn_echo(library, side, stream);
            },
        }
    })
}
