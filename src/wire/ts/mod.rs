//! MPEG transport streams (ISO/IEC 13818-1): bytes and arrival times enter; whole packets, facts about them
//! and rewritten packets leave. Never holds a socket or a clock.

mod filter;
mod framer;
pub mod pacer;
pub mod packet;
pub mod pes;
pub mod psi;

pub use filter::{Fill, FilterSpec};
pub use framer::Framer;
