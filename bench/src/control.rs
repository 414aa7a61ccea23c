//! The protocol between the measuring process and its child processes: a line on standard input, a line on
//! standard output.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::{allocations, process};

/// The time limit for an answer. No measurement takes nearly as long.
const PATIENCE: Duration = Duration::from_secs(300);

/// Writes a line to the measuring process.
pub fn say(line: impl std::fmt::Display) {
    println!("{line}");
    let _ = std::io::stdout().flush();
}

/// Waits for a line from the measuring process. Returns `None` at the end.
pub fn listen() -> Option<String> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).ok().filter(|count| *count > 0)?;
    Some(line.trim().to_owned())
}

/// Answers questions about the process until the measuring process ends, and then exits.
pub fn answer_in_background() {
    std::thread::spawn(|| {
        while let Some(line) = listen() {
            match line.split_once(' ') {
                None if line == "allocations" => say(allocations::count()),
                Some(("parts", connections)) => {
                    let sizes = allocations::held_by_each(connections.parse().unwrap_or(1));
                    say(sizes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" + "));
                }
                _ => break,
            }
        }
        std::process::exit(0);
    });
}

/// A child process that runs a part of a measurement. Dropping the handle kills the process.
pub struct Part {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Part {
    /// Starts this program as a child, on `cores` if given, and under another program if `under` names one.
    pub fn start(under: &[String], cores: &[usize], arguments: &[String]) -> Result<Self> {
        let program = std::env::current_exe()?;
        let mut command = match under {
            [] => Command::new(&program),
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(&program);
                command
            }
        };
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        if !under.is_empty() {
            command.stderr(Stdio::null());
        }
        // All parts use the system's allocator with its defaults.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"MALLOC_") {
                command.env_remove(name);
            }
        }
        let cores: Vec<_> = cores.iter().map(ToString::to_string).collect();
        command.env(process::CORES, cores.join(","));
        let mut child = command.spawn().with_context(|| format!("could not start {command:?}"))?;
        let input = child.stdin.take();
        let output = child.stdout.take().expect("it is piped");
        let (sender, lines) = channel();
        // A separate thread reads the lines, so that waiting for a line can time out.
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, input, lines })
    }

    pub fn ask(&mut self, line: &str) -> Result<String> {
        self.tell(line)?;
        self.hear()
    }

    pub fn tell(&mut self, line: &str) -> Result<()> {
        writeln!(self.input.as_mut().expect("it is open"), "{line}").context("a part has gone")
    }

    pub fn hear(&mut self) -> Result<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Ok(line.trim().to_owned()),
            Err(RecvTimeoutError::Timeout) => bail!("a part said nothing for {PATIENCE:?}"),
            Err(RecvTimeoutError::Disconnected) => bail!("a part ended: {}", self.child.wait()?),
        }
    }

    /// Returns the part's CPU time so far, in nanoseconds.
    pub fn cpu_time(&self) -> Result<u64> {
        process::cpu_time(self.child.id())
    }

    /// Returns the part's resident memory, in bytes.
    pub fn memory(&self) -> Result<u64> {
        process::memory(self.child.id())
    }

    /// Returns the number of files that the part has open.
    pub fn open_files(&self) -> Result<usize> {
        process::open_files(self.child.id())
    }

    /// Returns the peak of the part's resident memory, in bytes.
    pub fn peak_memory(&self) -> Result<u64> {
        process::peak_memory(self.child.id())
    }

    /// Closes the part's input and waits until the part exits.
    pub fn end(mut self) -> Result<()> {
        self.wait().map(drop)
    }

    /// Closes the part's input and waits until the part exits. Returns an error if the part fails.
    pub fn end_well(mut self) -> Result<()> {
        let status = self.wait()?;
        ensure!(status.success(), "a part ended: {status}");
        Ok(())
    }

    fn wait(&mut self) -> Result<ExitStatus> {
        drop(self.input.take());
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if began.elapsed() > PATIENCE {
                bail!("a part did not end for {PATIENCE:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
