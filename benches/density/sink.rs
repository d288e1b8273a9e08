//! The sink: takes everything that arrives, says which datagrams did, how late, and whether unchanged.

use std::io;
use std::net::SocketAddrV4;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};

use crate::Result;
use crate::helper::{self, Requests};
use crate::histogram::Histogram;
use crate::stream::{Stamp, Stream};
use crate::sys::{self, Epoll, Inbox};

/// Where a sink listens.
#[derive(Serialize, Deserialize)]
pub(crate) struct Setup {
    /// Bit rate of the streams, to know every byte of them.
    pub(crate) megabits_per_second: f64,
    /// One address per output of the engine, with the flow that belongs there.
    pub(crate) engine: Vec<(SocketAddrV4, u32)>,
    /// The control flow and its address.
    pub(crate) control: (SocketAddrV4, u32),
    /// One address per output of the other side, with its flow. Not counted streams are counted as bytes.
    pub(crate) against: Vec<(SocketAddrV4, u32)>,
}

/// What arrived since the last reset.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    /// At the outputs of the engine.
    pub(crate) engine: Arrivals,
    /// On the control flow.
    pub(crate) control: Arrivals,
    /// At the outputs of the other side.
    pub(crate) against: Arrivals,
    /// At readers that dialled in while others were being served.
    #[serde(default)]
    pub(crate) late: Arrivals,
}

/// What arrived at a group of sockets.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Arrivals {
    /// Datagrams of the right flow, each one later in it than the one before on that socket.
    pub(crate) in_order: u64,
    /// Datagrams without a stamp, of another flow, repeated or out of order.
    pub(crate) stray: u64,
    /// Breaks of the continuity counter on the counter's PID.
    pub(crate) continuity_errors: u64,
    /// Pictures among them, where access units are counted.
    pub(crate) pictures: u64,
    /// Payload of all of them.
    pub(crate) bytes: u64,
    /// Deliveries of the kernel: a batch that was sent in one piece arrives in one piece.
    pub(crate) deliveries: u64,
    /// Datagrams in those deliveries.
    pub(crate) datagrams: u64,
    /// Sockets at which anything arrived.
    pub(crate) heard: usize,
    /// Sockets whose buffer was full at least once, with the datagrams in order that they did get.
    pub(crate) overflowed: Vec<(usize, u64)>,
    /// Datagrams compared byte by byte with what was sent, on [`COMPARED`] sockets.
    pub(crate) compared: u64,
    /// Datagrams that were not equal.
    pub(crate) changed: u64,
    /// Time from sending to receipt.
    pub(crate) delay: Histogram,
    /// Time between receipts on one socket.
    pub(crate) gap: Histogram,
    /// What only a connection can tell.
    pub(crate) connections: Connections,
}

/// What the connections of a group tell.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Connections {
    /// Those that stand now.
    pub(crate) open: usize,
    /// Time from the order to dial until the last one stood, in nanoseconds; absent while one is missing.
    pub(crate) dialled_in: Option<u64>,
    /// Sequence numbers that were left out.
    pub(crate) missing: u64,
    /// Packets whose sequence number had come before.
    pub(crate) repeated: u64,
    /// When the last one of those that have brought media began to.
    pub(crate) last_begun: Option<u64>,
    /// Datagrams that the kernel dropped because a buffer of the sink was full, whosever they were.
    pub(crate) dropped: u64,
}

/// Request: what arrived? Answered with [`Report`].
pub(crate) const REPORT: &str = "report";
/// Request: forget what arrived, and answer with what that was.
pub(crate) const RESET: &str = "reset";
/// How many sockets of a group are probes: compared byte by byte.
pub(crate) const COMPARED: usize = 16;

/// The places of `count` probes in a walk over `outputs`: equal steps, first and last included.
pub(crate) fn probe_places(outputs: usize, count: usize) -> Vec<usize> {
    let count = count.min(outputs);
    (0..count).map(|probe| probe * (outputs - 1) / (count - 1).max(1)).collect()
}

struct Receiver {
    socket: Socket,
    /// The kernel's count of overflows at the last reset.
    overflows: u32,
    track: Track,
}

/// What one socket expects.
pub(crate) struct Track {
    flow: u32,
    compare: bool,
    heard: bool,
    /// The lowest counter that is still to come.
    next: u64,
    continuity: Option<u8>,
    in_order: u64,
    last_receipt: Option<u64>,
}

pub(crate) struct Group {
    receivers: Vec<Receiver>,
    arrivals: Arrivals,
}

/// Runs the sink until its requests end.
pub(crate) fn run(setup: &Setup, mut requests: Requests) -> Result<()> {
    let stream = Stream::new(setup.megabits_per_second, true);
    let mut groups =
        [Group::open(&setup.engine)?, Group::open(&[setup.control])?, Group::open(&setup.against)?];
    let mut epoll = Epoll::new()?;
    for (place, group) in groups.iter().enumerate() {
        for (index, receiver) in group.receivers.iter().enumerate() {
            epoll.add(&receiver.socket, index << 2 | place)?;
        }
    }
    let stdin = io::stdin();
    epoll.add(&stdin, REQUEST)?;
    let mut inbox = Inbox::new();
    helper::ready()?;
    loop {
        let mut asked = false;
        for token in epoll.wait()? {
            match token {
                REQUEST => asked = true,
                _ => groups[token & 3].receive(token >> 2, &mut inbox, &stream)?,
            }
        }
        if asked {
            let Some(request) = requests.next() else { return Ok(()) };
            let reset = request? == RESET;
            let [engine, control, against] = &mut groups;
            let report = Report {
                engine: engine.report()?,
                control: control.report()?,
                against: against.report()?,
                late: Arrivals::default(),
            };
            if reset {
                groups.iter_mut().try_for_each(Group::reset)?;
            }
            helper::answer(&Ok(report))?;
        }
        // Sockets that nobody sleeps on: otherwise each sender mostly pays for waking this process, the cheaper
        // one more often, and the ratio compares schedulers.
        std::thread::sleep(LOOK_AGAIN);
    }
}

