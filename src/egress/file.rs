//! A lane written to files: datagrams of a transport stream or fragments of a movie enter, bytes on disk leave. Runs on
//! a thread of its own, because a disk may block for seconds; a disk that is too slow costs this output what it
//! carries, nobody else's.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;

use super::{Notice, NoticeKind, OutputKey};
use crate::hub::{Cursor, Item, Lane};
use crate::media::{Datagram, Message, Nanos, Ticks};
use crate::mux::rebased;
use crate::net::clock;
use crate::telemetry::{OutputStats, Rate};

/// Makes the next file of an output; its argument is the time of the first packet in it.
pub type CreateFile = Box<dyn FnMut(SystemTime) -> Result<File, DumpError> + Send>;

/// Why a file is not written.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// It cannot be made or written now; the disk may have room again, the folder may come back.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It must not be made, in words: only another path helps.
    #[error("{0}")]
    Refused(String),
}

impl DumpError {
    /// Whether the same path may be written later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Io(_))
    }
}

/// A file output.
pub struct FileTarget {
    /// Its name.
    pub key: OutputKey,
    /// Which attempt made it.
    pub attempt: u32,
    /// Where it counts.
    pub stats: Arc<OutputStats>,
    /// Makes its files.
    pub create: CreateFile,
    /// A new file after this many bytes.
    pub rotate_bytes: Option<u64>,
    /// A new file after this much time.
    pub rotate_after: Option<Duration>,
}

/// What files are made of.
pub trait Recorded: Item {
    /// Its bytes in a file whose first item has the time `start`.
    fn bytes(&self, start: Ticks) -> Cow<'_, [u8]>;

    /// Its time, where a file has times of its own.
    fn time(&self) -> Ticks;

    /// Where a file may begin with it: what stands before it there. A file holds what follows one head only: with
    /// another one another file begins.
    fn head(&self) -> Option<&[u8]>;
}

impl Recorded for Datagram {
    fn bytes(&self, _start: Ticks) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn time(&self) -> Ticks {
        0
    }

    fn head(&self) -> Option<&[u8]> {
        Some(&[])
    }
}

impl Recorded for Message {
    fn bytes(&self, start: Ticks) -> Cow<'_, [u8]> {
        // What is recorded of messages are fragments of movies.
        Cow::Owned(rebased(&self.bytes, start))
    }

    fn time(&self) -> Ticks {
        self.dts
    }

    fn head(&self) -> Option<&[u8]> {
        self.preface.as_deref()
    }
}

/// A running dump; ends when dropped, without waiting for the disk.
#[derive(Debug)]
pub struct Recorder {
    stopping: Arc<AtomicBool>,
    /// What has to happen before its last look at the lane.
    settled: Arc<OnceLock<Arc<AtomicBool>>>,
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
    pub fn start<T: Recorded>(
        target: FileTarget,
        lane: Arc<Lane<T>>,
        before: Option<Finished>,
        notices: mpsc::Sender<Notice>,
    ) -> io::Result<Self> {
        let (stopping, finished) = (Arc::new(AtomicBool::new(false)), Finished::default());
        let (flag, done) = (Arc::clone(&stopping), Arc::clone(&finished));
        let settled = Arc::<OnceLock<Arc<AtomicBool>>>::default();
        let last = Arc::clone(&settled);
        let handle = std::thread::Builder::new().name(format!("file-{}", target.key)).spawn(move || {
            let (output, attempt, cursor) = (target.key, target.attempt, lane.live());
            while before.as_ref().is_some_and(|before| !before.load(Ordering::Acquire))
                && !flag.load(Ordering::Acquire)
            {
                std::thread::park_timeout(Duration::from_millis(10));
            }
            if let Err(error) = Dump::new(target, lane, cursor).run(&flag, &last)
                && !flag.load(Ordering::Acquire)
            {
                let kind =
                    NoticeKind::WriteFailed { reason: error.to_string(), retryable: error.is_retryable() };
                // Overflow policy: lost; the output then stands still, and its supervisor sees that.
                let _ = notices.try_send(Notice { output, attempt, kind });
            }
            done.store(true, Ordering::Release);
        })?;
        Ok(Self { stopping, settled, finished, thread: handle.thread().clone() })
    }

