//! Batched sending: the same bytes to many destinations with one sendmmsg call, cut into datagrams by the kernel
//! (UDP_SEGMENT). A destination that fails costs no other its datagram.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use socket2::Socket;

use super::address::{RawAddr, unmapped};
use super::errqueue::{self, PathError};
use super::socket::{self, SendOptions, SocketError};

/// Datagrams that the kernel cuts from one message at the most (UDP_MAX_SEGMENTS of the oldest kernels).
pub const MAX_SEGMENTS: usize = 64;

/// An unconnected socket that many outputs share.
#[derive(Debug)]
pub struct SendSocket {
    socket: Socket,
    options: SendOptions,
    segment: u16,
}

impl SendSocket {
    /// Opens a socket with don't-fragment set that keeps its ICMP errors.
    ///
    /// # Errors
    /// The step that failed and why.
    pub fn open(options: SendOptions) -> Result<Self, SocketError> {
        Ok(Self { socket: socket::sender(&options)?, options, segment: 0 })
    }

    /// Another handle of a socket that somebody else bound. Nobody else may send through it as long as this lives.
    pub(super) fn share(socket: &Socket) -> Result<Self, SocketError> {
        let socket = socket.try_clone().map_err(SocketError::at("share a UDP socket"))?;
        // Whoever had it before may have cut messages.
        socket::set(&socket, libc::SOL_UDP, libc::UDP_SEGMENT, libc::c_int::from(0u16))
            .map_err(SocketError::at("send whole datagrams"))?;
        Ok(Self { socket, options: SendOptions::default(), segment: 0 })
    }

    /// Takes a datagram that came to it; how long it is (cut to the buffer) and whose.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`]: there is none. Others are about something sent before.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let mut name = RawAddr::EMPTY;
        let mut length = size_of::<RawAddr>() as libc::socklen_t;
        // SAFETY: buffer and name are live, with their true lengths.
        let count = unsafe {
            libc::recvfrom(
                self.socket.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                libc::MSG_DONTWAIT,
                std::ptr::from_mut(&mut name).cast(),
                &mut length,
            )
        };
        match (usize::try_from(count), name.decode()) {
            (Ok(count), Some(from)) => Ok((count, unmapped(from))),
            (Ok(_), None) => Err(io::Error::from(io::ErrorKind::InvalidData)),
            (Err(_), _) => Err(io::Error::last_os_error()),
        }
    }

    /// What it was opened with.
    pub fn options(&self) -> &SendOptions {
        &self.options
    }

    /// Takes errors that came back since the last call, at most a few hundred.
    pub fn path_errors(&self, each: impl FnMut(PathError)) {
        errqueue::drain(&self.socket, 256, each);
    }

    /// Bytes per datagram that the kernel shall cut messages into; 0 = messages are datagrams.
    fn cut(&mut self, segment: u16) -> io::Result<()> {
        if self.segment != segment {
            socket::set(&self.socket, libc::SOL_UDP, libc::UDP_SEGMENT, libc::c_int::from(segment))?;
            self.segment = segment;
        }
        Ok(())
    }
}

impl AsFd for SendSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Prepared destinations that get the same bytes: a message header each, one list of parts for all.
pub struct Batch {
    names: Vec<RawAddr>,
    headers: Vec<libc::mmsghdr>,
    parts: Vec<libc::iovec>,
    /// `names` or `parts` moved since the headers were pointed at them.
    stale: bool,
}

/// A destination that did not get its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// Its place in the batch.
    pub index: usize,
    /// errno.
    pub errno: i32,
}

/// What a send did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    /// Messages that the kernel took.
    pub messages: usize,
    /// System calls.
    pub calls: usize,
}

// SAFETY: the raw pointers in `headers` point into the vectors of the same struct (or are refreshed before use),
// and `parts` is only read inside `send`, while the slices it was made from are borrowed.
unsafe impl Send for Batch {}

impl Default for Batch {
    fn default() -> Self {
        Self { names: Vec::new(), headers: Vec::new(), parts: Vec::with_capacity(16), stale: true }
    }
}

impl Batch {
    /// Adds a destination at the end.
    pub fn push(&mut self, destination: SocketAddr) {
        self.names.push(destination.into());
        // SAFETY: an all-zero mmsghdr is valid; it is pointed at its name before use.
        self.headers.push(unsafe { std::mem::zeroed() });
        self.stale = true;
    }

    /// Removes a destination; the last one takes its place.
    pub fn swap_remove(&mut self, index: usize) {
        self.names.swap_remove(index);
        self.headers.swap_remove(index);
        self.stale = true;
    }

