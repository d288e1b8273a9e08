//! Connection groups (bonding): what is known of the links of one group enters; which of them carry the stream, and one
//! order for the packets of all of them, leave. Holds no payload of its own and knows no datagram.
//!
//! All links of a group give a packet the same number and timestamp. The draft has only the handshake extension
//! (3.2.1.4); what the links do is libsrt's, as its documents of socket groups and of main/backup mode describe it.

use super::{Nanos, Seq};

/// What a link of a sending backup group does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Standing {
    /// It is not connected.
    #[default]
    Absent,
    /// It is connected, and ready to take over.
    Standby,
    /// It carries the stream since then: too early to judge it.
    Fresh(Nanos),
    /// It carries the stream, and its peer answers.
    Stable,
    /// It carries the stream, and its peer has been silent for too long since then.
    Unstable(Nanos),
    /// Its peer answers again since then.
    Wary(Nanos),
}

/// What a connected link looks like at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkView {
    /// Its number in the group.
    pub link: usize,
    /// Its priority: the highest first.
    pub weight: u16,
    /// How long something sent has been waiting for a word of the peer, in nanoseconds.
    pub silence: Nanos,
    /// The smoothed round-trip time.
    pub rtt: Nanos,
    /// The mean deviation from it.
    pub variance: Nanos,
    /// How long the peer holds packets before it delivers them.
    pub latency: Nanos,
    /// No link is unstable for less silence (`groupminstabletimeo`); libsrt has 60 ms.
    pub patience: Nanos,
    /// Packets given up so far.
    pub dropped: u64,
    /// Silence after which the connection counts as lost.
    pub idle_timeout: Nanos,
}

/// What is to be done with a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It carries the stream from now on, beginning with what no link has acknowledged.
    Activate(usize),
    /// It rests from now on.
    Silence(usize),
    /// It has been unstable for too long: end it.
    Break(usize),
}

/// Which links of a backup group carry the stream: one, and while it seems to fail another one too.
#[derive(Debug, Default)]
pub struct Backup {
    links: Vec<Seat>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Seat {
    standing: Standing,
    /// Packets that it had given up when it was last looked at.
    dropped: u64,
}

/// Puts what the links of a receiving group deliver into one order, each packet once.
#[derive(Debug)]
pub struct Merge<T> {
    /// The number of the packet that leaves next; `None` before the first one.
    next: Option<Seq>,
    waiting: Vec<(Seq, T)>,
}

impl Standing {
    /// Whether the link carries the stream.
    pub const fn carries(self) -> bool {
        !matches!(self, Self::Absent | Self::Standby)
    }

    /// Order among links of one weight.
    const fn rank(self) -> u8 {
        match self {
            Self::Stable => 0,
            Self::Fresh(_) => 1,
            Self::Wary(_) => 2,
            Self::Unstable(_) => 3,
            Self::Standby => 4,
            Self::Absent => 5,
        }
    }
}

impl LinkView {
    /// The silence that makes a link unstable.
    fn patience(&self, standing: Standing) -> Nanos {
        let most = self.latency.max(self.patience);
        match standing {
            Standing::Fresh(_) => most,
            _ => (2 * self.rtt + 4 * self.variance).clamp(self.patience, most),
        }
    }
}

impl Backup {
    /// A link is connected.
    pub fn join(&mut self, link: usize) {
        if self.links.len() <= link {
            self.links.resize(link + 1, Seat::default());
        }
        self.links[link] = Seat { standing: Standing::Standby, dropped: 0 };
    }

    /// A link is not connected any more.
    pub fn leave(&mut self, link: usize) {
        if let Some(seat) = self.links.get_mut(link) {
            *seat = Seat::default();
        }
    }

    /// What a link does.
    pub fn standing(&self, link: usize) -> Standing {
        self.links.get(link).map_or(Standing::Absent, |seat| seat.standing)
    }

