//! Access units enter, RTP packets that all readers share leave; RTP packets of a session enter, access units leave.
//! Describes both as sessions. Opens no socket, knows no peer.

mod clock;
mod describe;
mod pack;
mod unpack;

pub use describe::Dropped;
pub use pack::{Packed, Packer};
pub use unpack::Unpacker;
