//! REST: requests enter, commands and snapshots leave. Never waits for a shard.

mod board;
mod command;

pub use board::{Board, Card, InputCard, OutputCard};
pub use command::{Command, Commands, Reply, Unanswered, commands};
