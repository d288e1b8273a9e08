//! Access units enter, RTP packets that all readers share leave; RTP packets of a session enter, access units leave.
//! Describes both as sessions. Opens no socket, knows no peer.

mod clock;
mod describe;
mod maker;
mod pack;
mod transport;
mod unpack;

pub use describe::{Dropped, describe, goes_on};
pub use maker::{RtspMaker, positions};
pub use pack::{Numbers, Packer};
pub use transport::{TransportMaker, describe_transport};
pub use unpack::Unpacker;
