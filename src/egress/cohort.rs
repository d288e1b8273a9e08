//! Outputs that share everything but their address: one cursor, one prepared batch. Datagrams of a lane enter,
//! one sendmmsg per run of them leaves. Never holds a queue per output.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::paced::Paced;
use super::{Framing, NoticeKind, OutputKey, Target};
use crate::hub::{Cursor, Lane, StreamKey};
use crate::media::{Datagram, Nanos, PACKET};
use crate::net::{Batch, Failure, MAX_SEGMENTS, SendSocket, clock};
use crate::telemetry::{OutputStats, Rate};
use crate::wire::rtp;

/// What outputs of one cohort have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct CohortKey {
    /// The lane, by its address.
    pub(super) lane: usize,
    pub(super) framing: Framing,
    /// Transport packets per datagram; 0 = as the lane has them.
    pub(super) packets: u8,
    /// The kernel cuts messages into datagrams (UDP_SEGMENT).
    pub(super) segmented: bool,
    /// Index of the socket.
    pub(super) socket: usize,
    pub(super) delay: Nanos,
    pub(super) paced: bool,
}

pub(super) struct Cohort {
    pub(super) key: CohortKey,
    pub(super) stream: StreamKey,
    pub(super) lane: Arc<Lane>,
    pub(super) cursor: Cursor,
    pub(super) members: Vec<Member>,
    pub(super) paced: Option<Box<Paced>>,
    batch: Batch,
    rtp: RtpClock,
    total: Total,
    last_sent_ms: u64,
}

/// One output.
pub(super) struct Member {
    pub(super) key: OutputKey,
    attempt: u32,
    pub(super) destination: SocketAddr,
    pub(super) stats: Arc<OutputStats>,
    /// What the cohort had sent when it came.
    base: Total,
    /// What it had sent in cohorts before.
    carried: Total,
    /// What the kernel refused.
    refused: Total,
    rate: Rate,
    /// When a refusal of the kernel was last told.
    told: Option<Nanos>,
    /// The path's MTU, where an ICMP or the kernel told it; 0 = unknown.
    pub(super) mtu: u32,
}

/// Counts of datagrams.
#[derive(Debug, Clone, Copy, Default)]
struct Total {
    datagrams: u64,
    bytes: u64,
    skipped: u64,
    skips: u64,
}

/// Scratch that all cohorts of a shard share.
#[derive(Default)]
pub(super) struct Scratch {
    datagrams: Vec<Datagram>,
    headers: Vec<[u8; rtp::HEADER]>,
    failures: Vec<Failure>,
}

/// What one flush did.
#[derive(Default)]
pub(super) struct Flushed {
    /// Lane datagrams taken, for each member.
    pub(super) taken: usize,
    /// Messages handed to the kernel.
    pub(super) messages: usize,
    /// Datagrams that these messages are cut into.
    pub(super) datagrams: usize,
    /// Errors of the path may wait in the socket's queue.
    pub(super) look_at_errors: bool,
    /// Members that go on in another cohort, by index.
    pub(super) moves: Vec<Move>,
    /// What members have to say.
    pub(super) notices: Vec<(OutputKey, u32, NoticeKind)>,
}

/// A member that goes on elsewhere from `cursor` on, because its path refuses what this cohort sends.
pub(super) struct Move {
    pub(super) index: usize,
    pub(super) cursor: Cursor,
    pub(super) packets: u8,
    pub(super) segmented: bool,
}

impl Cohort {
    pub(super) fn new(key: CohortKey, target: &Target, cursor: Cursor, ssrc: u32) -> Self {
        Self {
            key,
            stream: target.stream,
            lane: Arc::clone(&target.lane),
            cursor,
            members: Vec::new(),
            paced: target.paced.then(Box::default),
            batch: Batch::default(),
            rtp: RtpClock { ssrc, sequence: ssrc as u16, source: None },
            total: Total::default(),
            last_sent_ms: 0,
        }
    }

