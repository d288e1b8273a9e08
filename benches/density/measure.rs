//! One run: starts everything, feeds the engine and the other side in turn, and makes a row of it.

use std::fmt;
use std::thread;
use std::time::Duration;

use crate::engine::Engine;
use crate::helper::{Helper, Role};
use crate::histogram::Histogram;
use crate::machine::{Machine, Ticks};
use crate::network::{self, Network};
use crate::peer::Peer;
use crate::plan::{AGAINST_LO, Against, ENGINE_LO, Options, Pattern, RING_SECONDS, SinkKind};
use crate::report::{Outcome, Row};
use crate::sink::{Connections, Report};
use crate::source::Emitted;
use crate::srt::Receivers;
use crate::stream::{DATAGRAM, Stream};
use crate::{Result, reference, sink, source, srt_peer, srt_sink, sys};

/// Measures one row.
pub(crate) fn run(options: &Options, machine: &Machine, network: Network) -> Result<Outcome> {
    options.check()?;
    let mut notes = Vec::new();
    if options.sink == SinkKind::Ifb {
        notes.push(format!("ifb {}, {} probes", network::open_black_hole(network)?, options.seen().len()));
    }
    let mut feed = Feed::start(options, machine)?;
    let alone = feed.memory_of_one_output(options, machine)?;
    let engine = start_engine(options, options.total_outputs(), machine)?;
    let mut run = Run { options, machine, feed, engine, rival: Rival::None, notes };
    let started = run.warm_up()?;
    run.start_rival()?;
    let begun = run.begin()?;
    let pairs = run.rounds()?;
    let arrived = run.finish(&begun)?;
    run.conclude(&pairs, arrived, started as f64 - alone as f64)
}

/// The source and the sink.
struct Feed {
    source: Helper,
    sink: Helper,
}

struct Run<'a> {
    options: &'a Options,
    machine: &'a Machine,
    feed: Feed,
    engine: Engine,
    rival: Rival,
    notes: Vec<String>,
}

/// What arrived at the outputs that can be seen, against what was sent to the engine.
struct Delivery {
    report: Report,
    /// Datagrams that should have arrived.
    expected: u64,
    /// Datagrams that did not, at sockets of the sink that had room.
    lost: u64,
    /// System calls per datagram of an output.
    calls: Option<f64>,
}

/// Whose turn it is.
#[derive(Clone, Copy, PartialEq)]
enum Turn {
    Engine,
    /// Both sides, each fed its own stream.
    Both,
    Rival {
        /// The engine's mean batch in the turn before.
        batch: f64,
    },
}

/// The other side of the comparison.
enum Rival {
    None,
    /// Copies the same streams.
    Copier(Helper),
    /// Sends without a stream.
    Limit(Helper),
    /// A tool of a user.
    Peer(Peer),
}

/// What the engine did in one slice.
struct Slice {
    load: Load,
    /// What arrived from it meanwhile.
    delay: Histogram,
    control: Histogram,
    gap: Histogram,
    /// Datagrams per delivery.
    batch: f64,
}

/// What one side cost in one slice.
struct Load {
    /// CPU milliseconds per second and output at the stream's rate: CPU time per datagram, times rate.
    cost: f64,
    /// CPU seconds per second.
    cores: f64,
    /// Share of the machine that was idle, 0 to 1.
    idle: f64,
}

/// A slice of the engine and the slice of the other side that goes with it.
struct Pair {
    engine: Slice,
    rival: Option<Load>,
}

/// Counters at one moment.
struct Moment {
    at: u64,
    engine: Work,
    rival: Work,
    ticks: Ticks,
    arrived: Report,
}

/// What one side did so far.
#[derive(Clone, Copy, Default)]
struct Work {
    /// Datagrams sent, or due, at all outputs.
    sent: u64,
    /// CPU nanoseconds.
    cpu: u64,
}

impl Feed {
    fn start(options: &Options, machine: &Machine) -> Result<Self> {
        let sink = match &options.srt {
            Some(srt) if srt.receivers == Receivers::Libsrt => {
                srt_peer::start_receivers(srt, [ENGINE_LO, AGAINST_LO], machine.all())?
            }
            _ => Helper::start(&options.sink(), machine.other())?,
        };
        let source = Helper::start(&Role::Source(options.source()), machine.other())?;
        Ok(Self { source, sink })
    }

    fn tell_source(&mut self, request: &str) -> Result<Emitted> {
        self.source.ask(request)
    }

