//! The ports of one shard: commands, readable sockets and moments in time enter; every session gets its datagrams and
//! its turn. Decides who shares a socket and a line, and when each is walked.

mod lines;
mod visitors;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::mpsc;

use super::deriver::Deriver;
use super::listener::Doors;
use super::outbox::Outbox;
use super::session::{Dialling, End, Reaction, Session, Stage};
use super::{Call, Command, Listen, Notice, NoticeKind, Owner, Role};
use crate::hub::{Schedule, StreamKey, Timetable, Wakes};
use crate::media::Nanos;
use crate::net::{PortOptions, PortSocket, Receiver, Token, clock, random};
use crate::telemetry::ShardStats;
use crate::wire::srt::handshake::{Agreed, Caller, Request};
use crate::wire::srt::{Packet, SocketId};

use lines::Line;

/// The SRT sessions of one shard.
pub struct Ports {
    ports: Vec<Option<Port>>,
    sessions: Vec<Option<Session>>,
    free: Vec<usize>,
    /// Lines by their number in the timetable.
    lines: Vec<Option<Line>>,
    timetable: Timetable,
    /// Moments of sessions.
    timers: BinaryHeap<Reverse<(Nanos, usize)>>,
    /// What each owner has here.
    holdings: HashMap<Owner, Holding>,
    /// Sessions that are to be given a turn before this walk ends.
    touched: Vec<usize>,
    outbox: Outbox,
    receiver: Option<Box<Receiver>>,
    deriver: Option<Deriver<Derivation>>,
    wakes: Wakes,
    notices: mpsc::Sender<Notice>,
    stats: Arc<ShardStats>,
}

/// One UDP socket with its sessions.
struct Port {
    socket: PortSocket,
    options: PortOptions,
    by_id: HashMap<SocketId, usize>,
    /// Sessions that dialled in, by who asked, to know repeated requests.
    visits: HashMap<(SocketAddr, SocketId), usize>,
    doors: Option<Box<Doors>>,
    /// The poller will tell when it becomes readable.
    armed: bool,
    /// When it is looked at without being told.
    poll_at: Option<Nanos>,
    /// When it was looked at last.
    polled_at: Nanos,
    /// Sessions that owe their peer an answer, and since when.
    owing: VecDeque<(Nanos, usize)>,
}

enum Holding {
    Call(usize),
    Place(usize),
}

/// For whom a key is derived.
enum Derivation {
    Request(usize, Box<Request>),
    Session(usize, SocketId),
}

impl Ports {
    /// Ports that tell what happens through `notices` (dropped when that is full).
    pub fn new(wakes: Wakes, notices: mpsc::Sender<Notice>, stats: Arc<ShardStats>) -> Self {
        Self {
            ports: Vec::new(),
            sessions: Vec::new(),
            free: Vec::new(),
            lines: Vec::new(),
            timetable: Timetable::new(Arc::clone(&wakes.bell)),
            timers: BinaryHeap::new(),
            holdings: HashMap::new(),
            touched: Vec::new(),
            outbox: Outbox::default(),
            receiver: None,
            deriver: None,
            wakes,
            notices,
            stats,
        }
    }

    /// Carries a command out.
    pub fn handle(&mut self, command: Command, now: Nanos) {
        match command {
            Command::Call(call) => self.call(*call, now),
            Command::Listen(listen) => self.listen(*listen, now),
            Command::Close(owner) => self.close(owner, now),
        }
    }

    /// A stream got new datagrams.
    pub fn arrived(&mut self, stream: StreamKey, hurry: bool, now: Nanos) {
        self.timetable.arrived(stream, hurry, now);
    }

    /// Another thread rang.
    pub fn rang(&mut self, now: Nanos) {
        self.timetable.rang(now);
        while let Some((of, kek)) = self.deriver.as_ref().and_then(Deriver::take) {
            self.derived(of, &kek, now);
        }
    }

    /// A port became readable.
    pub fn readable(&mut self, token: Token, now: Nanos) {
        let index = (token.0 & !Wakes::OURS) as usize;
        if let Some(Some(port)) = self.ports.get_mut(index) {
            port.armed = false;
            port.poll_at = Some(now);
        }
    }

