//! A bounded queue into a stream: whoever receives for it on any thread puts datagrams or frames in, the stream's driver
//! takes them out on its shard. Full, it loses the newest and counts them; never blocks.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, TrySendError};

use crate::media::Nanos;
use crate::net::Doorbell;

/// The end where things are put in.
#[derive(Debug)]
pub struct FeedWriter<T = (Bytes, Nanos)> {
    queue: Sender<T>,
    bell: Arc<Doorbell>,
    lost: Arc<AtomicU64>,
}

/// The end where the stream's driver takes them out.
#[derive(Debug)]
pub struct FeedReader<T = (Bytes, Nanos)> {
    queue: Receiver<T>,
    bell: Arc<Doorbell>,
    lost: Arc<AtomicU64>,
}

/// Both ends of a queue.
///
/// # Errors
/// Out of file descriptors or memory.
pub fn feed<T>() -> io::Result<(FeedWriter<T>, FeedReader<T>)> {
    let (sender, receiver) = crossbeam_channel::bounded(CAPACITY);
    let (bell, lost) = (Arc::new(Doorbell::new()?), Arc::<AtomicU64>::default());
    let writer = FeedWriter { queue: sender, bell: Arc::clone(&bell), lost: Arc::clone(&lost) };
    Ok((writer, FeedReader { queue: receiver, bell, lost }))
}

impl<T> Clone for FeedWriter<T> {
    fn clone(&self) -> Self {
        let (queue, bell, lost) = (self.queue.clone(), Arc::clone(&self.bell), Arc::clone(&self.lost));
        Self { queue, bell, lost }
    }
}

impl<T> FeedWriter<T> {
    /// Puts one in. Answers `false` when it was lost: the queue is full, or nobody reads.
    pub fn push(&self, item: T) -> bool {
        match self.queue.try_send(item) {
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

impl<T> FeedReader<T> {
    /// Takes what is there, at most what the queue holds at this moment.
    pub fn take(&self, mut each: impl FnMut(T)) {
        self.bell.answer();
        for _ in 0..self.queue.len() {
            let Ok(item) = self.queue.try_recv() else { return };
            each(item);
        }
    }

    /// Things that found the queue full.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }
}

impl<T> AsFd for FeedReader<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

/// A second at 40 Mb/s in datagrams.
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
            assert!(writer.push((Bytes::from(vec![i]), u64::from(i))));
        }
        writer.ring();
        let mut woken = Vec::new();
        poller.wait(Some(Duration::from_secs(5)), |token| woken.push(token));
        assert_eq!(woken, [Token(3)]);
        let mut got = Vec::new();
        reader.take(|(bytes, at): (Bytes, Nanos)| got.push((bytes[0], at)));
        assert_eq!(got, [(0, 0), (1, 1), (2, 2)]);
    }

    #[test]
    fn a_full_queue_loses_the_newest_and_counts() {
        let (writer, reader) = feed().unwrap();
        let put = (0..CAPACITY as u64 + 5).filter(|&i| writer.push((Bytes::new(), i))).count();
        assert_eq!((put, reader.lost()), (CAPACITY, 5));
        let mut last = 0;
        reader.take(|(_, at): (Bytes, Nanos)| last = at);
        assert_eq!(last, CAPACITY as u64 - 1);
    }
}
