//! Connections whose media leave as datagrams: those that stand at the same message are walked as one, late ones one by
//! one until they do; what their receivers report is heard. Writes to no connection.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::fan::{Leg, Shape, Spread, Total};
use super::receiver::Step;
use super::{Connections, Farewell, OutputKey};
use crate::media::Nanos;
use crate::net::{Icmp, SocketError, clock};
use crate::wire::rtp::framed;

impl Connections {
    /// The sockets of those legs, for connection `index`.
    pub(super) fn take_ports(&mut self, index: usize, legs: &[Leg]) -> Result<Shape, SocketError> {
        self.ports.join(index, legs, &self.wakes)
    }

    /// Does what a connection whose media leave as datagrams needs: begins, catches up, goes along, stops.
    pub(super) fn lead(&mut self, index: usize, now: Nanos) {
        let Some(Some(connection)) = self.connections.get_mut(index) else { return };
        let playing = connection.is_playing();
        let Some(receiver) = &mut connection.receiver else { return };
        if !playing {
            return self.stop_sending(index);
        }
        let Some(Some(line)) = self.lines.get_mut(connection.line) else { return };
        let (cursor, total) = (line.cursor(), line.total());
        if receiver.is_away() && receiver.is_grouped() {
            receiver.join(total);
            let follows = line.follow(index);
            receiver.follow(follows);
            if !follows {
                line.take_along(index, &receiver.legs);
            }
            return;
        }
        if receiver.is_away() {
            receiver.begin(&line.lane, total, now);
        }
        let (step, spread) = receiver.catch_up(&line.lane, (cursor, total), &mut self.ports.0, now);
        if step == Step::Level {
            receiver.join(total);
            line.take_along(index, &receiver.legs);
        }
        self.count(spread);
        if let Step::At(due) = step {
            self.arm(index, Some(due));
        }
    }

    /// Sends a connection no more datagrams.
    pub(super) fn stop_sending(&mut self, index: usize) {
        let Some(Some(connection)) = self.connections.get_mut(index) else { return };
        let Some(receiver) = connection.receiver.as_mut().filter(|receiver| !receiver.is_away()) else {
            return;
        };
        let Some(Some(line)) = self.lines.get_mut(connection.line) else { return };
        receiver.stop(line.total());
        let next = line.leave_behind(index).and_then(|next| self.connections.get_mut(next));
        if let Some(receiver) = next.and_then(Option::as_mut).and_then(|c| c.receiver.as_mut()) {
            receiver.follow(false);
        }
    }

    /// A connection is about to be let go: its counters are shown, its sockets given back.
    pub(super) fn forget_receiver(&mut self, index: usize) {
        self.stop_sending(index);
        let Some(Some(connection)) = self.connections.get_mut(index) else { return };
        connection.show_sent(None);
        if let Some(receiver) = &connection.receiver {
            self.ports.leave(index, &receiver.legs, &receiver.shape, &self.wakes);
        }
    }

    /// Tells a receiver that is about to be sent nothing more.
    pub(super) fn bid_farewell(&mut self, index: usize) {
        let Some(Some(connection)) = self.connections.get_mut(index) else { return };
        let Some(receiver) = connection.receiver.as_mut().filter(|receiver| !receiver.is_away()) else {
            return;
        };
        let line = self.lines.get(connection.line).and_then(Option::as_ref);
        if receiver.is_grouped() && line.is_some_and(|line| line.users > 1) {
            // Others listen on.
            return;
        }
        receiver.part(&line.map(|line| line.sources()).unwrap_or_default(), &mut self.ports.0);
    }

    /// Sends what is new in the lane to everybody who goes along.
    pub(super) fn walk_crowd(&mut self, number: usize, now: Nanos) {
        let Some(line) = self.lines.get_mut(number).and_then(Option::as_mut) else { return };
        let mut lost: Vec<(usize, Total)> = Vec::new();
        let spread = line.spread(&mut self.ports.0, &mut lost);
        let read_to = line.position();
        for (place, gone) in lost {
            let member = line.members.get(place).and_then(|index| self.connections.get_mut(*index));
            if let Some(receiver) = member.and_then(Option::as_mut).and_then(|c| c.receiver.as_mut()) {
                receiver.refuse(gone);
            }
        }
        self.count(spread);
        self.table.walked(number, read_to, now);
    }

