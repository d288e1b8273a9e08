//! Connection groups that we open: a stream enters, its links are dialled, kept, and told which of them carries it.
//! Decides when a group is up and when it is lost; what one link says is its session's.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::Ports;
use crate::media::{Datagram, Nanos};
use crate::net::{clock, random};
use crate::port::session::{End, Membership, Session, Stage};
use crate::port::{Bond, BondLink, Call, NoticeKind, Role};
use crate::telemetry::{self, LinkState, Rate};
use crate::wire::srt::handshake::{Agreed, Group, GroupKind};
use crate::wire::srt::{Backup, Change, LinkView, Seq, Standing};

/// A connection group that we open.
pub(super) struct Bundle {
    bond: Bond,
    /// Our name for the group.
    id: u32,
    /// The peer's name for it, once a link is connected.
    mirror: Option<u32>,
    /// When timestamps are 0 on all links.
    started: Nanos,
    /// The number of the first packet, and the position of the lane that has it.
    first: Seq,
    base: Option<u64>,
    links: Vec<Link>,
    policy: Backup,
    /// It was told that it is up.
    told: bool,
    /// Positions of the lane up to which some link has sent, and some peer has acknowledged.
    sent_to: u64,
    acked_to: u64,
    /// Datagrams that were told to be acknowledged.
    acknowledged: u64,
    bytes: u64,
    rate: Rate,
}

struct Link {
    card: Arc<telemetry::Link>,
    session: Option<usize>,
    connected: bool,
    /// When it is dialled again.
    again_at: Option<Nanos>,
    failures: u32,
    /// Why it failed last, and whether trying again may help.
    failure: Option<(String, bool)>,
}

impl Bundle {
    fn new(bond: Bond) -> Self {
        let (first, started) = bond
            .links
            .first()
            .map_or((Seq::default(), 0), |link| (link.dial.local.first, link.dial.local.started));
        let links = bond.links.iter().map(|link| {
            let card = Arc::new(telemetry::Link::new(link.peer, link.weight));
            bond.source.stats.links.add(Arc::clone(&card));
            Link { card, session: None, connected: false, again_at: None, failures: 0, failure: None }
        });
        let links = links.collect();
        Self {
            bond,
            id: group_id(),
            mirror: None,
            started,
            first,
            base: None,
            links,
            policy: Backup::default(),
            told: false,
            sent_to: 0,
            acked_to: 0,
            acknowledged: 0,
            bytes: 0,
            rate: Rate::default(),
        }
    }

    fn number(&self, position: u64) -> Seq {
        self.base.map_or(self.first, |base| self.first + position.wrapping_sub(base) as u32)
    }

    /// Whether a link is to send what is new.
    pub(super) fn carries(&self, link: usize) -> bool {
        self.bond.kind != GroupKind::Backup || self.policy.standing(link).carries()
    }

    /// Counts what leaves, once for all links.
    pub(super) fn note(&mut self, position: u64, run: &[Datagram]) {
        let stats = &self.bond.source.stats;
        let new = self.sent_to.saturating_sub(position).min(run.len() as u64) as usize;
        if self.sent_to > 0 && position > self.sent_to {
            stats.skipped.fetch_add(position - self.sent_to, Relaxed);
            stats.skips.fetch_add(1, Relaxed);
        }
        let Some(run) = run.get(new..).filter(|run| !run.is_empty()) else { return };
        let bytes = run.iter().map(|datagram| datagram.bytes.len() as u64).sum();
        self.sent_to = position + (new + run.len()) as u64;
        self.bytes += bytes;
        stats.datagrams.fetch_add(run.len() as u64, Relaxed);
        stats.bytes.fetch_add(bytes, Relaxed);
        stats.last_sent_ms.store(clock::wall_ms(), Relaxed);
    }
}

