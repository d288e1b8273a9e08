//! Batched receiving: one recvmmsg call fills a shard's scratch with whatever a socket holds.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use super::address::{RawAddr, unmapped};
use super::clock;

/// Scratch for receiving, one per shard, shared by all its sockets.
pub struct Receiver {
    buffers: Vec<u8>,
    names: Vec<RawAddr>,
    controls: Vec<Control>,
    iovecs: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
    /// What to take from a wall-clock stamp to get the monotonic clock.
    wall_offset: u64,
    /// When the last batch was taken.
    read_at: u64,
}

/// What one recvmmsg entry brought: one datagram, or several equal ones that the kernel joined (UDP_GRO).
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// Payload; datagrams of `segment` bytes each, the last may be shorter.
    pub bytes: &'a [u8],
    /// Length of each joined datagram.
    pub segment: usize,
    /// Who sent it.
    pub from: Option<SocketAddr>,
    /// When the kernel took it, nanoseconds of the monotonic clock.
    pub arrival: u64,
    /// The socket's count of datagrams dropped for want of buffer space, when the kernel told it.
    pub drops: Option<u32>,
}

impl<'a> Message<'a> {
    /// The datagrams in it.
    pub fn datagrams(&self) -> impl Iterator<Item = &'a [u8]> {
        self.bytes.chunks(self.segment.max(1))
    }
}

// SAFETY: the raw pointers in `headers` and `iovecs` point into the boxed-by-Vec buffers of the same struct,
// which are never resized; nothing else refers to them.
unsafe impl Send for Receiver {}

impl Receiver {
    /// Scratch for batches of `BATCH` messages of up to 64 KiB; pages are only touched when used.
    #[allow(clippy::new_without_default, reason = "allocates 2 MiB; not a default")]
    pub fn new() -> Self {
        // SAFETY: all-zero iovec and mmsghdr are valid (null pointers, zero lengths).
        let (iovec, header) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        let mut receiver = Self {
            buffers: vec![0; BATCH * SLOT],
            names: vec![RawAddr::EMPTY; BATCH],
            controls: vec![Control([0; CONTROL]); BATCH],
            iovecs: vec![iovec; BATCH],
            headers: vec![header; BATCH],
            wall_offset: 0,
            read_at: 0,
        };
        for i in 0..BATCH {
            receiver.iovecs[i] =
                libc::iovec { iov_base: receiver.buffers[i * SLOT..].as_mut_ptr().cast(), iov_len: SLOT };
            let header = &mut receiver.headers[i].msg_hdr;
            header.msg_name = std::ptr::from_mut(&mut receiver.names[i]).cast();
            header.msg_iov = &raw mut receiver.iovecs[i];
            header.msg_iovlen = 1;
            header.msg_control = receiver.controls[i].0.as_mut_ptr().cast();
            receiver.reset(i);
        }
        receiver
    }

    /// Takes what waits in the socket, at most `BATCH` messages, and answers how many; fewer than a batch
    /// means that the socket is empty.
    ///
    /// # Errors
    /// An error of the socket itself. An empty socket is `Ok(0)`.
    pub fn receive(&mut self, socket: &impl AsRawFd) -> io::Result<usize> {
        // SAFETY: every header points at live buffers of this struct with their true lengths.
        let n = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        if n < 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::EAGAIN | libc::EINTR) => Ok(0),
                _ => Err(error),
            };
        }
        self.read_at = clock::now();
        self.wall_offset = clock::realtime().wrapping_sub(self.read_at);
        Ok(n as usize)
    }

    /// The `i`th message of the last batch. Each can be looked at once before the next `receive`.
    pub fn message(&mut self, i: usize) -> Message<'_> {
        let header = &self.headers[i];
        let length = (header.msg_len as usize).min(SLOT);
        let facts = Facts::read(&self.controls[i].0[..header.msg_hdr.msg_controllen.min(CONTROL)]);
        let from = self.names[i].decode().map(unmapped);
        self.reset(i);
        // A stamp from before a step of the wall clock is off by that step (a stamp of the future wraps).
        let arrival = facts
            .stamp
            .map(|wall| wall.wrapping_sub(self.wall_offset))
            .filter(|at| self.read_at.wrapping_sub(*at) <= STAMP_AGE)
            .unwrap_or(self.read_at);
        Message {
            bytes: &self.buffers[i * SLOT..i * SLOT + length],
            segment: facts.segment.unwrap_or(length),
            from,
            arrival,
            drops: facts.drops,
        }
    }

    /// The kernel shortens these lengths to what it wrote.
    fn reset(&mut self, i: usize) {
        let header = &mut self.headers[i].msg_hdr;
        header.msg_namelen = size_of::<RawAddr>() as libc::socklen_t;
        header.msg_controllen = CONTROL;
    }
}

