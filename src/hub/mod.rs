//! Lanes, cursors and the shard loop: datagrams enter from ingest, egress reads them at its own pace. The only
//! meeting place of the two; never knows a protocol.

mod feed;
mod lane;
mod pulse;
mod shard;
mod stream;
mod timetable;

pub use feed::{FeedReader, FeedWriter, feed};
pub use lane::{Bounds, Cursor, Item, Lane, LaneWriter, Read};
pub use pulse::Pulse;
pub use shard::{Command, Intake, Outflow, Polled, Schedule, Shard, ShardHandle, StreamKey, Tools, Wakes};
pub use timetable::{Line, Pace, Timetable};
