//! The time that a message takes from node to node, over a Redis.
//!
//! Two hubs are connected by a Redis alone. The first one publishes at a fixed rate, and a member of the
//! second one receives. The time of a message begins when it is due, not when the publisher gets to it: a
//! publisher that is late does not hide the delay.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bowline_hub::{Hub, Rule};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::process::cpu_time;
use crate::statistics::quantile;

/// The number of topics among which the messages are divided.
const TOPICS: u64 = 100;

/// The time between two groups of messages.
const TICK: Duration = Duration::from_millis(1);

/// The time within which the last message must arrive.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(clap::Args, Clone, Debug)]
pub struct Latency {
    /// Messages in a second
    #[arg(long, default_value_t = 10_000)]
    rate: u64,
    /// The time of each of the two runs, in seconds
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// The port of the Redis that is started
    #[arg(long, default_value_t = 18_479)]
    port: u16,
}

/// A Redis without data.
struct Redis(Child);

impl Redis {
    async fn start(port: u16) -> Result<Self> {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", ""]);
        let server = Self(command.stdout(Stdio::null()).spawn().context("redis-server doesn't start")?);
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            sleep(Duration::from_millis(5)).await;
        }
        Ok(server)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn run(options: &Latency) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let redis = Redis::start(options.port).await?;
        println!("{} messages a second, for {} s each", options.rate, options.seconds);
        let history = Rule::new().history(100, Duration::from_secs(60));
        for (name, rule) in [("without history", Rule::new()), ("with history", history)] {
            let before = cpu_time(redis.0.id())?;
            let times = measure(options, rule).await?;
            let spent = (cpu_time(redis.0.id())? - before) as f64 / times.len() as f64 / 1000.0;
            let milliseconds: Vec<_> = times.iter().map(|time| time.as_secs_f64() * 1000.0).collect();
            let at = |share| quantile(&milliseconds, share);
            let (median, tail, most) = (at(0.5), at(0.99), at(1.0));
            println!("{name:16} p50 {median:.2} ms, p99 {tail:.2} ms, at most {most:.2} ms");
            println!("{:16} Redis takes {spent:.1} µs of CPU time for a message", "");
        }
        Ok(())
    })
}

/// Returns the times of all messages.
async fn measure(options: &Latency, rule: Rule) -> Result<Vec<Duration>> {
    let url = format!("redis://127.0.0.1:{}", options.port);
    let here = hub(&url, rule.clone()).await?;
    let there = hub(&url, rule).await?;
    let (mut client, server) = bowline::pair();
    let member = there.join(server.sender())?;
    for topic in 0..TOPICS {
        let _start = member.subscribe(&name(topic), None).await?;
    }
    let count = options.rate * options.seconds;
    let began = Instant::now();
    let receiving = tokio::spawn(async move {
        let mut times = Vec::new();
        while times.len() < usize::try_from(count)? {
            let message = timeout(PATIENCE, client.recv()).await.context("messages are missing")??;
            let message = message.context("the connection has ended")?.into_text()?;
            times.push(began.elapsed() - Duration::from_nanos(message.parse()?));
        }
        anyhow::Ok(times)
    });
    publish(options, &here, began).await?;
    let times = receiving.await??;
    ensure!(there.stats().members == 1, "the member has left");
    Ok(times)
}

/// Publishes messages whose text is the time at which each is due.
async fn publish(options: &Latency, hub: &Hub, began: Instant) -> Result<()> {
    let count = options.rate * options.seconds;
    let (mut ticks, mut publishing, mut next) = (interval(TICK), JoinSet::new(), 0);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    while next < count {
        ticks.tick().await;
        let now = began.elapsed();
        while next < count {
            let due = Duration::from_nanos(next * 1_000_000_000 / options.rate);
            if due > now {
                break;
            }
            let (hub, topic) = (hub.clone(), name(next % TOPICS));
            publishing.spawn(async move { hub.publish(&topic, due.as_nanos().to_string()).await });
            next += 1;
        }
        while let Some(published) = publishing.try_join_next() {
            published??;
        }
    }
    while let Some(published) = publishing.join_next().await {
        published??;
    }
    Ok(())
}

async fn hub(url: &str, rule: Rule) -> Result<Hub> {
    let engine = bowline_hub_redis::connect(url).await?;
    Ok(Hub::builder(engine).rule("", rule).build()?)
}

fn name(topic: u64) -> String {
    format!("topic/{topic}")
}