/// What the control messages of one entry say.
#[derive(Default)]
struct Facts {
    stamp: Option<u64>,
    segment: Option<usize>,
    drops: Option<u32>,
}

impl Facts {
    fn read(mut control: &[u8]) -> Self {
        let mut facts = Self::default();
        // cmsghdr on 64-bit Linux: length (8), level (4), type (4), data, padding to 8.
        while let Some((head, _)) = control.split_at_checked(HEAD) {
            let length = usize::from_ne_bytes(head[..8].try_into().unwrap_or_default());
            let level = i32::from_ne_bytes(head[8..12].try_into().unwrap_or_default());
            let kind = i32::from_ne_bytes(head[12..16].try_into().unwrap_or_default());
            let Some(data) = control.get(HEAD..length) else { break };
            match (level, kind) {
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                    if let (Some(s), Some(ns)) = (word(data, 0), word(data, 8)) {
                        facts.stamp = Some(s.wrapping_mul(1_000_000_000).wrapping_add(ns));
                    }
                }
                (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => facts.drops = half(data),
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    facts.segment = half(data).map(|s| s as usize).filter(|&s| s > 0);
                }
                _ => {}
            }
            control = control.get(length.next_multiple_of(8)..).unwrap_or_default();
        }
        facts
    }
}

fn word(data: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(data.get(at..at + 8)?.try_into().ok()?))
}

fn half(data: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(data.get(..4)?.try_into().ok()?))
}

/// Control messages need the alignment of cmsghdr.
#[derive(Clone, Copy)]
#[repr(align(8))]
struct Control([u8; CONTROL]);

/// Messages taken by one system call.
pub(super) const BATCH: usize = 32;
const SLOT: usize = 65_536;
const CONTROL: usize = 96;
const HEAD: usize = 16;
/// Longer than any datagram waits in a socket that is polled.
const STAMP_AGE: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::super::{ReceiveOptions, bind_receiver};
    use super::*;

    #[test]
    fn datagrams_come_with_sender_and_time() {
        let rx = bind_receiver(&ReceiveOptions::any("127.0.0.1:0".parse().unwrap())).unwrap();
        let tx = UdpSocket::bind("127.0.0.1:0").unwrap();
        let before = clock::now();
        for size in [1316usize, 188, 1316] {
            tx.send_to(&vec![size as u8; size], rx.local_addr()).unwrap();
        }
        let mut receiver = Receiver::new();
        let n = receiver.receive(&rx).unwrap();
        let sizes: Vec<usize> = (0..n)
            .map(|i| {
                let message = receiver.message(i);
                assert_eq!(message.from, Some(tx.local_addr().unwrap()));
                assert!(message.arrival + 5_000_000 > before && message.arrival < clock::now() + 5_000_000);
                assert_eq!(message.bytes[0], message.bytes.len() as u8);
                message.bytes.len()
            })
            .collect();
        assert_eq!(sizes, [1316, 188, 1316]);
        assert_eq!(receiver.receive(&rx).unwrap(), 0);
    }

    #[test]
    fn drops_of_the_kernel_are_told() {
        let mut options = ReceiveOptions::any("127.0.0.1:0".parse().unwrap());
        options.buffer = 4096;
        let rx = bind_receiver(&options).unwrap();
        let tx = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..200 {
            tx.send_to(&[0; 1316], rx.local_addr()).unwrap();
        }
        let mut receiver = Receiver::new();
        let mut got = 0;
        loop {
            let n = receiver.receive(&rx).unwrap();
            (0..n).for_each(|i| assert_eq!(receiver.message(i).bytes.len(), 1316));
            got += n;
            if n == 0 {
                break;
            }
        }
        // The count travels with the next datagram that is queued.
        tx.send_to(&[0; 1316], rx.local_addr()).unwrap();
        assert_eq!(receiver.receive(&rx).unwrap(), 1);
        assert_eq!(receiver.message(0).drops, Some(200 - got as u32));
    }
}