    /// Gives everybody whose time has come a turn.
    pub fn walk(&mut self, now: Nanos, refresh: &mut dyn FnMut(StreamKey) -> u32) {
        for index in 0..self.ports.len() {
            if self.ports[index].as_ref().is_some_and(|p| p.poll_at.is_some_and(|at| at <= now)) {
                self.poll(index, now);
            }
        }
        while let Some(&Reverse((at, index))) = self.timers.peek()
            && at <= now
        {
            self.timers.pop();
            let Some(Some(session)) = self.sessions.get_mut(index) else { continue };
            if session.timer != Some(at) {
                continue;
            }
            session.timer = None;
            let (port, receives) = (session.port, matches!(session.stage, Stage::Receiving(_)));
            // What waits in the socket may be what it would report missing.
            if receives && self.ports[port].as_ref().is_some_and(|port| port.polled_at < now) {
                self.poll(port, now);
            }
            self.touch(index);
        }
        self.answer_touched(now);
        let until = now + TURN;
        let mut now = now;
        while now <= until
            && let Some(number) = self.timetable.take_due(now)
        {
            if let Some(Some(line)) = self.lines.get(number) {
                let stream = line.stream;
                if refresh(stream) > 0 {
                    self.timetable.arrived(stream, false, now);
                }
            }
            self.flush(number, now);
            now = clock::now();
        }
    }

    /// When somebody wants a turn.
    pub fn next_due(&mut self) -> Option<Nanos> {
        let polls = self.ports.iter().flatten().filter_map(|port| port.poll_at).min();
        let timers = self.timers.peek().map(|&Reverse((at, _))| at);
        [polls, timers, self.timetable.next_due()].into_iter().flatten().min()
    }

    /// How the lines of a stream want it to be polled.
    pub fn schedule(&self, stream: StreamKey) -> Schedule {
        self.timetable.schedule(stream)
    }

    /// Whether a stream is polled at its lines' moments.
    pub fn set_ticking(&mut self, stream: StreamKey, ticking: bool, now: Nanos) {
        self.timetable.set_ticking(stream, ticking, now);
    }

    /// Shows the counters of all sessions, and ends those that were kicked.
    pub fn publish(&mut self, now: Nanos) {
        let mut rates: HashMap<Owner, u64> = HashMap::new();
        let mut kicked = Vec::new();
        for (index, session) in self.sessions.iter_mut().enumerate() {
            let Some(session) = session else { continue };
            *rates.entry(session.owner).or_default() += session.publish(now);
            if session.visit.as_ref().is_some_and(|visit| visit.card.is_kicked()) {
                kicked.push(index);
            }
        }
        for index in kicked {
            self.end(index, &End::lost("it was kicked"), now);
        }
        for port in self.ports.iter().flatten() {
            for listen in port.doors.iter().flat_map(|doors| &doors.routes) {
                rates.entry(listen.owner).or_default();
                if let Role::Send(source) = &listen.role {
                    source.stats.bitrate_bps.store(rates[&listen.owner], Relaxed);
                }
            }
        }
        for session in self.sessions.iter().flatten() {
            if let (None, Stage::Sending(sending)) = (&session.visit, &session.stage) {
                sending.source.stats.bitrate_bps.store(rates[&session.owner], Relaxed);
            }
        }
        for index in 0..self.ports.len() {
            self.read_path_errors(index);
        }
    }

    fn call(&mut self, call: Call, now: Nanos) {
        self.close(call.owner, now);
        let Call { owner, attempt, port, peer, passphrase, mut dial, rendezvous: _, conduct, role } = call;
        let port = match self.port(port, now) {
            Ok(port) => port,
            Err(kind) => return self.tell(owner, attempt, kind),
        };
        let local = self.free_id(port);
        dial.local.socket = local;
        let stats = match &role {
            Role::Send(source) => source.stats.srt.open(),
            Role::Receive(drain) => drain.stats.srt.open(),
        };
        let caller = Caller::new(dial, now);
        let stage = Stage::Dialling(Box::new(Dialling { caller, role, conduct, passphrase }));
        let index = self.admit(Session::new((owner, attempt), (port, local, peer), stage, stats));
        self.holdings.insert(owner, Holding::Call(index));
        self.touch(index);
        self.answer_touched(now);
    }

    fn listen(&mut self, listen: Listen, now: Nanos) {
        self.close(listen.owner, now);
        let (owner, attempt) = (listen.owner, listen.attempt);
        let index = match self.port(listen.port.clone(), now) {
            Ok(index) => index,
            Err(kind) => return self.tell(owner, attempt, kind),
        };
        if listen.passphrase.is_some() && self.deriver.is_none() {
            match Deriver::start(Arc::clone(&self.wakes.bell)) {
                Ok(deriver) => self.deriver = Some(deriver),
                Err(error) => {
                    let reason = format!("cannot start a thread for keys: {error}");
                    self.tell(owner, attempt, NoticeKind::Failed { reason, retryable: true });
                    return self.drop_if_unused(index);
                }
            }
        }
        let Some(Some(port)) = self.ports.get_mut(index) else { return };
        let local = port.socket.local_addr();
        let doors = port.doors.get_or_insert_with(|| Box::new(Doors::new(listen.cookie.clone(), now)));
        doors.routes.push(listen);
        self.holdings.insert(owner, Holding::Place(index));
        self.tell(owner, attempt, NoticeKind::Listening(local));
    }

