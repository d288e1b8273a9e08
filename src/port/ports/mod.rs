//! The ports of one shard: commands, readable sockets and moments in time enter; every session gets its datagrams and
//! its turn. Decides who shares a socket and a line, and when each is walked.

mod bonds;
mod gatherings;
mod lines;
mod sockets;
mod visitors;

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::mpsc;

use super::deriver::Deriver;
use super::listener::Doors;
use super::outbox::Outbox;
use super::session::{Dialler, Dialling, End, Membership, Reaction, Session, Stage};
use super::{Call, Command, Listen, Notice, NoticeKind, Owner, Role};
use crate::hub::{Schedule, StreamKey, Timetable, Wakes};
use crate::media::Nanos;
use crate::net::{Receiver, Token, clock, random};
use crate::telemetry::{ShardStats, SrtStats};
use crate::wire::srt::handshake::{Agreed, Caller, Rendezvous, Request};
use crate::wire::srt::{Packet, SocketId};

use bonds::Bundle;
use gatherings::Gathering;
use lines::Line;
use sockets::{POLL, Port};

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
    /// Connection groups that we open, and those that dialled in.
    bundles: Vec<Option<Bundle>>,
    gatherings: Vec<Option<Gathering>>,
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

enum Holding {
    Call(usize),
    Bundle(usize),
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
            bundles: Vec::new(),
            gatherings: Vec::new(),
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
            Command::Bond(bond) => self.bond(*bond, now),
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
            // Most moments move on while packets come and go.
            if session.next_due() > now {
                self.set_timer(index);
                continue;
            }
            let (port, receives) = (session.port, matches!(session.stage, Stage::Receiving(_)));
            // What waits in the socket may be what it would report missing.
            if receives && self.ports[port].as_ref().is_some_and(|port| port.polled_at < now) {
                self.poll(port, now);
            }
            self.touch(index);
        }
        if self.links_due().is_some_and(|at| at <= now) {
            self.dial_links(now);
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
        [polls, timers, self.links_due(), self.timetable.next_due()].into_iter().flatten().min()
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
            if let (None, Membership::Alone, Stage::Sending(sending)) =
                (&session.visit, session.membership, &session.stage)
            {
                sending.source.stats.bitrate_bps.store(rates[&session.owner], Relaxed);
            }
        }
        self.sort_by_haste(now);
        self.publish_bundles(now);
        self.publish_gatherings();
        for index in 0..self.ports.len() {
            self.read_path_errors(index);
        }
    }

    fn call(&mut self, call: Call, now: Nanos) {
        self.close(call.owner, now);
        let (owner, attempt) = (call.owner, call.attempt);
        let stats = match &call.role {
            Role::Send(source) => source.stats.srt.open(),
            Role::Receive(drain) => drain.stats.srt.open(),
        };
        match self.dial(call, Membership::Alone, stats, now) {
            Ok(index) => {
                self.holdings.insert(owner, Holding::Call(index));
                self.answer_touched(now);
            }
            Err(kind) => self.tell(owner, attempt, kind),
        }
    }

    /// Begins a session that dials.
    fn dial(
        &mut self,
        call: Call,
        membership: Membership,
        stats: Arc<SrtStats>,
        now: Nanos,
    ) -> Result<usize, NoticeKind> {
        let Call { owner, attempt, port, peer, passphrase, mut dial, rendezvous, conduct, role } = call;
        // In a rendezvous the peer may be the one who brings keys; a peer that changes its keys may change their salt.
        if passphrase.is_some() && (rendezvous || matches!(role, Role::Receive(_))) {
            self.start_deriver()?;
        }
        let port = self.port(port, now)?;
        let local = self.free_id(port);
        dial.local.socket = local;
        let dialler = if rendezvous {
            Dialler::Rendezvous(Rendezvous::new(dial, u32::from_ne_bytes(random()), now))
        } else {
            Dialler::Caller(Caller::new(dial, now))
        };
        let stage = Stage::Dialling(Box::new(Dialling { dialler, role, conduct, passphrase, nobody: false }));
        let mut session = Session::new((owner, attempt), (port, local, peer), stage, stats);
        session.membership = membership;
        let index = self.admit(session);
        self.touch(index);
        Ok(index)
    }

    fn listen(&mut self, listen: Listen, now: Nanos) {
        self.close(listen.owner, now);
        let (owner, attempt) = (listen.owner, listen.attempt);
        let index = match self.port(listen.port.clone(), now) {
            Ok(index) => index,
            Err(kind) => return self.tell(owner, attempt, kind),
        };
        if listen.passphrase.is_some()
            && let Err(kind) = self.start_deriver()
        {
            self.tell(owner, attempt, kind);
            return self.drop_if_unused(index);
        }
        let Some(Some(port)) = self.ports.get_mut(index) else { return };
        let local = port.socket.local_addr();
        let doors = port.doors.get_or_insert_with(|| Box::new(Doors::new(listen.cookie.clone(), now)));
        doors.open(listen);
        self.holdings.insert(owner, Holding::Place(index));
        self.tell(owner, attempt, NoticeKind::Listening(local));
    }

    /// Whoever answers a peer's key message needs the thread that derives keys.
    fn start_deriver(&mut self) -> Result<(), NoticeKind> {
        if self.deriver.is_none() {
            let deriver = Deriver::start(Arc::clone(&self.wakes.bell)).map_err(|error| {
                let reason = format!("cannot start a thread for keys: {error}");
                NoticeKind::Failed { reason, retryable: true }
            })?;
            self.deriver = Some(deriver);
        }
        Ok(())
    }

    fn close(&mut self, owner: Owner, now: Nanos) {
        match self.holdings.remove(&owner) {
            Some(Holding::Call(index)) => self.end(index, &End::lost("it was stopped"), now),
            Some(Holding::Bundle(index)) => self.drop_bundle(index, now),
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
                    doors.shut(owner);
                    if doors.routes.is_empty() {
                        port.doors = None;
                    }
                }
                self.drop_if_unused(port);
            }
            None => {}
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
        let reaction = session.handle(datagram, arrival.min(now));
        self.react(at, reaction, now);
    }

    fn react(&mut self, at: usize, reaction: Reaction, now: Nanos) {
        let Some(Some(session)) = self.sessions.get(at) else { return };
        match reaction {
            Reaction::None => {}
            Reaction::Owes => {
                if let Some(Some(port)) = self.ports.get_mut(session.port) {
                    port.owing.push_back((now, at));
                }
            }
            Reaction::Answer => {
                if let Some(Some(port)) = self.ports.get_mut(session.port) {
                    port.hasty_until = now + HASTY;
                }
                self.touch(at);
            }
            Reaction::Repeat => {
                let (port, peer) = (session.port, session.peer);
                if let Some(agreement) = session.agreement().map(<[u8]>::to_vec) {
                    self.reply(port, peer, &agreement);
                }
            }
            Reaction::Derive(passphrase, salt) => {
                let to = session.local;
                let ask = |d: &Deriver<_>| d.ask(Derivation::Session(at, to), passphrase, salt);
                if !self.deriver.as_ref().is_some_and(ask)
                    && let Some(Some(session)) = self.sessions.get_mut(at)
                {
                    session.forgo();
                }
            }
            Reaction::Connected(agreed) => self.connected(at, *agreed, now),
            Reaction::Over(end) => self.end(at, &end, now),
        }
    }

    fn connected(&mut self, index: usize, agreed: Agreed, now: Nanos) {
        let Some(Some(session)) = self.sessions.get_mut(index) else { return };
        let port = session.port;
        // A rendezvous has a last word.
        if let Reaction::Over(end) = session.answer(index, &mut self.outbox, now) {
            return self.end(index, &end, now);
        }
        self.post(port);
        let Some(Some(session)) = self.sessions.get_mut(index) else { return };
        let Stage::Dialling(dialling) = &session.stage else { return };
        let (role, conduct) = (dialling.role.clone(), dialling.conduct);
        let passphrase = dialling.passphrase.clone();
        let (owner, attempt, stats) = (session.owner, session.attempt, Arc::clone(&session.stats));
        let membership = session.membership;
        if let Membership::Sends(bundle, _) = membership
            && let Err(end) = self.check_link(bundle, &agreed)
        {
            return self.end(index, &end, now);
        }
        match Stage::agreed(agreed, role, conduct, passphrase, &stats, now) {
            Ok(stage) => {
                if let Some(Some(session)) = self.sessions.get_mut(index) {
                    session.stage = stage;
                }
                self.begin(index, now);
                if membership == Membership::Alone {
                    self.tell(owner, attempt, NoticeKind::Connected);
                }
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
            if let Some(Some(Session { membership: Membership::Receives(group), .. })) =
                self.sessions.get(index)
            {
                self.deliver(*group, now);
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
        let mut due = session.next_due();
        if matches!(session.stage, Stage::Sending(_)) {
            // A sender's moments may wait for the next look at its port: one wake serves many.
            due = due.checked_next_multiple_of(POLL).unwrap_or(due);
        }
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
        if let Membership::Receives(group) = session.membership {
            self.leave_gathering(group, index);
        }
        let (owner, attempt) = (session.owner, session.attempt);
        if let Membership::Sends(bundle, link) = session.membership {
            self.link_failed(bundle, link, end, now);
            return self.drop_if_unused(port_index);
        }
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
                let reason = match &session.stage {
                    // A name may have other addresses.
                    Stage::Dialling(_) => format!("{}: {}", session.peer, end.reason),
                    _ => end.reason.clone(),
                };
                let retryable = end.retryable;
                self.tell(owner, attempt, NoticeKind::Failed { reason, retryable });
                self.drop_if_unused(port_index);
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

/// How long a port is looked at often after something came that is to be answered at once.
const HASTY: Nanos = 1_000_000_000;
/// How long a walk goes on before commands and sockets get their turn.
const TURN: Nanos = 5_000_000;