impl Ports {
    pub(super) fn bond(&mut self, bond: Bond, now: Nanos) {
        self.close(bond.owner, now);
        let owner = bond.owner;
        let bundle = Bundle::new(bond);
        let links = bundle.links.len();
        let index = match self.bundles.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                self.bundles.push(None);
                self.bundles.len() - 1
            }
        };
        self.bundles[index] = Some(bundle);
        self.holdings.insert(owner, super::Holding::Bundle(index));
        (0..links).for_each(|link| self.dial_link(index, link, now));
        self.answer_touched(now);
    }

    /// Dials the links whose time has come.
    pub(super) fn dial_links(&mut self, now: Nanos) {
        for index in 0..self.bundles.len() {
            let due = |link: &Link| link.again_at.is_some_and(|at| at <= now);
            let Some(bundle) = &self.bundles[index] else { continue };
            let due: Vec<usize> =
                bundle.links.iter().enumerate().filter(|(_, l)| due(l)).map(|(link, _)| link).collect();
            due.into_iter().for_each(|link| self.dial_link(index, link, now));
        }
    }

    /// When the next link is dialled again.
    pub(super) fn links_due(&self) -> Option<Nanos> {
        self.bundles.iter().flatten().flat_map(|bundle| &bundle.links).filter_map(|link| link.again_at).min()
    }

    fn dial_link(&mut self, index: usize, link: usize, now: Nanos) {
        let Some(Some(bundle)) = self.bundles.get_mut(index) else { return };
        let bond = &bundle.bond;
        let Some(BondLink { port, peer, weight, dial }) = bond.links.get(link).cloned() else { return };
        let mut dial = dial;
        let head = bond.source.lane.head();
        dial.local.started = bundle.started;
        dial.local.first = bundle.number(head);
        dial.group = Some(Group { id: bundle.id, kind: bond.kind, flags: 0, weight });
        let call = Call {
            owner: bond.owner,
            attempt: bond.attempt,
            port,
            peer,
            passphrase: bond.passphrase.clone(),
            dial,
            rendezvous: false,
            conduct: bond.conduct,
            role: Role::Send(bond.source.clone()),
        };
        let of = &mut bundle.links[link];
        (of.again_at, of.session) = (None, None);
        of.card.set(LinkState::Connecting);
        let stats = of.card.srt.open();
        match self.dial(call, Membership::Sends(index, link), stats, now) {
            Ok(session) => {
                if let Some(of) = self.link(index, link) {
                    of.session = Some(session);
                }
            }
            Err(NoticeKind::Failed { reason, retryable }) => {
                self.link_failed(index, link, &End { reason, retryable }, now);
            }
            Err(_) => {}
        }
    }

    fn link(&mut self, index: usize, link: usize) -> Option<&mut Link> {
        self.bundles.get_mut(index)?.as_mut()?.links.get_mut(link)
    }

    /// Whether the peer of a link answered as one of the group; in words why not.
    pub(super) fn check_link(&mut self, index: usize, agreed: &Agreed) -> Result<(), End> {
        let Some(Some(bundle)) = self.bundles.get_mut(index) else { return Err(End::lost("it was stopped")) };
        let group = agreed.group.filter(|group| group.kind == bundle.bond.kind);
        let Some(Group { id, .. }) = group else {
            return Err(End { reason: "the peer takes no connection groups".into(), retryable: false });
        };
        match bundle.mirror.replace(id) {
            Some(mirror) if mirror != id => {
                bundle.mirror = Some(mirror);
                Err(End::lost("it leads to another receiver than the other links of the group"))
            }
            _ => Ok(()),
        }
    }

    /// A link is past its handshake and in a line that has read up to `position`.
    pub(super) fn link_connected(&mut self, session: usize, position: u64, now: Nanos) {
        let Some(Some(Session { membership: Membership::Sends(index, link), stage, .. })) =
            self.sessions.get_mut(session)
        else {
            return;
        };
        let (index, link) = (*index, *link);
        let (Some(Some(bundle)), Stage::Sending(sending)) = (self.bundles.get_mut(index), stage) else {
            return;
        };
        let base = *bundle.base.get_or_insert(position);
        sending.sender.pin(base, bundle.first);
        bundle.policy.join(link);
        if bundle.bond.kind != GroupKind::Backup {
            sending.sender.resume(position, now);
        }
        let (owner, attempt) = (bundle.bond.owner, bundle.bond.attempt);
        let told = std::mem::replace(&mut bundle.told, true);
        let Some(of) = bundle.links.get_mut(link) else { return };
        (of.connected, of.failures, of.failure) = (true, 0, None);
        let peer = of.card.peer;
        if !told {
            self.tell(owner, attempt, NoticeKind::Connected);
        }
        self.tell(owner, attempt, NoticeKind::Peer(format!("the link to {peer} is up")));
        self.review(index, now);
    }

    /// The session of a link is over.
    pub(super) fn link_failed(&mut self, index: usize, link: usize, end: &End, now: Nanos) {
        let Some(Some(bundle)) = self.bundles.get_mut(index) else { return };
        bundle.policy.leave(link);
        let Some(of) = bundle.links.get_mut(link) else { return };
        of.card.set(LinkState::Broken);
        of.card.srt.show(None);
        of.session = None;
        of.failures += 1;
        of.failure = Some((end.reason.clone(), end.retryable));
        let was_up = std::mem::take(&mut of.connected);
        let wait = AGAIN_FIRST << (of.failures - 1).min(AGAIN_DOUBLINGS);
        // What is refused for good by one peer may be mended there while the other links go on.
        of.again_at = Some(now + if end.retryable { wait } else { AGAIN_FIRST << AGAIN_DOUBLINGS });
        let (owner, attempt) = (bundle.bond.owner, bundle.bond.attempt);
        let text = format!(
            "the link to {} {}: {}",
            of.card.peer,
            if was_up { "is lost" } else { "failed" },
            end.reason
        );
        let first_time = was_up || of.failures == 1;
        let alive = bundle.links.iter().any(|link| link.session.is_some());
        // Every link was tried and is gone: the group is.
        let tried = bundle.links.iter().all(|link| link.session.is_some() || link.failures > 0);
        let failed = (!alive && tried).then(|| {
            let mut reasons: Vec<String> = Vec::new();
            let failures =
                bundle.links.iter().filter_map(|link| Some((link.card.peer, link.failure.as_ref()?)));
            let mut retryable = false;
            for (peer, (reason, may_help)) in failures {
                retryable |= may_help;
                reasons.push(format!("{peer}: {reason}"));
            }
            (format!("no link of the group is up ({})", reasons.join("; ")), retryable)
        });
        if let Some((reason, retryable)) = failed {
            self.drop_bundle(index, now);
            self.holdings.remove(&owner);
            return self.tell(owner, attempt, NoticeKind::Failed { reason, retryable });
        }
        if first_time {
            self.tell(owner, attempt, NoticeKind::Peer(text));
        }
        self.review(index, now);
    }

    /// Ends a group with all its links.
    pub(super) fn drop_bundle(&mut self, index: usize, now: Nanos) {
        let Some(mut bundle) = self.bundles.get_mut(index).and_then(Option::take) else { return };
        bundle.publish(now, &self.sessions);
        let sessions: Vec<usize> = bundle.links.iter().filter_map(|link| link.session).collect();
        for session in sessions {
            self.end(session, &End::lost("it was stopped"), now);
        }
        for link in &bundle.links {
            bundle.bond.source.stats.links.remove(&link.card);
        }
    }

    /// Decides which links of a backup group carry the stream, and lets one that takes over send what no peer has
    /// acknowledged.
    pub(super) fn review(&mut self, index: usize, now: Nanos) {
        let Some(Some(bundle)) = self.bundles.get_mut(index) else { return };
        if bundle.bond.kind != GroupKind::Backup {
            return;
        }
        let mut views = Vec::with_capacity(bundle.links.len());
        for (link, of) in bundle.links.iter().enumerate().filter(|(_, of)| of.connected) {
            let session = of.session.and_then(|session| self.sessions.get(session)?.as_ref());
            let Some(Session { stage: Stage::Sending(sending), .. }) = session else { continue };
            let sender = &sending.sender;
            bundle.acked_to = bundle.acked_to.max(sender.acked_to());
            views.push(LinkView {
                link,
                weight: of.card.weight,
                silence: sender.silence(now),
                rtt: sender.rtt().smoothed(),
                variance: sender.rtt().variance(),
                latency: sender.peer_latency(),
                patience: bundle.bond.patience,
                dropped: sender.stats().dropped,
                idle_timeout: sender.idle_timeout(),
            });
        }
        let mut changes = Vec::new();
        bundle.policy.review(&views, now, |change| changes.push(change));
        for change in changes {
            let (Change::Activate(link) | Change::Silence(link) | Change::Break(link)) = change;
            let Some(session) = self.link(index, link).and_then(|of| of.session) else { continue };
            match change {
                Change::Activate(_) => self.activate(index, session, now),
                Change::Silence(_) => {
                    if let Some(Some(Session { stage: Stage::Sending(sending), .. })) =
                        self.sessions.get_mut(session)
                    {
                        sending.sender.rest();
                        self.set_timer(session);
                    }
                }
                Change::Break(_) => self.end(session, &End::lost("its peer answers too late"), now),
            }
        }
    }

    fn activate(&mut self, index: usize, session: usize, now: Nanos) {
        let (Some(Some(bundle)), Some(Some(of))) = (self.bundles.get(index), self.sessions.get_mut(session))
        else {
            return;
        };
        let (port, to) = (of.port, of.addressee(session));
        let Stage::Sending(sending) = &mut of.stage else { return };
        let Some(Some(line)) = self.lines.get(sending.line) else { return };
        let from = bundle.acked_to.max(bundle.base.unwrap_or(0)).min(line.cursor.0);
        sending.take_over(to, from..line.cursor.0, &mut self.outbox, now);
        self.post(port);
    }

    /// Looks at the backup groups whose links are members of a line.
    pub(super) fn review_line(&mut self, number: usize, now: Nanos) {
        if self.bundles.is_empty() {
            return;
        }
        let Some(Some(line)) = self.lines.get(number) else { return };
        let mut groups: Vec<usize> = Vec::new();
        for &member in &line.members {
            if let Some(Some(Session { membership: Membership::Sends(index, _), .. })) =
                self.sessions.get(member)
                && !groups.contains(index)
            {
                groups.push(*index);
            }
        }
        groups.into_iter().for_each(|index| self.review(index, now));
    }

    /// Shows the counters of all groups.
    pub(super) fn publish_bundles(&mut self, now: Nanos) {
        for bundle in self.bundles.iter_mut().flatten() {
            bundle.publish(now, &self.sessions);
        }
    }
}

