//! The sockets of a shard's ports: options enter, a port that others may share leaves; what waits in it is handed to
//! its sessions.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::os::fd::AsFd;

use super::Ports;
use crate::hub::Wakes;
use crate::media::Nanos;
use crate::net::{PortOptions, PortSocket, Receiver, Token, random};
use crate::port::NoticeKind;
use crate::port::listener::Doors;
use crate::wire::srt::SocketId;

/// One UDP socket with its sessions.
pub(super) struct Port {
    pub(super) socket: PortSocket,
    pub(super) options: PortOptions,
    pub(super) by_id: HashMap<SocketId, usize>,
    /// Sessions that dialled in, by who asked, to know repeated requests.
    pub(super) visits: HashMap<(SocketAddr, SocketId), usize>,
    pub(super) doors: Option<Box<Doors>>,
    /// The poller will tell when it becomes readable.
    pub(super) armed: bool,
    /// When it is looked at without being told.
    pub(super) poll_at: Option<Nanos>,
    /// When it was looked at last.
    pub(super) polled_at: Nanos,
    /// Packets come that are to be answered at once: data, loss reports, handshakes.
    pub(super) hasty_until: Nanos,
    /// Looks in a row that found nothing.
    pub(super) empty: u32,
    /// Sessions that owe their peer an answer, and since when.
    pub(super) owing: VecDeque<(Nanos, usize)>,
}

impl Ports {
    /// Takes what waits in a port's socket.
    pub(super) fn poll(&mut self, index: usize, now: Nanos) {
        let mut receiver = self.receiver.take().unwrap_or_else(|| Box::new(Receiver::new()));
        let mut any = false;
        for _ in 0..BATCHES {
            let Some(Some(port)) = self.ports.get(index) else { break };
            // An error is about something sent before, and is told once: what waits behind it is still there.
            let Ok(count) = receiver.receive(&port.socket) else { continue };
            any |= count > 0;
            for i in 0..count {
                let message = receiver.message(i);
                let Some(from) = message.from else { continue };
                for datagram in message.datagrams() {
                    self.take(index, from, datagram, message.arrival, now);
                }
            }
            if count < FULL_BATCH {
                break;
            }
        }
        self.receiver = Some(receiver);
        let Some(Some(port)) = self.ports.get_mut(index) else { return };
        port.polled_at = now;
        while let Some(&(since, session)) = port.owing.front()
            && (since + OWE_MOST <= now || !any)
        {
            port.owing.pop_front();
            self.touched.push(session);
        }
        port.empty = if any { 0 } else { port.empty + 1 };
        let hasty = now < port.hasty_until;
        let poll = if hasty { POLL } else { CALM_POLL };
        // While packets come it is looked at from time to time; the poller tells when they come again. Acknowledgements
        // come every 10 ms: asking the poller after each costs more calls than to look once too often.
        let idle = !any && (hasty || port.empty >= EMPTY_MOST);
        port.poll_at = (!idle && (any || !port.armed)).then(|| (now / poll + 1) * poll);
        if idle && !port.armed {
            // The poller tells of these too, for as long as one is there.
            self.read_path_errors(index);
            let Some(Some(port)) = self.ports.get_mut(index) else { return };
            let token = Token(index as u64 | Wakes::OURS);
            port.armed = self.wakes.sockets.rearm(port.socket.as_fd(), token).is_ok();
            if !port.armed {
                port.poll_at = Some(now + REARM);
            }
        }
    }

    /// The port of these options, made where there is none.
    pub(super) fn port(&mut self, options: PortOptions, now: Nanos) -> Result<usize, NoticeKind> {
        let same = |p: &Option<Port>| p.as_ref().is_some_and(|p| p.options == options);
        if let Some(index) = self.ports.iter().position(same) {
            return Ok(index);
        }
        let socket = PortSocket::open(&options).map_err(|error| NoticeKind::Failed {
            reason: error.to_string(),
            retryable: error.is_retryable(),
        })?;
        let index = match self.ports.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                self.ports.push(None);
                self.ports.len() - 1
            }
        };
        let armed = self.wakes.sockets.add(socket.as_fd(), Token(index as u64 | Wakes::OURS)).is_ok();
        let port = Port {
            socket,
            options,
            by_id: HashMap::new(),
            visits: HashMap::new(),
            doors: None,
            armed,
            poll_at: (!armed).then_some(now + REARM),
            polled_at: 0,
            hasty_until: 0,
            empty: 0,
            owing: VecDeque::new(),
        };
        self.ports[index] = Some(port);
        Ok(index)
    }

    pub(super) fn drop_if_unused(&mut self, index: usize) {
        let unused = |port: &Port| port.by_id.is_empty() && port.doors.is_none();
        let Some(port) = self.ports.get_mut(index) else { return };
        if let Some(port) = port.take_if(|port| unused(port)) {
            // It may be unknown to the poller if adding failed: nothing to take back then.
            let _ = self.wakes.sockets.remove(port.socket.as_fd());
        }
    }

    /// A socket id that nobody can guess and nobody has.
    pub(super) fn free_id(&self, port: usize) -> SocketId {
        let taken = |id: SocketId| {
            self.ports.get(port).and_then(Option::as_ref).is_some_and(|port| port.by_id.contains_key(&id))
        };
        loop {
            // libsrt keeps ids below 2^30, groups above.
            let id = SocketId(u32::from_ne_bytes(random()) & 0x3FFF_FFFF);
            if id.0 != 0 && !taken(id) {
                return id;
            }
        }
    }
}

/// Batches taken from a socket in one turn.
const BATCHES: usize = 16;
/// Fewer messages than this in a batch: the socket was empty.
const FULL_BATCH: usize = 32;
/// How often a port is looked at while packets come: on the grid of the delay class of 10 ms, so that one wake of the
/// thread serves both.
pub(super) const POLL: Nanos = 2_500_000;
/// The same while nothing but acknowledgements comes.
const CALM_POLL: Nanos = 5_000_000;
/// Looks that find nothing before the poller is asked to tell.
const EMPTY_MOST: u32 = 4;
/// When registering a socket failed it is tried again.
const REARM: Nanos = 100_000_000;
/// How long an answer may wait for data to travel with.
const OWE_MOST: Nanos = 10_000_000;
