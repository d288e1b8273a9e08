//! The machine under the benchmark: what it is, which of its CPUs are used, how busy they are.

use std::fs;

use crate::{Result, network, sys};

/// The CPUs that a run uses: no more than two.
pub(crate) struct Machine {
    cpus: Vec<usize>,
}

/// Time that passed on the CPUs in use, in clock ticks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticks {
    idle: u64,
    total: u64,
}

impl Machine {
    /// The first two CPUs that this process may use.
    pub(crate) fn new() -> Self {
        let mut cpus = sys::allowed_cpus();
        cpus.truncate(2);
        Self { cpus }
    }

    /// Where one measured thread runs: the engine with one shard, or a built-in reference.
    pub(crate) fn one(&self) -> &[usize] {
        &self.cpus[..1]
    }

    /// Where the source and the sink run.
    pub(crate) fn other(&self) -> &[usize] {
        &self.cpus[self.cpus.len() - 1..]
    }

    /// Where tools of users, an engine beside them, and an engine with several shards run.
    pub(crate) fn all(&self) -> &[usize] {
        &self.cpus
    }

    /// The time so far.
    pub(crate) fn ticks(&self) -> Result<Ticks> {
        let text = fs::read_to_string("/proc/stat")?;
        let mut ticks = Ticks { idle: 0, total: 0 };
        for line in text.lines() {
            let mut fields = line.split_whitespace();
            let number = fields.next().and_then(|name| name.strip_prefix("cpu")?.parse().ok());
            if number.is_some_and(|number| self.cpus.contains(&number)) {
                // user nice system idle iowait irq softirq steal (proc(5)).
                let times: Vec<u64> = fields.take(8).filter_map(|field| field.parse().ok()).collect();
                ticks.total += times.iter().sum::<u64>();
                ticks.idle += times.iter().skip(3).take(2).sum::<u64>();
            }
        }
        Ok(ticks)
    }

    /// One line that names the machine and the day.
    pub(crate) fn describe(&self) -> String {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let mut lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        let model =
            lines.find(|(key, _)| key.trim() == "model name").map_or("CPU unknown", |(_, name)| name.trim());
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let date = network::call("date", "-u +%Y-%m-%d").unwrap_or_default();
        let used = self.cpus.len();
        format!("{model}, {used} cores used, Linux {}, {}", kernel.trim(), date.trim())
    }
}

impl Ticks {
    /// The share of the time since `earlier` that the CPUs did nothing, 0 to 1.
    pub(crate) fn idle_since(self, earlier: Self) -> f64 {
        (self.idle - earlier.idle) as f64 / (self.total - earlier.total).max(1) as f64
    }
}