    /// Datagrams of the lane that wait for it.
    pub(super) fn pending(&self) -> u64 {
        self.lane.head().saturating_sub(self.cursor.0)
    }

    /// Whether a member of one can go on in the other, and gets every datagram once.
    pub(super) fn stands_with(&self, other: &Self) -> bool {
        let next = |cohort: &Self| cohort.paced.as_ref().and_then(|p| p.position()).unwrap_or(cohort.cursor);
        self.cursor == other.cursor && next(self) == next(other)
    }

    /// Takes a new member in. It goes on counting where an earlier attempt of the same output stopped.
    pub(super) fn join(&mut self, target: &Target) {
        let stats = Arc::clone(&target.stats);
        let refused = stats.send_errors.load(Relaxed);
        self.admit(Member {
            key: target.key,
            attempt: target.attempt,
            destination: target.destination,
            base: Total::default(),
            carried: Total {
                datagrams: stats.datagrams.load(Relaxed) + refused,
                bytes: stats.bytes.load(Relaxed),
                skipped: stats.skipped.load(Relaxed),
                skips: stats.skips.load(Relaxed),
            },
            refused: Total { datagrams: refused, ..Total::default() },
            stats,
            rate: Rate::default(),
            told: None,
            mtu: 0,
        });
    }

    /// Takes a member in that may have a past in another cohort.
    pub(super) fn admit(&mut self, mut member: Member) {
        member.base = self.total;
        self.batch.push(member.destination);
        self.members.push(member);
    }

    /// Lets a member go; the last one takes its place.
    pub(super) fn leave(&mut self, index: usize, now: Nanos) -> Member {
        self.batch.swap_remove(index);
        let mut member = self.members.swap_remove(index);
        member.carried = member.sum(self.total);
        member.publish(member.carried, self.last_sent_ms, now);
        member
    }

    /// Sends what waits, at most one full message to each member, and says what came of it.
    pub(super) fn flush(&mut self, socket: &mut SendSocket, scratch: &mut Scratch, now: Nanos) -> Flushed {
        let mut start = self.cursor;
        scratch.datagrams.clear();
        if let Some(paced) = &mut self.paced {
            let due = paced.take_due(&self.lane, &mut self.cursor, now, &mut scratch.datagrams);
            start = due.from;
            self.count_skip(due.skipped);
        } else {
            self.read_run(scratch);
        }
        let Some(first) = scratch.datagrams.first() else { return Flushed::default() };
        let unit = match self.key.packets {
            0 => first.bytes.len(),
            packets => usize::from(packets) * PACKET,
        };
        self.write_headers(scratch, unit);
        let Scratch { datagrams, headers, failures } = scratch;
        let mut parts = Vec::with_capacity(2 * datagrams.len());
        let mut header = headers.iter();
        for chunk in datagrams.iter().flat_map(|d| d.bytes.chunks(unit)) {
            parts.extend(header.next().map(|h| IoSlice::new(h)));
            parts.push(IoSlice::new(chunk));
        }
        let (per_datagram, overhead) = match self.key.framing {
            Framing::Udp => (1, 0),
            Framing::Rtp => (2, rtp::HEADER),
        };
        let on_wire = parts.len() / per_datagram;
        let mut flushed = Flushed { taken: datagrams.len(), ..Flushed::default() };
        failures.clear();
        if self.key.segmented {
            // A lone datagram is cheaper without: the kernel then builds it in one piece.
            let segment = if on_wire > 1 { (unit + overhead) as u16 } else { 0 };
            let sent = self.batch.send(socket, &parts, segment, failures);
            flushed.messages = sent.messages;
            flushed.datagrams = sent.messages * on_wire;
            flushed.look_at_errors = sent.calls > 1;
        }
        let bytes: usize = datagrams.iter().map(|d| d.bytes.len()).sum();
        let run = Total { datagrams: on_wire as u64, bytes: bytes as u64, ..Total::default() };
        self.total.datagrams += run.datagrams;
        self.total.bytes += run.bytes;
        self.last_sent_ms = clock::wall_ms();
        let mut failed = std::mem::take(failures);
        if self.key.segmented {
            self.judge(&failed, start, run, run, now, &mut flushed);
        } else {
            for datagram in parts.chunks(per_datagram) {
                failed.clear();
                self.send_alone(socket, datagram, &mut failed, &mut flushed);
                let payload = datagram.last().map_or(0, |part| part.len() as u64);
                let one = Total { datagrams: 1, bytes: payload, ..Total::default() };
                self.judge(&failed, start, one, run, now, &mut flushed);
            }
        }
        *failures = failed;
        flushed
    }

