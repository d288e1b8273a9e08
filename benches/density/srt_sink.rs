//! Receivers of SRT that cost next to nothing, so that they leave the machine to what is measured: handshakes and
//! data come in, answers and full acknowledgements go out. Never decrypts, waits, puts in order or asks for repeats.
//!
//! Written from draft-sharabayko-srt-01 alone, not from the engine's SRT: two readings of one text that agree.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};

use crate::Result;
use crate::helper::{self, Requests};
use crate::sink::{self, Arrivals, COMPARED, LOOK_AGAIN, RESET, Report, Track};
use crate::stream::Stream;
use crate::sys::{self, Epoll, Inbox, Mailbox, Outbox};

/// Where the receivers are.
#[derive(Serialize, Deserialize)]
pub(crate) struct Setup {
    /// Bit rate of the streams, to know every byte of them.
    pub(crate) megabits_per_second: f64,
    /// The control flow and its address: plain UDP.
    pub(crate) control: (SocketAddrV4, u32),
    /// Receivers of the engine.
    pub(crate) engine: Side,
    /// Receivers of the other side.
    pub(crate) against: Side,
}

/// Who calls whom.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) enum Side {
    /// Senders call here, each as often as it likes.
    Listen(Vec<SocketAddrV4>),
    /// Receivers call there when they are told to, with this stream id.
    Dial(SocketAddrV4, String),
}

/// Request: one more `dial GROUP COUNT MILLISECONDS`, spread evenly over that time. Answered with `null` at once.
pub(crate) const DIAL: &str = "dial";
/// The groups as requests name them: the engine's, the other side's, and latecomers at the engine.
pub(crate) const ENGINE: usize = 0;
/// See [`ENGINE`].
pub(crate) const AGAINST: usize = 1;
/// See [`ENGINE`].
pub(crate) const LATE: usize = 2;

struct Group {
    sockets: Vec<Bound>,
    room: Room,
}

/// The receivers of a group, whichever socket they use.
struct Room {
    side: Side,
    /// What the ids of this group begin with.
    first_id: u32,
    peers: Vec<Peer>,
    /// Callers by address and id.
    callers: HashMap<(SocketAddrV4, u32), usize>,
    arrivals: Arrivals,
    /// When the last order to dial came.
    ordered_at: u64,
    /// The packet that would go on with the train of consecutive packets of one peer that comes in. A train was sent
    /// in one piece, as far as can be seen from here.
    train: Option<(usize, u32)>,
}

struct Bound {
    socket: Socket,
    outbox: Outbox,
    /// The kernel's count of overflows at the last reset.
    overflows: u32,
}

struct Peer {
    socket: usize,
    address: SocketAddrV4,
    /// Its socket id.
    id: u32,
    stage: Stage,
    /// When the connection began, for timestamps.
    born: u64,
    /// The next sequence number.
    next: u32,
    acknowledged: u32,
    acknowledgements: u32,
    last_sent: u64,
    last_heard: u64,
    track: Track,
}

#[derive(Clone, Copy, PartialEq)]
enum Stage {
    /// A caller of ours that does not call before its `born`.
    Asking,
    /// A caller of ours that has this cookie.
    Concluding(u32),
    Open,
    Closed,
}

/// Runs the receivers until their requests end.
pub(crate) fn run(setup: &Setup, mut requests: Requests) -> Result<()> {
    let stream = Stream::new(setup.megabits_per_second, true);
    let mut control = sink::Group::open(&[setup.control])?;
    let late = match &setup.engine {
        Side::Listen(_) => Side::Listen(Vec::new()),
        dial @ Side::Dial(..) => dial.clone(),
    };
    let sides = [setup.engine.clone(), setup.against.clone(), late];
    let mut groups: Vec<Group> =
        (0..).zip(sides).map(|(place, side)| Group::open(place, side)).collect::<Result<_>>()?;
    let mut orders = Epoll::new()?;
    orders.add(&io::stdin(), 0)?;
    let (mut inbox, mut mailbox) = (Inbox::new(), Mailbox::new());
    let mut acknowledged_at = 0;
    helper::ready()?;
    loop {
        control.receive(0, &mut inbox, &stream)?;
        for group in &mut groups {
            group.receive(&mut mailbox, &stream)?;
        }
        let now = sys::now();
        if now - acknowledged_at >= ACKNOWLEDGE_EVERY {
            acknowledged_at = now;
            groups.iter_mut().for_each(|Group { sockets, room }| room.acknowledge(sockets, now));
        }
        for Group { sockets, room } in &mut groups {
            room.call(sockets, now);
            sockets.iter_mut().for_each(|bound| bound.outbox.flush(&bound.socket));
        }
        if orders.wait_at_most(0)?.count() > 0 {
            let Some(request) = requests.next() else { return Ok(()) };
            obey(&request?, &mut groups, &mut control, now)?;
        }
        // Sockets that nobody sleeps on, as at the other sink.
        std::thread::sleep(LOOK_AGAIN);
    }
}

