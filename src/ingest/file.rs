//! A file as a live source: bytes on disk enter, datagrams at the moments that its clock says leave. Reads, frames,
//! restamps and schedules on a thread of its own, because a disk may block; the shard only lets go what is due.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, TryRecvError};
use thiserror::Error;

use super::{Feed, NoticeKind, Piece};
use crate::media::{Nanos, PACKET};
use crate::net::clock;
use crate::wire::ts::{FilePacer, FirstClock, Framer, NoClock, Packet, Restamper};

/// Plays a file; ends its reader when dropped.
pub struct FileDriver {
    batches: Receiver<Batch>,
    waiting: VecDeque<(Nanos, Bytes)>,
    /// Packets handed over so far, and the first ones of passes that are to come.
    packets: u64,
    seams: VecDeque<u64>,
    polled_at: Nanos,
    ended: Option<NoticeKind>,
}

/// Why a file cannot be played.
#[derive(Debug, Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read the file: {0}")]
    Read(#[from] io::Error),
    /// It has no clock.
    #[error(transparent)]
    NoClock(#[from] NoClock),
    /// No transport packet was found in it.
    #[error("no transport packet in the file: it is not a transport stream")]
    NoPackets,
}

/// Datagrams with their moments, or the end. Those of one batch share a block.
enum Batch {
    Datagrams(Vec<(Nanos, Bytes)>),
    /// The packet of this number, from 0, is the first one of another pass. Told before it comes.
    Seam(u64),
    End(Result<(), FileError>),
}

impl FileDriver {
    /// Plays `file` from its beginning, again and again if `looped`.
    ///
    /// # Errors
    /// Out of threads.
    pub fn start(file: File, looped: bool) -> io::Result<Self> {
        // Overflow policy: the reader waits; it is ahead of the time anyway.
        let (sender, batches) = crossbeam_channel::bounded(BATCHES);
        std::thread::Builder::new().name("file-reader".into()).spawn(move || {
            let end = Player::new(&sender).play(file, looped);
            // Nobody listens any more when the driver was dropped.
            let _ = sender.send(Batch::End(end));
        })?;
        let (waiting, seams) = (VecDeque::new(), VecDeque::new());
        Ok(Self { batches, waiting, packets: 0, seams, polled_at: 0, ended: None })
    }

    pub(super) fn poll(&mut self, now: Nanos, feed: &mut Feed<'_>) -> Option<NoticeKind> {
        self.polled_at = now;
        loop {
            while let Some((due, _)) = self.waiting.front() {
                if *due > now {
                    return None;
                }
                if let Some((due, datagram)) = self.waiting.pop_front() {
                    let behind = self.packets + (datagram.len() / PACKET) as u64;
                    while let Some(seam) = self.seams.pop_front_if(|seam| *seam < behind) {
                        feed(Piece::Seam(seam.saturating_sub(self.packets)), due);
                    }
                    self.packets = behind;
                    feed(Piece::Bytes(&datagram), due);
                }
            }
            if let Some(ended) = self.ended.take() {
                return Some(ended);
            }
            match self.batches.try_recv() {
                Ok(Batch::Datagrams(datagrams)) => self.waiting.extend(datagrams),
                Ok(Batch::Seam(packet)) => self.seams.push_back(packet),
                Ok(Batch::End(Ok(()))) => self.ended = Some(NoticeKind::Ended),
                Ok(Batch::End(Err(error))) => {
                    let retryable = matches!(error, FileError::Read(_));
                    self.ended = Some(NoticeKind::Failed { reason: error.to_string(), retryable });
                }
                Err(TryRecvError::Empty) => return None,
                Err(TryRecvError::Disconnected) => {
                    let reason = "the file's reader ended without a word".into();
                    return Some(NoticeKind::Failed { reason, retryable: true });
                }
            }
        }
    }

    pub(super) fn next_due(&self) -> Option<Nanos> {
        let due = self.waiting.front().map_or(self.polled_at + EMPTY_WAIT, |(due, _)| *due);
        Some(due.max(self.polled_at + TOGETHER))
    }
}

/// Turns a file into datagrams with moments.
struct Player<'a> {
    sender: &'a Sender<Batch>,
    pacer: FilePacer,
    restamper: Restamper,
    clock: FirstClock,
    first_pass: bool,
    /// Datagrams that wait for their batch to fill, one behind the other, and the moment and end of each.
    block: Vec<u8>,
    ends: Vec<(Nanos, usize)>,
    failed: Option<NoClock>,
    gone: bool,
    packets: u64,
}

impl<'a> Player<'a> {
    fn new(sender: &'a Sender<Batch>) -> Self {
        Self {
            sender,
            pacer: FilePacer::new(clock::now() + HEAD_START),
            restamper: Restamper::default(),
            clock: FirstClock::default(),
            first_pass: true,
            block: Vec::new(),
            ends: Vec::with_capacity(BATCH),
            failed: None,
            gone: false,
            packets: 0,
        }
    }

