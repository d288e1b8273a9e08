//! All UDP-like outputs that one shard walks: targets and moments in time enter, batches leave. Decides who shares
//! a cohort and a socket, and when each cohort is walked.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::mpsc;

use super::cohort::{Cohort, CohortKey, Flushed, Member, Move, Scratch};
use super::{Command, Framing, Notice, NoticeKind, OutputKey, Target};
use crate::hub::{Cursor, Outflow, Pace, Schedule, StreamKey, Timetable};
use crate::media::Nanos;
use crate::net::{Doorbell, Icmp, SendOptions, SendSocket, clock};
use crate::telemetry::ShardStats;

/// The UDP-like outputs of one shard.
pub struct Fanout {
    sockets: Vec<Option<Shared>>,
    /// By the number that the timetable gave them.
    cohorts: Vec<Option<Cohort>>,
    /// Cohorts of equal key, the one with room last.
    groups: HashMap<CohortKey, Vec<usize>>,
    outputs: HashMap<OutputKey, (usize, usize)>,
    /// When each cohort is walked.
    timetable: Timetable,
    scratch: Scratch,
    notices: mpsc::Sender<Notice>,
    stats: Arc<ShardStats>,
    /// Seeds the RTP sources.
    random: u64,
}

/// A socket and who sends through it, to give ICMP errors to the right outputs.
struct Shared {
    socket: SendSocket,
    by_destination: HashMap<SocketAddr, Vec<OutputKey>>,
}

impl Fanout {
    /// Outputs that are woken by `bell` when another shard writes, and tell what happens to them through
    /// `notices` (dropped when that is full). `seed` makes the RTP sources differ between runs.
    pub fn new(
        bell: Arc<Doorbell>,
        notices: mpsc::Sender<Notice>,
        stats: Arc<ShardStats>,
        seed: u64,
    ) -> Self {
        Self {
            sockets: Vec::new(),
            cohorts: Vec::new(),
            groups: HashMap::new(),
            outputs: HashMap::new(),
            timetable: Timetable::new(bell),
            scratch: Scratch::default(),
            notices,
            stats,
            random: seed,
        }
    }

    fn attach(&mut self, target: &Target, now: Nanos) {
        self.detach(target.key, now);
        let socket = match self.socket(&target.socket) {
            Ok(socket) => socket,
            Err(error) => {
                let kind =
                    NoticeKind::NoSocket { reason: error.to_string(), retryable: error.is_retryable() };
                return self.tell(target.key, target.attempt, kind);
            }
        };
        let key = CohortKey {
            lane: Arc::as_ptr(&target.lane) as usize,
            framing: target.framing,
            packets: 0,
            segmented: true,
            socket,
            delay: target.delay,
            paced: target.paced,
        };
        let index = self.place(key, target, None, now);
        if let Some(cohort) = &mut self.cohorts[index] {
            cohort.join(target);
        }
        self.settle(index, target.key, target.destination);
    }

    fn detach(&mut self, key: OutputKey, now: Nanos) {
        self.send_rest(key, now);
        let Some(&(index, place)) = self.outputs.get(&key) else { return };
        let Some(cohort) = &mut self.cohorts[index] else { return };
        let socket = cohort.key.socket;
        let member = self.remove(index, place, now);
        self.outputs.remove(&key);
        self.drop_if_empty(index);
        self.forget_destination(socket, member.destination, key);
    }

    /// Sends what waits for an output that is about to leave: its delay class costs it no datagram. A paced one
    /// loses what is not due yet, for a burst is what it must not get.
    fn send_rest(&mut self, key: OutputKey, now: Nanos) {
        let mut flushed = None;
        // A path that refuses moves it to another cohort, where the same datagrams wait.
        while let Some(&(index, _)) = self.outputs.get(&key)
            && flushed != Some(index)
            && self.cohorts[index].as_ref().is_some_and(|c| !c.key.paced && c.pending() > 0)
        {
            self.flush(index, now);
            flushed = Some(index);
        }
    }