    /// Hears RTCP that came to a port.
    pub(super) fn hear_port(&mut self, number: usize, now: Nanos) {
        for _ in 0..DATAGRAMS {
            let Some(Some(sockets)) = self.ports.0.get(number) else { return };
            let (count, from) = match sockets.rtcp.receive(&mut self.buffer) {
                Ok(heard) => heard,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // About something sent before: its queue of errors tells more.
                Err(_) => continue,
            };
            let Some(known) = sockets.peers.get(&from).cloned() else { continue };
            for index in known {
                let Some(Some(connection)) = self.connections.get_mut(index) else { continue };
                let line = self.lines.get(connection.line).and_then(Option::as_ref);
                let (total, sources) = line.map_or_else(Default::default, |l| (Some(l.total()), l.sources()));
                connection.hear_rtcp(self.buffer.get(..count).unwrap_or_default(), total, &sources, now);
            }
        }
        self.look_at_path(number, now);
        self.ports.rearm(number, &self.wakes);
    }

    /// Takes what paths said of datagrams, and lets those go whose host says for long that nobody listens.
    pub(super) fn look_at_paths(&mut self, now: Nanos) {
        (0..self.ports.0.len()).for_each(|number| self.look_at_path(number, now));
        let gone = |(index, connection): (usize, &mut Option<_>)| {
            let connection: &mut super::connection::Connection = connection.as_mut()?;
            connection.receiver.as_mut()?.is_gone(now).then_some(index)
        };
        let gone: Vec<usize> = self.connections.iter_mut().enumerate().filter_map(gone).collect();
        for index in gone {
            let reason = "its host answers that nobody listens (ICMP)".into();
            self.lose(index, Farewell { reason, retryable: true });
        }
    }

    fn look_at_path(&mut self, number: usize, now: Nanos) {
        let Self { ports, connections, .. } = self;
        let Some(Some(sockets)) = ports.0.get(number) else { return };
        let wall = clock::wall_ms();
        for (socket, media) in [(&sockets.rtp, true), (&sockets.rtcp, false)] {
            socket.path_errors(|error| {
                for index in sockets.peers.get(&error.destination).into_iter().flatten() {
                    let Some(Some(connection)) = connections.get_mut(*index) else { continue };
                    connection.stats.icmp_errors.fetch_add(1, Relaxed);
                    if connection.key.1.is_none() {
                        // Of many readers one does not speak for the output.
                        connection.stats.last_icmp_ms.store(wall, Relaxed);
                    }
                    // A player may well have no port for RTCP.
                    let refuses = media && error.kind == Icmp::PortUnreachable;
                    if let Some(receiver) = connection.receiver.as_mut().filter(|_| refuses) {
                        receiver.refuses(now);
                    }
                }
            });
        }
    }

    /// Counters of what left in datagrams, and how fast.
    pub(super) fn show_crowds(&mut self) {
        for connection in self.connections.iter_mut().flatten() {
            let line = self.lines.get(connection.line).and_then(Option::as_ref);
            connection.show_sent(line.map(|line| line.total()));
        }
    }

    /// Whom something is to be told of an output that could not begin.
    pub(super) fn refuse_link(&self, link: &super::Link, error: &SocketError) {
        let kind = super::NoticeKind::Disconnected {
            session: link.key.1,
            reason: error.to_string(),
            retryable: error.is_retryable(),
        };
        let output: OutputKey = link.key.0;
        self.tell(super::Notice { output, attempt: link.attempt, kind });
    }

    fn count(&self, spread: Spread) {
        let stats = Arc::as_ref(&self.stats);
        stats.messages.fetch_add(spread.messages as u64, Relaxed);
        stats.datagrams.fetch_add(spread.datagrams as u64, Relaxed);
    }
}

impl super::line::Line {
    /// Sends what is new to everybody who goes along; of what is refused `lost` gets the place and what it was.
    fn spread(
        &mut self,
        ports: &mut [Option<super::port::Sockets>],
        lost: &mut Vec<(usize, Total)>,
    ) -> Spread {
        let skipped = self.read_on();
        let (run, crowd) = self.run_and_crowd();
        let Some(crowd) = crowd else { return Spread::default() };
        if skipped > 0 {
            crowd.fan.total.skipped += skipped;
            crowd.fan.total.skips += 1;
        }
        let packets: Vec<(u8, &[u8])> = run.iter().flat_map(|message| framed(&message.bytes)).collect();
        let spread = crowd.fan.send(&packets, ports, lost);
        self.forget();
        spread
    }
}

/// Datagrams heard at one port in one turn.
const DATAGRAMS: usize = 64;
