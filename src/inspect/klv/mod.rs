//! What the KLV of a stream says: datagrams and frames enter on the shard, decoded packets with the state they leave
//! behind and the scene they show leave elsewhere, once per stream. Never in the way: what is slow loses packets, counted.
//!
//! ```text
//!          shard                                   a task of the stream
//!  ─▶ Tap: KLV PIDs only ──▶ bounded hand-over ──▶ Reader: decode, State, Scene ──▶ Metadata ──▶ whoever subscribes
//!     (others cost a look)   (full: lost, counted)                                 (the latest, the track, counts)
//! ```
//!
//! # For readers
//!
//! Every input has a [`Metadata`] for as long as it exists (`InputHealth::klv`, `InputCard::klv`):
//!
//! - [`Metadata::subscribe`] gives a bounded receiver of `Arc<`[`Observation`]`>`, one for each KLV packet. Who is slower
//!   is told how many he lost (`RecvError::Lagged`); when the input goes, the receiver ends (`RecvError::Closed`).
//! - [`Metadata::latest`] is the newest observation of any track, [`Metadata::tracks`] a snapshot of each.
//!
//! An [`Observation`] holds the [`Sighting`] (the bytes as they came, when, on which track and in which carriage), the
//! decoded packet, what holds behind it by report on change (ST 0107), and the scene of that. State, scene and track are
//! kept for each track apart: two sensors in one stream do not mix. They begin anew when another source takes over.
//!
//! # Why always
//!
//! A packet is decoded whether somebody asks or not. It costs some ten microseconds outside the shard, at 30 packets a
//! second less than a thousandth of a core; in return counts, conformance, ages and the way of the platform are there
//! when somebody looks, and not from then on. On the shard it costs a look at the PID of each packet, and for each KLV
//! packet a copy of its bytes.

mod decoder;
mod metadata;
mod tap;
#[cfg(test)]
mod tests;

pub use decoder::{Decoder, Observation};
pub use metadata::{Counts, Metadata, TrackView};
pub use tap::{Carriage, Clocks, Reader, Sighting, Tap, tap};
