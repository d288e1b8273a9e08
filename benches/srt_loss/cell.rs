//! One cell of the table: a network and a latency, what each part made of them, and whether that is enough.

use std::fmt;

use serde::Serialize;

use crate::Result;
use crate::run::Part;

/// A network and a latency.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Cell {
    /// Percent of the datagrams of each direction.
    pub(crate) loss: f64,
    /// Milliseconds, at most.
    pub(crate) jitter: u64,
    /// Milliseconds.
    pub(crate) latency: u64,
    /// Milliseconds.
    pub(crate) rtt: u64,
}

/// What one part did in all runs of a cell.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Tally {
    /// Who sent and received.
    pub(crate) part: Part,
    /// Datagrams that should have come out.
    pub(crate) expected: u64,
    /// Those that did not.
    pub(crate) missing: u64,
    /// Data packets that said that they were sent again.
    pub(crate) repeats: u64,
    /// Data packets that the network lost, repeats included.
    pub(crate) lost: u64,
    /// The latest that the proxy was, in milliseconds.
    pub(crate) disturbed_ms: f64,
}

struct Verdict {
    /// What is asked.
    text: String,
    reached: bool,
}

impl Cell {
    /// What one part must reach, given what libsrt reached with itself.
    fn judge(&self, tally: &Tally, reference: &Tally) -> Vec<Verdict> {
        let libsrt = reference.missing as f64;
        let allowed = libsrt + (2.0 * libsrt.sqrt()).max(3.0);
        let mut verdicts = vec![Verdict {
            text: format!("missing {} ≤ {allowed:.1}", tally.missing),
            reached: tally.missing as f64 <= allowed,
        }];
        if self.loss == 5.0 && self.latency == 250 {
            verdicts.push(Verdict { text: "none missing".into(), reached: tally.missing == 0 });
        }
        let (name, base, factor) = match self.jitter {
            0 => ("lost", tally.lost, 1.3),
            _ => ("libsrt's", reference.repeats, 1.2),
        };
        let ratio = tally.repeats as f64 / base.max(1) as f64;
        verdicts.push(Verdict {
            text: format!("repeats {ratio:.2} ≤ {factor} × {name}"),
            reached: ratio <= factor,
        });
        verdicts
    }
}

/// Prints a line for each part of each cell.
pub(crate) fn print_table(cells: &[(Cell, Vec<Tally>)]) {
    println!(
        "\n| network, latency | part | expected | missing | repeats | lost | proxy at most late ms | verdict |"
    );
    println!("|{}", "---|".repeat(8));
    let (mut reached, mut asked) = (0, 0);
    for (cell, tallies) in cells {
        let reference = tallies.iter().find(|tally| tally.part == Part::Reference);
        for tally in tallies {
            let verdicts = match reference {
                Some(reference) if tally.part != Part::Reference => cell.judge(tally, reference),
                _ => Vec::new(),
            };
            asked += verdicts.len();
            reached += verdicts.iter().filter(|verdict| verdict.reached).count();
            let text: Vec<String> = verdicts
                .iter()
                .map(|Verdict { text, reached }| {
                    format!("{text}: {}", if *reached { "reached" } else { "NOT REACHED" })
                })
                .collect();
            let Tally { part, expected, missing, repeats, lost, disturbed_ms } = tally;
            println!(
                "| {cell} | {part} | {expected} | {missing} | {repeats} | {lost} | {disturbed_ms:.1} | {} |",
                text.join("; ")
            );
        }
    }
    println!("\n{reached} of {asked} targets reached");
}

/// Prints the same for programs: one JSON object per line.
pub(crate) fn print_rows(cells: &[(Cell, Vec<Tally>)]) -> Result<()> {
    #[derive(Serialize)]
    struct Row<'a> {
        #[serde(flatten)]
        cell: &'a Cell,
        #[serde(flatten)]
        tally: &'a Tally,
    }
    println!();
    for (cell, tallies) in cells {
        for tally in tallies {
            println!("{}", serde_json::to_string(&Row { cell, tally })?);
        }
    }
    Ok(())
}

impl fmt::Display for Cell {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { loss, jitter, latency, rtt } = self;
        write!(formatter, "loss {loss} %, RTT {rtt} ms, jitter {jitter} ms, latency {latency} ms")
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { part, expected, missing, repeats, lost, .. } = self;
        write!(formatter, "{part}: {missing} of {expected} missing, {repeats} repeats, {lost} lost")
    }
}
