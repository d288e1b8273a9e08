//! The source: sends paced streams to the engine or to what it is compared with, in turn, and a control
//! flow straight to the sink beside the engine's.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};
use serde::{Deserialize, Serialize};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::helper::{self, Requests};
use crate::stream::{self, DATAGRAM, Stream};
use crate::units::UnitStream;
use crate::{Result, sys};

/// What a source sends.
#[derive(Serialize, Deserialize)]
pub(crate) struct Setup {
    /// Bit rate of each stream.
    pub(crate) megabits_per_second: f64,
    /// A picture at once instead of a datagram at a time.
    pub(crate) bursty: bool,
    /// Where the engine listens, one address per stream. Stream `i` is flow `i`.
    pub(crate) engine: Vec<SocketAddrV4>,
    /// Where the control flow goes; its flow follows the engine's.
    pub(crate) control: SocketAddrV4,
    /// Where the other side of the comparison listens.
    pub(crate) against: Vec<SocketAddrV4>,
    /// Whether its streams are counted. A tool that takes the stream apart gets video instead of the
    /// counter, so that it does neither less work (PID dropped) nor more (380 PES packets a second).
    pub(crate) against_counted: bool,
    /// Access units are counted instead of datagrams (see [`crate::units`]), on both sides.
    pub(crate) units: bool,
}

/// What was sent so far.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(crate) struct Emitted {
    /// Datagrams of each of the engine's streams.
    pub(crate) engine: Vec<u64>,
    /// Datagrams of the control flow.
    pub(crate) control: u64,
    /// Datagrams of the other side's streams.
    pub(crate) against: Vec<u64>,
}

/// Request: send to the engine.
pub(crate) const FEED_ENGINE: &str = "engine";
/// Request: send to the other side.
pub(crate) const FEED_AGAINST: &str = "against";
/// Request: send to both at once.
pub(crate) const FEED_BOTH: &str = "both";
/// Request: send nothing.
pub(crate) const PAUSE: &str = "pause";
/// Request: only say what was sent. Every request is answered with [`Emitted`].
pub(crate) const REPORT: &str = "report";

struct Flow {
    number: u32,
    to: SockAddr,
    counter: u64,
    /// Counts access units.
    units: Option<UnitStream>,
}

/// A side that can be fed: its flows, evenly spread over one period.
struct Side {
    stream: Stream,
    flows: Vec<Flow>,
    /// When it began to be fed and how many events ago; `None` = it is not fed.
    fed: Option<(u64, u64)>,
}

struct State {
    engine: Side,
    against: Side,
}

/// Runs the source until its requests end.
pub(crate) fn run(setup: Setup, requests: Requests) -> Result<()> {
    let flows = |addresses: &[SocketAddrV4]| -> Vec<Flow> {
        let flow = |(number, to): (usize, &SocketAddrV4)| Flow {
            number: number as u32,
            to: (*to).into(),
            counter: 0,
            units: (setup.units && *to != setup.control).then(|| UnitStream::new(setup.megabits_per_second)),
        };
        addresses.iter().enumerate().map(flow).collect()
    };
    let with_control: Vec<SocketAddrV4> = setup.engine.iter().copied().chain([setup.control]).collect();
    let side =
        |counted, flows| Side { stream: Stream::new(setup.megabits_per_second, counted), flows, fed: None };
    let state = State {
        engine: side(true, flows(&with_control)),
        against: side(setup.against_counted, flows(&setup.against)),
    };
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    socket.set_send_buffer_size(4 << 20)?;
    socket.set_multicast_if_v4(&Ipv4Addr::LOCALHOST)?;
    let shared = Arc::new((Mutex::new(state), Condvar::new()));
    let burst = if setup.bursty { stream::PICTURE } else { 1 };
    let sender = Arc::clone(&shared);
    // Ends with the process, when there are no more requests.
    thread::spawn(move || send(&socket, &sender, burst));
    helper::ready()?;
    obey(&shared, burst, requests)
}

