//! Makes derived lanes: datagrams and frames of a stream enter, another representation of it leaves, made once and shared
//! by all its readers. Never touches the native lane.

mod demuxer;
mod filtered;
pub mod flv;
mod mp4;
mod muxer;
pub mod rtp;

pub use demuxer::{Damage, Demuxer, DemuxerCounters, DemuxerOptions};
pub use filtered::Filtered;
pub use mp4::{Mp4, rebased};
pub use muxer::{Muxer, MuxerCounters, MuxerOptions, Unsupported, unsupported};

use std::sync::Arc;

use crate::hub::{Bounds, Lane, Pulse};
use crate::media::{Frame, Message, Nanos};
use crate::wire::ts::FilterSpec;

/// What is made, and how: lanes of equal derivation are one lane.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Derivation {
    /// Transport packets, some of them taken out.
    Filtered(FilterSpec),
    /// RTP packets in interleaved frames, as RTSP connections carry them.
    Rtsp(rtp::Numbers),
    /// The same of transport packets as they are.
    RtspTransport(rtp::Numbers),
    /// Movie fragments of an MP4 file.
    Mp4,
    /// RTMP messages.
    Rtmp {
        /// The message stream that servers gave.
        stream: u32,
    },
}

/// The lane that comes of a derivation.
#[derive(Debug, Clone)]
pub enum Product {
    /// Datagrams of transport packets.
    Datagrams(Arc<Lane>),
    /// Messages of a byte stream protocol.
    Messages(Arc<Lane<Message>>),
}

impl Derivation {
    /// A lane of its own, and what fills it.
    pub fn open(&self, bounds: Bounds) -> (Product, Box<dyn Maker>) {
        match self {
            Self::Filtered(spec) => {
                let (lane, writer) = Lane::new(bounds);
                (Product::Datagrams(lane), Box::new(Filtered::new(spec.clone(), writer)))
            }
            Self::Rtsp(numbers) => {
                let (lane, writer) = Lane::new(bounds);
                (Product::Messages(lane), Box::new(rtp::RtspMaker::new(*numbers, writer)))
            }
            Self::RtspTransport(numbers) => {
                let (lane, writer) = Lane::new(bounds);
                (Product::Messages(lane), Box::new(rtp::TransportMaker::new(*numbers, writer)))
            }
            Self::Mp4 => {
                let (lane, writer) = Lane::new(bounds);
                (Product::Messages(lane), Box::new(Mp4::new(writer)))
            }
            Self::Rtmp { stream } => {
                let (lane, writer) = Lane::new(bounds);
                (Product::Messages(lane), Box::new(flv::RtmpMaker::new(*stream, writer)))
            }
        }
    }
}

/// Fills one derived lane (or several that belong together). Lives on the shard of its stream.
pub trait Maker: Send {
    /// Takes a datagram of the `ts` lane in. Readers see the result after `commit`.
    fn datagram(&mut self, _datagram: &[u8], _arrival: Nanos) {}

    /// Whether it is made of frames, and not of datagrams.
    fn wants_frames(&self) -> bool {
        false
    }

    /// Takes an access unit in, in decoding order of its track. When the maker begins, it is given those since the
    /// newest random access point.
    fn frame(&mut self, _frame: &Frame) {}

    /// Sends on what has waited for company since before `oldest`; how many items that were.
    fn flush(&mut self, _oldest: Nanos) -> u32 {
        0
    }

    /// Since when something waits for company.
    fn waiting_since(&self) -> Option<Nanos> {
        None
    }

    /// Nothing comes for now, or a reader leaves: what would wait for the next frame is made of what there is.
    fn end(&mut self) {}

    /// Shows readers what was made; `false` = try again.
    fn commit(&mut self, now: Nanos) -> bool;

    /// Calls `each` with the pulse of every lane that it fills.
    fn pulses(&self, each: &mut dyn FnMut(&Pulse));
}