    /// The cohort of that key that has room (and, for one that moves, stands at the same cursor), or a new one.
    fn place(&mut self, key: CohortKey, target: &Target, at: Option<Cursor>, now: Nanos) -> usize {
        let fits = |cohort: &Cohort| {
            cohort.members.len() < COHORT && at.is_none_or(|cursor| cohort.cursor == cursor)
        };
        let group = self.groups.entry(key).or_default();
        let found = group.iter().rev().copied().find(|&i| self.cohorts[i].as_ref().is_some_and(fits));
        if let Some(index) = found {
            return index;
        }
        self.random = self.random.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        let cursor = at.unwrap_or_else(|| target.lane.live());
        let reads = (target.stream, Arc::clone(target.lane.pulse()), target.local);
        let pace = Pace { own: key.paced, ..Pace::class(key.delay) };
        let index = self.timetable.open(reads, pace, cursor.0, now);
        if self.cohorts.len() <= index {
            self.cohorts.resize_with(index + 1, || None);
        }
        self.cohorts[index] = Some(Cohort::new(key, target, cursor, (self.random >> 32) as u32));
        self.groups.entry(key).or_default().push(index);
        index
    }

    /// Books the last member of a cohort as being there.
    fn settle(&mut self, index: usize, key: OutputKey, destination: SocketAddr) {
        let Some(cohort) = &self.cohorts[index] else { return };
        self.outputs.insert(key, (index, cohort.members.len() - 1));
        self.timetable.weigh(index, cohort.members.len());
        if let Some(Some(shared)) = self.sockets.get_mut(cohort.key.socket) {
            let outputs = shared.by_destination.entry(destination).or_default();
            if !outputs.contains(&key) {
                outputs.push(key);
            }
        }
    }

    fn remove(&mut self, index: usize, place: usize, now: Nanos) -> Member {
        let cohort = self.cohorts[index].as_mut().expect("an output's cohort exists as long as the output");
        let member = cohort.leave(place, now);
        if let Some(moved) = cohort.members.get(place) {
            self.outputs.insert(moved.key, (index, place));
        }
        self.timetable.weigh(index, cohort.members.len());
        member
    }

    fn drop_if_empty(&mut self, index: usize) {
        let Some(cohort) = self.cohorts[index].take_if(|c| c.members.is_empty()) else { return };
        if let Some(group) = self.groups.get_mut(&cohort.key) {
            group.retain(|&i| i != index);
            if group.is_empty() {
                self.groups.remove(&cohort.key);
            }
        }
        self.timetable.close(index);
    }

    fn forget_destination(&mut self, socket: usize, destination: SocketAddr, key: OutputKey) {
        let Some(Some(shared)) = self.sockets.get_mut(socket) else { return };
        if let Some(outputs) = shared.by_destination.get_mut(&destination) {
            outputs.retain(|&o| o != key);
            if outputs.is_empty() {
                shared.by_destination.remove(&destination);
            }
        }
        if shared.by_destination.is_empty() {
            self.sockets[socket] = None;
        }
    }