impl Group {
    /// Binds these addresses, each for the flow that belongs there.
    pub(crate) fn open(addresses: &[(SocketAddrV4, u32)]) -> Result<Self> {
        let compared = probe_places(addresses.len(), COMPARED);
        let open = |(index, &(address, flow)): (usize, &(SocketAddrV4, u32))| -> Result<Receiver> {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
            socket
                .bind(&address.into())
                .map_err(|error| format!("the sink cannot bind {address}: {error}"))?;
            sys::grow_receive_buffer(&socket, RECEIVE_BUFFER)?;
            sys::merge_receives(&socket)?;
            Ok(Receiver { socket, overflows: 0, track: Track::new(flow, compared.contains(&index)) })
        };
        let receivers = addresses.iter().enumerate().map(open).collect::<Result<_>>()?;
        Ok(Self { receivers, arrivals: Arrivals::default() })
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.receivers.is_empty()
    }

    /// Takes what waits at one of them.
    pub(crate) fn receive(&mut self, index: usize, inbox: &mut Inbox, stream: &Stream) -> io::Result<()> {
        let (receiver, arrivals) = (&mut self.receivers[index], &mut self.arrivals);
        inbox.drain(&receiver.socket, |delivery, size| {
            let now = sys::now();
            arrivals.deliveries += 1;
            for datagram in delivery.chunks(size.max(1)) {
                receiver.track.count(datagram, now, arrivals, stream);
            }
        })
    }

    /// What arrived since the last reset.
    pub(crate) fn report(&mut self) -> Result<Arrivals> {
        let mut overflowed = Vec::new();
        for (index, receiver) in self.receivers.iter().enumerate() {
            if sys::overflows(&receiver.socket)? != receiver.overflows {
                overflowed.push((index, receiver.track.in_order));
            }
        }
        Ok(Arrivals { overflowed, ..self.arrivals.clone() })
    }

    /// Forgets what arrived.
    pub(crate) fn reset(&mut self) -> Result<()> {
        for receiver in &mut self.receivers {
            receiver.overflows = sys::overflows(&receiver.socket)?;
            receiver.track = receiver.track.renewed();
        }
        self.arrivals = Arrivals::default();
        Ok(())
    }
}

impl Track {
    /// Expects the beginning of a flow, or any later part of it; `compare`: every byte is looked at.
    pub(crate) fn new(flow: u32, compare: bool) -> Self {
        Self { flow, compare, heard: false, next: 0, continuity: None, in_order: 0, last_receipt: None }
    }

    /// The same for the next stretch of the same flow.
    pub(crate) fn renewed(&self) -> Self {
        Self::new(self.flow, self.compare)
    }

    /// Counts a datagram.
    pub(crate) fn count(&mut self, datagram: &[u8], now: u64, arrivals: &mut Arrivals, stream: &Stream) {
        self.hear(datagram.len(), arrivals);
        let expected = |stamp: &Stamp| stamp.flow == self.flow && stamp.counter >= self.next;
        let Some(stamp) = Stamp::read(datagram).filter(expected) else {
            arrivals.stray += 1;
            return;
        };
        self.next = stamp.counter + 1;
        self.in_order += 1;
        arrivals.in_order += 1;
        let follows = |last: u8| stamp.continuity == (last + 1) % 16;
        arrivals.continuity_errors += u64::from(!self.continuity.is_none_or(follows));
        self.continuity = Some(stamp.continuity);
        arrivals.delay.record(now.saturating_sub(stamp.sent_at));
        if self.compare {
            arrivals.compared += 1;
            arrivals.changed += u64::from(!stream.is_unchanged(&stamp, datagram));
            if let Some(last) = self.last_receipt.replace(now) {
                arrivals.gap.record(now - last);
            }
        }
    }

    /// Counts a datagram that nobody can read here and that others have found to be the next one.
    pub(crate) fn count_unreadable(&mut self, length: usize, arrivals: &mut Arrivals) {
        self.hear(length, arrivals);
        self.in_order += 1;
        arrivals.in_order += 1;
    }

    fn hear(&mut self, length: usize, arrivals: &mut Arrivals) {
        arrivals.bytes += length as u64;
        arrivals.datagrams += 1;
        arrivals.heard += usize::from(!self.heard);
        self.heard = true;
    }
}

const REQUEST: usize = usize::MAX;
/// Adds up to this much to every delay that is measured, the control flow's too.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_micros(500);
/// Three seconds of 4 Mb/s. The kernel counts about twice the payload.
pub(crate) const RECEIVE_BUFFER: usize = 4 << 20;
