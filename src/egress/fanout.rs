//! All UDP-like outputs that one shard walks: targets and moments in time enter, batches leave. Decides who shares
//! a cohort and a socket, and when each cohort is walked.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::mpsc;

use super::cohort::{Cohort, CohortKey, Flushed, Member, Move, Scratch};
use super::{Command, Framing, Notice, NoticeKind, OutputKey, Target};
use crate::hub::{Cursor, Lane, Outflow, Schedule, StreamKey};
use crate::media::Nanos;
use crate::net::{Doorbell, Icmp, SendOptions, SendSocket, clock};
use crate::telemetry::ShardStats;

/// The UDP-like outputs of one shard.
pub struct Fanout {
    sockets: Vec<Option<Shared>>,
    cohorts: Vec<Option<Cohort>>,
    /// Cohorts of equal key, the one with room last.
    groups: HashMap<CohortKey, Vec<usize>>,
    outputs: HashMap<OutputKey, (usize, usize)>,
    streams: HashMap<StreamKey, Stream>,
    due: BinaryHeap<Reverse<(Nanos, usize)>>,
    /// Members in each of the four moments of a delay class, so that they leave spread out.
    slots: HashMap<(Nanos, u8), usize>,
    scratch: Scratch,
    bell: Arc<Doorbell>,
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

#[derive(Default)]
struct Stream {
    cohorts: Vec<usize>,
    /// Its intake lives on this shard.
    local: bool,
    /// Its intake is polled at our moments.
    ticking: bool,
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
            streams: HashMap::new(),
            due: BinaryHeap::new(),
            slots: HashMap::new(),
            scratch: Scratch::default(),
            bell,
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
        let stream = self.streams.entry(target.stream).or_default();
        stream.local = target.local;
        // A stream of another shard is read at our own moments from the start.
        stream.ticking |= !target.local;
        if !target.local {
            target.lane.add_distant_reader();
        }
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
        let (stream, lane) = (cohort.stream, Arc::clone(&cohort.lane));
        let socket = cohort.key.socket;
        let member = self.remove(index, place, now);
        if self.streams.get(&stream).is_some_and(|s| !s.local) {
            lane.remove_distant_reader();
        }
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
        let slot = self.quietest(key.delay);
        self.random = self.random.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        let cursor = at.unwrap_or_else(|| target.lane.live());
        let mut cohort = Cohort::new(key, target, cursor, slot, (self.random >> 32) as u32);
        let stream = self.streams.entry(target.stream).or_default();
        if stream.ticking || at.is_some() {
            cohort.due = Some(next_moment(key.delay, slot, now));
        }
        // Without a delay there are no moments: a distant lane has to ring.
        if !stream.local && key.delay == 0 {
            cohort.watching = true;
            cohort.lane.watch(&self.bell);
        }
        let index = match self.cohorts.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                self.cohorts.push(None);
                self.cohorts.len() - 1
            }
        };
        if let Some(due) = cohort.due {
            self.due.push(Reverse((due, index)));
        }
        self.cohorts[index] = Some(cohort);
        self.groups.entry(key).or_default().push(index);
        stream.cohorts.push(index);
        index
    }

    /// The moment of a delay class at which the fewest outputs leave.
    fn quietest(&self, delay: Nanos) -> u8 {
        (0..SLOTS).min_by_key(|&slot| self.slots.get(&(delay, slot)).copied().unwrap_or(0)).unwrap_or(0)
    }

    /// Books the last member of a cohort as being there.
    fn settle(&mut self, index: usize, key: OutputKey, destination: SocketAddr) {
        let Some(cohort) = &self.cohorts[index] else { return };
        self.outputs.insert(key, (index, cohort.members.len() - 1));
        *self.slots.entry((cohort.key.delay, cohort.slot)).or_default() += 1;
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
        if let Some(count) = self.slots.get_mut(&(cohort.key.delay, cohort.slot)) {
            *count -= 1;
        }
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
        if cohort.watching {
            self.unwatch_unless_needed(&cohort.lane);
        }
        if let Some(stream) = self.streams.get_mut(&cohort.stream) {
            stream.cohorts.retain(|&i| i != index);
            if stream.cohorts.is_empty() && !stream.local {
                self.streams.remove(&cohort.stream);
            }
        }
    }

    /// A lane has one bell for all cohorts of this shard.
    fn unwatch_unless_needed(&self, lane: &Arc<Lane>) {
        let needed = self.cohorts.iter().flatten().any(|c| c.watching && Arc::ptr_eq(&c.lane, lane));
        if !needed {
            lane.unwatch(&self.bell);
        }
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

    fn schedule_at(&mut self, index: usize, due: Nanos) {
        if let Some(cohort) = &mut self.cohorts[index]
            && cohort.due.is_none_or(|was| was > due)
        {
            cohort.due = Some(due);
            self.due.push(Reverse((due, index)));
        }
    }

    /// Sends what waits for one cohort and decides when it is walked again.
    fn flush(&mut self, index: usize, now: Nanos) {
        let Some(cohort) = &mut self.cohorts[index] else { return };
        cohort.due = None;
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
        let (socket, key, slot) = (cohort.key.socket, cohort.key, cohort.slot);
        let stream = self.streams.get(&cohort.stream);
        let (local, ticking) = stream.map_or((true, false), |s| (s.local, s.ticking));
        cohort.idle = if flushed.taken == 0 { cohort.idle + 1 } else { 0 };
        let next = if let Some(paced) = &cohort.paced {
            paced.next_due(now).or_else(|| ticking.then_some(now + PACED_POLL))
        } else if cohort.pending() > 0 {
            Some(now)
        } else if !ticking || key.delay == 0 {
            None
        } else if !local && cohort.idle > IDLE_WALKS {
            // Nothing came for long: the writer shall ring. It does not ring for what it just wrote.
            cohort.watching = true;
            cohort.lane.watch(&self.bell);
            (cohort.pending() > 0).then_some(now)
        } else {
            Some(next_moment(key.delay, slot, now))
        };
        if let Some(next) = next {
            cohort.due = Some(next);
            self.due.push(Reverse((next, index)));
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
            let key = CohortKey { packets: to.packets, segmented: to.segmented, ..cohort.key };
            let like = Target {
                key: 0,
                attempt: 0,
                stream: cohort.stream,
                local: true,
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
            self.schedule_at(place, now);
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
        self.spread(to);
    }

    /// Gives a cohort that grew the moment at which the fewest others leave.
    fn spread(&mut self, index: usize) {
        let Some(cohort) = &self.cohorts[index] else { return };
        let (delay, slot, size) = (cohort.key.delay, cohort.slot, cohort.members.len());
        *self.slots.entry((delay, slot)).or_default() -= size;
        let slot = self.quietest(delay);
        *self.slots.entry((delay, slot)).or_default() += size;
        if let Some(cohort) = &mut self.cohorts[index] {
            cohort.slot = slot;
        }
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
        let Some(state) = self.streams.get_mut(&stream) else { return };
        let cohorts = std::mem::take(&mut state.cohorts);
        for &index in &cohorts {
            let Some(cohort) = &self.cohorts[index] else { continue };
            let key = cohort.key;
            let due = if hurry || key.delay == 0 || key.paced || cohort.pending() >= FULL {
                now
            } else {
                next_moment(key.delay, cohort.slot, now)
            };
            self.schedule_at(index, due);
        }
        if let Some(state) = self.streams.get_mut(&stream) {
            state.cohorts = cohorts;
        }
    }

    fn rang(&mut self, now: Nanos) {
        for index in 0..self.cohorts.len() {
            let Some(cohort) = &mut self.cohorts[index] else { continue };
            if !cohort.watching || cohort.pending() == 0 {
                continue;
            }
            if cohort.key.delay > 0 {
                cohort.watching = false;
                cohort.idle = 0;
                let lane = Arc::clone(&cohort.lane);
                self.unwatch_unless_needed(&lane);
            }
            self.schedule_at(index, now);
        }
    }

    fn walk(&mut self, now: Nanos, refresh: &mut dyn FnMut(StreamKey) -> u32) {
        let until = now + TURN;
        let mut now = now;
        while let Some(&Reverse((due, index))) = self.due.peek() {
            if due > now || now > until {
                break;
            }
            self.due.pop();
            let Some(cohort) = self.cohorts[index].as_ref().filter(|c| c.due == Some(due)) else { continue };
            let stream = cohort.stream;
            if refresh(stream) > 0 {
                self.arrived(stream, false, now);
            }
            self.flush(index, now);
            now = clock::now();
        }
    }

    fn next_due(&mut self) -> Option<Nanos> {
        while let Some(&Reverse((due, index))) = self.due.peek() {
            if self.cohorts[index].as_ref().is_some_and(|c| c.due == Some(due)) {
                return Some(due);
            }
            self.due.pop();
        }
        None
    }

    fn schedule(&self, stream: StreamKey) -> Schedule {
        let Some(state) = self.streams.get(&stream) else { return Schedule::default() };
        let mut moments: Vec<(Nanos, u8)> = Vec::new();
        let mut immediate = false;
        for cohort in state.cohorts.iter().filter_map(|&i| self.cohorts[i].as_ref()) {
            immediate |= cohort.key.delay == 0 || cohort.key.paced;
            let moment = (cohort.key.delay, cohort.slot);
            if cohort.key.delay > 0 && !moments.contains(&moment) {
                moments.push(moment);
            }
        }
        let ticks = moments.iter().map(|(delay, _)| 1_000_000_000 / delay).sum::<Nanos>();
        Schedule { immediate, ticks_per_second: ticks as u32 }
    }

    fn set_ticking(&mut self, stream: StreamKey, ticking: bool, now: Nanos) {
        let state = self.streams.entry(stream).or_default();
        state.ticking = ticking;
        state.local = true;
        if !ticking {
            if state.cohorts.is_empty() {
                self.streams.remove(&stream);
            }
            return;
        }
        for index in state.cohorts.clone() {
            let Some(cohort) = &self.cohorts[index] else { continue };
            let due = next_moment(cohort.key.delay, cohort.slot, now);
            self.schedule_at(index, due);
        }
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

/// The next moment of a delay class after `now`: a quarter of D apart for the four slots, the same for all
/// streams, so that one wake of the thread serves many.
fn next_moment(delay: Nanos, slot: u8, now: Nanos) -> Nanos {
    if delay == 0 {
        return now;
    }
    let offset = delay / Nanos::from(SLOTS) * Nanos::from(slot);
    (now.saturating_sub(offset) / delay + 1) * delay + offset
}

/// Outputs in a cohort at the most: 128 sends take about as long as the wake-up that they need.
const COHORT: usize = 128;
const SLOTS: u8 = 4;
/// Waiting datagrams at which a cohort is walked before its moment: GSO gains little beyond.
const FULL: u64 = 8;
/// Messages per member in one flush.
const RUNS: usize = 8;
/// Walks that found nothing after which a distant lane has to ring.
const IDLE_WALKS: u32 = 64;
/// How long a walk goes on before commands and sockets get their turn.
const TURN: Nanos = 5_000_000;
const PACED_POLL: Nanos = 5_000_000;

#[cfg(test)]
mod tests;
