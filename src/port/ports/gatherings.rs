//! Connection groups that dial in: links that peers open for one publisher enter, one stream leaves, each packet once
//! whichever link it came by. Never decides who may publish.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

use super::Ports;
use crate::media::Nanos;
use crate::port::session::{Membership, Receiving, Session, Stage};
use crate::port::{Drain, Owner};
use crate::telemetry::{self, LinkState};
use crate::wire::srt::Merge;
use crate::wire::srt::handshake::Group;

/// A connection group that dialled in.
pub(super) struct Gathering {
    owner: Owner,
    /// The group as its peer names it.
    group: Group,
    /// Our name for it.
    pub(super) id: u32,
    drain: Drain,
    merge: Merge<(Bytes, Nanos)>,
    /// The first one's clock is that of all.
    pub(super) links: Vec<Link>,
}

pub(super) struct Link {
    pub(super) session: usize,
    card: Arc<telemetry::Link>,
    /// Data packets when they were last looked at.
    packets: u64,
}

impl Gathering {
    /// Whether a link that says it is of this group belongs here.
    pub(super) fn is(&self, owner: Owner, group: Group) -> bool {
        self.owner == owner && (self.group.id, self.group.kind) == (group.id, group.kind)
    }
}

impl Ports {
    /// The group that a link belongs to, made where there is none.
    pub(super) fn gather(&mut self, owner: Owner, group: Group, id: u32, drain: &Drain) -> usize {
        if let Some(found) =
            self.gatherings.iter().position(|g| g.as_ref().is_some_and(|g| g.is(owner, group)))
        {
            return found;
        }
        let (merge, links) = (Merge::default(), Vec::new());
        let gathering = Gathering { owner, group, id, drain: drain.clone(), merge, links };
        match self.gatherings.iter().position(Option::is_none) {
            Some(free) => {
                self.gatherings[free] = Some(gathering);
                free
            }
            None => {
                self.gatherings.push(Some(gathering));
                self.gatherings.len() - 1
            }
        }
    }

    /// Takes a session in as a link.
    pub(super) fn join(&mut self, index: usize, at: usize, weight: u16) {
        let Some(Some(gathering)) = self.gatherings.get_mut(index) else { return };
        let leader = gathering.links.first().and_then(|link| receiving(&mut self.sessions, link.session));
        // What the others have had already is not waited for.
        let follow = leader.map(|leader| (leader.receiver.clock(), leader.receiver.end()));
        let Some(Some(session)) = self.sessions.get_mut(at) else { return };
        session.membership = Membership::Receives(index);
        let card = telemetry::Link::new(session.peer, weight);
        card.srt.show(Some(Arc::clone(&session.stats)));
        card.set(LinkState::Standby);
        if let (Some((clock, end)), Stage::Receiving(receiving)) = (follow, &mut session.stage) {
            receiving.receiver.follow(clock);
            receiving.receiver.skip_to(end);
        }
        let card = Arc::new(card);
        gathering.drain.stats.links.add(Arc::clone(&card));
        gathering.links.push(Link { session: at, card, packets: 0 });
    }

    /// Takes a session off; the group ends with its last link.
    pub(super) fn leave_gathering(&mut self, index: usize, at: usize) {
        let Some(Some(gathering)) = self.gatherings.get_mut(index) else { return };
        let stats = &gathering.drain.stats;
        for link in gathering.links.extract_if(.., |link| link.session == at) {
            stats.links.remove(&link.card);
        }
        match gathering.links.first().and_then(|link| self.sessions.get(link.session)?.as_ref()) {
            Some(session) => stats.srt.show(Some(Arc::clone(&session.stats))),
            None => self.gatherings[index] = None,
        }
    }

    /// Hands over what is due on the links of a group.
    pub(super) fn deliver(&mut self, index: usize, now: Nanos) {
        let Some(Some(gathering)) = self.gatherings.get_mut(index) else { return };
        let mut clock = None;
        let mut furthest = None;
        for link in &gathering.links {
            let Some(Receiving { receiver, .. }) = receiving(&mut self.sessions, link.session) else {
                continue;
            };
            match &clock {
                None => clock = Some(receiver.clock()),
                Some(clock) => receiver.follow(clock.clone()),
            }
            while let Some(delivery) = receiver.pop(now) {
                let payload = Bytes::copy_from_slice(delivery.payload);
                gathering.merge.add(delivery.sequence, (payload, delivery.deliver_at));
            }
            let next = receiver.next_missing();
            furthest = Some(furthest.map_or(next, |furthest| next.later(furthest)));
        }
        let mut any = false;
        let feed = &gathering.drain.feed;
        gathering.merge.take(|(payload, at), _| {
            feed.push((payload, at));
            any = true;
        });
        if any {
            feed.ring();
        }
        // A link that rests goes along, so that what it brings when it takes over is where it belongs.
        for link in &gathering.links {
            if let (Some(of), Some(furthest)) = (receiving(&mut self.sessions, link.session), furthest) {
                of.receiver.skip_to(furthest);
            }
        }
    }

    /// Shows which links carry something.
    pub(super) fn publish_gatherings(&mut self) {
        for link in self.gatherings.iter_mut().flatten().flat_map(|gathering| &mut gathering.links) {
            let Some(Some(session)) = self.sessions.get(link.session) else { continue };
            let packets = session.stats.packets.load(Relaxed);
            let before = std::mem::replace(&mut link.packets, packets);
            link.card.set(if packets > before { LinkState::Active } else { LinkState::Standby });
        }
    }
}

fn receiving(sessions: &mut [Option<Session>], at: usize) -> Option<&mut Receiving> {
    match sessions.get_mut(at)? {
        Some(Session { stage: Stage::Receiving(receiving), .. }) => Some(receiving),
        _ => None,
    }
}
