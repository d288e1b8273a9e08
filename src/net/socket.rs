//! A UDP socket that receives one source: unicast, or a multicast group joined on one interface.

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use thiserror::Error;

use super::Interface;

/// What to listen to.
#[derive(Debug, Clone)]
pub struct ReceiveOptions {
    /// Address or group, and port; port 0 takes a free one.
    pub address: SocketAddr,
    /// Where to join a group, or the only interface to listen on.
    pub interface: Option<Interface>,
    /// Source-specific multicast: the sender to join.
    pub source: Option<IpAddr>,
    /// Receive buffer in bytes.
    pub buffer: usize,
}

impl ReceiveOptions {
    /// Everything that arrives at `address`.
    pub fn any(address: SocketAddr) -> Self {
        Self { address, interface: None, source: None, buffer: 4 << 20 }
    }
}

/// What a sending socket looks like; outputs with equal options share one per shard.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct SendOptions {
    /// IPv6 instead of IPv4.
    pub v6: bool,
    /// The interface the datagrams leave by: 0 = unknown. Splits sockets, so that the queue of a slow
    /// interface fills no other's; with `force_interface` also forces the way.
    pub interface: u32,
    /// Leave by `interface` whatever the routes say (multicast, or asked for).
    pub force_interface: bool,
    /// Time to live or hop limit.
    pub ttl: Option<u8>,
    /// Differentiated services code point.
    pub dscp: Option<u8>,
    /// Local port.
    pub source_port: Option<u16>,
}

/// Which step of making a socket failed.
#[derive(Debug, Error)]
#[error("cannot {step}: {source}")]
pub struct SocketError {
    /// The step, in words.
    pub step: String,
    /// What the kernel answered.
    pub source: io::Error,
}

impl SocketError {
    pub(super) fn at(step: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let step = step.into();
        move |source| Self { step, source }
    }

    /// Whether somebody else has the port.
    pub fn is_taken(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrInUse
    }

    /// Whether trying again can help without a change of the configuration: everything but a lack of rights
    /// and arguments that the kernel finds senseless.
    pub fn is_retryable(&self) -> bool {
        !matches!(
            self.source.raw_os_error(),
            Some(libc::EACCES | libc::EPERM | libc::EINVAL | libc::EAFNOSUPPORT)
        )
    }
}

/// A bound socket that stamps arrivals, joins datagrams and counts its own drops.
#[derive(Debug)]
pub struct UdpReceiver {
    socket: Socket,
    local: SocketAddr,
    granted: usize,
}

impl UdpReceiver {
    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The socket alone.
    pub(super) fn into_socket(self) -> Socket {
        self.socket
    }

    /// Receive buffer that the kernel granted, in bytes of payload and bookkeeping.
    pub fn granted_buffer(&self) -> usize {
        self.granted
    }
}

impl AsFd for UdpReceiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for UdpReceiver {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Makes, binds and joins. A group's socket is bound to the group itself with IP_MULTICAST_ALL off, so that
/// two groups on one port don't mix; it may share the port. A unicast port is taken for itself.
///
/// # Errors
/// The step that failed and why.
pub fn bind_receiver(options: &ReceiveOptions) -> Result<UdpReceiver, SocketError> {
    let address = options.address;
    let group = address.ip().is_multicast();
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))
        .map_err(SocketError::at("open a UDP socket"))?;
    if group {
        socket.set_reuse_address(true).map_err(SocketError::at("share the port"))?;
    }
    if address.is_ipv4() {
        // Else a wildcard socket also gets every group that anybody on this host has joined (ip(7)).
        set(&socket, libc::IPPROTO_IP, libc::IP_MULTICAST_ALL, 0)
            .map_err(SocketError::at("keep other groups out"))?;
    } else {
        let _ = set(&socket, libc::IPPROTO_IPV6, IPV6_MULTICAST_ALL, 0);
        // A socket on [::] takes IPv4 too.
        let only = !address.ip().is_unspecified();
        socket.set_only_v6(only).map_err(SocketError::at("choose the address family"))?;
    }
    socket.set_nonblocking(true).map_err(SocketError::at("make the socket non-blocking"))?;
    let granted = grow(&socket, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, options.buffer)
        .map_err(SocketError::at("set the receive buffer"))?;
    stamp_arrivals(&socket);
    if let (Some(interface), false) = (&options.interface, group) {
        socket
            .bind_device(Some(interface.name.as_bytes()))
            .map_err(SocketError::at(format!("listen on interface {}", interface.name)))?;
    }
    socket.bind(&address.into()).map_err(SocketError::at(format!("bind to {address}")))?;
    if group {
        join(&socket, options)?;
    }
    let local = socket
        .local_addr()
        .map_err(SocketError::at("read the socket's address"))?
        .as_socket()
        .unwrap_or(address);
    Ok(UdpReceiver { socket, local, granted })
}