fn obey((state, changed): &(Mutex<State>, Condvar), burst: u64, requests: Requests) -> Result<()> {
    for request in requests {
        let request = request?;
        let mut guard = state.lock();
        let (engine, against) = match request.as_str() {
            FEED_ENGINE => (true, false),
            FEED_AGAINST => (false, true),
            FEED_BOTH => (true, true),
            PAUSE => (false, false),
            _ => (guard.engine.fed.is_some(), guard.against.fed.is_some()),
        };
        // Access units are sent to their end.
        for (wanted, side) in [(engine, 0), (against, 1)] {
            while !wanted && !guard.side(side).is_between_units() {
                MutexGuard::unlocked(&mut guard, || thread::sleep(A_MOMENT));
            }
            if !wanted {
                guard.side(side).fed = None;
            }
        }
        let state = &mut *guard;
        let now = sys::now();
        // Fed at once, the sides keep a distance of a quarter period, away from the control flow too:
        // whoever sends first wakes the sink and would pay for both.
        let apart = (state.engine.stream.period() * burst as f64 / 4.0) as u64;
        for (side, feed, start) in
            [(&mut state.engine, engine, now), (&mut state.against, against, now + apart)]
        {
            side.fed = feed.then(|| side.fed.unwrap_or((start, 0)));
        }
        changed.notify_one();
        let counters = |side: &Side| side.flows.iter().map(|flow| flow.counter).collect::<Vec<_>>();
        let (mut engine, against) = (counters(&state.engine), counters(&state.against));
        let control = engine.pop().unwrap_or(0);
        helper::answer(&Ok(Emitted { engine, control, against }))?;
    }
    Ok(())
}

/// Sends for ever, on an absolute schedule: what is late is sent at once, nothing is left out.
fn send(socket: &Socket, (shared, changed): &(Mutex<State>, Condvar), burst: u64) {
    sys::sleep_precisely();
    let mut datagram = [0; DATAGRAM];
    let mut state = shared.lock();
    loop {
        let sides = [&state.engine, &state.against];
        let Some(due) = sides.iter().filter_map(|side| side.due(burst)).min() else {
            changed.wait(&mut state);
            continue;
        };
        let now = sys::now();
        if due > now + NOT_WORTH_SLEEPING {
            drop(state);
            thread::sleep(Duration::from_nanos(due - now));
            state = shared.lock();
        }
        // Looked up anew: it may have been paused meanwhile.
        let State { engine, against } = &mut *state;
        for side in [engine, against].into_iter().filter(|side| side.due(burst) == Some(due)) {
            side.emit(burst, socket, &mut datagram);
        }
    }
}

impl State {
    fn side(&mut self, number: usize) -> &mut Side {
        if number == 0 { &mut self.engine } else { &mut self.against }
    }
}

impl Side {
    /// Whether it may stop here.
    fn is_between_units(&self) -> bool {
        let whole = |flow: &Flow| flow.units.is_none() || flow.counter.is_multiple_of(stream::PICTURE);
        self.fed.is_none() || self.flows.iter().all(whole)
    }

    /// When the next burst is due; `None` while it is not fed.
    fn due(&self, burst: u64) -> Option<u64> {
        let (start, events) = self.fed?;
        let interval = self.stream.period() * burst as f64 / self.flows.len() as f64;
        Some(start + (events as f64 * interval) as u64)
    }

    fn emit(&mut self, burst: u64, socket: &Socket, datagram: &mut [u8; DATAGRAM]) {
        let Some((_, events)) = &mut self.fed else { return };
        let turn = *events as usize % self.flows.len();
        *events += 1;
        let flow = &mut self.flows[turn];
        for _ in 0..burst {
            match &mut flow.units {
                Some(units) => units.write(flow.counter, sys::now(), datagram),
                None => self.stream.write(flow.number, flow.counter, sys::now(), datagram),
            }
            flow.counter += u64::from(socket.send_to(datagram, &flow.to).is_ok());
        }
    }
}

/// How often it is looked whether a unit is over.
const A_MOMENT: Duration = Duration::from_micros(100);
/// A sleep costs about as much as this, in nanoseconds.
const NOT_WORTH_SLEEPING: u64 = 20_000;
