//! Programme clocks enter, times of departure leave: for a file that is read faster than it plays, and for
//! a live stream that arrives in bursts. Never waits and never touches a byte.

mod file;
mod live;

pub use file::{FilePacer, NoClock};
pub use live::LivePacer;
