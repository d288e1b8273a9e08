//! States, counters and events that every room fills and `control` reads. Imports no other room.

mod event;
mod link;
mod srt;
mod state;
mod stats;

pub use event::{Event, EventRing, Level};
pub use link::{Link, LinkList, LinkState};
pub use srt::{
    Connection, Encryption, EncryptionCell, Session, SessionId, SessionList, SessionsFull, Spread, SrtStats,
    VersionCell,
};
pub use state::{Desired, State, Status};
pub use stats::{InputStats, OutputStats, Rate, ShardStats};
