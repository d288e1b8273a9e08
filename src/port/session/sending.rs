//! The sending side of a session: datagrams of its lane and the peer's reports enter, data and control packets leave.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::{End, PAYLOAD, Reaction, Refreshes, Told, level, spread};
use crate::hub::Lane;
use crate::media::Nanos;
use crate::net::{clock, random};
use crate::port::Source;
use crate::port::outbox::{Addressee, Outbox, Payload};
use crate::telemetry::{Rate, Skip, SrtStats};
use crate::wire::srt::crypto::SendKeys;
use crate::wire::srt::{Control, ControlPacket, Event, KeyFlag, Sender, Stored, UserKind};

/// A session that sends a lane.
pub(in crate::port) struct Sending {
    pub(in crate::port) sender: Sender,
    pub(super) keys: Option<SendKeys>,
    pub(in crate::port) source: Source,
    /// The line that it is walked with.
    pub(in crate::port) line: usize,
    /// Sends again at once: a loss was reported.
    pub(in crate::port) hurries: bool,
    pub(super) refreshes: Refreshes,
}

impl Sending {
    /// Puts the new datagrams of the run, which begins at `position` of the lane, into `outbox`.
    pub(in crate::port) fn send_new(
        &mut self,
        to: Addressee,
        position: u64,
        outbox: &mut Outbox,
        now: Nanos,
    ) {
        for index in 0..outbox.run.len() {
            let (arrival, length) = (outbox.run[index].arrival, outbox.run[index].bytes.len());
            let sequence = self.sender.next_sequence();
            let flag = self.keys.as_mut().map_or(KeyFlag::Clear, |keys| keys.next_flag(sequence));
            let Some(header) = self.sender.header(position + index as u64, arrival, length, flag, now) else {
                continue;
            };
            self.refreshes.note(flag);
            let key = self.keys.as_ref().and_then(|keys| keys.key(flag));
            outbox.data(to, header, Payload::New(index), key);
        }
        if let Some(keys) = &mut self.keys
            && keys.wants_key()
        {
            keys.announce(random(), now);
        }
    }

    /// Lets a link of a group begin to carry the stream: puts what of these positions somebody may still wait for into
    /// `outbox`, as if it were new.
    pub(in crate::port) fn take_over(
        &mut self,
        to: Addressee,
        positions: Range<u64>,
        outbox: &mut Outbox,
        now: Nanos,
    ) {
        let oldest = now.saturating_sub(self.sender.peer_latency());
        let lane = Arc::clone(&self.source.lane);
        let waiting = positions.clone().filter_map(|at| Some((at, lane.at(at)?)));
        let mut waiting = waiting.skip_while(|(_, datagram)| datagram.arrival < oldest).peekable();
        self.sender.resume(waiting.peek().map_or(positions.end, |(at, _)| *at), now);
        for (position, datagram) in waiting {
            let (arrival, length) = (datagram.arrival, datagram.bytes.len());
            let sequence = self.sender.next_sequence();
            let flag = self.keys.as_mut().map_or(KeyFlag::Clear, |keys| keys.next_flag(sequence));
            let Some(header) = self.sender.header(position, arrival, length, flag, now) else { continue };
            let key = self.keys.as_ref().and_then(|keys| keys.key(flag));
            outbox.data(to, header, Payload::Again(datagram), key);
        }
    }

    /// Puts what the peer misses into `outbox`.
    pub(in crate::port) fn send_again(&mut self, to: Addressee, outbox: &mut Outbox, now: Nanos) {
        self.hurries = false;
        for _ in 0..AGAIN_MOST {
            let mut found = None;
            let lane: &Lane = &self.source.lane;
            let next = self.sender.next_retransmit(now, |position| {
                found = lane.at(position);
                found.as_ref().map(|d| Stored { arrival: d.arrival, length: d.bytes.len() })
            });
            let (Some(again), Some(datagram)) = (next, found) else { return };
            let key = self.keys.as_ref().and_then(|keys| keys.key(again.header.key));
            if again.header.key != KeyFlag::Clear && key.is_none() {
                continue;
            }
            outbox.data(to, again.header, Payload::Again(datagram), key);
        }
    }

    /// Puts control packets into `outbox`.
    pub(in crate::port) fn send_control(&mut self, to: Addressee, outbox: &mut Outbox, now: Nanos) {
        while let Some(packet) = self.sender.next_control(now) {
            outbox.control(to, &packet);
        }
        if let Some(keys) = &mut self.keys {
            let rtt = self.sender.rtt().smoothed();
            if let Some(body) = keys.poll(now, rtt) {
                outbox.control(to, &self.sender.control(Control::User(UserKind::KeyRequest, body), now));
            }
        }
    }

