//! The error queue of a sending socket: ICMP errors and local path errors, each with the destination it is about.

use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use socket2::Socket;

use super::address::RawAddr;

/// An error that came back for one destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathError {
    /// Where the datagram was going.
    pub destination: SocketAddr,
    /// What happened.
    pub kind: Icmp,
}

/// What a path said about a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Icmp {
    /// Nobody listens on the port (RFC 792 type 3 code 3, RFC 4443 type 1 code 4).
    PortUnreachable,
    /// Host or network cannot be reached, or a filter refuses.
    Unreachable,
    /// The datagram is longer than the path carries; the path's MTU in bytes where it was told.
    TooBig(u32),
    /// Any other error, by its errno.
    Other(i32),
}

/// Empties the queue, at most `limit` entries, so that a flood of errors cannot hold the shard.
pub(super) fn drain(socket: &Socket, limit: usize, mut each: impl FnMut(PathError)) {
    for _ in 0..limit {
        let mut name = RawAddr::EMPTY;
        let mut control = Control([0; 512]);
        // SAFETY: an all-zero msghdr is valid (null pointers, zero lengths).
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_name = std::ptr::from_mut(&mut name).cast();
        header.msg_namelen = size_of::<RawAddr>() as libc::socklen_t;
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = control.0.len();
        // SAFETY: every pointer in `header` is to a live local with its true length.
        let n = unsafe {
            libc::recvmsg(socket.as_raw_fd(), &mut header, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT)
        };
        if n < 0 {
            return;
        }
        // SAFETY: `header` was filled by the kernel and its control buffer is alive; CMSG_* walk inside it, and
        // the data of these two types is a sock_extended_err, read unaligned.
        let error = unsafe {
            let mut cmsg = libc::CMSG_FIRSTHDR(&header);
            let mut found = None;
            while !cmsg.is_null() {
                let kind = ((*cmsg).cmsg_level, (*cmsg).cmsg_type);
                if kind == (libc::IPPROTO_IP, libc::IP_RECVERR)
                    || kind == (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
                {
                    found = Some(libc::CMSG_DATA(cmsg).cast::<libc::sock_extended_err>().read_unaligned());
                }
                cmsg = libc::CMSG_NXTHDR(&header, cmsg);
            }
            found
        };
        let (Some(error), Some(destination)) = (error, name.decode()) else { continue };
        let kind = match error.ee_errno as i32 {
            libc::ECONNREFUSED => Icmp::PortUnreachable,
            libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EACCES | libc::EPROTO => Icmp::Unreachable,
            libc::EMSGSIZE => Icmp::TooBig(error.ee_info),
            errno => Icmp::Other(errno),
        };
        each(PathError { destination, kind });
    }
}

#[repr(align(8))]
struct Control([u8; 512]);
