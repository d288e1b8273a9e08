//! Bytes enter, KLV packets leave with what is known of where and when they came. Never holds more than the packets
//! under way.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use millrace::wire::klv::{Label, PREFIX, Packet, Set, State, Unit, split};
use millrace::wire::ts::Framer;
use millrace::wire::ts::demux::{Event, Format, Programs};
use millrace::wire::ts::metadata::{Carriage, Metadata};
use millrace::wire::ts::packet::{PCR_HZ, SYNC, pcr_delta};

/// A packet, and where it was found.
pub(super) struct Found<'a> {
    /// Its number, from 1 on.
    pub(super) number: u64,
    /// program_number; none in a file of KLV.
    pub(super) program: Option<u16>,
    pub(super) pid: Option<u16>,
    /// Presentation time of its PES packet, 90 kHz.
    pub(super) pts: Option<u64>,
    pub(super) carriage: Option<Carriage>,
    /// Seconds since the first packet, by the program's clock; by item 2 where there is none.
    pub(super) seconds: Option<f64>,
    /// Its bytes.
    pub(super) bytes: &'a [u8],
    pub(super) packet: Packet<'a>,
    /// What holds now where that was asked for, else what the packet says.
    pub(super) set: Cow<'a, Set<'a>>,
}

/// Whether more packets are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    More,
    Enough,
}

/// Finds packets in whatever comes.
pub(super) struct Extract {
    content: Content,
    /// The first bytes, until they tell what they are.
    sniffed: Vec<u8>,
    counter: Counter,
}

enum Content {
    /// Not known yet.
    Open,
    Transport(Box<Transport>),
    /// Packets one behind the other, and the start of one that is not yet whole.
    Bare(Vec<u8>),
}

struct Transport {
    framer: Framer,
    programs: Programs,
    clocks: BTreeMap<u16, Clock>,
    streams: BTreeMap<(u16, u16), Stream>,
    packets: u64,
}

/// An elementary stream of a program.
struct Stream {
    name: &'static str,
    metadata: Option<Metadata>,
}

/// How long a program has been playing.
#[derive(Default)]
struct Clock {
    last: Option<u64>,
    ticks: u64,
}

/// What is counted and kept over all packets.
struct Counter {
    number: u64,
    hold: bool,
    states: BTreeMap<(Option<u16>, Option<u16>), State>,
    /// First time stamp, of streams without a clock.
    first: Option<u64>,
    junk: u64,
    enough: bool,
}

impl Extract {
    /// For datagrams of a peer, or for a file.
    pub(super) fn new(live: bool, hold: bool) -> Self {
        let content = if live {
            Content::Transport(Box::new(Transport::new(Framer::datagrams())))
        } else {
            Content::Open
        };
        let counter =
            Counter { number: 0, hold, states: BTreeMap::new(), first: None, junk: 0, enough: false };
        Self { content, sniffed: Vec::new(), counter }
    }