    /// Destinations in it.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether it has no destination.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Sends `parts`, one after the other, as one message to every destination; with `segment` > 0 the kernel
    /// cuts the message into datagrams of that many bytes. Goes on behind a destination that fails, and puts it
    /// into `failures`. `EAGAIN` means that the interface's queue is full: the rest then fails with it too.
    pub fn send(
        &mut self,
        socket: &mut SendSocket,
        parts: &[IoSlice<'_>],
        segment: u16,
        failures: &mut Vec<Failure>,
    ) -> Sent {
        self.send_to(socket, parts, segment, 0..self.names.len(), failures)
    }

    /// As [`Batch::send`], to one destination.
    ///
    /// # Errors
    /// errno of the failure.
    pub fn send_one(
        &mut self,
        socket: &mut SendSocket,
        parts: &[IoSlice<'_>],
        segment: u16,
        index: usize,
    ) -> Result<(), i32> {
        let mut failures = Vec::new();
        self.send_to(socket, parts, segment, index..index + 1, &mut failures);
        failures.first().map_or(Ok(()), |f| Err(f.errno))
    }

    fn send_to(
        &mut self,
        socket: &mut SendSocket,
        parts: &[IoSlice<'_>],
        segment: u16,
        range: std::ops::Range<usize>,
        failures: &mut Vec<Failure>,
    ) -> Sent {
        let mut sent = Sent::default();
        if let Err(error) = socket.cut(segment) {
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            failures.extend(range.map(|index| Failure { index, errno }));
            return sent;
        }
        self.point_at(parts);
        let (mut at, mut retried) = (range.start, 0);
        while at < range.end {
            // SAFETY: headers[at..end] were pointed at live names and parts by `point_at`; `parts` borrows the
            // bytes for the whole of this function.
            let n = unsafe {
                libc::sendmmsg(
                    socket.socket.as_raw_fd(),
                    self.headers.as_mut_ptr().add(at),
                    (range.end - at) as libc::c_uint,
                    libc::MSG_DONTWAIT,
                )
            };
            sent.calls += 1;
            if n > 0 {
                sent.messages += n as usize;
                at += n as usize;
                retried = 0;
                continue;
            }
            let errno = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
            if errno == libc::EINTR || (is_left_behind(errno) && retried < RETRIES) {
                // An ICMP error for another destination waits on the socket and fails whoever sends next; it
                // is consumed by that, so the same entry is tried again.
                retried += 1;
                continue;
            }
            failures.push(Failure { index: at, errno });
            at += 1;
            retried = 0;
            if errno == libc::EAGAIN || errno == libc::ENOBUFS {
                failures.extend((at..range.end).map(|index| Failure { index, errno }));
                break;
            }
        }
        sent
    }

    fn point_at(&mut self, parts: &[IoSlice<'_>]) {
        if parts.len() > self.parts.capacity() {
            self.parts.reserve(parts.len());
            self.stale = true;
        }
        self.stale |= self.parts.len() != parts.len();
        self.parts.clear();
        self.parts.extend(
            parts
                .iter()
                .map(|part| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() }),
        );
        if self.stale {
            for (header, name) in self.headers.iter_mut().zip(&mut self.names) {
                let header = &mut header.msg_hdr;
                header.msg_namelen = name.len();
                header.msg_name = std::ptr::from_mut(name).cast();
                header.msg_iov = self.parts.as_mut_ptr();
                header.msg_iovlen = self.parts.len();
            }
            self.stale = false;
        }
    }
}

/// Whether the error may be an ICMP message about another destination, left on the socket.
pub(super) fn is_left_behind(errno: i32) -> bool {
    matches!(
        errno,
        libc::ECONNREFUSED
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::EPROTO
            | libc::ENOPROTOOPT
            | libc::EHOSTDOWN
            | libc::EOPNOTSUPP
            | libc::EACCES
            | libc::EMSGSIZE
    )
}

/// One error can be left behind between two tries of the same entry; a second is possible when an ICMP arrives
/// from the network at that very moment.
const RETRIES: usize = 2;

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::super::Icmp;
    use super::*;

    fn sink() -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket
    }

    fn open() -> SendSocket {
        SendSocket::open(SendOptions {
            v6: false,
            interface: 0,
            force_interface: false,
            ttl: None,
            dscp: None,
            source_port: None,
        })
        .unwrap()
    }

    #[test]
    fn one_message_becomes_datagrams_at_every_destination() {
        let sinks = [sink(), sink(), sink()];
        let mut batch = Batch::default();
        sinks.iter().for_each(|s| batch.push(s.local_addr().unwrap()));
        let (a, b) = (vec![1u8; 1316], vec![2u8; 1316 + 188]);
        let mut failures = Vec::new();
        let sent = batch.send(&mut open(), &[IoSlice::new(&a), IoSlice::new(&b)], 1316, &mut failures);
        assert_eq!((sent, failures.len()), (Sent { messages: 3, calls: 1 }, 0));
        for sink in &sinks {
            let mut buffer = [0; 2000];
            let sizes: Vec<usize> = (0..3).map(|_| sink.recv(&mut buffer).unwrap()).collect();
            assert_eq!(sizes, [1316, 1316, 188]);
        }
    }

    #[test]
    fn a_closed_port_costs_no_neighbour_its_datagram_and_is_named() {
        let (alive, closed) = (sink(), sink().local_addr().unwrap());
        let mut batch = Batch::default();
        for i in 0..40 {
            batch.push(if i % 2 == 0 { closed } else { alive.local_addr().unwrap() });
        }
        let mut socket = open();
        let mut failures = Vec::new();
        for round in 0..50u8 {
            batch.send(&mut socket, &[IoSlice::new(&[round; 188])], 0, &mut failures);
            let mut named = Vec::new();
            socket.path_errors(|e| named.push(e));
            assert!(!named.is_empty());
            assert!(
                named.iter().all(|e| *e == PathError { destination: closed, kind: Icmp::PortUnreachable })
            );
            let mut buffer = [0; 188];
            for _ in 0..20 {
                alive.recv(&mut buffer).unwrap();
                assert_eq!(buffer[0], round);
            }
        }
        assert_eq!(failures, []);
    }

    #[test]
    fn an_unroutable_destination_fails_alone() {
        let alive = sink();
        let mut batch = Batch::default();
        // 255.255.255.255 without SO_BROADCAST is refused by the kernel itself.
        batch.push("255.255.255.255:9".parse().unwrap());
        batch.push(alive.local_addr().unwrap());
        let mut failures = Vec::new();
        let sent = batch.send(&mut open(), &[IoSlice::new(b"x")], 0, &mut failures);
        assert_eq!(sent.messages, 1);
        assert_eq!(failures, [Failure { index: 0, errno: libc::EACCES }]);
        assert_eq!(alive.recv(&mut [0; 8]).unwrap(), 1);
    }
}
