//! A bad network in user space: datagrams of one client enter, and leave for one server and back, late, out of
//! order, or never. It never looks further into them than an SRT header, and only to count and to spare handshakes.
//!
//! The kernels of most test machines have no netem, and this one repeats itself: the fate of the n-th datagram of a
//! direction follows from the seed alone.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// What a network does to each datagram of each direction, on its own.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Path {
    /// Chance to vanish, 0 to 1. SRT handshakes never do: what is measured begins behind them.
    pub(crate) loss: f64,
    /// Time under way, one direction.
    pub(crate) delay: Duration,
    /// Up to this much more, evenly spread. More than the distance of two datagrams means that they overtake.
    pub(crate) jitter: Duration,
    /// Where the fates begin.
    pub(crate) seed: u64,
    /// The server sees the client's sequence numbers begin with this one, and the client sees its own come back, so
    /// that they wrap for the server when a test wants it. Only without encryption: its key stream depends on them.
    pub(crate) first_sequence: Option<u32>,
    /// Added to every timestamp in both directions, microseconds: clocks of 32 bits that wrap when a test wants it.
    pub(crate) ahead: u32,
}

/// What passed and what did not. Written while the proxy runs.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    /// SRT data packets that arrived here, repeats included.
    pub(crate) data: AtomicU64,
    /// Those among them that say that they are sent again.
    pub(crate) repeats: AtomicU64,
    /// Data packets that vanished, repeats included.
    pub(crate) data_lost: AtomicU64,
    /// Everything else that arrived here.
    pub(crate) control: AtomicU64,
    /// Everything else that vanished.
    pub(crate) control_lost: AtomicU64,
    /// The latest that a datagram left after it was due, in microseconds: what the machine added to the path.
    pub(crate) latest_us: AtomicU64,
}

/// A running proxy. Ends with its owner.
pub(crate) struct Proxy {
    addr: SocketAddr,
    traffic: Arc<Traffic>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Everything vanishes, handshakes too.
    dead: AtomicBool,
}

/// One direction.
struct Way {
    random: fastrand::Rng,
    /// To the server.
    outward: bool,
}

/// A datagram under way; the earliest comes first, and of two for one moment the one that entered first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Parcel {
    due: Instant,
    number: u64,
    outward: bool,
    bytes: Vec<u8>,
}

impl Proxy {
    /// From a free port of loopback, of the server's address family, to `server`.
    pub(crate) fn start(server: SocketAddr, path: Path) -> Self {
        let local: SocketAddr =
            if server.is_ipv4() { ([127, 0, 0, 1], 0).into() } else { "[::1]:0".parse().expect("loopback") };
        Self::on(UdpSocket::bind(local).expect("a free port"), server, path)
    }

    /// On a socket that is already bound.
    pub(crate) fn on(near: UdpSocket, server: SocketAddr, path: Path) -> Self {
        let addr = near.local_addr().expect("bound");
        let far = UdpSocket::bind((addr.ip(), 0)).expect("a free port");
        far.connect(server).expect("a way on loopback");
        for socket in [&near, &far] {
            socket.set_nonblocking(true).expect("O_NONBLOCK");
            widen(socket);
        }
        let (traffic, shared) = (Arc::new(Traffic::default()), Arc::new(Shared::default()));
        let thread = std::thread::spawn({
            let (traffic, shared) = (Arc::clone(&traffic), Arc::clone(&shared));
            move || Relay::new(near, far, path, traffic).run(&shared)
        });
        Self { addr, traffic, shared, thread: Some(thread) }
    }

    /// Where the client sends to.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The counts so far.
    pub(crate) fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// From now on nothing passes (`true`), or everything that the path lets through does.
    pub(crate) fn cut(&self, dead: bool) {
        self.shared.dead.store(dead, Relaxed);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the proxy on {} panicked", self.addr);
        }
    }
}

struct Relay {
    near: UdpSocket,
    far: UdpSocket,
    path: Path,
    traffic: Arc<Traffic>,
    client: Option<SocketAddr>,
    /// What is added to sequence numbers on the way to the server, once a handshake has told.
    shift: u32,
    ways: [Way; 2],
    parcels: BinaryHeap<Reverse<Parcel>>,
    entered: u64,
}

impl Relay {
    fn new(near: UdpSocket, far: UdpSocket, path: Path, traffic: Arc<Traffic>) -> Self {
        // Two directions of one seed, and the same direction of two seeds, share nothing.
        let way = |outward| Way {
            random: fastrand::Rng::with_seed(path.seed.wrapping_mul(2).wrapping_add(u64::from(outward))),
            outward,
        };
        let ways = [way(true), way(false)];
        let parcels = BinaryHeap::new();
        Self { near, far, path, traffic, client: None, shift: 0, ways, parcels, entered: 0 }
    }

    fn run(&mut self, shared: &Shared) {
        // Sleeps end on time instead of up to 50 µs late.
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
        while !shared.stop.load(Relaxed) {
            self.wait();
            let dead = shared.dead.load(Relaxed);
            self.take(0, dead);
            self.take(1, dead);
            self.deliver();
        }
    }

    /// Until something arrives or is due, and for a short while at most.
    fn wait(&self) {
        let due = self.parcels.peek().map(|Reverse(parcel)| parcel.due);
        let pause = due.map_or(IDLE, |due| due.saturating_duration_since(Instant::now()).min(IDLE));
        let pause = Timespec { tv_sec: 0, tv_nsec: i64::from(pause.subsec_nanos()) };
        let mut both = [PollFd::new(&self.near, PollFlags::IN), PollFd::new(&self.far, PollFlags::IN)];
        // Interrupted is as good as early.
        let _ = poll(&mut both, Some(&pause));
    }

