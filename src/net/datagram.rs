//! Sockets for a few datagrams a second: options enter, sockets that a runtime can take over leave. Never joins or cuts
//! datagrams.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

use super::socket::{self, ReceiveOptions, SendOptions, SocketError, bind_receiver};

/// A socket that sends to one destination. It is connected, so that an ICMP error comes back as an error of the next
/// send; datagrams that the path does not carry whole are fragmented.
///
/// # Errors
/// The step that failed and why.
pub fn send_to(options: &SendOptions, destination: SocketAddr) -> Result<UdpSocket, SocketError> {
    let socket = Socket::new(Domain::for_address(destination), Type::DGRAM, Some(Protocol::UDP))
        .map_err(SocketError::at("open a UDP socket"))?;
    socket.set_nonblocking(true).map_err(SocketError::at("make the socket non-blocking"))?;
    let options = SendOptions { v6: destination.is_ipv6(), ..options.clone() };
    socket::mark(&socket, &options, libc::IP_PMTUDISC_DONT)?;
    // Nobody reads an error queue here.
    let (level, errors) = match destination {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_RECVERR),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
    };
    socket::set(&socket, level, errors, 0).map_err(SocketError::at("let the error queue be"))?;
    if let Some(port) = options.source_port {
        let any: IpAddr = match destination {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let local = SocketAddr::new(any, port);
        socket.bind(&local.into()).map_err(SocketError::at(format!("send from port {port}")))?;
    }
    socket.connect(&destination.into()).map_err(SocketError::at(format!("send to {destination}")))?;
    Ok(socket.into())
}

/// A socket that hears a group, or a port of its own.
///
/// # Errors
/// The step that failed and why.
pub fn listen_to(options: &ReceiveOptions) -> Result<UdpSocket, SocketError> {
    let socket = bind_receiver(options)?.into_socket();
    // Datagrams that the kernel joins could not be told apart by a plain read.
    let _ = socket::set(&socket, libc::SOL_UDP, libc::UDP_GRO, 0);
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_large_datagram_arrives_whole_and_a_refusal_comes_back() {
        let far = UdpSocket::bind("127.0.0.1:0").unwrap();
        let destination = far.local_addr().unwrap();
        let near = send_to(&SendOptions::default(), destination).unwrap();
        let large = vec![7; 60_000];
        near.send(&large).unwrap();
        let mut buffer = vec![0; 65_536];
        far.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        assert_eq!(far.recv(&mut buffer).unwrap(), large.len());
        assert!(near.send(&vec![7; 65_536]).is_err_and(|error| error.raw_os_error() == Some(libc::EMSGSIZE)));
        drop(far);
        let refused = (0..100).any(|_| {
            std::thread::park_timeout(Duration::from_millis(5));
            near.send(b"x").is_err_and(|error| error.raw_os_error() == Some(libc::ECONNREFUSED))
        });
        assert!(refused, "no ICMP error came back");
    }
}
