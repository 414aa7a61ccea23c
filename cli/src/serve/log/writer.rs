//! A thread that writes lines to stderr, so that connections never wait for whoever reads stderr.

use std::io::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

/// The number of lines that wait for stderr. Later lines are counted instead.
const WAITING: usize = 1024;

/// The time that the end of the program waits for stderr.
const PATIENCE: Duration = Duration::from_millis(500);

/// The number of lines that were left out since the last one that was written.
static LEFT_OUT: AtomicU64 = AtomicU64::new(0);

enum Entry {
    Line(String),
    /// Tells that all lines before were written.
    Written(SyncSender<()>),
}

/// Prints a line, or counts the line if too many others wait for stderr.
pub(super) fn line(text: &str) {
    if entries().try_send(Entry::Line(text.to_owned())).is_err() {
        LEFT_OUT.fetch_add(1, Ordering::Relaxed);
    }
}

/// Waits until the lines were written, unless nobody reads stderr.
pub(super) fn finish() {
    let (written, waiting) = sync_channel(1);
    if entries().try_send(Entry::Written(written)).is_ok() {
        let _ = waiting.recv_timeout(PATIENCE);
    }
}

fn entries() -> &'static SyncSender<Entry> {
    static ENTRIES: OnceLock<SyncSender<Entry>> = OnceLock::new();
    ENTRIES.get_or_init(|| {
        let (sender, receiver) = sync_channel(WAITING);
        thread::spawn(move || write(&receiver));
        sender
    })
}

fn write(entries: &Receiver<Entry>) {
    for entry in entries {
        match entry {
            // Nothing can be done about a stderr that can't be written.
            Entry::Line(text) => {
                let _ = writeln!(anstream::stderr(), "{text}");
                let count = LEFT_OUT.swap(0, Ordering::Relaxed);
                if count > 0 {
                    let _ = writeln!(anstream::stderr(), "({count} lines left out: stderr was full)");
                }
            }
            Entry::Written(written) => drop(written.send(())),
        }
    }
}
