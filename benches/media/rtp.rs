//! RTP: packets enter, pictures leave.

use millrace::media::{Codec, Frame};
use millrace::wire::h26x::length_prefixed;
use millrace::wire::rtp::{
    H264Depacketizer, H265Depacketizer, Header, Line, Packets, Unit, packetize_h264, packetize_h265, parse,
};

use crate::Result;
use crate::clip::Clip;
use crate::measure::rate;

/// Packets to pictures: bytes of the packets.
pub(crate) fn depacketize_h264(clip: &Clip) -> Result<f64> {
    let packets = pack(&clip.large_frames, Codec::H264);
    let mut depacketizer = H264Depacketizer::default();
    let count = clip.large_frames.iter().filter(|frame| is(frame, Codec::H264)).count();
    depacketize(&packets, count, |header, payload, emit| {
        depacketizer.push(header, payload, false, &mut |unit| emit(unit))
    })
}

/// The same in H.265.
pub(crate) fn depacketize_h265(clip: &Clip) -> Result<f64> {
    let packets = pack(&clip.large_frames_h265, Codec::H265);
    let mut depacketizer = H265Depacketizer::default();
    let count = clip.large_frames_h265.iter().filter(|frame| is(frame, Codec::H265)).count();
    depacketize(&packets, count, |header, payload, emit| {
        depacketizer.push(header, payload, false, &mut |unit| emit(unit))
    })
}

fn depacketize(
    packets: &Packets,
    count: usize,
    mut push: impl FnMut(&Header, &[u8], &mut dyn FnMut(Unit)),
) -> Result<f64> {
    let (mut passes, mut units, mut bytes) = (0, 0, 0);
    let value = rate(|| {
        passes += 1;
        for packet in packets.iter() {
            if let Ok((header, payload)) = parse(packet) {
                push(&header, payload, &mut |unit| {
                    units += 1;
                    bytes += unit.data.len();
                });
            }
        }
        packets.iter().map(<[u8]>::len).sum()
    });
    if count == 0 || units != count * passes || bytes == 0 {
        return Err(format!("{units} pictures came out of {passes} times {count}").into());
    }
    Ok(value)
}

/// All pictures in packets as long as most paths carry.
fn pack(frames: &[Frame], codec: Codec) -> Packets {
    let (mut line, mut packets) = (Line::new(96, 1, 0, 1400), Packets::default());
    for frame in frames.iter().filter(|frame| is(frame, codec)) {
        let (nals, timestamp) = (length_prefixed(&frame.data, 4), frame.pts as u32);
        if codec == Codec::H264 {
            packetize_h264(nals, &mut line, timestamp, &mut packets);
        } else {
            packetize_h265(nals, &mut line, timestamp, &mut packets);
        }
    }
    packets
}

fn is(frame: &Frame, codec: Codec) -> bool {
    frame.track().is_some_and(|track| track.codec == codec)
}
