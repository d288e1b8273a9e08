//! Inputs that a task reads: a connection that is made enters, what it gives goes into the stream's queue until it ends.
//! One task for each input, never for a packet or an output.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle};

use crate::hub::{FeedWriter, StreamKey};
use crate::ingest::{Fed, Notice, NoticeKind};
use crate::telemetry::InputStats;

/// A source that is connected and waits for its stream.
pub(super) struct Feeder(Box<dyn FnOnce(FeedWriter<Fed>, Arc<InputStats>) -> Reading + Send>);

type Reading = Pin<Box<dyn Future<Output = Ending> + Send>>;

/// How a source ended.
#[derive(Debug)]
pub(super) enum Ending {
    /// It said that there is no more.
    Ended,
    /// It failed.
    Failed {
        /// Why, in words, without secrets.
        reason: String,
        /// Trying again may help without a change of the configuration.
        retryable: bool,
    },
}

/// A task that is stopped when this is dropped.
pub(super) struct Task(AbortHandle);

impl Feeder {
    /// A source that `read` reads until it ends: it puts `Fed::Frames` or `Fed::Datagrams` first, and rings after
    /// each batch.
    pub(super) fn new<R>(read: impl FnOnce(FeedWriter<Fed>, Arc<InputStats>) -> R + Send + 'static) -> Self
    where
        R: Future<Output = Ending> + Send + 'static,
    {
        Self(Box::new(|feed, stats| Box::pin(read(feed, stats))))
    }

    /// Starts to read, and tells the end through `notices`.
    pub(super) fn start(
        self,
        media: &Handle,
        (stream, attempt): (StreamKey, u32),
        feed: FeedWriter<Fed>,
        stats: Arc<InputStats>,
        notices: mpsc::Sender<Notice>,
    ) -> Task {
        let reading = (self.0)(feed, stats);
        let task = media.spawn(async move {
            let kind = match reading.await {
                Ending::Ended => NoticeKind::Ended,
                Ending::Failed { reason, retryable } => NoticeKind::Failed { reason, retryable },
            };
            // Nobody listens when the engine ends.
            let _ = notices.send(Notice { stream, attempt, kind }).await;
        });
        Task::own(&task)
    }
}

impl Task {
    /// Takes a task over.
    pub(super) fn own(task: &JoinHandle<()>) -> Self {
        Self(task.abort_handle())
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
