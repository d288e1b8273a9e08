//! Frames of changing tracks enter, fragments and the heads of files are looked at. Never decodes a picture.

use mp4_atom::Decode;

use super::*;
use crate::hub::{Bounds, Lane as HubLane};

/// Baseline of 64 x 64 and of 128 x 96, with the same picture parameter set (x264), and another one of the same number.
const SMALL: &[u8] = &[
    0x67, 0x42, 0xc0, 0x0a, 0xd9, 0x04, 0x26, 0xc0, 0x44, 0, 0, 3, 0, 4, 0, 0, 3, 0, 0xc8, 0x3c, 0x48, 0x99,
    0x20,
];
const LARGE: &[u8] = &[
    0x67, 0x42, 0xc0, 0x0a, 0xd9, 0x02, 0x0d, 0xb0, 0x11, 0, 0, 3, 0, 1, 0, 0, 3, 0, 0x32, 0x0f, 0x12, 0x26,
    0x48,
];
const PPS: &[u8] = &[0x68, 0xcb, 0x83, 0xcb, 0x20];
const OTHER_PPS: &[u8] = &[0x68, 0xce, 0x0f, 0xc8];
/// H.265, 64 x 64 (x265).
const HEVC: [&[u8]; 3] = [
    &[0x40, 1, 0x0c, 1, 0xff, 0xff, 1, 0x60, 0, 0, 3, 0, 0x90, 0, 0, 3, 0, 0, 3, 0, 0x1e, 0x95, 0x98, 9],
    &[
        0x42, 1, 1, 1, 0x60, 0, 0, 3, 0, 0x90, 0, 0, 3, 0, 0, 3, 0, 0x1e, 0xa0, 0x20, 0x81, 5, 0x96, 0x56,
        0x69, 0x24, 0xca, 0xf0, 0x16, 0x80, 0x80, 0, 0, 3, 0, 0x80, 0, 0, 0x0c, 0x84,
    ],
    &[0x44, 1, 0xc1, 0x72, 0xb4, 0x22, 0x40],
];
const SECOND: Nanos = 1_000_000_000;

fn h264(sps: &'static [u8], pps: &'static [u8]) -> Track {
    let [sps, pps] = [sps, pps].map(|set| vec![Bytes::from_static(set)]);
    Track { id: 1, codec: Codec::H264, setup: Setup::ParameterSets { vps: vec![], sps, pps }, language: None }
}

fn h265() -> Track {
    let [vps, sps, pps] = HEVC.map(|set| vec![Bytes::from_static(set)]);
    Track { id: 1, codec: Codec::H265, setup: Setup::ParameterSets { vps, sps, pps }, language: None }
}

fn sound(codec: Codec, setup: Setup) -> Track {
    Track { id: 2, codec, setup, language: None }
}

fn layer_2() -> Track {
    let format = AudioFormat { rate: 48_000, channels: 2 };
    sound(Codec::MpegAudio, Setup::MpegAudio { layer: 2, format })
}

struct Bench {
    maker: Mp4,
    lane: Arc<HubLane<Message>>,
    tracks: Arc<Tracks>,
    dts: Ticks,
}

impl Bench {
    /// Begins far from 0, as streams do.
    fn new(tracks: Vec<Track>) -> Self {
        let (lane, writer) = HubLane::new(Bounds::default());
        let tracks = Arc::new(Tracks(tracks));
        Self { maker: Mp4::new(writer), lane, tracks, dts: 95_438 * TICKS_PER_SECOND }
    }

    fn tracks(&mut self, tracks: Vec<Track>) {
        self.tracks = Arc::new(Tracks(tracks));
    }

    /// A frame of a track, a quarter of a second behind the one before.
    fn frame(&mut self, track: usize, random_access: bool, data: &[&[u8]]) {
        self.dts += TICKS_PER_SECOND / 4;
        let mut bytes = BytesMut::new();
        data.iter().for_each(|unit| put_length_prefixed(unit, &mut bytes));
        let (dts, arrival) = (self.dts, self.dts as u64 * SECOND / TICKS_PER_SECOND as u64);
        let tracks = Arc::clone(&self.tracks);
        let data = bytes.freeze();
        self.maker.frame(&Frame { tracks, track, pts: dts, dts, random_access, arrival, data });
    }

    fn key(&mut self) {
        self.frame(0, true, &[&[0x65, 1]]);
    }

