//! Counters of the kernel enter, the load of host and process leaves. Reads `/proc` only; what cannot be read is
//! unknown, never an error.

use std::fs::read_to_string;

use serde::Serialize;

/// How busy host and process are, in percent, to one decimal; `None` = unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Load {
    /// Of all processors.
    pub(super) cpu_percent: Option<f64>,
    /// Of the memory of the host that is not available.
    pub(super) memory_percent: Option<f64>,
    /// Of one processor, used by this process.
    pub(super) process_cpu_percent: Option<f64>,
    /// Resident memory of this process in bytes.
    pub(super) process_rss_bytes: Option<u64>,
}

/// Measures the processors between two readings.
#[derive(Debug, Default)]
pub(super) struct Meter {
    last: Option<Ticks>,
    load: Load,
}

impl Meter {
    /// A meter that begins to count now.
    pub(super) fn start() -> Self {
        Self {
            last: Ticks::now(),
            load: Load { cpu_percent: Some(0.0), process_cpu_percent: Some(0.0), ..Load::default() },
        }
    }

    /// The load since the last reading. Readings in quick succession give the same answer for the processors.
    pub(super) fn read(&mut self) -> Load {
        let now = Ticks::now();
        self.update(now);
        self.load.memory_percent =
            read_to_string("/proc/meminfo").ok().and_then(|text| memory_percent(&text));
        self.load.process_rss_bytes = read_to_string("/proc/self/status")
            .ok()
            .and_then(|text| Some(kilobytes(&text, "VmRSS:")? * 1024));
        self.load
    }

    fn update(&mut self, now: Option<Ticks>) {
        let (Some(then), Some(now)) = (self.last, now) else {
            (self.load.cpu_percent, self.load.process_cpu_percent) = (None, None);
            self.last = now;
            return;
        };
        let all = now.all.saturating_sub(then.all);
        if all < LEAST_TICKS * now.processors {
            return;
        }
        let share = |ticks: u64| ticks as f64 / all as f64;
        let idle = now.idle.saturating_sub(then.idle).min(all);
        let process = now.process.saturating_sub(then.process);
        self.load.cpu_percent = Some(percent(share(all - idle)));
        self.load.process_cpu_percent = Some(percent(share(process) * now.processors as f64));
        self.last = Some(now);
    }
}

/// Clock ticks since boot, summed over processors.
#[derive(Debug, Clone, Copy)]
struct Ticks {
    all: u64,
    idle: u64,
    process: u64,
    processors: u64,
}

impl Ticks {
    fn now() -> Option<Self> {
        Self::parse(&read_to_string("/proc/stat").ok()?, &read_to_string("/proc/self/stat").ok()?)
    }

    /// proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal (guest time is in user).
    /// proc_pid_stat(5): the name in parentheses may hold anything; utime and stime are the 12th and 13th behind it.
    fn parse(stat: &str, own: &str) -> Option<Self> {
        let cpus = stat.lines().take_while(|line| line.starts_with("cpu"));
        let total = stat.lines().next()?.strip_prefix("cpu ")?;
        let fields: Vec<u64> = total.split_whitespace().take(8).map_while(|f| f.parse().ok()).collect();
        let own: Vec<&str> = own.rsplit_once(')')?.1.split_whitespace().collect();
        let own = |index: usize| own.get(index)?.parse::<u64>().ok();
        Some(Self {
            all: fields.iter().sum(),
            idle: fields.get(3)? + fields.get(4)?,
            process: own(11)? + own(12)?,
            processors: cpus.count().saturating_sub(1).max(1) as u64,
        })
    }
}

fn memory_percent(meminfo: &str) -> Option<f64> {
    let total = kilobytes(meminfo, "MemTotal:")?;
    let available = kilobytes(meminfo, "MemAvailable:")?;
    (total > 0).then(|| percent(total.saturating_sub(available) as f64 / total as f64))
}

fn kilobytes(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

fn percent(share: f64) -> f64 {
    (share * 1000.0).round() / 10.0
}

/// A tenth of a second on each processor (USER_HZ is 100): less says nothing.
const LEAST_TICKS: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(busy: u64, idle: u64, process: u64) -> Option<Ticks> {
        let stat = format!("cpu  {busy} 0 0 {idle} 0 0 0 0 7 0\ncpu0 1 2\ncpu1 3 4\nintr 1 2\n");
        let own = format!("42 (a) b) S 1 1 1 0 -1 0 0 0 0 0 {process} 0 0 0");
        Ticks::parse(&stat, &own)
    }

    #[test]
    fn load_is_measured_between_readings() {
        let mut meter = Meter { last: ticks(1000, 1000, 50), load: Load::default() };
        meter.update(ticks(1050, 1150, 75));
        assert_eq!((meter.load.cpu_percent, meter.load.process_cpu_percent), (Some(25.0), Some(25.0)));
        meter.update(ticks(1060, 1150, 85));
        assert_eq!(meter.load.cpu_percent, Some(25.0), "too short a time changes nothing");
        meter.update(ticks(1250, 1150, 275));
        assert_eq!((meter.load.cpu_percent, meter.load.process_cpu_percent), (Some(100.0), Some(200.0)));
        meter.update(None);
        assert_eq!(meter.load.cpu_percent, None);
    }

    #[test]
    fn memory_is_what_is_not_available() {
        let text = "MemTotal:        1000 kB\nMemFree: 1 kB\nMemAvailable:     750 kB\n";
        assert_eq!(memory_percent(text), Some(25.0));
        assert_eq!(memory_percent("MemTotal: 0 kB\nMemAvailable: 0 kB\n"), None);
    }

    #[test]
    fn this_host_can_be_read() {
        let load = Meter::start().read();
        assert!(load.cpu_percent.is_some_and(|p| (0.0..=100.0).contains(&p)), "{load:?}");
        assert!(load.memory_percent.is_some_and(|p| (0.0..=100.0).contains(&p)), "{load:?}");
        assert!(load.process_rss_bytes.is_some_and(|b| b > 0), "{load:?}");
    }
}
