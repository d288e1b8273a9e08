//! The loop of one data thread: sockets and moments in time enter, intakes are read and outflows are walked. One
//! thread, no task and no queue per output; never waits for anything but time and readable sockets.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver as Mailbox, Sender, TrySendError};

use super::stream::{Stream, earliest};
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

    /// The stream that is polled before a command is carried out, so that an output which leaves gets what came
    /// before it left.
    fn reads(&self, _command: &Self::Command) -> Option<StreamKey> {
        None
    }

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

    /// The shard ends: sends what waits, whatever its moment.
    fn finish(&mut self, _now: Nanos) {}
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
    /// When streams want to be polled, so that a wake costs what is due and not what there is. An entry that is not
    /// its stream's `timer` is void.
    timers: BinaryHeap<Reverse<(Nanos, StreamKey)>>,
    /// Scratch: streams that are polled in this turn.
    due: Vec<StreamKey>,
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
        let shard = Shard::new(clock, poller, mailbox, Arc::clone(&stopping), outflow(wakes));
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

impl<I: Intake, O: Outflow> Shard<I, O> {
    fn new(
        clock: fn() -> Nanos,
        poller: Poller,
        mailbox: Mailbox<Command<I, O>>,
        stopping: Arc<AtomicBool>,
        outflow: O,
    ) -> Self {
        Self {
            clock,
            poller,
            mailbox,
            stopping,
            tools: Tools { receiver: Receiver::new() },
            streams: HashMap::new(),
            timers: BinaryHeap::new(),
            due: Vec::new(),
            outflow,
            next_publish: 0,
            next_review: 0,
        }
    }

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
        // What was asked for before the end is still done: an engine that drains takes its outputs away first.
        self.take_commands(now);
        self.outflow.finish(now);
        self.outflow.publish(now);
    }

    fn next_due(&mut self) -> Option<Nanos> {
        let own = Some(self.next_publish.min(self.next_review));
        earliest(earliest(self.next_timer(), self.outflow.next_due()), own)
    }

    /// When the first stream wants to be polled. A timer whose stream has more time by now is set again here, and
    /// not at every poll that moved it: most polls do.
    fn next_timer(&mut self) -> Option<Nanos> {
        while let Some(&Reverse((at, key))) = self.timers.peek() {
            if let Some(stream) = self.streams.get_mut(&key).filter(|stream| stream.timer == Some(at)) {
                if stream.next_due() == Some(at) {
                    return Some(at);
                }
                stream.timer = None;
            }
            self.timers.pop();
            self.arm_timer(key);
        }
        None
    }

    /// Sees to a timer that is not later than the stream's next moment.
    fn arm_timer(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.get_mut(&key) else { return };
        let Some(due) = stream.next_due() else { return };
        if stream.timer.is_none_or(|timer| due < timer) {
            stream.timer = Some(due);
            self.timers.push(Reverse((due, key)));
        }
    }

    fn take_commands(&mut self, now: Nanos) {
        // What came while this loop runs waits for the next ring: a flood of commands cannot hold the shard.
        for _ in 0..self.mailbox.len() {
            let Ok(command) = self.mailbox.try_recv() else { return };
            match command {
                Command::Open(key, intake) => {
                    self.streams.insert(key, Stream::new(*intake));
                    self.register(key);
                    self.arm_timer(key);
                }
                Command::Close(key) => {
                    self.unregister(key);
                    self.streams.remove(&key);
                    self.outflow.set_ticking(key, false, now);
                }
                Command::Intake(key, command) => {
                    self.refresh(key, now);
                    self.unregister(key);
                    if let Some(stream) = self.streams.get_mut(&key) {
                        stream.intake.handle(command, now);
                        (stream.burst, stream.repoll_at) = (None, None);
                    }
                    self.register(key);
                    self.arm_timer(key);
                    // A driver that goes leaves the packets of an unfinished datagram behind.
                    self.outflow.arrived(key, false, now);
                }
                Command::Outflow(command) => {
                    if let Some(key) = self.outflow.reads(&command) {
                        self.refresh(key, now);
                    }
                    self.outflow.handle(command, now);
                }
                Command::Hold(time) => hold(self.clock, time),
            }
        }
    }

    /// Takes what came before a command: a stream that is polled at given moments may have something waiting.
    fn refresh(&mut self, key: StreamKey, now: Nanos) {
        let Some(stream) = self.streams.get_mut(&key) else { return };
        if now.saturating_sub(stream.polled_at) > FRESH && stream.poll(&mut self.tools, now) > 0 {
            self.outflow.arrived(key, false, now);
        }
        self.arm_timer(key);
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
            return self.arm_timer(key);
        }
        let bursty = stream.datagrams >= 2 * stream.clusters;
        if datagrams > 0 && bursty && !self.outflow.schedule(key).immediate {
            // The rest of a burst is microseconds away: let it come in, then send all of it at once.
            stream.burst = Some((now, datagrams));
            stream.repoll_at = Some(now + SETTLE);
            return self.arm_timer(key);
        }
        if datagrams > 0 {
            self.outflow.arrived(key, false, now);
        }
        self.arm_timer(key);
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
        // Taken out first: a stream that is due again at once waits until sockets and outputs had their turn.
        let mut due = std::mem::take(&mut self.due);
        while let Some(&Reverse((at, key))) = self.timers.peek()
            && at <= now
        {
            self.timers.pop();
            if let Some(stream) = self.streams.get_mut(&key).filter(|stream| stream.timer == Some(at)) {
                stream.timer = None;
                due.push(key);
            }
        }
        for key in due.drain(..) {
            self.poll_if_due(key, now);
            self.arm_timer(key);
        }
        self.due = due;
    }

    fn poll_if_due(&mut self, key: StreamKey, now: Nanos) {
        let Some(stream) = self.streams.get_mut(&key) else { return };
        if stream.next_due().is_none_or(|due| due > now) {
            return;
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
                    self.rearm(key);
                }
            }
            // What a moment finds has gathered since the last one: no burst.
            None if datagrams > 0 => {
                self.outflow.arrived(key, !stream.ticking && datagrams >= BURST, now);
            }
            None => {}
        }
    }

    fn walk(&mut self, now: Nanos) {
        let Self { streams, tools, outflow, clock, due, .. } = self;
        outflow.walk(now, &mut |key| {
            let now = clock();
            match streams.get_mut(&key) {
                Some(stream) if now.saturating_sub(stream.polled_at) > FRESH => {
                    due.push(key);
                    stream.poll(tools, now)
                }
                _ => 0,
            }
        });
        let mut polled = std::mem::take(&mut self.due);
        polled.drain(..).for_each(|key| self.arm_timer(key));
        self.due = polled;
    }

    /// Decides for each stream which way of polling it wakes the thread less often.
    fn review(&mut self, now: Nanos) {
        let (mut rearm, mut changed) = (Vec::new(), Vec::new());
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
            // Moments of outputs are enough as long as little waits for them in the socket.
            let needed = match here.ticks_per_second {
                0 => IDLE_TICKS,
                _ => (stream.datagrams / 2 * (1_000_000_000 / REVIEW) as u32 / WAITING).min(IDLE_TICKS),
            };
            let needed = needed.max(elsewhere.ticks_per_second);
            let own_ticks =
                (ticking && here.ticks_per_second < needed).then(|| 1_000_000_000 / Nanos::from(needed));
            if (stream.ticking, stream.own_ticks) != (ticking, own_ticks) {
                changed.push(key);
            }
            stream.own_ticks = own_ticks;
            if ticking != stream.ticking {
                stream.ticking = ticking;
                self.outflow.set_ticking(key, ticking, now);
            }
            if !ticking && !stream.armed && stream.burst.is_none() {
                rearm.push(key);
            }
            stream.clusters /= 2;
            stream.datagrams /= 2;
        }
        changed.into_iter().for_each(|key| self.arm_timer(key));
        rearm.into_iter().for_each(|key| self.rearm(key));
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
/// Datagrams that may wait in a socket for a moment: where nobody raised the limits of the kernel it takes 180.
const WAITING: u32 = 64;
const BURST: u32 = 4;
const LARGE_BURST: u32 = 44;
const LONG_BURST: Nanos = 2_000_000;

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;
    use std::sync::atomic::AtomicUsize;

    use proptest::prelude::*;

    use super::*;

    /// Wants to be polled at given moments, and takes one of them at each poll.
    struct Script {
        moments: Vec<Nanos>,
        polled: Arc<parking_lot::Mutex<Vec<Nanos>>>,
        asked: Arc<AtomicUsize>,
        socket: Option<UdpSocket>,
    }

    impl Intake for Script {
        /// Moments that take the place of those there were.
        type Command = Vec<Nanos>;

        fn handle(&mut self, moments: Vec<Nanos>, _: Nanos) {
            self.moments = moments;
        }

        fn socket(&self) -> Option<BorrowedFd<'_>> {
            self.socket.as_ref().map(AsFd::as_fd)
        }

        fn poll(&mut self, _: &mut Tools, now: Nanos) -> Polled {
            self.polled.lock().push(now);
            self.moments.retain(|moment| *moment > now);
            Polled::default()
        }

        fn next_due(&self) -> Option<Nanos> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            self.moments.iter().min().copied()
        }

        fn demand(&self) -> Schedule {
            Schedule::default()
        }

        fn publish(&mut self, _: Nanos) {}
    }

    /// Polls what it is told to when it is walked, at so many moments a second.
    #[derive(Default)]
    struct Walker(Vec<StreamKey>, u32);

    impl Outflow for Walker {
        type Command = StreamKey;

        fn handle(&mut self, stream: StreamKey, _: Nanos) {
            self.0.push(stream);
        }

        fn arrived(&mut self, _: StreamKey, _: bool, _: Nanos) {}

        fn rang(&mut self, _: Nanos) {}

        fn walk(&mut self, _: Nanos, refresh: &mut dyn FnMut(StreamKey) -> u32) {
            self.0.drain(..).for_each(|stream| assert_eq!(refresh(stream), 0));
        }

        fn next_due(&mut self) -> Option<Nanos> {
            None
        }

        fn schedule(&self, _: StreamKey) -> Schedule {
            Schedule { immediate: false, ticks_per_second: self.1 }
        }

        fn set_ticking(&mut self, _: StreamKey, _: bool, _: Nanos) {}

        fn publish(&mut self, _: Nanos) {}
    }

    thread_local! {
        static NOW: Cell<Nanos> = const { Cell::new(0) };
    }

    /// A shard on simulated time, and what is seen of its streams.
    struct Bench {
        shard: Shard<Script, Walker>,
        mail: Sender<Command<Script, Walker>>,
        polled: Vec<Arc<parking_lot::Mutex<Vec<Nanos>>>>,
        asked: Arc<AtomicUsize>,
    }

    impl Bench {
        fn new() -> Self {
            NOW.set(0);
            let (mail, mailbox) = crossbeam_channel::bounded(MAILBOX);
            let shard =
                Shard::new(|| NOW.get(), Poller::new().unwrap(), mailbox, Arc::default(), Walker::default());
            Self { shard, mail, polled: Vec::new(), asked: Arc::default() }
        }

        fn open(&mut self, moments: Vec<Nanos>) {
            let polled = Arc::default();
            let (seen, asked) = (Arc::clone(&polled), Arc::clone(&self.asked));
            let script = Script { moments, polled: seen, asked, socket: None };
            let key = self.polled.len() as StreamKey;
            self.polled.push(polled);
            self.send(Command::Open(key, Box::new(script)));
        }

        fn send(&mut self, command: Command<Script, Walker>) {
            assert!(self.mail.try_send(command).is_ok());
            self.shard.take_commands(NOW.get());
        }

        /// One turn of the loop at that time, without its wait.
        fn turn(&mut self, now: Nanos) {
            NOW.set(now);
            self.shard.poll_due(now);
            self.shard.walk(now);
        }

        /// When the first stream is due, found the long way.
        fn first_due(&self) -> Option<Nanos> {
            self.shard.streams.values().filter_map(Stream::next_due).min()
        }
    }

    #[test]
    fn a_wake_costs_what_is_due() {
        let mut bench = Bench::new();
        for stream in 0..1000 {
            bench.open((1..=10).map(|round| round * 1_000_000 + stream).collect());
        }
        for stream in 0..1000 {
            let now = 1_000_000 + stream;
            assert_eq!(bench.shard.next_timer(), Some(now));
            let before = bench.asked.load(Ordering::Relaxed);
            bench.turn(now);
            assert_eq!(bench.shard.next_timer(), bench.first_due());
            // The long way asked every one.
            let asked = bench.asked.load(Ordering::Relaxed) - before - 1000;
            assert!(asked <= 6, "{asked} of 1000 streams were looked at");
            assert_eq!(*bench.polled[stream as usize].lock(), [now]);
        }
        assert_eq!(bench.shard.timers.len(), 1000);
    }

    #[test]
    fn a_stream_that_is_due_at_once_again_waits_for_its_next_turn() {
        let mut bench = Bench::new();
        bench.open(vec![5]);
        bench.shard.streams.get_mut(&0).unwrap().repoll_at = Some(1);
        bench.shard.arm_timer(0);
        bench.turn(3);
        assert_eq!(*bench.polled[0].lock(), [3]);
        assert_eq!(bench.shard.next_timer(), Some(5));
    }

    #[test]
    fn what_came_before_a_command_is_taken_before_it() {
        let mut bench = Bench::new();
        bench.open(vec![]);
        NOW.set(5_000_000);
        bench.send(Command::Intake(0, vec![]));
        bench.send(Command::Intake(0, vec![]));
        assert_eq!(*bench.polled[0].lock(), [5_000_000], "once, for nothing can have come since");
    }

    #[test]
    fn what_is_closed_leaves_no_timer() {
        let mut bench = Bench::new();
        bench.open(vec![7]);
        bench.open(vec![9]);
        bench.send(Command::Close(0));
        assert_eq!(bench.shard.next_timer(), Some(9));
        bench.turn(8);
        assert!(bench.polled[0].lock().is_empty());
        assert_eq!(bench.shard.timers.len(), 1);
    }

    #[test]
    fn moments_of_outputs_are_enough_while_little_waits_for_them() {
        let mut bench = Bench::new();
        bench.open(vec![]);
        bench.shard.streams.get_mut(&0).unwrap().intake.socket =
            Some(UdpSocket::bind("127.0.0.1:0").unwrap());
        let mut own_period = |ticks, datagrams_per_second: u32| {
            bench.shard.outflow.1 = ticks;
            let stream = bench.shard.streams.get_mut(&0).unwrap();
            // Counts of two reviews, a quarter of a second apart.
            (stream.clusters, stream.datagrams) = (200, datagrams_per_second / 2);
            bench.shard.review(0);
            let stream = &bench.shard.streams[&0];
            assert!(stream.ticking);
            stream.own_ticks
        };
        assert_eq!(own_period(0, 400), Some(10_000_000), "nobody else asks");
        assert_eq!(own_period(50, 400), None);
        assert_eq!(own_period(25, 1_600), None, "64 datagrams at a time");
        assert_eq!(own_period(25, 3_200), Some(20_000_000));
        assert_eq!(own_period(50, 100_000), Some(10_000_000), "not more often than without outputs");
        assert_eq!(own_period(400, 100_000), None);
    }

    proptest! {
        /// Whatever moves a stream's moment, the shard wakes for the first one and polls exactly what is due.
        #[test]
        fn the_first_moment_is_never_missed(
            steps in proptest::collection::vec((0usize..4, 0u64..8, 1u64..60, 1u64..400_000), 1..80)
        ) {
            let mut bench = Bench::new();
            (0..8).for_each(|stream| bench.open(vec![1_000 * stream]));
            let mut now = 0;
            for (kind, stream, count, span) in steps {
                let moments = (1..=count).map(|i| now + i * span).collect();
                match kind {
                    0 => bench.send(Command::Intake(stream, moments)),
                    1 => bench.send(Command::Outflow(stream)),
                    _ => {}
                }
                let first = bench.first_due();
                prop_assert_eq!(bench.shard.next_timer(), first);
                now = if kind == 3 { first.unwrap_or(now).max(now) } else { now + span };
                let due: Vec<StreamKey> =
                    (0..8).filter(|key| bench.shard.streams[key].next_due().is_some_and(|at| at <= now)).collect();
                bench.turn(now);
                for key in due {
                    let polled = bench.polled[key as usize].lock();
                    prop_assert_eq!(polled.last().copied(), Some(now));
                }
                prop_assert_eq!(bench.shard.next_timer(), bench.first_due());
            }
        }
    }
}
