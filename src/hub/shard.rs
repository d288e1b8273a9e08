//! The loop of one data thread: sockets and moments in time enter, intakes are read and outflows are walked. One
//! thread, no task and no queue per output; never waits for anything but time and readable sockets.

use std::collections::HashMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver as Mailbox, Sender, TrySendError};

use crate::media::Nanos;
use crate::net::{Doorbell, Poller, Receiver, Registrar, Token};

/// Names a stream; the same in every shard.
pub type StreamKey = u64;

/// What a shard needs from ingest: one stream with the driver that feeds it.
pub trait Intake: Send + 'static {
    /// What can be asked of it while it runs.
    type Command: Send;

    /// Carries a command out.
    fn handle(&mut self, command: Self::Command, now: Nanos);

    /// The socket that becomes readable when there is something to poll.
    fn socket(&self) -> Option<BorrowedFd<'_>>;

    /// Takes everything that is there and writes it to the stream's lanes.
    fn poll(&mut self, tools: &mut Tools, now: Nanos) -> Polled;

    /// When it wants to be polled although nothing arrived.
    fn next_due(&self) -> Option<Nanos>;

    /// How readers on other shards want it to be polled.
    fn demand(&self) -> Schedule;

    /// Publishes its counters.
    fn publish(&mut self, now: Nanos);
}

/// What a shard needs from egress: all outputs that it walks.
pub trait Outflow: Send + 'static {
    /// What can be asked of it while it runs.
    type Command: Send;

    /// Carries a command out.
    fn handle(&mut self, command: Self::Command, now: Nanos);

    /// A stream got new datagrams. `hurry`: they came as a burst that is over, so waiting gains nothing.
    fn arrived(&mut self, stream: StreamKey, hurry: bool, now: Nanos);

    /// Another shard rang: look at the lanes that are watched.
    fn rang(&mut self, now: Nanos);

    /// A socket that was registered under this token became readable.
    fn readable(&mut self, _token: Token, _now: Nanos) {}

    /// Sends what is due. `refresh` polls a stream's intake first, where it lives on this shard, and answers how
    /// many datagrams came.
    fn walk(&mut self, now: Nanos, refresh: &mut dyn FnMut(StreamKey) -> u32);

    /// When something is due next.
    fn next_due(&mut self) -> Option<Nanos>;

    /// How the outputs of a stream want it to be polled.
    fn schedule(&self, stream: StreamKey) -> Schedule;

    /// Tells whether a stream's intake is polled at the outputs' own moments (`true`) or when its socket
    /// becomes readable (`false`).
    fn set_ticking(&mut self, stream: StreamKey, ticking: bool, now: Nanos);

    /// Publishes counters.
    fn publish(&mut self, now: Nanos);
}

/// Scratch that all intakes of a shard share.
pub struct Tools {
    /// Buffers for recvmmsg.
    pub receiver: Receiver,
}

/// What a poll brought.
#[derive(Debug, Clone, Copy, Default)]
pub struct Polled {
    /// Datagrams written to the native lane.
    pub datagrams: u32,
    /// Groups of them with more than a millisecond between.
    pub clusters: u32,
    /// The source had more than one poll takes.
    pub more: bool,
}

/// How outputs want their stream to be polled.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Schedule {
    /// An output may not wait: poll as soon as something arrives.
    pub immediate: bool,
    /// Moments per second at which outputs are walked anyway.
    pub ticks_per_second: u32,
}

/// What wakes a shard on behalf of its outflow.
#[derive(Debug, Clone)]
pub struct Wakes {
    /// Rung from other threads.
    pub bell: Arc<Doorbell>,
    /// Takes sockets of the outflow, under tokens with [`Wakes::OURS`] set.
    pub sockets: Registrar,
}

impl Wakes {
    /// Tells the outflow's tokens from those of streams.
    pub const OURS: u64 = 1 << 63;
}

/// What can be asked of a shard.
pub enum Command<I: Intake, O: Outflow> {
    /// Take a stream in.
    Open(StreamKey, Box<I>),
    /// Let it go.
    Close(StreamKey),
    /// Ask a stream's intake for something.
    Intake(StreamKey, I::Command),
    /// Ask the outflow for something.
    Outflow(O::Command),
    /// Do nothing for so long: shows in tests that nobody waits for a shard.
    Hold(Duration),
}

