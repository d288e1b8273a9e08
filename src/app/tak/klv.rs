//! KLV packets as they came, one in a datagram: what ATAK takes at its `roverPort`. Never cuts a packet.

use std::sync::atomic::Ordering::Relaxed;

use tokio::net::UdpSocket;
use tokio::sync::broadcast::error::RecvError;

use super::Desk;
use super::narrator::Chosen;
use crate::app::feeders::Ending;
use crate::net::clock;
use crate::telemetry::Rate;

/// Sends until it is told to stop.
pub(super) async fn tell(socket: UdpSocket, track: Option<u16>, mut desk: Desk) -> Ending {
    let mut chosen = Chosen::new(track);
    let mut post = Post::new(socket);
    let mut named = false;
    loop {
        let observation = tokio::select! {
            goes_on = Desk::ends(&mut desk.ended) => match goes_on {
                true => continue,
                false => return Ending::Ended,
            },
            news = desk.news.recv() => match news {
                Ok(observation) => observation,
                Err(RecvError::Lagged(lost)) => {
                    desk.tak.lost.fetch_add(lost, Relaxed);
                    continue;
                }
                Err(RecvError::Closed) => return Ending::Ended,
            },
        };
        let sighting = &observation.sighting;
        if !chosen.is_of(sighting.track, clock::now()) {
            continue;
        }
        desk.tak.packets.fetch_add(1, Relaxed);
        desk.tak.told_ms.store(clock::wall_ms(), Relaxed);
        if !post.send(&sighting.bytes, &desk).await && !std::mem::replace(&mut named, true) {
            desk.remarks.say(format!(
                "a KLV packet of {} bytes on track {} is longer than a datagram: it is not sent, and counted (oversize)",
                sighting.bytes.len(),
                sighting.track
            ));
        }
    }
}

/// A socket, and what is counted of it.
pub(super) struct Post {
    pub(super) socket: UdpSocket,
    rate: Rate,
}

impl Post {
    pub(super) fn new(socket: UdpSocket) -> Self {
        Self { socket, rate: Rate::default() }
    }

    /// Sends a datagram; `false` = it is longer than any.
    pub(super) async fn send(&mut self, bytes: &[u8], desk: &Desk) -> bool {
        let stats = &desk.stats;
        // The error of an earlier datagram may come back in place of this one's leaving: once.
        for _ in 0..2 {
            match self.socket.send(bytes).await {
                Ok(_) => {
                    stats.datagrams.fetch_add(1, Relaxed);
                    let total = stats.bytes.fetch_add(bytes.len() as u64, Relaxed) + bytes.len() as u64;
                    stats.bitrate_bps.store(self.rate.update(clock::now(), total), Relaxed);
                    stats.last_sent_ms.store(clock::wall_ms(), Relaxed);
                    return true;
                }
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                    desk.tak.oversize.fetch_add(1, Relaxed);
                    return false;
                }
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                    stats.icmp_errors.fetch_add(1, Relaxed);
                    stats.last_icmp_ms.store(clock::wall_ms(), Relaxed);
                }
                Err(_) => {
                    stats.send_errors.fetch_add(1, Relaxed);
                    return true;
                }
            }
        }
        true
    }
}
