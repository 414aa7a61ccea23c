//! One sample of a case: fresh processes, a warm-up, a run.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use super::cases::{Carrier, Case, DEFAULT_LEVEL, Messages, Workload};
use crate::control::Part;
use crate::servers::Behavior;

/// A figure about a library in a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Figure {
    /// Nanoseconds of CPU time.
    Cpu,
    /// Bytes of resident memory per connection.
    Memory,
    /// Bytes of resident memory per connection, after each has echoed a message.
    MemoryAfterEcho,
    /// Messages in a second.
    Rate,
    /// The median of the nanoseconds until a reply.
    Median,
    /// The 99th percentile of the nanoseconds until a reply.
    Tail,
    /// Nanoseconds of the load's CPU time.
    LoadCpu,
    /// The peak of resident memory, in bytes.
    PeakMemory,
    SystemCalls,
    Allocations,
    Instructions,
}

/// The figures of one sample.
#[derive(Clone, Debug, Default)]
pub struct Figures(pub BTreeMap<Figure, f64>);

/// A server or a client, and its load.
pub struct Pair {
    /// The part whose costs are measured.
    pub measured: Part,
    pub load: Part,
}

/// The answer of a load about a run.
pub struct Run {
    pub messages: f64,
    nanoseconds: f64,
    median: f64,
    tail: f64,
}

/// The way in which the measured process runs.
#[derive(Clone, Debug, Default)]
pub struct Manner {
    /// The program and its arguments under which the process runs, if any.
    pub under: Vec<String>,
    pub count_allocations: bool,
}

impl Pair {
    /// Starts both processes, and waits until the first replies have been checked.
    pub fn start(workload: Workload, library: &str, cores: &[usize], manner: &Manner) -> Result<Self> {
        let count = workload.threads().min(cores.len());
        let (measured, other) = (&cores[..count], &cores[cores.len() - 1..]);
        let count_allocations = manner.count_allocations;
        let mut pair = if let Workload::Client(messages) = workload {
            let mut load = Part::start(&[], other, &load_arguments(workload, None))?;
            let address = load.hear().context("the load did not start")?;
            let arguments = connect_arguments(&messages, library, &address, count_allocations);
            Self { measured: Part::start(&manner.under, measured, &arguments)?, load }
        } else {
            let arguments = serve_arguments(workload, library, count_allocations);
            let mut server = Part::start(&manner.under, measured, &arguments)?;
            let address = server.hear().context("the server did not start")?;
            let load = Part::start(&[], other, &load_arguments(workload, Some(&address)))?;
            Self { measured: server, load }
        };
        let ready = pair.load.hear().context("the first messages failed")?;
        ensure!(ready == "ready", "an unexpected line: {ready}");
        Ok(pair)
    }

    pub fn run(&mut self, command: &str) -> Result<Run> {
        let answer = self.load.ask(command)?;
        let numbers: Vec<f64> = answer.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        let [messages, nanoseconds, median, tail] = numbers[..] else {
            anyhow::bail!("an unexpected line: {answer}")
        };
        ensure!(messages > 0.0, "there were no messages");
        Ok(Run { messages, nanoseconds, median, tail })
    }

    /// Ends the measured process in order, so that a tool around it can write its output.
    pub fn end(self) -> Result<()> {
        // Under a tool, the end takes long. Dropping the load kills it.
        self.measured.end()
    }
}

/// Takes one sample.
pub fn take(case: &Case, library: &str, seconds: f64, cores: &[usize]) -> Result<Figures> {
    let mut pair = Pair::start(case.workload, library, cores, &Manner::default())?;
    if let Workload::Idle { connections, .. } = case.workload {
        return memory(&mut pair, connections);
    }
    pair.run("for 100").context("the warm-up failed")?;
    let (before, load_before) = (pair.measured.cpu_time()?, pair.load.cpu_time()?);
    let run = pair.run(&format!("for {}", (seconds * 1000.0).round()))?;
    let (after, load_after) = (pair.measured.cpu_time()?, pair.load.cpu_time()?);
    let units = run.messages * case.units_per_message() as f64;
    let mut figures = BTreeMap::from([
        (Figure::Cpu, (after - before) as f64 / units),
        (Figure::Rate, run.messages / run.nanoseconds * 1e9),
        (Figure::Median, run.median),
        (Figure::Tail, run.tail),
        (Figure::LoadCpu, (load_after - load_before) as f64 / units),
    ]);
    if matches!(case.workload, Workload::Stream(_)) {
        figures.insert(Figure::PeakMemory, pair.measured.peak_memory()? as f64);
    }
    Ok(Figures(figures))
}

fn memory(pair: &mut Pair, connections: usize) -> Result<Figures> {
    let before = pair.measured.memory()?;
    let mut figures = BTreeMap::new();
    for (command, figure) in [("open", Figure::Memory), ("echo", Figure::MemoryAfterEcho)] {
        pair.load.ask(command)?;
        let now = settled_memory(&pair.measured)?;
        figures.insert(figure, (now as f64 - before as f64) / connections as f64);
    }
    Ok(Figures(figures))
}

