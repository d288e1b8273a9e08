//! Lines of a shard's ports: sessions that read the same lane at the same moments. New datagrams of the lane leave to
//! all of them, with what they owe.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::Ports;
use crate::hub::{Cursor, Lane, Pace, StreamKey};
use crate::media::Nanos;
use crate::net::{Icmp, clock};
use crate::port::Source;
use crate::port::outbox::Posted;
use crate::port::session::{Membership, Session, Stage};

/// Sessions that read the same lane at the same moments.
pub(super) struct Line {
    pub(super) port: usize,
    pub(super) lane: Arc<Lane>,
    pub(super) stream: StreamKey,
    pub(super) delay: Nanos,
    /// It is walked at each moment of its delay class, for its members are in haste.
    fine: bool,
    pub(super) cursor: Cursor,
    pub(super) members: Vec<usize>,
}

impl Ports {
    /// A session that is past its handshake begins to read its lane.
    pub(super) fn begin(&mut self, index: usize, now: Nanos) {
        let Some(Some(session)) = self.sessions.get_mut(index) else { return };
        let port = session.port;
        if let Stage::Sending(sending) = &session.stage {
            let source = sending.source.clone();
            let number = self.line(port, &source, false, None, now);
            if let Some(Some(line)) = self.lines.get_mut(number) {
                line.members.push(index);
                self.timetable.weigh(number, line.members.len());
            }
            if let Some(Some(Session { stage: Stage::Sending(sending), .. })) = self.sessions.get_mut(index) {
                sending.line = number;
            }
            if let Some(position) = self.lines.get(number).and_then(Option::as_ref).map(|line| line.cursor.0)
            {
                self.link_connected(index, position, now);
            }
        }
        self.set_timer(index);
    }

    /// Serves sessions whose path changes the order of packets, or leaves little time to mend losses, at each moment of
    /// their delay class, and others at one moment in four.
    pub(super) fn sort_by_haste(&mut self, now: Nanos) {
        for index in 0..self.sessions.len() {
            let Some(Some(Session { stage: Stage::Sending(sending), port, .. })) = self.sessions.get(index)
            else {
                continue;
            };
            let fine = sending.sender.wants_haste(now) && sending.source.delay > 0;
            let Some(Some(line)) = self.lines.get(sending.line) else { continue };
            if line.fine != fine {
                let (port, from, source) = (*port, sending.line, sending.source.clone());
                self.move_member(index, (port, from), &source, fine, now);
            }
        }
    }

    fn move_member(
        &mut self,
        index: usize,
        (port, from): (usize, usize),
        source: &Source,
        fine: bool,
        now: Nanos,
    ) {
        let cursor_of = |ports: &Self, number: usize| Some(ports.lines.get(number)?.as_ref()?.cursor);
        self.flush(from, now);
        let Some(cursor) = cursor_of(self, from) else { return };
        let to = self.line(port, source, fine, Some(cursor), now);
        self.flush(to, now);
        // Something came between: another time, so that it gets every datagram once.
        let is_there =
            self.lines.get(from).is_some_and(|l| l.as_ref().is_some_and(|l| l.members.contains(&index)));
        let stand_alike = is_there && cursor_of(self, from) == cursor_of(self, to);
        if let Some(Some(line)) = self.lines.get_mut(to) {
            if stand_alike {
                line.members.push(index);
            }
            let members = line.members.len();
            if members == 0 {
                self.lines[to] = None;
                return self.timetable.close(to);
            }
            self.timetable.weigh(to, members);
        }
        if stand_alike {
            self.leave(from, index);
            if let Some(Some(Session { stage: Stage::Sending(sending), .. })) = self.sessions.get_mut(index) {
                sending.line = to;
            }
        }
    }

    /// A line with room for one more that reads this source by this port; a new one begins at `at`.
    pub(super) fn line(
        &mut self,
        port: usize,
        source: &Source,
        fine: bool,
        at: Option<Cursor>,
        now: Nanos,
    ) -> usize {
        let fits = |line: &Line| {
            line.port == port
                && Arc::ptr_eq(&line.lane, &source.lane)
                && (line.delay, line.fine) == (source.delay, fine)
                && line.members.len() < LINE
        };
        // At least as many lines as there are moments in a delay class, so that peers are not served all at once.
        let mine = self.lines.iter().flatten().filter(|line| {
            let same = line.port == port && Arc::ptr_eq(&line.lane, &source.lane);
            same && line.delay == source.delay && !line.fine
        });
        let spread = source.delay == 0 || fine || mine.count() >= MOMENTS;
        let fewest = self.lines.iter().enumerate().filter_map(|(i, l)| Some((i, l.as_ref()?)));
        let found = fewest.filter(|(_, l)| fits(l)).min_by_key(|(_, l)| l.members.len());
        if let Some((number, line)) = found
            && (spread || line.members.is_empty())
        {
            return number;
        }
        let lane = Arc::clone(&source.lane);
        let cursor = at.unwrap_or_else(|| lane.live());
        let pace = if fine { Pace::each_moment(source.delay) } else { Pace::class(source.delay) };
        let number =
            self.timetable.open((source.stream, Arc::clone(lane.pulse()), source.local), pace, cursor.0, now);
        if self.lines.len() <= number {
            self.lines.resize_with(number + 1, || None);
        }
        let (stream, delay) = (source.stream, source.delay);
        self.lines[number] = Some(Line { port, lane, stream, delay, fine, cursor, members: Vec::new() });
        // So that the next one sees that this moment is taken.
        self.timetable.weigh(number, 1);
        number
    }

