//! One driver per kind of source: bytes from sockets and files, or frames that a session received, enter; what is in the
//! stream's lanes leaves. Never sees egress, never waits for an output.

mod file;
mod inlet;
mod pipe;
mod splice;
mod udp;

pub use file::{FileDriver, FileError};
pub use inlet::{Command, Inlet};
pub use udp::{SenderRule, UdpDriver};

use std::os::fd::{AsFd, BorrowedFd};

use bytes::Bytes;

use crate::hub::{FeedReader, StreamKey, Tools};
use crate::media::{Frame, Nanos};
use crate::telemetry::InputStats;

/// What takes what a driver hands its stream, with its arrival.
pub type Feed<'a> = dyn FnMut(Piece<'_>, Nanos) + 'a;

/// What a driver hands its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Bytes of one datagram, or the next bytes of a file.
    Bytes(&'a [u8]),
    /// So many packets behind what was handed over, the source plays anew from its beginning.
    Seam(u64),
}

/// What feeds a stream. Drivers come and go; the stream and its lanes stay.
pub enum Driver {
    /// Transport packets in UDP datagrams, bare or behind RTP.
    Udp(Box<UdpDriver>),
    /// A file, paced by its clock.
    File(Box<FileDriver>),
    /// What a session receives for it elsewhere.
    Fed(FeedReader),
    /// The same, of sessions that may give access units.
    Media(FeedReader<Fed>),
}

/// What a session hands over that may give access units or datagrams.
#[derive(Debug, Clone)]
pub enum Fed {
    /// A source begins that gives access units: their times have nothing to do with those before.
    Frames,
    /// A source begins that gives transport packets.
    Datagrams,
    /// An access unit.
    Frame(Frame),
    /// Transport packets, and when they arrived.
    Datagram(Bytes, Nanos),
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
            Self::Media(reader) => Some(reader.as_fd()),
        }
    }

    /// Hands over the bytes that are there, and says what went wrong and whether there is more. Where there may be
    /// access units, everything is taken from [`Driver::media`].
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
                reader.take(|(bytes, arrival)| feed(Piece::Bytes(&bytes), arrival));
                (None, false)
            }
            Self::Media(_) => (None, false),
        }
    }

    /// Where what it has is, if that may be access units.
    pub fn media(&self) -> Option<&FeedReader<Fed>> {
        match self {
            Self::Media(reader) => Some(reader),
            _ => None,
        }
    }

    fn next_due(&self) -> Option<Nanos> {
        match self {
            Self::Udp(udp) => udp.next_due(),
            Self::File(file) => file.next_due(),
            Self::Fed(_) | Self::Media(_) => None,
        }
    }
}
