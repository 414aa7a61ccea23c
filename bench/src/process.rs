//! Figures of the operating system about a process.

use std::fs;

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The environment variable with the cores that a part must stay on.
pub const CORES: &str = "BOWLINE_BENCH_CORES";

/// Returns the usable cores.
pub fn cores() -> Vec<usize> {
    let set = sched_getaffinity(None).expect("the kernel tells which cores a process may use");
    (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect()
}

/// Pins this process to the cores that the measuring process has chosen.
pub fn stay_on_cores() {
    let Ok(cores) = std::env::var(CORES) else { return };
    let cores: Vec<usize> = cores.split(',').filter_map(|core| core.parse().ok()).collect();
    if cores.is_empty() {
        return;
    }
    let mut set = CpuSet::new();
    for core in cores {
        set.set(core);
    }
    sched_setaffinity(None, &set).expect("the cores exist");
}

/// Raises the limit of open files of this process to `files`. Child processes inherit the limit.
pub fn allow_files(count: u64) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= count) {
        return Ok(());
    }
    ensure!(
        limit.maximum.is_none_or(|maximum| maximum >= count),
        "{count} open files are needed, but only {:?} are allowed: see `ulimit -n`",
        limit.maximum
    );
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    Ok(())
}

/// Returns the CPU time of all threads of a process, in nanoseconds.
pub fn cpu_time(pid: u32) -> Result<u64> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        total += text.split(' ').next().context("schedstat is empty")?.parse::<u64>()?;
    }
    Ok(total)
}

/// Returns the resident memory of a process, in bytes.
pub fn memory(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages: u64 = text.split(' ').nth(1).context("statm is short")?.parse()?;
    Ok(pages * rustix::param::page_size() as u64)
}

/// Returns the peak of a process's resident memory, in bytes.
pub fn peak_memory(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("status has no VmHWM")?;
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kibibytes * 1024)
}

/// Returns the number of files that a process has open.
pub fn open_files(pid: u32) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// Returns the largest number of files that this process may open.
pub fn most_files() -> u64 {
    getrlimit(Resource::Nofile).maximum.unwrap_or(1 << 20)
}
