//! What is measured with: nothing enters, a stream of pictures, sound and metadata leaves, the same every time.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use millrace::media::{Codec, Frame, Nanos};
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
    /// The same in H.265.
    pub(crate) large_frames_h265: Vec<Frame>,
}

impl Clip {
    pub(crate) fn new() -> Result<Self> {
        let (small, small_frames) = read("h264_sync.ts")?;
        if !small_frames.iter().any(|frame| frame.tracks.0.iter().any(|track| track.codec == Codec::Klv)) {
            return Err("the sample has lost its metadata".into());
        }
        let large_frames: Vec<Frame> = small_frames.iter().map(enlarge).collect();
        let mut large = Vec::new();
        let mut muxer = Muxer::new(MuxerOptions::default());
        let mut sink = |datagram: &[u8], _: Nanos| large.extend_from_slice(datagram);
        large_frames.iter().for_each(|frame| muxer.push(frame, &mut sink));
        muxer.flush(&mut sink);
        let large_frames_h265 = read("h265_sync.ts")?.1.iter().map(enlarge).collect();
        Ok(Self { small, small_frames, large, large_frames, large_frames_h265 })
    }
}

/// A file of `testdata/ts`, and its frames.
fn read(name: &str) -> Result<(Vec<u8>, Vec<Frame>)> {
    let stream = std::fs::read(format!("{}/testdata/ts/{name}", env!("CARGO_MANIFEST_DIR")))?;
    let mut demuxer = Demuxer::new(DemuxerOptions::default());
    let mut frames = Vec::new();
    let mut sink = |frame| frames.push(frame);
    for datagram in stream.chunks(DATAGRAM) {
        demuxer.push(datagram, 0, &mut sink);
    }
    demuxer.flush(0, &mut sink);
    Ok((stream, frames))
}

/// A picture with a slice behind it of as many bytes as 12 Mb/s at 25 pictures a second have, as random as what
/// arithmetic coding leaves.
fn enlarge(frame: &Frame) -> Frame {
    let mut slice = match frame.track().map(|track| track.codec) {
        Some(Codec::H264) => vec![0x41, 0x80],
        // TRAIL_R of layer 0
        Some(Codec::H265) => vec![0x02, 0x01, 0x80],
        _ => return Frame { tracks: Arc::clone(&frame.tracks), ..frame.clone() },
    };
    let mut random = frame.dts as u64 | 1;
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
