//! Which version of the TAK protocol a mesh speaks: what is heard of others enters with its moment, the version to send
//! in leaves. Never goes above what the oldest of them understands.

use std::collections::BTreeMap;
use std::time::Duration;

use super::proto::{TakControl, TakMessage};

/// The peers of a multicast group.
#[derive(Debug, Default)]
pub struct Mesh {
    /// Highest version that each peer speaks (0 = XML only), and when it was heard.
    peers: BTreeMap<String, (u32, Duration)>,
    /// When this end last said what it speaks.
    said: Option<Duration>,
}

impl Mesh {
    /// A peer sent an event as XML. One that also says that it speaks protobuf is not counted as a peer without.
    pub fn hear_xml(&mut self, uid: &str, now: Duration) {
        let known =
            self.peers.get(uid).filter(|(_, at)| is_fresh(*at, now)).map_or(0, |(version, _)| *version);
        self.hear(uid, known, now);
    }

    /// A peer sent a message.
    pub fn hear_message(&mut self, message: &TakMessage, now: Duration) {
        let uid = match (&message.event, &message.control) {
            (Some(event), _) => &event.uid,
            (None, Some(control)) => &control.contact_uid,
            (None, None) => return,
        };
        // no control means that what was said before still holds; whoever sends version 1 speaks it
        let version = message.control.as_ref().map(|control| control.max_version.max(1));
        let before = self.peers.get(uid).map_or(1, |(version, _)| (*version).max(1));
        self.hear(uid, version.unwrap_or(before), now);
    }

    /// The version to send in: 1 when there are peers and all speak it, else 0 (XML).
    pub fn version(&mut self, now: Duration) -> u32 {
        self.peers.retain(|_, (_, at)| is_fresh(*at, now));
        self.peers.values().map(|(version, _)| *version).min().unwrap_or(0).min(1)
    }

    /// Peers that are remembered.
    pub fn peers(&self) -> usize {
        self.peers.len()
    }

    /// What this end must say now of the versions it speaks: with the first message, and once a minute at least.
    pub fn control(&mut self, uid: &str, now: Duration) -> Option<TakControl> {
        if self.said.is_some_and(|said| now.saturating_sub(said) < REPEAT) {
            return None;
        }
        self.said = Some(now);
        Some(TakControl { min_version: 1, max_version: 1, contact_uid: uid.to_owned() })
    }

    fn hear(&mut self, uid: &str, version: u32, now: Duration) {
        if self.peers.len() >= PEERS_MAX && !self.peers.contains_key(uid) {
            self.peers.retain(|_, (_, at)| is_fresh(*at, now));
            if self.peers.len() >= PEERS_MAX {
                return;
            }
        }
        self.peers.insert(uid.to_owned(), (version, now));
    }
}

fn is_fresh(at: Duration, now: Duration) -> bool {
    now.saturating_sub(at) <= FORGET
}

/// A peer says what it speaks at least once a minute; one that is not heard for two is gone.
const FORGET: Duration = Duration::from_secs(120);

/// A little less than the minute that peers wait for.
const REPEAT: Duration = Duration::from_secs(50);

/// Peers that are remembered; beyond them the mesh is taken for what the known ones speak.
const PEERS_MAX: usize = 1000;
