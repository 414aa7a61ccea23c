//! Shows whether NATS keeps what it has acknowledged when a stopped leader wakes, without any hub.
//!
//! ```sh
//! cargo run -p bowline-hub-nats --example stopped_leader -- 10
//! ```
//!
//! Three servers keep a stream with three replicas, and publishers note what is acknowledged. In each round,
//! one server after another is stopped (`SIGSTOP`), for up to twelve seconds, and continues. If that was the
//! leader of the stream, the others elect another one. No server is stopped before all replicas are current
//! again. Each message that was acknowledged must be in the stream in the end. The program prints those that
//! are not.
//!
//! With NATS 2.9.10, 2 of the first 4 rounds lost 49 and 215 messages. With NATS 2.15.1, none was lost.

use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// The ports of the clients, and of the routes between the servers.
const PORTS: [u16; 3] = [18_231, 18_232, 18_233];
const ROUTES: [u16; 3] = [18_241, 18_242, 18_243];
/// The time for an answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// The number of publishers, which publish to one server each.
const PUBLISHERS: usize = 6;
/// The number of servers that are stopped in a round.
const STOPS: u32 = 8;
/// The time within which the replicas must be current.
const SETTLED: Duration = Duration::from_secs(60);

/// The error code for a number without a message.
const NO_MESSAGE: u64 = 10037;

struct Cluster {
    servers: Vec<Child>,
    folder: TempDir,
}

impl Cluster {
    fn start() -> Outcome<Self> {
        let folder = TempDir::new()?;
        let mut cluster = Self { servers: Vec::new(), folder };
        let routes = ROUTES.map(|port| format!("nats://127.0.0.1:{port}"));
        for (number, (port, route)) in PORTS.into_iter().zip(ROUTES).enumerate() {
            let path = cluster.folder.path().join(format!("{number}.conf"));
            let store = cluster.folder.path().join(number.to_string());
            let config = format!(
                "listen: \"127.0.0.1:{port}\"\nserver_name: server{number}\n\
                 jetstream {{ store_dir: \"{}\" }}\n\
                 cluster {{ name: proof, listen: \"127.0.0.1:{route}\", routes: {routes:?} }}\n",
                store.display()
            );
            fs::write(&path, config)?;
            let mut command = Command::new("nats-server");
            command.arg("-c").arg(path).stdout(Stdio::null()).stderr(Stdio::null());
            cluster.servers.push(command.spawn()?);
        }
        Ok(cluster)
    }

    fn signal(&self, server: usize, signal: &str) -> Outcome<()> {
        Command::new("kill").args([signal, &self.servers[server].id().to_string()]).status()?;
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// A generator of random numbers (`SplitMix64`).
struct Random(u64);

impl Random {
    /// Returns a number below the bound.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);

        (mixed ^ (mixed >> 31)) % bound
    }
}

/// A client of one server, which connects again after an error.
struct Client {
    port: u16,
    connection: Option<BufReader<TcpStream>>,
}

impl Client {
    fn new(port: u16) -> Self {
        Self { port, connection: None }
    }

    /// Publishes a request, and returns the answer.
    fn ask(&mut self, subject: &str, payload: &str) -> Outcome<Value> {
        let answer = self.try_ask(subject, payload);
        if answer.is_err() {
            self.connection = None;
        }
        answer
    }

    fn try_ask(&mut self, subject: &str, payload: &str) -> Outcome<Value> {
        static REQUESTS: AtomicU64 = AtomicU64::new(0);
        let inbox = format!("answer.{}", REQUESTS.fetch_add(1, Ordering::Relaxed));
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(connect(self.port)?),
        };
        let operations =
            format!("SUB {inbox} 1\r\nUNSUB 1 1\r\nPUB {subject} {inbox} {}\r\n{payload}\r\n", payload.len());
        connection.get_mut().write_all(operations.as_bytes())?;
        let mut line = String::new();
        loop {
            line.clear();
            if connection.read_line(&mut line)? == 0 {
                return Err("the connection was lost".into());
            }
            if line.starts_with("PING") {
                connection.get_mut().write_all(b"PONG\r\n")?;
            } else if line.starts_with("MSG ") && line.contains(&inbox) {
                line.clear();
                connection.read_line(&mut line)?;
                return Ok(serde_json::from_str(&line)?);
            }
        }
    }
}

fn connect(port: u16) -> Outcome<BufReader<TcpStream>> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut connection = BufReader::new(stream);
    connection.read_line(&mut String::new())?;
    connection.get_mut().write_all(b"CONNECT {\"verbose\":false}\r\n")?;
    Ok(connection)
}