    /// Takes the next bytes.
    pub(super) fn push(&mut self, bytes: &[u8], take: &mut dyn FnMut(&Found<'_>) -> Taken) -> Taken {
        if matches!(self.content, Content::Open) {
            self.sniffed.extend_from_slice(bytes);
            if self.sniffed.len() < SNIFFED {
                return Taken::More;
            }
            let sniffed = std::mem::take(&mut self.sniffed);
            self.content = judge(&sniffed);
            return self.read(&sniffed, take);
        }
        self.read(bytes, take)
    }

    /// Nothing more comes.
    pub(super) fn finish(&mut self, take: &mut dyn FnMut(&Found<'_>) -> Taken) {
        if matches!(self.content, Content::Open) {
            let sniffed = std::mem::take(&mut self.sniffed);
            self.content = judge(&sniffed);
            self.read(&sniffed, take);
        }
        if self.counter.enough {
            return;
        }
        match &mut self.content {
            Content::Open => {}
            Content::Bare(rest) => {
                let rest = std::mem::take(rest);
                self.counter.unit(&rest, Place::default(), take);
            }
            Content::Transport(transport) => transport.finish(&mut self.counter, take),
        }
    }

    /// Why no packet was found in so many bytes.
    pub(super) fn nothing(&self, bytes: u64, program: Option<u16>, pid: Option<u16>) -> String {
        let transport = match &self.content {
            Content::Transport(transport) if transport.packets > 0 => transport,
            _ => {
                return format!(
                    "neither a transport stream nor KLV: {bytes} bytes without packets of 188 bytes that start with 0x47, \
                     and without the label 060e2b34 that KLV packets start with"
                );
            }
        };
        let seen = transport.streams.iter().fold(String::new(), |mut text, ((program, pid), stream)| {
            let comma = if text.is_empty() { "" } else { ", " };
            let _ = write!(text, "{comma}{} on PID {pid:#06x} of program {program}", stream.name);
            text
        });
        let what = if self.counter.number > 0 {
            let of = |name, number: Option<u16>| number.map_or(String::new(), |n| format!(" of {name} {n}"));
            format!("no KLV{}{}, but others have it", of("program", program), of("PID", pid))
        } else {
            "no KLV".into()
        };
        match seen.is_empty() {
            true => {
                format!("{what} in {} transport packets: no program map table was found", transport.packets)
            }
            false => format!("{what}; there is {seen}"),
        }
    }

    fn read(&mut self, bytes: &[u8], take: &mut dyn FnMut(&Found<'_>) -> Taken) -> Taken {
        match &mut self.content {
            Content::Open => {}
            Content::Transport(transport) => transport.push(bytes, &mut self.counter, take),
            Content::Bare(carry) => {
                let mut all = std::mem::take(carry);
                all.extend_from_slice(bytes);
                for unit in split(&all) {
                    match unit {
                        Unit::Partial(start) => carry.extend_from_slice(start),
                        Unit::Packet(unit) | Unit::Cut(unit) | Unit::Junk(unit) => {
                            self.counter.unit(unit, Place::default(), take);
                        }
                    }
                }
            }
        }
        if self.counter.enough { Taken::Enough } else { Taken::More }
    }
}

/// Where units of a PES packet came.
#[derive(Clone, Copy, Default)]
struct Place {
    program: Option<u16>,
    pid: Option<u16>,
    pts: Option<u64>,
    carriage: Option<Carriage>,
    seconds: Option<f64>,
}

impl Counter {
    /// Hands a packet out; bytes that do not start as one are counted only.
    fn unit(&mut self, bytes: &[u8], place: Place, take: &mut dyn FnMut(&Found<'_>) -> Taken) {
        if self.enough {
            return;
        }
        if !bytes.starts_with(&PREFIX) {
            self.junk += bytes.len() as u64;
            return;
        }
        self.number += 1;
        let packet = Packet::read(bytes);
        let first = self.first.or(packet.time());
        self.first = first;
        let passed = packet.time().zip(first).map(|(time, first)| time.saturating_sub(first) as f64 / 1e6);
        let seconds = place.seconds.or(passed);
        let set = if self.hold && packet.label == Label::Uas {
            let now = Duration::try_from_secs_f64(seconds.unwrap_or(0.0)).unwrap_or_default();
            let state = self.states.entry((place.program, place.pid)).or_default();
            state.take(&packet, now);
            Cow::Owned(state.set(now))
        } else {
            Cow::Owned(packet.set.clone())
        };
        let Place { program, pid, pts, carriage, .. } = place;
        let found = Found { number: self.number, program, pid, pts, carriage, seconds, bytes, packet, set };
        self.enough = take(&found) == Taken::Enough;
    }
}

impl Transport {
    fn new(framer: Framer) -> Self {
        Self {
            framer,
            programs: Programs::default(),
            clocks: BTreeMap::new(),
            streams: BTreeMap::new(),
            packets: 0,
        }
    }

    fn push(&mut self, bytes: &[u8], counter: &mut Counter, take: &mut dyn FnMut(&Found<'_>) -> Taken) {
        let Self { framer, programs, clocks, streams, packets } = self;
        framer.push(bytes, &mut |datagram| {
            *packets += (datagram.len() / 188) as u64;
            programs.push(datagram, &mut |program, event| {
                read_event(program, event, clocks, streams, counter, take);
            });
        });
    }

    fn finish(&mut self, counter: &mut Counter, take: &mut dyn FnMut(&Found<'_>) -> Taken) {
        let Self { framer, programs, clocks, streams, packets } = self;
        framer.finish(&mut |datagram| {
            *packets += (datagram.len() / 188) as u64;
            programs.push(datagram, &mut |program, event| {
                read_event(program, event, clocks, streams, counter, take);
            });
        });
        programs.flush(&mut |program, event| read_event(program, event, clocks, streams, counter, take));
        for (&(program, pid), stream) in streams {
            let Some(metadata) = &mut stream.metadata else { continue };
            let place = Place { program: Some(program), pid: Some(pid), ..Place::default() };
            metadata.flush(&mut |start, carriage| {
                counter.unit(start, Place { carriage: Some(carriage), ..place }, take);
            });
        }
    }
}

fn read_event(
    program: u16,
    event: Event<'_>,
    clocks: &mut BTreeMap<u16, Clock>,
    streams: &mut BTreeMap<(u16, u16), Stream>,
    counter: &mut Counter,
    take: &mut dyn FnMut(&Found<'_>) -> Taken,
) {
    match event {
        Event::Program(elementary) => {
            streams.retain(|(of, pid), _| *of != program || elementary.iter().any(|e| e.pid == *pid));
            for one in elementary {
                let metadata = matches!(one.format, Format::Metadata { .. });
                let stream =
                    streams.entry((program, one.pid)).or_insert(Stream { name: one.name, metadata: None });
                stream.name = one.name;
                stream.metadata = if metadata {
                    stream.metadata.take().or_else(|| Some(Metadata::default()))
                } else {
                    None
                };
            }
        }
        Event::Start { .. } => {}
        Event::Clock { pcr, announced } => clocks.entry(program).or_default().tick(pcr, announced),
        Event::Pes(pes) => {
            let stream = streams.get_mut(&(program, pes.pid)).and_then(|stream| stream.metadata.as_mut());
            let Some(metadata) = stream else { return };
            let clock = clocks.get(&program).filter(|clock| clock.last.is_some());
            let place = Place {
                program: Some(program),
                pid: Some(pes.pid),
                pts: pes.header.pts,
                carriage: None,
                seconds: clock.map(|clock| clock.ticks as f64 / PCR_HZ as f64),
            };
            let junk = metadata.counters().junk;
            let mut read = |units: &[u8], carriage| {
                for unit in split(units) {
                    counter.unit(unit.bytes(), Place { carriage: Some(carriage), ..place }, take);
                }
            };
            metadata.push_sound(pes.data, pes.sound, &mut read);
            counter.junk += metadata.counters().junk - junk;
        }
    }
}

impl Clock {
    fn tick(&mut self, pcr: u64, announced: bool) {
        if let Some(last) = self.last.replace(pcr)
            && let step @ 1..=A_SECOND = pcr_delta(last, pcr)
            && !announced
        {
            self.ticks += step as u64;
        }
    }
}

/// What the first bytes of a file are: packets of KLV, if a label stands at their start or anywhere and no packets of a
/// transport stream do.
fn judge(bytes: &[u8]) -> Content {
    let transport = || Content::Transport(Box::new(Transport::new(Framer::stream())));
    if bytes.starts_with(&PREFIX) {
        return Content::Bare(Vec::new());
    }
    let grid = |start: usize, stride: usize| {
        let mut syncs = bytes.iter().skip(start).step_by(stride).take(4);
        bytes.len() > start + 3 * stride && syncs.all(|&byte| byte == SYNC)
    };
    let framed = (0..204).any(|start| [188, 192, 204].into_iter().any(|stride| grid(start, stride)));
    let labelled = bytes.windows(PREFIX.len()).any(|window| window == PREFIX);
    if labelled && !framed { Content::Bare(Vec::new()) } else { transport() }
}

/// Bytes that are looked at before it is decided what they are.
const SNIFFED: usize = 4096;
/// A longer step of the clock says nothing about the time between.
const A_SECOND: i64 = PCR_HZ as i64;
