//! Rounds of slices: the feed goes to the engine and to the other side, in turn or at once, and what each did and used
//! leaves as pairs that can be compared.

use std::fmt;
use std::thread;
use std::time::Duration;

use crate::Result;
use crate::histogram::Histogram;
use crate::machine::Ticks;
use crate::measure::{Rival, Run};
use crate::plan::Against;
use crate::sink::Report;
use crate::stream::Stream;
use crate::{reference, source, sys};

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

/// What the engine did in one slice.
pub(crate) struct Slice {
    pub(crate) load: Load,
    /// What arrived from it meanwhile.
    pub(crate) delay: Histogram,
    pub(crate) control: Histogram,
    pub(crate) gap: Histogram,
    /// Datagrams per delivery.
    pub(crate) batch: f64,
}

/// What one side cost in one slice.
pub(crate) struct Load {
    /// CPU milliseconds per second and output at the stream's rate: CPU time per datagram, times rate.
    pub(crate) cost: f64,
    /// CPU seconds per second.
    cores: f64,
    /// Share of the machine that was idle, 0 to 1.
    idle: f64,
}

/// A slice of the engine and the slice of the other side that goes with it.
pub(crate) struct Pair {
    pub(crate) engine: Slice,
    pub(crate) rival: Option<Load>,
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

impl Run<'_> {
    /// Measures as many rounds as there is time for.
    pub(crate) fn rounds(&mut self) -> Result<Vec<Pair>> {
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
        if !matches!(self.rival, Rival::Peer(_))
            || matches!(self.options.against, Some(Against::Push | Against::Plain))
        {
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
}

impl Pair {
    /// True when a slice of it had too little idle time to be fair to both sides.
    pub(crate) fn is_saturated(&self) -> bool {
        self.engine.load.idle < MIN_IDLE || self.rival.as_ref().is_some_and(|rival| rival.idle < MIN_IDLE)
    }

    /// How many times more the other side costs.
    pub(crate) fn ratio(&self) -> Option<f64> {
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

/// What is dropped of a slice and what is measured.
const SLICE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(1));
/// The same with tools that users run.
const PEER_SLICE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_millis(1500));
/// A slice with less idle time is saturated.
const MIN_IDLE: f64 = 0.10;
