//! Every measure that the engine must reach, and the runs that show it.

use crate::plan::{Against, Options, Pace, Pattern, SinkKind};
use crate::report::{self, Outcome};
use crate::srt::{Part, Receivers, Srt};
use crate::tcp::{Protocol, Tcp};

/// A run and what it must reach.
pub(crate) struct Case {
    /// What to run.
    pub(crate) options: Options,
    /// What the row must reach.
    pub(crate) targets: Vec<Target>,
}

/// One figure with its bound.
pub(crate) struct Target {
    figure: Figure,
    bound: Bound,
}

#[derive(Clone, Copy)]
enum Figure {
    Ratio,
    Lost,
    Delivered,
    AddedP99,
    AddedP99LessControl,
    /// Megabytes beyond the ring and 4 kB per output.
    BaseMemory,
    GapP99,
    Changed,
    MissingSequences,
    MemoryPerOutput,
    CallsPerPacket,
    DialIn,
    FirstMedia,
}

#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}
use Bound::{AtLeast, AtMost};

/// All runs, in the order of the table that they fill.
pub(crate) fn cases() -> Vec<Case> {
    let at_most = |figure, bound| Target { figure, bound: AtMost(bound) };
    let lossless = || at_most(Figure::Lost, 0.0);
    let mut cases = Vec::new();
    for (delay, bound) in [(0, 8.0), (10, 20.0), (20, 28.0)] {
        cases.push(Case { options: on_loopback(50, delay, Against::Ffmpeg), targets: vec![ratio(bound)] });
    }
    for (delay, bound) in [(0, 1.2), (10, 2.0), (20, 3.5)] {
        cases.push(Case { options: on_loopback(50, delay, Against::Gst), targets: vec![ratio(bound)] });
    }
    for (delay, bound, added) in [(0, 0.95, 2.5), (10, 2.2, 11.0), (20, 3.3, 21.0)] {
        let added = at_most(Figure::AddedP99LessControl, added);
        let options = into_black_hole(1000, delay, Some(Against::Sendto));
        cases.push(Case { options, targets: vec![ratio(bound), added] });
    }
    let bursty = Options { source: Pattern::Bursty, ..into_black_hole(1000, 10, Some(Against::Sendto)) };
    cases.push(Case { options: bursty, targets: vec![ratio(5.0)] });
    for (outputs, delay, bound) in [(2000, 10, 0.70), (4000, 20, 0.80)] {
        let options = into_black_hole(outputs, delay, Some(Against::Limit));
        cases.push(Case { options, targets: vec![ratio(bound)] });
    }
    let options = Options { against: None, seconds: 15, ..on_loopback(1500, 10, Against::Sendto) };
    let added = at_most(Figure::AddedP99, 15.0);
    cases.push(Case { options, targets: vec![lossless(), added] });
    let options = Options { seconds: 15, ..into_black_hole(4000, 10, None) };
    let added = at_most(Figure::AddedP99, 15.0);
    let memory = at_most(Figure::BaseMemory, 25.0);
    cases.push(Case { options, targets: vec![lossless(), added, memory] });
    let options = Options { seconds: 15, ..into_black_hole(8000, 10, None) };
    let delivered = Target { figure: Figure::Delivered, bound: AtLeast(0.9999) };
    cases.push(Case { options, targets: vec![delivered, at_most(Figure::AddedP99, 40.0)] });
    for (delay, bound) in [(10, 1.7), (20, 2.1)] {
        let options = Options { inputs: 200, ..into_black_hole(200, delay, Some(Against::Tokio)) };
        cases.push(Case { options, targets: vec![ratio(bound)] });
    }
    let paced = Options {
        against: None,
        pace: Some(Pace::Pcr),
        source: Pattern::Bursty,
        seconds: 15,
        ..on_loopback(50, 10, Against::Sendto)
    };
    let gap = at_most(Figure::GapP99, NOMINAL_GAP + 3.0);
    cases.push(Case { options: paced, targets: vec![gap, at_most(Figure::Changed, 0.0)] });
    cases
}

