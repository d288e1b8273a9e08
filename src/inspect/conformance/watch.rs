//! Samples of a live stream enter through a bounded queue, reports leave when somebody asks. Never waits for whoever
//! samples: what finds no room is counted and gone.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::examiner::Examiner;
use super::report::Conformance;
use crate::media::Nanos;
use crate::wire::ts::{PACKET, Sample, Vitals};

/// Keeps the rules of one input.
#[derive(Debug)]
pub struct Watch {
    queue: mpsc::Sender<Sample>,
    waiting: Mutex<Option<mpsc::Receiver<Sample>>>,
    examiner: Mutex<Examiner>,
    /// Packets of samples that found no room since the last one that did.
    lost: AtomicU64,
}

impl Default for Watch {
    fn default() -> Self {
        // Overflow policy: the newest sample is lost and counted.
        let (queue, waiting) = mpsc::channel(QUEUE);
        let waiting = Mutex::new(Some(waiting));
        Self { queue, waiting, examiner: Mutex::default(), lost: AtomicU64::new(0) }
    }
}

impl Watch {
    /// Takes a sample in, on the shard.
    pub fn offer(&self, mut sample: Sample) {
        let packets = (sample.packets.len() / PACKET) as u64;
        sample.lost += self.lost.swap(0, Relaxed);
        let lost = sample.lost;
        if self.queue.try_send(sample).is_err() {
            self.lost.fetch_add(lost + packets, Relaxed);
        }
    }

    /// Looks at samples, elsewhere than on a shard, for as long as it is let. Does nothing when it already runs.
    pub async fn run(&self) {
        let Some(mut samples) = self.waiting.lock().take() else { return };
        while let Some(sample) = samples.recv().await {
            self.examiner.lock().take(&sample);
        }
    }

    /// What is known now: the clock of the arrivals and the wall clock at the same moment.
    pub fn report(&self, vitals: &Vitals, now: (Nanos, SystemTime)) -> Conformance {
        Conformance::new(vitals, &self.examiner.lock(), Some(now))
    }
}

/// Four seconds of samples.
const QUEUE: usize = 8;