    /// What was made; each with whether a file begins there.
    fn made(&mut self) -> Vec<Message> {
        self.maker.end();
        assert!(self.maker.commit(0));
        (0..self.lane.head()).filter_map(|position| self.lane.at(position)).collect()
    }
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// The decode times of a fragment, one for each track of it.
fn times(fragment: &[u8]) -> Vec<u64> {
    let moof = Moof::decode(&mut &fragment[..]).unwrap();
    moof.traf.iter().map(|traf| traf.tfdt.as_ref().unwrap().base_media_decode_time).collect()
}

#[test]
fn parameter_sets_of_another_size_are_in_the_head_of_another_file() {
    let mut bench = Bench::new(vec![h264(SMALL, PPS), layer_2()]);
    bench.key();
    bench.frame(0, false, &[&[0x41, 2]]);
    bench.tracks(vec![h264(LARGE, PPS), layer_2()]);
    // Neither sound nor pictures before the first one that a decoder can start at may get into the former file.
    bench.frame(1, true, &[&[0xff, 0xfd, 3]]);
    bench.frame(0, false, &[&[0x41, 4]]);
    bench.key();
    bench.frame(1, true, &[&[0xff, 0xfd, 5]]);
    let made = bench.made();
    let heads: Vec<&[u8]> = made.iter().map(|message| message.preface.as_deref().unwrap()).collect();
    assert_eq!(heads.len(), 2);
    assert!(holds(heads[0], SMALL) && !holds(heads[0], LARGE));
    assert!(holds(heads[1], LARGE) && !holds(heads[1], SMALL));
    assert!(!holds(&made[1].bytes, &[0x41, 4]) && !holds(&made[1].bytes, &[0xff, 0xfd, 3]));
    assert!(holds(&made[1].bytes, &[0xff, 0xfd, 5]));
}

#[test]
fn another_codec_has_another_head() {
    let mut bench = Bench::new(vec![h264(SMALL, PPS)]);
    bench.key();
    bench.tracks(vec![h265()]);
    bench.frame(0, true, &[&[0x26, 1, 9]]);
    let made = bench.made();
    let heads: Vec<&[u8]> = made.iter().map(|message| message.preface.as_deref().unwrap()).collect();
    assert_eq!(heads.len(), 2);
    assert!(holds(heads[0], b"avc3") && holds(heads[1], b"hev1"));
}

#[test]
fn picture_parameter_sets_change_within_a_file() {
    let mut bench = Bench::new(vec![h264(SMALL, PPS)]);
    bench.key();
    bench.tracks(vec![h264(SMALL, OTHER_PPS)]);
    bench.key();
    // The first ones again: the decoder has others by now.
    bench.tracks(vec![h264(SMALL, PPS)]);
    bench.key();
    bench.frame(0, true, &[PPS, &[0x65, 1]]);
    let made = bench.made();
    assert_eq!(made.len(), 4);
    assert!(made.iter().all(|message| message.preface == made[0].preface));
    assert!(!holds(&made[0].bytes, PPS));
    assert!(holds(&made[1].bytes, OTHER_PPS) && holds(&made[2].bytes, PPS));
    // Those that come with the picture do not come twice.
    assert_eq!(made[3].bytes.windows(PPS.len()).filter(|window| *window == PPS).count(), 1);
}

#[test]
fn a_track_that_nothing_is_known_of_costs_the_others_no_file() {
    let unknown = || sound(Codec::Aac, Setup::Unknown);
    let mut bench = Bench::new(vec![h264(SMALL, PPS), unknown()]);
    for _ in 0..12 {
        bench.key();
    }
    let made = bench.made();
    // What came while it was waited for is there.
    assert_eq!(made.len(), 12);
    let head = made.first().expect("fragments").preface.clone().unwrap();
    assert!(holds(&head, b"avc3") && !holds(&head, b"mp4a"));
    let left_out = |tracks| Mp4::left_out(&Tracks(tracks));
    assert_eq!(left_out(vec![h264(SMALL, PPS), unknown()]), [(1, UNKNOWN)]);
    // It may be known in a moment: nothing else is there that a file would be made of.
    assert_eq!(left_out(vec![unknown()]), []);
    let mono = AudioFormat { rate: 8000, channels: 1 };
    assert_eq!(left_out(vec![sound(Codec::PcmA, Setup::Audio(mono))]).len(), 1);
    // With a layer it is known, and gets a file of its own head.
    bench.tracks(vec![h264(SMALL, PPS), layer_2()]);
    bench.key();
    let last = bench.made().pop().unwrap();
    assert!(holds(&last.preface.unwrap(), b"mp4a"));
}

#[test]
fn times_of_a_file_begin_at_its_beginning_and_tracks_stay_together() {
    let mut bench = Bench::new(vec![h264(SMALL, PPS), layer_2()]);
    for _ in 0..2 {
        bench.key();
        bench.frame(1, true, &[&[0xff, 0xfd, 3]]);
    }
    let made = bench.made();
    assert_eq!(made.len(), 2);
    let start = made[0].dts;
    assert_eq!(start, (4 * 95_438 + 1) * TICKS_PER_SECOND / 4);
    let quarter = TICKS_PER_SECOND as u64 / 4;
    assert_eq!(times(&rebased(&made[0].bytes, start)), [0, quarter]);
    assert_eq!(times(&rebased(&made[1].bytes, start)), [2 * quarter, 3 * quarter]);
    let data = |bytes: &[u8]| bytes[bytes.len() - 20..].to_vec();
    assert_eq!(data(&rebased(&made[1].bytes, start)), data(&made[1].bytes));
    // Short times, and bytes that are no fragment.
    let small = fragment(
        Moof {
            mfhd: Mfhd { sequence_number: 1 },
            traf: vec![Traf { tfdt: Some(Tfdt { base_media_decode_time: 900 }), ..Traf::default() }],
        },
        &[],
    );
    assert_eq!(times(&rebased(&small.unwrap(), 800)), [100]);
    for broken in
        [&[][..], &[0; 8], b"\0\0\0\x04moof", b"\xff\xff\xff\xffmoof\0\0\0\x10traf", b"\0\0\0\x0cmoof\0\0"]
    {
        assert_eq!(rebased(broken, 1), broken);
    }
}
