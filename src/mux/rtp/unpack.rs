//! RTP packets of a session enter in order, access units of a stream leave, on one timeline. Judges no order, opens no
//! connection.

use std::sync::Arc;

use super::clock::Clocks;
use super::describe::{Dropped, latm_setup, track_of};
use crate::media::{AudioFormat, Codec, DecodingTimes, Frame, Nanos, Setup, Stamps, Ticks, TrackId, Tracks};
use crate::wire::audio::{Syntax, mpeg_layer};
use crate::wire::h26x::{ParameterSets, Picture, Standard, length_prefixed};
use crate::wire::rtp::rtcp::SenderReport;
use crate::wire::rtp::{
    AacDepacketizer, Ac3Depacketizer, H264Depacketizer, H265Depacketizer, InOrder, KlvDepacketizer,
    LatmDepacketizer, Losses, MpegAudioDepacketizer, PlainDepacketizer, Unit,
};
use crate::wire::rtsp::{Description, Format, Media};

/// Makes access units of the packets of a session.
#[derive(Debug)]
pub struct Unpacker {
    tracks: Arc<Tracks>,
    /// Where each media of the description is in `lanes`.
    places: Vec<Option<usize>>,
    lanes: Vec<Lane>,
    clocks: Clocks,
    dropped: Vec<Dropped>,
    units: Vec<Unit>,
}

#[derive(Debug)]
struct Lane {
    depacketizer: Depacketizer,
    codec: Codec,
    sets: Option<ParameterSets>,
    /// Of pictures, which come in the order of decoding.
    order: Option<DecodingTimes>,
    last: Ticks,
}

#[derive(Debug)]
enum Depacketizer {
    H264(H264Depacketizer),
    H265(H265Depacketizer),
    Aac(AacDepacketizer),
    Latm(LatmDepacketizer),
    Plain(PlainDepacketizer),
    MpegAudio(MpegAudioDepacketizer),
    Ac3(Ac3Depacketizer),
    Klv(KlvDepacketizer),
}

impl Unpacker {
    /// Reads the tracks of a description that can be read.
    pub fn new(description: &Description) -> Self {
        let (mut tracks, mut places, mut lanes, mut dropped, mut rates) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (i, media) in description.media.iter().enumerate() {
            let id = TrackId::try_from(i).unwrap_or(TrackId::MAX);
            match track_of(media, id).zip(depacketizer(media)) {
                Some((track, depacketizer)) => {
                    places.push(Some(lanes.len()));
                    rates.push(media.clock_rate);
                    lanes.push(Lane::new(track.codec, &track.setup, depacketizer));
                    tracks.push(track);
                }
                None => {
                    places.push(None);
                    let why = "RTP with this encoding is not read here";
                    dropped.push(Dropped { id, codec: media.format.name().into(), why });
                }
            }
        }
        let clocks = Clocks::new(rates);
        Self { tracks: Arc::new(Tracks(tracks)), places, lanes, clocks, dropped, units: Vec::new() }
    }

    /// The tracks as they are now.
    pub fn tracks(&self) -> &Arc<Tracks> {
        &self.tracks
    }

    /// The media that are not read.
    pub fn dropped(&self) -> &[Dropped] {
        &self.dropped
    }

    /// True when this media of the description is read.
    pub fn reads(&self, media: usize) -> bool {
        self.places.get(media).is_some_and(Option::is_some)
    }

    /// Takes the next packet of a media, which arrived at `arrival`.
    pub fn packet(
        &mut self,
        media: usize,
        packet: InOrder<'_>,
        arrival: Nanos,
        emit: &mut impl FnMut(Frame),
    ) {
        let Some(place) = self.places.get(media).copied().flatten() else { return };
        let Some(lane) = self.lanes.get_mut(place) else { return };
        let mut units = std::mem::take(&mut self.units);
        lane.depacketizer.push(&packet, &mut |unit| units.push(unit));
        for unit in units.drain(..) {
            if let Some(frame) = self.frame(place, unit, arrival, packet.gap) {
                emit(frame);
            }
        }
        self.units = units;
    }

    /// Takes a sender report of a media.
    pub fn report(&mut self, media: usize, report: &SenderReport) {
        if let Some(place) = self.places.get(media).copied().flatten() {
            self.clocks.report(place, report);
        }
    }

