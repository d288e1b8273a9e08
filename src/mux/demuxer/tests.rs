//! Streams whose programs change enter, the frames that leave are held against what a track promises.

use super::*;
use crate::wire::ts::multiplexer::{Multiplexer, Options, Unit as Packet};
use crate::wire::ts::psi::Stream;

#[test]
fn a_pid_that_carries_something_else_from_now_on_is_another_track_whose_time_goes_on() {
    let options = Options { transport_stream_id: 1, program: 1, pmt_pid: 0x1000, rate: None };
    let mut multiplexer = Multiplexer::new(options);
    let mut demuxer = Demuxer::new(DemuxerOptions::default());
    let mut frames: Vec<Frame> = Vec::new();
    for n in 0..6i64 {
        let stream_type = if n < 3 { 0x24 } else { 0x1b };
        let stream = Stream { stream_type, pid: 0x100, descriptors: Vec::new() };
        multiplexer.describe(vec![stream], 0x100).unwrap();
        let slice: &[u8] = if n < 3 { &[0, 0, 0, 1, 0x26, 1, 0x80] } else { &[0, 0, 0, 1, 0x65, 0x88, 0x80] };
        // the second kind starts a little before the first one ended
        let pts = 90_000 + n * 3600 - if n < 3 { 0 } else { 12_600 };
        let unit = Packet {
            pid: 0x100,
            stream_id: 0xe0,
            pts: Some(pts),
            dts: None,
            random_access: true,
            aligned: true,
            parts: &[slice],
        };
        let mut sink = |datagram: &[u8]| demuxer.push(datagram, 0, &mut |frame| frames.push(frame));
        multiplexer.write(&unit, 24_000_000 + n * 1_080_000, &mut sink);
        multiplexer.flush(&mut sink);
    }
    let codecs: Vec<_> = frames.iter().filter_map(Frame::track).map(|track| track.codec).collect();
    assert_eq!(codecs, [[Codec::H265; 3], [Codec::H264; 3]].concat());
    assert!(frames.windows(2).all(|pair| pair[0].dts < pair[1].dts));
    // the allocation is the same as long as nothing changes
    let same: Vec<_> = frames.windows(2).map(|pair| Arc::ptr_eq(&pair[0].tracks, &pair[1].tracks)).collect();
    assert_eq!(same, [true, true, false, true, true]);
}