/// One data thread.
pub struct Shard<I: Intake, O: Outflow> {
    clock: fn() -> Nanos,
    poller: Poller,
    mailbox: Mailbox<Command<I, O>>,
    stopping: Arc<AtomicBool>,
    tools: Tools,
    streams: HashMap<StreamKey, Stream<I>>,
    outflow: O,
    next_publish: Nanos,
    next_review: Nanos,
}

/// How others reach a shard.
pub struct ShardHandle<I: Intake, O: Outflow> {
    mail: Sender<Command<I, O>>,
    bell: Arc<Doorbell>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl<I: Intake, O: Outflow> ShardHandle<I, O> {
    /// Starts a data thread named `name`; `prepare` runs first on it (pinning), `outflow` makes what it walks,
    /// from what wakes it.
    ///
    /// # Errors
    /// Out of file descriptors, memory or threads.
    pub fn start(
        name: String,
        clock: fn() -> Nanos,
        prepare: impl FnOnce() + Send + 'static,
        outflow: impl FnOnce(Wakes) -> O,
    ) -> io::Result<Self> {
        let poller = Poller::new()?;
        let bell = poller.doorbell();
        let wakes = Wakes { bell: Arc::clone(&bell), sockets: poller.sockets().clone() };
        // Overflow policy: `send` answers that the shard is busy, and the caller tries again.
        let (mail, mailbox) = crossbeam_channel::bounded(MAILBOX);
        let stopping = Arc::new(AtomicBool::new(false));
        let shard = Shard {
            clock,
            poller,
            mailbox,
            stopping: Arc::clone(&stopping),
            tools: Tools { receiver: Receiver::new() },
            streams: HashMap::new(),
            outflow: outflow(wakes),
            next_publish: 0,
            next_review: 0,
        };
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            prepare();
            shard.run();
        })?;
        Ok(Self { mail, bell, stopping, thread: Some(thread) })
    }

    /// Hands a command over without waiting.
    ///
    /// # Errors
    /// The command back, when the shard is too far behind or gone.
    pub fn send(&self, command: Command<I, O>) -> Result<(), Box<Command<I, O>>> {
        match self.mail.try_send(command) {
            Ok(()) => {
                self.bell.ring();
                Ok(())
            }
            Err(TrySendError::Full(command) | TrySendError::Disconnected(command)) => Err(Box::new(command)),
        }
    }

    /// Stops the thread and waits until it has left.
    pub fn stop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        self.bell.ring();
        if let Some(thread) = self.thread.take() {
            // A panic of the shard was already reported by the panic hook.
            let _ = thread.join();
        }
    }
}

impl<I: Intake, O: Outflow> Drop for ShardHandle<I, O> {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A stream that this shard owns.
struct Stream<I> {
    intake: I,
    /// Polled at given moments instead of when it becomes readable.
    ticking: bool,
    /// Moments of its own, where those of this shard's outputs are missing or too rare.
    own_ticks: Option<Nanos>,
    /// The poller will tell when it becomes readable.
    armed: bool,
    polled_at: Nanos,
    /// A burst is arriving: since when, and how many datagrams so far.
    burst: Option<(Nanos, u32)>,
    repoll_at: Option<Nanos>,
    /// Counted since the last review.
    clusters: u32,
    datagrams: u32,
}

impl<I: Intake> Stream<I> {
    fn poll(&mut self, tools: &mut Tools, now: Nanos) -> u32 {
        let polled = self.intake.poll(tools, now);
        self.polled_at = now;
        self.clusters += polled.clusters;
        self.datagrams += polled.datagrams;
        if polled.more {
            self.repoll_at = Some(now);
        }
        polled.datagrams
    }