    fn socket(&mut self, options: &SendOptions) -> Result<usize, crate::net::SocketError> {
        let same = |s: &Option<Shared>| s.as_ref().is_some_and(|s| s.socket.options() == options);
        if let Some(index) = self.sockets.iter().position(same) {
            return Ok(index);
        }
        let shared = Shared { socket: SendSocket::open(options.clone())?, by_destination: HashMap::new() };
        let index = match self.sockets.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                self.sockets.push(None);
                self.sockets.len() - 1
            }
        };
        self.sockets[index] = Some(shared);
        Ok(index)
    }

    /// Sends what waits for one cohort and decides when it is walked again.
    fn flush(&mut self, index: usize, now: Nanos) {
        let Some(cohort) = &mut self.cohorts[index] else { return };
        let mut flushed = Flushed::default();
        if let Some(Some(shared)) = self.sockets.get_mut(cohort.key.socket) {
            // More than one run where sizes differ or the cohort is late; bounded, so that others get their turn.
            for _ in 0..RUNS {
                let run = cohort.flush(&mut shared.socket, &mut self.scratch, now);
                self.stats.messages.fetch_add(run.messages as u64, Relaxed);
                self.stats.datagrams.fetch_add(run.datagrams as u64, Relaxed);
                let (taken, moves) = (run.taken, !run.moves.is_empty());
                flushed.taken += taken;
                flushed.look_at_errors |= run.look_at_errors;
                flushed.notices.extend(run.notices);
                flushed.moves.extend(run.moves);
                if taken == 0 || moves || cohort.pending() == 0 || cohort.key.paced {
                    break;
                }
            }
        }
        let socket = cohort.key.socket;
        match &cohort.paced {
            Some(paced) => self.timetable.awaits(index, cohort.cursor.0, paced.next_due(now), now),
            None => self.timetable.walked(index, cohort.cursor.0, now),
        }
        for (output, attempt, kind) in flushed.notices {
            self.tell(output, attempt, kind);
        }
        if flushed.look_at_errors {
            self.read_path_errors(socket);
        }
        if !flushed.moves.is_empty() {
            self.apply_moves(index, flushed.moves, now);
        }
    }

    fn apply_moves(&mut self, index: usize, mut moves: Vec<Move>, now: Nanos) {
        // From the back: removing a member puts the last one into its place.
        moves.sort_by_key(|m| Reverse(m.index));
        for to in moves {
            let Some(cohort) = &self.cohorts[index] else { return };
            let local = self.timetable.line(index).is_none_or(|line| !line.distant);
            let key = CohortKey { packets: to.packets, segmented: to.segmented, ..cohort.key };
            let like = Target {
                key: 0,
                attempt: 0,
                stream: cohort.stream,
                local,
                lane: Arc::clone(&cohort.lane),
                destination: ([0, 0, 0, 0], 0).into(),
                socket: SendOptions::default(),
                framing: key.framing,
                delay: key.delay,
                paced: key.paced,
                stats: Arc::default(),
            };
            let member = self.remove(index, to.index, now);
            let (output, destination) = (member.key, member.destination);
            let place = self.place(key, &like, Some(to.cursor), now);
            if let Some(cohort) = &mut self.cohorts[place] {
                cohort.admit(member);
            }
            self.settle(place, output, destination);
            self.timetable.schedule_at(place, now);
        }
        self.drop_if_empty(index);
    }

    /// Empties the smallest cohort of each group in which churn, or paths that refused, left more than its members
    /// need: each costs a walk, however few it serves. One at a time, so that no turn gets long. RTP cohorts stay
    /// apart, because each is a source with a numbering of its own.
    fn merge(&mut self, now: Nanos) {
        let members = |&index: &usize| self.cohorts[index].as_ref().map_or(0, |c| c.members.len());
        let crowded = |(key, group): &(&CohortKey, &Vec<usize>)| {
            let needed = group.iter().map(members).sum::<usize>().div_ceil(COHORT);
            key.framing == Framing::Udp && group.len() > needed
        };
        let mut groups: Vec<Vec<usize>> =
            self.groups.iter().filter(crowded).map(|(_, group)| group.clone()).collect();
        groups.iter_mut().for_each(|group| group.sort_by_key(|index| Reverse(members(index))));
        for mut group in groups {
            let Some(from) = group.pop() else { continue };
            group.into_iter().for_each(|to| self.pour(from, to, now));
            self.drop_if_empty(from);
        }
    }

    /// Moves members from one cohort to another of the same key, as many as there is room for.
    fn pour(&mut self, from: usize, to: usize, now: Nanos) {
        let room = |cohort: &Cohort| COHORT - cohort.members.len();
        if self.cohorts[to].as_ref().is_none_or(|cohort| room(cohort) == 0) {
            return;
        }
        // Their moments differ: after a flush both stand at the head, unless the path refuses.
        for index in [from, to] {
            if self.cohorts[index].as_ref().is_some_and(|cohort| cohort.pending() > 0) {
                self.flush(index, now);
            }
        }
        let (Some(source), Some(target)) = (&self.cohorts[from], &self.cohorts[to]) else { return };
        // A flush that moved members may have given the number of a cohort to another one.
        if source.key != target.key || !source.stands_with(target) {
            return;
        }
        for place in (0..source.members.len()).rev().take(room(target)) {
            let member = self.remove(from, place, now);
            let (output, destination) = (member.key, member.destination);
            if let Some(target) = &mut self.cohorts[to] {
                target.admit(member);
            }
            self.settle(to, output, destination);
        }
        self.timetable.spread(to);
    }

    fn read_path_errors(&mut self, socket: usize) {
        let Some(Some(shared)) = self.sockets.get(socket) else { return };
        let wall = clock::wall_ms();
        shared.socket.path_errors(|error| {
            for key in shared.by_destination.get(&error.destination).into_iter().flatten() {
                let Some(&(index, place)) = self.outputs.get(key) else { continue };
                let Some(member) = self.cohorts[index].as_mut().and_then(|c| c.members.get_mut(place)) else {
                    continue;
                };
                if let Icmp::TooBig(mtu) = error.kind {
                    member.mtu = mtu;
                    continue;
                }
                member.stats.icmp_errors.fetch_add(1, Relaxed);
                member.stats.last_icmp_ms.store(wall, Relaxed);
            }
        });
    }

    fn tell(&self, output: OutputKey, attempt: u32, kind: NoticeKind) {
        // Overflow policy: lost; the counters tell the same in numbers.
        if self.notices.try_send(Notice { output, attempt, kind }).is_err() {
            self.stats.lost_notices.fetch_add(1, Relaxed);
        }
    }
}

