//! Taps of streams: the KLV that an input shall show enters as its metadata, a tap for its shard and the task that decodes
//! behind it leave. One task for each input; it ends with its owner.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::feeders::Task;
use crate::inspect::InputHealth;
use crate::inspect::klv::{self, Clocks, Metadata, Tap};
use crate::net::clock;

/// Opens a tap that shows what it finds in `metadata`.
pub(super) fn open(media: &Handle, metadata: &Arc<Metadata>) -> (Tap, Task) {
    let clocks = Clocks { now: clock::now, wall: clock::wall };
    let (tap, reader) = klv::tap(Arc::clone(metadata), clocks);
    (tap, Task::own(&media.spawn(reader.run())))
}

/// Looks at the samples of a stream for as long as the task lives.
pub(super) fn examine(media: &Handle, health: &Arc<InputHealth>) -> Task {
    let health = Arc::clone(health);
    Task::own(&media.spawn(async move { health.rules().run().await }))
}
