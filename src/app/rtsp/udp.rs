//! The UDP sockets of one session: pairs for RTP and RTCP, or members of a group. Datagrams enter, one bounded queue
//! leaves; what finds it full is lost, as the network loses.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use super::intake::Intake;
use crate::media::Nanos;
use crate::net::clock;

/// A datagram of a session.
pub(super) struct Datagram {
    /// Media of the description.
    pub(super) media: usize,
    /// RTCP, not RTP.
    pub(super) control: bool,
    pub(super) bytes: Bytes,
    pub(super) arrival: Nanos,
}

impl Datagram {
    /// Hands it to where it belongs.
    pub(super) fn put(self, intake: &mut Intake) {
        if self.control {
            intake.rtcp(self.media, &self.bytes, self.arrival);
        } else {
            intake.rtp(self.media, &self.bytes, self.arrival);
        }
    }
}

/// The sockets of one track.
#[derive(Clone)]
pub(super) struct Pair {
    rtp: Arc<UdpSocket>,
    rtcp: Arc<UdpSocket>,
}

/// Reads the sockets of all tracks.
pub(super) struct Ears {
    queue: mpsc::Receiver<Datagram>,
    into: mpsc::Sender<Datagram>,
    readers: JoinSet<()>,
    pairs: Vec<(usize, Pair, [AbortHandle; 2])>,
}

impl Pair {
    /// An even port and the one behind it (RFC 3550, 11), on an address of this machine.
    pub(super) fn open(local: IpAddr, buffer: usize) -> io::Result<Self> {
        let mut error = None;
        for _ in 0..TRIES {
            let rtp = bind(SocketAddr::new(local, 0), buffer, false)?;
            let port = rtp.local_addr()?.port();
            if port % 2 == 1 {
                continue;
            }
            match bind(SocketAddr::new(local, port + 1), buffer, false) {
                Ok(rtcp) => return Ok(Self { rtp: Arc::new(rtp), rtcp: Arc::new(rtcp) }),
                Err(taken) => error = Some(taken),
            }
        }
        Err(error.unwrap_or_else(|| io::Error::from(io::ErrorKind::AddrInUse)))
    }

    /// Members of a group, on these ports.
    pub(super) fn join(group: IpAddr, ports: (u16, u16), local: IpAddr, buffer: usize) -> io::Result<Self> {
        let member = |port| {
            let socket = bind(SocketAddr::new(group, port), buffer, true)?;
            match (group, local) {
                (IpAddr::V4(group), IpAddr::V4(local)) => socket.join_multicast_v4(group, local)?,
                (IpAddr::V6(group), _) => socket.join_multicast_v6(&group, 0)?,
                _ => return Err(io::Error::from(io::ErrorKind::AddrNotAvailable)),
            }
            Ok(Arc::new(socket))
        };
        Ok(Self { rtp: member(ports.0)?, rtcp: member(ports.1)? })
    }

    /// The ports.
    pub(super) fn ports(&self) -> io::Result<(u16, u16)> {
        Ok((self.rtp.local_addr()?.port(), self.rtcp.local_addr()?.port()))
    }

    /// Sends a report; what the network does to it is not known.
    pub(super) fn report(&self, bytes: &[u8], to: SocketAddr) {
        let _ = self.rtcp.try_send_to(bytes, to);
    }

    /// Opens the way through what stands between, as every client does: an empty packet from each port.
    pub(super) fn punch(&self, to: IpAddr, ports: (u16, u16)) {
        // Version 2, payload type 20 (unassigned): nobody takes it for media.
        let _ = self.rtp.try_send_to(&[0x80, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], SocketAddr::new(to, ports.0));
        let _ = self.rtcp.try_send_to(&[0x80, 201, 0, 1, 0, 0, 0, 0], SocketAddr::new(to, ports.1));
    }
}

impl Ears {
    pub(super) fn new() -> Self {
        let (into, queue) = mpsc::channel(QUEUE);
        Self { queue, into, readers: JoinSet::new(), pairs: Vec::new() }
    }

    /// Listens to a pair; datagrams of others than `from` are passed over.
    pub(super) fn listen(&mut self, media: usize, pair: Pair, from: Option<IpAddr>) {
        let handles = [(&pair.rtp, false), (&pair.rtcp, true)].map(|(socket, control)| {
            let (socket, into) = (Arc::clone(socket), self.into.clone());
            self.readers.spawn(async move {
                let mut buffer = vec![0; DATAGRAM];
                loop {
                    let Ok((count, sender)) = socket.recv_from(&mut buffer).await else {
                        // An ICMP error of something sent before says nothing about what comes.
                        tokio::task::yield_now().await;
                        continue;
                    };
                    if from.is_some_and(|from| from != sender.ip().to_canonical()) {
                        continue;
                    }
                    let bytes = Bytes::copy_from_slice(buffer.get(..count).unwrap_or_default());
                    // Full: lost, and counted where the sequence has its gap.
                    let _ = into.try_send(Datagram { media, control, bytes, arrival: clock::now() });
                }
            })
        });
        self.pairs.push((media, pair, handles));
    }

    /// Listens to a media no more, and lets its sockets go.
    pub(super) fn forget(&mut self, media: usize) {
        self.pairs.retain(|(known, _, handles)| {
            let keep = *known != media;
            handles.iter().filter(|_| !keep).for_each(AbortHandle::abort);
            keep
        });
        while self.readers.try_join_next().is_some() {}
    }

    /// The sockets of a media.
    pub(super) fn pair(&self, media: usize) -> Option<&Pair> {
        self.pairs.iter().find(|(known, ..)| *known == media).map(|(_, pair, _)| pair)
    }

    /// The next datagram; never, where nobody listens.
    pub(super) async fn next(&mut self) -> Option<Datagram> {
        self.queue.recv().await
    }

    /// One that is there already.
    pub(super) fn ready(&mut self) -> Option<Datagram> {
        self.queue.try_recv().ok()
    }
}

fn bind(address: SocketAddr, buffer: usize, shared: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if shared {
        socket.set_reuse_address(true)?;
    }
    // A kernel that grants less grants what it can.
    let _ = socket.set_recv_buffer_size(buffer);
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// A second of a 40 Mb/s stream.
const QUEUE: usize = 4096;
const DATAGRAM: usize = 65_535;
const TRIES: usize = 32;
