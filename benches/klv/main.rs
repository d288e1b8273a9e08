//! How fast KLV is read: packets enter in memory, rates on one core leave, beside the rate of an independent decoder on
//! the same bytes; and how fast and at what cost it is found in transport streams, and how soon it is told. Prints a
//! table for people, then one JSON object for each row.
//!
//! The decoder beside is the PyPI package `stanag4609`, run by `python3` or by what `ORACLE_PYTHON` names; where it is
//! not installed, the table says so.
#![allow(clippy::print_stderr, reason = "progress belongs on standard error, results on standard output")]

#[path = "../density/sys.rs"]
#[expect(dead_code, reason = "the other benchmark uses more of it")]
mod sys;

mod flow;

use std::hint::black_box;
use std::io::Write as _;
use std::process::{Command, ExitCode, Stdio};

use clap::{CommandFactory, Parser};
use millrace::wire::klv::Packet;
use serde::Serialize;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The name of a row, and what measures it.
type Case = (&'static str, fn(f64) -> Result<Row>);

/// How fast KLV is read.
#[derive(Parser)]
#[command(name = "klv")]
struct Arguments {
    /// Seconds of CPU for each row; of time for each slice of a row that an engine takes part in
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Only rows whose name contains this
    filter: Option<String>,
    /// Given by cargo bench
    #[arg(long, hide = true)]
    bench: bool,
}

/// A row of the table.
#[derive(Serialize)]
struct Row {
    name: &'static str,
    value: f64,
    unit: &'static str,
    /// What it stands beside.
    against: Option<String>,
    /// Its value divided by the other's.
    ratio: Option<f64>,
    /// What it must reach.
    aim: &'static str,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if !arguments.bench {
        // `cargo test --all-targets` starts benchmarks without arguments.
        return Arguments::command().print_help().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    match run(&arguments) {
        Ok(rows) => {
            print(&rows);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("klv: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<Vec<Row>> {
    let cases: [Case; 5] = [
        ("klv decode", decode),
        ("klv to json", to_json),
        ("klv extract", extract),
        ("klv tap", tap),
        ("klv to websocket", to_websocket),
    ];
    let mut rows = Vec::new();
    for (name, measure) in cases {
        if arguments.filter.as_ref().is_none_or(|filter| name.contains(filter)) {
            eprintln!("{name} …");
            rows.push(measure(arguments.seconds)?);
        }
    }
    Ok(rows)
}

/// ST 0902 dynamic items: 19 of them.
fn sample() -> Result<Vec<u8>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/klv/DynamicOnlyMISMMSPacketData.bin");
    Ok(std::fs::read(path)?)
}

fn decode(seconds: f64) -> Result<Row> {
    let packet = sample()?;
    let heading = Packet::read(&packet).set.number(5).ok_or("the sample has no heading")?;
    let decode = rate(seconds, 1000, || {
        let packet = Packet::read(black_box(&packet));
        black_box(&packet);
    })?;
    eprintln!("stanag4609 …");
    let oracle = oracle(&packet, seconds, heading);
    if let Err(error) = &oracle {
        eprintln!(
            "SKIPPED: stanag4609 is not beside ({error}); pip install stanag4609, or set ORACLE_PYTHON"
        );
    }
    let oracle = oracle.ok();
    Ok(Row {
        name: "klv decode",
        value: decode,
        unit: "packets/s",
        ratio: oracle.as_ref().map(|(_, rate)| decode / rate),
        against: oracle.map(|(name, _)| name),
        aim: ">= 1,000,000 and 100 x",
    })
}

fn to_json(seconds: f64) -> Result<Row> {
    let packet = sample()?;
    let mut text = Vec::with_capacity(8 * 1024);
    let json = rate(seconds, 1000, || {
        text.clear();
        let packet = Packet::read(black_box(&packet));
        // writing to memory does not fail
        let _ = serde_json::to_writer(&mut text, &packet);
        black_box(&text);
    })?;
    let aim = ">= 300,000";
    Ok(Row { name: "klv to json", value: json, unit: "packets/s", against: None, ratio: None, aim })
}

fn extract(seconds: f64) -> Result<Row> {
    let (value, slowest) = flow::extract(seconds)?;
    let against = Some(format!("slowest: {slowest}"));
    Ok(Row { name: "klv extract", value, unit: "MB/s", against, ratio: None, aim: ">= 1000" })
}

fn tap(seconds: f64) -> Result<Row> {
    let value = flow::tap(seconds)?;
    let against = Some("the same engine without".to_owned());
    Ok(Row { name: "klv tap", value, unit: "% of a core", against, ratio: None, aim: "<= 0.3" })
}

fn to_websocket(seconds: f64) -> Result<Row> {
    let (value, direct) = flow::to_websocket(5.0 * seconds)?;
    let against = Some(format!("a plain socket: {direct:.3} ms"));
    Ok(Row { name: "klv to websocket", value, unit: "ms more, p99", against, ratio: None, aim: "<= 5" })
}

/// Runs per second of CPU time, so that what else the machine does counts little: the best of five slices.
fn rate(seconds: f64, batch: u64, mut work: impl FnMut()) -> Result<f64> {
    let mut best = 0.0_f64;
    for _ in 0..5 {
        let start = sys::cpu_time(std::process::id())?;
        let mut runs = 0_u64;
        let used = loop {
            (0..batch).for_each(|_| work());
            runs += batch;
            let used = (sys::cpu_time(std::process::id())? - start) as f64 / 1e9;
            if used >= seconds / 5.0 {
                break used;
            }
        };
        best = best.max(runs as f64 / used);
    }
    Ok(best)
}

/// Name and rate of the other decoder, which must find the same heading.
fn oracle(packet: &[u8], seconds: f64, heading: f64) -> Result<(String, f64)> {
    let python = std::env::var_os("ORACLE_PYTHON").unwrap_or_else(|| "python3".into());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/klv/oracle.py");
    let mut child = Command::new(python)
        .args([script, &seconds.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().ok_or("no pipe")?.write_all(packet)?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(text.lines().last().unwrap_or("it failed").to_owned().into());
    }
    let text = String::from_utf8(output.stdout)?;
    let [version, rate, found] = *text.split_whitespace().collect::<Vec<_>>() else {
        return Err(format!("it said {text:?}").into());
    };
    if found.parse::<f64>()? != heading {
        return Err(format!("it found a heading of {found}, not {heading}").into());
    }
    Ok((format!("stanag4609 {version}"), rate.parse()?))
}

fn print(rows: &[Row]) {
    println!("| row | value | unit | against | ratio | aim |");
    println!("|{}", "---|".repeat(6));
    for row in rows {
        let ratio = row.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.0}"));
        let against = row.against.as_deref().unwrap_or("-");
        let digits = if row.value < 100.0 { 3 } else { 0 };
        println!(
            "| {} | {:.digits$} | {} | {against} | {ratio} | {} |",
            row.name, row.value, row.unit, row.aim
        );
    }
    println!();
    for row in rows {
        println!("{}", serde_json::to_string(row).unwrap_or_default());
    }
}
