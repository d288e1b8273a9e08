//! The sockets that datagrams of connections leave through: pairs enter, sockets of this thread leave, each as long as
//! somebody uses it; whom what comes back belongs to.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;

use super::fan::{Leg, Shape};
use super::{CONNECTION, Token, Wakes};
use crate::net::{PortPair, SendSocket, SocketError};

/// A pair of sockets of this thread.
pub(super) struct Sockets {
    pair: Arc<PortPair>,
    pub(super) rtp: SendSocket,
    pub(super) rtcp: SendSocket,
    /// Connections by where their packets go, RTP and RTCP.
    pub(super) peers: HashMap<SocketAddr, Vec<usize>>,
    users: usize,
}

/// All of them.
#[derive(Default)]
pub(super) struct PortTable(pub(super) Vec<Option<Sockets>>);

impl PortTable {
    /// The numbers of the sockets that these legs need, opened where they are not yet, for connection `index`.
    pub(super) fn join(&mut self, index: usize, legs: &[Leg], wakes: &Wakes) -> Result<Shape, SocketError> {
        let mut shape = Shape::new();
        for leg in legs {
            let number = match self.open(&leg.pair, wakes) {
                Ok(number) => number,
                Err(error) => {
                    self.leave(index, legs.get(..shape.len()).unwrap_or_default(), &shape, wakes);
                    return Err(error);
                }
            };
            shape.push((leg.channel, number));
            if let Some(Some(sockets)) = self.0.get_mut(number) {
                sockets.users += 1;
                for peer in [leg.rtp, leg.rtcp] {
                    let known = sockets.peers.entry(peer).or_default();
                    if !known.contains(&index) {
                        known.push(index);
                    }
                }
            }
        }
        Ok(shape)
    }

    /// Takes a connection back.
    pub(super) fn leave(&mut self, index: usize, legs: &[Leg], shape: &Shape, wakes: &Wakes) {
        for (leg, (_, number)) in legs.iter().zip(shape) {
            let Some(slot) = self.0.get_mut(*number) else { continue };
            let Some(sockets) = slot else { continue };
            for peer in [leg.rtp, leg.rtcp] {
                if let Some(known) = sockets.peers.get_mut(&peer) {
                    known.retain(|known| *known != index);
                    if known.is_empty() {
                        sockets.peers.remove(&peer);
                    }
                }
            }
            sockets.users -= 1;
            if sockets.users == 0 {
                // It may be unknown there.
                let _ = wakes.sockets.remove(sockets.rtcp.as_fd());
                *slot = None;
            }
        }
    }

    /// The number of sockets that a token is of.
    pub(super) fn number(token: Token) -> Option<usize> {
        (token.0 & PORT != 0).then_some((token.0 & !(Wakes::OURS | CONNECTION | PORT)) as usize)
    }

    /// Asks to be told when RTCP comes again.
    pub(super) fn rearm(&self, number: usize, wakes: &Wakes) {
        if let Some(Some(sockets)) = self.0.get(number) {
            // A socket that cannot be watched again is one whose peers seem silent.
            let _ = wakes.sockets.rearm(sockets.rtcp.as_fd(), token(number));
        }
    }

    fn open(&mut self, pair: &Arc<PortPair>, wakes: &Wakes) -> Result<usize, SocketError> {
        let same = |slot: &Option<Sockets>| slot.as_ref().is_some_and(|known| Arc::ptr_eq(&known.pair, pair));
        if let Some(known) = self.0.iter().position(same) {
            return Ok(known);
        }
        let (rtp, rtcp) = pair.senders()?;
        let number = self.0.iter().position(Option::is_none).unwrap_or_else(|| {
            self.0.push(None);
            self.0.len() - 1
        });
        if let Err(error) = wakes.sockets.add(rtcp.as_fd(), token(number)) {
            tracing::debug!(%error, "an RTCP port is not watched");
        }
        let pair = Arc::clone(pair);
        if let Some(slot) = self.0.get_mut(number) {
            *slot = Some(Sockets { pair, rtp, rtcp, peers: HashMap::new(), users: 0 });
        }
        Ok(number)
    }
}

fn token(number: usize) -> Token {
    Token(number as u64 | Wakes::OURS | CONNECTION | PORT)
}

/// Tells these tokens from those of connections.
const PORT: u64 = 1 << 61;
