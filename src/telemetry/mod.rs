//! States, counters and events that every room fills and `control` reads. Imports no other room.

mod dropped;
mod event;
mod flow;
mod link;
mod session;
mod skips;
mod srt;
mod state;
mod stats;
mod tak;

pub use dropped::{DroppedTrack, DroppedTracks};
pub use event::{Event, EventRing, Level};
pub use flow::FlowStats;
pub use link::{Link, LinkList, LinkState};
pub use session::{Connection, Session, SessionId, SessionList, SessionsFull, Transport, next_session};
pub use skips::{Skip, Skips};
pub use srt::{Encryption, EncryptionCell, Spread, SrtStats, VersionCell};
pub use state::{Desired, State, Status};
pub use stats::{InputStats, KlvStats, OutputStats, Rate, ShardStats};
pub use tak::{TakStats, Warnings};
