//! PES packets of pictures enter, as odd as they come in the field; the frames that leave are held against them.

use super::*;
use crate::wire::h26x::length_prefixed;
use crate::wire::ts::pes::PesHeader;

/// A set without a VUI: 640 × 480 (Baseline: no reordering), frames only.
const SPS: &[u8] = &[0x67, 66, 0xc0, 30, 0xda, 0x02, 0x80, 0xf6, 0x40];
const PPS: &[u8] = &[0x68, 0xce, 0x80];
const IDR: &[u8] = &[0x65, 0x88, 0x80];
const P: &[u8] = &[0x41, 0x9a, 0x80];
const B: &[u8] = &[0x01, 0x9e, 0x80];
const AUD: &[u8] = &[0x09, 0xf0];

struct Reader {
    video: Video,
    timeline: Timeline,
    counters: DemuxerCounters,
    damage: Damage,
}

impl Reader {
    fn new(standard: Standard, damage: Damage) -> Self {
        let (timeline, counters) = (Timeline::new(33), DemuxerCounters::default());
        Self { video: Video::new(standard), timeline, counters, damage }
    }

    /// (NAL unit types, PTS, DTS, random access) of each picture.
    fn read(
        &mut self,
        units: &[&[u8]],
        stamps: (Option<u64>, Option<u64>),
        arrival: Nanos,
        damaged: bool,
    ) -> Vec<(Vec<u8>, Ticks, Ticks, bool)> {
        let data: Vec<u8> = units.iter().flat_map(|unit| [&[0, 0, 0, 1], *unit].concat()).collect();
        let header = PesHeader {
            stream_id: 0xe0,
            packet_length: 0,
            scrambling: 0,
            data_alignment: true,
            pts: stamps.0,
            dts: stamps.1,
            header_len: 19,
        };
        let sound = data.len();
        let pes = Pes { pid: 0x101, header, data: &data, damaged, sound, random_access: false };
        let mut found = Vec::new();
        self.video.read(&pes, arrival, self.damage, &mut self.timeline, &mut self.counters, &mut found);
        let standard = self.video.sets.standard();
        let kinds =
            |unit: &Unit| length_prefixed(&unit.data, 4).map(|nal| standard.unit_type(nal[0])).collect();
        found.iter().map(|unit| (kinds(unit), unit.stamps.pts, unit.stamps.dts, unit.random_access)).collect()
    }
}

#[test]
fn two_pictures_in_a_packet_are_told_apart() {
    let mut reader = Reader::new(Standard::H264, Damage::GoOn);
    let first = reader.read(&[AUD, SPS, PPS, IDR], (Some(3000), None), 0, false);
    assert_eq!(first, [(vec![7, 8, 5], 3000, 3000, true)]);
    reader.read(&[AUD, P], (Some(6600), None), 0, false);
    let both = reader.read(&[AUD, P, P, AUD, P], (Some(10_200), None), 0, false);
    assert_eq!(both, [(vec![1, 1], 10_200, 10_200, false), (vec![1], 13_800, 13_800, false)]);
    assert_eq!(reader.video.sets.sequence().map(|s| (s.width, s.height, s.fields)), Some((640, 480, false)));
}

#[test]
fn what_comes_in_front_of_a_picture_on_its_own_goes_with_it() {
    let mut reader = Reader::new(Standard::H264, Damage::GoOn);
    assert_eq!(reader.read(&[AUD, SPS, PPS], (Some(3000), None), 0, false), []);
    assert_eq!(reader.read(&[IDR], (Some(3000), None), 0, false), [(vec![7, 8, 5], 3000, 3000, true)]);
    assert_eq!(reader.counters.foreign, 0);
    assert_eq!(reader.read(&[], (Some(3000), None), 0, false), []);
    assert_eq!(reader.counters.foreign, 1);
}

#[test]
fn pictures_wait_for_a_place_to_start_behind_a_damaged_one_but_not_for_ever() {
    let mut reader = Reader::new(Standard::H264, Damage::Wait);
    let ms = 1_000_000;
    let mut read = |units: &[&[u8]], at: u64, damaged: bool| {
        reader.read(units, (Some(3000 * (at + 1)), None), at * 33 * ms, damaged).len()
    };
    assert_eq!(read(&[SPS, PPS, IDR], 0, false), 1);
    // nothing is predicted from it
    assert_eq!((read(&[B], 1, true), read(&[P], 2, false)), (0, 1));
    assert_eq!((read(&[P], 3, true), read(&[P], 4, false), read(&[B], 5, false)), (0, 0, 0));
    assert_eq!((read(&[IDR], 6, false), read(&[P], 7, false)), (1, 1));
    // no place to start comes for two seconds
    assert_eq!((read(&[P], 8, true), read(&[P], 60, false), read(&[P], 70, false)), (0, 0, 1));
    assert_eq!((reader.counters.waiting, reader.counters.damaged), (3, 3));
}

#[test]
fn a_source_without_decoding_times_gets_them_once_it_reorders() {
    let mut reader = Reader::new(Standard::H264, Damage::GoOn);
    let groups = (0..30u64).flat_map(|group| [3, 1, 2].map(|frame| 3 * group + frame));
    let mut last = Ticks::MIN;
    for (n, frame) in std::iter::once(0).chain(groups).enumerate() {
        let units: &[&[u8]] = if n == 0 { &[SPS, PPS, IDR] } else { &[P] };
        let pts = 90_000 + frame * 3000;
        let found = reader.read(units, (Some(pts), None), n as u64 * 33_000_000, false);
        let (_, presented, decoded, _) = found[0];
        assert!(decoded > last && decoded <= presented, "{n}");
        // the set says that nothing is out of order: it takes a while until that is no longer believed
        assert!(n < 40 || presented == pts as Ticks, "{n}: {presented} {pts}");
        last = decoded;
    }
    assert_eq!(reader.timeline.jumps(), 0);
}
