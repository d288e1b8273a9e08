//! One peer that gets its media as datagrams: where it stands in the lane until it goes along with the others, what it
//! was sent, what its reports say. Sends what it lacks at a pace that its socket holds.

use std::sync::atomic::Ordering::Relaxed;

use super::fan::{Fan, Leg, Shape, Spread, Total};
use super::port::Sockets;
use crate::hub::{Cursor, Lane};
use crate::media::{Message, Nanos};
use crate::net::clock;
use crate::telemetry::{FlowStats, OutputStats};
use crate::wire::rtp::framed;
use crate::wire::rtp::rtcp::{self, ReportBlock, Rtcp};

/// A peer whose media leave as datagrams.
pub(super) struct Receiver {
    pub(super) legs: Vec<Leg>,
    pub(super) shape: Shape,
    stage: Stage,
    /// To it alone.
    own: Fan,
    /// What its crowd had sent when it joined.
    base: Total,
    /// What it was sent before that.
    carried: Total,
    refused: Total,
    /// What was shown already.
    shown: Total,
    shown_refused: u64,
    /// It listens to a group that somebody else of this output is counted for.
    follows: bool,
    reports: Vec<Report>,
    /// Bytes that it was sent when its last report came.
    reported_bytes: u64,
    /// Since when its host says that nobody listens, and when it said so last.
    unreachable: Option<(Nanos, Nanos)>,
}

/// Where it stands.
enum Stage {
    /// It does not play.
    Away,
    /// It is sent what the others had already.
    Behind(Behind),
    /// It is sent what the others are.
    Along,
}

struct Behind {
    cursor: Cursor,
    /// Packets of the message at the cursor that went.
    sent: usize,
    /// It has begun: not before a message at which a reader can.
    begun: bool,
    due: Nanos,
    /// What the others had been sent at the last step.
    others: u64,
}

/// What it last said of a source.
struct Report {
    source: u32,
    highest: u32,
    lost: i32,
}

/// What a step behind the others came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It stands where the others do.
    Level,
    /// It is to be walked again at this time.
    At(Nanos),
    /// Nothing: it does not play, or goes along.
    Nothing,
}

impl Receiver {
    pub(super) fn new(legs: Vec<Leg>, shape: Shape) -> Self {
        let mut own = Fan::new(&shape);
        own.push(&legs);
        Self {
            legs,
            shape,
            stage: Stage::Away,
            own,
            base: Total::default(),
            carried: Total::default(),
            refused: Total::default(),
            shown: Total::default(),
            shown_refused: 0,
            follows: false,
            reports: Vec::new(),
            reported_bytes: 0,
            unreachable: None,
        }
    }

    pub(super) fn is_away(&self) -> bool {
        matches!(self.stage, Stage::Away)
    }

    pub(super) fn is_along(&self) -> bool {
        matches!(self.stage, Stage::Along)
    }

    /// Begins at the newest random access point, or at the next one.
    pub(super) fn begin(&mut self, lane: &Lane<Message>, others: Total, now: Nanos) {
        let cursor = lane.random_access().unwrap_or_else(|| lane.live());
        let behind = Behind { cursor, sent: 0, begun: false, due: now, others: others.packets };
        self.stage = Stage::Behind(behind);
    }

    /// Goes along with a crowd that has sent `total`.
    pub(super) fn join(&mut self, total: Total) {
        self.base = total;
        self.stage = Stage::Along;
    }

    /// Whether its packets go to a group, which others listen to as well: they are sent once, from where the group is.
    pub(super) fn is_grouped(&self) -> bool {
        self.legs.first().is_some_and(|leg| leg.rtp.ip().is_multicast())
    }

    /// Whether what goes to the group is counted for somebody else.
    pub(super) fn follow(&mut self, follows: bool) {
        self.follows = follows;
    }

    /// Stops, whatever it did; its crowd has sent `total`.
    pub(super) fn stop(&mut self, total: Total) {
        if self.is_along() {
            self.carried = self.carried.with_since(total, self.base);
        }
        self.stage = Stage::Away;
    }

