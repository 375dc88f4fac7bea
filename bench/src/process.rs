//! What Linux tells of a process: its CPU time, its memory, its sockets.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Nanoseconds of one tick of the clock in `/proc/PID/stat`. Linux has told all programs a hundredth of a second since
/// ever, whatever it counts by itself.
const TICK_NANOSECONDS: u64 = 10_000_000;

/// The CPU time of some processes up to an instant.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cpu {
    /// By process and thread: the time of living threads, in nanoseconds.
    threads: BTreeMap<(u32, u32), u64>,
    /// The time of all threads, of those that have ended too, in ticks.
    ticks: u64,
    processes: u64,
}

/// A process as it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// Memory that is resident, in KiB.
    pub(crate) resident_kib: u64,
    pub(crate) threads: u64,
    /// Open file descriptors.
    pub(crate) files: u64,
    /// Those of them that are sockets.
    pub(crate) sockets: u64,
}

/// A process and its children.
///
/// # Errors
/// When `/proc` cannot be read.
pub(crate) fn tree(root: u32) -> Result<Vec<u32>, String> {
    let mut all = vec![root];
    for entry in read_dir(Path::new("/proc"))? {
        let Some(id) = number(&entry) else { continue };
        // A process can end while it is looked at.
        let Ok(stat) = std::fs::read_to_string(entry.join("stat")) else { continue };
        if Stat::parse(&stat).is_some_and(|stat| stat.parent == root) {
            all.push(id);
        }
    }
    Ok(all)
}

/// The CPU time of processes until now.
///
/// # Errors
/// When one of them has ended.
pub(crate) fn cpu(processes: &[u32]) -> Result<Cpu, String> {
    let mut cpu = Cpu { processes: processes.len() as u64, ..Cpu::default() };
    for process in processes {
        let folder = folder(*process);
        let text = read(&folder.join("stat"))?;
        let stat = Stat::parse(&text).ok_or_else(|| format!("cannot be read: {text}"))?;
        cpu.ticks += stat.ticks;
        for task in read_dir(&folder.join("task"))? {
            let Some(thread) = number(&task) else { continue };
            let Ok(text) = std::fs::read_to_string(task.join("schedstat")) else { continue };
            let time = text.split(' ').next().and_then(|time| time.parse().ok());
            cpu.threads.insert((*process, thread), time.ok_or("this kernel keeps no times in schedstat")?);
        }
    }
    Ok(cpu)
}

impl Cpu {
    /// Nanoseconds since an earlier instant. Threads are counted to the nanosecond; the ticks tell what threads used
    /// that have ended since, and are believed where they say more than their own coarseness can explain.
    pub(crate) fn since(&self, earlier: &Self) -> u64 {
        let before = |thread| earlier.threads.get(thread).copied().unwrap_or_default();
        let by_threads = self.threads.iter().map(|(thread, time)| time.saturating_sub(before(thread))).sum::<u64>();
        let ticks = self.ticks.saturating_sub(earlier.ticks).saturating_sub(2 * self.processes);
        by_threads.max(ticks * TICK_NANOSECONDS)
    }
}

/// How some processes stand together. Pages that they share are counted for each.
///
/// # Errors
/// When one of them has ended.
pub(crate) fn state(processes: &[u32]) -> Result<State, String> {
    let mut state = State::default();
    for process in processes {
        let folder = folder(*process);
        let status = read(&folder.join("status"))?;
        state.resident_kib += status_number(&status, "VmRSS").unwrap_or_default();
        state.threads += status_number(&status, "Threads").unwrap_or_default();
        for file in read_dir(&folder.join("fd"))? {
            let Ok(target) = std::fs::read_link(file) else { continue };
            state.files += 1;
            state.sockets += u64::from(target.to_string_lossy().starts_with("socket:"));
        }
    }
    Ok(state)
}

/// How many files a process started from here may have open.
pub(crate) fn most_files() -> u64 {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    limits_number(&limits, "Max open files").unwrap_or(1024)
}

/// What is used of `/proc/PID/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    ticks: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The program's name stands in parentheses and may hold spaces and parentheses itself.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
        Some(Self { parent: fields.get(1)?.parse().ok()?, ticks: ticks(11)? + ticks(12)? })
    }
}

fn status_number(status: &str, name: &str) -> Option<u64> {
    let mut lines = status.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = lines.find(|(known, _)| *known == name)?;
    value.split_ascii_whitespace().next()?.parse().ok()
}

fn limits_number(limits: &str, name: &str) -> Option<u64> {
    limits.lines().find_map(|line| line.strip_prefix(name))?.split_ascii_whitespace().next()?.parse().ok()
}

fn folder(process: u32) -> PathBuf {
    Path::new("/proc").join(process.to_string())
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn read_dir(path: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = std::fs::read_dir(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

fn number(path: &Path) -> Option<u32> {
    path.file_name()?.to_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_program_may_hold_anything() {
        let text = "9238 (a b) S 1) S 77 9236 5869 0 -1 4194304 5543 126 0 1 45 3 0 0 20 0 1 0 1173569";
        assert_eq!(Stat::parse(text), Some(Stat { parent: 77, ticks: 48 }));
        assert_eq!(Stat::parse("9238 (short) S 77"), None);
    }

    #[test]
    fn numbers_are_found_by_their_name() {
        let status = "Name:\tfreeway\nVmHWM:\t  20000 kB\nVmRSS:\t   12288 kB\nThreads:\t3\n";
        assert_eq!(status_number(status, "VmRSS"), Some(12_288));
        assert_eq!(status_number(status, "Threads"), Some(3));
        assert_eq!(status_number(status, "VmSwap"), None);
        let limits = "Limit                     Soft Limit           Hard Limit           Units\nMax open files            20000                30000                files\n";
        assert_eq!(limits_number(limits, "Max open files"), Some(20_000));
    }

    #[test]
    fn time_of_threads_that_came_and_went_counts() {
        let cpu = |threads: &[(u32, u64)], ticks: u64| Cpu {
            threads: threads.iter().map(|(thread, time)| ((1, *thread), *time)).collect(),
            ticks,
            processes: 1,
        };
        let before = cpu(&[(1, 1_000), (2, 5_000_000)], 10);
        // To the nanosecond while the ticks agree, with a thread that is new and one that is gone.
        assert_eq!(cpu(&[(1, 3_000), (3, 500)], 12).since(&before), 2_500);
        // A thread that used 80 ms and is gone shows in the ticks.
        assert_eq!(cpu(&[(1, 3_000)], 20).since(&before), 80_000_000);
    }

    #[test]
    fn this_process_can_be_looked_at() {
        let own = std::process::id();
        assert!(tree(own).unwrap().contains(&own));
        let before = cpu(&[own]).unwrap();
        let state = state(&[own]).unwrap();
        assert!(state.resident_kib > 0 && state.threads > 0 && state.files >= state.sockets, "{state:?}");
        assert!(cpu(&[own]).unwrap().since(&before) < 60_000_000_000);
    }
}
