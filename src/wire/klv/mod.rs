//! KLV metadata as STANAG 4609 has it (SMPTE ST 336, MISB ST 0601 and the sets inside it): bytes enter, typed items and
//! issues leave, and back. Never fails a packet; knows nothing of what carried it.
//!
//! ```text
//!  bytes ─▶ split ─▶ Packet::read ─▶ Set of Items ─▶ State (ST 0107: what holds now)
//!                        │               │
//!                        └─▶ Issues      └─▶ write_packet ─▶ bytes
//! ```
//!
//! One reader and one writer serve every set. What differs is said in tables: [`ST0601`] has a line for each item, and
//! the words of those lines ([`Kind`], [`Shape`]) are read and written in one place.

pub mod ber;
mod checksum;
mod eg0104;
mod imap;
mod issue;
mod json;
mod label;
mod packet;
mod reader;
mod sei;
mod spec;
mod split;
mod st0102;
mod st0601;
mod st0806;
mod st0903;
mod st1002;
mod st1010;
mod st1204;
mod st1206;
mod st1303;
mod st1601;
mod st1602;
mod state;
#[cfg(test)]
mod tests;
mod value;
mod writer;

pub use checksum::{crc16, sum16};
pub use eg0104::{EG0104, tag as eg0104_tag};
pub use issue::{Fault, Issue, Quirk};
pub use json::{Hex, Uuid};
pub use label::{Label, PREFIX, same_label};
pub use packet::{Checksum, Packet};
pub use sei::{Jump, Timestamp, read_timestamp};
pub use spec::{Bytes, Charset, Earlier, Element, Kind, Linear, Part, SetSpec, Shape, Spec, Tags};
pub use split::{Split, Unit, find_label, first_unit, split, starts_label};
pub use st0102::{ST0102, ST0102_UNIVERSAL};
pub use st0601::{AMEND, SEGMENT, ST0601};
pub use st0806::ST0806;
pub use st0903::{EARLY as ST0903_EARLY, ST0903, VTARGET, VTRACK};
pub use st1002::ST1002;
pub use st1206::ST1206;
pub use st1601::ST1601;
pub use st1602::ST1602;
pub use state::{State, TimeScale};
pub use value::{Choice, Field, Flags, Item, Set, Special, Value};
pub use writer::{Unwritable, WriteError, write_item, write_packet};

/// Longest packet that is read: more than any metadata set needs, less than hurts.
pub const PACKET_MAX: usize = 64 * 1024;
