//! Access units of a stream enter, RTP packets leave, made once and shared by all readers: one source, sequence and
//! timestamp space per track. Keeps no packet.

use super::describe::{describe, same};
use crate::media::{self, Frame, Nanos, Setup, TICKS_PER_SECOND, Ticks, Tracks};
use crate::wire::h26x::{Kind, Standard, length_prefixed};
use crate::wire::rtp::rtcp::{self, SenderReport};
use crate::wire::rtp::{
    Line, Packets, packetize_aac, packetize_ac3, packetize_h264, packetize_h265, packetize_klv,
    packetize_mpeg_audio, packetize_opus, packetize_samples,
};
use crate::wire::rtsp::{Format, Media};

/// What the packets of a stream are numbered by: equal numbers make equal packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Numbers {
    /// Tracks that are packed, one bit for each index.
    pub tracks: u32,
    /// Random: sources, first sequence numbers and timestamps come of it (RFC 3550, 5.1).
    pub seed: u64,
    /// Wall clock at nanosecond 0 of the shard's clock, in nanoseconds since 1970.
    pub wall: u64,
}

/// Makes the packets of a stream.
#[derive(Debug)]
pub struct Packer {
    /// One for each track of the stream.
    lines: Vec<Option<Sender>>,
    shape: Tracks,
    numbers: Numbers,
    most: usize,
    /// A time of the stream, and the wall clock that it is told with (nanoseconds since 1970).
    anchor: Option<(Ticks, u64)>,
}

#[derive(Debug)]
struct Sender {
    line: Line,
    format: Format,
    clock_rate: u32,
    /// RTP timestamp of tick 0.
    base: u32,
    /// Timestamp behind the last frame of audio: rounding must not open gaps of one sample.
    next: Option<u32>,
}

impl Packer {
    /// Makes packets of at most `most` bytes of the tracks that RTP carries.
    pub fn new(tracks: &Tracks, numbers: Numbers, most: usize) -> Self {
        let mut lines: Vec<Option<Sender>> = tracks.0.iter().map(|_| None).collect();
        for media in describe(tracks).0.media {
            let index =
                media.control.as_deref().and_then(|control| control.strip_prefix("trackID=")?.parse().ok());
            let Some(index) = index.filter(|index: &usize| numbers.tracks >> (index & 31) & 1 == 1) else {
                continue;
            };
            let random = |nth: u64| mix(numbers.seed ^ ((index as u64) << 8 | nth));
            let mut line = Line::new(media.payload_type, random(0) as u32, random(1) as u16, most);
            // At most 16 tracks.
            line.channel = 2 * index as u8;
            let Media { format, clock_rate, .. } = media;
            let sender = Sender { line, format, clock_rate, base: random(2) as u32, next: None };
            if let Some(place) = lines.get_mut(index) {
                *place = Some(sender);
            }
        }
        Self { lines, shape: tracks.clone(), numbers, most, anchor: None }
    }

    /// Goes on with these tracks: the numbers of those that stay what they were go on.
    pub fn follow(&mut self, tracks: &Tracks) {
        let mut next = Self::new(tracks, self.numbers, self.most);
        next.anchor = self.anchor;
        for ((line, old), (own, new)) in
            self.lines.iter_mut().zip(&self.shape.0).zip(next.lines.iter_mut().zip(&tracks.0))
        {
            if let (Some(sender), Some(fresh), true) = (line.take(), own.as_mut(), same(old, new)) {
                *fresh = Sender { format: std::mem::replace(&mut fresh.format, Format::Klv), ..sender };
            }
        }
        *self = next;
    }

    /// The tracks that it packs.
    pub fn shape(&self) -> &Tracks {
        &self.shape
    }

