//! REST: requests enter, commands and snapshots leave. Never waits for a shard.

mod answer;
mod board;
mod command;
mod fields;
mod guard;
mod klv;
mod metrics;
mod problem;
mod rest;
mod server;
mod system;
#[cfg(test)]
mod tests;

pub use board::{Board, Card, InputCard, OutputCard};
pub use command::{Command, Commands, Reply, Unanswered, commands};
pub use metrics::{Metrics, serve as serve_metrics};
pub use rest::Control;
pub use server::serve;
