//! RTP with a transport stream as payload (RFC 3550, RFC 2250): packets and time enter, payloads in order leave.

mod header;
mod reorder;

pub use header::{HEADER, Header, MP2T, Malformed, parse, write_header};
pub use reorder::{Counters, Reorder};