    /// What was lost of a media so far.
    pub fn losses(&self, media: usize) -> Losses {
        let lane = self.places.get(media).copied().flatten().and_then(|place| self.lanes.get(place));
        lane.map_or_else(Losses::default, |lane| lane.depacketizer.losses())
    }

    fn frame(&mut self, place: usize, unit: Unit, arrival: Nanos, gap: bool) -> Option<Frame> {
        let pts = self.clocks.time(place, unit.timestamp, arrival, gap)?;
        let lane = self.lanes.get_mut(place)?;
        let mut random_access = true;
        let mut setup = None;
        if let (Some(standard), Some(sets)) = (standard(lane.codec), &mut lane.sets) {
            let mut picture = Picture::default();
            let mut changed = false;
            for nal in length_prefixed(&unit.data, 4) {
                picture.take(standard, nal);
                changed |= sets.take(nal);
            }
            random_access = picture.is_random_access(false) && !unit.damaged;
            if changed && let Some(order) = &mut lane.order {
                order.configure(sets.sequence().and_then(|sequence| sequence.reorder), None);
            }
            setup = changed.then(|| setup_of(sets));
        }
        if let Depacketizer::Latm(latm) = &lane.depacketizer {
            setup = latm.config().map(latm_setup);
        }
        if lane.codec == Codec::MpegAudio {
            setup = mpeg_setup(&unit.data);
        }
        let (pts, dts) = lane.times(pts);
        if let Some(setup) = setup {
            self.adopt(place, setup);
        }
        let tracks = Arc::clone(&self.tracks);
        Some(Frame { tracks, track: place, pts, dts, random_access, arrival, data: unit.data })
    }

    fn adopt(&mut self, place: usize, setup: Setup) {
        let known = self.tracks.0.get(place).map(|track| &track.setup);
        if known.is_some_and(|known| *known != setup) {
            let mut tracks = Tracks::clone(&self.tracks);
            if let Some(track) = tracks.0.get_mut(place) {
                track.setup = setup;
            }
            self.tracks = Arc::new(tracks);
        }
    }
}

impl Lane {
    fn new(codec: Codec, setup: &Setup, depacketizer: Depacketizer) -> Self {
        let mut sets = standard(codec).map(ParameterSets::new);
        if let (Some(sets), Setup::ParameterSets { vps, sps, pps }) = (&mut sets, setup) {
            for nal in vps.iter().chain(sps).chain(pps) {
                sets.take(nal);
            }
        }
        let depth = sets.as_ref().and_then(|sets| sets.sequence()?.reorder);
        let order = sets.is_some().then(|| DecodingTimes::new(depth));
        Self { depacketizer, codec, sets, order, last: Ticks::MIN }
    }

    /// Presentation and decoding time of the next unit.
    fn times(&mut self, pts: Ticks) -> (Ticks, Ticks) {
        if let Some(order) = &mut self.order {
            let Stamps { pts, dts } = order.push(pts);
            return (pts, dts);
        }
        let dts = pts.max(self.last.saturating_add(1));
        self.last = dts;
        (dts, dts)
    }
}

impl Depacketizer {
    fn push(&mut self, packet: &InOrder<'_>, emit: &mut impl FnMut(Unit)) {
        let InOrder { header, payload, gap } = packet;
        match self {
            Self::H264(depacketizer) => depacketizer.push(header, payload, *gap, emit),
            Self::H265(depacketizer) => depacketizer.push(header, payload, *gap, emit),
            Self::Aac(depacketizer) => depacketizer.push(header, payload, *gap, emit),
            Self::Latm(depacketizer) => depacketizer.push(header, payload, *gap, emit),
            Self::Plain(depacketizer) => depacketizer.push(header, payload, *gap, emit),
            Self::MpegAudio(depacketizer) => depacketizer.push(header, payload, *gap, emit),
            Self::Ac3(depacketizer) => depacketizer.push(header, payload, *gap, emit),
            Self::Klv(depacketizer) => depacketizer.push(header, payload, *gap, emit),
        }
    }