    /// Ends when it has written what is in the lane once `settled` is true: what whoever fills it still holds. A lane
    /// that does not settle is waited for half a second.
    pub fn end(self, settled: Arc<AtomicBool>) {
        let _ = self.settled.set(settled);
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

struct Dump<T> {
    target: FileTarget,
    lane: Arc<Lane<T>>,
    cursor: Cursor,
    file: Option<BufWriter<File>>,
    /// What the file began with, and when that was on its stream's timeline.
    head: Vec<u8>,
    start: Ticks,
    opened: Nanos,
    written: u64,
    rate: Rate,
}

impl<T: Recorded> Dump<T> {
    fn new(target: FileTarget, lane: Arc<Lane<T>>, cursor: Cursor) -> Self {
        let (head, rate) = (Vec::new(), Rate::default());
        Self { target, lane, cursor, file: None, head, start: 0, opened: 0, written: 0, rate }
    }

    fn run(mut self, stopping: &AtomicBool, settled: &OnceLock<Arc<AtomicBool>>) -> Result<(), DumpError> {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let last = stopping.load(Ordering::Acquire);
            if let Some(settled) = settled.get().filter(|_| last) {
                (0..SETTLE)
                    .take_while(|_| !settled.load(Ordering::Acquire))
                    .for_each(|_| std::thread::park_timeout(SETTLE_LOOK));
            }
            let end = self.lane.head();
            while self.cursor.0 < end {
                batch.clear();
                let read = self.lane.read(&mut self.cursor, BATCH, &mut batch, |_| true);
                if read.skipped > 0 {
                    self.target.stats.skipped.fetch_add(read.skipped, Ordering::Relaxed);
                    self.target.stats.skips.fetch_add(1, Ordering::Relaxed);
                }
                for item in &batch {
                    self.write(item)?;
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

    fn write(&mut self, item: &T) -> Result<(), DumpError> {
        let now = clock::now();
        let mut bytes = item.bytes(self.start);
        let begins = item.head().is_some_and(|head| self.is_full(bytes.len(), now) || head != self.head);
        if begins
            && self.written > 0
            && let Some(mut file) = self.file.take()
        {
            file.flush()?;
        }
        let file = match (&mut self.file, item.head()) {
            (Some(file), _) => file,
            // Nothing can begin with it.
            (None, None) => return Ok(()),
            (None, Some(head)) => {
                let file = (self.target.create)(clock::wall())?;
                (self.opened, self.written, self.start) = (now, 0, item.time());
                bytes = item.bytes(self.start);
                let file = self.file.insert(BufWriter::with_capacity(64 << 10, file));
                self.head = head.to_vec();
                file.write_all(head)?;
                file
            }
        };
        file.write_all(&bytes)?;
        self.written += bytes.len() as u64;
        let stats = &self.target.stats;
        stats.datagrams.fetch_add(1, Ordering::Relaxed);
        stats.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        stats.last_sent_ms.store(clock::wall_ms(), Ordering::Relaxed);
        Ok(())
    }

    fn is_full(&self, length: usize, now: Nanos) -> bool {
        let FileTarget { rotate_bytes, rotate_after, .. } = &self.target;
        rotate_bytes.is_some_and(|most| self.written + length as u64 > most)
            || rotate_after.is_some_and(|most| now - self.opened >= most.as_nanos() as u64)
    }
}

const BATCH: usize = 64;
/// Well below the lane's bound, long enough for large writes.
const PERIOD: Duration = Duration::from_millis(100);
/// How often, and how far apart, it looks whether its lane has settled.
const SETTLE: usize = 50;
const SETTLE_LOOK: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{Bounds, LaneWriter};

    /// A dump of a new lane, and where its notices come.
    fn record(create: CreateFile) -> (Recorder, LaneWriter, mpsc::Receiver<Notice>) {
        let (lane, writer) = Lane::new(Bounds::default());
        let (notices, mailbox) = mpsc::channel(8);
        let target = FileTarget {
            key: 1,
            attempt: 3,
            stats: Arc::default(),
            create,
            rotate_bytes: Some(188 * 4),
            rotate_after: None,
        };
        (Recorder::start(target, lane, None, notices).unwrap(), writer, mailbox)
    }

    /// Writes until `done`: a dump begins at the head that it finds when its thread starts.
    fn write_until(writer: &mut LaneWriter, recorder: &Recorder, mut done: impl FnMut() -> bool) {
        while !done() {
            writer.stage(&[0; 188], clock::now(), None);
            writer.commit(clock::now());
            recorder.thread.unpark();
            std::thread::yield_now();
        }
    }

    #[test]
    fn files_rotate_by_size_and_hold_every_byte() {
        let folder = tempfile::tempdir().unwrap();
        let (folder_path, mut count) = (folder.path().to_owned(), 0);
        let (recorder, mut writer, _mailbox) = record(Box::new(move |_| {
            count += 1;
            Ok(File::create(folder_path.join(format!("{count}.ts")))?)
        }));
        let part = |number: usize| std::fs::read(folder.path().join(format!("{number}.ts")));
        write_until(&mut writer, &recorder, || part(1).is_ok());
        (1..=9u8).for_each(|i| writer.stage(&[i; 188], clock::now(), None));
        while !writer.commit(clock::now()) {}
        let finished = recorder.finished();
        drop(recorder);
        while !finished.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        let parts: Vec<Vec<u8>> = (1..).map_while(|number| part(number).ok()).collect();
        let full = parts.split_last().unwrap().1;
        assert!(parts.len() >= 3 && full.iter().all(|part| part.len() == 188 * 4));
        let all = parts.concat();
        let tail: Vec<u8> = all.as_chunks::<188>().0.iter().map(|p| p[0]).skip_while(|b| *b == 0).collect();
        assert_eq!(tail, (1..=9).collect::<Vec<u8>>());
    }

    #[test]
    fn what_must_not_be_made_is_told_apart_from_what_cannot_be_made_now() {
        type Create = fn() -> DumpError;
        let refused: Create = || DumpError::Refused("leads out".into());
        let full: Create = || io::Error::from_raw_os_error(28).into();
        for (error, said, later) in [(refused, "leads out", false), (full, "No space left", true)] {
            let (recorder, mut writer, mut mailbox) = record(Box::new(move |_| Err(error())));
            write_until(&mut writer, &recorder, || !mailbox.is_empty());
            let Notice { output: 1, attempt: 3, kind: NoticeKind::WriteFailed { reason, retryable } } =
                mailbox.try_recv().unwrap()
            else {
                panic!("another notice");
            };
            assert!(reason.contains(said), "{reason}");
            assert_eq!(retryable, later, "{reason}");
        }
    }

    /// A dump of messages to `1.mp4`, `2.mp4` and so on in a folder.
    fn record_messages(folder: &std::path::Path) -> (Recorder, LaneWriter<Message>) {
        let (lane, writer) = Lane::new(Bounds::default());
        let (folder, mut count) = (folder.to_owned(), 0);
        let create: CreateFile = Box::new(move |_| {
            count += 1;
            Ok(File::create(folder.join(format!("{count}.mp4")))?)
        });
        let stats = Arc::default();
        let target = FileTarget { key: 1, attempt: 3, stats, create, rotate_bytes: None, rotate_after: None };
        (Recorder::start(target, lane, None, mpsc::channel(8).0).unwrap(), writer)
    }

    fn push(writer: &mut LaneWriter<Message>, head: Option<&'static str>, bytes: &'static str) {
        let preface = head.map(|head| head.as_bytes().into());
        writer.push(Message { bytes: bytes.as_bytes().into(), arrival: clock::now(), dts: 0, preface });
        while !writer.commit(clock::now()) {}
    }

    #[test]
    fn with_another_head_another_file_begins_and_the_end_waits_for_what_is_still_made() {
        let folder = tempfile::tempdir().unwrap();
        let (recorder, mut writer) = record_messages(folder.path());
        let part = |number: usize| std::fs::read_to_string(folder.path().join(format!("{number}.mp4")));
        while part(1).is_err() {
            push(&mut writer, Some("head"), ".");
            std::thread::yield_now();
        }
        for (head, bytes) in
            [(Some("head"), "a"), (None, "b"), (Some("other"), "c"), (None, "d"), (Some("other"), "e")]
        {
            push(&mut writer, head, bytes);
        }
        let (finished, settled) = (recorder.finished(), Arc::<AtomicBool>::default());
        recorder.end(Arc::clone(&settled));
        push(&mut writer, None, "tail");
        settled.store(true, Ordering::Release);
        while !finished.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        assert_eq!(part(1).unwrap().replace('.', ""), "headab");
        assert_eq!(part(2).unwrap(), "othercdetail");
        assert!(part(3).is_err());
    }
}
