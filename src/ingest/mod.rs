//! One driver per kind of source: bytes from sockets and files enter, datagrams in the stream's lanes leave. Never
//! sees egress, never waits for an output.

mod file;
mod inlet;
mod udp;

pub use file::{FileDriver, FileError};
pub use inlet::{Command, Inlet};
pub use udp::{SenderRule, UdpDriver};

use std::os::fd::{AsFd, BorrowedFd};

use crate::hub::{FeedReader, StreamKey, Tools};
use crate::media::Nanos;
use crate::telemetry::InputStats;

/// What a driver hands its stream: bytes of one datagram (or the next bytes of a file) and their arrival.
pub type Feed<'a> = dyn FnMut(&[u8], Nanos) + 'a;

/// What feeds a stream. Drivers come and go; the stream and its lanes stay.
pub enum Driver {
    /// Transport packets in UDP datagrams, bare or behind RTP.
    Udp(Box<UdpDriver>),
    /// A file, paced by its clock.
    File(Box<FileDriver>),
    /// What a session receives for it elsewhere.
    Fed(FeedReader),
}

/// Something that the stream's supervisor has to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Which stream.
    pub stream: StreamKey,
    /// Which of its drivers, so that a late notice of a former one is not taken for this one's.
    pub attempt: u32,
    /// What happened.
    pub kind: NoticeKind,
}

/// What happened to a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoticeKind {
    /// It is over and was not asked to loop.
    Ended,
    /// It failed.
    Failed {
        /// Why, in words.
        reason: String,
        /// Trying again may help.
        retryable: bool,
    },
}

impl Driver {
    fn socket(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Udp(udp) => Some(udp.socket()),
            Self::File(_) => None,
            Self::Fed(reader) => Some(reader.as_fd()),
        }
    }

    /// Hands over what is there, and says what went wrong and whether there is more.
    pub fn poll(
        &mut self,
        tools: &mut Tools,
        now: Nanos,
        stats: &InputStats,
        feed: &mut Feed<'_>,
    ) -> (Option<NoticeKind>, bool) {
        match self {
            Self::Udp(udp) => udp.poll(tools, now, stats, feed),
            Self::File(file) => (file.poll(now, feed), false),
            Self::Fed(reader) => {
                reader.take(|bytes, arrival| feed(&bytes, arrival));
                (None, false)
            }
        }
    }

    fn next_due(&self) -> Option<Nanos> {
        match self {
            Self::Udp(udp) => udp.next_due(),
            Self::File(file) => file.next_due(),
            Self::Fed(_) => None,
        }
    }
}
