//! A socket that many sessions share, in both directions: messages of different bytes to different peers leave with
//! one sendmmsg call, each cut into datagrams by the kernel where it is long (UDP_SEGMENT).

use std::io;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use socket2::Socket;

use super::address::{RawAddr, mapped, unmapped};
use super::errqueue::{self, PathError};
use super::send::{Failure, Sent, is_left_behind};
use super::socket::{self, PortOptions, SocketError};

/// A bound socket that sends to and receives from any peer.
#[derive(Debug)]
pub struct PortSocket {
    socket: Socket,
    local: SocketAddr,
}

impl PortSocket {
    /// Opens and binds it.
    ///
    /// # Errors
    /// The step that failed and why.
    pub fn open(options: &PortOptions) -> Result<Self, SocketError> {
        let (socket, local) = socket::port(options)?;
        Ok(Self { socket, local })
    }

    /// Where it is bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Takes errors that came back since the last call, at most a few hundred.
    pub fn path_errors(&self, mut each: impl FnMut(PathError)) {
        errqueue::drain(&self.socket, 256, |error| {
            each(PathError { destination: unmapped(error.destination), ..error });
        });
    }
}

impl AsFd for PortSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for PortSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Scratch for messages that leave together; keeps its memory from one mail to the next.
#[derive(Default)]
pub struct Mailing {
    names: Vec<RawAddr>,
    parts: Vec<libc::iovec>,
    /// End of each message's parts.
    ends: Vec<usize>,
    controls: Vec<Control>,
    headers: Vec<libc::mmsghdr>,
}

// SAFETY: the raw pointers in `parts` and `headers` are only followed by `Mail::send`, while the slices they were
// made from are borrowed and the vectors they point into do not change.
unsafe impl Send for Mailing {}

impl Mailing {
    /// Begins with no message; they leave by `socket`.
    pub fn begin<'a>(&'a mut self, socket: &'a PortSocket) -> Mail<'a> {
        self.names.clear();
        self.parts.clear();
        self.ends.clear();
        self.controls.clear();
        Mail { mailing: self, socket, bytes: PhantomData }
    }
}

/// Messages that are being put together.
pub struct Mail<'a> {
    mailing: &'a mut Mailing,
    socket: &'a PortSocket,
    /// What the messages are made of lives as long as this.
    bytes: PhantomData<&'a [u8]>,
}