    /// Appends the packets of an access unit; false when its track is not carried. A random access point of a video
    /// track has its parameter sets in front.
    pub fn pack(&mut self, frame: &Frame, into: &mut Packets) -> bool {
        let Some(Some(sender)) = self.lines.get_mut(frame.track) else { return false };
        let timestamp = sender.timestamp(frame.pts);
        let line = &mut sender.line;
        let data = &frame.data[..];
        match &sender.format {
            Format::H264 { .. } => {
                let front = missing_sets(frame, Standard::H264);
                let nals = front.into_iter().chain(length_prefixed(data, 4));
                packetize_h264(nals, line, timestamp, into);
            }
            Format::H265 { .. } => {
                let front = missing_sets(frame, Standard::H265);
                let nals = front.into_iter().chain(length_prefixed(data, 4));
                packetize_h265(nals, line, timestamp, into);
            }
            Format::Aac { .. } => {
                let timestamp = sender.smooth(timestamp, AAC_SAMPLES);
                packetize_aac(data, &mut sender.line, timestamp, into);
            }
            Format::Opus { .. } => drop(packetize_opus(data, line, timestamp, into)),
            Format::PcmA { channels } | Format::PcmU { channels } => {
                let channels = *channels;
                let samples = data.len() / usize::from(channels.max(1));
                let timestamp = sender.smooth(timestamp, samples.try_into().unwrap_or(0));
                packetize_samples(data, channels, &mut sender.line, timestamp, into);
            }
            Format::MpegAudio => packetize_mpeg_audio(data, line, timestamp, into),
            Format::Ac3 { .. } => packetize_ac3(data, line, timestamp, into),
            Format::Klv => packetize_klv(data, line, timestamp, into),
            Format::Latm { .. } | Format::Mp2t | Format::Other(_) => return false,
        }
        true
    }

    /// Appends the sender report and the name of every track. `time` of the stream came at `arrival`; later reports
    /// count from the first one by the time of the stream, so that what receivers make of them is as steady as the
    /// stream.
    pub fn report(&mut self, time: Ticks, arrival: Nanos, name: &str, into: &mut Packets) {
        let (start, at_start) = *self.anchor.get_or_insert((time, self.numbers.wall.saturating_add(arrival)));
        let passed = i128::from(time - start) * 1_000_000_000 / i128::from(TICKS_PER_SECOND);
        let wall = (i128::from(at_start) + passed).clamp(0, u64::MAX.into()) as u64;
        for sender in self.lines.iter().flatten() {
            let report = SenderReport {
                ssrc: sender.line.ssrc,
                ntp: rtcp::ntp(wall),
                rtp: sender.timestamp(time),
                packets: sender.line.packets,
                octets: sender.line.octets,
            };
            let mut compound = Vec::with_capacity(64);
            rtcp::write_sender_report(&mut compound, &report);
            rtcp::write_description(&mut compound, report.ssrc, name);
            into.append(sender.line.channel + 1, &compound);
        }
    }

    /// Whether pictures are among what is packed: a reader begins at one of them.
    pub fn has_video(&self) -> bool {
        let carried = self.lines.iter().zip(&self.shape.0);
        carried.into_iter().any(|(line, track)| line.is_some() && track.codec.kind() == media::Kind::Video)
    }
}

impl Sender {
    fn timestamp(&self, time: Ticks) -> u32 {
        let units = (i128::from(time) * i128::from(self.clock_rate)).div_euclid(TICKS_PER_SECOND.into());
        // Modulo 2^32, as the field is.
        self.base.wrapping_add(units as u32)
    }

    /// Ticks of 1/90 kHz are coarser than samples of 44.1 kHz: what is next but for rounding is next.
    fn smooth(&mut self, timestamp: u32, samples: u32) -> u32 {
        let close = |next: &u32| (timestamp.wrapping_sub(*next) as i32).unsigned_abs() <= 2;
        let smooth = self.next.filter(close).unwrap_or(timestamp);
        self.next = Some(smooth.wrapping_add(samples));
        smooth
    }
}

/// The parameter sets that a random access point lacks: none when it brings a sequence parameter set of its own.
fn missing_sets(frame: &Frame, standard: Standard) -> Vec<&[u8]> {
    if !frame.random_access || length_prefixed(&frame.data, 4).any(|nal| standard.kind_of(nal) == Kind::Sps) {
        return Vec::new();
    }
    match frame.track().map(|track| &track.setup) {
        Some(Setup::ParameterSets { vps, sps, pps }) => {
            vps.iter().chain(sps).chain(pps).map(AsRef::as_ref).collect()
        }
        _ => Vec::new(),
    }
}

/// SplitMix64: numbers that look random, the same for the same seed.
pub(super) fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

const AAC_SAMPLES: u32 = 1024;
