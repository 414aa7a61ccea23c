//! The process group of a program, with everything that the program has started in it.

/// A process group, which is killed when this value is dropped.
pub(crate) struct ProcessGroup(Option<u32>);

impl ProcessGroup {
    /// The group whose leader is the process with this id.
    pub(crate) fn of(leader: Option<u32>) -> Self {
        Self(leader)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        signal_group(self.0, signal);
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        self.signal(Signal::Kill);
    }
}

#[derive(Clone, Copy)]
pub(crate) enum Signal {
    Terminate,
    Kill,
}

#[cfg(unix)]
fn signal_group(leader: Option<u32>, signal: Signal) {
    use rustix::process::{Pid, Signal as Unix, kill_process_group};

    let signal = match signal {
        Signal::Terminate => Unix::TERM,
        Signal::Kill => Unix::KILL,
    };
    let group = leader.and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    if let Some(group) = group {
        // It may have ended in this moment.
        let _ = kill_process_group(group, signal);
    }
}

#[cfg(not(unix))]
fn signal_group(_: Option<u32>, _: Signal) {}