    /// Sends the next of what the others had before it, who stand at `to` and were sent `others`.
    pub(super) fn catch_up(
        &mut self,
        lane: &Lane<Message>,
        (to, others): (Cursor, Total),
        ports: &mut [Option<Sockets>],
        now: Nanos,
    ) -> (Step, Spread) {
        let mut spread = Spread::default();
        let Stage::Behind(behind) = &mut self.stage else { return (Step::Nothing, spread) };
        if now < behind.due {
            return (Step::At(behind.due), spread);
        }
        behind.due = now + STEP;
        // As much as the others were sent meanwhile, and more: it comes level, however fast the stream is.
        let mut room = BURST + usize::try_from(others.packets.saturating_sub(behind.others)).unwrap_or(0);
        behind.others = others.packets;
        let mut lost = Vec::new();
        while room > 0 && behind.cursor.0 < to.0 {
            let mut messages = Vec::new();
            let read = lane.read(&mut behind.cursor, MESSAGES, &mut messages, |_| true);
            behind.cursor.0 -= messages.len() as u64;
            if read.skipped > 0 {
                behind.sent = 0;
                if std::mem::take(&mut behind.begun) {
                    self.carried.skipped += read.skipped;
                    self.carried.skips += 1;
                }
            }
            if messages.is_empty() {
                break;
            }
            for message in &messages {
                if behind.cursor.0 >= to.0 || room == 0 {
                    break;
                }
                behind.begun |= message.preface.is_some();
                if behind.begun {
                    let rest = framed(&message.bytes).skip(behind.sent);
                    let packets: Vec<(u8, &[u8])> = rest.take(room + 1).collect();
                    let now = packets.get(..room).unwrap_or(&packets);
                    let sent = self.own.send(now, ports, &mut lost);
                    spread.messages += sent.messages;
                    spread.datagrams += sent.datagrams;
                    room -= now.len();
                    if packets.len() > now.len() {
                        behind.sent += now.len();
                        break;
                    }
                }
                behind.sent = 0;
                behind.cursor.0 += 1;
            }
        }
        let level = behind.cursor == to && behind.begun && behind.sent == 0;
        let step = if level { Step::Level } else { Step::At(behind.due) };
        let sent = std::mem::take(&mut self.own.total);
        self.carried = self.carried.with_since(sent, Total::default());
        lost.iter().for_each(|(_, gone)| self.refuse(*gone));
        (step, spread)
    }

    /// The kernel refused to send it this.
    pub(super) fn refuse(&mut self, gone: Total) {
        self.refused.packets += gone.packets;
        self.refused.bytes += gone.bytes;
    }

    /// Shows what it was sent; its crowd has sent `total`.
    pub(super) fn publish(&mut self, total: Option<Total>, flow: &FlowStats, stats: &OutputStats) {
        let sum = self.sum(total);
        let fresh = Total::default().with_since(sum, self.shown);
        if fresh.packets > 0 {
            stats.last_sent_ms.store(clock::wall_ms(), Relaxed);
        }
        for (counters, fresh) in [
            ([&flow.messages, &stats.datagrams], fresh.packets),
            ([&flow.bytes, &stats.bytes], fresh.bytes),
            ([&flow.skipped, &stats.skipped], fresh.skipped),
            ([&flow.skips, &stats.skips], fresh.skips),
        ] {
            let counts = if self.follows { 1 } else { 2 };
            for counter in counters.into_iter().take(counts).filter(|_| fresh > 0) {
                counter.fetch_add(fresh, Relaxed);
            }
        }
        if !self.follows {
            stats.unanswered.fetch_add(fresh.packets, Relaxed);
            stats.send_errors.fetch_add(self.refused.packets - self.shown_refused, Relaxed);
        }
        (self.shown, self.shown_refused) = (sum, self.refused.packets);
    }

    /// Takes RTCP that came from it; its crowd has sent `total` from `sources`. False = it is none.
    pub(super) fn hear(
        &mut self,
        compound: &[u8],
        (total, sources): (Option<Total>, &[(u8, u32, u16)]),
        (flow, stats): (&FlowStats, &OutputStats),
    ) -> bool {
        let own: Vec<_> = self.own.sources().collect();
        let (mut advanced, mut any) = (false, false);
        let reports = &mut self.reports;
        let parsed = rtcp::parse(compound, |packet| {
            any = true;
            let (Rtcp::ReceiverReport { blocks, .. } | Rtcp::SenderReport(_, blocks)) = packet else {
                return;
            };
            for block in blocks {
                let sent = sources.iter().chain(&own).find(|(_, source, _)| *source == block.ssrc);
                advanced |= sent.is_some_and(|(.., last)| note(reports, &block, *last));
            }
        });
        if parsed.is_err() || !any {
            return false;
        }
        self.unreachable = None;
        if advanced {
            let bytes = self.sum(total).bytes;
            let fresh = bytes.saturating_sub(self.reported_bytes);
            self.reported_bytes = bytes;
            flow.acknowledged_bytes.fetch_add(fresh, Relaxed);
            stats.acknowledged.fetch_add(fresh, Relaxed);
            stats.last_report_ms.store(clock::wall_ms(), Relaxed);
        }
        let lost: i64 = self.reports.iter().map(|report| i64::from(report.lost.max(0))).sum();
        flow.lost.store(lost.unsigned_abs(), Relaxed);
        true
    }

