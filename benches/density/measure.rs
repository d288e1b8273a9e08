//! One run: starts everything and feeds it until it runs; then slices are measured ([`crate::rounds`]) and a row is made
//! of them ([`crate::conclusion`]).

use std::thread;
use std::time::Duration;

use crate::engine::Engine;
use crate::helper::{Helper, Role};
use crate::machine::Machine;
use crate::network::{self, Network};
use crate::peer::Peer;
use crate::plan::{AGAINST_LO, Against, ENGINE_LO, Options, SinkKind};
use crate::report::Outcome;
use crate::sink::Report;
use crate::source::Emitted;
use crate::srt::Receivers;
use crate::stream::Stream;
use crate::tcp::{LATE, Protocol};
use crate::{Result, sink, source, srt_peer, srt_sink, sys, tcp_sink};

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
    let mut run = Run { options, machine, feed, engine, rival: Rival::None, notes, first_media: None };
    let started = run.warm_up()?;
    run.start_rival()?;
    let begun = run.begin()?;
    let pairs = run.rounds()?;
    let arrived = run.finish(&begun)?;
    run.conclude(&pairs, arrived, started as f64 - alone as f64)
}

/// The source and the sink.
pub(crate) struct Feed {
    source: Helper,
    sink: Helper,
}

/// A run whose engine runs.
pub(crate) struct Run<'a> {
    pub(crate) options: &'a Options,
    pub(crate) machine: &'a Machine,
    pub(crate) feed: Feed,
    pub(crate) engine: Engine,
    pub(crate) rival: Rival,
    pub(crate) notes: Vec<String>,
    /// Milliseconds from a request for an output to its first media.
    pub(crate) first_media: Option<f64>,
}

/// The other side of the comparison.
pub(crate) enum Rival {
    None,
    /// Copies the same streams.
    Copier(Helper),
    /// Sends without a stream.
    Limit(Helper),
    /// A tool of a user.
    Peer(Peer),
}

impl Feed {
    fn start(options: &Options, machine: &Machine) -> Result<Self> {
        let sink = match &options.srt {
            Some(srt) if srt.receivers == Receivers::Libsrt => {
                srt_peer::start_receivers(srt, [ENGINE_LO, AGAINST_LO], machine.all())?
            }
            _ => Helper::start(&options.sink()?, machine.other())?,
        };
        let source = Helper::start(&Role::Source(options.source()), machine.other())?;
        Ok(Self { source, sink })
    }

    /// Asks the source for something; what it sent.
    pub(crate) fn tell_source(&mut self, request: &str) -> Result<Emitted> {
        self.source.ask(request)
    }

    /// What arrived since the last reset.
    pub(crate) fn arrived(&mut self) -> Result<Report> {
        self.sink.ask(sink::REPORT)
    }

    /// Makes so many readers of a group call, spread over this time.
    fn dial(&mut self, group: usize, readers: usize, time: Duration) -> Result<()> {
        self.sink.ask(&format!("{} {group} {readers} {}", srt_sink::DIAL, time.as_millis()))
    }

