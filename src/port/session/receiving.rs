//! The receiving side of a session: packets of the peer enter, payloads leave in order and at their time.

use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

use super::{End, Reaction, Refreshes, level, spread};
use crate::media::Nanos;
use crate::port::Drain;
use crate::telemetry::{Rate, SrtStats};
use crate::wire::srt::crypto::{KeyReply, Passphrase, ReceiveKeys};
use crate::wire::srt::{Control, ControlPacket, Event, HEADER, Receiver, UserKind, accept_clear};

/// A session that feeds a stream.
pub(in crate::port) struct Receiving {
    pub(in crate::port) receiver: Receiver,
    pub(super) keys: Option<ReceiveKeys>,
    pub(in crate::port) drain: Drain,
    pub(super) passphrase: Option<Passphrase>,
    /// Packets that it holds at the most.
    pub(super) window: u32,
    pub(super) refreshes: Refreshes,
    /// A KMREQ that waits for its key to be derived.
    pub(super) awaited: Option<Vec<u8>>,
    /// A KMRSP that is to be sent.
    pub(super) reply: Vec<u8>,
    pub(super) control: Vec<u8>,
}

impl Receiving {
    pub(super) fn data(&mut self, header: &[u8; HEADER], payload: &[u8], arrival: Nanos) -> Reaction {
        match &self.keys {
            None => self.receiver.handle_data(header, payload, arrival, accept_clear),
            Some(keys) => {
                let refreshes = &mut self.refreshes;
                self.receiver.handle_data(header, payload, arrival, |fields, header, payload| {
                    let opened = keys.open(header, fields.key, payload)?;
                    // One that is sent again keeps the key of its first sending.
                    if !fields.retransmitted {
                        refreshes.note(fields.key);
                    }
                    Some(opened)
                })
            }
        }
        Reaction::Answer
    }

    pub(super) fn control(&mut self, packet: &ControlPacket<'_>, arrival: Nanos) -> Reaction {
        match self.receiver.handle(packet, arrival) {
            Event::Shutdown => Reaction::Over(End::lost("the peer ended the connection")),
            Event::PeerError(code) => Reaction::Over(End::lost(format!("the peer reports error {code}"))),
            Event::Unhandled => {
                let Control::User(UserKind::KeyRequest, body) = packet.control else { return Reaction::None };
                let Some(keys) = &mut self.keys else { return Reaction::None };
                match (keys.handle(body), &self.passphrase) {
                    (KeyReply::Answer(body), _) => {
                        let packet =
                            self.receiver.control(Control::User(UserKind::KeyResponse, &body), arrival);
                        self.reply.clear();
                        packet.write(&mut self.reply);
                        Reaction::Answer
                    }
                    (KeyReply::Derive(salt), Some(passphrase)) if self.awaited.is_none() => {
                        self.awaited = Some(body.to_vec());
                        Reaction::Derive(passphrase.clone(), salt)
                    }
                    (KeyReply::Derive(_), _) => Reaction::None,
                }
            }
            Event::Quiet | Event::Acknowledged(_) => Reaction::None,
        }
    }

    /// Hands over what is due.
    pub(super) fn deliver(&mut self, now: Nanos) {
        let mut any = false;
        while let Some(delivery) = self.receiver.pop(now) {
            // Its own time rather than the moment of this look: what is derived from it is free of our jitter too.
            self.drain.feed.push((Bytes::copy_from_slice(delivery.payload), delivery.deliver_at));
            any = true;
        }
        if any {
            self.drain.feed.ring();
        }
    }

    pub(super) fn publish(&self, stats: &SrtStats, rate: &mut Rate, now: Nanos) -> u64 {
        let got = self.receiver.stats();
        let unique = got.packets.saturating_sub(got.duplicates + got.late + got.refused);
        for (cell, value) in [
            (&stats.packets, got.packets),
            (&stats.bytes, got.bytes),
            (&stats.unique_packets, unique),
            (&stats.retransmitted, got.retransmitted),
            (&stats.lost, got.lost),
            (&stats.dropped, got.dropped),
            (&stats.discarded, got.duplicates + got.late + got.refused),
            (&stats.undecryptable, got.undecrypted),
            (&stats.acks, got.acks),
            (&stats.naks, got.naks),
        ] {
            cell.store(value, Relaxed);
        }
        stats.key_refreshes.store(self.refreshes.count, Relaxed);
        spread(&stats.rtt_us, &got.rtt);
        stats.rtt_var_us.store((self.receiver.rtt().variance() / 1000) as u32, Relaxed);
        let (held, span) = self.receiver.held();
        stats.in_flight.store(held as u32, Relaxed);
        stats.window.store(self.window.saturating_sub(held as u32), Relaxed);
        level(&stats.buffer_ms, (span / 1_000_000) as u32);
        stats.drift_us.store((self.receiver.drift() / 1000) as i32, Relaxed);
        rate.update(now, got.bytes)
    }
}
