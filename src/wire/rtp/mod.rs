//! RTP and RTCP (RFC 3550) and what RTP carries: access units and time enter, packets leave; packets and time enter,
//! access units in order leave.

mod aac;
mod ac3;
mod h264;
mod h265;
mod header;
mod klv;
mod latm;
mod mp2t;
mod mpeg_audio;
mod nal;
mod packets;
mod plain;
mod reception;
mod reorder;
pub mod rtcp;
#[cfg(test)]
mod samples;
mod unit;

pub use aac::{AacDepacketizer, AuHeaders, packetize as packetize_aac};
pub use ac3::{Ac3Depacketizer, packetize as packetize_ac3};
pub use h264::{H264Depacketizer, packetize as packetize_h264};
pub use h265::{H265Depacketizer, packetize as packetize_h265};
pub use header::{HEADER, Header, MP2T, Malformed, parse, write_header};
pub use klv::{KlvDepacketizer, packetize as packetize_klv};
pub use latm::{LatmDepacketizer, MuxConfig};
pub use mp2t::packets as transport_packets;
pub use mpeg_audio::{MpegAudioDepacketizer, packetize as packetize_mpeg_audio};
pub use packets::{Line, PACKET_LEAST, PACKET_MOST, PREFIX, Packets, framed};
pub use plain::{PlainDepacketizer, packetize_opus, packetize_samples};
pub use reception::Reception;
pub use reorder::{Counters, InOrder, Reorder};
pub use unit::{Losses, UNIT_MOST, Unit};
