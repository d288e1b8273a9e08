//! MPEG transport streams (ISO/IEC 13818-1): bytes and arrival times enter; whole packets, facts about them
//! and rewritten packets leave. Never holds a socket or a clock.

mod analyzer;
mod clock;
pub mod codec;
mod descriptor;
mod filter;
mod framer;
pub mod pacer;
pub mod packet;
pub mod pes;
pub mod psi;
mod random_access;
mod report;
mod tables;

pub use analyzer::{Analyzer, Inspection};
pub use clock::ClockReport;
pub use descriptor::DescriptorReport;
pub use filter::{Fill, FilterSpec};
pub use framer::Framer;
pub use report::{PidReport, ProgramReport, Report, StreamReport};
