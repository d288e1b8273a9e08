//! Work enters, how much of it one core does in a second leaves. Counts the time of the thread, not that of the wall:
//! others may use the machine, too.

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::Result;

/// One row. The names are a contract.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) name: &'static str,
    /// How fast it was.
    pub(crate) value: f64,
    /// In what.
    pub(crate) unit: &'static str,
    /// How fast it must be.
    pub(crate) against: f64,
    /// value ÷ against.
    pub(crate) ratio: f64,
}

/// Megabytes (10^6) that `work` does in a second of one core: the best of nine runs of at least 0.2 s, each call
/// telling how many bytes it did.
pub(crate) fn rate(mut work: impl FnMut() -> usize) -> f64 {
    let mut best = 0.0f64;
    for _ in 0..9 {
        let (start, mut bytes) = (seconds(), 0);
        while seconds() - start < 0.2 {
            bytes += work();
        }
        best = best.max(bytes as f64 / 1e6 / (seconds() - start));
    }
    best
}

/// Prints rows for people.
pub(crate) fn print_table(rows: &[Row]) {
    println!("| what | reached | must reach | ratio |\n|---|---|---|---|");
    for Row { name, value, unit, against, ratio } in rows {
        println!("| {name} | {value:.0} {unit} | {against:.0} {unit} | {ratio:.2} |");
    }
    println!();
}

/// Prints rows for programs.
pub(crate) fn print_rows(rows: &[Row]) -> Result<()> {
    for row in rows {
        println!("{}", serde_json::to_string(row)?);
    }
    Ok(())
}

fn seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
