//! How fast one core takes streams apart and puts them together: bytes enter, gigabytes a second leave, as a table for
//! people and as one JSON object per row for programs. Never touches the network.
#![allow(clippy::print_stderr, reason = "progress belongs on standard error, results on standard output")]

mod clip;
mod measure;
mod rtp;
mod ts;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::measure::{Row, print_rows, print_table};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A name of a row, what does it, and the rate that it must reach in MB/s (10^6).
type Case = (&'static str, fn(&clip::Clip) -> Result<f64>, f64);

/// Every row there is.
const CASES: &[Case] = &[
    ("ts demux", ts::demux, 1000.0),
    ("ts demux, small pictures", ts::demux_small, 1000.0),
    ("ts demux to PES packets", ts::demux_pes, 1000.0),
    ("ts mux", ts::mux, 500.0),
    ("ts mux, small pictures", ts::mux_small, 500.0),
    ("ts mux, constant rate", ts::mux_constant, 500.0),
    ("h264 depacketize", rtp::depacketize_h264, 500.0),
    ("h265 depacketize", rtp::depacketize_h265, 500.0),
];

/// How fast one core takes streams apart and puts them together.
#[derive(Parser)]
#[command(name = "media")]
struct Arguments {
    /// Only rows whose name contains this
    filter: Option<String>,
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
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("media: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let clip = clip::Clip::new()?;
    let wanted = |case: &&Case| arguments.filter.as_ref().is_none_or(|filter| case.0.contains(filter));
    let mut rows = Vec::new();
    for (name, measure, against) in CASES.iter().filter(wanted) {
        let value = measure(&clip)?;
        eprintln!("{name}: {value:.0} MB/s");
        rows.push(Row { name, value, unit: "MB/s", against: *against, ratio: value / against });
    }
    print_table(&rows);
    print_rows(&rows)
}