fn obey(request: &str, groups: &mut [Group], control: &mut sink::Group, now: u64) -> Result<()> {
    if let Some(order) = request.strip_prefix(DIAL) {
        let order: Vec<usize> =
            order.split_whitespace().map(str::parse).collect::<std::result::Result<_, _>>()?;
        let [group, count, milliseconds] = order[..] else { return Err("dial what?".into()) };
        groups[group].dial(count, milliseconds as u64 * 1_000_000, now);
        return helper::answer(&Ok(()));
    }
    let mut reports = groups.iter().map(Group::report);
    let mut next = || reports.next().unwrap_or_else(|| Ok(Arrivals::default()));
    let report = Report { engine: next()?, against: next()?, late: next()?, control: control.report()? };
    if request == RESET {
        control.reset()?;
        groups.iter_mut().try_for_each(Group::reset)?;
    }
    helper::answer(&Ok(report))
}

impl Group {
    fn open(place: u32, side: Side) -> Result<Self> {
        let addresses = match &side {
            Side::Listen(addresses) => addresses.clone(),
            Side::Dial(..) => vec![SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0); CALLING_SOCKETS],
        };
        let sockets = addresses.into_iter().map(Bound::open).collect::<Result<_>>()?;
        let room = Room {
            side,
            first_id: (place + 1) << 20,
            peers: Vec::new(),
            callers: HashMap::new(),
            arrivals: Arrivals::default(),
            ordered_at: 0,
            train: None,
        };
        Ok(Self { sockets, room })
    }

    fn receive(&mut self, mailbox: &mut Mailbox, stream: &Stream) -> io::Result<()> {
        let Self { sockets, room } = self;
        for (place, Bound { socket, outbox, .. }) in sockets.iter_mut().enumerate() {
            let now = sys::now();
            room.train = None;
            mailbox.drain(socket, |from, datagram| match words::<4>(datagram) {
                Some(header) if header[0] >> 31 == 0 => room.take(header, &datagram[16..], now, stream),
                Some(header) => room.answer(place, from, header, datagram, now, outbox),
                None => {}
            })?;
        }
        Ok(())
    }

    fn dial(&mut self, count: usize, spread: u64, now: u64) {
        let Side::Dial(to, _) = self.room.side else { return };
        let Room { peers, arrivals, ordered_at, .. } = &mut self.room;
        *ordered_at = now;
        arrivals.connections.dialled_in = None;
        for number in 0..count {
            let place = peers.len() % self.sockets.len();
            let compare = peers.iter().filter(|peer| peer.stage != Stage::Closed).count() < COMPARED;
            let at = now + spread * number as u64 / count.max(1) as u64;
            peers.push(Peer::new(place, to, Track::new(0, compare), at));
        }
    }

    fn report(&self) -> Result<Arrivals> {
        let Room { arrivals, peers, .. } = &self.room;
        let mut arrivals = arrivals.clone();
        arrivals.connections.open = peers.iter().filter(|peer| peer.stage == Stage::Open).count();
        for bound in &self.sockets {
            let overflows = sys::overflows(&bound.socket)?;
            arrivals.connections.dropped += u64::from(overflows.wrapping_sub(bound.overflows));
        }
        Ok(arrivals)
    }

    fn reset(&mut self) -> Result<()> {
        for bound in &mut self.sockets {
            bound.overflows = sys::overflows(&bound.socket)?;
        }
        let Room { arrivals, peers, callers, .. } = &mut self.room;
        peers.iter_mut().for_each(|peer| peer.track = peer.track.renewed());
        *arrivals = Arrivals::default();
        // Whoever calls again from there with the same id is somebody new.
        callers.retain(|_, index| peers[*index].stage == Stage::Open);
        Ok(())
    }
}