impl Bundle {
    fn publish(&mut self, now: Nanos, sessions: &[Option<Session>]) {
        let stats = &self.bond.source.stats;
        let mut acked_to = self.acked_to;
        for (link, of) in self.links.iter().enumerate().filter(|(_, of)| of.connected) {
            let session = of.session.and_then(|session| sessions.get(session)?.as_ref());
            let Some(Session { stage: Stage::Sending(sending), .. }) = session else { continue };
            if self.carries(link) {
                acked_to = acked_to.max(sending.sender.acked_to());
            }
            of.card.set(match self.policy.standing(link) {
                _ if self.bond.kind != GroupKind::Backup => LinkState::Active,
                Standing::Absent | Standing::Standby => LinkState::Standby,
                Standing::Fresh(_) | Standing::Stable => LinkState::Active,
                Standing::Unstable(_) | Standing::Wary(_) => LinkState::Unstable,
            });
        }
        // Nothing counts as acknowledged that this group has not sent.
        let acknowledged = acked_to.min(self.sent_to).saturating_sub(self.base.unwrap_or(acked_to));
        stats.acknowledged.fetch_add(acknowledged.saturating_sub(self.acknowledged), Relaxed);
        self.acknowledged = self.acknowledged.max(acknowledged);
        self.acked_to = acked_to;
        stats.bitrate_bps.store(self.rate.update(now, self.bytes), Relaxed);
    }
}

/// A name for a group that nobody can guess: bit 30 tells groups from sockets.
pub(super) fn group_id() -> u32 {
    u32::from_ne_bytes(random()) & 0x3FFF_FFFF | 0x4000_0000
}

/// A link that failed is dialled again after this…
const AGAIN_FIRST: Nanos = 1_000_000_000;
/// …and twice as late each time, up to 16 s.
const AGAIN_DOUBLINGS: u32 = 4;