    /// Its host says that nobody listens where RTP goes.
    pub(super) fn refuses(&mut self, now: Nanos) {
        let since = self.unreachable.map_or(now, |(since, _)| since);
        self.unreachable = Some((since, now));
    }

    /// Whether its host has said so for too long.
    pub(super) fn is_gone(&mut self, now: Nanos) -> bool {
        let Some((since, last)) = self.unreachable else { return false };
        if now.saturating_sub(last) > QUIET {
            // Somebody listens again.
            self.unreachable = None;
        }
        last.saturating_sub(since) > UNREACHABLE
    }

    /// Tells it that the sources leave (RFC 3550, 6.6); those of its crowd are `sources`.
    pub(super) fn part(&mut self, sources: &[(u8, u32, u16)], ports: &mut [Option<Sockets>]) {
        let own: Vec<_> = self.own.sources().collect();
        for leg in &self.legs {
            let of = |(channel, ..): &&(u8, u32, u16)| *channel == leg.channel;
            let Some((_, source, _)) = sources.iter().find(of).or_else(|| own.iter().find(of)) else {
                continue;
            };
            let mut compound = Vec::with_capacity(16);
            // A compound packet begins with a report (RFC 3550, 6.1).
            rtcp::write_receiver_report(&mut compound, *source, &[]);
            rtcp::write_bye(&mut compound, *source);
            self.own.send(&[(leg.channel | 1, &compound)], ports, &mut Vec::new());
        }
    }

    fn sum(&self, total: Option<Total>) -> Total {
        let sum = match (&self.stage, total) {
            (Stage::Along, Some(total)) => self.carried.with_since(total, self.base),
            _ => self.carried,
        };
        Total {
            packets: sum.packets.saturating_sub(self.refused.packets),
            bytes: sum.bytes.saturating_sub(self.refused.bytes),
            ..sum
        }
    }
}

/// Notes what a report says of a source that has sent up to `last`; whether more was received than before. What says
/// to have got what was never sent is not believed.
fn note(reports: &mut Vec<Report>, block: &ReportBlock, last: u16) -> bool {
    // The lower half counts what is sent; the upper one only how often it went round.
    if last.wrapping_sub(block.highest as u16) > 1 << 15 {
        return false;
    }
    let (source, highest, lost) = (block.ssrc, block.highest, block.lost);
    match reports.iter_mut().find(|report| report.source == source) {
        Some(report) => {
            let more = highest.wrapping_sub(report.highest);
            (report.highest, report.lost) = (highest, lost);
            (1..1 << 31).contains(&more)
        }
        None => {
            if reports.len() < SOURCES {
                reports.push(Report { source, highest, lost });
            }
            true
        }
    }
}

/// Between two steps of one that is behind: 5 ms.
const STEP: Nanos = 5_000_000;
/// Packets that it is sent in one step beyond what the others are: with 2.3 kB of the kernel's memory for each, a third
/// of the receive buffer that Linux gives a socket that asks for none.
const BURST: usize = 32;
/// Messages read at once.
const MESSAGES: usize = 32;
/// A peer whose host says for so long that nobody listens is gone.
const UNREACHABLE: Nanos = 5_000_000_000;
/// Without such a word for so long, somebody listens.
const QUIET: Nanos = 2_000_000_000;
/// Sources that are kept account of: 16 tracks, and what they were before.
const SOURCES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn block(ssrc: u32, highest: u32, lost: i32) -> ReportBlock {
        ReportBlock { ssrc, highest, lost, ..ReportBlock::default() }
    }

    #[test]
    fn a_report_counts_when_it_says_more_than_the_last_and_no_more_than_was_sent() {
        let mut reports = Vec::new();
        assert!(note(&mut reports, &block(1, 0x1_0005, 0), 9));
        assert!(!note(&mut reports, &block(1, 0x1_0005, 0), 9), "the same again");
        assert!(note(&mut reports, &block(1, 0x1_0009, 2), 9));
        assert!(!note(&mut reports, &block(1, 0x1_0800, 0), 9), "it was never sent");
        assert!(!note(&mut reports, &block(1, 0x1_0001, 0), 9), "backwards");
        assert_eq!(reports.len(), 1);
        for source in 2..100 {
            note(&mut reports, &block(source, 1, 0), 9);
        }
        assert_eq!(reports.len(), SOURCES);
    }

    #[test]
    fn a_host_that_refuses_for_long_is_gone_and_one_that_did_once_is_not() {
        let second = 1_000_000_000;
        let mut receiver = Receiver::new(Vec::new(), Vec::new());
        receiver.refuses(second);
        assert!(!receiver.is_gone(2 * second));
        assert!(!receiver.is_gone(9 * second), "it said so once");
        for at in 10..17 {
            receiver.refuses(at * second);
        }
        assert!(receiver.is_gone(17 * second));
    }
}