impl Room {
    /// A data packet.
    fn take(&mut self, header: [u32; 4], payload: &[u8], now: u64, stream: &Stream) {
        let index = header[3].wrapping_sub(self.first_id) as usize;
        let Some(peer) = self.peers.get_mut(index).filter(|peer| peer.stage == Stage::Open) else { return };
        let follows = self.train.replace((index, header[0].wrapping_add(1))) == Some((index, header[0]));
        self.arrivals.deliveries += u64::from(!follows);
        peer.take(header, payload, now, &mut self.arrivals, stream);
    }

    /// A control packet.
    fn answer(
        &mut self,
        place: usize,
        from: SocketAddrV4,
        [kind, .., to]: [u32; 4],
        datagram: &[u8],
        now: u64,
        outbox: &mut Outbox,
    ) {
        if kind == HANDSHAKE && matches!(self.side, Side::Listen(_)) {
            return self.greet(place, from, datagram, now, outbox);
        }
        let Some(peer) = self.peers.get_mut(to.wrapping_sub(self.first_id) as usize) else { return };
        peer.last_heard = now;
        match kind {
            HANDSHAKE => {
                peer.proceed(datagram, now);
                self.note_dialled(now);
            }
            SHUTDOWN => peer.stage = Stage::Closed,
            KEY_REQUEST => {
                // Taken as it is: nothing here can be wrong about a key.
                let mut answer = peer.header(KEY_RESPONSE, 0, now);
                answer.extend_from_slice(&datagram[16..]);
                outbox.push(from, &answer);
            }
            _ => {}
        }
    }

    /// A handshake of someone who calls (section 4.3.1).
    fn greet(&mut self, place: usize, from: SocketAddrV4, datagram: &[u8], now: u64, outbox: &mut Outbox) {
        let Some(asked) = Handshake::read(datagram) else { return };
        let mut answer = Handshake { cookie: COOKIE, version: 5, extension: MAGIC, ..asked };
        let mut extensions = Vec::new();
        if asked.kind == CONCLUSION {
            if asked.cookie != COOKIE || asked.version != 5 {
                return;
            }
            let index = *self.callers.entry((from, asked.id)).or_insert_with(|| {
                let compare = self.peers.iter().filter(|peer| peer.stage == Stage::Open).count() < COMPARED;
                let mut peer = Peer::new(place, from, Track::new(0, compare), now);
                (peer.id, peer.stage) = (asked.id, Stage::Open);
                (peer.next, peer.acknowledged) = (asked.sequence, asked.sequence);
                self.peers.push(peer);
                self.peers.len() - 1
            });
            answer.id = self.first_id + index as u32;
            answer.extension = HAS_SRT;
            for (kind, content) in extensions_of(&datagram[64..]) {
                match kind {
                    SRT_REQUEST => extensions.extend(settings(SRT_RESPONSE)),
                    KEY_EXTENSION => {
                        answer.extension |= HAS_KEY;
                        extensions.push((KEY_EXTENSION_RESPONSE << 16) | (content.len() as u32 / 4));
                        extensions.extend(content.as_chunks().0.iter().map(|word| u32::from_be_bytes(*word)));
                    }
                    _ => {}
                }
            }
        }
        let packet = answer.write(asked.id, &extensions);
        outbox.push(from, &packet);
    }