/// Makes a sending socket: unconnected, don't-fragment set, its errors kept for the output they belong to.
pub(super) fn sender(options: &SendOptions) -> Result<Socket, SocketError> {
    let domain = if options.v6 { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))
        .map_err(SocketError::at("open a UDP socket"))?;
    socket.set_nonblocking(true).map_err(SocketError::at("make the socket non-blocking"))?;
    grow(&socket, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, SEND_BUFFER)
        .map_err(SocketError::at("set the send buffer"))?;
    // The receive side only holds ICMP errors: a few hundred are enough, the rest may drop. Datagrams that
    // somebody sends here would fill it and keep the errors out, so a filter refuses them all.
    let _ = socket.set_recv_buffer_size(64 << 10);
    refuse_datagrams(&socket).map_err(SocketError::at("refuse what is sent here"))?;
    mark(&socket, options, libc::IP_PMTUDISC_DO)?;
    let any: SocketAddr = if options.v6 {
        (IpAddr::from([0u16; 8]), options.source_port.unwrap_or(0)).into()
    } else {
        (IpAddr::from(Ipv4Addr::UNSPECIFIED), options.source_port.unwrap_or(0)).into()
    };
    if options.v6 {
        socket.set_only_v6(true).map_err(SocketError::at("choose the address family"))?;
    }
    socket.bind(&any.into()).map_err(SocketError::at(format!("send from port {}", any.port())))?;
    Ok(socket)
}

/// What a port looks like: a socket that sends and receives for many sessions.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PortOptions {
    /// Where it is bound; port 0 takes a free one, an unspecified IPv6 address takes IPv4 too.
    pub local: SocketAddr,
    /// How its datagrams leave; `v6` and `source_port` follow from `local`.
    pub way: SendOptions,
    /// Receive buffer in bytes.
    pub buffer: usize,
}

/// Makes a socket that sends to many peers and receives from all of them. Datagrams may be fragmented: a peer
/// behind a narrow path cannot ask for shorter ones.
///
/// # Errors
/// The step that failed and why.
pub(super) fn port(options: &PortOptions) -> Result<(Socket, SocketAddr), SocketError> {
    let v6 = options.local.is_ipv6();
    let socket = Socket::new(Domain::for_address(options.local), Type::DGRAM, Some(Protocol::UDP))
        .map_err(SocketError::at("open a UDP socket"))?;
    socket.set_nonblocking(true).map_err(SocketError::at("make the socket non-blocking"))?;
    if v6 {
        let only = !options.local.ip().is_unspecified();
        socket.set_only_v6(only).map_err(SocketError::at("choose the address family"))?;
    }
    grow(&socket, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, SEND_BUFFER)
        .map_err(SocketError::at("set the send buffer"))?;
    grow(&socket, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, options.buffer)
        .map_err(SocketError::at("set the receive buffer"))?;
    stamp_arrivals(&socket);
    mark(&socket, &SendOptions { v6, ..options.way.clone() }, libc::IP_PMTUDISC_DONT)?;
    socket.bind(&options.local.into()).map_err(SocketError::at(format!("bind to {}", options.local)))?;
    let local = socket
        .local_addr()
        .map_err(SocketError::at("read the socket's address"))?
        .as_socket()
        .unwrap_or(options.local);
    Ok((socket, local))
}

/// Asks for facts about each datagram; a kernel that lacks one of them only tells less.
fn stamp_arrivals(socket: &Socket) {
    for (level, name) in [
        (libc::SOL_SOCKET, libc::SO_TIMESTAMPNS),
        (libc::SOL_SOCKET, libc::SO_RXQ_OVFL),
        (libc::SOL_UDP, libc::UDP_GRO),
    ] {
        let _ = set(socket, level, name, 1);
    }
}