    fn take(&mut self, way: usize, dead: bool) {
        let mut buffer = [0; 2048];
        loop {
            let received = match way {
                0 => self.near.recv_from(&mut buffer),
                _ => self.far.recv(&mut buffer).map(|length| (length, self.addr_of_far())),
            };
            let (length, from) = match received {
                Ok(received) => received,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                // An ICMP error: nobody listens at the other end yet.
                Err(_) => continue,
            };
            if way == 0 {
                self.client = Some(from);
            }
            let mut bytes = buffer[..length].to_vec();
            let fate = self.decide(way, &bytes);
            if let (Some(delay), false) = (fate, dead) {
                let outward = self.ways[way].outward;
                if let (Some(first), true) = (self.path.first_sequence, outward && is_handshake(&bytes)) {
                    self.shift = first.wrapping_sub(word(&bytes, 24));
                }
                rewrite(
                    &mut bytes,
                    if outward { self.shift } else { self.shift.wrapping_neg() },
                    self.path.ahead,
                );
                self.entered += 1;
                let due = Instant::now() + delay;
                self.parcels.push(Reverse(Parcel { due, number: self.entered, outward, bytes }));
            }
        }
    }

    fn addr_of_far(&self) -> SocketAddr {
        self.far.peer_addr().expect("connected")
    }

    /// How long a datagram is under way; `None`: it vanishes.
    fn decide(&mut self, way: usize, bytes: &[u8]) -> Option<Duration> {
        let random = &mut self.ways[way].random;
        // Drawn for every datagram, so that a spared handshake moves no other fate.
        let (chance, late) = (random.f64(), random.f64());
        let data = bytes.first().is_some_and(|first| first & 0x80 == 0);
        let lost = chance < self.path.loss && !is_handshake(bytes);
        let (all, gone) = match data {
            true => (&self.traffic.data, &self.traffic.data_lost),
            false => (&self.traffic.control, &self.traffic.control_lost),
        };
        all.fetch_add(1, Relaxed);
        gone.fetch_add(u64::from(lost), Relaxed);
        if data && bytes.get(4).is_some_and(|flags| flags & RETRANSMITTED != 0) {
            self.traffic.repeats.fetch_add(1, Relaxed);
        }
        (!lost).then(|| self.path.delay + self.path.jitter.mul_f64(late))
    }

    fn deliver(&mut self) {
        loop {
            let now = Instant::now();
            match self.parcels.peek() {
                Some(Reverse(parcel)) if parcel.due <= now => {}
                _ => return,
            }
            let Some(Reverse(parcel)) = self.parcels.pop() else { return };
            let late = now.saturating_duration_since(parcel.due).as_micros() as u64;
            self.traffic.latest_us.fetch_max(late, Relaxed);
            // Whoever is not there gets nothing, as in any network.
            match (parcel.outward, self.client) {
                (true, _) => drop(self.far.send(&parcel.bytes)),
                (false, Some(client)) => drop(self.near.send_to(&parcel.bytes, client)),
                (false, None) => {}
            }
        }
    }
}

/// Control type 0 (draft-sharabayko-srt-01, 3.2.1).
fn is_handshake(bytes: &[u8]) -> bool {
    bytes.len() >= 64 && bytes[..2] == [0x80, 0]
}

/// Moves what counts in a packet: sequence numbers by `by`, the timestamp by `time`.
fn rewrite(bytes: &mut [u8], by: u32, time: u32) {
    if bytes.len() < 16 || (by, time) == (0, 0) {
        return;
    }
    change(bytes, 8, |word| word.wrapping_add(time));
    let shifted = |word: u32| word & 0x8000_0000 | word.wrapping_add(by) & 0x7fff_ffff;
    match (bytes[0] & 0x80 != 0, u16::from_be_bytes([bytes[0] & 0x7f, bytes[1]])) {
        (false, _) => change(bytes, 0, shifted),
        // A handshake's initial sequence number, an ACK's next one.
        (true, 0) => change(bytes, 24, shifted),
        (true, 2) => change(bytes, 16, shifted),
        // A NAK's list, whose words mark the beginning of a range in their first bit; a drop request's range.
        (true, 3 | 7) => (16..bytes.len() / 4 * 4).step_by(4).for_each(|at| change(bytes, at, shifted)),
        _ => {}
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_be_bytes)
}

fn change(bytes: &mut [u8], at: usize, new: impl Fn(u32) -> u32) {
    if let Some(word) = bytes.get_mut(at..at + 4).and_then(|word| <&mut [u8; 4]>::try_from(word).ok()) {
        *word = new(u32::from_be_bytes(*word)).to_be_bytes();
    }
}

fn widen(socket: &UdpSocket) {
    // Root may exceed the kernel's limit; for others the default has to do.
    if rustix::net::sockopt::set_socket_recv_buffer_size_force(socket, RECEIVE_BUFFER).is_err() {
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size(socket, RECEIVE_BUFFER);
    }
}

/// How soon an order to end is obeyed.
const IDLE: Duration = Duration::from_millis(20);
/// Bit R of a data packet's second word (draft-sharabayko-srt-01, 3.1).
const RETRANSMITTED: u8 = 0x04;
const RECEIVE_BUFFER: usize = 4 << 20;
