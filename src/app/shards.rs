//! The data threads: how many, on which cores. Commands go to one by its number. Never decides what runs where.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::outlets::Outlets;
use super::{EngineShard, ShardCommand};
use crate::egress::{self, Connections, Fanout};
use crate::hub::Command;
use crate::net::{clock, pin_to_core};
use crate::port::{self, Ports};
use crate::telemetry::ShardStats;

/// The data threads.
pub(crate) struct Shards {
    shards: Vec<(EngineShard, Arc<ShardStats>)>,
}

impl Shards {
    /// Starts `count` data threads (0 = one per core), each on a core of its own if `pin`.
    pub(super) fn start(
        count: usize,
        pin: bool,
        egress: &mpsc::Sender<egress::Notice>,
        port: &mpsc::Sender<port::Notice>,
    ) -> io::Result<Self> {
        let count = match count {
            0 => std::thread::available_parallelism()?.get(),
            count => count,
        };
        let shards = (0..count).map(|index| {
            let stats = Arc::new(ShardStats::default());
            let (counted, egress, port) = (Arc::clone(&stats), egress.clone(), port.clone());
            let prepare = move || {
                if let Err(error) = pin_to_core(pin.then_some(index)) {
                    tracing::warn!(shard = index, %error, "cannot pin the data thread to a core");
                }
            };
            let seed = clock::realtime() ^ (index as u64) << 56;
            let shard = EngineShard::start(format!("shard-{index}"), clock::now, prepare, |wakes| {
                let fanout = Fanout::new(Arc::clone(&wakes.bell), egress.clone(), Arc::clone(&counted), seed);
                let connections = Connections::new(wakes.clone(), egress, Arc::clone(&counted));
                Outlets::new(fanout, connections, Ports::new(wakes, port, counted))
            })?;
            Ok((shard, stats))
        });
        Ok(Self { shards: shards.collect::<io::Result<_>>()? })
    }

    pub(super) fn len(&self) -> usize {
        self.shards.len()
    }

    pub(super) fn stats(&self) -> Vec<Arc<ShardStats>> {
        self.shards.iter().map(|(_, stats)| Arc::clone(stats)).collect()
    }

    pub(super) fn hold(&self, index: usize, time: Duration) {
        // A shard that is too busy to take it is held already.
        let _ = self.send(index, Command::Hold(time));
    }

    pub(super) fn send(&self, index: usize, command: ShardCommand) -> Result<(), Box<ShardCommand>> {
        match self.shards.get(index) {
            Some((shard, _)) => shard.send(command),
            None => Ok(()),
        }
    }
}