/// Sets what `options` say about the way out, asks for ICMP errors, and says what to do with datagrams that are
/// longer than the path carries (`discover`: IP_PMTUDISC_…).
pub(super) fn mark(socket: &Socket, options: &SendOptions, discover: libc::c_int) -> Result<(), SocketError> {
    let (level, discovery, errors, ttl, multicast_ttl, multicast_if) = if options.v6 {
        (
            libc::IPPROTO_IPV6,
            libc::IPV6_MTU_DISCOVER,
            libc::IPV6_RECVERR,
            libc::IPV6_UNICAST_HOPS,
            libc::IPV6_MULTICAST_HOPS,
            libc::IPV6_MULTICAST_IF,
        )
    } else {
        (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_RECVERR, libc::IP_TTL, libc::IP_MULTICAST_TTL, 0)
    };
    set(socket, level, discovery, discover).map_err(SocketError::at("choose whether to fragment"))?;
    set(socket, level, errors, 1).map_err(SocketError::at("ask for ICMP errors"))?;
    if let Some(hops) = options.ttl {
        set(socket, level, ttl, i32::from(hops)).map_err(SocketError::at("set ttl"))?;
        set(socket, level, multicast_ttl, i32::from(hops))
            .map_err(SocketError::at("set the multicast ttl"))?;
    }
    if let Some(dscp) = options.dscp {
        let class = i32::from(dscp) << 2;
        let name = if options.v6 { libc::IPV6_TCLASS } else { libc::IP_TOS };
        set(socket, level, name, class).map_err(SocketError::at("set dscp"))?;
    }
    if options.force_interface {
        let index = options.interface;
        if options.v6 {
            set(socket, level, multicast_if, index as i32)
        } else {
            let request = libc::ip_mreqn {
                imr_multiaddr: libc::in_addr { s_addr: 0 },
                imr_address: libc::in_addr { s_addr: 0 },
                imr_ifindex: index as i32,
            };
            set(socket, level, libc::IP_MULTICAST_IF, request)
        }
        .map_err(SocketError::at("choose the multicast interface"))?;
        // IP_UNICAST_IF takes the index in network order (ip(7)).
        let name = if options.v6 { libc::IPV6_UNICAST_IF } else { libc::IP_UNICAST_IF };
        set(socket, level, name, index.to_be()).map_err(SocketError::at("choose the interface"))?;
    }
    Ok(())
}

pub(super) fn set<T>(socket: &Socket, level: libc::c_int, name: libc::c_int, value: T) -> io::Result<()> {
    // SAFETY: passes the bytes of `value` with their true length; every use hands over the type that the
    // option takes (an int, or the struct that it names).
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(&value).cast(),
            mem::size_of::<T>() as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Attaches the filter `return 0` (classic BPF): nothing is received; the error queue is not filtered.
pub(super) fn refuse_datagrams(socket: &Socket) -> io::Result<()> {
    let mut program = [libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 }];
    let filter = libc::sock_fprog { len: 1, filter: program.as_mut_ptr() };
    set(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, filter)
}

/// Sets a buffer, past the administrator's limit where we have the right; answers what was granted.
pub(super) fn grow(
    socket: &Socket,
    force: libc::c_int,
    polite: libc::c_int,
    bytes: usize,
) -> io::Result<usize> {
    let wanted = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX / 2);
    if set(socket, libc::SOL_SOCKET, force, wanted).is_err() {
        set(socket, libc::SOL_SOCKET, polite, wanted)?;
    }
    let granted =
        if polite == libc::SO_RCVBUF { socket.recv_buffer_size()? } else { socket.send_buffer_size()? };
    // The kernel answers twice what it grants (socket(7)).
    Ok(granted / 2)
}

