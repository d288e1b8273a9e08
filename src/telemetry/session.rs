//! Peers that dialled in, and the one connection of an object that dials. Filled by the thread that moves the data, read
//! by control; a lock is held for a few instructions only.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

use parking_lot::Mutex;
use serde::{Serialize, Serializer};

use super::flow::FlowStats;
use super::srt::SrtStats;

/// The connection of an object that has at most one: an output or input that dials, or an input's publisher.
#[derive(Debug)]
pub struct Connection<T>(Mutex<Option<Arc<T>>>);

impl<T> Default for Connection<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Default> Connection<T> {
    /// Shows a new connection in place of the last, and returns its counters.
    pub fn open(&self) -> Arc<T> {
        let stats = Arc::<T>::default();
        self.show(Some(stats.clone()));
        stats
    }

    /// Shows these counters, such as those of a [`Session`]; `None` = not connected.
    pub fn show(&self, stats: Option<Arc<T>>) {
        *self.0.lock() = stats;
    }

    /// The counters there are, or new ones: they go on over connections.
    pub fn keep(&self) -> Arc<T> {
        self.0.lock().get_or_insert_default().clone()
    }

    /// The counters of the connection there is.
    pub fn stats(&self) -> Option<Arc<T>> {
        self.0.lock().clone()
    }
}

impl<T: Default + Serialize> Serialize for Connection<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.stats().as_deref().serialize(serializer)
    }
}

/// Number of a session; counts over the whole process and is never used again.
pub type SessionId = u64;

/// The number of a session that begins.
pub fn next_session() -> SessionId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Relaxed)
}

/// What is known of a session's connection.
#[derive(Debug, Clone)]
pub enum Transport {
    /// An SRT connection.
    Srt(Arc<SrtStats>),
    /// A TCP connection, or RTP that one controls.
    Flow(Arc<FlowStats>),
}

/// A peer that dialled in: a reader of an output, a publisher of an input.
#[derive(Debug)]
pub struct Session {
    /// Its number.
    pub id: SessionId,
    /// Where it dialled from.
    pub peer: SocketAddr,
    /// The user it gave.
    pub user: Option<Box<str>>,
    /// What it asked for, as it wrote it, without a password.
    pub stream_id: Box<str>,
    /// The API's word for how it speaks to us, such as `srt_listener`.
    pub protocol: &'static str,
    /// When it was let in.
    pub since: SystemTime,
    /// What is known of its connection.
    pub transport: Transport,
    kicked: AtomicBool,
}

impl Session {
    /// A session that begins, with counters of its own in `transport`.
    pub fn new(
        id: SessionId,
        peer: SocketAddr,
        user: Option<Box<str>>,
        stream_id: Box<str>,
        protocol: &'static str,
        since: SystemTime,
        transport: Transport,
    ) -> Self {
        Self { id, peer, user, stream_id, protocol, since, transport, kicked: AtomicBool::new(false) }
    }

    /// Asks for its end. The thread that owns it looks often, ends it, and takes it off its list.
    pub fn kick(&self) {
        self.kicked.store(true, Relaxed);
    }

    /// Whether somebody asked for its end.
    pub fn is_kicked(&self) -> bool {
        self.kicked.load(Relaxed)
    }
}

/// The sessions of one input or output, oldest first. Costs no memory while it is empty.
#[derive(Debug, Default)]
pub struct SessionList(Mutex<Vec<Arc<Session>>>);

/// There are as many sessions as there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("all {0} sessions are taken")]
pub struct SessionsFull(
    /// How many there may be.
    pub usize,
);

impl SessionList {
    /// Adds a session, unless `max` are there already.
    pub fn add(&self, session: Session, max: usize) -> Result<Arc<Session>, SessionsFull> {
        let session = Arc::new(session);
        let mut sessions = self.0.lock();
        if sessions.len() >= max {
            return Err(SessionsFull(max));
        }
        sessions.push(session.clone());
        Ok(session)
    }

    /// Takes a session off; the last one gives the memory back.
    pub fn remove(&self, id: SessionId) -> Option<Arc<Session>> {
        let mut sessions = self.0.lock();
        let index = sessions.iter().position(|session| session.id == id)?;
        let session = sessions.remove(index);
        if sessions.is_empty() {
            *sessions = Vec::new();
        }
        Some(session)
    }

    /// Asks for the end of a session. `false` = there is none of that number.
    pub fn kick(&self, id: SessionId) -> bool {
        let sessions = self.0.lock();
        let session = sessions.iter().find(|session| session.id == id);
        session.inspect(|session| session.kick()).is_some()
    }

    /// Every session, oldest first.
    pub fn all(&self) -> Vec<Arc<Session>> {
        self.0.lock().clone()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Serialize for SessionList {
    /// How many there are: who they are is told where it is asked for.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.len().serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(id: SessionId) -> Session {
        let peer = ([192, 0, 2, 1], 9000).into();
        Session::new(
            id,
            peer,
            None,
            "read:a".into(),
            "srt_listener",
            SystemTime::UNIX_EPOCH,
            Transport::Srt(Arc::default()),
        )
    }

    #[test]
    fn a_list_is_bounded_and_gives_its_memory_back() {
        let list = SessionList::default();
        for id in 1..=3 {
            assert_eq!(list.add(session(id), 3).unwrap().id, id);
        }
        assert_eq!(list.add(session(4), 3).unwrap_err(), SessionsFull(3));
        assert_eq!(list.remove(2).unwrap().id, 2);
        assert!(list.remove(2).is_none());
        assert_eq!(list.add(session(5), 3).unwrap().id, 5);
        assert_eq!(list.all().iter().map(|s| s.id).collect::<Vec<_>>(), [1, 3, 5]);
        for id in [1, 3, 5] {
            list.remove(id).unwrap();
        }
        assert!(list.is_empty() && list.0.lock().capacity() == 0);
    }

    #[test]
    fn a_kick_reaches_the_one_that_is_meant() {
        let list = SessionList::default();
        let (first, second) = (list.add(session(1), 9).unwrap(), list.add(session(2), 9).unwrap());
        assert!(list.kick(2) && !list.kick(3));
        assert!(!first.is_kicked() && second.is_kicked());
        assert_eq!(list.len(), 2, "who owns it takes it off");
    }

    #[test]
    fn a_connection_shows_what_there_is() {
        let connection = Connection::<FlowStats>::default();
        assert_eq!(serde_json::to_value(&connection).unwrap(), serde_json::Value::Null);
        connection.open().messages.store(3, Relaxed);
        assert_eq!(serde_json::to_value(&connection).unwrap()["messages"], 3);
        connection.show(None);
        assert!(connection.stats().is_none());
    }
}
