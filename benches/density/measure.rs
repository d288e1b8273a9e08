//! One run: starts everything, feeds the engine and the other side in turn, and makes a row of it.

use std::fmt;
use std::net::SocketAddrV4;
use std::thread;
use std::time::Duration;

use crate::engine::Engine;
use crate::helper::{Helper, Role};
use crate::histogram::Histogram;
use crate::machine::{Machine, Ticks};
use crate::network::{self, Network};
use crate::peer::Peer;
use crate::plan::{Against, Options, Pattern, RING_SECONDS, SinkKind};
use crate::report::{Outcome, Row};
use crate::sink::Report;
use crate::source::Emitted;
use crate::stream::{DATAGRAM, Stream};
use crate::{Result, reference, sink, source, sys};

/// Measures one row.
pub(crate) fn run(options: &Options, machine: &Machine, network: Network) -> Result<Outcome> {
    options.check()?;
    let mut notes = Vec::new();
    if options.sink == SinkKind::Ifb {
        notes.push(format!("ifb {}, {} probes", network::open_black_hole(network)?, options.seen().len()));
    }
    let mut feed = Feed::start(options, machine)?;
    let alone = feed.memory_of_one_output(options, machine)?;
    let engine = Engine::start(options, options.total_outputs(), engine_cpus(options, machine))?;
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
        let sink = Helper::start(&Role::Sink(options.sink()), machine.other())?;
        let source = Helper::start(&Role::Source(options.source()), machine.other())?;
        Ok(Self { source, sink })
    }

    fn tell_source(&mut self, request: &str) -> Result<Emitted> {
        self.source.ask(request)
    }

    fn arrived(&mut self) -> Result<Report> {
        self.sink.ask(sink::REPORT)
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
        let engine = Engine::start(options, 1, engine_cpus(options, machine))?;
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
        self.feed.tell_source(source::FEED_ENGINE)?;
        thread::sleep(WARM_UP);
        let resident = self.engine.resident()?;
        let (seen, all) = (self.options.seen().len(), self.options.total_outputs());
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
            Against::Ffmpeg | Against::Gst => self.start_peer(against, &setup.outputs)?,
        };
        Ok(())
    }

    fn start_peer(&mut self, against: Against, outputs: &[SocketAddrV4]) -> Result<Rival> {
        self.feed.tell_source(source::FEED_AGAINST)?;
        let Some(peer) = Peer::start(against, outputs, self.machine.all())? else {
            self.notes.push(format!("{against} is not installed"));
            return Ok(Rival::None);
        };
        let mut heard = 0;
        for _ in 0..PEER_TRIES {
            heard = self.feed.arrived()?.against.heard;
            if heard == outputs.len() {
                self.notes.push(peer.version.clone());
                return Ok(Rival::Peer(peer));
            }
            thread::sleep(HEAR_STEP);
        }
        self.notes.push(format!("{}: only {heard} of {} outputs ever sent", peer.version, outputs.len()));
        Ok(Rival::None)
    }

    /// From here on everything counts.
    fn begin(&mut self) -> Result<Emitted> {
        let begun = self.feed.tell_source(source::PAUSE)?;
        self.feed.drain()?;
        self.feed.sink.ask::<Report>(sink::RESET)?;
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
        if !matches!(self.rival, Rival::Peer(_)) {
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
                Work { sent: emitted.against.iter().sum::<u64>() * outputs, cpu: peer.cpu_time()? }
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
        let lost = expected.saturating_sub(report.engine.in_order + dropped);
        Ok(Delivery { lost, expected, report })
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
        let ratios = sorted(calm.iter().filter_map(|pair| pair.ratio()));
        let compared = !matches!(self.rival, Rival::None);
        let outputs = options.total_outputs();
        let row = Row {
            mode: "udp",
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
const WARM_UP: Duration = Duration::from_secs(2);
const HEAR_STEP: Duration = Duration::from_millis(200);
/// Ten seconds.
const HEAR_TRIES: u32 = 50;
/// A minute.
const PEER_TRIES: u32 = 300;
const DRAIN_STEP: Duration = Duration::from_millis(100);
/// Ten seconds.
const DRAIN_TRIES: u32 = 100;
