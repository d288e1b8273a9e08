//! A stream with its driver: what the driver hands over is framed and goes through the stream's pipe. Outlives its
//! drivers.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Relaxed, Release};

use tokio::sync::{mpsc, watch};

use super::pipe::Pipe;
use super::{Driver, Fed, Notice, Piece};
use crate::hub::{Bounds, Intake, LaneWriter, Polled, Schedule, StreamKey, Tools};
use crate::inspect::InputHealth;
use crate::inspect::klv::Tap;
use crate::media::{Nanos, Tracks};
use crate::mux::{Derivation, Maker};
use crate::net::clock;
use crate::telemetry::{InputStats, Rate};
use crate::wire::ts::Framer;

/// One stream on its shard.
pub struct Inlet {
    key: StreamKey,
    attempt: u32,
    driver: Option<Driver>,
    framer: Framer,
    /// Junk and resyncs of framers before this one.
    framed_before: (u64, u64),
    pipe: Pipe,
    /// Since when packets wait for a datagram to fill.
    waiting_since: Option<Nanos>,
    /// When a commit last failed because a reader held a lane, and what nobody was told of since.
    uncommitted: Option<Nanos>,
    held_back: u32,
    /// Who waits for the next commit.
    settling: Vec<Arc<AtomicBool>>,
    notices: mpsc::Sender<Notice>,
    health: Arc<InputHealth>,
    rate: Rate,
    reported: Nanos,
}

/// What can be asked of a stream while it runs.
pub enum Command {
    /// Feed it from this driver from now on.
    Attach {
        /// The driver.
        driver: Driver,
        /// Which attempt made it.
        attempt: u32,
    },
    /// Feed it no more; lanes and outputs stay.
    Detach,
    /// Fill the lanes of this maker.
    Derive(Derivation, Box<dyn Maker>),
    /// Let this maker write out what waits in it for more; the flag becomes true when readers can see that.
    Settle(Derivation, Arc<AtomicBool>),
    /// Stop filling them.
    Forget(Derivation),
}

impl Inlet {
    /// A stream that writes to `writer`'s lane, counts in `stats`, reports to `health`, shows what it receives to `tap`
    /// where there is one, and tells its supervisor
    /// what happens through `notices` (dropped when that is full: the watchdog notices too).
    /// The tracks are told to `tracks` as far as somebody needs frames; lanes of frames are as large as `bounds` say.
    pub fn new(
        key: StreamKey,
        (writer, bounds): (LaneWriter, Bounds),
        tracks: watch::Sender<Arc<Tracks>>,
        stats: Arc<InputStats>,
        (health, tap): (Arc<InputHealth>, Option<Tap>),
        notices: mpsc::Sender<Notice>,
    ) -> Self {
        Self {
            key,
            attempt: 0,
            driver: None,
            framer: Framer::datagrams(),
            framed_before: (0, 0),
            pipe: Pipe::new(writer, bounds, tracks, stats, tap),
            waiting_since: None,
            uncommitted: None,
            held_back: 0,
            settling: Vec::new(),
            notices,
            health,
            rate: Rate::default(),
            reported: 0,
        }
    }

    fn commit(&mut self, now: Nanos) {
        self.uncommitted = (!self.pipe.commit(now)).then_some(now);
        if self.uncommitted.is_none() {
            self.settling.drain(..).for_each(|settled| settled.store(true, Release));
        }
    }

    /// Lets go of the driver and of what it left unfinished.
    fn detach(&mut self) {
        self.driver = None;
        let pipe = &mut self.pipe;
        let arrival = pipe.last_arrival;
        self.framer.finish(&mut |datagram| pipe.take(datagram, arrival));
        self.framed_before.0 += self.framer.junk_bytes();
        self.framed_before.1 += self.framer.resyncs();
        self.framer = Framer::datagrams();
        self.waiting_since = None;
        self.pipe.end();
    }
}

impl Intake for Inlet {
    type Command = Command;

    fn handle(&mut self, command: Command, now: Nanos) {
        match command {
            Command::Attach { driver, attempt } => {
                self.detach();
                // Sessions say what they give when they begin.
                if driver.media().is_none() {
                    self.pipe.begin(false);
                }
                (self.driver, self.attempt) = (Some(driver), attempt);
            }
            Command::Detach => self.detach(),
            Command::Derive(derivation, maker) => self.pipe.derive(derivation, maker, now),
            Command::Settle(derivation, settled) => {
                self.pipe.settle(&derivation);
                self.settling.push(settled);
            }
            Command::Forget(derivation) => self.pipe.forget(&derivation),
        }
        self.commit(now);
    }

    fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.driver.as_ref().and_then(Driver::socket)
    }

    fn poll(&mut self, tools: &mut Tools, now: Nanos) -> Polled {
        self.pipe.polled = Polled::default();
        if let Some(driver) = &mut self.driver {
            let (pipe, framer) = (&mut self.pipe, &mut self.framer);
            let stats = Arc::clone(&pipe.stats);
            let (failed, more) = driver.poll(tools, now, &stats, &mut |piece, arrival| match piece {
                Piece::Bytes(bytes) => {
                    pipe.arrive(arrival);
                    framer.push(bytes, &mut |datagram| pipe.take(datagram, arrival));
                }
                Piece::Seam(ahead) => pipe.seam(framer.pending() as u64 + ahead),
            });
            pipe.polled.more = more;
            if let Some(media) = driver.media() {
                media.take(|fed| match fed {
                    Fed::Frames => pipe.begin(true),
                    Fed::Datagrams => pipe.begin(false),
                    Fed::Frame(frame) => pipe.take_frame(frame),
                    Fed::Datagram(bytes, arrival) => {
                        pipe.arrive(arrival);
                        framer.push(&bytes, &mut |datagram| pipe.take(datagram, arrival));
                    }
                });
            }
            if let Some(kind) = failed {
                self.detach();
                // Overflow policy: lost; the stall watchdog finds the silent stream.
                let _ = self.notices.try_send(Notice { stream: self.key, attempt: self.attempt, kind });
            }
        }
        self.pipe.tick(now);
        let repacked = self.flush_packs(now);
        self.commit(now);
        if self.pipe.polled.datagrams > 0 {
            self.pipe.stats.last_packet_ms.store(clock::wall_ms(), Relaxed);
        }
        // Told when it can be seen, not before.
        self.held_back += self.pipe.polled.datagrams + repacked;
        let datagrams = if self.uncommitted.is_none() { std::mem::take(&mut self.held_back) } else { 0 };
        Polled { datagrams, ..self.pipe.polled }
    }

    fn next_due(&self) -> Option<Nanos> {
        let driver = self.driver.as_ref().and_then(Driver::next_due);
        let pack = [self.waiting_since, self.pipe.waiting_since()]
            .into_iter()
            .flatten()
            .min()
            .map(|since| since + PACK_WAIT);
        let retry = self.uncommitted.map(|at| at + COMMIT_RETRY);
        [driver, pack, retry, self.pipe.next_tick()].into_iter().flatten().min()
    }

    fn demand(&self) -> Schedule {
        let (mut immediate, mut distant) = (false, false);
        self.pipe.pulses(&mut |pulse| {
            immediate |= pulse.is_watched();
            distant |= pulse.has_distant_readers();
        });
        let awaited = distant || self.pipe.is_heard();
        Schedule { immediate, ticks_per_second: if awaited { AWAITED_TICKS } else { 0 } }
    }

    fn publish(&mut self, now: Nanos) {
        let stats = &self.pipe.stats;
        let rate = self.rate.update(now, stats.bytes.load(Relaxed));
        stats.bitrate_bps.store(rate, Relaxed);
        let junk = self.framed_before.0 + self.framer.junk_bytes();
        let resyncs = self.framed_before.1 + self.framer.resyncs();
        stats.junk_bytes.store(junk, Relaxed);
        stats.resyncs.store(resyncs, Relaxed);
        if let Some(sample) = self.pipe.take_sample() {
            self.health.rules().offer(sample);
        }
        self.pipe.publish();
        if now - self.reported >= REPORT {
            self.reported = now;
            self.pipe.framing(junk, resyncs);
            let report = self.pipe.report(now);
            self.pipe.stats.continuity_errors.store(report.continuity_errors, Relaxed);
            self.health.report(report);
            self.health.clocks(now, clock::wall());
            if let Some(Driver::Udp(udp)) = &self.driver {
                self.health.senders(udp.sender(), udp.foreign());
            }
        }
    }
}

impl Inlet {
    /// Packets that do not fill a datagram leave all the same after a while. Answers how many datagrams of derived
    /// lanes left so: nothing else tells their readers.
    fn flush_packs(&mut self, now: Nanos) -> u32 {
        let pipe = &mut self.pipe;
        if self.framer.pending() == 0 {
            self.waiting_since = None;
        } else if self.waiting_since.get_or_insert(now).saturating_add(PACK_WAIT) <= now {
            let arrival = pipe.last_arrival;
            self.framer.flush(&mut |datagram| pipe.take(datagram, arrival));
            self.waiting_since = None;
        }
        self.pipe.flush(now.saturating_sub(PACK_WAIT))
    }
}

/// How long packets wait for their datagram to fill.
const PACK_WAIT: Nanos = 10_000_000;
const COMMIT_RETRY: Nanos = 200_000;
const REPORT: Nanos = 1_000_000_000;
/// Polls per second for readers on other shards, which add their own delay, and while somebody hears what the metadata
/// say, who is told within a few milliseconds.
const AWAITED_TICKS: u32 = 400;
