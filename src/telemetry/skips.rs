//! Why datagrams of an output were not sent to a peer. Filled by the thread that sends, taken by who tells it; a lock is
//! held for a few instructions only.

use std::net::SocketAddr;

use parking_lot::Mutex;

/// What one peer was not sent since it was told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skip {
    /// Who.
    pub peer: SocketAddr,
    /// Datagrams refused by the limit of bandwidth (`maxbw`).
    pub by_bandwidth: u64,
    /// Datagrams that the peer had no room for.
    pub by_window: u64,
}

/// What was skipped since the last look, for the first few peers. Costs no memory while there is nothing.
#[derive(Debug, Default)]
pub struct Skips(Mutex<Vec<Skip>>);

impl Skips {
    /// Adds to what is to be told of a peer; those beyond the first few are left out.
    pub fn note(&self, skip: Skip) {
        if (skip.by_bandwidth, skip.by_window) == (0, 0) {
            return;
        }
        let mut all = self.0.lock();
        if let Some(known) = all.iter_mut().find(|known| known.peer == skip.peer) {
            known.by_bandwidth += skip.by_bandwidth;
            known.by_window += skip.by_window;
        } else if all.len() < PEERS {
            all.push(skip);
        }
    }

    /// What is there, which is told by that.
    pub fn take(&self) -> Vec<Skip> {
        std::mem::take(&mut self.0.lock())
    }
}

/// Peers that are told of at once.
const PEERS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_told_once_and_only_a_few() {
        let skips = Skips::default();
        let skip = |port, by_bandwidth, by_window| Skip {
            peer: SocketAddr::from(([10, 0, 0, 1], port)),
            by_bandwidth,
            by_window,
        };
        skips.note(skip(1, 2, 0));
        skips.note(skip(1, 1, 5));
        skips.note(skip(2, 0, 0));
        assert_eq!((skips.take(), skips.take()), (vec![skip(1, 3, 5)], vec![]));
        (0..100).for_each(|port| skips.note(skip(port, 1, 0)));
        assert_eq!(skips.take().len(), PEERS);
    }
}
