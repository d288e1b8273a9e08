//! Transport streams: datagrams enter, frames leave, and back.

use millrace::media::{Frame, Nanos, Ticks};
use millrace::mux::{Demuxer, DemuxerOptions, Muxer, MuxerOptions};
use millrace::wire::ts::Demux;
use millrace::wire::ts::demux::Event;

use crate::Result;
use crate::clip::{Clip, DATAGRAM};
use crate::measure::rate;

/// Datagrams to frames: bytes of the stream.
pub(crate) fn demux(clip: &Clip) -> Result<f64> {
    demux_stream(&clip.large)
}

/// The same where pictures are small.
pub(crate) fn demux_small(clip: &Clip) -> Result<f64> {
    demux_stream(&clip.small)
}

/// Datagrams to PES packets only.
pub(crate) fn demux_pes(clip: &Clip) -> Result<f64> {
    let mut demux = Demux::new(None);
    let mut bytes = 0;
    let value = rate(|| {
        let mut sink = |event: Event<'_>| {
            if let Event::Pes(pes) = event {
                bytes += pes.data.len();
            }
        };
        clip.large.chunks(DATAGRAM).for_each(|datagram| demux.push(datagram, &mut sink));
        clip.large.len()
    });
    if bytes == 0 { Err("no PES packet came out".into()) } else { Ok(value) }
}

/// Frames to datagrams: bytes of the stream that is made.
pub(crate) fn mux(clip: &Clip) -> Result<f64> {
    mux_frames(&clip.large_frames, MuxerOptions::default())
}

/// The same where pictures are small.
pub(crate) fn mux_small(clip: &Clip) -> Result<f64> {
    mux_frames(&clip.small_frames, MuxerOptions::default())
}

/// The same at a constant rate, a third of it null packets.
pub(crate) fn mux_constant(clip: &Clip) -> Result<f64> {
    mux_frames(&clip.large_frames, MuxerOptions { rate: Some(22_000_000), ..MuxerOptions::default() })
}

fn demux_stream(stream: &[u8]) -> Result<f64> {
    let mut demuxer = Demuxer::new(DemuxerOptions::default());
    let (mut frames, mut arrival) = (0u64, 0);
    let value = rate(|| {
        for datagram in stream.chunks(DATAGRAM) {
            arrival += 1_000_000;
            demuxer.push(datagram, arrival, &mut |frame| frames += u64::from(!frame.data.is_empty()));
        }
        stream.len()
    });
    if frames == 0 { Err("no frame came out".into()) } else { Ok(value) }
}

fn mux_frames(frames: &[Frame], options: MuxerOptions) -> Result<f64> {
    let mut muxer = Muxer::new(options);
    let mut frames = frames.to_vec();
    let length: Ticks = 6 * 90_000;
    let mut total = 0;
    let value = rate(|| {
        let before = total;
        let mut sink = |datagram: &[u8], _: Nanos| total += datagram.len();
        for frame in &mut frames {
            muxer.push(frame, &mut sink);
            frame.pts += length;
            frame.dts += length;
            frame.arrival += 6_000_000_000;
        }
        total - before
    });
    if total == 0 { Err("no datagram came out".into()) } else { Ok(value) }
}
