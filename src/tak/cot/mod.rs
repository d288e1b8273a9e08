//! Cursor-on-Target: scenes and moments enter, events leave, as XML or as messages of the TAK protocol; bytes of a peer
//! enter, events leave. No sockets and no clock: moments are arguments.

mod event;
mod frame;
mod mesh;
mod negotiation;
mod pace;
mod proto;
mod report;
mod stamp;
#[cfg(test)]
mod tests;
mod xml;

pub use event::{Element, Event, Point};
pub use frame::{Frame, FrameError, Framer, MESSAGE_MAX, parse_datagram, write_mesh, write_stream};
pub use mesh::Mesh;
pub use negotiation::{Negotiation, Step};
pub use pace::Pace;
pub use proto::{
    Contact, CotEvent, Detail, Group, PrecisionLocation, Status, TakControl, TakMessage, Takv, Track,
};
pub use report::{Affiliation, Identity, Moment, Reporter, Video};
pub use stamp::{parse as parse_stamp, write as write_stamp};
pub(super) use xml::read as read_elements;
pub use xml::{XmlError, parse, write};
