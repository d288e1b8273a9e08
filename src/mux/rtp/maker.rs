//! Frames of a stream enter, the lane of interleaved RTP packets that all its RTSP connections share fills. Never looks
//! at a connection.

use std::sync::Arc;

use bytes::Bytes;

use super::pack::{Numbers, Packer};
use crate::hub::{Lane, LaneWriter, Pulse};
use crate::media::{Frame, Kind, Message, Nanos, Tracks};
use crate::mux::Maker;
use crate::wire::rtp::{Packets, framed, parse};

/// Fills one lane of messages, one for each access unit.
pub struct RtspMaker {
    numbers: Numbers,
    packer: Option<Packer>,
    /// Those of the last frame: the same allocation as long as nothing changes.
    tracks: Option<Arc<Tracks>>,
    writer: LaneWriter<Message>,
    packets: Packets,
    /// When sender reports are due.
    report_at: Nanos,
}

impl RtspMaker {
    /// Fills `writer`'s lane with packets of these numbers.
    pub fn new(numbers: Numbers, writer: LaneWriter<Message>) -> Self {
        Self { numbers, packer: None, tracks: None, writer, packets: Packets::default(), report_at: 0 }
    }
}

impl Maker for RtspMaker {
    fn wants_frames(&self) -> bool {
        true
    }

    fn frame(&mut self, frame: &Frame) {
        let packer = self.packer.get_or_insert_with(|| Packer::new(&frame.tracks, self.numbers, PACKET));
        if self.tracks.as_ref().is_none_or(|last| !Arc::ptr_eq(last, &frame.tracks)) {
            if *packer.shape() != *frame.tracks {
                packer.follow(&frame.tracks);
                // A track that is new has to be tied to the others before it is heard, or its times would jump.
                self.report_at = 0;
            }
            self.tracks = Some(Arc::clone(&frame.tracks));
        }
        let video = frame.track().is_some_and(|track| track.codec.kind() == Kind::Video);
        let begins = frame.random_access && (video || !packer.has_video());
        self.packets.clear();
        if frame.arrival >= self.report_at || begins && video {
            // Before the picture, so that whoever begins with it can tie the tracks together at once.
            packer.report(frame.pts, frame.arrival, NAME, &mut self.packets);
            self.report_at = frame.arrival.saturating_add(REPORT);
        }
        if !packer.pack(frame, &mut self.packets) {
            return;
        }
        let preface = begins.then(Bytes::new);
        if begins {
            let position = self.writer.next_position();
            self.writer.mark_random_access(position);
        }
        let bytes = Bytes::copy_from_slice(self.packets.framed());
        self.writer.push(Message { bytes, arrival: frame.arrival, dts: frame.dts, preface });
    }

    fn commit(&mut self, now: Nanos) -> bool {
        self.writer.commit(now)
    }

    fn pulses(&self, each: &mut dyn FnMut(&Pulse)) {
        each(self.writer.lane().pulse());
    }
}

/// Sequence number and timestamp of the first packet of each track from the newest random access point on, by track:
/// what a reader that begins now gets first.
pub fn positions(lane: &Lane<Message>) -> Vec<(usize, u16, u32)> {
    let Some(start) = lane.random_access() else { return Vec::new() };
    let mut found: Vec<(usize, u16, u32)> = Vec::new();
    for position in start.0..lane.head().min(start.0 + LOOK) {
        let Some(message) = lane.at(position) else { continue };
        for (channel, packet) in framed(&message.bytes) {
            let track = usize::from(channel / 2);
            if channel % 2 == 0
                && !found.iter().any(|(known, ..)| *known == track)
                && let Ok((header, _)) = parse(packet)
            {
                found.push((track, header.sequence, header.timestamp));
            }
        }
    }
    found
}