    fn losses(&self) -> Losses {
        match self {
            Self::H264(depacketizer) => depacketizer.losses(),
            Self::H265(depacketizer) => depacketizer.losses(),
            Self::Aac(depacketizer) => depacketizer.losses(),
            Self::Latm(depacketizer) => depacketizer.losses(),
            Self::Plain(depacketizer) => depacketizer.losses(),
            Self::MpegAudio(depacketizer) => depacketizer.losses(),
            Self::Ac3(depacketizer) => depacketizer.losses(),
            Self::Klv(depacketizer) => depacketizer.losses(),
        }
    }
}

fn depacketizer(media: &Media) -> Option<Depacketizer> {
    Some(match &media.format {
        Format::H264 { .. } => Depacketizer::H264(H264Depacketizer::default()),
        Format::H265 { .. } => Depacketizer::H265(H265Depacketizer::default()),
        Format::Aac { headers, .. } => Depacketizer::Aac(AacDepacketizer::new(*headers, AAC_SAMPLES)),
        Format::Latm { config, in_band } => {
            Depacketizer::Latm(LatmDepacketizer::new(config.clone(), *in_band))
        }
        Format::Opus { .. } | Format::PcmA { .. } | Format::PcmU { .. } => {
            Depacketizer::Plain(PlainDepacketizer::default())
        }
        Format::MpegAudio => Depacketizer::MpegAudio(MpegAudioDepacketizer::default()),
        Format::Ac3 { .. } => Depacketizer::Ac3(Ac3Depacketizer::default()),
        Format::Klv => Depacketizer::Klv(KlvDepacketizer::default()),
        Format::Mp2t | Format::Other(_) => return None,
    })
}

fn standard(codec: Codec) -> Option<Standard> {
    match codec {
        Codec::H264 => Some(Standard::H264),
        Codec::H265 => Some(Standard::H265),
        _ => None,
    }
}

fn setup_of(sets: &ParameterSets) -> Setup {
    Setup::ParameterSets {
        vps: sets.vps().cloned().collect(),
        sps: sets.sps().cloned().collect(),
        pps: sets.pps().cloned().collect(),
    }
}

/// What the header of a frame of MPEG audio says; `None` where none stands there.
fn mpeg_setup(frame: &[u8]) -> Option<Setup> {
    let header = Syntax::Mpeg.header(frame)?;
    let format = AudioFormat { rate: header.rate, channels: header.channels };
    Some(Setup::MpegAudio { layer: mpeg_layer(*frame.get(1)?), format })
}

