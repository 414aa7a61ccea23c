//! Measurements and limits of this process, as the operating system reports them.

use std::time::Duration;

use crate::connect::UsageError;

/// The descriptors that the process needs beside its connections.
const RESERVE: u64 = 64;

/// The time that the processors have spent on this process.
#[cfg(unix)]
pub(crate) fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.try_into().unwrap_or_default()
}

/// The time that the processors have spent on this process, which is not known here.
#[cfg(not(unix))]
pub(crate) fn cpu_time() -> Duration {
    Duration::ZERO
}

/// Raises the limit of open files as far as the system allows it without privileges.
#[cfg(unix)]
pub(crate) fn allow_connections(connections: u64) -> Result<(), UsageError> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Without it, the lower limit stays.
    let _ = setrlimit(Resource::Nofile, raised);
    let needed = connections.saturating_add(RESERVE);
    match getrlimit(Resource::Nofile).current {
        Some(allowed) if allowed < needed => Err(UsageError(format!(
            "--connections {connections} needs {needed} open files, but the system allows {allowed}: raise \
             the limit \
             (ulimit -Hn, LimitNOFILE= of systemd, --ulimit nofile= of docker)"
        ))),
        _ => Ok(()),
    }
}

/// Does nothing: this system has no limit of open files.
#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "the signature is that of Unix")]
pub(crate) fn allow_connections(_: u64) -> Result<(), UsageError> {
    Ok(())
}
