//! A program that is started again whenever it ends.
//!
//! ```text
//!   Running --SIGKILL by `kill`, or its own end--> Ended --a few seconds--> Running
//! ```

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use crate::cluster::in_group;

/// The time for which a program that has ended stays away.
const AWAY: Duration = Duration::from_secs(3);

/// A program, and how it is started.
pub(crate) struct Program {
    pub(crate) name: String,
    /// The port at which it accepts connections.
    pub(crate) port: u16,
    pub(crate) log: PathBuf,
    executable: PathBuf,
    arguments: Vec<OsString>,
    /// The folder that contains what the program remembers.
    data: Option<PathBuf>,
}

/// A program that was started. Clones are handles of the same one.
#[derive(Clone)]
pub(crate) struct Running {
    pub(crate) name: String,
    orders: mpsc::UnboundedSender<Data>,
}

/// The fate of the data of a program that is killed.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Data {
    #[default]
    Kept,
    Lost,
}

/// The state of a program, as the page shows it.
#[derive(Clone, PartialEq, Serialize)]
pub(crate) struct Status {
    name: String,
    /// The number of the process, or `None` while the program is away.
    pid: Option<u32>,
    /// The number of times that the program has ended.
    ends: u32,
}

impl Status {
    pub(crate) fn has_ended(&self) -> bool {
        self.ends > 0
    }
}

impl Program {
    pub(crate) fn new(
        name: &str,
        port: u16,
        folder: &Path,
        executable: impl Into<PathBuf>,
        arguments: impl IntoIterator<Item = impl Into<OsString>>,
    ) -> Self {
        let arguments = arguments.into_iter().map(Into::into).collect();
        let log = folder.join(format!("{name}.log"));
        Self { name: name.to_owned(), port, log, executable: executable.into(), arguments, data: None }
    }

    /// Names the folder that contains what the program remembers.
    pub(crate) fn data(mut self, folder: PathBuf) -> Self {
        self.data = Some(folder);
        self
    }

    /// Starts the program in a process group.
    pub(crate) fn start(self, group: i32, board: &watch::Sender<Vec<Status>>) -> io::Result<Running> {
        let child = self.spawn(group)?;
        let index = board.borrow().len();
        board.send_modify(|board| {
            board.push(Status { name: self.name.clone(), pid: child.id(), ends: 0 });
        });
        let (orders, receiver) = mpsc::unbounded_channel();
        let running = Running { name: self.name.clone(), orders };
        let board = board.clone();
        let show = move |pid: Option<u32>| {
            board.send_modify(|board| {
                board[index].ends += u32::from(pid.is_none());
                board[index].pid = pid;
            });
        };
        tokio::spawn(self.keep_running(group, child, receiver, show));
        Ok(running)
    }

    async fn keep_running(
        self,
        group: i32,
        mut child: Child,
        mut orders: mpsc::UnboundedReceiver<Data>,
        show: impl Fn(Option<u32>),
    ) {
        loop {
            let data = tokio::select! {
                _ = child.wait() => Data::Kept,
                order = orders.recv() => {
                    // On Unix, this is SIGKILL. The process may have ended just now.
                    let _ = child.kill().await;
                    // Without a handle, this program ends as well.
                    let Some(data) = order else { return };
                    data
                }
            };
            show(None);
            if let (Data::Lost, Some(folder)) = (data, &self.data) {
                self.forget(folder);
            }
            child = loop {
                sleep(AWAY).await;
                match self.spawn(group) {
                    Ok(child) => break child,
                    Err(error) => eprintln!("{} can't be started: {error}", self.name),
                }
            };
            show(child.id());
            // A program that was away can't be killed.
            while orders.try_recv().is_ok() {}
        }
    }

    fn spawn(&self, group: i32) -> io::Result<Child> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        in_group(&mut Command::new(&self.executable), group)?
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
    }

    fn forget(&self, folder: &Path) {
        let forgotten = std::fs::remove_dir_all(folder).and_then(|()| std::fs::create_dir(folder));
        if let Err(error) = forgotten {
            eprintln!("the data of {} can't be removed: {error}", self.name);
        }
    }
}

impl Running {
    /// Ends the program with SIGKILL.
    pub(crate) fn kill(&self, data: Data) {
        // Without its task, the program has ended with this one.
        let _ = self.orders.send(data);
    }
}