fn join(socket: &Socket, options: &ReceiveOptions) -> Result<(), SocketError> {
    let index = options.interface.as_ref().map_or(0, |i| i.index);
    let place = options.interface.as_ref().map_or_else(String::new, |i| format!(" on {}", i.name));
    let step = format!("join {}{place}", options.address.ip());
    match (options.address.ip(), options.source) {
        (IpAddr::V4(group), None) => socket
            .join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(index))
            .map_err(SocketError::at(step)),
        (IpAddr::V4(group), Some(IpAddr::V4(source))) => {
            // The source-specific join of IPv4 takes an address of the interface, not its index.
            let local = options.interface.as_ref().and_then(Interface::ipv4).unwrap_or(Ipv4Addr::UNSPECIFIED);
            socket
                .join_ssm_v4(&source, &group, &local)
                .map_err(SocketError::at(format!("{step} from {source}")))
        }
        (IpAddr::V6(group), None) => socket.join_multicast_v6(&group, index).map_err(SocketError::at(step)),
        (IpAddr::V6(_), Some(source @ IpAddr::V6(_))) => {
            let request = GroupSourceReq {
                interface: index,
                group: storage(SocketAddr::new(options.address.ip(), 0)),
                source: storage(SocketAddr::new(source, 0)),
            };
            set(socket, libc::IPPROTO_IPV6, MCAST_JOIN_SOURCE_GROUP, request)
                .map_err(SocketError::at(format!("{step} from {source}")))
        }
        (_, Some(source)) => Err(SocketError {
            step: format!("{step} from {source}"),
            source: io::Error::new(io::ErrorKind::InvalidInput, "group and source are of different families"),
        }),
    }
}

/// `struct group_source_req` of `netinet/in.h`.
#[repr(C)]
struct GroupSourceReq {
    interface: u32,
    group: libc::sockaddr_storage,
    source: libc::sockaddr_storage,
}

fn storage(address: SocketAddr) -> libc::sockaddr_storage {
    // SAFETY: all-zero is a valid sockaddr_storage; RawAddr is smaller, and both are plain bytes.
    unsafe {
        let mut storage: libc::sockaddr_storage = mem::zeroed();
        *std::ptr::from_mut(&mut storage).cast() = super::address::RawAddr::from(address);
        storage
    }
}

pub(super) const SEND_BUFFER: usize = 4 << 20;
/// From `linux/in6.h`; not in libc.
const IPV6_MULTICAST_ALL: libc::c_int = 29;
/// From `linux/in.h`; not in libc.
const MCAST_JOIN_SOURCE_GROUP: libc::c_int = 46;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unicast_port_is_taken_once() {
        let first = bind_receiver(&ReceiveOptions::any("127.0.0.1:0".parse().unwrap())).unwrap();
        let error = bind_receiver(&ReceiveOptions::any(first.local_addr())).unwrap_err();
        assert!(error.to_string().contains(&first.local_addr().to_string()), "{error}");
        assert!(error.is_retryable());
    }

    #[test]
    fn two_groups_share_a_port_and_do_not_mix() {
        let lo = Interface::find("lo").unwrap();
        let group = |ip: &str, port: u16| ReceiveOptions {
            interface: Some(lo.clone()),
            ..ReceiveOptions::any(format!("{ip}:{port}").parse().unwrap())
        };
        let a = bind_receiver(&group("239.255.7.1", 0)).unwrap();
        let port = a.local_addr().port();
        let b = bind_receiver(&group("239.255.7.2", port)).unwrap();
        let tx = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket2::SockRef::from(&tx).set_multicast_if_v4(&Ipv4Addr::LOCALHOST).unwrap();
        tx.send_to(b"for b", ("239.255.7.2", port)).unwrap();
        let mut receiver = super::super::Receiver::new();
        assert_eq!(receiver.receive(&a).unwrap(), 0);
        assert_eq!(receiver.receive(&b).unwrap(), 1);
        assert_eq!(receiver.message(0).bytes, b"for b");
    }

    #[test]
    fn source_specific_joins_work_in_both_families() {
        let lo = Interface::find("lo").unwrap();
        for (group, source) in [("232.1.1.1:0", "127.0.0.1"), ("[ff35::1]:0", "::1")] {
            let options = ReceiveOptions {
                interface: Some(lo.clone()),
                source: Some(source.parse().unwrap()),
                ..ReceiveOptions::any(group.parse().unwrap())
            };
            bind_receiver(&options).unwrap_or_else(|e| panic!("{group}: {e}"));
        }
    }
}
