//! All runs of one cell, at the same time: senders, proxies and receivers, each run with ports of its own.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

use crate::cell::{Cell, Tally};
use crate::count::Count;
use crate::engine::Engine;
use crate::feed::{Feed, MEGABITS_PER_SECOND};
use crate::proxy::{Path, Proxy, Traffic};
use crate::stream::Stream;
use crate::{Result, sys};

/// Who sends and who receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Part {
    /// libsrt sends to libsrt.
    Reference,
    /// The engine sends to libsrt.
    Sender,
    /// libsrt sends to the engine.
    Receiver,
}

/// The runs of a cell.
pub(crate) struct Plan {
    /// Network and latency.
    pub(crate) cell: Cell,
    /// How many networks.
    pub(crate) seeds: u64,
    /// Seconds that count.
    pub(crate) seconds: u64,
    /// Who takes part.
    pub(crate) parts: Vec<Part>,
}

/// One run: whose it is, and its ports.
struct Run {
    part: Part,
    /// Where the sender reads the stream.
    feed: SocketAddrV4,
    /// Where the listening end of SRT is; the other one calls the proxy.
    listener: SocketAddrV4,
    /// Where what was received comes out.
    out: SocketAddrV4,
    proxy: Proxy,
}

/// What passed a proxy so far.
#[derive(Clone, Copy)]
struct Passed {
    repeats: u64,
    lost: u64,
}

/// srt-live-transmit. Ends with its owner.
struct Transmit(Child);

impl Part {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Reference, Self::Sender, Self::Receiver];
}

impl Plan {
    /// Does all runs and adds up what each part did.
    pub(crate) fn run(&self) -> Result<Vec<Tally>> {
        let places = (0..self.seeds).flat_map(|seed| self.parts.iter().map(move |&part| (seed, part)));
        let runs: Vec<Run> =
            (0..).zip(places).map(|(place, (seed, part))| self.prepare(place, seed, part)).collect();
        let count = Count::start(&runs.iter().map(|run| run.out).collect::<Vec<_>>())?;
        let listening = self.transmits(&runs, Run::listening)?;
        let engine = self.engine(&runs)?;
        thread::sleep(SETTLE);
        let calling = self.transmits(&runs, Run::calling)?;
        let feed = Feed::start(runs.iter().map(|run| run.feed).collect())?;
        wait_for_all(&runs, &count, engine.as_ref())?;
        thread::sleep(SETTLE);
        let before: Vec<Passed> = runs.iter().map(|run| Passed::through(run.proxy.traffic())).collect();
        let first = feed.sent();
        thread::sleep(Duration::from_secs(self.seconds));
        let expected = (self.seconds as f64 * 1e9 / Stream::new(MEGABITS_PER_SECOND, true).period()) as u64;
        // The stream goes on meanwhile, so that the last ones of the count are as well followed as the first.
        thread::sleep(SETTLE + Duration::from_millis(self.cell.latency));
        let mut tallies: Vec<Tally> = self.parts.iter().map(|&part| Tally::new(part)).collect();
        for (place, (run, before)) in runs.iter().zip(before).enumerate() {
            let Some(tally) = tallies.iter_mut().find(|tally| tally.part == run.part) else { continue };
            let now = Passed::through(run.proxy.traffic());
            tally.expected += expected;
            tally.missing += count.missing(place, first, expected);
            tally.repeats += now.repeats - before.repeats;
            tally.lost += now.lost - before.lost;
            let late = run.proxy.traffic().latest_us.load(Relaxed) as f64 / 1e3;
            tally.disturbed_ms = tally.disturbed_ms.max(late);
        }
        drop((feed, calling, listening));
        Ok(tallies)
    }

    fn prepare(&self, place: u16, seed: u64, part: Part) -> Run {
        let listener = local(LISTENERS + place);
        let delay = Duration::from_millis(self.cell.rtt) / 2;
        let jitter = Duration::from_millis(self.cell.jitter);
        let path = Path { loss: self.cell.loss / 100.0, delay, jitter, seed, ..Path::default() };
        let proxy = Proxy::start(listener.into(), path);
        Run { part, feed: local(FEEDS + place), listener, out: local(OUTS + place), proxy }
    }

