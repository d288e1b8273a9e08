//! MPEG transport streams (ISO/IEC 13818-1): bytes and arrival times enter; whole packets, facts about them
//! and rewritten packets leave. Never holds a socket or a clock.

mod analyzer;
mod clock;
pub mod codec;
pub mod demux;
mod descriptor;
mod filter;
mod first_clock;
mod framer;
pub mod metadata;
pub mod multiplexer;
pub mod pacer;
pub mod packet;
pub mod pes;
pub mod psi;
mod random_access;
mod report;
pub mod restamp;
mod sample;
#[cfg(test)]
mod samples;
pub mod sections;
mod tables;
pub mod vitals;

pub use analyzer::{Analyzer, Inspection};
pub use clock::ClockReport;
pub use demux::Demux;
pub use descriptor::DescriptorReport;
pub use filter::{Fill, Filter, FilterSpec};
pub use first_clock::FirstClock;
pub use framer::Framer;
pub use multiplexer::Multiplexer;
pub use pacer::{FilePacer, LivePacer, NoClock};
pub use packet::{PACKET, Packet};
pub use report::{PidReport, ProgramReport, Report, StreamReport};
pub use restamp::Restamper;
pub use sample::{Sample, Sampled};
pub use vitals::{Breach, Slip, Tally, Vital, Vitals};