    /// Sends one datagram that is not cut, to all but those who are about to move: they get it elsewhere.
    fn send_alone(
        &mut self,
        socket: &mut SendSocket,
        datagram: &[IoSlice<'_>],
        failed: &mut Vec<Failure>,
        flushed: &mut Flushed,
    ) {
        let mut messages = 0;
        if flushed.moves.is_empty() {
            let sent = self.batch.send(socket, datagram, 0, failed);
            messages = sent.messages;
            flushed.look_at_errors |= sent.calls > 1;
        } else {
            for index in (0..self.members.len()).filter(|&i| flushed.moves.iter().all(|m| m.index != i)) {
                match self.batch.send_one(socket, datagram, 0, index) {
                    Ok(()) => messages += 1,
                    Err(errno) => failed.push(Failure { index, errno }),
                }
            }
        }
        flushed.messages += messages;
        flushed.datagrams += messages;
    }

    pub(super) fn publish(&mut self, now: Nanos) {
        for member in &mut self.members {
            let sum = member.sum(self.total);
            member.publish(sum, self.last_sent_ms, now);
            member.stats.packets_per_datagram.store(self.key.packets.into(), Relaxed);
        }
    }

    /// The next datagrams that fit into one message: equal in length, only the last may be shorter.
    fn read_run(&mut self, scratch: &mut Scratch) {
        let single = self.key.packets > 0 || !self.key.segmented;
        let most = if single { 1 } else { MAX_RUN };
        let (mut length, mut bytes, mut open) = (0, 0, true);
        let read = self.lane.read(&mut self.cursor, most, &mut scratch.datagrams, |datagram| {
            let this = datagram.bytes.len();
            if length == 0 {
                length = this;
            } else if !open || this > length || bytes + this > MAX_MESSAGE {
                return false;
            }
            open = this == length;
            bytes += this;
            true
        });
        self.count_skip(read.skipped);
    }

    fn count_skip(&mut self, skipped: u64) {
        if skipped > 0 {
            self.total.skipped += skipped;
            self.total.skips += 1;
        }
    }

    fn write_headers(&mut self, scratch: &mut Scratch, unit: usize) {
        scratch.headers.clear();
        if self.key.framing == Framing::Udp {
            return;
        }
        for datagram in &scratch.datagrams {
            for _ in datagram.bytes.chunks(unit) {
                scratch.headers.push(self.rtp.header(datagram));
            }
        }
    }

    /// What to do about members that did not get their message, which held `lost` of the whole `run`.
    fn judge(
        &mut self,
        failures: &[Failure],
        start: Cursor,
        lost: Total,
        run: Total,
        now: Nanos,
        flushed: &mut Flushed,
    ) {
        for failure in failures {
            let Some(member) = self.members.get_mut(failure.index) else { continue };
            if flushed.moves.iter().any(|m| m.index == failure.index) {
                continue;
            }
            let overhead = if self.key.framing == Framing::Rtp { rtp::HEADER } else { 0 };
            let smaller = member.fewer_packets(self.key.packets, overhead);
            let (packets, segmented) = match failure.errno {
                libc::EMSGSIZE if smaller > 0 => (smaller, true),
                libc::EINVAL | libc::EIO | libc::EMSGSIZE if self.key.segmented => (self.key.packets, false),
                errno => {
                    member.refused.datagrams += lost.datagrams;
                    member.refused.bytes += lost.bytes;
                    if member.told.is_none_or(|told| now.saturating_sub(told) > TELL_AGAIN) {
                        member.told = Some(now);
                        flushed.notices.push((member.key, member.attempt, NoticeKind::Refused(errno)));
                    }
                    continue;
                }
            };
            // It reads this run again in its new cohort: nothing is lost, and here nothing was sent.
            member.base.datagrams += run.datagrams;
            member.base.bytes += run.bytes;
            let notice = match segmented {
                true => NoticeKind::SmallerDatagrams(packets),
                false => NoticeKind::NoSegmentation(failure.errno),
            };
            flushed.notices.push((member.key, member.attempt, notice));
            flushed.moves.push(Move { index: failure.index, cursor: start, packets, segmented });
        }
    }
}

impl Member {
    fn sum(&self, total: Total) -> Total {
        Total {
            datagrams: self.carried.datagrams + total.datagrams.saturating_sub(self.base.datagrams),
            bytes: self.carried.bytes + total.bytes.saturating_sub(self.base.bytes),
            skipped: self.carried.skipped + total.skipped.saturating_sub(self.base.skipped),
            skips: self.carried.skips + total.skips.saturating_sub(self.base.skips),
        }
    }