/// Asks any server.
fn ask(subject: &str, payload: &str) -> Outcome<Value> {
    let mut outcome = Err("there is no server".into());
    for port in PORTS {
        outcome = Client::new(port).ask(subject, payload);
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

/// Waits until the stream has a leader and two replicas that are current.
fn settle() -> Outcome<()> {
    let began = Instant::now();
    while began.elapsed() < SETTLED {
        let info = ask("$JS.API.STREAM.INFO.proof", "").unwrap_or_default();
        let replicas = info["cluster"]["replicas"].as_array().cloned().unwrap_or_default();
        let current = replicas.iter().filter(|replica| replica["current"] == true).count();
        if info["cluster"]["leader"].is_string() && current == 2 {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(200));
    }
    Err("the replicas don't become current".into())
}

/// Publishes numbered messages to a server. Returns those that were acknowledged, with the numbers that they
/// have in the stream.
fn publish(round: usize, publisher: usize, is_over: &AtomicBool) -> Vec<(u64, String)> {
    let mut client = Client::new(PORTS[publisher % PORTS.len()]);
    let mut acknowledged = Vec::new();
    for number in 0_u64.. {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let text = format!("{round} {publisher} {number}");
        let answer = client.ask("proof.messages", &text).unwrap_or_default();
        if let (Some(sequence), true) = (answer["seq"].as_u64(), answer["error"].is_null()) {
            acknowledged.push((sequence, text));
        }
        thread::sleep(Duration::from_millis(3));
    }
    acknowledged
}

/// Returns what the stream has at a number: a text, or that there is nothing.
fn stored(client: &mut Client, sequence: u64) -> Outcome<String> {
    let (request, began) = (json!({ "seq": sequence }).to_string(), Instant::now());
    loop {
        let answer = client.ask("$JS.API.STREAM.MSG.GET.proof", &request).unwrap_or_default();
        if let Some(data) = answer["message"]["data"].as_str() {
            return Ok(String::from_utf8(STANDARD.decode(data)?)?);
        }
        if answer["error"]["err_code"] == NO_MESSAGE {
            return Ok("nothing".to_owned());
        }
        if began.elapsed() > SETTLED {
            return Err("nobody reads the stream".into());
        }
        // For a moment, the stream has no leader.
        thread::sleep(Duration::from_millis(200));
    }
}

/// Returns the messages that are gone, with what is in their place.
fn gone(acknowledged: &[(u64, String)]) -> Outcome<Vec<(u64, &str, String)>> {
    let mut client = Client::new(PORTS[0]);
    let mut gone = Vec::new();
    for (sequence, text) in acknowledged {
        let stored = stored(&mut client, *sequence)?;
        if stored != *text {
            gone.push((*sequence, text.as_str(), stored));
        }
    }
    Ok(gone)
}

fn main() -> Outcome<()> {
    let rounds: usize = std::env::args().nth(1).map_or(Ok(10), |rounds| rounds.parse())?;
    let cluster = Cluster::start()?;
    let config = json!({ "name": "proof", "subjects": ["proof.>"], "storage": "file", "num_replicas": 3 });
    let began = Instant::now();
    while ask("$JS.API.STREAM.CREATE.proof", &config.to_string())
        .map_or(true, |info| info["config"].is_null())
    {
        if began.elapsed() > SETTLED {
            return Err("the stream is not created".into());
        }
        thread::sleep(Duration::from_millis(500));
    }
    let (mut lossy, mut random) = (0, Random(1));
    for round in 1..=rounds {
        settle()?;
        let is_over = AtomicBool::new(false);
        let acknowledged = thread::scope(|scope| {
            let is_over = &is_over;
            let publishers =
                (0..PUBLISHERS).map(|publisher| scope.spawn(move || publish(round, publisher, is_over)));
            let publishers: Vec<_> = publishers.collect();
            let mut mischief = || {
                for _ in 0..STOPS {
                    let server = [0, 1, 2][usize::try_from(random.below(3))?];
                    thread::sleep(Duration::from_millis(random.below(300)));
                    cluster.signal(server, "-STOP")?;
                    thread::sleep(Duration::from_millis(random.below(12_000)));
                    cluster.signal(server, "-CONT")?;
                    thread::sleep(Duration::from_millis(300));
                    settle()?;
                }
                Outcome::Ok(())
            };
            let settled = mischief();
            is_over.store(true, Ordering::Relaxed);
            let acknowledged =
                publishers.into_iter().map(|publisher| publisher.join().expect("a publisher ends"));
            let acknowledged: Vec<_> = acknowledged.flatten().collect();
            settled.map(|()| acknowledged)
        })?;
        settle()?;
        let gone = gone(&acknowledged)?;
        println!("round {round}: {} messages acknowledged, {} of them gone", acknowledged.len(), gone.len());
        lossy += usize::from(!gone.is_empty());
        for (sequence, text, stored) in gone.iter().take(3) {
            println!("  {text} was acknowledged with the number {sequence}, where now is {stored}");
        }
    }
    println!("{lossy} of {rounds} rounds lost messages that NATS had acknowledged");
    Ok(())
}