    fn next_due(&self) -> Option<Nanos> {
        // On a common grid, so that many streams wake the thread together.
        let tick = match self.own_ticks {
            Some(period) => Some((self.polled_at / period + 1) * period),
            // Outputs that leave take their moments with them: until the next review this one is kept.
            None => self.ticking.then_some(self.polled_at + BACKSTOP),
        };
        earliest(earliest(self.intake.next_due(), self.repoll_at), tick)
    }
}

impl<I: Intake, O: Outflow> Shard<I, O> {
    fn run(mut self) {
        let mut ready = Vec::new();
        while !self.stopping.load(Ordering::Acquire) {
            let before = (self.clock)();
            let due = self.next_due();
            let timeout = due.map(|due| Duration::from_nanos(due.saturating_sub(before)));
            ready.clear();
            let rang = self.poller.wait(timeout, |token| ready.push(token));
            let now = (self.clock)();
            if rang {
                self.take_commands(now);
                self.outflow.rang(now);
            }
            for &token in &ready {
                match token {
                    Token(ours) if ours & Wakes::OURS != 0 => self.outflow.readable(token, now),
                    Token(key) => self.readable(key, now),
                }
            }
            self.poll_due(now);
            self.walk(now);
            if now >= self.next_review {
                self.next_review = now + REVIEW;
                self.review(now);
            }
            if now >= self.next_publish {
                self.next_publish = now + PUBLISH;
                self.streams.values_mut().for_each(|s| s.intake.publish(now));
                self.outflow.publish(now);
            }
        }
        let now = (self.clock)();
        self.outflow.publish(now);
    }

    fn next_due(&mut self) -> Option<Nanos> {
        let streams = self.streams.values().filter_map(Stream::next_due).min();
        let timers = Some(self.next_publish.min(self.next_review));
        earliest(earliest(streams, self.outflow.next_due()), timers)
    }

    fn take_commands(&mut self, now: Nanos) {
        // What came while this loop runs waits for the next ring: a flood of commands cannot hold the shard.
        for _ in 0..self.mailbox.len() {
            let Ok(command) = self.mailbox.try_recv() else { return };
            match command {
                Command::Open(key, intake) => {
                    let stream = Stream {
                        intake: *intake,
                        ticking: false,
                        own_ticks: None,
                        armed: false,
                        polled_at: 0,
                        burst: None,
                        repoll_at: None,
                        clusters: 0,
                        datagrams: 0,
                    };
                    self.streams.insert(key, stream);
                    self.register(key);
                }
                Command::Close(key) => {
                    self.unregister(key);
                    self.streams.remove(&key);
                    self.outflow.set_ticking(key, false, now);
                }
                Command::Intake(key, command) => {
                    self.unregister(key);
                    if let Some(stream) = self.streams.get_mut(&key) {
                        stream.intake.handle(command, now);
                        (stream.burst, stream.repoll_at) = (None, None);
                    }
                    self.register(key);
                    // A driver that goes leaves the packets of an unfinished datagram behind.
                    self.outflow.arrived(key, false, now);
                }
                Command::Outflow(command) => self.outflow.handle(command, now),
                Command::Hold(time) => hold(self.clock, time),
            }
        }
    }

    fn register(&mut self, key: StreamKey) {
        if let Some(stream) = self.streams.get_mut(&key)
            && let Some(socket) = stream.intake.socket()
        {
            stream.armed = self.poller.sockets().add(socket, Token(key)).is_ok();
        }
    }

    fn unregister(&mut self, key: StreamKey) {
        if let Some(stream) = self.streams.get_mut(&key)
            && let Some(socket) = stream.intake.socket()
        {
            // It may be unknown to the poller if adding failed: nothing to take back then.
            let _ = self.poller.sockets().remove(socket);
            stream.armed = false;
        }
    }

    fn readable(&mut self, key: StreamKey, now: Nanos) {
        let Some(stream) = self.streams.get_mut(&key) else { return };
        stream.armed = false;
        let datagrams = stream.poll(&mut self.tools, now);
        if stream.ticking {
            // Was armed before it began to tick; from here on the outputs' moments poll it.
            if datagrams > 0 {
                self.outflow.arrived(key, false, now);
            }
            return;
        }
        let bursty = stream.datagrams >= 2 * stream.clusters;
        if datagrams > 0 && bursty && !self.outflow.schedule(key).immediate {
            // The rest of a burst is microseconds away: let it come in, then send all of it at once.
            stream.burst = Some((now, datagrams));
            stream.repoll_at = Some(now + SETTLE);
            return;
        }
        if datagrams > 0 {
            self.outflow.arrived(key, false, now);
        }
        self.rearm(key);
    }