impl Outflow for Fanout {
    type Command = Command;

    fn handle(&mut self, command: Command, now: Nanos) {
        match command {
            Command::Attach(target) => self.attach(&target, now),
            Command::Detach(key) => self.detach(key, now),
        }
    }

    fn reads(&self, command: &Command) -> Option<StreamKey> {
        let Command::Detach(key) = command else { return None };
        let &(index, _) = self.outputs.get(key)?;
        self.cohorts[index].as_ref().map(|cohort| cohort.stream)
    }

    fn arrived(&mut self, stream: StreamKey, hurry: bool, now: Nanos) {
        self.timetable.arrived(stream, hurry, now);
    }

    fn rang(&mut self, now: Nanos) {
        self.timetable.rang(now);
    }

    fn walk(&mut self, now: Nanos, refresh: &mut dyn FnMut(StreamKey) -> u32) {
        let until = now + TURN;
        let mut now = now;
        while now <= until
            && let Some(index) = self.timetable.take_due(now)
        {
            let Some(Some(cohort)) = self.cohorts.get(index) else { continue };
            let stream = cohort.stream;
            if refresh(stream) > 0 {
                self.arrived(stream, false, now);
            }
            self.flush(index, now);
            now = clock::now();
        }
    }

    fn next_due(&mut self) -> Option<Nanos> {
        self.timetable.next_due()
    }

    fn schedule(&self, stream: StreamKey) -> Schedule {
        self.timetable.schedule(stream)
    }

    fn set_ticking(&mut self, stream: StreamKey, ticking: bool, now: Nanos) {
        self.timetable.set_ticking(stream, ticking, now);
    }

    fn finish(&mut self, now: Nanos) {
        let outputs: Vec<OutputKey> = self.outputs.keys().copied().collect();
        outputs.into_iter().for_each(|output| self.send_rest(output, now));
    }

    fn publish(&mut self, now: Nanos) {
        (0..self.sockets.len()).for_each(|socket| self.read_path_errors(socket));
        self.merge(now);
        self.cohorts.iter_mut().flatten().for_each(|cohort| cohort.publish(now));
    }
}

/// Outputs in a cohort at the most: 128 sends take about as long as the wake-up that they need.
const COHORT: usize = 128;
/// Messages per member in one flush.
const RUNS: usize = 8;
/// How long a walk goes on before commands and sockets get their turn.
const TURN: Nanos = 5_000_000;

#[cfg(test)]
mod tests;