    /// Looks at all connected links before new packets are sent, and says what changes. Of a group without a working
    /// link the best one is activated; a link of more weight takes over; where two are stable, the lesser one rests.
    pub fn review(&mut self, views: &[LinkView], now: Nanos, mut change: impl FnMut(Change)) {
        for view in views {
            if self.judge(view, now) {
                change(Change::Break(view.link));
            }
        }
        let mut order: Vec<(&LinkView, Standing)> =
            views.iter().map(|view| (view, self.standing(view.link))).collect();
        order.sort_by_key(|(view, standing)| (u16::MAX - view.weight, standing.rank(), view.link));
        let works =
            order.iter().any(|(_, standing)| matches!(standing, Standing::Stable | Standing::Fresh(_)));
        let most = order.iter().find(|(_, standing)| standing.carries()).map(|(view, _)| view.weight);
        let rests = order.iter_mut().find(|(_, standing)| *standing == Standing::Standby);
        if let Some((view, standing)) = rests
            && (!works || most.is_some_and(|most| view.weight > most))
        {
            *standing = Standing::Fresh(now);
            self.set(view.link, *standing);
            change(Change::Activate(view.link));
        }
        order.sort_by_key(|(view, standing)| (u16::MAX - view.weight, standing.rank(), view.link));
        let stable = order.iter().position(|(_, standing)| *standing == Standing::Stable);
        let Some(stable) = stable else { return };
        for (view, _) in order.drain(stable + 1..).filter(|(_, standing)| standing.carries()) {
            self.set(view.link, Standing::Standby);
            change(Change::Silence(view.link));
        }
    }

    /// Follows a link that carries the stream; whether it is to be ended.
    fn judge(&mut self, view: &LinkView, now: Nanos) -> bool {
        let Some(seat) = self.links.get_mut(view.link) else { return false };
        let dropped = view.dropped > std::mem::replace(&mut seat.dropped, view.dropped);
        let silent = view.silence > view.patience(seat.standing);
        seat.standing = match seat.standing {
            Standing::Fresh(since) if silent && view.silence <= now.saturating_sub(since) => {
                Standing::Unstable(now)
            }
            Standing::Fresh(since) if now.saturating_sub(since) > view.latency.max(view.patience) + PROBE => {
                Standing::Stable
            }
            Standing::Stable | Standing::Wary(_) if silent || dropped => Standing::Unstable(now),
            Standing::Wary(since) if now.saturating_sub(since) >= 4 * view.latency => Standing::Stable,
            Standing::Unstable(since) if silent || dropped => {
                return now.saturating_sub(since) > view.idle_timeout;
            }
            Standing::Unstable(_) => Standing::Wary(now),
            same => same,
        };
        false
    }

    fn set(&mut self, link: usize, standing: Standing) {
        if let Some(seat) = self.links.get_mut(link) {
            seat.standing = standing;
        }
    }
}

impl<T> Merge<T> {
    /// Takes a packet that a link has delivered. One that left before, or waits already, is discarded.
    pub fn add(&mut self, sequence: Seq, packet: T) {
        let late = self.next.is_some_and(|next| sequence.is_before(next));
        if !late && !self.waiting.iter().rev().any(|(waiting, _)| *waiting == sequence) {
            self.waiting.push((sequence, packet));
        }
    }

    /// Lets out what waits, once every link has delivered what is due: `out` gets each packet, and how many are
    /// missing before it on all links.
    pub fn take(&mut self, mut out: impl FnMut(T, u32)) {
        let Some(&(any, _)) = self.waiting.first() else { return };
        let base = self.next.unwrap_or(any);
        self.waiting.sort_by_key(|(sequence, _)| sequence.ahead_of(base));
        for (sequence, packet) in self.waiting.drain(..) {
            let missing = self.next.map_or(0, |next| sequence.ahead_of(next).max(0));
            self.next = Some(sequence + 1);
            out(packet, missing as u32);
        }
    }
}

impl<T> Default for Merge<T> {
    fn default() -> Self {
        Self { next: None, waiting: Vec::new() }
    }
}

/// How much longer than its patience a link that was activated is watched before it counts as stable.
const PROBE: Nanos = 50_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = 1_000_000;

    fn view(link: usize, weight: u16, silence: Nanos) -> LinkView {
        LinkView {
            link,
            weight,
            silence,
            rtt: 20 * MS,
            variance: 2 * MS,
            latency: 120 * MS,
            patience: 60 * MS,
            dropped: 0,
            idle_timeout: 5000 * MS,
        }
    }

    fn review(backup: &mut Backup, views: &[LinkView], now: Nanos) -> Vec<Change> {
        let mut changes = Vec::new();
        backup.review(views, now, |change| changes.push(change));
        changes
    }

    fn two() -> Backup {
        let mut backup = Backup::default();
        backup.join(1);
        backup.join(0);
        backup
    }

    #[test]
    fn the_link_of_most_weight_carries_and_the_other_waits() {
        let mut backup = two();
        let calm = [view(0, 1, 0), view(1, 9, 0)];
        assert_eq!(review(&mut backup, &calm, 0), [Change::Activate(1)]);
        for now in 1..400 {
            assert_eq!(review(&mut backup, &calm, now * MS), []);
        }
        assert_eq!((backup.standing(0), backup.standing(1)), (Standing::Standby, Standing::Stable));
    }