/// All runs of SRT, in the order of their table.
pub(crate) fn srt_cases() -> Vec<Case> {
    let at_most = |figure, bound| Target { figure, bound: AtMost(bound) };
    let lossless = || [at_most(Figure::Lost, 0.0), at_most(Figure::MissingSequences, 0.0)];
    let calls = || at_most(Figure::CallsPerPacket, 0.05);
    let mut cases = Vec::new();
    for (aes, bound) in [(None, 2.85), (Some(128), 5.0)] {
        let options = over_srt(100, Some(Against::LibsrtShared), Srt { aes, ..pushing() });
        let memory = at_most(Figure::MemoryPerOutput, 8192.0);
        cases.push(Case {
            options,
            targets: [ratio(bound), memory, calls()].into_iter().chain(lossless()).collect(),
        });
    }
    for (against, bound) in [(Against::Libsrt, 10.0), (Against::SrtTokio, 3.3), (Against::Ffmpeg, 8.0)] {
        cases.push(Case { options: over_srt(50, Some(against), pushing()), targets: vec![ratio(bound)] });
    }
    let options = over_srt(200, Some(Against::Mediamtx), pushing());
    cases.push(Case { options, targets: vec![ratio(3.3)] });
    let options = over_srt(50, Some(Against::Mediamtx), serving(0));
    cases.push(Case { options, targets: [ratio(5.0)].into_iter().chain(lossless()).collect() });
    let options = over_srt(500, Some(Against::Push), serving(0));
    cases.push(Case { options, targets: [ratio(1.0 / 1.2)].into_iter().chain(lossless()).collect() });
    for outputs in [600, 1000] {
        let options = Options { seconds: 60, ..over_srt(outputs, None, pushing()) };
        let memory = at_most(Figure::MemoryPerOutput, 8192.0);
        cases.push(Case { options, targets: [memory, calls()].into_iter().chain(lossless()).collect() });
    }
    let options = over_srt(50, None, serving(500));
    let dial_in = at_most(Figure::DialIn, 5.0);
    cases.push(Case { options, targets: [dial_in].into_iter().chain(lossless()).collect() });
    cases
}

/// All runs of RTMP, in the order of their table.
pub(crate) fn rtmp_cases() -> Vec<Case> {
    let mut cases = over_tcp(Protocol::Rtmp);
    for outputs in [50, 300] {
        for (delay, bound) in [(20, 1.0), (40, 1.3)] {
            let options = Options { delay, ..tcp_run(Protocol::Rtmp, outputs, Some(Against::Nginx)) };
            cases.push(Case { options, targets: with_lossless(vec![ratio(bound)]) });
        }
    }
    cases
}

/// All runs of RTSP outputs that dial, in the order of their table.
pub(crate) fn rtsp_push_cases() -> Vec<Case> {
    over_tcp(Protocol::RtspPush)
}

/// All runs of RTSP readers that dial in, in the order of their table.
pub(crate) fn rtsp_serve_cases() -> Vec<Case> {
    let mut cases = over_tcp(Protocol::RtspServe);
    for outputs in [50, 200] {
        let options = tcp_run(Protocol::RtspServe, outputs, Some(Against::Mediamtx));
        cases.push(Case { options, targets: with_lossless(vec![ratio(4.0)]) });
    }
    for (delay, bound) in [(10, 1.2), (20, 1.6)] {
        let tcp = Some(Tcp { protocol: Protocol::RtspServe, tls: false, stalled: 0, udp: true });
        let options = Options { tcp, delay, ..tcp_run(Protocol::RtspServe, 200, Some(Against::Push)) };
        cases.push(Case { options, targets: with_lossless(vec![ratio(1.0 / bound)]) });
    }
    cases
}

/// What all outputs over connections must reach: beside the floor, beside what users have, over TLS, and many of them while
/// some take nothing.
fn over_tcp(protocol: Protocol) -> Vec<Case> {
    let serves = protocol == Protocol::RtspServe;
    let at_most = |figure, bound| Target { figure, bound: AtMost(bound) };
    let run = |outputs, against| tcp_run(protocol, outputs, against);
    let floor = if protocol == Protocol::Rtmp { 0.8 } else { 0.62 };
    let mut targets = with_lossless(vec![ratio(floor), at_most(Figure::MemoryPerOutput, 20_000.0)]);
    if !serves {
        targets.push(at_most(Figure::FirstMedia, 300.0));
    }
    let mut cases = vec![Case { options: run(300, Some(Against::Send)), targets }];
    if !serves {
        for outputs in [50, 300] {
            let options = run(outputs, Some(Against::Mediamtx));
            cases.push(Case { options, targets: with_lossless(vec![ratio(5.0)]) });
        }
        for (delay, bound) in [(20, 12.0), (0, 6.0)] {
            let options = Options { delay, ..run(50, Some(Against::Ffmpeg)) };
            cases.push(Case { options, targets: with_lossless(vec![ratio(bound)]) });
        }
    }
    let tls = Some(Tcp { protocol, tls: true, stalled: 0, udp: false });
    let options = Options { tcp: tls, ..run(50, Some(Against::Plain)) };
    let memory = at_most(Figure::MemoryPerOutput, 64_000.0);
    cases.push(Case { options, targets: with_lossless(vec![ratio(1.0 / 1.7), memory]) });
    let stalled = Some(Tcp { protocol, tls: false, stalled: 10, udp: false });
    let options = Options { tcp: stalled, shards: 2, ..run(if serves { 1000 } else { 500 }, None) };
    cases.push(Case { options, targets: with_lossless(Vec::new()) });
    cases
}

fn ratio(bound: f64) -> Target {
    Target { figure: Figure::Ratio, bound: AtLeast(bound) }
}

