//! What is measured with: nothing enters, a stream of pictures, sound and metadata leaves, the same every time.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use millrace::media::{Codec, Frame, Kind, Nanos};
use millrace::mux::{Demuxer, DemuxerOptions, Muxer, MuxerOptions};
use millrace::wire::h26x::put_length_prefixed;

use crate::Result;

/// The same stream as frames and as datagrams, twice: as in `testdata/ts` (640 × 360, 0.6 Mb/s), and with pictures as
/// large as those of 1080p at 12 Mb/s.
pub(crate) struct Clip {
    /// As it is in the file.
    pub(crate) small: Vec<u8>,
    pub(crate) small_frames: Vec<Frame>,
    /// With larger pictures.
    pub(crate) large: Vec<u8>,
    pub(crate) large_frames: Vec<Frame>,
}

impl Clip {
    pub(crate) fn new() -> Result<Self> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/ts/h264_sync.ts");
        let small = std::fs::read(path)?;
        let mut demuxer = Demuxer::new(DemuxerOptions::default());
        let mut small_frames = Vec::new();
        let mut sink = |frame| small_frames.push(frame);
        for datagram in small.chunks(DATAGRAM) {
            demuxer.push(datagram, 0, &mut sink);
        }
        demuxer.flush(0, &mut sink);
        if !small_frames.iter().any(|frame| frame.tracks.0.iter().any(|track| track.codec == Codec::Klv)) {
            return Err("the sample has lost its metadata".into());
        }
        let large_frames: Vec<Frame> = small_frames.iter().map(enlarge).collect();
        let mut large = Vec::new();
        let mut muxer = Muxer::new(MuxerOptions::default());
        let mut sink = |datagram: &[u8], _: Nanos| large.extend_from_slice(datagram);
        large_frames.iter().for_each(|frame| muxer.push(frame, &mut sink));
        muxer.flush(&mut sink);
        Ok(Self { small, small_frames, large, large_frames })
    }
}

/// A picture with a slice behind it of as many bytes as 12 Mb/s at 25 pictures a second have, as random as what
/// arithmetic coding leaves.
fn enlarge(frame: &Frame) -> Frame {
    if frame.track().is_none_or(|track| track.codec.kind() != Kind::Video) {
        return Frame { tracks: Arc::clone(&frame.tracks), ..frame.clone() };
    }
    let mut random = frame.dts as u64 | 1;
    let mut slice = vec![0x41, 0x80];
    let mut zeros = 0;
    while slice.len() < 60_000 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let byte = random as u8;
        // emulation prevention
        if zeros == 2 && byte <= 3 {
            slice.push(3);
            zeros = 0;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        slice.push(byte);
    }
    slice.push(0x80);
    let mut data = BytesMut::from(&frame.data[..]);
    put_length_prefixed(&slice, &mut data);
    Frame { data: Bytes::from(data), ..frame.clone() }
}

/// Seven packets.
pub(crate) const DATAGRAM: usize = 7 * 188;
