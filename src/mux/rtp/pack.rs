//! Access units of a stream enter, RTP packets leave, made once and shared by all readers: one source, sequence and
//! timestamp space per track. Keeps no packet.

use super::describe::{Dropped, media_of};
use crate::media::{self, Frame, Setup, TICKS_PER_SECOND, Ticks, Track, Tracks};
use crate::wire::h26x::{Kind, Standard, length_prefixed};
use crate::wire::rtp::rtcp::{self, SenderReport};
use crate::wire::rtp::{
    Line, Packets, packetize_aac, packetize_ac3, packetize_h264, packetize_h265, packetize_klv,
    packetize_mpeg_audio, packetize_opus, packetize_samples,
};
use crate::wire::rtsp::{Description, Format, Media};

/// Makes the packets of a stream.
#[derive(Debug)]
pub struct Packer {
    lines: Vec<Sender>,
    /// Where each track of the stream is in `lines`.
    places: Vec<Option<usize>>,
    dropped: Vec<Dropped>,
    description: Description,
    shape: Tracks,
    /// A time of the stream, and the wall clock that it is told with (nanoseconds since 1970).
    anchor: Option<(Ticks, u64)>,
}

#[derive(Debug)]
struct Sender {
    line: Line,
    clock_rate: u32,
    /// RTP timestamp of tick 0.
    base: u32,
    /// Timestamp behind the last frame of audio: rounding must not open gaps of one sample.
    next: Option<u32>,
}

/// What was made of an access unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packed {
    /// Its track, as its place in the description.
    pub track: usize,
    /// A reader may start with it.
    pub random_access: bool,
}

impl Packer {
    /// Makes packets of at most `most` bytes of the tracks that RTP carries; `random` gives the first sequence number
    /// and timestamp and the source of each (RFC 3550, 5.1).
    pub fn new(tracks: &Tracks, most: usize, random: &mut dyn FnMut() -> u32) -> Self {
        let mut packer = Self {
            lines: Vec::new(),
            places: Vec::new(),
            dropped: Vec::new(),
            description: Description::default(),
            shape: tracks.clone(),
            anchor: None,
        };
        for track in &tracks.0 {
            // At most 16 tracks: channels and dynamic payload types last.
            let place = packer.lines.len();
            let media = media_of(track, FIRST_TYPE + place.min(TRACKS_MOST) as u8);
            match media.and_then(|media| if place < TRACKS_MOST { Ok(media) } else { Err("more than 16 tracks") }) {
                Ok(media) => {
                    let mut line = Line::new(media.payload_type, random(), random() as u16, most);
                    line.channel = 2 * place as u8;
                    let (clock_rate, base) = (media.clock_rate, random());
                    packer.lines.push(Sender { line, clock_rate, base, next: None });
                    packer.places.push(Some(place));
                    packer.description.media.push(Media { control: Some(format!("trackID={place}")), ..media });
                }
                Err(why) => {
                    packer.places.push(None);
                    packer.dropped.push(Dropped { id: track.id, codec: track.codec.name().into(), why });
                }
            }
        }
        packer
    }

    /// The tracks that are carried.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// The tracks that are left out.
    pub fn dropped(&self) -> &[Dropped] {
        &self.dropped
    }

    /// True while frames with these tracks can go on in the same session: same tracks and codecs, in the same order,
    /// and of audio the same setup. New parameter sets travel with the pictures.
    pub fn fits(&self, tracks: &Tracks) -> bool {
        let same = |(ours, theirs): (&Track, &Track)| {
            let video = theirs.codec.kind() == media::Kind::Video;
            ours.id == theirs.id && ours.codec == theirs.codec && (video || ours.setup == theirs.setup)
        };
        self.shape.0.len() == tracks.0.len() && self.shape.0.iter().zip(&tracks.0).all(same)
    }

    /// Appends the packets of an access unit; `None` when its track is not carried. A random access point of a video
    /// track has its parameter sets in front.
    pub fn pack(&mut self, frame: &Frame, into: &mut Packets) -> Option<Packed> {
        let track = self.places.get(frame.track).copied().flatten()?;
        let format = &self.description.media.get(track)?.format;
        let sender = self.lines.get_mut(track)?;
        let timestamp = sender.timestamp(frame.pts);
        let line = &mut sender.line;
        let data = &frame.data[..];
        match format {
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
            Format::Latm { .. } | Format::Mp2t | Format::Other(_) => return None,
        }
        Some(Packed { track, random_access: frame.random_access })
    }

    /// Appends the sender report and the name of every track: at `time` of the stream the wall clock says `wall`
    /// (nanoseconds since 1970). Later reports count from the first one by the time of the stream, so that
    /// what receivers make of them is as steady as the stream.
    pub fn report(&mut self, time: Ticks, wall: u64, name: &str, into: &mut Packets) {
        let (start, at_start) = *self.anchor.get_or_insert((time, wall));
        let passed = i128::from(time - start) * 1_000_000_000 / i128::from(TICKS_PER_SECOND);
        let wall = (i128::from(at_start) + passed).clamp(0, u64::MAX.into()) as u64;
        for sender in &mut self.lines {
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

    /// The RTP timestamp of a time on a track.
    pub fn timestamp(&self, track: usize, time: Ticks) -> Option<u32> {
        Some(self.lines.get(track)?.timestamp(time))
    }

    /// The sequence number that the next packet of a track gets.
    pub fn sequence(&self, track: usize) -> Option<u16> {
        Some(self.lines.get(track)?.line.sequence)
    }

    /// The source of a track.
    pub fn ssrc(&self, track: usize) -> Option<u32> {
        Some(self.lines.get(track)?.line.ssrc)
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

/// The first dynamic payload type (RFC 3551, 3).
const FIRST_TYPE: u8 = 96;
const TRACKS_MOST: usize = 16;
const AAC_SAMPLES: u32 = 1024;