    fn arrived(&mut self) -> Result<Report> {
        self.sink.ask(sink::REPORT)
    }

    /// Makes so many readers of a group call, spread over this time.
    fn dial(&mut self, group: usize, readers: usize, time: Duration) -> Result<()> {
        self.sink.ask(&format!("{} {group} {readers} {}", srt_sink::DIAL, time.as_millis()))
    }

    /// Waits until nothing arrives any more, so that what was sent and what arrived can be compared.
    fn drain(&mut self) -> Result<Report> {
        let mut last = self.arrived()?;
        for _ in 0..DRAIN_TRIES {
            thread::sleep(DRAIN_STEP);
            let now = self.arrived()?;
            if now.engine.datagrams == last.engine.datagrams
                && now.against.datagrams == last.against.datagrams
            {
                return Ok(now);
            }
            last = now;
        }
        Err("datagrams still arrive long after the source stopped".into())
    }

    /// Resident memory of an engine with the first output only, after as much stream as [`Run::warm_up`].
    fn memory_of_one_output(&mut self, options: &Options, machine: &Machine) -> Result<u64> {
        let engine = start_engine(options, 1, machine)?;
        if options.serves() {
            self.dial(srt_sink::ENGINE, 1, Duration::ZERO)?;
        }
        self.tell_source(source::FEED_ENGINE)?;
        thread::sleep(WARM_UP);
        let resident = engine.resident()?;
        self.tell_source(source::PAUSE)?;
        drop(engine);
        self.drain()?;
        self.sink.ask::<Report>(sink::RESET)?;
        Ok(resident)
    }
}

