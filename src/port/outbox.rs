//! Datagrams of many sessions on their way out: headers, payloads of a lane and control packets enter, one sendmmsg
//! leaves. Equal datagrams of one session become one message that the kernel cuts (UDP_SEGMENT).

use std::net::SocketAddr;
use std::ops::Range;

use crate::media::Datagram;
use crate::net::{Failure, Mailing, PortSocket};
use crate::wire::srt::crypto::DataKey;
use crate::wire::srt::{ControlPacket, DataHeader, HEADER};

/// Scratch that all sessions of a shard share.
#[derive(Default)]
pub(super) struct Outbox {
    /// New datagrams of the lane that is walked; refcounted, not copied.
    pub(super) run: Vec<Datagram>,
    /// Datagrams that are sent again.
    again: Vec<Datagram>,
    /// Headers, sealed payloads, control packets.
    bytes: Vec<u8>,
    pieces: Vec<Piece>,
    letters: Vec<Letter>,
    mailing: Mailing,
    failures: Vec<Failure>,
}

/// Payload of a data packet.
pub(super) enum Payload {
    /// As it is in the run.
    New(usize),
    /// As it was in the lane.
    Again(Datagram),
}

enum Piece {
    Bytes(Range<usize>),
    New(usize),
    Again(usize),
}

/// A message for one session.
struct Letter {
    session: usize,
    to: SocketAddr,
    end: usize,
    /// Length of its datagrams but the last; 0 = it is one datagram.
    segment: usize,
    length: usize,
    datagrams: usize,
    /// Its last datagram was shorter: none may follow.
    closed: bool,
}

/// Whom a letter goes to.
#[derive(Clone, Copy)]
pub(super) struct Addressee {
    /// Index of the session.
    pub(super) session: usize,
    /// Its peer.
    pub(super) to: SocketAddr,
    /// The kernel may cut its messages.
    pub(super) segmented: bool,
}

/// What sending did.
#[derive(Default)]
pub(super) struct Posted {
    pub(super) messages: u64,
    pub(super) datagrams: u64,
    /// An error of some peer may wait on the socket.
    pub(super) look_at_errors: bool,
    /// Sessions whose message the kernel refused, with errno.
    pub(super) refused: Vec<(usize, i32)>,
}

impl Outbox {
    /// Adds a data packet, its payload sealed with `key` where there is one.
    pub(super) fn data(
        &mut self,
        to: Addressee,
        header: DataHeader,
        payload: Payload,
        key: Option<&DataKey>,
    ) {
        let head = header.to_bytes();
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&head);
        let clear = match &payload {
            Payload::New(index) => &self.run[*index].bytes,
            Payload::Again(datagram) => &datagram.bytes,
        };
        let mut length = HEADER + clear.len();
        if let Some(key) = key {
            length += key.growth();
            self.bytes.resize(at + length, 0);
            if key.seal(&head, clear, &mut self.bytes[at + HEADER..]).is_none() {
                self.bytes.truncate(at);
                return;
            }
        }
        self.open(to, length);
        self.pieces.push(Piece::Bytes(at..self.bytes.len()));
        match payload {
            _ if key.is_some() => {}
            Payload::New(index) => self.pieces.push(Piece::New(index)),
            Payload::Again(datagram) => {
                self.again.push(datagram);
                self.pieces.push(Piece::Again(self.again.len() - 1));
            }
        }
        self.shut();
    }

    /// Adds a control packet: as the last, shorter datagram of the session's message where there is one.
    pub(super) fn control(&mut self, to: Addressee, packet: &ControlPacket<'_>) {
        let at = self.bytes.len();
        packet.write(&mut self.bytes);
        self.open(to, self.bytes.len() - at);
        self.pieces.push(Piece::Bytes(at..self.bytes.len()));
        self.shut();
    }

    /// Adds a datagram that is made already.
    pub(super) fn raw(&mut self, to: Addressee, datagram: &[u8]) {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(datagram);
        self.open(to, datagram.len());
        self.pieces.push(Piece::Bytes(at..self.bytes.len()));
        self.shut();
    }

    /// Whether it is time to send, so that what was written is still in the cache.
    pub(super) fn is_full(&self) -> bool {
        self.letters.len() >= LETTERS || self.bytes.len() >= BYTES
    }

    /// Sends everything.
    pub(super) fn post(&mut self, socket: &PortSocket) -> Posted {
        let Self { run, again, bytes, pieces, letters, mailing, failures } = self;
        let mut posted = Posted::default();
        if letters.is_empty() {
            return posted;
        }
        let mut mail = mailing.begin(socket);
        let mut start = 0;
        for letter in &*letters {
            for piece in &pieces[start..letter.end] {
                mail.part(match piece {
                    Piece::Bytes(range) => &bytes[range.clone()],
                    Piece::New(index) => &run[*index].bytes,
                    Piece::Again(index) => &again[*index].bytes,
                });
            }
            start = letter.end;
            // A lone datagram is cheaper without: the kernel then builds it in one piece.
            let segment = if letter.datagrams > 1 { letter.segment as u16 } else { 0 };
            mail.close(letter.to, segment);
            posted.datagrams += letter.datagrams as u64;
        }
        failures.clear();
        let sent = mail.send(failures);
        posted.messages = sent.messages as u64;
        posted.look_at_errors = sent.calls > 1;
        posted.refused.extend(failures.iter().map(|f| (letters[f.index].session, f.errno)));
        again.clear();
        bytes.clear();
        pieces.clear();
        letters.clear();
        posted
    }

    /// The next datagram goes into the session's open message if it fits there, else into a new one.
    fn open(&mut self, to: Addressee, length: usize) {
        let fits = self.letters.last().is_some_and(|letter| {
            to.segmented
                && letter.session == to.session
                && !letter.closed
                && length <= letter.segment
                && letter.datagrams < SEGMENTS
                && letter.length + length <= MESSAGE
        });
        if !fits {
            let (session, to) = (to.session, to.to);
            let end = self.pieces.len();
            self.letters.push(Letter {
                session,
                to,
                end,
                segment: length,
                length: 0,
                datagrams: 0,
                closed: false,
            });
        }
        if let Some(letter) = self.letters.last_mut() {
            letter.length += length;
            letter.datagrams += 1;
            letter.closed = length < letter.segment;
        }
    }

    fn shut(&mut self) {
        if let Some(letter) = self.letters.last_mut() {
            letter.end = self.pieces.len();
        }
    }
}

/// Messages in one call.
const LETTERS: usize = 64;
/// Written bytes in one call.
const BYTES: usize = 192 << 10;
/// Datagrams in one message: UDP_MAX_SEGMENTS of the oldest kernels is 64.
const SEGMENTS: usize = 44;
/// Bytes in one message; IPv4 allows 65,507.
const MESSAGE: usize = 64_000;