    fn close(&mut self, owner: Owner, now: Nanos) {
        match self.holdings.remove(&owner) {
            Some(Holding::Call(index)) => self.end(index, &End::lost("it was stopped"), now),
            Some(Holding::Place(port)) => {
                let of = |s: &Session| s.owner == owner && s.port == port;
                let sessions = self.sessions.iter().enumerate();
                let mine: Vec<usize> =
                    sessions.filter(|(_, s)| s.as_ref().is_some_and(of)).map(|(index, _)| index).collect();
                for index in mine {
                    self.end(index, &End::lost("it was stopped"), now);
                }
                if let Some(Some(port)) = self.ports.get_mut(port)
                    && let Some(doors) = &mut port.doors
                {
                    doors.routes.retain(|route| route.owner != owner);
                    if doors.routes.is_empty() {
                        port.doors = None;
                    }
                }
                self.drop_if_unused(port);
            }
            None => {}
        }
    }

    /// Takes what waits in a port's socket.
    fn poll(&mut self, index: usize, now: Nanos) {
        let mut receiver = self.receiver.take().unwrap_or_else(|| Box::new(Receiver::new()));
        let mut any = false;
        for _ in 0..BATCHES {
            let Some(Some(port)) = self.ports.get(index) else { break };
            // An error of the socket is one of a peer that is gone: its session finds out by silence.
            let count = receiver.receive(&port.socket).unwrap_or(0);
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
        // While packets come it is looked at from time to time; the poller tells when they come again.
        port.poll_at = any.then(|| (now / POLL + 1) * POLL);
        if !any && !port.armed {
            let token = Token(index as u64 | Wakes::OURS);
            port.armed = self.wakes.sockets.rearm(port.socket.as_fd(), token).is_ok();
            if !port.armed {
                port.poll_at = Some(now + REARM);
            }
        }
    }

    fn take(&mut self, index: usize, from: SocketAddr, datagram: &[u8], arrival: Nanos, now: Nanos) {
        let Some(Some(port)) = self.ports.get_mut(index) else { return };
        let Some(to) = Packet::destination_of(datagram) else { return };
        if to == SocketId(0) {
            return self.knocked(index, from, datagram, now);
        }
        let Some(&at) = port.by_id.get(&to) else { return };
        let Some(Some(session)) = self.sessions.get_mut(at) else { return };
        // Whoever else guesses the number is not its peer.
        if session.peer != from {
            return;
        }
        // A stamp of the kernel may be a little ahead of the moment that this walk began with.
        match session.handle(datagram, arrival.min(now)) {
            Reaction::None => {}
            Reaction::Owes => port.owing.push_back((now, at)),
            Reaction::Answer => self.touch(at),
            Reaction::Derive(passphrase, salt) => {
                if let Some(deriver) = &self.deriver {
                    deriver.ask(Derivation::Session(at, to), passphrase, salt);
                }
            }
            Reaction::Connected(agreed) => self.connected(at, *agreed, now),
            Reaction::Over(end) => self.end(at, &end, now),
        }
    }

    fn connected(&mut self, index: usize, agreed: Agreed, now: Nanos) {
        let Some(Some(session)) = self.sessions.get_mut(index) else { return };
        let Stage::Dialling(dialling) = &session.stage else { return };
        let (role, conduct) = (dialling.role.clone(), dialling.conduct);
        let passphrase = dialling.passphrase.clone();
        let (owner, attempt, stats) = (session.owner, session.attempt, Arc::clone(&session.stats));
        match Stage::agreed(agreed, role, conduct, passphrase, &stats, now) {
            Ok(stage) => {
                session.stage = stage;
                self.begin(index, now);
                self.tell(owner, attempt, NoticeKind::Connected);
            }
            Err(end) => self.end(index, &end, now),
        }
    }

    fn touch(&mut self, index: usize) {
        if let Some(Some(session)) = self.sessions.get_mut(index)
            && !session.touched
        {
            session.touched = true;
            self.touched.push(index);
        }
    }

    /// Gives those their turn that were touched.
    fn answer_touched(&mut self, now: Nanos) {
        let mut touched = std::mem::take(&mut self.touched);
        // Those of one port together.
        touched.sort_by_key(|&index| self.sessions[index].as_ref().map(|s| s.port));
        let mut last = None;
        for &index in &touched {
            let Some(Some(session)) = self.sessions.get_mut(index) else { continue };
            session.touched = false;
            let port = session.port;
            if let Some(before) = last.replace(port)
                && (before != port || self.outbox.is_full())
            {
                self.post(before);
            }
            let Some(Some(session)) = self.sessions.get_mut(index) else { continue };
            match session.answer(index, &mut self.outbox, now) {
                Reaction::Over(end) => {
                    self.post(port);
                    self.end(index, &end, now);
                }
                _ => self.set_timer(index),
            }
        }
        if let Some(port) = last {
            self.post(port);
        }
        touched.clear();
        if self.touched.is_empty() {
            self.touched = touched;
        }
    }

    fn set_timer(&mut self, index: usize) {
        let Some(Some(session)) = self.sessions.get_mut(index) else { return };
        let due = session.next_due();
        if due != Nanos::MAX && session.timer.is_none_or(|at| due < at) {
            session.timer = Some(due);
            self.timers.push(Reverse((due, index)));
        }
    }

    fn admit(&mut self, session: Session) -> usize {
        let (port, local) = (session.port, session.local);
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.sessions.push(None);
                self.sessions.len() - 1
            }
        };
        self.sessions[index] = Some(session);
        if let Some(Some(port)) = self.ports.get_mut(port) {
            port.by_id.insert(local, index);
        }
        index
    }

    /// Ends a session and tells its owner.
    fn end(&mut self, index: usize, end: &End, now: Nanos) {
        let Some(mut session) = self.sessions.get_mut(index).and_then(Option::take) else { return };
        session.part(index, &mut self.outbox, now);
        self.post(session.port);
        session.publish(now);
        self.free.push(index);
        let port_index = session.port;
        if let Some(Some(port)) = self.ports.get_mut(port_index) {
            port.by_id.remove(&session.local);
            port.owing.retain(|&(_, at)| at != index);
            if let Some(visit) = &session.visit {
                port.visits.remove(&(session.peer, visit.asked_as));
            }
        }
        if let Stage::Sending(sending) = &session.stage {
            self.leave(sending.line, index);
        }
        let (owner, attempt) = (session.owner, session.attempt);
        match session.visit {
            Some(visit) => {
                match &session.stage {
                    Stage::Sending(sending) => sending.source.stats.sessions.remove(visit.card.id),
                    Stage::Receiving(receiving) => {
                        let stats = &receiving.drain.stats;
                        let shown = stats.srt.stats();
                        if shown.is_some_and(|shown| Arc::ptr_eq(&shown, &session.stats)) {
                            stats.srt.show(None);
                        }
                        stats.sessions.remove(visit.card.id)
                    }
                    Stage::Dialling(_) => None,
                };
                self.tell(owner, attempt, NoticeKind::Peer(format!("{} left: {}", session.peer, end.reason)));
            }
            None => {
                match &session.stage {
                    Stage::Sending(sending) => sending.source.stats.srt.show(None),
                    Stage::Receiving(receiving) => receiving.drain.stats.srt.show(None),
                    Stage::Dialling(dialling) => match &dialling.role {
                        Role::Send(source) => source.stats.srt.show(None),
                        Role::Receive(drain) => drain.stats.srt.show(None),
                    },
                }
                self.holdings.remove(&owner);
                let (reason, retryable) = (end.reason.clone(), end.retryable);
                self.tell(owner, attempt, NoticeKind::Failed { reason, retryable });
                self.drop_if_unused(port_index);
            }
        }
    }

    /// The port of these options, made where there is none.
    fn port(&mut self, options: PortOptions, now: Nanos) -> Result<usize, NoticeKind> {
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
            owing: VecDeque::new(),
        };
        self.ports[index] = Some(port);
        Ok(index)
    }

    fn drop_if_unused(&mut self, index: usize) {
        let unused = |port: &Port| port.by_id.is_empty() && port.doors.is_none();
        let Some(port) = self.ports.get_mut(index) else { return };
        if let Some(port) = port.take_if(|port| unused(port)) {
            // It may be unknown to the poller if adding failed: nothing to take back then.
            let _ = self.wakes.sockets.remove(port.socket.as_fd());
        }
    }

    /// A socket id that nobody can guess and nobody has.
    fn free_id(&self, port: usize) -> SocketId {
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

    fn tell(&self, owner: Owner, attempt: u32, kind: NoticeKind) {
        // Overflow policy: lost; the counters and the watchdog tell the same.
        if self.notices.try_send(Notice { owner, attempt, kind }).is_err() {
            self.stats.lost_notices.fetch_add(1, Relaxed);
        }
    }
}

/// Batches taken from a socket in one turn.
const BATCHES: usize = 16;
/// Fewer messages than this in a batch: the socket was empty.
const FULL_BATCH: usize = 32;
/// How often a port is looked at while packets come: on the grid of the delay class of 10 ms, so that one wake of the
/// thread serves both.
const POLL: Nanos = 2_500_000;
/// When registering a socket failed it is tried again.
const REARM: Nanos = 100_000_000;
/// How long an answer may wait for data to travel with.
const OWE_MOST: Nanos = 10_000_000;
/// How long a walk goes on before commands and sockets get their turn.
const TURN: Nanos = 5_000_000;
