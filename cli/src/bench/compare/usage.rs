//! The processor time and the memory of a server, as the system reports them in /proc.

use std::fs;
use std::io;
use std::time::Duration;

/// The processor time and the memory of the processes of a group.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Usage {
    /// The time of the processors, with that of children that have ended.
    pub(super) cpu: Duration,
    /// The memory in bytes. Memory that processes share is divided among them.
    pub(super) memory: u64,
}

/// Adds up what the processes of a group have used, without the leader.
pub(super) fn of_group(leader: u32) -> io::Result<Usage> {
    let mut usage = Usage::default();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // A process may end at any time.
        let Ok(text) = fs::read_to_string(format!("/proc/{id}/stat")) else { continue };
        let Some(stat) = Stat::parse(&text) else { continue };
        if stat.group == leader && id != leader {
            usage.cpu += ticks(stat.ticks);
            usage.memory += memory(id).unwrap_or_default();
        }
    }
    if usage == Usage::default() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the server has no process any more"));
    }
    Ok(usage)
}

/// The fields of /proc/ID/stat that count: see proc(5).
#[derive(Debug, Eq, PartialEq)]
struct Stat {
    group: u32,
    /// The time in user mode and in the kernel, with that of children that were waited for.
    ticks: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The name of the program is in parentheses, and may contain some.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<_> = rest.split_whitespace().collect();
        let group = fields.get(2)?.parse().ok()?;
        let times = fields.get(11..15)?.iter().map(|field| field.parse::<u64>());
        Some(Self { group, ticks: times.sum::<Result<_, _>>().ok()? })
    }
}

/// The share of a process in the memory that is resident.
fn memory(id: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{id}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// The time of so many ticks of the system's clock.
fn ticks(count: u64) -> Duration {
    Duration::from_secs(count) / u32::try_from(ticks_per_second()).unwrap_or(100)
}

#[cfg(unix)]
fn ticks_per_second() -> u64 {
    rustix::param::clock_ticks_per_second()
}

#[cfg(not(unix))]
fn ticks_per_second() -> u64 {
    100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_may_have_any_name() {
        let text = "7 (a) S 9 (b) R 1 40 40 0 -1 4194304 1 2 3 4 10 20 300 400 20 0 1 0 5 6 7";
        assert_eq!(Stat::parse(text), Some(Stat { group: 40, ticks: 730 }));
        assert_eq!(Stat::parse("7 (a) S 1"), None);
    }

    #[test]
    fn ticks_are_parts_of_a_second() {
        assert_eq!(ticks(ticks_per_second() * 3), Duration::from_secs(3));
    }
}