    fn transmits(&self, runs: &[Run], urls: fn(&Run, u64) -> Option<[String; 2]>) -> Result<Vec<Transmit>> {
        runs.iter().filter_map(|run| urls(run, self.cell.latency)).map(Transmit::start).collect()
    }

    /// One engine for all runs in which it takes part.
    fn engine(&self, runs: &[Run]) -> Result<Option<Engine>> {
        let api = local(API);
        let mut config = format!(
            "api: {{listen: \"{api}\"}}\nmetrics: {{listen: off}}\nshards: 1\npin_shards: false\ninputs:\n"
        );
        let latency = self.cell.latency;
        let mut takes_part = false;
        for (place, run) in runs.iter().enumerate() {
            let proxy = run.proxy.addr();
            let (input, output) = match run.part {
                Part::Reference => continue,
                Part::Sender => (
                    format!("udp://{}", run.feed),
                    format!("srt://{proxy}?mode=caller&latency={latency}&delay_ms=10"),
                ),
                Part::Receiver => (
                    format!("srt://{proxy}?mode=caller&latency={latency}"),
                    format!("udp://{}?delay_ms=0", run.out),
                ),
            };
            takes_part = true;
            let output = format!("{{name: out, url: \"{output}\"}}");
            config += &format!("  - {{name: in{place}, url: \"{input}\", outputs: [{output}]}}\n");
        }
        takes_part.then(|| Engine::start("srt-loss", &config, api, &sys::allowed_cpus())).transpose()
    }
}

fn wait_for_all(runs: &[Run], count: &Count, engine: Option<&Engine>) -> Result<()> {
    for _ in 0..CONNECT_TRIES {
        if count.silent().is_empty() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(100));
    }
    let silent: Vec<String> = count.silent().iter().map(|&place| runs[place].part.to_string()).collect();
    let what = format!("nothing comes out of {}", silent.join(", "));
    Err(engine.map_or_else(|| what.clone().into(), |engine| engine.complain(&what)))
}

impl Run {
    /// Source and destination of the libsrt end that listens, if that end is libsrt.
    fn listening(&self, latency: u64) -> Option<[String; 2]> {
        let srt = format!("srt://{}?mode=listener&latency={latency}", self.listener);
        match self.part {
            Part::Reference | Part::Sender => Some([srt, format!("udp://{}", self.out)]),
            Part::Receiver => Some([format!("udp://{}", self.feed), srt]),
        }
    }

    /// The same of the end that calls.
    fn calling(&self, latency: u64) -> Option<[String; 2]> {
        let srt = format!("srt://{}?mode=caller&latency={latency}", self.proxy.addr());
        (self.part == Part::Reference).then(|| [format!("udp://{}", self.feed), srt])
    }
}

impl Transmit {
    fn start(urls: [String; 2]) -> Result<Self> {
        let mut command = Command::new("srt-live-transmit");
        command.args(["-q", "-loglevel:fatal", "-chunk:1316"]).args(urls);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        sys::bind_child(&mut command, &sys::allowed_cpus());
        Ok(Self(command.spawn().map_err(|error| format!("srt-live-transmit (package srt-tools): {error}"))?))
    }
}

impl Drop for Transmit {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Passed {
    fn through(traffic: &Traffic) -> Self {
        Self { repeats: traffic.repeats.load(Relaxed), lost: traffic.data_lost.load(Relaxed) }
    }
}

impl Tally {
    fn new(part: Part) -> Self {
        Self { part, expected: 0, missing: 0, repeats: 0, lost: 0, disturbed_ms: 0.0 }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Reference => "libsrt → libsrt",
            Self::Sender => "millrace → libsrt",
            Self::Receiver => "libsrt → millrace",
        })
    }
}

const fn local(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
}

/// All below the range of ephemeral ports, where the proxies are.
const API: u16 = 5900;
const FEEDS: u16 = 6000;
const LISTENERS: u16 = 10_000;
const OUTS: u16 = 20_000;
/// From the start of programs, and of the stream, until all is as it will be.
const SETTLE: Duration = Duration::from_secs(2);
/// Fifteen seconds.
const CONNECT_TRIES: u32 = 150;
