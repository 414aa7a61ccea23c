//! bowline's server and its clients, each in a process of its own, and the server's footprint.

use std::time::Duration;

use anyhow::{Result, bail};

use super::clients::Totals;
use super::serve::Counts;
use crate::control::Part;
use crate::process;

/// The processes of the server and of the clients.
pub struct Sides {
    pub server: Part,
    pub clients: Part,
}

impl Sides {
    pub fn start(connections: usize, threads: usize, life: Duration, seed: u64) -> Result<Self> {
        process::allow_files(connections as u64 + 64)?;
        let part = |arguments: &[&str]| {
            let arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
            Part::start(&[], &process::cores(), &arguments)
        };
        let mut server = part(&["soak-serve", "--threads", &threads.to_string()])?;
        let address = server.hear()?;
        let mut clients = part(&[
            "soak-clients",
            "--address",
            &address,
            "--connections",
            &connections.to_string(),
            "--life",
            &life.as_secs().to_string(),
            "--seed",
            &seed.to_string(),
        ])?;
        clients.hear()?;
        Ok(Self { server, clients })
    }

    pub fn counts(&mut self) -> Result<Counts> {
        self.server.ask("counts")?.parse()
    }

    pub fn totals(&mut self) -> Result<Totals> {
        self.clients.ask("totals")?.parse()
    }

    pub fn footprint(&mut self) -> Result<Footprint> {
        Ok(Footprint {
            resident: self.server.memory()?,
            held: self.server.ask("held")?.parse()?,
            files: self.server.open_files()?,
        })
    }

    /// Shuts the server down, and expects it to close all connections in order. Returns how many connections
    /// ended with a closing handshake, and how many without.
    pub fn shut_down(&mut self) -> Result<(usize, usize)> {
        self.clients.tell("farewell")?;
        std::thread::sleep(Duration::from_secs(3));
        let ends = self.server.ask("shut down")?;
        self.clients.hear()?;
        let Some((closed, ended)) = ends.split_once(' ') else { bail!("the server says {ends:?}") };
        Ok((closed.parse()?, ended.parse()?))
    }
}

/// The memory and files of the server.
#[derive(Clone, Copy, Debug)]
pub struct Footprint {
    pub resident: u64,
    pub held: i64,
    pub files: usize,
}

impl Footprint {
    pub fn print(&self, when: &str) {
        let (resident, held) = (mebibytes(self.resident as f64), mebibytes(self.held as f64));
        println!("{when:<32} {resident:>8.1} MiB resident {held:>8.1} MiB of heap {:>6} files", self.files);
    }
}

pub fn mebibytes(bytes: f64) -> f64 {
    bytes / 1024.0 / 1024.0
}