    pub(super) fn control(&mut self, packet: &ControlPacket<'_>, now: Nanos) -> Reaction {
        match self.sender.handle(&packet.control, now) {
            Event::Shutdown => Reaction::Over(End::lost("the peer ended the connection")),
            Event::PeerError(code) => Reaction::Over(End::lost(format!("the peer reports error {code}"))),
            Event::Unhandled => {
                if let (Control::User(UserKind::KeyResponse, body), Some(keys)) =
                    (packet.control, &mut self.keys)
                {
                    keys.handle(body);
                }
                Reaction::None
            }
            Event::Quiet | Event::Acknowledged(_) => match packet.control {
                Control::Nak(_) => {
                    self.hurries = true;
                    Reaction::Answer
                }
                // The peer measures the round trip by the answer, and waits for what it misses by the round trip:
                // where packets get lost the answer does not wait for data to travel with.
                Control::Ack(_) if self.sender.is_lossy(now) => Reaction::Answer,
                Control::Ack(_) => Reaction::Owes,
                _ => Reaction::None,
            },
        }
    }

    /// Shows its counters, and adds what is not `told` to those of its owner; a group counts for all its links.
    pub(super) fn publish(
        &self,
        peer: SocketAddr,
        stats: &SrtStats,
        told: Option<&mut Told>,
        rate: &mut Rate,
        now: Nanos,
    ) -> u64 {
        let sent = self.sender.stats();
        let (packets, bytes) = (sent.packets + sent.retransmitted, sent.bytes + sent.retransmitted_bytes);
        let acknowledged = stats.acknowledged.load(Relaxed);
        for (cell, value) in [
            (&stats.packets, packets),
            (&stats.bytes, bytes),
            (&stats.unique_packets, sent.packets),
            (&stats.unique_bytes, sent.bytes),
            (&stats.retransmitted, sent.retransmitted),
            (&stats.retransmitted_bytes, sent.retransmitted_bytes),
            (&stats.lost, sent.lost),
            (&stats.dropped, sent.dropped),
            (&stats.skipped, sent.skipped),
            (&stats.acknowledged, sent.acknowledged),
            (&stats.acks, sent.acks),
            (&stats.naks, sent.naks),
            (&stats.capacity_bps, u64::from(sent.link_capacity.min(CAPACITY_MOST)) * PAYLOAD as u64 * 8),
        ] {
            cell.store(value, Relaxed);
        }
        let owner = &self.source.stats;
        let wall = clock::wall_ms();
        if sent.acknowledged > acknowledged {
            stats.last_ack_ms.store(wall, Relaxed);
        }
        if let Some(told) = told {
            owner.acknowledged.fetch_add(sent.acknowledged - told.acknowledged, Relaxed);
            if sent.packets > told.packets {
                owner.last_sent_ms.store(wall, Relaxed);
            }
            owner.datagrams.fetch_add(sent.packets - told.packets, Relaxed);
            owner.bytes.fetch_add(sent.bytes - told.bytes, Relaxed);
            owner.skipped.fetch_add(sent.skipped - told.skipped, Relaxed);
            owner.skip_causes.note(Skip {
                peer,
                by_bandwidth: sent.refused_by_bandwidth - told.by_bandwidth,
                by_window: sent.refused_by_window - told.by_window,
            });
            *told = Told {
                packets: sent.packets,
                bytes: sent.bytes,
                skipped: sent.skipped,
                by_bandwidth: sent.refused_by_bandwidth,
                by_window: sent.refused_by_window,
                acknowledged: sent.acknowledged,
            };
        }
        stats.key_refreshes.store(self.refreshes.count, Relaxed);
        spread(&stats.rtt_us, &sent.rtt);
        stats.rtt_var_us.store((self.sender.rtt().variance() / 1000) as u32, Relaxed);
        stats.in_flight.store(self.sender.in_flight() as u32, Relaxed);
        stats.window.store(self.sender.window() as u32, Relaxed);
        let oldest = self.sender.oldest_position().and_then(|position| self.source.lane.at(position));
        let buffer = oldest.map_or(0, |datagram| now.saturating_sub(datagram.arrival) / 1_000_000);
        level(&stats.buffer_ms, buffer as u32);
        rate.update(now, bytes)
    }
}

/// Packets sent again in one turn of a session.
const AGAIN_MOST: usize = 128;
/// Packets per second that a peer is believed to be able to take: 100 Gb/s.
const CAPACITY_MOST: u32 = 10_000_000;