    /// Sends what is new in a line's lane to its members, and what they owe.
    pub(super) fn flush(&mut self, number: usize, now: Nanos) {
        self.review_line(number, now);
        let Some(mut line) = self.lines.get_mut(number).and_then(Option::take) else { return };
        for _ in 0..RUNS {
            self.outbox.run.clear();
            let read = line.lane.read(&mut line.cursor, RUN, &mut self.outbox.run, |_| true);
            let position = line.cursor.0 - read.taken as u64;
            for &index in &line.members {
                let Some(Some(session)) = self.sessions.get_mut(index) else { continue };
                let to = session.addressee(index);
                let Stage::Sending(sending) = &mut session.stage else { continue };
                if sending.hurries {
                    sending.send_again(to, &mut self.outbox, now);
                }
                let carries = match session.membership {
                    Membership::Sends(bundle, link) => match self.bundles.get_mut(bundle) {
                        Some(Some(bundle)) if bundle.carries(link) => {
                            bundle.note(position, &self.outbox.run);
                            true
                        }
                        _ => false,
                    },
                    Membership::Alone | Membership::Receives(_) => true,
                };
                if carries {
                    sending.send_new(to, position, &mut self.outbox, now);
                }
                sending.send_control(to, &mut self.outbox, now);
                if self.outbox.is_full() {
                    self.post(line.port);
                }
            }
            self.post(line.port);
            if read.taken < RUN {
                break;
            }
        }
        self.timetable.walked(number, line.cursor.0, now);
        self.lines[number] = Some(line);
    }

    pub(super) fn post(&mut self, port: usize) {
        let Some(Some(of)) = self.ports.get(port) else { return };
        let posted = self.outbox.post(&of.socket);
        self.settle(port, posted);
    }

    pub(super) fn settle(&mut self, port: usize, posted: Posted) {
        self.stats.messages.fetch_add(posted.messages, Relaxed);
        self.stats.datagrams.fetch_add(posted.datagrams, Relaxed);
        for (index, errno) in posted.refused {
            let Some(Some(session)) = self.sessions.get_mut(index) else { continue };
            if matches!(errno, libc::EINVAL | libc::EIO | libc::EMSGSIZE) {
                // The path refuses messages that the kernel cuts; what was lost the peer asks for.
                session.segmented = false;
            }
        }
        if posted.look_at_errors {
            self.read_path_errors(port);
        }
    }

    pub(super) fn read_path_errors(&mut self, index: usize) {
        let Some(Some(port)) = self.ports.get(index) else { return };
        let wall = clock::wall_ms();
        let mut refused = Vec::new();
        port.socket.path_errors(|error| refused.push(error));
        for error in refused {
            let of = |s: &&mut Session| s.port == index && s.peer == error.destination;
            for session in self.sessions.iter_mut().flatten().filter(of) {
                match &mut session.stage {
                    Stage::Sending(sending) => {
                        sending.source.stats.icmp_errors.fetch_add(1, Relaxed);
                        sending.source.stats.last_icmp_ms.store(wall, Relaxed);
                    }
                    Stage::Dialling(dialling) if error.kind == Icmp::PortUnreachable => {
                        dialling.nobody = true;
                    }
                    _ => {}
                }
            }
        }
    }

    pub(super) fn leave(&mut self, number: usize, index: usize) {
        let Some(Some(line)) = self.lines.get_mut(number) else { return };
        line.members.retain(|&member| member != index);
        let members = line.members.len();
        if members == 0 {
            self.lines[number] = None;
            self.timetable.close(number);
        } else {
            self.timetable.weigh(number, members);
        }
    }
}

/// Sessions in a line at the most.
const LINE: usize = 128;
/// Moments of a delay class.
const MOMENTS: usize = 4;
/// Datagrams of a lane in one run.
const RUN: usize = 40;
/// Runs in one flush.
const RUNS: usize = 8;
