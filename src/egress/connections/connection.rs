//! One connection: messages of its lane leave in gathered writes, whole or with their rest kept; what its peer says is
//! heard. Knows no protocol and no other connection.

use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::{Buf, Bytes};

use super::fan::Total;
use super::line::Line;
use super::receiver::Receiver;
use super::{Farewell, LagPolicy, Link, LinkKey, Peer};
use crate::hub::{Cursor, Lane};
use crate::media::{Message, Nanos, TICKS_PER_SECOND, Ticks};
use crate::net::{ByteStream, clock};
use crate::telemetry::{FlowStats, OutputStats, Rate, Session};

/// One connection.
pub(super) struct Connection {
    pub(super) key: LinkKey,
    pub(super) attempt: u32,
    /// Number of its line.
    pub(super) line: usize,
    pub(super) delay: Nanos,
    pub(super) socket: ByteStream,
    pub(super) stats: Arc<OutputStats>,
    /// What stands in the timers for it.
    pub(super) timer: Option<Nanos>,
    /// Its media leave as datagrams.
    pub(super) receiver: Option<Receiver>,
    peer: Box<dyn Peer>,
    cursor: Cursor,
    /// It waits for a message at which a reader can begin.
    waiting: bool,
    /// What its reader was sent first, to know whether it is another one by now.
    preface: Option<Bytes>,
    /// What goes before any other message: greetings, answers, and the rest of a message that went in part, copied so
    /// that it pins no block of the lane.
    pending: VecDeque<Bytes>,
    lag: LagPolicy,
    flow: Arc<FlowStats>,
    session: Option<Arc<Session>>,
    rate: Rate,
    /// What the kernel was last told to hold at the most.
    bound: usize,
    acknowledged: u64,
    /// Decoding time of the last message that went.
    sent_to: Ticks,
    /// Something went since its counters were shown last.
    moved: bool,
    reply: Vec<u8>,
}

/// How a flush ended.
pub(super) enum Flow {
    /// Everything went.
    Done,
    /// Something waits until the peer takes more.
    Blocked,
}

impl Connection {
    pub(super) fn new(link: Link, line: usize, receiver: Option<Receiver>, now: Nanos) -> Self {
        let Link { key, attempt, lane, delay, socket, greeting, peer, lag, stats, flow, kicked, .. } = link;
        flow.since_ms.store(clock::wall_ms(), Relaxed);
        flow.encrypted.store(socket.is_encrypted(), Relaxed);
        let mut connection = Self {
            key,
            attempt,
            line,
            delay,
            socket,
            stats,
            timer: None,
            receiver,
            peer,
            cursor: lane.random_access().unwrap_or_else(|| lane.live()),
            waiting: true,
            preface: None,
            pending: VecDeque::new(),
            lag,
            flow,
            session: kicked,
            rate: Rate::default(),
            bound: 0,
            acknowledged: 0,
            sent_to: 0,
            moved: false,
            reply: Vec::new(),
        };
        // What was acknowledged before, in the handshakes, is no media.
        connection.acknowledged = connection.socket.info().acknowledged;
        connection.bound_kernel(0);
        if !greeting.is_empty() {
            connection.pending.push_back(greeting.into());
        }
        connection.rate.update(now, 0);
        connection
    }