    /// Waits until nothing arrives any more, so that what was sent and what arrived can be compared.
    pub(crate) fn drain(&mut self) -> Result<Report> {
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

    /// Feeds the engine for as long as its outputs need to begin, at the same moment of the stream however many they
    /// are, and two seconds. Readers dial in before, or where they have to be told what there is, meanwhile.
    fn begin(&mut self, options: &Options, outputs: usize, spread: Duration) -> Result<()> {
        if options.serves() && options.srt.is_some() {
            self.dial(srt_sink::ENGINE, outputs, spread)?;
            thread::sleep(spread);
        }
        self.tell_source(source::FEED_ENGINE)?;
        if options.tcp.is_some() {
            thread::sleep(HEAR_STEP);
            if options.serves() {
                self.dial(srt_sink::ENGINE, outputs, spread)?;
            }
            thread::sleep(DIAL_TIME);
        }
        thread::sleep(WARM_UP);
        Ok(())
    }

    /// Resident memory of an engine with the first output only, after as much stream as [`Run::warm_up`].
    fn memory_of_one_output(&mut self, options: &Options, machine: &Machine) -> Result<u64> {
        let engine = start_engine(options, 1, machine)?;
        self.begin(options, 1, Duration::ZERO)?;
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
        self.feed.begin(self.options, self.options.total_outputs(), DIAL_TIME)?;
        let resident = self.engine.resident()?;
        let (seen, all) = (self.options.seen().len(), self.options.configured_outputs());
        let (mut heard, mut running) = (0, 0);
        for _ in 0..HEAR_TRIES {
            self.engine.check_alive()?;
            (heard, running) = (self.feed.arrived()?.engine.heard, self.engine.running_outputs()?);
            if heard == seen && running == all {
                self.time_first_media()?;
                return Ok(resident);
            }
            thread::sleep(HEAR_STEP);
        }
        let what = format!("runs {running} of {all} outputs, and {heard} of {seen} that can be seen send");
        Err(self.engine.complain(&what))
    }

    /// Makes outputs while the others send, one after the other; in the median, how long it takes until media flows.
    fn time_first_media(&mut self) -> Result<()> {
        let Some(tcp) = self.options.tcp.as_ref().filter(|tcp| tcp.protocol != Protocol::RtspServe) else {
            return Ok(());
        };
        let mut times = Vec::new();
        for place in 0..LATE_OUTPUTS {
            let asked_at = sys::now();
            let name = format!("late{place}");
            let id = self.engine.add_output(&name, &tcp.output(LATE, place, self.options.delay))?;
            let mut begun = None;
            for _ in 0..HEAR_TRIES {
                let late = self.feed.arrived()?.late;
                begun = late.connections.last_begun.filter(|_| late.heard == place + 1);
                if begun.is_some() {
                    break;
                }
                thread::sleep(HEAR_STEP);
            }
            let Some(begun) = begun else {
                return Err(self.engine.complain("lets a late output wait for 10 s"));
            };
            times.push(begun.saturating_sub(asked_at) as f64 / 1e6);
            self.engine.remove_output(id)?;
        }
        times.sort_by(f64::total_cmp);
        self.first_media = times.get(LATE_OUTPUTS / 2).copied();
        Ok(())
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
            Against::Send => self.start_floor()?,
            _ => self.start_peer(against, setup.outputs.len())?,
        };
        Ok(())
    }

    fn start_floor(&mut self) -> Result<Rival> {
        let Some(floor) = self.options.floor() else { return Ok(Rival::None) };
        let helper = Helper::start(&Role::TcpFloor(floor), self.machine.one())?;
        if self.options.serves() {
            self.feed.dial(srt_sink::AGAINST, self.options.total_outputs(), DIAL_TIME)?;
            thread::sleep(DIAL_TIME + WARM_UP);
        }
        Ok(Rival::Limit(helper))
    }

    fn start_peer(&mut self, against: Against, outputs: usize) -> Result<Rival> {
        self.feed.tell_source(source::FEED_AGAINST)?;
        let Some(mut peer) = Peer::start(self.options, self.machine)? else {
            self.notes.push(format!("{against} is not installed"));
            return Ok(Rival::None);
        };
        if matches!(against, Against::Mediamtx | Against::Nginx) {
            self.leave_out_reading(&mut peer)?;
        }
        if !self.options.serves() {
            peer.push(self.options, self.machine)?;
        } else if against != Against::Push {
            self.feed.dial(srt_sink::AGAINST, outputs, DIAL_TIME)?;
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
        if let Some(tcp) = self.options.tcp.as_ref().filter(|tcp| tcp.stalled > 0) {
            self.feed.sink.ask::<()>(&format!("{} {}", tcp_sink::STALL, tcp.stalled))?;
            let resident = self.engine.resident()? as f64 / 1e6;
            self.notes
                .push(format!("one receiver in {} takes nothing, {resident:.1} MB before", tcp.stalled));
        }
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
}

/// Starts the engine with the first `outputs` outputs of a plan.
fn start_engine(options: &Options, outputs: usize, machine: &Machine) -> Result<Engine> {
    Engine::start("millrace", &options.engine_config(outputs)?, options.api(), engine_cpus(options, machine))
}

/// Where the engine runs: on one CPU like the built-in references, and free like the tools of users, which
/// the scheduler puts beside the sink where waking it is cheap.
fn engine_cpus<'a>(options: &Options, machine: &'a Machine) -> &'a [usize] {
    if options.shards > 1 || options.is_external() { machine.all() } else { machine.one() }
}

/// In which readers call, one after the other.
const DIAL_TIME: Duration = Duration::from_secs(2);
/// How long a peer without outputs is watched.
const READING_TIME: Duration = Duration::from_secs(4);
/// Outputs that are made while others send.
const LATE_OUTPUTS: usize = 5;
const WARM_UP: Duration = Duration::from_secs(2);
const HEAR_STEP: Duration = Duration::from_millis(200);
/// Ten seconds.
const HEAR_TRIES: u32 = 50;
/// A minute.
const PEER_TRIES: u32 = 300;
const DRAIN_STEP: Duration = Duration::from_millis(100);
/// Ten seconds.
const DRAIN_TRIES: u32 = 100;