    /// Sends what a caller has to say, again when there was no answer.
    fn call(&mut self, sockets: &mut [Bound], now: u64) {
        let Side::Dial(to, stream_id) = &self.side else { return };
        for (index, peer) in self.peers.iter_mut().enumerate() {
            let waiting = matches!(peer.stage, Stage::Asking | Stage::Concluding(_));
            if !waiting || now < peer.born || now < peer.last_sent + CALL_EVERY {
                continue;
            }
            peer.last_sent = now;
            let mut handshake = Handshake {
                version: 4,
                extension: INDUCTION_OF_A_CALLER,
                sequence: index as u32 * 7919,
                kind: INDUCTION,
                id: self.first_id + index as u32,
                cookie: 0,
            };
            let mut extensions = Vec::new();
            if let Stage::Concluding(cookie) = peer.stage {
                handshake = Handshake {
                    version: 5,
                    extension: HAS_SRT | HAS_CONFIG,
                    kind: CONCLUSION,
                    cookie,
                    ..handshake
                };
                extensions.extend(settings(SRT_REQUEST));
                // Words of the stream id travel with their last character first (3.2.1.3).
                let mut text = stream_id.clone().into_bytes();
                text.resize(text.len().next_multiple_of(4), 0);
                extensions.push((STREAM_ID << 16) | (text.len() as u32 / 4));
                extensions.extend(text.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)));
            }
            sockets[peer.socket].outbox.push(*to, &handshake.write(0, &extensions));
        }
    }

    /// A full acknowledgement for each that got something, a sign of life for each that did not.
    fn acknowledge(&mut self, sockets: &mut [Bound], now: u64) {
        for peer in self.peers.iter_mut().filter(|peer| peer.stage == Stage::Open) {
            let outbox = &mut sockets[peer.socket].outbox;
            if peer.next != peer.acknowledged {
                peer.acknowledged = peer.next;
                peer.acknowledgements += 1;
                let mut packet = peer.header(ACKNOWLEDGE, peer.acknowledgements, now);
                let fields = [peer.next, ROUND_TRIP, ROUND_TRIP / 4, WINDOW, RATE, CAPACITY, RATE * 1316];
                packet.extend(fields.iter().flat_map(|field| field.to_be_bytes()));
                outbox.push(peer.address, &packet);
                peer.last_sent = now;
            } else if now > peer.last_heard + SILENCE {
                peer.stage = Stage::Closed;
            } else if now > peer.last_sent + KEEP_ALIVE {
                let mut packet = peer.header(KEEPALIVE, 0, now);
                packet.extend([0; 4]);
                outbox.push(peer.address, &packet);
                peer.last_sent = now;
            }
        }
    }

    fn note_dialled(&mut self, now: u64) {
        let done = self.peers.iter().all(|peer| matches!(peer.stage, Stage::Open | Stage::Closed));
        if self.ordered_at > 0 && self.arrivals.connections.dialled_in.is_none() && done {
            self.arrivals.connections.dialled_in = Some(now - self.ordered_at);
        }
    }
}

impl Bound {
    fn open(address: SocketAddrV4) -> Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        socket.bind(&address.into()).map_err(|error| format!("the sink cannot bind {address}: {error}"))?;
        sys::grow_receive_buffer(&socket, RECEIVE_BUFFER)?;
        Ok(Self { socket, outbox: Outbox::default(), overflows: 0 })
    }
}

impl Peer {
    fn new(socket: usize, address: SocketAddrV4, track: Track, born: u64) -> Self {
        Self {
            socket,
            address,
            id: 0,
            stage: Stage::Asking,
            born,
            next: 0,
            acknowledged: 0,
            acknowledgements: 0,
            last_sent: 0,
            last_heard: born,
            track,
        }
    }

    fn take(&mut self, header: [u32; 4], payload: &[u8], now: u64, arrivals: &mut Arrivals, stream: &Stream) {
        self.last_heard = now;
        // Distance on a circle of 31 bits (section 3.1).
        let ahead = (header[0].wrapping_sub(self.next) << 1) as i32 >> 1;
        if ahead < 0 {
            arrivals.connections.repeated += 1;
            return;
        }
        arrivals.connections.missing += ahead as u64;
        self.next = header[0].wrapping_add(1) & 0x7fff_ffff;
        if header[1] & KEY_FLAGS == 0 {
            self.track.count(payload, now, arrivals, stream);
        } else {
            self.track.count_unreadable(payload.len(), arrivals);
        }
    }

    /// A handshake that answers a caller of ours.
    fn proceed(&mut self, datagram: &[u8], now: u64) {
        let Some(answer) = Handshake::read(datagram) else { return };
        match (self.stage, answer.kind) {
            (Stage::Asking, INDUCTION) => {
                (self.stage, self.last_sent) = (Stage::Concluding(answer.cookie), 0)
            }
            (Stage::Concluding(_), CONCLUSION) => {
                (self.stage, self.id, self.born) = (Stage::Open, answer.id, now);
                (self.next, self.acknowledged) = (answer.sequence, answer.sequence);
            }
            // Anything else is a refusal (section 4.3) or comes again.
            (Stage::Concluding(_), reason) if reason != INDUCTION => self.stage = Stage::Closed,
            _ => {}
        }
    }

    fn header(&self, kind: u32, information: u32, now: u64) -> Vec<u8> {
        let time = (now.saturating_sub(self.born) / 1000) as u32;
        [kind, information, time, self.id].iter().flat_map(|word| word.to_be_bytes()).collect()
    }
}

