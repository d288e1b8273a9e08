//! Two sockets on an even port and the one behind it, for RTP and RTCP (RFC 3550, 11), that many peers share. Addresses
//! enter, sockets to send through leave; what peers send to the RTP port is refused by the kernel.

use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

use super::send::SendSocket;
use super::socket::{self, SendOptions, SocketError};

/// A pair of bound sockets.
#[derive(Debug)]
pub struct PortPair {
    rtp: Socket,
    rtcp: Socket,
    ports: (u16, u16),
}

impl PortPair {
    /// Takes a free pair on an address of this machine, whose port is not looked at. Datagrams may be fragmented: a
    /// peer behind a narrow path cannot ask for shorter ones.
    ///
    /// # Errors
    /// The step that failed and why.
    pub fn open(local: SocketAddr) -> Result<Self, SocketError> {
        Self::open_with(local, &SendOptions::default())
    }

    /// The same, for a way out with `options` (`v6` and `source_port` follow from `local`).
    ///
    /// # Errors
    /// As [`PortPair::open`].
    pub fn open_with(local: SocketAddr, options: &SendOptions) -> Result<Self, SocketError> {
        let options = SendOptions { v6: local.is_ipv6(), ..options.clone() };
        let mut last = None;
        for _ in 0..TRIES {
            let (rtp, port) = bind(at(local, 0), &options)?;
            if port % 2 == 1 {
                continue;
            }
            socket::refuse_datagrams(&rtp).map_err(SocketError::at("refuse what is sent here"))?;
            match bind(at(local, port + 1), &options) {
                Ok((rtcp, behind)) => return Ok(Self { rtp, rtcp, ports: (port, behind) }),
                Err(taken) => last = Some(taken),
            }
        }
        Err(last.unwrap_or_else(|| SocketError {
            step: "take an even port and the one behind it".into(),
            source: std::io::Error::from(std::io::ErrorKind::AddrInUse),
        }))
    }

    /// The ports of RTP and RTCP.
    pub fn ports(&self) -> (u16, u16) {
        self.ports
    }

    /// Both sockets for the one thread that sends through them: RTP, RTCP.
    ///
    /// # Errors
    /// Out of file descriptors.
    pub fn senders(&self) -> Result<(SendSocket, SendSocket), SocketError> {
        Ok((SendSocket::share(&self.rtp)?, SendSocket::share(&self.rtcp)?))
    }
}

/// An address without the port that it came with. A peer of IPv4 at a socket of both families is one of IPv4
/// (RFC 4291, 2.5.5.2).
fn at(mut local: SocketAddr, port: u16) -> SocketAddr {
    if let IpAddr::V4(ip) = local.ip().to_canonical() {
        return (ip, port).into();
    }
    local.set_port(port);
    local
}

fn bind(local: SocketAddr, options: &SendOptions) -> Result<(Socket, u16), SocketError> {
    let options = SendOptions { v6: local.is_ipv6(), ..options.clone() };
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))
        .map_err(SocketError::at("open a UDP socket"))?;
    socket.set_nonblocking(true).map_err(SocketError::at("make the socket non-blocking"))?;
    socket::grow(&socket, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, socket::SEND_BUFFER)
        .map_err(SocketError::at("set the send buffer"))?;
    socket::mark(&socket, &options, libc::IP_PMTUDISC_DONT)?;
    socket.bind(&local.into()).map_err(SocketError::at(format!("bind to {local}")))?;
    let bound = socket.local_addr().map_err(SocketError::at("read the socket's address"))?;
    let port = bound.as_socket().map_or(0, |bound| bound.port());
    Ok((socket, port))
}

/// Half of the free ports are odd; behind an even one somebody may be.
const TRIES: usize = 32;

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::super::Batch;
    use super::*;

    #[test]
    fn a_pair_has_neighbouring_ports_and_hears_only_rtcp() {
        let pair = PortPair::open("127.0.0.1:7".parse().unwrap()).unwrap();
        let (rtp, rtcp) = pair.ports();
        assert_eq!((rtp % 2, rtcp), (0, rtp + 1));
        let (mut sender, control) = pair.senders().unwrap();
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        peer.send_to(b"to rtp", ("127.0.0.1", rtp)).unwrap();
        peer.send_to(b"to rtcp", ("127.0.0.1", rtcp)).unwrap();
        let mut buffer = [0; 64];
        assert!(sender.receive(&mut buffer).is_err(), "nothing is taken there");
        let (count, from) = control.receive(&mut buffer).unwrap();
        assert_eq!((&buffer[..count], from), (&b"to rtcp"[..], peer.local_addr().unwrap()));
        let mut batch = Batch::default();
        batch.push(peer.local_addr().unwrap());
        batch.send(&mut sender, &[IoSlice::new(b"media")], 0, &mut Vec::new());
        let (count, from) = peer.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..count], from.port()), (&b"media"[..], rtp));
    }

    #[test]
    fn both_families_have_pairs() {
        for local in ["[::1]:0", "[::ffff:127.0.0.1]:0"] {
            PortPair::open(local.parse().unwrap()).unwrap_or_else(|error| panic!("{local}: {error}"));
        }
    }
}