    fn publish(&mut self, sum: Total, last_sent_ms: u64, now: Nanos) {
        let stats = &self.stats;
        let datagrams = sum.datagrams.saturating_sub(self.refused.datagrams);
        let bytes = sum.bytes.saturating_sub(self.refused.bytes);
        if datagrams > stats.datagrams.load(Relaxed) {
            stats.last_sent_ms.store(last_sent_ms, Relaxed);
        }
        stats.datagrams.store(datagrams, Relaxed);
        stats.bytes.store(bytes, Relaxed);
        stats.send_errors.store(self.refused.datagrams, Relaxed);
        stats.skipped.store(sum.skipped, Relaxed);
        stats.skips.store(sum.skips, Relaxed);
        stats.bitrate_bps.store(self.rate.update(now, bytes), Relaxed);
    }

    /// How many transport packets fit where `now` packets (0 = 7) are too many; 0 = not even one.
    fn fewer_packets(&self, now: u8, overhead: usize) -> u8 {
        let now = if now == 0 { 7 } else { now };
        let headers = overhead + if self.destination.is_ipv6() { 48 } else { 28 };
        let fits = (self.mtu as usize).saturating_sub(headers) / PACKET;
        // Without a word on the MTU, one less: the next refusal leads further down.
        if self.mtu > 0 && fits < usize::from(now) { fits as u8 } else { now - 1 }
    }
}

/// The RTP numbering that all members share (RFC 3550, 5.1; RFC 2250, 2).
struct RtpClock {
    ssrc: u32,
    sequence: u16,
    /// What the timestamp runs on: the programme clock, or arrival time before it is known.
    source: Option<Source>,
}

#[derive(Clone, Copy, PartialEq)]
enum Source {
    Pcr,
    Arrival,
}

impl RtpClock {
    fn header(&mut self, datagram: &Datagram) -> [u8; rtp::HEADER] {
        let (source, timestamp) = match datagram.pcr {
            Some(pcr) => (Source::Pcr, (pcr / 300) as u32),
            None => (Source::Arrival, (u128::from(datagram.arrival) * 90_000 / 1_000_000_000) as u32),
        };
        let jumps = self.source.is_some_and(|was| was != source);
        self.source = Some(source);
        let mut header = [0; rtp::HEADER];
        rtp::write_header(&mut header, self.sequence, timestamp, self.ssrc, jumps);
        self.sequence = self.sequence.wrapping_add(1);
        header
    }
}

/// Datagrams of 1316 bytes in one message: 44 × 1328 bytes stay below 64 KiB with RTP headers too.
const MAX_RUN: usize = if 44 < MAX_SEGMENTS { 44 } else { MAX_SEGMENTS };
/// Bytes of payload in one message; IPv4 allows 65,507 with its headers (RFC 791).
const MAX_MESSAGE: usize = 64_000;
const TELL_AGAIN: Nanos = 10_000_000_000;
