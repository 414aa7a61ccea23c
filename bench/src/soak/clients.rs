//! The clients of the soak, in one process.
//!
//! The process writes "ready", and then accepts commands. The answer to "rest" (open all connections, and
//! finish all messages) and to "run" is "done". The answer to "totals" is [`Totals`]. The answer to
//! "farewell" (the server closes all connections with 1001 now) is "done". The first failure ends the
//! process.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep};

use super::peer::{Peer, Random, Tally};
use crate::control::{listen, say};
use crate::process;

/// The number of connections that share a source address.
const PER_ADDRESS: usize = 2500;

const FOR_EVER: Duration = Duration::from_secs(1 << 30);

/// The number of concurrent handshakes.
const AT_ONCE: usize = 64;

#[derive(clap::Args, Clone, Debug)]
pub struct Clients {
    #[arg(long)]
    address: SocketAddr,
    #[arg(long)]
    connections: usize,
    /// The number of seconds of talking within which each connection meets its fate.
    #[arg(long)]
    life: u64,
    #[arg(long)]
    seed: u64,
}

/// The totals of all connections, including those that have ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    pub opened: u64,
    pub echoed: u64,
    pub in_doubt: u64,
    pub pings: u64,
    /// The number of connections that met each fate.
    pub fates: [u64; 6],
}

impl Totals {
    fn numbers(&self) -> [u64; 10] {
        let Self { opened, echoed, in_doubt, pings, fates: [a, b, c, d, e, f] } = *self;
        [opened, echoed, in_doubt, pings, a, b, c, d, e, f]
    }

    fn add(&mut self, tally: Tally) {
        self.echoed += tally.echoed;
        self.in_doubt += tally.in_doubt;
        self.pings += tally.pings;
    }

    fn meet(&mut self, fate: Fate, tally: Tally) {
        self.add(tally);
        self.fates[fate as usize] += 1;
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.numbers().map(|number| number.to_string()).join(" "))
    }
}

impl FromStr for Totals {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let numbers: Vec<u64> = text.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        let [opened, echoed, in_doubt, pings, fates @ ..]: [u64; 10] =
            numbers.try_into().ok().context("the clients have ten counts")?;
        Ok(Self { opened, echoed, in_doubt, pings, fates })
    }
}

/// The fate of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Close,
    Vanish,
    Reset,
    FallSilent,
    Stall,
    Misbehave,
}

impl Fate {
    pub const ALL: [Self; 6] =
        [Self::Close, Self::Vanish, Self::Reset, Self::FallSilent, Self::Stall, Self::Misbehave];

    async fn befall(self, peer: Peer) -> Result<Tally> {
        match self {
            Self::Close => peer.close().await,
            Self::Vanish => peer.vanish().await,
            Self::Reset => peer.reset().await,
            Self::FallSilent => peer.fall_silent().await,
            Self::Stall => peer.stall().await,
            Self::Misbehave => peer.misbehave().await,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Rest,
    Run,
    Farewell,
}

struct Shared {
    address: SocketAddr,
    life: u64,
    totals: Mutex<Totals>,
    phase: watch::Receiver<Phase>,
    /// The number of connections with no message in progress.
    resting: watch::Sender<usize>,
    /// The number of connections that the server closed at the end.
    parted: watch::Sender<usize>,
    handshakes: Semaphore,
}

pub fn run(options: &Clients) -> Result<()> {
    process::allow_files(options.connections as u64 + 64)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(obey(options))
}

async fn obey(options: &Clients) -> Result<()> {
    let (phase, phases) = watch::channel(Phase::Rest);
    let (resting, mut rested) = watch::channel(0);
    let (parted, mut all_parted) = watch::channel(0);
    let shared = Arc::new(Shared {
        address: options.address,
        life: options.life,
        totals: Mutex::default(),
        phase: phases,
        resting,
        parted,
        handshakes: Semaphore::new(AT_ONCE),
    });
    say("ready");
    let mut started = false;
    while let Some(line) = tokio::task::spawn_blocking(listen).await? {
        match line.as_str() {
            "totals" => {
                say(*shared.totals());
                continue;
            }
            "rest" => drop(phase.send(Phase::Rest)),
            "run" => drop(phase.send(Phase::Run)),
            "farewell" => drop(phase.send(Phase::Farewell)),
            _ => bail!("an unknown command: {line:?}"),
        }
        if !started {
            started = true;
            for number in 0..options.connections {
                let random = Random(options.seed ^ ((number as u64) << 32));
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    if let Err(error) = attend(&shared, number, random).await {
                        eprintln!("connection {number}: {error:#}");
                        std::process::exit(1);
                    }
                });
            }
        }
        match line.as_str() {
            "rest" => drop(rested.wait_for(|count| *count == options.connections).await?),
            "farewell" => drop(all_parted.wait_for(|count| *count == options.connections).await?),
            _ => {}
        }
        say("done");
    }
    Ok(())
}

impl Shared {
    fn totals(&self) -> std::sync::MutexGuard<'_, Totals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the tally of a connection since the previous call.
    fn collect(&self, peer: &mut Peer) {
        self.totals().add(std::mem::take(&mut peer.tally));
    }
}

/// Runs one connection after another, until the farewell.
async fn attend(shared: &Shared, number: usize, mut random: Random) -> Result<()> {
    let source = Ipv4Addr::new(127, 0, 0, 2 + (number / PER_ADDRESS) as u8);
    let mut phases = shared.phase.clone();
    loop {
        let turn = shared.handshakes.acquire().await?;
        let mut peer = Peer::open(source, shared.address, Random(random.next())).await?;
        drop(turn);
        shared.totals().opened += 1;
        // Fates are spread evenly, so that about the same share of connections meets its fate in each second.
        let mut life = Duration::from_millis(random.below(shared.life * 1000));
        let fate = loop {
            let phase = *phases.borrow_and_update();
            match phase {
                Phase::Rest => {
                    shared.collect(&mut peer);
                    shared.resting.send_modify(|count| *count += 1);
                    tokio::select! {
                        changed = phases.changed() => changed?,
                        broken = peer.rest(FOR_EVER) => broken?,
                    }
                    shared.collect(&mut peer);
                    shared.resting.send_modify(|count| *count -= 1);
                }
                Phase::Farewell => {
                    peer.wait_for_close(1001).await?;
                    shared.parted.send_modify(|count| *count += 1);
                    return Ok(());
                }
                Phase::Run => {
                    let began = Instant::now();
                    peer.rest(Duration::from_millis(random.below(10_000))).await?;
                    peer.exchange().await?;
                    match life.checked_sub(began.elapsed()) {
                        Some(left) => life = left,
                        None => break Fate::ALL[random.below(6) as usize],
                    }
                }
            }
        };
        shared.collect(&mut peer);
        let tally = fate.befall(peer).await.with_context(|| format!("{fate:?}"))?;
        shared.totals().meet(fate, tally);
        sleep(Duration::from_millis(random.below(1000))).await;
    }
}
