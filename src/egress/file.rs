//! A transport stream dumped to files: datagrams of a lane enter, bytes on disk leave. Runs on a thread of its own,
//! because a disk may block for seconds; a disk that is too slow costs this output its datagrams, nobody else's.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;

use super::{Notice, NoticeKind, OutputKey};
use crate::hub::{Cursor, Lane};
use crate::media::Nanos;
use crate::net::clock;
use crate::telemetry::{OutputStats, Rate};

/// Makes the next file of an output; its argument is the time of the first packet in it.
pub type CreateFile = Box<dyn FnMut(SystemTime) -> io::Result<File> + Send>;

/// A file output.
pub struct FileTarget {
    /// Its name.
    pub key: OutputKey,
    /// Which attempt made it.
    pub attempt: u32,
    /// What it reads.
    pub lane: Arc<Lane>,
    /// Where it counts.
    pub stats: Arc<OutputStats>,
    /// Makes its files.
    pub create: CreateFile,
    /// A new file after this many bytes.
    pub rotate_bytes: Option<u64>,
    /// A new file after this much time.
    pub rotate_after: Option<Duration>,
}

/// A running dump; ends when dropped, without waiting for the disk.
#[derive(Debug)]
pub struct Recorder {
    stopping: Arc<AtomicBool>,
    finished: Finished,
    thread: Thread,
}

/// Becomes true when a dump has written its last byte.
pub type Finished = Arc<AtomicBool>;

impl Recorder {
    /// Starts writing what comes from now on, once `before`, an earlier dump of the same output, has ended.
    ///
    /// # Errors
    /// Out of threads.
    pub fn start(
        target: FileTarget,
        before: Option<Finished>,
        notices: mpsc::Sender<Notice>,
    ) -> io::Result<Self> {
        let (stopping, finished) = (Arc::new(AtomicBool::new(false)), Finished::default());
        let (flag, done) = (Arc::clone(&stopping), Arc::clone(&finished));
        let handle = std::thread::Builder::new().name(format!("file-{}", target.key)).spawn(move || {
            let (output, attempt, cursor) = (target.key, target.attempt, target.lane.live());
            while before.as_ref().is_some_and(|before| !before.load(Ordering::Acquire))
                && !flag.load(Ordering::Acquire)
            {
                std::thread::park_timeout(Duration::from_millis(10));
            }
            if let Err(error) = Dump::new(target, cursor).run(&flag)
                && !flag.load(Ordering::Acquire)
            {
                let kind = NoticeKind::WriteFailed(error.to_string());
                // Overflow policy: lost; the output then stands still, and its supervisor sees that.
                let _ = notices.try_send(Notice { output, attempt, kind });
            }
            done.store(true, Ordering::Release);
        })?;
        Ok(Self { stopping, finished, thread: handle.thread().clone() })
    }

    /// Tells when it has written its last byte.
    pub fn finished(&self) -> Finished {
        Arc::clone(&self.finished)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

struct Dump {
    target: FileTarget,
    cursor: Cursor,
    file: Option<BufWriter<File>>,
    opened: Nanos,
    written: u64,
    rate: Rate,
}

impl Dump {
    fn new(target: FileTarget, cursor: Cursor) -> Self {
        Self { target, cursor, file: None, opened: 0, written: 0, rate: Rate::default() }
    }

    fn run(mut self, stopping: &AtomicBool) -> io::Result<()> {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let last = stopping.load(Ordering::Acquire);
            let end = self.target.lane.head();
            while self.cursor.0 < end {
                batch.clear();
                let read = self.target.lane.read(&mut self.cursor, BATCH, &mut batch, |_| true);
                if read.skipped > 0 {
                    self.target.stats.skipped.fetch_add(read.skipped, Ordering::Relaxed);
                    self.target.stats.skips.fetch_add(1, Ordering::Relaxed);
                }
                for datagram in &batch {
                    self.write(&datagram.bytes)?;
                }
            }
            if let Some(file) = &mut self.file {
                file.flush()?;
            }
            let stats = &self.target.stats;
            stats.bitrate_bps.store(
                self.rate.update(clock::now(), stats.bytes.load(Ordering::Relaxed)),
                Ordering::Relaxed,
            );
            if last {
                return Ok(());
            }
            std::thread::park_timeout(PERIOD);
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let now = clock::now();
        let full = self.target.rotate_bytes.is_some_and(|most| self.written + bytes.len() as u64 > most)
            || self.target.rotate_after.is_some_and(|most| now - self.opened >= most.as_nanos() as u64);
        if full
            && self.written > 0
            && let Some(mut file) = self.file.take()
        {
            file.flush()?;
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let file = (self.target.create)(clock::wall())?;
                (self.opened, self.written) = (now, 0);
                self.file.insert(BufWriter::with_capacity(64 << 10, file))
            }
        };
        file.write_all(bytes)?;
        self.written += bytes.len() as u64;
        let stats = &self.target.stats;
        stats.datagrams.fetch_add(1, Ordering::Relaxed);
        stats.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        stats.last_sent_ms.store(clock::wall_ms(), Ordering::Relaxed);
        Ok(())
    }
}

const BATCH: usize = 64;
/// Well below the lane's bound, long enough for large writes.
const PERIOD: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Bounds;

    #[test]
    fn files_rotate_by_size_and_hold_every_byte() {
        let folder = tempfile::tempdir().unwrap();
        let (lane, mut writer) = Lane::new(Bounds::default());
        let (folder_path, mut count) = (folder.path().to_owned(), 0);
        let (notices, _mailbox) = mpsc::channel(8);
        let target = FileTarget {
            key: 1,
            attempt: 1,
            lane,
            stats: Arc::default(),
            create: Box::new(move |_| {
                count += 1;
                File::create(folder_path.join(format!("{count}.ts")))
            }),
            rotate_bytes: Some(188 * 4),
            rotate_after: None,
        };
        let stats = Arc::clone(&target.stats);
        let recorder = Recorder::start(target, None, notices).unwrap();
        let thread = recorder.thread.clone();
        // The dump begins at the head it finds when its thread starts.
        while stats.datagrams.load(Ordering::Relaxed) == 0 {
            writer.stage(&[0; 188], clock::now(), None);
            writer.commit(clock::now());
            thread.unpark();
            std::thread::yield_now();
        }
        let first = stats.datagrams.load(Ordering::Relaxed) as usize;
        (1..=9u8).for_each(|i| writer.stage(&[i; 188], clock::now(), None));
        while !writer.commit(clock::now()) {}
        while stats.datagrams.load(Ordering::Relaxed) < first as u64 + 9 {
            thread.unpark();
            std::thread::yield_now();
        }
        drop(recorder);
        let mut sizes = Vec::new();
        let mut all = Vec::new();
        let files = (first + 9).div_ceil(4);
        for i in 1..=files {
            // The last file is flushed by the thread as it ends.
            let path = folder.path().join(format!("{i}.ts"));
            let want = if i < files { 188 * 4 } else { (first + 9 - 4 * (files - 1)) * 188 };
            while std::fs::metadata(&path).map_or(0, |m| m.len()) < want as u64 {
                std::thread::yield_now();
            }
            let bytes = std::fs::read(&path).unwrap();
            sizes.push(bytes.len());
            all.extend(bytes);
        }
        let tail: Vec<u8> = all.chunks(188).map(|p| p[0]).skip(first).collect();
        assert_eq!(tail, (1..=9).collect::<Vec<u8>>(), "{sizes:?}");
    }
}
