//! Sockets: addresses and bytes enter, datagrams, byte streams and kernel facts leave. Batched UDP, multicast, routes,
//! TCP and TLS, the shard's poller and the clock. Knows no protocol above those. The home of `unsafe`.

#![allow(unsafe_code, reason = "system calls; every block says why it is sound")]

mod address;
mod bytes;
pub mod clock;
mod datagram;
mod errqueue;
mod interface;
mod limits;
mod pair;
mod poller;
mod port;
mod random;
mod receive;
mod resolve;
mod route;
mod send;
mod socket;
mod thread;
mod tls;

pub use bytes::{ByteStream, TcpInfo, prepare};
pub use datagram::{listen_to, send_to};
pub use errqueue::{Icmp, PathError};
pub use interface::{Interface, InterfaceError, interface_index};
pub use limits::raise_open_files;
pub use pair::PortPair;
pub use poller::{Doorbell, Poller, Registrar, Token};
pub use port::{Mail, Mailing, PortSocket};
pub use random::random;
pub use receive::{Message, Receiver};
pub use resolve::{Denied, HostPolicy, ResolveError, resolve};
pub use route::{Route, RouteError, neighbour_limit, route_to};
pub use send::{Batch, Failure, MAX_SEGMENTS, SendSocket, Sent};
pub use socket::{PortOptions, ReceiveOptions, SendOptions, SocketError, UdpReceiver, bind_receiver};
pub use thread::pin_to_core;
pub use tls::{Shown, TlsError, Trust, accept_tls, client_config, connect_tls, mutual_config, server_config};