impl<'a> Mail<'a> {
    /// Adds bytes to the message that [`Mail::close`] ends.
    pub fn part(&mut self, bytes: &'a [u8]) {
        self.mailing
            .parts
            .push(libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() });
    }

    /// Ends the message made of the parts since the last one. With `segment` > 0 the kernel cuts it into datagrams
    /// of that many bytes, the last may be shorter.
    pub fn close(&mut self, to: SocketAddr, segment: u16) {
        // A socket of both families takes IPv4 peers in their mapped form (RFC 4291, 2.5.5.2).
        let to = if self.socket.local.is_ipv6() { mapped(to) } else { to };
        self.mailing.names.push(to.into());
        self.mailing.ends.push(self.mailing.parts.len());
        self.mailing.controls.push(Control::segment(segment));
    }

    /// Messages so far.
    pub fn len(&self) -> usize {
        self.mailing.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.mailing.ends.is_empty()
    }

    /// Sends them. Goes on behind a message that fails, and puts its index into `failures`; when the interface's
    /// queue is full (`EAGAIN`, `ENOBUFS`) the rest fails with it.
    pub fn send(self, failures: &mut Vec<Failure>) -> Sent {
        let Mailing { names, parts, ends, controls, headers } = self.mailing;
        headers.clear();
        let mut start = 0;
        for ((name, &end), control) in names.iter_mut().zip(&*ends).zip(&mut *controls) {
            // SAFETY: an all-zero mmsghdr is valid (null pointers, zero lengths).
            let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
            header.msg_hdr.msg_namelen = name.len();
            header.msg_hdr.msg_name = std::ptr::from_mut(name).cast();
            header.msg_hdr.msg_iov = parts[start..end].as_mut_ptr();
            header.msg_hdr.msg_iovlen = end - start;
            if control.segment > 0 {
                header.msg_hdr.msg_control = std::ptr::from_mut(control).cast();
                header.msg_hdr.msg_controllen = size_of::<Control>();
            }
            headers.push(header);
            start = end;
        }
        let mut sent = Sent::default();
        let (mut at, mut retried) = (0, 0);
        while at < headers.len() {
            // SAFETY: headers[at..] point at names, parts and controls that do not change during the call; the
            // parts point at bytes that `'a` keeps alive.
            let n = unsafe {
                libc::sendmmsg(
                    self.socket.as_raw_fd(),
                    headers.as_mut_ptr().add(at),
                    (headers.len() - at) as libc::c_uint,
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
            // An ICMP error for another peer waits on the socket and fails whoever sends next; it is consumed by that.
            if errno == libc::EINTR || (is_left_behind(errno) && retried < 2) {
                retried += 1;
                continue;
            }
            failures.push(Failure { index: at, errno });
            at += 1;
            retried = 0;
            if errno == libc::EAGAIN || errno == libc::ENOBUFS {
                failures.extend((at..headers.len()).map(|index| Failure { index, errno }));
                break;
            }
        }
        sent
    }
}

/// A control message of type UDP_SEGMENT: `struct cmsghdr` of 64-bit Linux, the size, padding to 8.
#[repr(C, align(8))]
struct Control {
    length: usize,
    level: libc::c_int,
    kind: libc::c_int,
    segment: u16,
    padding: [u8; 6],
}

impl Control {
    fn segment(segment: u16) -> Self {
        Self { length: 18, level: libc::SOL_UDP, kind: libc::UDP_SEGMENT, segment, padding: [0; 6] }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Receiver, SendOptions};
    use super::*;

    fn port() -> PortSocket {
        let local = "127.0.0.1:0".parse().unwrap();
        PortSocket::open(&PortOptions { local, way: SendOptions::default(), buffer: 1 << 20 }).unwrap()
    }

    fn drain(socket: &PortSocket) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut receiver = Receiver::new();
        let mut got = Vec::new();
        for i in 0..receiver.receive(socket).unwrap() {
            let message = receiver.message(i);
            got.extend(message.datagrams().map(|d| (message.from.unwrap(), d.to_vec())));
        }
        got
    }

    #[test]
    fn messages_of_different_bytes_and_cuts_leave_together() {
        let (from, a, b) = (port(), port(), port());
        let mut mailing = Mailing::default();
        let (head, body, tail) = ([1u8; 16], [2u8; 84], [3u8; 20]);
        let mut mail = mailing.begin(&from);
        for _ in 0..2 {
            mail.part(&head);
            mail.part(&body);
        }
        mail.part(&tail);
        mail.close(a.local_addr(), 100);
        mail.part(&tail);
        mail.close(b.local_addr(), 0);
        let mut failures = Vec::new();
        assert_eq!(mail.send(&mut failures), Sent { messages: 2, calls: 1 });
        assert_eq!(failures, []);
        let full = [&head[..], &body[..]].concat();
        let me = from.local_addr();
        assert_eq!(drain(&a), [(me, full.clone()), (me, full), (me, tail.to_vec())]);
        assert_eq!(drain(&b), [(me, tail.to_vec())]);
    }

    #[test]
    fn a_message_that_fails_costs_no_other() {
        let (from, a) = (port(), port());
        let mut mailing = Mailing::default();
        let mut mail = mailing.begin(&from);
        mail.part(b"x");
        mail.close("255.255.255.255:9".parse().unwrap(), 0);
        mail.part(b"y");
        mail.close(a.local_addr(), 0);
        let mut failures = Vec::new();
        assert_eq!(mail.send(&mut failures).messages, 1);
        assert_eq!(failures, [Failure { index: 0, errno: libc::EACCES }]);
        assert_eq!(drain(&a), [(from.local_addr(), b"y".to_vec())]);
    }

    #[test]
    fn an_unspecified_v6_port_speaks_both_families() {
        let way = SendOptions::default();
        let both = PortOptions { local: "[::]:0".parse().unwrap(), way, buffer: 1 << 20 };
        let (both, v4) = (PortSocket::open(&both).unwrap(), port());
        let mut mailing = Mailing::default();
        let mut mail = mailing.begin(&v4);
        mail.part(b"to both");
        mail.close(SocketAddr::new([127, 0, 0, 1].into(), both.local_addr().port()), 0);
        assert_eq!(mail.send(&mut Vec::new()).messages, 1);
        let got = drain(&both);
        assert_eq!(got, [(v4.local_addr(), b"to both".to_vec())]);
        let mut mail = mailing.begin(&both);
        mail.part(b"back");
        mail.close(got[0].0, 0);
        assert_eq!(mail.send(&mut Vec::new()).messages, 1);
        assert_eq!(drain(&v4).len(), 1);
    }
}
