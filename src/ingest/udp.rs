//! UDP and RTP sources: a bound socket enters, the payloads of one sender leave, in order.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::{Feed, NoticeKind, Piece};
use crate::hub::Tools;
use crate::media::Nanos;
use crate::net::UdpReceiver;
use crate::telemetry::InputStats;
use crate::wire::rtp::{Counters, InOrder, Reorder};

/// Whose datagrams are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SenderRule {
    /// Everybody's: a multicast group, where the join decides.
    All,
    /// The first one's, until it has been silent for so long.
    First(Duration),
    /// This address's.
    Only(IpAddr),
}

/// A socket and whose datagrams are taken from it.
pub struct UdpDriver {
    socket: UdpReceiver,
    rule: SenderRule,
    sender: Option<SocketAddr>,
    heard: Nanos,
    foreign: Vec<(SocketAddr, u64)>,
    reorder: Option<Reorder>,
    /// RTP counts of drivers before this one are in the stats already; these were added last.
    counted: Counters,
    kernel_drops: Option<u32>,
}

impl UdpDriver {
    /// Reads transport packets from `socket`.
    pub fn new(socket: UdpReceiver, rule: SenderRule) -> Self {
        Self {
            socket,
            rule,
            sender: None,
            heard: 0,
            foreign: Vec::new(),
            reorder: None,
            counted: Counters::default(),
            kernel_drops: None,
        }
    }

    /// Reads them from behind RTP headers, waiting `window` for what arrives out of order.
    pub fn rtp(socket: UdpReceiver, rule: SenderRule, window: Duration) -> Self {
        Self { reorder: Some(Reorder::new(window, REORDER_MOST)), ..Self::new(socket, rule) }
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.socket.local_addr()
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whose datagrams it takes now.
    pub fn sender(&self) -> Option<SocketAddr> {
        self.sender
    }

    /// Others who send to it, and how many datagrams each.
    pub fn foreign(&self) -> &[(SocketAddr, u64)] {
        &self.foreign
    }

    pub(super) fn next_due(&self) -> Option<Nanos> {
        self.reorder.as_ref().and_then(Reorder::deadline)
    }

    /// Hands what has arrived to `feed`, in order, and counts in `stats`. Answers when the socket is of no more use.
    pub fn poll(
        &mut self,
        tools: &mut Tools,
        now: Nanos,
        stats: &InputStats,
        feed: &mut Feed<'_>,
    ) -> (Option<NoticeKind>, bool) {
        let mut more = true;
        for _ in 0..BATCHES {
            let count = match tools.receiver.receive(&self.socket) {
                Ok(count) => count,
                Err(error) => {
                    let reason = format!("cannot receive on {}: {error}", self.local_addr());
                    return (Some(NoticeKind::Failed { reason, retryable: true }), false);
                }
            };
            for i in 0..count {
                let message = tools.receiver.message(i);
                if let Some(drops) = message.drops {
                    self.count_drops(drops, stats);
                }
                if let Some(from) = message.from
                    && !self.admit(from, message.arrival)
                {
                    stats.foreign_datagrams.fetch_add(message.datagrams().count() as u64, Relaxed);
                    continue;
                }
                for datagram in message.datagrams() {
                    match &mut self.reorder {
                        None => feed(Piece::Bytes(datagram), message.arrival),
                        Some(reorder) => {
                            reorder.push(datagram, message.arrival, &mut |packet: InOrder<'_>| {
                                feed(Piece::Bytes(packet.payload), message.arrival)
                            });
                        }
                    }
                }
            }
            if count < FULL_BATCH {
                more = false;
                break;
            }
        }
        if let Some(reorder) = &mut self.reorder {
            reorder.expire(now, &mut |packet: InOrder<'_>| feed(Piece::Bytes(packet.payload), now));
            self.count_rtp(stats);
        }
        (None, more)
    }

    fn admit(&mut self, from: SocketAddr, at: Nanos) -> bool {
        let ours = match (self.rule, self.sender) {
            (SenderRule::All, _) => true,
            (SenderRule::Only(ip), _) => from.ip() == ip,
            (SenderRule::First(_), None) => true,
            (SenderRule::First(silence), Some(sender)) => {
                sender == from || at.saturating_sub(self.heard) > silence.as_nanos() as u64
            }
        };
        if ours {
            (self.sender, self.heard) = (Some(from), at);
        } else if let Some((_, count)) = self.foreign.iter_mut().find(|(other, _)| *other == from) {
            *count += 1;
        } else if self.foreign.len() < FOREIGN_MOST {
            self.foreign.push((from, 1));
        }
        ours
    }

    /// The kernel's counter belongs to the socket, starts at 0 and wraps.
    fn count_drops(&mut self, drops: u32, stats: &InputStats) {
        let new = drops.wrapping_sub(self.kernel_drops.unwrap_or(0));
        self.kernel_drops = Some(drops);
        stats.kernel_drops.fetch_add(new.into(), Relaxed);
    }

    fn count_rtp(&mut self, stats: &InputStats) {
        let Some(reorder) = &self.reorder else { return };
        let (now, before) = (reorder.counters(), self.counted);
        if now == before {
            return;
        }
        stats.rtp_lost.fetch_add(now.lost - before.lost, Relaxed);
        stats.rtp_reordered.fetch_add(now.reordered - before.reordered, Relaxed);
        stats.rtp_discarded.fetch_add(now.discarded - before.discarded, Relaxed);
        stats.rtp_ssrc_changes.fetch_add(now.ssrc_changes - before.ssrc_changes, Relaxed);
        self.counted = now;
    }
}

/// Fewer messages than this in a batch: the socket was empty.
const FULL_BATCH: usize = 32;
/// Batches per poll, so that one flooded socket leaves the others their turn.
const BATCHES: usize = 8;
/// Foreign senders that are named.
const FOREIGN_MOST: usize = 8;
const REORDER_MOST: usize = 1024;