/// Waits until resident memory is constant for half a second, or for ten seconds, and returns it.
fn settled_memory(part: &Part) -> Result<u64> {
    let began = Instant::now();
    let (mut last, mut since) = (part.memory()?, Instant::now());
    while since.elapsed() < Duration::from_millis(500) && began.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(50));
        let now = part.memory()?;
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    Ok(last)
}

fn serve_arguments(workload: Workload, library: &str, count_allocations: bool) -> Vec<String> {
    let mut arguments = vec!["serve".to_owned(), "--library".to_owned(), library.to_owned()];
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(|word| (*word).to_owned()));
    match workload {
        Workload::Echo(messages) => {
            add(&["--threads", &messages.threads.to_string()]);
            add(serve_over(messages.carrier));
            if messages.kind.is_compressed() {
                add(&["--compress", &messages.level.to_string()]);
            }
        }
        Workload::Idle { kind, .. } if kind.is_compressed() => {
            add(&["--compress", &DEFAULT_LEVEL.to_string()])
        }
        Workload::Idle { carrier, .. } => add(serve_over(carrier)),
        Workload::Stream(_) => add(&["--workload", "stream"]),
        Workload::Json(_) => add(&["--workload", "json"]),
        Workload::Broadcast { behavior, threads, .. } => {
            add(&["--threads", &threads.to_string(), "--workload", &name_of(behavior)]);
        }
        Workload::Handshakes | Workload::Client(_) => {}
    }
    if count_allocations {
        add(&["--count-allocations"]);
    }
    arguments
}

/// Returns the arguments of the load, which is the server if there is no address.
fn load_arguments(workload: Workload, address: Option<&str>) -> Vec<String> {
    let mut arguments = load_arguments_without_address(workload);
    if let Some(address) = address {
        arguments.extend(["--address", address].map(str::to_owned));
    }
    arguments
}

fn load_arguments_without_address(workload: Workload) -> Vec<String> {
    let numbers = |name: &str, connections: usize, size: usize| {
        let (connections, size) = (connections.to_string(), size.to_string());
        [name, "--connections", &connections, "--size", &size].map(str::to_owned).to_vec()
    };
    match workload {
        Workload::Echo(messages)
        | Workload::Stream(messages)
        | Workload::Json(messages)
        | Workload::Client(messages) => {
            let mut arguments = numbers("load", messages.connections, messages.size);
            arguments.extend(depth_and_kind(&messages));
            arguments.extend(load_over(messages.carrier));
            arguments
        }
        Workload::Handshakes => vec!["load-handshakes".to_owned()],
        Workload::Idle { connections, carrier, kind } => {
            let mut arguments = numbers("load-idle", connections, 4096);
            arguments.extend(["--kind".to_owned(), name_of(kind)]);
            arguments.extend(load_over(carrier));
            arguments
        }
        Workload::Broadcast { connections, size, behavior, .. } => {
            let mut arguments = numbers("load-broadcast", connections, size);
            arguments.extend(["--burst".to_owned(), behavior.messages().to_string()]);
            arguments.extend(["--kind".to_owned(), name_of(behavior.kind())]);
            match behavior {
                Behavior::Chat => arguments.push("--chat".to_owned()),
                Behavior::Rooms => arguments.push("--rooms".to_owned()),
                _ => {}
            }
            arguments
        }
    }
}

fn serve_over(carrier: Carrier) -> &'static [&'static str] {
    match carrier {
        Carrier::Tcp => &[],
        Carrier::Tls => &["--tls"],
        Carrier::Http2 { .. } => &["--http2"],
        Carrier::Http2OverTls { .. } => &["--http2", "--tls"],
        Carrier::Http3 { .. } => &["--http3"],
    }
}

fn load_over(carrier: Carrier) -> Vec<String> {
    match carrier {
        Carrier::Tcp => Vec::new(),
        Carrier::Tls => vec!["--tls".to_owned()],
        Carrier::Http2 { streams } => vec!["--streams".to_owned(), streams.to_string()],
        Carrier::Http2OverTls { streams } => {
            vec!["--streams".to_owned(), streams.to_string(), "--tls".to_owned()]
        }
        Carrier::Http3 { streams } => {
            vec!["--streams".to_owned(), streams.to_string(), "--http3".to_owned()]
        }
    }
}

fn connect_arguments(
    messages: &Messages,
    library: &str,
    address: &str,
    count_allocations: bool,
) -> Vec<String> {
    let connections = messages.connections.to_string();
    let mut arguments = ["connect", "--library", library, "--address", address].map(str::to_owned).to_vec();
    arguments.extend(["--connections", &connections].map(str::to_owned));
    if count_allocations {
        arguments.push("--count-allocations".to_owned());
    }
    arguments
}

fn depth_and_kind(messages: &Messages) -> Vec<String> {
    ["--depth", &messages.depth.to_string(), "--kind", &name_of(messages.kind)].map(str::to_owned).to_vec()
}

fn name_of(value: impl ValueEnum) -> String {
    value.to_possible_value().expect("no value is skipped").get_name().to_owned()
}
