//! Which way a destination lies: asked of the kernel's routing table once per attempt.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use thiserror::Error;

/// The way to a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Index of the interface that datagrams leave by.
    pub interface: u32,
    /// The destination is itself a neighbour: it takes an entry of the kernel's neighbour table.
    pub on_link: bool,
}

/// Why there is no way.
#[derive(Debug, Error)]
pub enum RouteError {
    /// The routing table has no way to it now.
    #[error("no route to {destination}: {source}")]
    None {
        /// Where to.
        destination: IpAddr,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The question itself failed.
    #[error("cannot ask for the route to {destination}: {source}")]
    Failed {
        /// Where to.
        destination: IpAddr,
        /// What failed.
        source: io::Error,
    },
}

/// Asks the kernel for the way to `destination`, by `interface` when one is forced (index, 0 = any).
///
/// # Errors
/// No route now, or the question failed.
pub fn route_to(destination: IpAddr, interface: u32) -> Result<Route, RouteError> {
    let failed = |source| RouteError::Failed { destination, source };
    match ask(destination, interface).map_err(failed)? {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) => {
            let mut found = Route { interface, on_link: !destination.is_loopback() };
            for attribute in &route.attributes {
                match attribute {
                    RouteAttribute::Oif(index) => found.interface = *index,
                    RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => found.on_link = false,
                    _ => {}
                }
            }
            found.on_link &= !destination.is_multicast();
            Ok(found)
        }
        NetlinkPayload::Error(error) => Err(RouteError::None { destination, source: error.to_io() }),
        _ => Err(failed(io::Error::from(io::ErrorKind::InvalidData))),
    }
}

/// How many neighbours the kernel keeps at the most (gc_thresh3 of the family). A network namespace, as that of a
/// container, does not show it: there the kernel's own default is taken.
pub fn neighbour_limit(v6: bool) -> usize {
    let family = if v6 { "ipv6" } else { "ipv4" };
    let text = std::fs::read_to_string(format!("/proc/sys/net/{family}/neigh/default/gc_thresh3"));
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(GC_THRESH3)
}

fn ask(destination: IpAddr, interface: u32) -> io::Result<NetlinkPayload<RouteNetlinkMessage>> {
    let mut request = RouteMessage::default();
    let (family, bits) = match destination {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    request.header.address_family = family;
    request.header.destination_prefix_length = bits;
    request.attributes.push(RouteAttribute::Destination(RouteAddress::from(destination)));
    if interface != 0 {
        request.attributes.push(RouteAttribute::Oif(interface));
    }
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    let mut message =
        NetlinkMessage::new(header, NetlinkPayload::from(RouteNetlinkMessage::GetRoute(request)));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    let socket = Socket::new(NETLINK_ROUTE)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&bytes, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
    Ok(answer.payload)
}

/// `neigh/default/gc_thresh3` of a kernel that nobody has told another (ip-sysctl).
const GC_THRESH3: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_leaves_by_lo_and_takes_no_neighbour() {
        let lo = super::super::interface_index("lo").unwrap();
        for ip in ["127.0.0.1", "::1"] {
            let route = route_to(ip.parse().unwrap(), 0).unwrap();
            assert_eq!((route.interface, route.on_link), (lo, false), "{ip}");
        }
    }

    #[test]
    fn the_neighbour_limit_is_known_here() {
        assert!([false, true].into_iter().all(|v6| neighbour_limit(v6) > 0));
    }
}
