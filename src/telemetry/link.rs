//! The links of a connection group, as control shows them. Filled by the thread that moves the packets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use parking_lot::Mutex;
use serde::ser::SerializeSeq;
use serde::{Serialize, Serializer};

use super::session::Connection;
use super::srt::SrtStats;

/// What a link of a connection group does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum LinkState {
    /// It is dialled.
    #[default]
    Connecting,
    /// It is connected, and carries nothing as long as another one does.
    Standby,
    /// It carries the stream.
    Active,
    /// It carries the stream, and its peer does not answer in time.
    Unstable,
    /// It failed, and will be dialled again.
    Broken,
}

/// One link of a connection group.
#[derive(Debug, Serialize)]
pub struct Link {
    /// The peer's end.
    pub peer: SocketAddr,
    /// Its priority in a backup group: the highest carries the stream.
    pub weight: u16,
    state: LinkStateCell,
    /// Its connection.
    pub srt: Connection<SrtStats>,
}

#[derive(Debug, Default)]
struct LinkStateCell(AtomicU8);

/// The links of an output or input that is one end of a connection group. Costs no memory while it is empty.
#[derive(Debug, Default)]
pub struct LinkList(Mutex<Vec<Arc<Link>>>);

impl LinkState {
    const ALL: [Self; 5] = [Self::Connecting, Self::Standby, Self::Active, Self::Unstable, Self::Broken];

    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Standby => "standby",
            Self::Active => "active",
            Self::Unstable => "unstable",
            Self::Broken => "broken",
        }
    }
}

impl Link {
    /// A link to `peer` that is not connected yet.
    pub fn new(peer: SocketAddr, weight: u16) -> Self {
        Self { peer, weight, state: LinkStateCell::default(), srt: Connection::default() }
    }

    /// Writes what it does.
    pub fn set(&self, state: LinkState) {
        self.state.0.store(state as u8, Relaxed);
    }

    /// What it does.
    pub fn state(&self) -> LinkState {
        LinkState::ALL.get(usize::from(self.state.0.load(Relaxed))).copied().unwrap_or_default()
    }
}

impl LinkList {
    /// Adds a link.
    pub fn add(&self, link: Arc<Link>) {
        self.0.lock().push(link);
    }

    /// Takes a link off; the last one gives the memory back.
    pub fn remove(&self, link: &Arc<Link>) {
        let mut links = self.0.lock();
        links.retain(|other| !Arc::ptr_eq(other, link));
        if links.is_empty() {
            *links = Vec::new();
        }
    }

    /// Every link, in the order in which they were added.
    pub fn all(&self) -> Vec<Arc<Link>> {
        self.0.lock().clone()
    }
}

impl Serialize for LinkStateCell {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let state = LinkState::ALL.get(usize::from(self.0.load(Relaxed))).copied().unwrap_or_default();
        serializer.serialize_str(state.as_str())
    }
}

impl Serialize for LinkList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let links = self.all();
        let mut list = serializer.serialize_seq(Some(links.len()))?;
        for link in &links {
            list.serialize_element(&**link)?;
        }
        list.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_shown_with_their_state_and_connection() {
        let list = LinkList::default();
        assert_eq!(serde_json::to_value(&list).unwrap(), serde_json::json!([]));
        let links = [1, 2].map(|n| Arc::new(Link::new(([192, 0, 2, n], 9000).into(), n.into())));
        links.iter().for_each(|link| list.add(Arc::clone(link)));
        for state in LinkState::ALL {
            links[1].set(state);
            assert_eq!(links[1].state(), state);
        }
        links[1].set(LinkState::Active);
        links[1].srt.open().latency_ms.store(120, Relaxed);
        let shown = serde_json::to_value(&list).unwrap();
        assert_eq!(
            shown[0],
            serde_json::json!({
                "peer": "192.0.2.1:9000", "weight": 1, "state": "connecting", "srt": null
            })
        );
        assert_eq!((&shown[1]["state"], &shown[1]["srt"]["latency_ms"]), (&"active".into(), &120.into()));
        links.iter().for_each(|link| list.remove(link));
        assert!(list.all().is_empty() && list.0.lock().capacity() == 0);
    }
}