    fn rearm(&mut self, key: StreamKey) {
        if let Some(stream) = self.streams.get_mut(&key)
            && !stream.armed
            && let Some(socket) = stream.intake.socket()
        {
            // Unknown to the poller when adding it failed for want of memory: then it is added now.
            let rearmed = self.poller.sockets().rearm(socket, Token(key));
            stream.armed = rearmed.or_else(|_| self.poller.sockets().add(socket, Token(key))).is_ok();
        }
    }

    fn poll_due(&mut self, now: Nanos) {
        let mut settled = Vec::new();
        for (&key, stream) in &mut self.streams {
            if stream.next_due().is_none_or(|due| due > now) {
                continue;
            }
            if stream.burst.is_none() {
                stream.repoll_at = None;
            }
            let datagrams = stream.poll(&mut self.tools, now);
            match stream.burst {
                Some((since, so_far)) => {
                    let total = so_far + datagrams;
                    if datagrams > 0 && total < LARGE_BURST && now - since < LONG_BURST {
                        stream.burst = Some((since, total));
                        stream.repoll_at = Some(now + SETTLE);
                    } else {
                        (stream.burst, stream.repoll_at) = (None, None);
                        self.outflow.arrived(key, total >= BURST, now);
                        settled.push(key);
                    }
                }
                // What a moment finds has gathered since the last one: no burst.
                None if datagrams > 0 => {
                    self.outflow.arrived(key, !stream.ticking && datagrams >= BURST, now);
                }
                None => {}
            }
        }
        settled.into_iter().for_each(|key| self.rearm(key));
    }

    fn walk(&mut self, now: Nanos) {
        let Self { streams, tools, outflow, clock, .. } = self;
        outflow.walk(now, &mut |key| {
            let now = clock();
            match streams.get_mut(&key) {
                Some(stream) if now.saturating_sub(stream.polled_at) > FRESH => stream.poll(tools, now),
                _ => 0,
            }
        });
    }

    /// Decides for each stream which way of polling it wakes the thread less often.
    fn review(&mut self, now: Nanos) {
        let mut rearm = Vec::new();
        for (&key, stream) in &mut self.streams {
            let (here, elsewhere) = (self.outflow.schedule(key), stream.intake.demand());
            let ticks = here.ticks_per_second.max(elsewhere.ticks_per_second).max(IDLE_TICKS);
            // The counts are halved at every review, so in a steady state they are of two intervals. Waiting for
            // arrivals takes a wake for the arrival and, mostly, one for the flush after it.
            let wakes = stream.clusters / 2 * (1_000_000_000 / REVIEW) as u32 * 2;
            let by_arrival = if stream.ticking { wakes * 3 / 2 } else { wakes };
            let ticking = stream.intake.socket().is_some()
                && !here.immediate
                && !elsewhere.immediate
                && by_arrival > ticks;
            stream.own_ticks =
                (ticking && here.ticks_per_second < ticks).then(|| 1_000_000_000 / Nanos::from(ticks));
            if ticking != stream.ticking {
                stream.ticking = ticking;
                self.outflow.set_ticking(key, ticking, now);
            }
            if !ticking && stream.burst.is_none() {
                rearm.push(key);
            }
            stream.clusters /= 2;
            stream.datagrams /= 2;
        }
        rearm.into_iter().for_each(|key| self.rearm(key));
    }
}

fn earliest(a: Option<Nanos>, b: Option<Nanos>) -> Option<Nanos> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

fn hold(clock: fn() -> Nanos, time: Duration) {
    let until = clock() + time.as_nanos() as u64;
    while clock() < until {
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

const MAILBOX: usize = 16_384;
const PUBLISH: Nanos = 500_000_000;
const REVIEW: Nanos = 250_000_000;
/// A stream polled so recently is not polled again before a flush.
const FRESH: Nanos = 50_000;
/// Pause after which a burst counts as over.
const SETTLE: Nanos = 300_000;
/// How often a busy stream without outputs is polled.
const IDLE_TICKS: u32 = 100;
/// How long a stream may go without a poll when its outputs' moments are gone.
const BACKSTOP: Nanos = 50_000_000;
const BURST: u32 = 4;
const LARGE_BURST: u32 = 44;
const LONG_BURST: Nanos = 2_000_000;
