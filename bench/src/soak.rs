//! A soak test: connections talk, die, stall and misbehave, while every message is accounted for and nothing
//! leaks.
//!
//! There are two parts. In the mix, bowline talks with itself over every carrier and through all of its API.
//! In the crowd, thousands of hand-written clients talk with its server, in a process of its own.

pub mod clients;
mod crowd;
pub mod idle;
#[cfg(any(feature = "soak", test))]
mod mix;
mod peer;
pub mod serve;
mod sides;
mod verdict;

use std::time::Duration;

use anyhow::Result;

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// bowline with itself, over all carriers
    Mix,
    /// Clients by hand, over TCP
    Crowd,
}

#[derive(clap::Args, Clone, Debug)]
pub struct Soak {
    /// The only part to run; without this, both run one after the other
    #[arg(long)]
    part: Option<Part>,
    /// The duration of each part; the crowd first warms up for a minute
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    crowd: crowd::Crowd,
    #[cfg(any(feature = "soak", test))]
    #[command(flatten)]
    mix: mix::Arguments,
}

pub fn run(options: &Soak) -> Result<()> {
    let time = Duration::from_secs_f64(60.0 * options.minutes);
    match options.part {
        None if cfg!(not(feature = "soak")) => println!("without the mix, which needs `--features soak`"),
        Some(Part::Crowd) => {}
        _ => run_mix(options, time)?,
    }
    if options.part != Some(Part::Mix) {
        crowd::run(&options.crowd, time, options.seed)?;
    }
    Ok(())
}

#[cfg(any(feature = "soak", test))]
fn run_mix(options: &Soak, time: Duration) -> Result<()> {
    mix::run(&mix::Options { seed: options.seed, time, arguments: options.mix.clone() })
}

#[cfg(not(any(feature = "soak", test)))]
fn run_mix(_: &Soak, _: Duration) -> Result<()> {
    anyhow::bail!("the mix needs more of bowline: build with `--features soak`")
}