/// Longest packet: with the headers of IPv6 and UDP below the MTU of most tunnels.
const PACKET: usize = 1400;
/// What this side calls itself in RTCP.
pub(super) const NAME: &str = "millrace";
/// RFC 3550, 6.2: at least every 5 s.
pub(super) const REPORT: Nanos = 5_000_000_000;
/// Messages from a random access point on in which tracks are looked for.
const LOOK: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Bounds;
    use crate::media::{AudioFormat, Codec, Setup, Track};
    use crate::wire::rtsp::Decoder;

    #[test]
    fn a_lane_has_a_message_for_each_frame_and_begins_at_pictures() {
        let (lane, writer) = Lane::new(Bounds::default());
        let mut maker = RtspMaker::new(Numbers { tracks: u32::MAX, seed: 1, wall: 0 }, writer);
        let format = AudioFormat { rate: 48_000, channels: 2 };
        let track = |id, codec, setup| Track { id, codec, setup, language: None };
        let tracks = Arc::new(Tracks(vec![
            track(1, Codec::H264, Setup::Unknown),
            track(2, Codec::Aac, Setup::Aac { config: Bytes::from_static(&[0x11, 0x90]), format }),
        ]));
        let picture = |kind| Bytes::from(vec![0, 0, 0, 3, kind, 1, 2]);
        for i in 0..10i64 {
            let (dts, arrival) = (3600 * i, 40_000_000 * i as u64);
            let (key, tracks) = (i % 5 == 2, Arc::clone(&tracks));
            let data = picture(if key { 0x65 } else { 0x41 });
            let video = Frame { tracks, track: 0, pts: dts, dts, random_access: key, arrival, data };
            maker.frame(&Frame { track: 1, random_access: true, ..video.clone() });
            maker.frame(&video);
        }
        assert!(maker.commit(400_000_000));
        assert_eq!(lane.head(), 20);
        let start = lane.random_access().unwrap();
        assert_eq!(start.0, 15);
        let mut decoder = Decoder::default();
        (0..4).for_each(|channel| decoder.open_channel(channel));
        decoder.push(&lane.at(start.0).unwrap().bytes);
        let mut channels = Vec::new();
        while let Some(crate::wire::rtsp::Item::Data { channel, .. }) = decoder.decode().unwrap() {
            channels.push(channel);
        }
        // reports of both tracks before the picture
        assert_eq!(channels, [1, 3, 0]);
        let begin = positions(&lane);
        assert_eq!(begin.iter().map(|(track, ..)| *track).collect::<Vec<_>>(), [0, 1]);
        // pictures before it had five packets, audio six
        assert_eq!(begin.len(), 2);
    }

    #[test]
    fn a_track_that_becomes_known_is_reported_before_it_is_heard() {
        let (lane, writer) = Lane::new(Bounds::default());
        let mut maker = RtspMaker::new(Numbers { tracks: u32::MAX, seed: 1, wall: 0 }, writer);
        let tracks = |sound| {
            let track = |id, codec, setup| Track { id, codec, setup, language: None };
            Arc::new(Tracks(vec![track(1, Codec::H264, Setup::Unknown), track(2, Codec::Aac, sound)]))
        };
        let frame = |tracks: &Arc<Tracks>, track, dts: i64, data: &'static [u8]| {
            let (tracks, arrival) = (Arc::clone(tracks), dts as u64 * 11_111);
            Frame { tracks, track, pts: dts, dts, random_access: dts == 0, arrival, data: data.into() }
        };
        let unknown = tracks(Setup::Unknown);
        maker.frame(&frame(&unknown, 0, 0, &[0, 0, 0, 2, 0x65, 1]));
        maker.frame(&frame(&unknown, 0, 3600, &[0, 0, 0, 2, 0x41, 1]));
        let format = AudioFormat { rate: 48_000, channels: 2 };
        let known = tracks(Setup::Aac { config: Bytes::from_static(&[0x11, 0x90]), format });
        maker.frame(&frame(&known, 1, 4000, &[1, 2, 3]));
        maker.frame(&frame(&known, 1, 5920, &[1, 2, 3]));
        assert!(maker.commit(400_000_000));
        let channels = |position| {
            framed(&lane.at(position).unwrap().bytes).map(|(channel, _)| channel).collect::<Vec<_>>()
        };
        assert_eq!([0, 1, 2, 3].map(channels), [vec![1, 0], vec![0], vec![1, 3, 2], vec![2]]);
    }
}