const AAC_SAMPLES: u32 = 1024;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::describe::{describe, goes_on};
    use super::super::pack::{Numbers, Packer};
    use super::*;
    use crate::media::Track;
    use crate::wire::rtp::rtcp::{Rtcp, parse as parse_rtcp};
    use crate::wire::rtp::{Packets, parse};

    const MS: Nanos = 1_000_000;

    fn nals(units: &[&[u8]]) -> Bytes {
        units
            .iter()
            .flat_map(|nal| [&(nal.len() as u32).to_be_bytes()[..], nal].concat())
            .collect::<Vec<_>>()
            .into()
    }

    fn track(id: TrackId, codec: Codec, setup: Setup) -> Track {
        Track { id, codec, setup, language: None }
    }

    fn tracks() -> Tracks {
        let sps = Bytes::from_static(&SPS);
        let pps = Bytes::from_static(&PPS);
        let format = AudioFormat { rate: 44_100, channels: 2 };
        Tracks(vec![
            track(256, Codec::H264, Setup::ParameterSets { vps: vec![], sps: vec![sps], pps: vec![pps] }),
            track(257, Codec::Av1, Setup::Unknown),
            track(258, Codec::Aac, Setup::Aac { config: Bytes::from_static(&[0x12, 0x10]), format }),
            track(259, Codec::Klv, Setup::Klv { synchronous: true }),
            track(260, Codec::Aac, Setup::Unknown),
            track(261, Codec::PcmA, Setup::Unknown),
        ])
    }

    /// 64 x 64, constrained baseline, and its picture parameter set (x264).
    const SPS: [u8; 10] = [0x67, 0x42, 0xc0, 0x0a, 0xda, 0x11, 0x96, 0xc0, 0x44, 0x00];
    const PPS: [u8; 4] = [0x68, 0xce, 0x0f, 0xc8];
    const IDR: [u8; 6] = [0x65, 0x88, 0x84, 1, 2, 3];
    const SLICE: [u8; 6] = [0x41, 0x9a, 0x02, 1, 2, 3];

    fn packer() -> Packer {
        let numbers = Numbers { tracks: u32::MAX, seed: 0x9e37_79b9, wall: 1_700_000_000_000_000_000 };
        Packer::new(&tracks(), numbers, 1200)
    }

    fn frame(track: usize, pts: Ticks, random_access: bool, data: Bytes) -> Frame {
        let tracks = Arc::new(tracks());
        Frame { tracks, track, pts, dts: pts, random_access, arrival: 0, data }
    }

    #[test]
    fn tracks_that_cannot_be_carried_are_named() {
        let (description, dropped) = describe(&tracks());
        let names: Vec<_> = description.media.iter().map(|media| media.format.name()).collect();
        assert_eq!(names, ["H264", "mpeg4-generic", "SMPTE336M", "PCMA"]);
        let dropped: Vec<_> =
            dropped.iter().map(|(at, dropped)| (*at, dropped.id, dropped.codec.as_str())).collect();
        assert_eq!(dropped, [(1, 257, "AV1"), (4, 260, "AAC")]);
        let types: Vec<_> = description.media.iter().map(|media| media.payload_type).collect();
        assert_eq!(types, [96, 98, 99, 8]);
    }

    #[test]
    fn mpeg_audio_says_in_its_frames_what_it_is() {
        let (description, _) = describe(&Tracks(vec![track(0, Codec::MpegAudio, Setup::Unknown)]));
        let mut unpacker = Unpacker::new(&description);
        let before = Arc::clone(unpacker.tracks());
        assert_eq!(before.0[0].setup, Setup::Unknown);
        // Layer 2 of 192 kbit/s, 48 kHz, behind the header of RFC 2250, 3.5.
        let frame = [&[0, 0, 0, 0, 0xff, 0xfd, 0xa4, 0][..], &[7; 572]].concat();
        for number in 0..4u8 {
            let packet = [&[0x80, 14, 0, number, 0, 0, number * 8, 0, 1, 2, 3, 4][..], &frame].concat();
            let (header, payload) = parse(&packet).unwrap();
            unpacker.packet(0, InOrder { header, payload, gap: false }, 24 * MS, &mut drop);
        }
        let format = AudioFormat { rate: 48_000, channels: 2 };
        assert_eq!(unpacker.tracks().0[0].setup, Setup::MpegAudio { layer: 2, format });
        // Readers who were told of the track before need not ask again.
        assert!(goes_on(&before, unpacker.tracks()));
    }

    #[test]
    fn frames_go_through_packets_and_come_out_as_they_were() {
        let mut packer = packer();
        let text = describe(&tracks()).0.write("test");
        let description = Description::parse(text.as_bytes()).unwrap();
        let mut unpacker = Unpacker::new(&description);
        let klv = Bytes::from([&[6, 14, 43, 52][..], &[7; 3000]].concat());
        let mut sent = Vec::new();
        for i in 0..50i64 {
            let (key, first) = (i % 25 == 0, 3600 * i + 5);
            let picture = if key { nals(&[&SPS, &PPS, &IDR]) } else { nals(&[&SLICE, &[1; 4000]]) };
            sent.push(frame(0, first, key, picture));
            sent.push(frame(2, i * 2048 + 77, true, Bytes::from(vec![i as u8; 400])));
            if i % 5 == 0 {
                sent.push(frame(3, first, true, klv.clone()));
            }
        }
        let mut packets = Packets::default();
        packer.report(5, 0, "m", &mut packets);
        let mut out = Vec::new();
        for (count, unit) in sent.iter().enumerate() {
            assert!(packer.pack(unit, &mut packets));
            let arrival = (unit.pts as u64 * 100 / 9) * 1000;
            let framed = packets.framed().to_vec();
            for range in packets.ranges() {
                let (channel, packet) = (framed[range.start + 1], &framed[range.start + 4..range.end]);
                let media = [0, 9, 1, 2, 9, 3][usize::from(channel / 2)];
                if channel % 2 == 1 {
                    let take = |rtcp| {
                        if let Rtcp::SenderReport(report, _) = rtcp {
                            unpacker.report(media, &report)
                        }
                    };
                    parse_rtcp(packet, take).unwrap();
                    continue;
                }
                let (header, payload) = parse(packet).unwrap();
                let packet = InOrder { header, payload, gap: count == 0 };
                unpacker.packet(media, packet, arrival + 20 * MS, &mut |frame| out.push(frame));
            }
            packets.clear();
        }
        assert_eq!(out.len(), sent.len());
        let place = |track| [0, 9, 1, 2][track];
        let offset = out[0].pts - sent[0].pts;
        for (sent, out) in sent.iter().zip(&out) {
            assert_eq!(
                (out.track, &out.data, out.random_access),
                (place(sent.track), &sent.data, sent.random_access)
            );
            // one unit of 44.1 kHz
            assert!((out.pts - sent.pts - offset).abs() <= 3, "{} {}", out.pts, sent.pts);
            assert!(out.dts <= out.pts);
        }
        for track in 0..3 {
            let mut times = out.iter().filter(|frame| frame.track == track).map(|frame| frame.dts);
            assert!(times.clone().zip(times.by_ref().skip(1)).all(|(a, b)| a < b));
        }
    }

    #[test]
    fn a_random_access_point_without_parameter_sets_is_given_them() {
        let mut packer = packer();
        let mut unpacker = Unpacker::new(&describe(&tracks()).0);
        let mut out = Vec::new();
        for (i, picture) in
            [nals(&[&IDR]), nals(&[&SPS, &PPS, &IDR]), nals(&[&SLICE])].into_iter().enumerate()
        {
            let mut packets = Packets::default();
            packer.pack(&frame(0, 3600 * i as i64, i < 2, picture), &mut packets);
            for packet in packets.iter() {
                let (header, payload) = parse(packet).unwrap();
                unpacker
                    .packet(0, InOrder { header, payload, gap: false }, 0, &mut |frame| out.push(frame.data));
            }
        }
        assert_eq!(out, [nals(&[&SPS, &PPS, &IDR]), nals(&[&SPS, &PPS, &IDR]), nals(&[&SLICE])]);
    }

    #[test]
    fn samples_of_audio_follow_each_other_without_gaps() {
        let mut packer = packer();
        let mut packets = Packets::default();
        for i in 0..200i64 {
            // 1024 samples of 44.1 kHz are no whole number of ticks
            packer
                .pack(&frame(2, i * 1024 * 90_000 / 44_100, true, Bytes::from_static(&[1; 9])), &mut packets);
        }
        let times: Vec<u32> = packets.iter().map(|packet| parse(packet).unwrap().0.timestamp).collect();
        assert!(times.windows(2).all(|pair| pair[1].wrapping_sub(pair[0]) == 1024));
    }

    #[test]
    fn a_change_of_tracks_that_a_session_cannot_follow_is_seen() {
        let changed = |change: fn(&mut Tracks)| {
            let mut after = tracks();
            change(&mut after);
            goes_on(&tracks(), &after)
        };
        assert!(changed(|tracks| tracks.0[0].setup = Setup::Unknown));
        // what was not carried may become so, and more may come behind
        assert!(changed(|tracks| tracks.0[4] = tracks.0[2].clone()));
        assert!(changed(|tracks| tracks.0.push(tracks.0[3].clone())));
        assert!(!changed(|tracks| tracks.0[2].setup = Setup::Unknown));
        assert!(!changed(|tracks| tracks.0[0].codec = Codec::H265));
        assert!(!changed(|tracks| drop(tracks.0.remove(1))));
    }

    #[test]
    fn numbers_go_on_where_tracks_stay() {
        let mut packer = packer();
        let mut packets = Packets::default();
        packer.pack(&frame(0, 0, true, nals(&[&IDR])), &mut packets);
        let mut after = tracks();
        let format = AudioFormat { rate: 48_000, channels: 1 };
        after.0[2].setup = Setup::Aac { config: Bytes::from_static(&[0x11, 0x88]), format };
        packer.follow(&after);
        packer.pack(&frame(0, 3600, false, nals(&[&SLICE])), &mut packets);
        let headers: Vec<_> = packets.iter().map(|packet| parse(packet).unwrap().0).collect();
        assert_eq!(headers[1].sequence, headers[0].sequence.wrapping_add(1));
        assert_eq!(headers[1].timestamp, headers[0].timestamp.wrapping_add(3600));
        assert_eq!(headers[1].ssrc, headers[0].ssrc);
    }
}
