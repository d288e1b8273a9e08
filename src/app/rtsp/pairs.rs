//! Port pairs that readers over UDP share: addresses of this machine enter, a pair and the shard that sends through it
//! leave. A pair is open as long as somebody uses it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::app::dial::DialError;
use crate::egress::Leg;
use crate::net::{Interface, PortPair, SendOptions, SocketError};
use crate::store::RtspGroup;

/// All pairs: one for each address and shard, so that no two threads send through one socket.
#[derive(Debug)]
pub(in crate::app) struct Pairs {
    open: Mutex<HashMap<(SocketAddr, usize), Weak<PortPair>>>,
    shards: usize,
    /// Whose turn it is.
    next: AtomicUsize,
}

/// Where the datagrams of a session leave.
#[derive(Debug, Clone)]
pub(in crate::app) struct Berth {
    /// The sockets.
    pub(in crate::app) pair: Arc<PortPair>,
    /// The shard that they belong to.
    pub(in crate::app) shard: usize,
}

impl Pairs {
    /// None is open yet.
    pub(in crate::app) fn new(shards: usize) -> Self {
        Self { open: Mutex::default(), shards: shards.max(1), next: AtomicUsize::new(0) }
    }

    /// A pair on an address of this machine, whose port is not looked at.
    pub(super) fn berth(&self, mut local: SocketAddr) -> Result<Berth, SocketError> {
        local.set_port(0);
        let shard = self.next.fetch_add(1, Relaxed) % self.shards;
        let mut open = self.open.lock();
        open.retain(|_, pair| pair.strong_count() > 0);
        if let Some(pair) = open.get(&(local, shard)).and_then(Weak::upgrade) {
            return Ok(Berth { pair, shard });
        }
        let pair = Arc::new(PortPair::open(local)?);
        open.insert((local, shard), Arc::downgrade(&pair));
        Ok(Berth { pair, shard })
    }
}

/// A group that an output sends to.
#[derive(Debug, Clone)]
pub(in crate::app) struct Group {
    /// Where, and the port of the first track.
    pub(super) address: SocketAddr,
    pub(super) ttl: u8,
    /// From where.
    pub(super) berth: Berth,
}

impl Pairs {
    /// Sockets that send to a group.
    pub(super) fn group(&self, group: &RtspGroup) -> Result<Group, DialError> {
        let any: IpAddr = match group.address.is_ipv6() {
            true => Ipv6Addr::UNSPECIFIED.into(),
            false => Ipv4Addr::UNSPECIFIED.into(),
        };
        let interface = group.interface.as_deref().map(Interface::find).transpose()?;
        let options = SendOptions {
            interface: interface.as_ref().map_or(0, |interface| interface.index),
            force_interface: interface.is_some(),
            ttl: Some(group.ttl),
            ..SendOptions::default()
        };
        let pair = Arc::new(PortPair::open_with(SocketAddr::new(any, 0), &options)?);
        let shard = self.next.fetch_add(1, Relaxed) % self.shards;
        Ok(Group { address: group.address, ttl: group.ttl, berth: Berth { pair, shard } })
    }
}

impl Group {
    /// The ports of a channel of the lane and the one behind it.
    pub(super) fn ports(&self, channel: u8) -> (u16, u16) {
        // The url is refused where they would not fit.
        let rtp = self.address.port().saturating_add(channel.into());
        (rtp, rtp.saturating_add(1))
    }

    /// Where a channel goes.
    pub(super) fn leg(&self, channel: u8) -> Leg {
        let (rtp, rtcp) = self.ports(channel);
        let to = |port| SocketAddr::new(self.address.ip(), port);
        Leg { channel, pair: Arc::clone(&self.berth.pair), rtp: to(rtp), rtcp: to(rtcp) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_share_a_pair_for_each_shard_and_the_last_one_closes_it() {
        let pairs = Pairs::new(2);
        let local: SocketAddr = "127.0.0.1:8554".parse().unwrap();
        let berths: Vec<Berth> = (0..4).map(|_| pairs.berth(local).unwrap()).collect();
        assert_eq!(berths.iter().map(|berth| berth.shard).collect::<Vec<_>>(), [0, 1, 0, 1]);
        assert!(
            Arc::ptr_eq(&berths[0].pair, &berths[2].pair) && Arc::ptr_eq(&berths[1].pair, &berths[3].pair)
        );
        assert!(!Arc::ptr_eq(&berths[0].pair, &berths[1].pair));
        drop(berths);
        let again = pairs.berth(local).unwrap();
        assert_eq!(Arc::strong_count(&again.pair), 1);
        assert_eq!(pairs.open.lock().len(), 1);
    }
}
