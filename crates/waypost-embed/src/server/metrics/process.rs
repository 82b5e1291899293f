//! The process as a whole, under the names that every exporter uses. What the system does not tell is left out.

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::time::TimeValLike as _;

/// What the system says of this process.
#[derive(Debug)]
pub(super) struct Process {
    /// Of the processor, in user and system.
    pub(super) cpu_seconds: Option<f64>,
    pub(super) resident_bytes: Option<u64>,
    pub(super) open_files: Option<u64>,
    pub(super) max_files: Option<u64>,
}

// === impl Process ===

impl Process {
    pub(super) fn look() -> Self {
        let cpu_seconds = getrusage(UsageWho::RUSAGE_SELF).ok().map(|usage| {
            let time = usage.user_time() + usage.system_time();
            let micros = u64::try_from(time.num_microseconds()).unwrap_or(0);
            std::time::Duration::from_micros(micros).as_secs_f64()
        });
        Self {
            cpu_seconds,
            resident_bytes: resident_bytes(),
            open_files: std::fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as u64),
            max_files: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft),
        }
    }
}

/// `VmRSS:     1234 kB`
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