impl Run<'_> {
    /// Feeds the engine until every output runs and each one that can be seen has sent something, and
    /// returns its resident memory after the first two seconds.
    fn warm_up(&mut self) -> Result<u64> {
        if self.options.serves() {
            self.feed.dial(srt_sink::ENGINE, self.options.total_outputs(), DIAL_TIME)?;
            thread::sleep(DIAL_TIME);
        }
        self.feed.tell_source(source::FEED_ENGINE)?;
        thread::sleep(WARM_UP);
        let resident = self.engine.resident()?;
        let (seen, all) = (self.options.seen().len(), self.options.configured_outputs());
        let (mut heard, mut running) = (0, 0);
        for _ in 0..HEAR_TRIES {
            self.engine.check_alive()?;
            (heard, running) = (self.feed.arrived()?.engine.heard, self.engine.running_outputs()?);
            if heard == seen && running == all {
                return Ok(resident);
            }
            thread::sleep(HEAR_STEP);
        }
        let what = format!("runs {running} of {all} outputs, and {heard} of {seen} that can be seen send");
        Err(self.engine.complain(&what))
    }

    /// Starts the other side and waits until it copies; what cannot be started is named in the notes.
    fn start_rival(&mut self) -> Result<()> {
        self.feed.tell_source(source::PAUSE)?;
        let Some(against) = self.options.against else {
            self.notes.push("no reference asked for".into());
            return Ok(());
        };
        let setup = self.options.reference();
        let one = self.machine.one();
        self.rival = match against {
            Against::Sendto => Rival::Copier(Helper::start(&Role::Sendto(setup), one)?),
            Against::Tokio => Rival::Copier(Helper::start(&Role::Tokio(setup), one)?),
            Against::Limit => Rival::Limit(Helper::start(&Role::Limit(setup), one)?),
            _ => self.start_peer(against, setup.outputs.len())?,
        };
        Ok(())
    }

    fn start_peer(&mut self, against: Against, outputs: usize) -> Result<Rival> {
        self.feed.tell_source(source::FEED_AGAINST)?;
        let Some(mut peer) = Peer::start(self.options, self.machine)? else {
            self.notes.push(format!("{against} is not installed"));
            return Ok(Rival::None);
        };
        if against == Against::Mediamtx {
            self.leave_out_reading(&mut peer)?;
        }
        match &self.options.srt {
            Some(srt) if against == Against::Mediamtx && !self.options.serves() => {
                srt_peer::forward(self.options, srt)?;
            }
            Some(_) if against != Against::Push && self.options.serves() => {
                self.feed.dial(srt_sink::AGAINST, outputs, DIAL_TIME)?;
            }
            _ => {}
        }
        let mut heard = 0;
        for _ in 0..PEER_TRIES {
            heard = self.feed.arrived()?.against.heard;
            if heard == outputs {
                self.notes.push(peer.version.clone());
                return Ok(Rival::Peer(peer));
            }
            thread::sleep(HEAR_STEP);
        }
        self.notes.push(format!("{}: only {heard} of {outputs} outputs ever sent", peer.version));
        Ok(Rival::None)
    }

    /// Finds out what a peer that has no output yet needs for reading the stream.
    fn leave_out_reading(&mut self, peer: &mut Peer) -> Result<()> {
        let mut look = || -> Result<(u64, u64)> {
            let read = self.feed.tell_source(source::REPORT)?.against.iter().sum();
            Ok((peer.cpu_time(0)?, read))
        };
        let (cpu, read) = look()?;
        thread::sleep(READING_TIME);
        let (later, more) = look()?;
        let each = (later - cpu) as f64 / (more - read).max(1) as f64;
        peer.leave_out_reading(each);
        let rate = 1e9 / Stream::new(self.options.stream_mbps, true).period();
        self.notes.push(format!("{:.1} ms/s of it for reading left out", each * rate / 1e6));
        Ok(())
    }

    /// From here on everything counts.
    fn begin(&mut self) -> Result<Emitted> {
        let begun = self.feed.tell_source(source::PAUSE)?;
        self.feed.drain()?;
        self.feed.sink.ask::<Report>(sink::RESET)?;
        if let Some(srt) = self.options.srt.as_ref().filter(|srt| srt.dial_in > 0) {
            self.feed.tell_source(source::FEED_ENGINE)?;
            self.feed.dial(srt_sink::LATE, srt.dial_in, DIAL_TIME)?;
            for _ in 0..HEAR_TRIES {
                if self.feed.arrived()?.late.connections.dialled_in.is_some() {
                    break;
                }
                thread::sleep(HEAR_STEP);
            }
        }
        Ok(begun)
    }

    fn rounds(&mut self) -> Result<Vec<Pair>> {
        let seconds = self.options.seconds as usize;
        let rounds = match self.rival {
            Rival::None => seconds,
            Rival::Copier(_) | Rival::Limit(_) => seconds / 2,
            Rival::Peer(_) => (seconds / 4).max(10),
        };
        let at_once = self.fit_at_once()?;
        let mut pairs = Vec::new();
        for round in 1..=rounds.max(1) {
            let pair = if at_once { self.round_at_once()? } else { self.round_in_turn()? };
            self.engine.check_alive()?;
            eprintln!("  round {round} of {rounds}: {pair}");
            pairs.push(pair);
        }
        Ok(pairs)
    }

    /// Whether the engine and a tool of a user fit into one core together, as one round in turn shows: then
    /// both are fed at once, and a busier or slower moment of the machine is the same one for both.
    fn fit_at_once(&mut self) -> Result<bool> {
        if !matches!(self.rival, Rival::Peer(_)) || self.options.against == Some(Against::Push) {
            return Ok(false);
        }
        let trial = self.round_in_turn()?;
        let fit = trial.rival.is_some_and(|rival| rival.cores + trial.engine.load.cores < 1.0);
        self.notes.push(if fit { "fed at once" } else { "fed in turn" }.into());
        Ok(fit)
    }

    fn round_in_turn(&mut self) -> Result<Pair> {
        let (before, after) = self.window(Turn::Engine)?;
        let engine = self.slice(&before, &after);
        if matches!(self.rival, Rival::None) {
            return Ok(Pair { engine, rival: None });
        }
        let (before, after) = self.window(Turn::Rival { batch: engine.batch })?;
        let rival = self.load(before.rival, after.rival, &before, &after);
        Ok(Pair { engine, rival: Some(rival) })
    }

    fn round_at_once(&mut self) -> Result<Pair> {
        let (before, after) = self.window(Turn::Both)?;
        let rival = self.load(before.rival, after.rival, &before, &after);
        Ok(Pair { engine: self.slice(&before, &after), rival: Some(rival) })
    }

    /// Feeds one side or both, and returns the counters at both ends of the slice.
    fn window(&mut self, turn: Turn) -> Result<(Moment, Moment)> {
        let (settle, length) = match self.rival {
            Rival::Peer(_) => PEER_SLICE,
            _ => SLICE,
        };
        match (turn, &mut self.rival) {
            (Turn::Engine, _) => drop(self.feed.tell_source(source::FEED_ENGINE)?),
            (Turn::Both, _) => drop(self.feed.tell_source(source::FEED_BOTH)?),
            (Turn::Rival { batch }, Rival::Limit(limit)) => {
                limit.ask::<u64>(&format!("{} {batch}", reference::RUN))?;
            }
            (Turn::Rival { .. }, _) => drop(self.feed.tell_source(source::FEED_AGAINST)?),
        }
        thread::sleep(settle);
        let before = self.moment()?;
        thread::sleep(length);
        let after = self.moment()?;
        match (turn, &mut self.rival) {
            // Alone, the engine is fed without a break.
            (_, Rival::None) => {}
            (Turn::Rival { .. }, Rival::Limit(limit)) => drop(limit.ask::<u64>(reference::PAUSE)?),
            _ => {
                self.feed.tell_source(source::PAUSE)?;
                self.feed.drain()?;
            }
        }
        Ok((before, after))
    }

    fn moment(&mut self) -> Result<Moment> {
        let arrived = self.feed.arrived()?;
        let emitted = self.feed.tell_source(source::REPORT)?;
        let outputs = self.options.total_outputs() as u64;
        let each = outputs / self.options.inputs as u64;
        let engine = Work { sent: emitted.engine.iter().sum::<u64>() * each, cpu: self.engine.cpu_time()? };
        let rival = match &mut self.rival {
            Rival::None => Work::default(),
            Rival::Copier(helper) | Rival::Limit(helper) => {
                Work { sent: helper.ask(reference::REPORT)?, cpu: sys::cpu_time(helper.pid())? }
            }
            Rival::Peer(peer) => {
                let read = emitted.against.iter().sum::<u64>();
                Work { sent: read * outputs, cpu: peer.cpu_time(read)? }
            }
        };
        Ok(Moment { at: sys::now(), engine, rival, ticks: self.machine.ticks()?, arrived })
    }

    fn load(&self, then: Work, now: Work, before: &Moment, after: &Moment) -> Load {
        let rate = 1e9 / Stream::new(self.options.stream_mbps, true).period();
        let cpu = (now.cpu - then.cpu) as f64;
        Load {
            cost: cpu / (now.sent - then.sent).max(1) as f64 * rate / 1e6,
            cores: cpu / (after.at - before.at) as f64,
            idle: after.ticks.idle_since(before.ticks),
        }
    }

    fn slice(&self, before: &Moment, after: &Moment) -> Slice {
        let (now, then) = (&after.arrived, &before.arrived);
        let deliveries = now.engine.deliveries - then.engine.deliveries;
        let datagrams = now.engine.datagrams - then.engine.datagrams;
        Slice {
            load: self.load(before.engine, after.engine, before, after),
            delay: now.engine.delay.since(&then.engine.delay),
            control: now.control.delay.since(&then.control.delay),
            gap: now.engine.gap.since(&then.engine.gap),
            batch: datagrams.max(1) as f64 / deliveries.max(1) as f64,
        }
    }

    /// Stops the feed and counts what arrived since [`Run::begin`].
    fn finish(&mut self, begun: &Emitted) -> Result<Delivery> {
        let emitted = self.feed.tell_source(source::PAUSE)?;
        let report = self.feed.drain()?;
        let expected_at = |output: usize| {
            let flow = self.options.flow_of(output);
            emitted.engine[flow] - begun.engine[flow]
        };
        let seen = self.options.seen();
        let expected: u64 = seen.iter().map(|&output| expected_at(output)).sum();
        let overflowed = &report.engine.overflowed;
        let dropped: u64 =
            overflowed.iter().map(|&(index, got)| expected_at(seen[index]).saturating_sub(got)).sum();
        if dropped > 0 {
            let sockets = overflowed.len();
            self.notes.push(format!(
                "{dropped} datagrams missing at {sockets} sockets of the sink that overflowed"
            ));
        }
        self.describe_rival(&report, begun, &emitted)?;
        let mut dropped = dropped;
        if report.engine.connections.dropped > 0 {
            dropped += report.engine.connections.dropped;
            self.notes.push(format!(
                "{} datagrams dropped by sockets of the sink",
                report.engine.connections.dropped
            ));
        }
        let lost = expected.saturating_sub(report.engine.in_order + dropped);
        let calls = if self.options.srt.is_some() { self.calls_per_packet()? } else { None };
        Ok(Delivery { lost, expected, report, calls })
    }

    /// System calls of the engine for each datagram of its outputs. Last of all: being watched slows it down.
    fn calls_per_packet(&mut self) -> Result<Option<f64>> {
        let before = self.feed.tell_source(source::FEED_ENGINE)?;
        let start = sys::now();
        let calls = self.engine.system_calls();
        let seconds = (sys::now() - start) as f64 / 1e9;
        let after = self.feed.tell_source(source::PAUSE)?;
        let sent = (after.engine.iter().sum::<u64>() - before.engine.iter().sum::<u64>()) as f64;
        let outputs = self.options.total_outputs() as f64;
        if calls.is_none() {
            self.notes.push("no strace: system calls not counted".into());
        }
        Ok(calls.map(|calls| calls * seconds / (sent * outputs).max(1.0)))
    }

    /// Notes how much of its work the other side did.
    fn describe_rival(&mut self, report: &Report, begun: &Emitted, emitted: &Emitted) -> Result<()> {
        let datagrams = emitted.against.iter().sum::<u64>() - begun.against.iter().sum::<u64>();
        let outputs = self.options.total_outputs() as u64;
        let each = (datagrams * outputs / self.options.inputs as u64).max(1) as f64;
        let share = match &mut self.rival {
            Rival::None | Rival::Limit(_) => return Ok(()),
            Rival::Copier(helper) => helper.ask::<u64>(reference::REPORT)? as f64 / each,
            Rival::Peer(_) => report.against.bytes as f64 / (each * DATAGRAM as f64),
        };
        self.notes.push(format!("reference sent {:.2} % of its stream", share * 100.0));
        Ok(())
    }

    /// Makes the row.
    fn conclude(&mut self, pairs: &[Pair], delivery: Delivery, growth: f64) -> Result<Outcome> {
        let options = self.options;
        let (calm, busy): (Vec<&Pair>, Vec<&Pair>) = pairs.iter().partition(|pair| !pair.is_saturated());
        let counted = if calm.is_empty() { &busy } else { &calm };
        if calm.is_empty() {
            self.notes.push("every slice saturated: no CPU figure counts, delays are of all slices".into());
        }
        let collect = |part: fn(&Slice) -> &Histogram| {
            let mut all = Histogram::default();
            counted.iter().for_each(|pair| all.merge(part(&pair.engine)));
            all
        };
        let (delay, control, gap) =
            (collect(|slice| &slice.delay), collect(|slice| &slice.control), collect(|slice| &slice.gap));
        let arrivals = &delivery.report.engine;
        self.notes.extend(control.percentile(0.99).map(|p99| format!("control flow p99 {p99:.2} ms")));
        self.notes.push(format!("{} datagrams compared, {} changed", arrivals.compared, arrivals.changed));
        if arrivals.stray + arrivals.continuity_errors > 0 {
            let (stray, errors) = (arrivals.stray, arrivals.continuity_errors);
            self.notes.push(format!("{stray} stray datagrams, {errors} continuity errors"));
        }
        if let Some(pace) = options.pace {
            let p99 = gap.percentile(0.99).unwrap_or(f64::NAN);
            self.notes.push(format!("pace={pace}: inter-arrival p99 {p99:.2} ms"));
        }
        if options.source == Pattern::Bursty {
            self.notes.push("bursty source".into());
        }
        self.notes.push(format!("ring {RING_SECONDS} s"));
        let late = &delivery.report.late;
        if let Some(srt) = self.options.srt.as_ref().filter(|srt| srt.dial_in > 0) {
            self.notes.push(format!("{} of {} latecomers connected", late.connections.open, srt.dial_in));
        }
        if options.srt.is_some() {
            let Connections { missing, repeated, .. } = arrivals.connections;
            self.notes.push(format!("{missing} gaps, {repeated} repeats"));
            self.notes.extend(delivery.calls.map(|calls| format!("{calls:.4} calls per packet")));
        }
        let all_in = options.srt.as_ref().is_some_and(|srt| late.connections.open == srt.dial_in);
        let dialled_in = late.connections.dialled_in.filter(|_| all_in);
        let ratios = sorted(calm.iter().filter_map(|pair| pair.ratio()));
        let compared = !matches!(self.rival, Rival::None);
        let outputs = options.total_outputs();
        let row = Row {
            mode: options.mode(),
            outputs,
            inputs: options.inputs,
            delay_ms: options.delay,
            stream_mbps: options.stream_mbps,
            seconds: options.seconds,
            sink: options.sink.to_string(),
            cpu_ms_per_s_per_output: median(&sorted(calm.iter().map(|pair| pair.engine.load.cost))),
            against: options.against.filter(|_| compared).map(|against| against.to_string()),
            against_cpu_ms_per_s_per_output: median(&sorted(
                calm.iter().filter_map(|pair| Some(pair.rival.as_ref()?.cost)),
            )),
            ratio: median(&ratios),
            ratio_min: ratios.first().copied(),
            ratio_max: ratios.last().copied(),
            lost_packets: delivery.lost,
            delivered_fraction: arrivals.in_order as f64 / delivery.expected.max(1) as f64,
            added_delay_ms_p50: delay.percentile(0.5),
            added_delay_ms_p99: delay.percentile(0.99),
            mean_batch: median(&sorted(counted.iter().map(|pair| pair.engine.batch))),
            rss_bytes: self.engine.resident()?,
            rss_bytes_per_output: (outputs > 1).then(|| growth / (outputs - 1) as f64),
            rounds: pairs.len(),
            saturated_rounds: busy.len(),
            role: options.srt.as_ref().map(|srt| srt.role.to_string()),
            aes: options.srt.as_ref().and_then(|srt| srt.aes),
            missing_sequences: options.srt.as_ref().map(|_| arrivals.connections.missing),
            repeated_packets: options.srt.as_ref().map(|_| arrivals.connections.repeated),
            syscalls_per_packet: delivery.calls,
            dial_in_s: dialled_in.map(|nanoseconds| nanoseconds as f64 / 1e9),
            note: self.notes.join("; "),
        };
        Ok(Outcome {
            row,
            control_ms_p99: control.percentile(0.99),
            gap_ms_p99: gap.percentile(0.99),
            changed: arrivals.changed,
            ring_bytes: options.ring_bytes(),
        })
    }
}

