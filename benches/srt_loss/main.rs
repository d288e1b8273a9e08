//! What SRT brings through a bad network: streams enter at one end of a proxy that loses, delays and reorders, and are
//! counted behind the other end, after the time of delivery. Never measures CPU.
//!
//! ```text
//! feed ──udp──▶ sender ──srt──▶ proxy ──srt──▶ receiver ──udp──▶ count
//! ```
//!
//! Each cell of the table is a network and a latency. In it the engine sends to libsrt, libsrt sends to the engine, and
//! libsrt sends to libsrt, all at the same time and over networks of the same seeds; libsrt is srt-live-transmit. What
//! counts is what the engine loses against what libsrt loses.
#![expect(clippy::disallowed_methods, reason = "it measures in real time and serves nothing else")]
#![allow(clippy::print_stderr, reason = "progress belongs on standard error, results on standard output")]

mod cell;
mod count;
#[path = "../density/engine.rs"]
#[expect(dead_code, reason = "the other benchmark uses more of it")]
mod engine;
mod feed;
#[path = "../density/network.rs"]
#[expect(dead_code, reason = "the other benchmark uses more of it")]
mod network;
#[path = "../density/picture.rs"]
mod picture;
#[path = "../../tests/support/proxy.rs"]
#[expect(dead_code, reason = "tests use more of it")]
mod proxy;
mod run;
#[path = "../density/stream.rs"]
#[expect(dead_code, reason = "the other benchmark uses more of it")]
mod stream;
#[path = "../density/sys.rs"]
#[expect(dead_code, reason = "the other benchmark uses more of it")]
mod sys;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::cell::{Cell, Tally};
use crate::run::{Part, Plan};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What SRT brings through a bad network. Without options: the whole table, about 6 minutes.
#[derive(Parser)]
#[command(name = "srt_loss")]
struct Arguments {
    /// Chance of a datagram to be lost, in percent; may be given several times
    #[arg(long, default_values_t = [1.0, 5.0, 10.0])]
    loss: Vec<f64>,
    /// Jitter in milliseconds: up to so much is added to the delay of each datagram
    #[arg(long, default_values_t = [0, 5])]
    jitter: Vec<u64>,
    /// Latency in milliseconds
    #[arg(long, default_values_t = [120, 250])]
    latency: Vec<u64>,
    /// Round trip time in milliseconds
    #[arg(long, default_value_t = 40)]
    rtt: u64,
    /// Networks per cell, all different; the same in every cell
    #[arg(long, default_value_t = 5)]
    seeds: u64,
    /// Seconds that count in each run
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Who takes part; may be given several times. Without reference there are no verdicts
    #[arg(long, value_enum, default_values_t = Part::ALL)]
    part: Vec<Part>,
    /// Given by cargo bench
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if !arguments.bench {
        // `cargo test --all-targets` starts benchmarks without arguments.
        return Arguments::command().print_help().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    match measure(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("srt_loss: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Result<()> {
    sys::raise_open_files()?;
    network::enter()?;
    let Arguments { loss, jitter, latency, rtt, seeds, seconds, part, .. } = arguments;
    let mut tallies: Vec<(Cell, Vec<Tally>)> = Vec::new();
    for &latency in latency {
        for &jitter in jitter {
            for &loss in loss {
                let cell = Cell { loss, jitter, latency, rtt: *rtt };
                let plan = Plan { cell, seeds: *seeds, seconds: *seconds, parts: part.clone() };
                let tally = plan.run()?;
                tally.iter().for_each(|tally| eprintln!("{cell}: {tally}"));
                tallies.push((cell, tally));
            }
        }
    }
    cell::print_table(&tallies);
    cell::print_rows(&tallies)
}
