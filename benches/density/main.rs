//! How many outputs one core carries, measured against what users have today and against what the kernel
//! allows.
//!
//! The program runs everything itself on at most two cores, in a network namespace of its own when it may:
//! the engine (the real binary), a source, a sink, and the other side of a comparison. Source, sink and the
//! built-in references are this program again in other roles ([`helper`]).
//!
//! ```text
//! source ──▶ engine ─────▶ sink (loopback: every output; black hole: 16 probes)
//!    ├─────▶ reference ──▶   "
//!    └───────control───────▶ "
//! ```
//!
//! A figure is CPU time per datagram and output, times the datagrams per second of the stream: the feed goes
//! to the engine and to the reference in turn, each turn is one slice, and the median of the ratios of
//! neighbouring slices counts, because the speed of a shared machine changes from minute to minute.
#![expect(
    clippy::disallowed_methods,
    reason = "its threads pace and measure by the real clock and serve nothing else"
)]
#![allow(clippy::print_stderr, reason = "progress belongs on standard error, results on standard output")]

mod conclusion;
mod engine;
mod helper;
mod histogram;
mod machine;
mod measure;
mod mediamtx;
mod network;
mod nginx;
mod peer;
mod picture;
mod plan;
mod reference;
mod report;
mod rounds;
mod rtmp_end;
mod rtsp_end;
mod sink;
mod source;
mod srt;
mod srt_peer;
mod srt_sink;
mod stream;
mod sys;
mod targets;
mod tcp;
mod tcp_floor;
mod tcp_sink;
mod units;

use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::machine::Machine;
use crate::network::Network;
use crate::plan::Options;
use crate::report::Outcome;
use crate::srt::Srt;
use crate::targets::Case;
use crate::tcp::{Protocol, Tcp};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// How many outputs one core carries. Without a mode: every row of the table of targets.
#[derive(Parser)]
#[command(name = "density")]
struct Arguments {
    #[command(subcommand)]
    mode: Option<Mode>,
    /// Given by cargo bench
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Mode {
    /// MPEG-TS over UDP
    Udp {
        #[command(flatten)]
        options: Options,
        /// Measure every row of the table of targets instead, with verdicts: about 15 minutes
        #[arg(long)]
        table: bool,
    },
    /// MPEG-TS over SRT
    Srt {
        #[command(flatten)]
        options: Options,
        #[command(flatten)]
        srt: Srt,
        /// Measure every row of the table of targets instead, with verdicts: about 20 minutes
        #[arg(long)]
        table: bool,
    },
    /// RTMP: outputs publish
    Rtmp(TcpArguments),
    /// RTSP over TCP: outputs record at servers
    RtspPush(TcpArguments),
    /// RTSP over TCP: readers of one output dial in
    RtspServe(TcpArguments),
    #[command(name = helper::ARGUMENT, hide = true)]
    Helper,
}

#[derive(Args)]
struct TcpArguments {
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    tcp: Tcp,
    /// Measure every row of the table of targets instead, with verdicts: about 15 minutes
    #[arg(long)]
    table: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.mode {
        Some(Mode::Helper) => helper::run(),
        Some(Mode::Udp { options, table: false }) => run_one(&options),
        Some(Mode::Udp { table: true, .. }) => run_table(targets::cases()),
        Some(Mode::Srt { options, srt, table: false }) => run_one(&Options { srt: Some(srt), ..options }),
        Some(Mode::Srt { table: true, .. }) => run_table(targets::srt_cases()),
        Some(Mode::Rtmp(tcp)) => run_tcp(tcp, Protocol::Rtmp, targets::rtmp_cases),
        Some(Mode::RtspPush(tcp)) => run_tcp(tcp, Protocol::RtspPush, targets::rtsp_push_cases),
        Some(Mode::RtspServe(tcp)) => run_tcp(tcp, Protocol::RtspServe, targets::rtsp_serve_cases),
        None if arguments.bench => {
            let udp_and_srt = targets::cases().into_iter().chain(targets::srt_cases());
            let tcp = targets::rtmp_cases().into_iter().chain(targets::rtsp_push_cases());
            run_table(udp_and_srt.chain(tcp).chain(targets::rtsp_serve_cases()).collect())
        }
        // `cargo test --all-targets` starts benchmarks without arguments.
        None => Arguments::command().print_help().map_err(Into::into),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("density: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run_tcp(arguments: TcpArguments, protocol: Protocol, cases: fn() -> Vec<Case>) -> Result<()> {
    let TcpArguments { options, tcp, table } = arguments;
    if table {
        return run_table(cases());
    }
    run_one(&Options { tcp: Some(Tcp { protocol, ..tcp }), ..options })
}

fn run_one(options: &Options) -> Result<()> {
    let (machine, network) = prepare()?;
    let outcome = [measure::run(options, &machine, network)?];
    report::print_table(&machine.describe(), &outcome);
    report::print_rows(&outcome)
}

fn run_table(cases: Vec<Case>) -> Result<()> {
    let (machine, network) = prepare()?;
    let started = sys::now();
    let (mut outcomes, mut verdicts): (Vec<Outcome>, Vec<_>) = (Vec::new(), Vec::new());
    for (number, case) in cases.iter().enumerate() {
        let mode = case.options.mode();
        eprintln!("row {} of {}: {mode} {}", number + 1, cases.len(), case.options);
        match measure::run(&case.options, &machine, network) {
            Ok(outcome) => {
                verdicts.extend(case.targets.iter().map(|target| target.judge(&outcome)));
                outcomes.push(outcome);
            }
            Err(error) => verdicts.push((format!("{}: could not be measured: {error}", case.options), false)),
        }
    }
    report::print_table(&machine.describe(), &outcomes);
    targets::print_verdicts(&verdicts);
    println!("total time {:.1} minutes", (sys::now() - started) as f64 / 60e9);
    report::print_rows(&outcomes)
}

/// Looks at the machine and moves into a namespace, before the first thread is started.
fn prepare() -> Result<(Machine, Network)> {
    sys::raise_open_files()?;
    let machine = Machine::new();
    let network = network::enter()?;
    eprintln!("{}", machine.describe());
    Ok((machine, network))
}