impl Pair {
    /// True when a slice of it had too little idle time to be fair to both sides.
    fn is_saturated(&self) -> bool {
        self.engine.load.idle < MIN_IDLE || self.rival.as_ref().is_some_and(|rival| rival.idle < MIN_IDLE)
    }

    /// How many times more the other side costs.
    fn ratio(&self) -> Option<f64> {
        Some(self.rival.as_ref()?.cost / self.engine.load.cost)
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Slice { load, batch, .. } = &self.engine;
        write!(formatter, "{:.4} ms/s/output, batch {batch:.2}, idle {:.0} %", load.cost, load.idle * 100.0)?;
        if let (Some(rival), Some(ratio)) = (&self.rival, self.ratio()) {
            let idle = rival.idle * 100.0;
            write!(formatter, " | reference {:.4}, idle {idle:.0} % | ratio {ratio:.2}", rival.cost)?;
        }
        if self.is_saturated() {
            formatter.write_str(" | saturated")?;
        }
        Ok(())
    }
}

/// Starts the engine with the first `outputs` outputs of a plan.
fn start_engine(options: &Options, outputs: usize, machine: &Machine) -> Result<Engine> {
    Engine::start("millrace", &options.engine_config(outputs), options.api(), engine_cpus(options, machine))
}

/// Where the engine runs: on one CPU like the built-in references, and free like the tools of users, which
/// the scheduler puts beside the sink where waking it is cheap.
fn engine_cpus<'a>(options: &Options, machine: &'a Machine) -> &'a [usize] {
    if options.shards > 1 || options.is_external() { machine.all() } else { machine.one() }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn median(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    match sorted {
        [] => None,
        _ if sorted.len() % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

/// What is dropped of a slice and what is measured.
const SLICE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(1));
/// The same with tools that users run.
const PEER_SLICE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_millis(1500));
/// A slice with less idle time is saturated.
const MIN_IDLE: f64 = 0.10;
/// In which readers call, one after the other.
const DIAL_TIME: Duration = Duration::from_secs(2);
/// How long a peer without outputs is watched.
const READING_TIME: Duration = Duration::from_secs(4);
const WARM_UP: Duration = Duration::from_secs(2);
const HEAR_STEP: Duration = Duration::from_millis(200);
/// Ten seconds.
const HEAR_TRIES: u32 = 50;
/// A minute.
const PEER_TRIES: u32 = 300;
const DRAIN_STEP: Duration = Duration::from_millis(100);
/// Ten seconds.
const DRAIN_TRIES: u32 = 100;