    #[test]
    fn a_link_that_falls_silent_is_joined_by_the_next_and_rests_when_it_is_the_lesser() {
        let mut backup = two();
        let calm = [view(0, 1, 0), view(1, 9, 0)];
        review(&mut backup, &calm, 0);
        review(&mut backup, &calm, 171 * MS);
        assert_eq!(backup.standing(1), Standing::Stable);
        // 2 · 20 + 4 · 2 ms are less than the least patience of 60 ms.
        assert_eq!(review(&mut backup, &[view(0, 1, 0), view(1, 9, 60 * MS)], 200 * MS), []);
        let silent = [view(0, 1, 0), view(1, 9, 61 * MS)];
        assert_eq!(review(&mut backup, &silent, 201 * MS), [Change::Activate(0)]);
        assert!(backup.standing(0).carries() && backup.standing(1).carries());
        // It answers again: for 480 ms it is not trusted, then the one of less weight rests.
        assert_eq!(review(&mut backup, &calm, 300 * MS), []);
        assert_eq!(backup.standing(1), Standing::Wary(300 * MS));
        assert_eq!(review(&mut backup, &calm, 779 * MS), []);
        assert_eq!(backup.standing(0), Standing::Stable);
        assert_eq!(review(&mut backup, &calm, 780 * MS), [Change::Silence(0)]);
        assert_eq!((backup.standing(0), backup.standing(1)), (Standing::Standby, Standing::Stable));
    }

    #[test]
    fn one_that_stays_silent_is_broken_and_one_that_comes_back_with_more_weight_takes_over() {
        let mut backup = two();
        review(&mut backup, &[view(0, 1, 0), view(1, 9, 0)], 0);
        review(&mut backup, &[view(0, 1, 0), view(1, 9, 0)], 171 * MS);
        let silent = |silence| [view(0, 1, 0), view(1, 9, silence)];
        assert_eq!(review(&mut backup, &silent(61 * MS), 232 * MS), [Change::Activate(0)]);
        assert_eq!(review(&mut backup, &silent(5000 * MS), 5232 * MS), []);
        assert_eq!(review(&mut backup, &silent(5001 * MS), 5233 * MS), [Change::Break(1)]);
        backup.leave(1);
        assert_eq!(review(&mut backup, &[view(0, 1, 0)], 5300 * MS), []);
        assert_eq!(backup.standing(0), Standing::Stable);
        backup.join(1);
        assert_eq!(review(&mut backup, &silent(0), 6000 * MS), [Change::Activate(1)]);
        // Both carry until the new one has proven itself.
        assert!(backup.standing(0).carries());
        assert_eq!(review(&mut backup, &silent(0), 6171 * MS), [Change::Silence(0)]);
    }

    #[test]
    fn what_is_given_up_makes_a_link_unstable_and_a_fresh_one_gets_the_whole_latency() {
        let mut backup = two();
        let calm = [view(0, 1, 0), view(1, 9, 0)];
        review(&mut backup, &calm, 0);
        assert_eq!(review(&mut backup, &[view(0, 1, 0), view(1, 9, 119 * MS)], 119 * MS), []);
        assert_eq!(backup.standing(1), Standing::Fresh(0));
        review(&mut backup, &calm, 171 * MS);
        let dropped = [view(0, 1, 0), LinkView { dropped: 3, ..view(1, 9, 0) }];
        assert_eq!(review(&mut backup, &dropped, 200 * MS), [Change::Activate(0)]);
        assert_eq!(backup.standing(1), Standing::Unstable(200 * MS));
        let mut backup = two();
        review(&mut backup, &calm, 0);
        assert_eq!(
            review(&mut backup, &[view(0, 1, 0), view(1, 9, 121 * MS)], 121 * MS),
            [Change::Activate(0)]
        );
    }

    #[test]
    fn each_packet_leaves_once_and_in_order_whatever_link_it_came_by() {
        let first = Seq::new(Seq::COUNT - 2);
        let mut merge = Merge::default();
        let take = |merge: &mut Merge<u32>| {
            let mut out = Vec::new();
            merge.take(|packet, missing| out.push((packet, missing)));
            out
        };
        assert_eq!(take(&mut merge), []);
        for n in [0, 2, 3, 1, 2] {
            merge.add(first + n, n);
        }
        assert_eq!(take(&mut merge), [(0, 0), (1, 0), (2, 0), (3, 0)]);
        merge.add(first + 3, 3);
        merge.add(first + 6, 6);
        merge.add(first + 5, 5);
        assert_eq!(take(&mut merge), [(5, 1), (6, 0)]);
        merge.add(first + 4, 4);
        assert_eq!(take(&mut merge), []);
    }
}