    fn play(mut self, mut file: File, looped: bool) -> Result<(), FileError> {
        let mut buffer = vec![0; CHUNK];
        loop {
            let mut framer = Framer::stream();
            let before = self.packets;
            loop {
                let length = file.read(&mut buffer)?;
                if length == 0 {
                    break;
                }
                framer.push(&buffer[..length], &mut |datagram| self.take(datagram));
                if let Some(error) = self.failed.take() {
                    return Err(error.into());
                }
                if self.gone {
                    return Ok(());
                }
            }
            framer.finish(&mut |datagram| self.take(datagram));
            if self.packets == before {
                return Err(FileError::NoPackets);
            }
            if !looped {
                self.pacer.finish()?;
                self.pull();
                self.send();
                return Ok(());
            }
            self.restamper.next_pass()?;
            self.first_pass = false;
            self.gone |= self.sender.send(Batch::Seam(self.packets)).is_err();
            file.rewind()?;
        }
    }

    fn take(&mut self, datagram: &[u8]) {
        for packet in datagram.as_chunks::<PACKET>().0 {
            let mut packet = *packet;
            self.packets += 1;
            if !self.first_pass {
                self.restamper.rewrite(&mut packet);
            }
            let Some(view) = Packet::new(&packet) else { continue };
            if self.first_pass {
                self.restamper.observe(view);
            }
            let pcr = self.clock.push(view);
            if let Err(error) = self.pacer.push(&packet, pcr) {
                self.failed.get_or_insert(error);
                return;
            }
            self.pull();
        }
    }

    /// Takes every datagram whose moment is known.
    fn pull(&mut self) {
        loop {
            if self.block.capacity() == 0 {
                self.block.reserve_exact(BATCH * DATAGRAM);
            }
            let Some(due) = self.pacer.pull(clock::now(), &mut self.block) else { return };
            self.ends.push((due, self.block.len()));
            if self.ends.len() >= BATCH {
                self.send();
            }
        }
    }

    fn send(&mut self) {
        if self.ends.is_empty() {
            return;
        }
        let block = Bytes::from(std::mem::take(&mut self.block));
        let mut from = 0;
        let datagrams = self.ends.drain(..).map(|(due, to)| {
            let datagram = block.slice(from..to);
            from = to;
            (due, datagram)
        });
        self.gone |= self.sender.send(Batch::Datagrams(datagrams.collect())).is_err();
    }
}

const CHUNK: usize = 64 << 10;
const DATAGRAM: usize = 7 * PACKET;
/// Datagrams handed over at once, and how many such batches wait: 170 kB.
const BATCH: usize = 16;
const BATCHES: usize = 8;
/// From opening the file to its first datagram: time to find the first two PCRs.
const HEAD_START: Nanos = 20_000_000;
/// How soon an empty queue is looked at again.
const EMPTY_WAIT: Nanos = 2_000_000;
/// Datagrams due within this leave in one poll.
const TOGETHER: Nanos = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seams_are_told_where_the_file_begins_anew() {
        let sample = std::fs::read("testdata/ts/h264_sync.ts").unwrap();
        let packets = (sample.len() / PACKET) as u64;
        assert!(!packets.is_multiple_of(7), "a seam within a datagram is the harder case");
        let (sender, batches) = crossbeam_channel::bounded(4096);
        let mut driver = FileDriver {
            batches,
            waiting: VecDeque::new(),
            packets: 0,
            seams: VecDeque::new(),
            polled_at: 0,
            ended: None,
        };
        let datagrams: Vec<_> = [&sample[..], &sample[..], &sample[..]]
            .concat()
            .chunks(DATAGRAM)
            .map(|datagram| (1, Bytes::copy_from_slice(datagram)))
            .collect();
        let (early, late) = datagrams.split_at(datagrams.len() / 4);
        let batches = [Batch::Datagrams(early.to_vec()), Batch::Seam(packets), Batch::Seam(2 * packets)];
        batches.into_iter().chain([Batch::Datagrams(late.to_vec())]).for_each(|b| sender.send(b).unwrap());
        let (mut passed, mut seams) = (0, Vec::new());
        let ended = driver.poll(2, &mut |piece, _| match piece {
            Piece::Bytes(bytes) => passed += (bytes.len() / PACKET) as u64,
            Piece::Seam(ahead) => seams.push(passed + ahead),
        });
        assert_eq!((ended, passed, seams), (None, 3 * packets, vec![packets, 2 * packets]));
    }

    #[test]
    fn datagrams_of_a_batch_share_a_block_and_hold_every_byte() {
        let sample = std::fs::read("testdata/ts/h264_sync.ts").unwrap();
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, &sample).unwrap();
        file.rewind().unwrap();
        // Room for all, so that the reader does not wait.
        let (sender, batches) = crossbeam_channel::bounded(sample.len() / DATAGRAM / BATCH + 2);
        Player::new(&sender).play(file, false).unwrap();
        drop(sender);
        let (mut all, mut last) = (Vec::new(), 0);
        for batch in batches {
            let Batch::Datagrams(datagrams) = batch else { panic!("the end comes from the driver's thread") };
            assert!(!datagrams.is_empty() && datagrams.len() <= BATCH);
            for pair in datagrams.windows(2) {
                assert_eq!(pair[0].1.as_ptr_range().end, pair[1].1.as_ptr(), "one block");
            }
            for (due, datagram) in datagrams {
                assert!(due >= last);
                last = due;
                all.extend_from_slice(&datagram);
            }
        }
        assert_eq!(all, sample);
    }
}
