//! RTP and RTCP packets of one session enter, access units or transport packets leave into the stream's queue, counted.
//! Knows neither connection nor socket.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;

use crate::hub::FeedWriter;
use crate::ingest::Fed;
use crate::media::{Frame, Nanos};
use crate::mux::rtp::Unpacker;
use crate::net::{clock, random};
use crate::telemetry::{FlowStats, Rate};
use crate::wire::rtp::rtcp::{self, Rtcp};
use crate::wire::rtp::{InOrder, Reception, Reorder, parse, transport_packets};
use crate::wire::rtsp::{Description, Format};

/// Where the media of one session go.
pub(super) struct Intake {
    unpacker: Unpacker,
    /// By media of the description; none for those that are not taken.
    media: Vec<Option<Media>>,
    feed: FeedWriter<Fed>,
    flow: Arc<FlowStats>,
    rate: Rate,
    fresh: bool,
    /// Our own source in receiver reports.
    ssrc: u32,
    report_at: Nanos,
    frames: Vec<Frame>,
}

struct Media {
    transport_stream: bool,
    reorder: Reorder,
    reception: Reception,
}

/// Which media of a description are taken: a transport stream alone, or everything that is read.
pub(super) fn wanted(description: &Description) -> Vec<usize> {
    let transport_stream = description.media.iter().position(|media| media.format == Format::Mp2t);
    match transport_stream {
        Some(only) => vec![only],
        None => {
            let unpacker = Unpacker::new(description);
            (0..description.media.len()).filter(|media| unpacker.reads(*media)).collect()
        }
    }
}

impl Intake {
    /// Takes `chosen` media of a session that begins; a gap in the sequence is waited for `window`.
    pub(super) fn new(
        description: &Description,
        chosen: &[usize],
        window: Duration,
        feed: FeedWriter<Fed>,
        flow: Arc<FlowStats>,
        encrypted: bool,
    ) -> Self {
        let take = |(i, media): (usize, &crate::wire::rtsp::Media)| {
            chosen.contains(&i).then(|| Media {
                transport_stream: media.format == Format::Mp2t,
                reorder: Reorder::of_types(1 << media.payload_type, window, REORDER_MOST),
                reception: Reception::new(media.clock_rate),
            })
        };
        let media: Vec<Option<Media>> = description.media.iter().enumerate().map(take).collect();
        let transport_stream = media.iter().flatten().any(|media| media.transport_stream);
        feed.push(if transport_stream { Fed::Datagrams } else { Fed::Frames });
        flow.since_ms.store(clock::wall_ms(), Relaxed);
        flow.encrypted.store(encrypted, Relaxed);
        Self {
            unpacker: Unpacker::new(description),
            media,
            feed,
            flow,
            rate: Rate::default(),
            fresh: false,
            ssrc: u32::from_ne_bytes(random()),
            report_at: clock::now() + REPORT,
            frames: Vec::new(),
        }
    }

    /// Takes an RTP packet of a media.
    pub(super) fn rtp(&mut self, index: usize, packet: &[u8], now: Nanos) {
        let Some(Some(media)) = self.media.get_mut(index) else { return };
        self.flow.messages.fetch_add(1, Relaxed);
        self.flow.bytes.fetch_add(packet.len() as u64, Relaxed);
        if let Ok((header, _)) = parse(packet) {
            media.reception.arrive(&header, now);
        }
        let (unpacker, frames, feed, fresh) =
            (&mut self.unpacker, &mut self.frames, &self.feed, &mut self.fresh);
        let transport_stream = media.transport_stream;
        media.reorder.push(packet, now, &mut |packet: InOrder<'_>| {
            take(transport_stream, unpacker, frames, feed, fresh, index, packet, now);
        });
        self.hand_on();
    }

    /// Takes an RTCP packet of a media.
    pub(super) fn rtcp(&mut self, index: usize, packet: &[u8], now: Nanos) {
        let (unpacker, media) = (&mut self.unpacker, &mut self.media);
        // What is malformed says nothing.
        let _ = rtcp::parse(packet, |packet| {
            if let Rtcp::SenderReport(report, _) = packet {
                unpacker.report(index, &report);
                if let Some(Some(media)) = media.get_mut(index) {
                    media.reception.sender_report(&report, now);
                }
            }
        });
    }

    /// Gives up gaps whose time is up.
    pub(super) fn expire(&mut self, now: Nanos) {
        for (index, media) in self.media.iter_mut().enumerate() {
            let Some(media) = media else { continue };
            let (unpacker, frames, feed, fresh) =
                (&mut self.unpacker, &mut self.frames, &self.feed, &mut self.fresh);
            let transport_stream = media.transport_stream;
            media.reorder.expire(now, &mut |packet: InOrder<'_>| {
                take(transport_stream, unpacker, frames, feed, fresh, index, packet, now);
            });
        }
        self.hand_on();
    }

    /// When [`Self::expire`] or [`Self::reports`] has something to do.
    pub(super) fn deadline(&self) -> Nanos {
        let gaps = self.media.iter().flatten().filter_map(|media| media.reorder.deadline());
        gaps.min().unwrap_or(Nanos::MAX).min(self.report_at)
    }

    /// Receiver reports, when they are due: one for each media.
    pub(super) fn reports(&mut self, now: Nanos) -> Vec<(usize, Vec<u8>)> {
        if now < self.report_at {
            return Vec::new();
        }
        self.report_at = now + REPORT;
        let mut reports = Vec::new();
        for (index, media) in self.media.iter_mut().enumerate() {
            let Some(block) = media.as_mut().and_then(|media| media.reception.report(now)) else { continue };
            let mut compound = Vec::with_capacity(64);
            rtcp::write_receiver_report(&mut compound, self.ssrc, &[block]);
            rtcp::write_description(&mut compound, self.ssrc, "millrace");
            reports.push((index, compound));
        }
        reports
    }

    /// Wakes the stream when there is something for it, and counts.
    pub(super) fn ring(&mut self) {
        if std::mem::take(&mut self.fresh) {
            self.feed.ring();
        }
        let rate = self.rate.update(clock::now(), self.flow.bytes.load(Relaxed));
        self.flow.rate_bps.store(rate, Relaxed);
    }

    fn hand_on(&mut self) {
        for frame in self.frames.drain(..) {
            self.feed.push(Fed::Frame(frame));
            self.fresh = true;
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "parts of one intake that are borrowed apart")]
fn take(
    transport_stream: bool,
    unpacker: &mut Unpacker,
    frames: &mut Vec<Frame>,
    feed: &FeedWriter<Fed>,
    fresh: &mut bool,
    index: usize,
    packet: InOrder<'_>,
    now: Nanos,
) {
    if transport_stream {
        let (packets, _) = transport_packets(packet.payload);
        if !packets.is_empty() {
            feed.push(Fed::Datagram(Bytes::copy_from_slice(packets), now));
            *fresh = true;
        }
    } else {
        unpacker.packet(index, packet, now, &mut |frame| frames.push(frame));
    }
}

/// Packets held behind a gap.
const REORDER_MOST: usize = 1024;
/// How often a sender hears of us (RFC 3550, 6.2).
const REPORT: Nanos = 5_000_000_000;