fn with_lossless(targets: Vec<Target>) -> Vec<Target> {
    let none = |figure| Target { figure, bound: AtMost(0.0) };
    targets.into_iter().chain([none(Figure::Lost), none(Figure::Changed)]).collect()
}

fn tcp_run(protocol: Protocol, outputs: usize, against: Option<Against>) -> Options {
    let tcp = Some(Tcp { protocol, tls: false, stalled: 0, udp: false });
    Options { sink: SinkKind::Lo, tcp, ..into_black_hole(outputs, 20, against) }
}

/// Prints each target with its verdict.
pub(crate) fn print_verdicts(verdicts: &[(String, bool)]) {
    println!("\n| target | verdict |\n|---|---|");
    for (text, reached) in verdicts {
        println!("| {text} | {} |", if *reached { "reached" } else { "NOT REACHED" });
    }
    let reached = verdicts.iter().filter(|(_, reached)| *reached).count();
    println!("\n{reached} of {} targets reached", verdicts.len());
}

impl Target {
    /// Says in words what was found, and whether it is enough.
    pub(crate) fn judge(&self, outcome: &Outcome) -> (String, bool) {
        let row = &outcome.row;
        let (name, found, digits) = match self.figure {
            Figure::Ratio => ("ratio", row.ratio, 2),
            Figure::Lost => ("lost", Some(row.lost_packets as f64), 0),
            Figure::Delivered => ("delivered fraction", Some(row.delivered_fraction), 6),
            Figure::AddedP99 => ("added p99 ms", row.added_delay_ms_p99, 2),
            Figure::AddedP99LessControl => {
                let less = row.added_delay_ms_p99.zip(outcome.control_ms_p99);
                ("added p99 less control ms", less.map(|(added, control)| added - control), 2)
            }
            Figure::BaseMemory => {
                let spare = outcome.ring_bytes + row.outputs as f64 * 4000.0;
                ("MB beyond ring and 4 kB per output", Some((row.rss_bytes as f64 - spare) / 1e6), 1)
            }
            Figure::GapP99 => ("inter-arrival p99 ms", outcome.gap_ms_p99, 2),
            Figure::Changed => ("changed", Some(outcome.changed as f64), 0),
            Figure::MissingSequences => ("gaps", row.missing_sequences.map(|gaps| gaps as f64), 0),
            Figure::MemoryPerOutput => ("bytes per output", row.rss_bytes_per_output, 0),
            Figure::CallsPerPacket => ("system calls per packet", row.syscalls_per_packet, 4),
            Figure::FirstMedia => ("ms from request to first media", row.first_media_ms, 0),
            Figure::DialIn => ("seconds until all latecomers are in", row.dial_in_s, 2),
        };
        let (sign, bound, reached) = match self.bound {
            AtLeast(bound) => ('≥', bound, found.is_some_and(|found| found >= bound)),
            AtMost(bound) => ('≤', bound, found.is_some_and(|found| found <= bound)),
        };
        let against = row.against.as_deref().map(|name| format!(" against {name}")).unwrap_or_default();
        let streams = if row.inputs > 1 { format!(" from {} inputs", row.inputs) } else { String::new() };
        let found = report::show(found, digits);
        let protocol = match &row.role {
            Some(role) => format!(", srt {role}"),
            None if row.mode == "udp" => String::new(),
            None => format!(", {}{}", row.mode, if row.tls == Some(true) { " over TLS" } else { "" }),
        };
        let cipher = row.aes.map(|bits| format!(" aes-{bits}")).unwrap_or_default();
        let (outputs, delay, sink) = (row.outputs, row.delay_ms, &row.sink);
        let run = format!("{outputs} outputs{streams}{protocol}{cipher}, D={delay}, {sink}{against}");
        (format!("{run}: {name} {sign} {bound}, measured {found}"), reached)
    }
}

fn over_srt(outputs: usize, against: Option<Against>, srt: Srt) -> Options {
    Options { sink: SinkKind::Lo, srt: Some(srt), ..into_black_hole(outputs, 10, against) }
}

fn pushing() -> Srt {
    Srt { role: Part::Push, aes: None, dial_in: 0, latency: 120, receivers: Receivers::Mini }
}

fn serving(dial_in: usize) -> Srt {
    Srt { role: Part::Serve, dial_in, ..pushing() }
}

fn on_loopback(outputs: usize, delay: u64, against: Against) -> Options {
    Options { sink: SinkKind::Lo, ..into_black_hole(outputs, delay, Some(against)) }
}

fn into_black_hole(outputs: usize, delay: u64, against: Option<Against>) -> Options {
    Options {
        outputs,
        inputs: 1,
        delay,
        seconds: 20,
        shards: 1,
        against,
        source: Pattern::Cbr,
        stream_mbps: 4.0,
        sink: SinkKind::Ifb,
        pace: None,
        srt: None,
        tcp: None,
    }
}

/// Milliseconds between datagrams of a 4 Mb/s stream.
const NOMINAL_GAP: f64 = 2.632;