/// What counts here of a handshake's body (section 3.2.1).
#[derive(Clone, Copy)]
struct Handshake {
    version: u32,
    /// Cipher in the upper half, extensions in the lower one.
    extension: u32,
    sequence: u32,
    kind: u32,
    id: u32,
    cookie: u32,
}

impl Handshake {
    fn read(datagram: &[u8]) -> Option<Self> {
        let [_, _, _, _, version, extension, sequence, _mtu, _window, kind, id, cookie, ..] =
            words::<16>(datagram)?;
        Some(Self { version, extension, sequence, kind, id, cookie })
    }

    fn write(&self, to: u32, extensions: &[u32]) -> Vec<u8> {
        let Self { version, extension, sequence, kind, id, cookie } = *self;
        let address = u32::from_le_bytes([127, 0, 0, 1]);
        let header = [HANDSHAKE, 0, 0, to];
        let body = [version, extension, sequence, 1500, WINDOW, kind, id, cookie, address, 0, 0, 0];
        header.iter().chain(&body).chain(extensions).flat_map(|word| word.to_be_bytes()).collect()
    }
}

/// An SRT extension: version, flags, latency of both directions (section 3.2.1.1).
fn settings(kind: u32) -> [u32; 4] {
    [kind << 16 | 3, VERSION, FLAGS, LATENCY << 16 | LATENCY]
}

/// Kind and content of each extension.
fn extensions_of(mut bytes: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    std::iter::from_fn(move || {
        let [head] = words::<1>(bytes)?;
        let content = bytes.get(4..4 + 4 * (head as usize & 0xffff))?;
        bytes = &bytes[4 + content.len()..];
        Some((head >> 16, content))
    })
}

fn words<const COUNT: usize>(bytes: &[u8]) -> Option<[u32; COUNT]> {
    let words = bytes.as_chunks().0.get(..COUNT)?;
    let mut numbers = [0; COUNT];
    numbers.iter_mut().zip(words).for_each(|(number, word)| *number = u32::from_be_bytes(*word));
    Some(numbers)
}

/// First words of control packets (section 3.2).
const HANDSHAKE: u32 = 0x8000_0000;
const KEEPALIVE: u32 = 0x8001_0000;
const ACKNOWLEDGE: u32 = 0x8002_0000;
const SHUTDOWN: u32 = 0x8005_0000;
const KEY_REQUEST: u32 = 0xffff_0003;
const KEY_RESPONSE: u32 = 0xffff_0004;
/// Kinds of handshakes.
const INDUCTION: u32 = 1;
const CONCLUSION: u32 = 0xffff_ffff;
/// Extension fields of handshakes.
const INDUCTION_OF_A_CALLER: u32 = 2;
const MAGIC: u32 = 0x4a17;
const HAS_SRT: u32 = 1;
const HAS_KEY: u32 = 2;
const HAS_CONFIG: u32 = 4;
/// Kinds of extensions.
const SRT_REQUEST: u32 = 1;
const SRT_RESPONSE: u32 = 2;
const KEY_EXTENSION: u32 = 3;
const KEY_EXTENSION_RESPONSE: u32 = 4;
const STREAM_ID: u32 = 5;
/// Says that it is encrypted, in the second word of a data packet.
const KEY_FLAGS: u32 = 0x1800_0000;
const COOKIE: u32 = 0x6d69_6c6c;
/// 1.5.1, as what Debian has.
const VERSION: u32 = 0x01_05_01;
/// Time of delivery in both directions, encryption, drop of what is too late, periodic NAK, repeats marked.
const FLAGS: u32 = 0x3f;
/// Milliseconds.
const LATENCY: u32 = 120;

/// Told to senders: microseconds, packets, packets per second, packets per second.
const ROUND_TRIP: u32 = 1000;
const WINDOW: u32 = 8192;
const RATE: u32 = 380;
const CAPACITY: u32 = 10_000;

/// Nanoseconds.
const ACKNOWLEDGE_EVERY: u64 = 10_000_000;
const CALL_EVERY: u64 = 250_000_000;
const KEEP_ALIVE: u64 = 1_000_000_000;
const SILENCE: u64 = 5_000_000_000;

/// Ports that readers call from.
const CALLING_SOCKETS: usize = 16;
/// As much as a thousand streams bring in 40 ms; the kernel counts about twice the payload.
const RECEIVE_BUFFER: usize = 64 << 20;
