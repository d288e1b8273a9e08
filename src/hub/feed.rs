//! A bounded queue into a stream: whoever receives for it on any thread puts datagrams in, the stream's driver takes
//! them out on its shard. Full, it loses the newest and counts them; never blocks.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, TrySendError};

use crate::media::Nanos;
use crate::net::Doorbell;

/// The end where datagrams are put in.
#[derive(Debug, Clone)]
pub struct FeedWriter {
    queue: Sender<(Bytes, Nanos)>,
    bell: Arc<Doorbell>,
    lost: Arc<AtomicU64>,
}

/// The end where the stream's driver takes them out.
#[derive(Debug)]
pub struct FeedReader {
    queue: Receiver<(Bytes, Nanos)>,
    bell: Arc<Doorbell>,
    lost: Arc<AtomicU64>,
}

/// Both ends of a queue.
///
/// # Errors
/// Out of file descriptors or memory.
pub fn feed() -> io::Result<(FeedWriter, FeedReader)> {
    let (sender, receiver) = crossbeam_channel::bounded(CAPACITY);
    let (bell, lost) = (Arc::new(Doorbell::new()?), Arc::<AtomicU64>::default());
    let writer = FeedWriter { queue: sender, bell: Arc::clone(&bell), lost: Arc::clone(&lost) };
    Ok((writer, FeedReader { queue: receiver, bell, lost }))
}

impl FeedWriter {
    /// Puts a datagram in, with its time. Answers `false` when it was lost: the queue is full, or nobody reads.
    pub fn push(&self, bytes: Bytes, arrival: Nanos) -> bool {
        match self.queue.try_send((bytes, arrival)) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.lost.fetch_add(1, Relaxed);
                false
            }
        }
    }

    /// Wakes the reader: once after a batch.
    pub fn ring(&self) {
        self.bell.ring();
    }
}

impl FeedReader {
    /// Takes what is there, at most what the queue holds at this moment.
    pub fn take(&self, mut each: impl FnMut(Bytes, Nanos)) {
        self.bell.answer();
        for _ in 0..self.queue.len() {
            let Ok((bytes, arrival)) = self.queue.try_recv() else { return };
            each(bytes, arrival);
        }
    }

    /// Datagrams that found the queue full.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }
}

impl AsFd for FeedReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

/// A second at 40 Mb/s.
const CAPACITY: usize = 4_096;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::net::{Poller, Token};

    #[test]
    fn what_goes_in_comes_out_in_order_and_wakes_the_reader() {
        let (writer, reader) = feed().unwrap();
        let mut poller = Poller::new().unwrap();
        poller.sockets().add(reader.as_fd(), Token(3)).unwrap();
        for i in 0..3u8 {
            assert!(writer.push(Bytes::from(vec![i]), i.into()));
        }
        writer.ring();
        let mut woken = Vec::new();
        poller.wait(Some(Duration::from_secs(5)), |token| woken.push(token));
        assert_eq!(woken, [Token(3)]);
        let mut got = Vec::new();
        reader.take(|bytes, at| got.push((bytes[0], at)));
        assert_eq!(got, [(0, 0), (1, 1), (2, 2)]);
    }

    #[test]
    fn a_full_queue_loses_the_newest_and_counts() {
        let (writer, reader) = feed().unwrap();
        let put = (0..CAPACITY as u64 + 5).filter(|&i| writer.push(Bytes::new(), i)).count();
        assert_eq!((put, reader.lost()), (CAPACITY, 5));
        let mut last = 0;
        reader.take(|_, at| last = at);
        assert_eq!(last, CAPACITY as u64 - 1);
    }
}