    /// Sends what waits, without waiting.
    pub(super) fn flush(&mut self, line: &Line) -> Result<Flow, Farewell> {
        for _ in 0..WRITES {
            let mut own = Vec::new();
            let run: &[Message] = if self.receiver.is_some() {
                &[]
            } else if !self.peer.is_playing() {
                // Where a reader that paused goes on, it begins anew.
                (self.cursor, self.waiting) = (line.lane.live(), true);
                &[]
            } else if let Some(run) = line.from(self.cursor) {
                run
            } else {
                self.read_own(&line.lane, &mut own)?;
                &own
            };
            let skipped = self.begin(run);
            let run = &run[skipped..];
            self.cursor.0 += skipped as u64;
            if self.pending.is_empty() && run.is_empty() {
                // A receiver of datagrams is never behind them.
                self.flow.lag_ms.store(0, Relaxed);
                return match self.socket.flush() {
                    Ok(()) => Ok(Flow::Done),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Flow::Blocked),
                    Err(error) => Err(lost(&error)),
                };
            }
            let mut pieces = [IoSlice::new(&[]); PIECES];
            let (mut count, mut offered) = (0, 0);
            let before = self.pending.iter().map(Bytes::as_ref);
            for piece in before.chain(run.iter().map(|message| message.bytes.as_ref())) {
                if count == PIECES || offered >= OFFER {
                    break;
                }
                pieces[count] = IoSlice::new(piece);
                (count, offered) = (count + 1, offered + piece.len());
            }
            let written = match self.socket.write(&pieces[..count]) {
                Ok(written) => written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Flow::Blocked),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(lost(&error)),
            };
            self.account(run, written);
            if written < offered {
                return Ok(Flow::Blocked);
            }
        }
        // More than one turn's worth: others have theirs first.
        Ok(Flow::Blocked)
    }

    /// Hears what has come.
    pub(super) fn hear(&mut self, buffer: &mut [u8], now: Nanos) -> Result<(), Farewell> {
        for _ in 0..READS {
            match self.socket.read(buffer) {
                Ok(0) => {
                    return Err(Farewell {
                        reason: "the peer closed the connection".into(),
                        retryable: true,
                    });
                }
                Ok(count) => {
                    let heard = buffer.get(..count).unwrap_or_default();
                    self.peer.hear(heard, now, &mut self.reply)?;
                    self.keep_reply()?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(lost(&error)),
            }
        }
        Ok(())
    }

    /// Hears RTCP of its receiver, beside the connection.
    pub(super) fn hear_rtcp(
        &mut self,
        compound: &[u8],
        total: Option<Total>,
        sources: &[(u8, u32, u16)],
        now: Nanos,
    ) {
        let Some(receiver) = &mut self.receiver else { return };
        if receiver.hear(compound, (total, sources), (&self.flow, &self.stats)) {
            self.peer.touch(now);
        }
    }

    /// Whether its peer wants media now.
    pub(super) fn is_playing(&self) -> bool {
        self.peer.is_playing()
    }

    /// Shows what left as datagrams; its crowd was sent `total`.
    pub(super) fn show_sent(&mut self, total: Option<Total>) {
        if let Some(receiver) = &mut self.receiver {
            receiver.publish(total, &self.flow, &self.stats);
        }
    }

    /// Does what time asks for.
    pub(super) fn tick(&mut self, now: Nanos) -> Result<(), Farewell> {
        if self.peer.next_due().is_some_and(|due| due <= now) {
            self.peer.tick(now, &mut self.reply)?;
            self.keep_reply()?;
        }
        Ok(())
    }

    /// When its peer wants a tick.
    pub(super) fn peer_due(&self) -> Option<Nanos> {
        self.peer.next_due()
    }

    /// Says goodbye, as far as that goes at once: at a message's border, where the last one went whole.
    pub(super) fn part(&mut self) {
        self.peer.part(&mut self.reply);
        // Too much waits already: the end says enough.
        let _ = self.keep_reply();
        while let Some(first) = self.pending.front() {
            match self.socket.write(&[IoSlice::new(first)]) {
                Ok(written) => self.account(&[], written),
                Err(_) => break,
            }
        }
        self.socket.finish();
        self.publish_last();
    }

    /// Whether somebody asked for its end.
    pub(super) fn is_kicked(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.is_kicked())
    }

    /// Shows its counters; its rate.
    pub(super) fn publish(&mut self, now: Nanos) -> u64 {
        let info = self.socket.info();
        let fresh = info.acknowledged.saturating_sub(self.acknowledged);
        self.acknowledged = self.acknowledged.max(info.acknowledged);
        let (flow, stats) = (&self.flow, &self.stats);
        // What the connection of a receiver of datagrams acknowledges is no media.
        if self.receiver.is_none() {
            flow.acknowledged_bytes.fetch_add(fresh, Relaxed);
            stats.acknowledged.fetch_add(fresh, Relaxed);
        }
        let waiting: usize = self.pending.iter().map(Bytes::len).sum();
        flow.unsent_bytes.store(u64::from(info.unsent) + waiting as u64, Relaxed);
        flow.rtt_us.store(info.rtt_us, Relaxed);
        flow.retransmitted.store(info.retransmitted.into(), Relaxed);
        if std::mem::take(&mut self.moved) {
            stats.last_sent_ms.store(clock::wall_ms(), Relaxed);
        }
        let rate = self.rate.update(now, flow.bytes.load(Relaxed));
        flow.rate_bps.store(rate, Relaxed);
        self.bound_kernel(rate);
        rate
    }

    pub(super) fn publish_last(&mut self) {
        self.flow.unsent_bytes.store(0, Relaxed);
        self.flow.rate_bps.store(0, Relaxed);
    }

    /// Reads what it lacks by itself: it is behind the others, or new.
    fn read_own(&mut self, lane: &Lane<Message>, own: &mut Vec<Message>) -> Result<(), Farewell> {
        let read = lane.read(&mut self.cursor, PIECES, own, |_| true);
        self.cursor.0 -= own.len() as u64;
        if read.skipped > 0 && !self.waiting {
            if self.lag == LagPolicy::Disconnect {
                let reason = format!("it fell {} messages behind, and lag says disconnect", read.skipped);
                return Err(Farewell { reason, retryable: true });
            }
            self.waiting = true;
            for counter in [&self.flow.skips, &self.stats.skips] {
                counter.fetch_add(1, Relaxed);
            }
            for counter in [&self.flow.skipped, &self.stats.skipped] {
                counter.fetch_add(read.skipped, Relaxed);
            }
        }
        if let (Some(newest), false) = (own.last(), self.waiting) {
            let behind = (newest.dts - self.sent_to).max(0) * 1000 / TICKS_PER_SECOND;
            self.flow.lag_ms.store(u32::try_from(behind).unwrap_or(u32::MAX), Relaxed);
        }
        Ok(())
    }

    /// How many messages to leave out because nobody can begin at them; puts what a reader needs first before the one
    /// at which it begins.
    fn begin(&mut self, run: &[Message]) -> usize {
        if !self.waiting {
            return 0;
        }
        let Some(at) = run.iter().position(|message| message.preface.is_some()) else { return run.len() };
        self.waiting = false;
        let preface = run[at].preface.clone().unwrap_or_default();
        let same = self.preface.as_ref().is_some_and(|last| *last == preface);
        if !same && !preface.is_empty() {
            self.pending.push_back(preface.clone());
        }
        self.preface = Some(preface);
        at
    }

    /// Books that so many bytes of what waits, and then of `run`, went.
    fn account(&mut self, run: &[Message], written: usize) {
        let mut left = written;
        while let Some(first) = self.pending.front_mut() {
            if left < first.len() {
                first.advance(left);
                return;
            }
            left -= first.len();
            self.pending.pop_front();
        }
        let (mut messages, mut bytes) = (0, 0);
        for message in run {
            if left == 0 {
                break;
            }
            messages += 1;
            bytes += message.bytes.len() as u64;
            self.cursor.0 += 1;
            self.sent_to = message.dts;
            if left < message.bytes.len() {
                let rest = message.bytes.get(left..).unwrap_or_default();
                self.pending.push_back(Bytes::copy_from_slice(rest));
                break;
            }
            left -= message.bytes.len();
        }
        if messages > 0 {
            for counter in [&self.flow.messages, &self.stats.datagrams] {
                counter.fetch_add(messages, Relaxed);
            }
            for counter in [&self.flow.bytes, &self.stats.bytes] {
                counter.fetch_add(bytes, Relaxed);
            }
            self.moved = true;
        }
    }

    fn keep_reply(&mut self) -> Result<(), Farewell> {
        if self.reply.is_empty() {
            return Ok(());
        }
        let waiting: usize = self.pending.iter().map(Bytes::len).sum();
        if waiting + self.reply.len() > REPLIES && self.pending.len() > 1 {
            self.reply.clear();
            return Err(Farewell { reason: "it asks, and takes no answers".into(), retryable: true });
        }
        self.pending.push_back(Bytes::copy_from_slice(&self.reply));
        self.reply.clear();
        Ok(())
    }

    /// Lets the kernel hold half a second of media, so that what is old is skipped here and not sent late.
    fn bound_kernel(&mut self, rate: u64) {
        let wanted = usize::try_from(rate / 8 / 2).unwrap_or(usize::MAX).clamp(KERNEL_LEAST, KERNEL_MOST);
        if wanted.abs_diff(self.bound) * 4 > self.bound {
            // A kernel that refuses keeps the bound it has.
            let _ = self.socket.bound(wanted);
            self.bound = wanted;
        }
    }
}

fn lost(error: &std::io::Error) -> Farewell {
    Farewell { reason: format!("the connection broke: {error}"), retryable: true }
}

/// Writes in one turn of one connection.
const WRITES: usize = 8;
/// Reads in one turn.
const READS: usize = 4;
/// Pieces of one write (IOV_MAX is 1024).
const PIECES: usize = 64;
/// Bytes after which no more pieces are added.
const OFFER: usize = 256 << 10;
/// Answers that may wait for a peer that does not take them.
const REPLIES: usize = 64 << 10;
const KERNEL_LEAST: usize = 128 << 10;
const KERNEL_MOST: usize = 8 << 20;
