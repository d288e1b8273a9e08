//! What happened to one input or output enters, what to do about it leaves: one machine per object, driven
//! by its owner. Never dials, closes or waits itself.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use super::{Backoff, Class, Nanos};
use crate::telemetry::{Desired, State, Status};

/// One supervised input or output.
///
/// Its owner passes on what happens ([`handle`](Self::handle)), does what is asked ([`Action`]) and sends
/// [`Event::Tick`] when the [`deadline`](Self::deadline) has come. At any time at most one attempt is under
/// way or connected; whatever a former attempt reports changes nothing.
#[derive(Debug)]
pub struct Machine {
    policy: Policy,
    state: State,
    desired: Desired,
    link: Link,
    /// Output: its input has something to send.
    source: bool,
    /// Input: packets have arrived since it was started.
    fed: bool,
    attempt: Attempt,
    /// Attempts that failed since it was started or last worked for [`PROVEN`].
    failures: u32,
    reconnects: u64,
    since: Nanos,
    started_at: Option<Nanos>,
    /// When data last moved, or could have begun to.
    moved: Nanos,
    /// Output: when data last left for peers that need not answer.
    sent: Nanos,
    /// When to dial, while nothing is connected.
    retry_at: Option<Nanos>,
    /// It was closed for want of a source, and is dialled when there is one.
    parked: bool,
    reason: Cow<'static, str>,
    last_error: Option<Box<str>>,
}

/// How one object is supervised.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// What it is.
    pub role: Role,
    /// Waits between attempts after errors of [`Class::Retry`], and before a connection that stalled is made
    /// anew.
    pub backoff: Backoff,
    /// `false`: one attempt, then `Failed` until it is started by hand.
    pub auto_reconnect: bool,
    /// Retries in a row that may fail before it is `Failed` until it is started by hand; 0 = no limit.
    pub max_attempts: u32,
    /// Wait between attempts after errors of [`Class::Fatal`] and [`Class::Bug`], spread by the backoff's
    /// jitter; `None` = `Failed` until it is started by hand.
    pub fatal_retry: Option<Duration>,
    /// Without data for this long it is `Stalled`; `None` = never.
    pub stall_after: Option<Duration>,
    /// Close a silent connection and dial again (a multicast group is joined anew, on whatever interface is
    /// there then), every `stall_after` until packets come. Otherwise it is kept as it is.
    pub redial_on_stall: bool,
    /// Output: peers dial in, and while none reads it is `Idle`.
    pub serves: bool,
    /// Output: a connection without a source is kept so long, then closed, and made again when there is one. `None` =
    /// kept for ever.
    pub hold: Option<Duration>,
}

/// What is supervised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Connected without packets it is `Idle` or `Stalled`, with packets `Live`.
    Input,
    /// Connected it is `Live` or `Sending`, without a source `Starved`.
    Output,
}

/// The number of an attempt and of the connection that comes of it; counts up over a machine's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt(u32);

impl Attempt {
    /// The bare number, for rooms that know nothing of supervision.
    pub fn number(self) -> u32 {
        self.0
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The operator wants it to run. While nothing is connected this dials at once and forgets earlier
    /// failures.
    Start,
    /// The operator wants it at rest.
    Stop,
    /// The attempt led to a connection.
    Connected {
        /// Which attempt.
        attempt: Attempt,
        /// Output: the peer acknowledges what it gets.
        answering: bool,
    },
    /// The attempt failed, or the connection that came of it broke.
    Failed {
        /// Which attempt.
        attempt: Attempt,
        /// Whether trying again may help.
        class: Class,
        /// What went wrong, in words for an operator, without secrets.
        reason: String,
    },
    /// The connection came to its proper end: a file was read to the last packet. It is not dialled again.
    Ended {
        /// Which attempt.
        attempt: Attempt,
    },
    /// Data moved since the last look: the input received packets, the output sent, or its peer acknowledged.
    Flowing,
    /// Output whose peers may answer: data left for some that need not, and have not of late.
    Sent,
    /// Output: since the last look its input gave nothing, which is not long enough to have nothing to send.
    Quiet,
    /// Output: its input has nothing to send any more. So it is until the first [`Event::SourceBack`].
    SourceGone,
    /// Output: its input has something to send.
    SourceBack,
    /// Time passed.
    Tick,
}

/// What the owner has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Begin an attempt under this number and report how it went.
    Dial(Attempt),
    /// Drop the attempt or connection of this number, if there still is one; no report is due.
    Close(Attempt),
}

impl Machine {
    /// An object at rest.
    pub fn new(policy: Policy, now: Nanos) -> Self {
        Self {
            policy,
            state: State::Idle,
            desired: Desired::Stopped,
            link: Link::Down,
            source: false,
            fed: false,
            attempt: Attempt(0),
            failures: 0,
            reconnects: 0,
            since: now,
            started_at: None,
            moved: now,
            sent: 0,
            retry_at: None,
            parked: false,
            reason: Cow::Borrowed(""),
            last_error: None,
        }
    }

    /// Takes what happened at `now`; `random` is uniform in `[0, 1)`. Events that do not fit are ignored.
    #[must_use = "the action has to be done"]
    pub fn handle(&mut self, event: Event, now: Nanos, random: f64) -> Option<Action> {
        if self.is_proven(now) {
            self.failures = 0;
        }
        match event {
            Event::Start => self.start(now),
            Event::Stop => self.stop(now),
            Event::Connected { attempt, answering } => self.connect(attempt, answering, now),
            Event::Failed { attempt, class, reason } => self.fail(attempt, class, reason, now, random),
            Event::Ended { attempt } => self.end(attempt, now),
            Event::Flowing => self.flow(now),
            Event::Sent => self.note_sent(now),
            Event::Quiet => self.keep_quiet(now),
            Event::SourceGone => self.source(false, now),
            Event::SourceBack => self.source(true, now),
            Event::Tick => self.tick(now, random),
        }
    }

    /// When it wants the next [`Event::Tick`]; `None` = never, unless something happens.
    pub fn deadline(&self) -> Option<Nanos> {
        match self.link {
            Link::Down => self.retry_at,
            Link::Dialing => None,
            Link::Up { .. } if self.state == State::Starved => {
                self.policy.hold.map(|hold| self.moved.saturating_add(nanos(hold)))
            }
            Link::Up { .. } => {
                let watched = match self.state {
                    State::Live | State::Sending => true,
                    State::Connecting => !self.policy.serves,
                    State::Idle | State::Stalled => self.redials_on_stall(),
                    _ => false,
                };
                let stall_after = self.policy.stall_after.filter(|_| watched)?;
                Some(self.moved.saturating_add(nanos(stall_after)))
            }
        }
    }

    /// Replaces the policy. It counts from the next decision; what goes on is left alone.
    pub fn adopt(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// What the operator asked for.
    pub fn desired(&self) -> Desired {
        self.desired
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// The attempt under way or connected.
    pub fn attempt(&self) -> Option<Attempt> {
        (self.link != Link::Down).then_some(self.attempt)
    }

    /// A snapshot for the world; `clock` says what time of day a moment of the machine's clock was.
    pub fn status(&self, clock: impl Fn(Nanos) -> SystemTime) -> Status {
        Status {
            state: self.state,
            reason: self.reason.clone().into_owned(),
            since: clock(self.since),
            started_at: self.started_at.map(clock),
            reconnect_count: self.reconnects,
            last_error: self.last_error.as_deref().map(str::to_owned),
        }
    }

    fn start(&mut self, now: Nanos) -> Option<Action> {
        if self.desired == Desired::Running && self.link != Link::Down {
            return None;
        }
        if self.desired == Desired::Stopped {
            self.fed = false;
        }
        self.desired = Desired::Running;
        self.failures = 0;
        self.reconnects = 0;
        self.enter(State::Connecting, "", now);
        self.dial()
    }

    fn stop(&mut self, now: Nanos) -> Option<Action> {
        self.desired = Desired::Stopped;
        let action = self.close();
        self.retry_at = None;
        self.parked = false;
        self.enter(State::Idle, "", now);
        action
    }

    fn connect(&mut self, attempt: Attempt, answering: bool, now: Nanos) -> Option<Action> {
        if self.link != Link::Dialing || attempt != self.attempt {
            // Nobody waits for it any more. The one that is in use needs no second report.
            return (self.attempt() != Some(attempt)).then_some(Action::Close(attempt));
        }
        self.link = Link::Up { answering };
        self.moved = now;
        match self.policy.role {
            Role::Output => self.carry(false, now),
            Role::Input if self.fed => {
                self.enter(State::Stalled, "connected again, waiting for packets", now)
            }
            Role::Input => self.enter(State::Idle, "waiting for the first packet", now),
        }
        None
    }

    fn fail(
        &mut self,
        attempt: Attempt,
        class: Class,
        reason: String,
        now: Nanos,
        random: f64,
    ) -> Option<Action> {
        if self.attempt() != Some(attempt) {
            return None;
        }
        self.failures = self.failures.saturating_add(1);
        self.last_error = Some(reason.as_str().into());
        let Policy { backoff, max_attempts, .. } = self.policy;
        let (state, wait, reason) = if !self.policy.auto_reconnect {
            (State::Failed, None, format!("{reason}; auto_reconnect is off, start it by hand"))
        } else if max_attempts > 0 && self.failures > max_attempts {
            (State::Failed, None, format!("{reason}; gave up after {max_attempts} retries, start it by hand"))
        } else if class == Class::Retry {
            (State::Backoff, Some(backoff.delay(self.failures - 1, random)), reason)
        } else if let Some(wait) = self.policy.fatal_retry {
            let reason = format!("{reason}; needs a change, tried again about every {wait:?}");
            (State::Failed, Some(backoff.spread(wait, random)), reason)
        } else {
            (State::Failed, None, format!("{reason}; needs a change, then start it by hand"))
        };
        self.retry_at = wait.map(|wait| now.saturating_add(nanos(wait)));
        self.enter(state, reason, now);
        self.close()
    }

    fn end(&mut self, attempt: Attempt, now: Nanos) -> Option<Action> {
        if self.attempt() != Some(attempt) {
            return None;
        }
        self.enter(State::Idle, "came to its end, start it by hand", now);
        self.close()
    }

    fn flow(&mut self, now: Nanos) -> Option<Action> {
        if !matches!(self.link, Link::Up { .. }) {
            return None;
        }
        self.moved = now;
        match self.policy.role {
            Role::Input => {
                self.fed = true;
                self.enter(State::Live, "", now);
            }
            Role::Output => self.carry(true, now),
        }
        None
    }

    fn note_sent(&mut self, now: Nanos) -> Option<Action> {
        if self.policy.role != Role::Output || !matches!(self.link, Link::Up { .. }) {
            return None;
        }
        self.sent = now;
        // What somebody acknowledged a moment ago counts for more.
        let proven = self.state == State::Live
            && self.policy.stall_after.is_none_or(|within| now.saturating_sub(self.moved) < nanos(within));
        if !proven {
            self.moved = now;
            match self.source {
                true => self.enter(State::Sending, "", now),
                false => self.enter(State::Starved, "the input has nothing to send", now),
            }
        }
        None
    }

    /// Where nothing came, nothing could move: the peer is not to blame. Peers that dial in are known to be there only by
    /// what moves.
    fn keep_quiet(&mut self, now: Nanos) -> Option<Action> {
        if self.policy.role == Role::Output && !self.policy.serves && self.state != State::Starved {
            self.moved = now;
        }
        None
    }

    fn source(&mut self, source: bool, now: Nanos) -> Option<Action> {
        if self.policy.role == Role::Output && self.source != source {
            self.source = source;
            self.moved = now;
            if matches!(self.link, Link::Up { .. }) {
                self.carry(false, now);
            } else if source && std::mem::take(&mut self.parked) {
                self.enter(State::Connecting, "", now);
                return self.dial();
            }
        }
        None
    }

    fn tick(&mut self, now: Nanos, random: f64) -> Option<Action> {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return None;
        }
        if self.link == Link::Down {
            self.reconnects += 1;
            // While it is silent it stays so for the operator, however often it is joined anew.
            if !matches!(self.state, State::Stalled | State::Idle) {
                self.enter(State::Connecting, "", now);
            }
            return self.dial();
        }
        if self.state == State::Starved {
            self.parked = true;
            self.enter(State::Idle, "closed until the input has something to send", now);
            return self.close();
        }
        let silence = nanos(self.policy.stall_after.unwrap_or_default());
        // 0 = never: long ago.
        if self.state == State::Live && self.sent > self.moved && now.saturating_sub(self.sent) < silence {
            self.moved = self.sent;
            self.enter(State::Sending, "", now);
            return None;
        }
        if self.policy.serves && matches!(self.state, State::Live | State::Connecting | State::Sending) {
            self.moved = now;
            self.enter(State::Idle, UNREAD, now);
            return None;
        }
        if self.state != State::Idle {
            let silence = self.policy.stall_after.unwrap_or_default();
            let reason = match self.policy.role {
                Role::Input => format!("no packet for {silence:?}"),
                Role::Output
                    if self.state != State::Sending && self.link == (Link::Up { answering: true }) =>
                {
                    format!("the peer has acknowledged nothing for {silence:?}")
                }
                Role::Output => format!("nothing could be sent for {silence:?}"),
            };
            self.enter(State::Stalled, reason, now);
        }
        if !self.redials_on_stall() {
            return None;
        }
        let wait = self.policy.backoff.delay(self.failures, random);
        self.retry_at = Some(now.saturating_add(nanos(wait)));
        self.close()
    }

    /// The state of a connected output; `flowing`: data moved just now.
    fn carry(&mut self, flowing: bool, now: Nanos) {
        match self.link {
            _ if !self.source => self.enter(State::Starved, "the input has nothing to send", now),
            Link::Up { answering: true } if flowing => self.enter(State::Live, "", now),
            Link::Up { answering: true } if self.policy.serves => self.enter(State::Idle, UNREAD, now),
            Link::Up { answering: true } => {
                self.enter(State::Connecting, "connected, nothing is acknowledged yet", now);
            }
            _ => self.enter(State::Sending, "", now),
        }
    }

    fn enter(&mut self, state: State, reason: impl Into<Cow<'static, str>>, now: Nanos) {
        if self.state != state {
            self.state = state;
            self.since = now;
            if matches!(state, State::Live | State::Sending) {
                self.started_at = Some(now);
            }
        }
        self.reason = reason.into();
    }

    fn dial(&mut self) -> Option<Action> {
        self.retry_at = None;
        self.parked = false;
        self.link = Link::Dialing;
        self.attempt = Attempt(self.attempt.0.wrapping_add(1));
        Some(Action::Dial(self.attempt))
    }

    fn close(&mut self) -> Option<Action> {
        let link = std::mem::replace(&mut self.link, Link::Down);
        (link != Link::Down).then_some(Action::Close(self.attempt))
    }

    /// It worked for long enough to forget earlier failures.
    fn is_proven(&self, now: Nanos) -> bool {
        matches!(self.state, State::Live | State::Sending) && now.saturating_sub(self.since) >= PROVEN
    }

    fn redials_on_stall(&self) -> bool {
        self.policy.redial_on_stall && self.policy.auto_reconnect
    }
}

/// What there is besides the state that is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    /// Nothing.
    Down,
    /// An attempt is under way.
    Dialing,
    /// A connection.
    Up {
        /// The peer acknowledges what it gets.
        answering: bool,
    },
}

fn nanos(duration: Duration) -> Nanos {
    Nanos::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX)
}

/// Why an output that serves is `Idle`.
pub const UNREAD: &str = "listening, nobody reads";
/// An object that was `Live` or `Sending` for this long has proven itself: its next failure is its first.
const PROVEN: Nanos = 60_000_000_000;

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use proptest::prelude::*;

    use super::*;

    const SECOND: Nanos = 1_000_000_000;
    const YEAR: Nanos = 365 * 86_400 * SECOND;

    fn policy(role: Role) -> Policy {
        Policy {
            role,
            backoff: Backoff::new(Duration::from_secs(5), Duration::from_secs(30), 0.2).unwrap(),
            auto_reconnect: true,
            max_attempts: 0,
            fatal_retry: Some(Duration::from_secs(60)),
            stall_after: Some(Duration::from_secs(3)),
            redial_on_stall: false,
            serves: false,
            hold: None,
        }
    }

    /// A multicast input: joined anew within a second.
    fn multicast() -> Policy {
        let backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(1), 0.0).unwrap();
        Policy { backoff, redial_on_stall: true, ..policy(Role::Input) }
    }

    /// A machine and its simulated time.
    struct Rig {
        machine: Machine,
        now: Nanos,
    }

    impl Rig {
        fn new(policy: Policy) -> Self {
            Self { machine: Machine::new(policy, 0), now: 0 }
        }

        fn send(&mut self, event: Event) -> Option<Action> {
            self.machine.handle(event, self.now, 0.5)
        }

        fn connected(&mut self, answering: bool) -> Option<Action> {
            let attempt = self.machine.attempt;
            self.send(Event::Connected { attempt, answering })
        }

        fn failed(&mut self, class: Class) -> Option<Action> {
            let (attempt, reason) = (self.machine.attempt, "refused".to_owned());
            self.send(Event::Failed { attempt, class, reason })
        }

        /// Goes on to the deadline (or a year, if there is none) and ticks; returns the seconds that passed.
        fn sleep(&mut self) -> (u64, Option<Action>) {
            let before = self.now;
            self.now = self.machine.deadline().unwrap_or(self.now + YEAR);
            ((self.now - before) / SECOND, self.send(Event::Tick))
        }

        fn wait(&mut self, seconds: u64) {
            self.now += seconds * SECOND;
        }

        fn is(&self, state: State) {
            assert_eq!(self.machine.state(), state, "{:?}", self.machine);
        }

        fn status(&self) -> Status {
            self.machine.status(|at| SystemTime::UNIX_EPOCH + Duration::from_nanos(at))
        }
    }

    /// Brings a fresh machine into the named situation.
    fn situation(role: Role, name: &str) -> Rig {
        let mut rig = Rig::new(policy(role));
        if name == "rest" {
            return rig;
        }
        let _ = rig.send(Event::Start);
        let steps: &[&str] = match name {
            "connecting" => &[],
            "waiting" | "starved" => &["connected"],
            "live" if role == Role::Input => &["connected", "flowing"],
            "unproven" => &["back", "answering"],
            "live" => &["back", "answering", "flowing"],
            "sending" => &["back", "connected"],
            "stalled" if role == Role::Input => &["connected", "flowing", "silence"],
            "stalled" => &["back", "connected", "silence"],
            "backoff" => &["failed"],
            "failed" => &["fatal"],
            "ended" => &["connected", "ended"],
            other => panic!("no situation {other}"),
        };
        for step in steps {
            let _ = apply(&mut rig, step);
        }
        rig
    }

    fn apply(rig: &mut Rig, event: &str) -> Option<Action> {
        let attempt = rig.machine.attempt;
        match event {
            "start" => rig.send(Event::Start),
            "stop" => rig.send(Event::Stop),
            "connected" => rig.connected(false),
            "answering" => rig.connected(true),
            "failed" => rig.failed(Class::Retry),
            "fatal" => rig.failed(Class::Fatal),
            "ended" => rig.send(Event::Ended { attempt }),
            "sent" => rig.send(Event::Sent),
            "flowing" => rig.send(Event::Flowing),
            "gone" => rig.send(Event::SourceGone),
            "back" => rig.send(Event::SourceBack),
            "silence" => rig.sleep().1,
            other => panic!("no event {other}"),
        }
    }

    /// Every situation against every event: the state after it and the action. `=` is the state before.
    #[test]
    fn every_transition() {
        const EVENTS: [&str; 10] =
            ["start", "stop", "connected", "failed", "fatal", "ended", "flowing", "gone", "back", "silence"];
        #[rustfmt::skip]
        const INPUT: [(&str, [&str; 10]); 8] = [
            ("rest",       ["Connecting dial", "=",          "= close", "=",             "=",            "=",          "=",    "=", "=", "="]),
            ("connecting", ["=",               "Idle close", "Idle",    "Backoff close", "Failed close", "Idle close", "=",    "=", "=", "="]),
            ("waiting",    ["=",               "Idle close", "=",       "Backoff close", "Failed close", "Idle close", "Live", "=", "=", "="]),
            ("live",       ["=",               "Idle close", "=",       "Backoff close", "Failed close", "Idle close", "=",    "=", "=", "Stalled"]),
            ("stalled",    ["=",               "Idle close", "=",       "Backoff close", "Failed close", "Idle close", "Live", "=", "=", "="]),
            ("backoff",    ["Connecting dial", "Idle",       "= close", "=",             "=",            "=",          "=",    "=", "=", "Connecting dial"]),
            ("failed",     ["Connecting dial", "Idle",       "= close", "=",             "=",            "=",          "=",    "=", "=", "Connecting dial"]),
            ("ended",      ["Connecting dial", "Idle",       "= close", "=",             "=",            "=",          "=",    "=", "=", "="]),
        ];
        #[rustfmt::skip]
        const OUTPUT: [(&str, [&str; 10]); 10] = [
            ("rest",       ["Connecting dial", "=",          "= close", "=",             "=",            "=",          "=",       "=",       "=",       "="]),
            ("connecting", ["=",               "Idle close", "Starved", "Backoff close", "Failed close", "Idle close", "=",       "=",       "=",       "="]),
            ("starved",    ["=",               "Idle close", "=",       "Backoff close", "Failed close", "Idle close", "=",       "=",       "Sending", "="]),
            ("unproven",   ["=",               "Idle close", "=",       "Backoff close", "Failed close", "Idle close", "Live",    "Starved", "=",       "Stalled"]),
            ("live",       ["=",               "Idle close", "=",       "Backoff close", "Failed close", "Idle close", "=",       "Starved", "=",       "Stalled"]),
            ("sending",    ["=",               "Idle close", "=",       "Backoff close", "Failed close", "Idle close", "=",       "Starved", "=",       "Stalled"]),
            ("stalled",    ["=",               "Idle close", "=",       "Backoff close", "Failed close", "Idle close", "Sending", "Starved", "=",       "="]),
            ("backoff",    ["Connecting dial", "Idle",       "= close", "=",             "=",            "=",          "=",       "=",       "=",       "Connecting dial"]),
            ("failed",     ["Connecting dial", "Idle",       "= close", "=",             "=",            "=",          "=",       "=",       "=",       "Connecting dial"]),
            ("ended",      ["Connecting dial", "Idle",       "= close", "=",             "=",            "=",          "=",       "=",       "=",       "="]),
        ];
        let rows =
            INPUT.iter().map(|row| (Role::Input, row)).chain(OUTPUT.iter().map(|row| (Role::Output, row)));
        for (role, (name, cells)) in rows {
            for (event, cell) in EVENTS.iter().zip(cells) {
                let mut rig = situation(role, name);
                let before = rig.machine.state();
                let action = match apply(&mut rig, event) {
                    None => "",
                    Some(Action::Dial(_)) => " dial",
                    Some(Action::Close(_)) => " close",
                };
                let cell = cell.replace('=', &format!("{before:?}"));
                assert_eq!(format!("{:?}{action}", rig.machine.state()), cell, "{role:?} {name} {event}");
            }
        }
    }

    #[test]
    fn retries_double_and_count() {
        let mut rig = Rig::new(policy(Role::Output));
        let _ = rig.send(Event::Start);
        for (n, seconds) in [5, 10, 20, 30, 30].into_iter().enumerate() {
            let _ = rig.failed(Class::Retry);
            rig.is(State::Backoff);
            assert_eq!(rig.status().reason, "refused");
            assert_eq!(rig.sleep(), (seconds, Some(Action::Dial(Attempt(n as u32 + 2)))));
            rig.is(State::Connecting);
        }
        let status = rig.status();
        assert_eq!((status.reconnect_count, status.last_error.as_deref()), (5, Some("refused")));
        // Started by hand, counting begins anew; the last error is kept.
        let _ = rig.send(Event::Stop);
        let _ = rig.send(Event::Start);
        let status = rig.status();
        assert_eq!((status.reconnect_count, status.last_error.as_deref()), (0, Some("refused")));
        let _ = rig.failed(Class::Retry);
        assert_eq!(rig.sleep().0, 5);
    }

    #[test]
    fn a_minute_of_work_forgets_failures() {
        for (seconds, next) in [(59, 20), (60, 5)] {
            let mut rig = Rig::new(Policy { stall_after: None, ..policy(Role::Output) });
            let _ = rig.send(Event::SourceBack);
            let _ = rig.send(Event::Start);
            for _ in 0..2 {
                let _ = rig.failed(Class::Retry);
                rig.sleep();
            }
            let _ = rig.connected(true);
            let _ = rig.send(Event::Flowing);
            rig.wait(seconds);
            // What counts is the time before, even if the input was gone when it broke.
            let _ = rig.send(Event::SourceGone);
            let _ = rig.failed(Class::Retry);
            assert_eq!(rig.sleep().0, next, "after {seconds} s");
        }
    }

    #[test]
    fn an_output_that_serves_is_idle_while_nobody_reads() {
        let mut rig = Rig::new(Policy { serves: true, redial_on_stall: false, ..policy(Role::Output) });
        let _ = rig.send(Event::SourceBack);
        let _ = rig.send(Event::Start);
        let _ = rig.connected(true);
        rig.is(State::Idle);
        assert_eq!(rig.status().reason, UNREAD);
        let _ = rig.send(Event::Flowing);
        rig.is(State::Live);
        assert_eq!(rig.sleep().1, None);
        rig.is(State::Idle);
        assert_eq!(rig.machine.deadline(), None);
    }

    #[test]
    fn without_auto_reconnect_one_attempt_is_all() {
        let mut rig = Rig::new(Policy { auto_reconnect: false, ..policy(Role::Output) });
        let _ = rig.send(Event::Start);
        let _ = rig.failed(Class::Retry);
        rig.is(State::Failed);
        assert_eq!(rig.status().reason, "refused; auto_reconnect is off, start it by hand");
        assert_eq!(rig.sleep().1, None);
        assert!(matches!(rig.send(Event::Start), Some(Action::Dial(_))));
    }

    #[test]
    fn gives_up_after_the_last_retry() {
        let mut rig = Rig::new(Policy { max_attempts: 2, ..policy(Role::Output) });
        let _ = rig.send(Event::Start);
        for class in [Class::Retry, Class::Fatal] {
            let _ = rig.failed(class);
            assert!(matches!(rig.sleep().1, Some(Action::Dial(_))));
        }
        let _ = rig.failed(Class::Retry);
        rig.is(State::Failed);
        assert_eq!(rig.status().reason, "refused; gave up after 2 retries, start it by hand");
        assert_eq!(rig.sleep().1, None);
    }

    #[test]
    fn what_needs_a_change_is_tried_slowly_and_says_so() {
        for class in [Class::Fatal, Class::Bug] {
            let mut rig = Rig::new(policy(Role::Output));
            let _ = rig.send(Event::Start);
            let _ = rig.failed(class);
            rig.is(State::Failed);
            assert_eq!(rig.status().reason, "refused; needs a change, tried again about every 60s");
            assert_eq!(rig.sleep(), (60, Some(Action::Dial(Attempt(2)))));

            let mut rig = Rig::new(Policy { fatal_retry: None, ..policy(Role::Output) });
            let _ = rig.send(Event::Start);
            let _ = rig.failed(class);
            assert_eq!(rig.status().reason, "refused; needs a change, then start it by hand");
            assert_eq!(rig.machine.deadline(), None);
        }
    }

    #[test]
    fn a_silent_unicast_input_keeps_its_socket() {
        let mut rig = situation(Role::Input, "live");
        rig.wait(2);
        let _ = rig.send(Event::Flowing);
        assert_eq!(rig.sleep(), (3, None));
        rig.is(State::Stalled);
        assert_eq!(rig.status().reason, "no packet for 3s");
        assert_eq!(rig.machine.deadline(), None);
        rig.wait(1000);
        let _ = rig.send(Event::Flowing);
        rig.is(State::Live);
        assert_eq!(rig.status().reason, "");
        assert_eq!(rig.status().reconnect_count, 0);
    }

    #[test]
    fn a_silent_group_is_joined_anew_until_packets_come() {
        let mut rig = Rig::new(multicast());
        let _ = rig.send(Event::Start);
        let _ = rig.connected(false);
        let _ = rig.send(Event::Flowing);
        let stalled_at = rig.now + 3 * SECOND;
        for join in 2..10 {
            assert_eq!(rig.sleep(), (3, Some(Action::Close(Attempt(join - 1)))));
            rig.is(State::Stalled);
            let before = rig.now;
            assert_eq!(rig.sleep().1, Some(Action::Dial(Attempt(join))));
            assert_eq!(rig.now - before, SECOND / 2);
            rig.is(State::Stalled);
            let _ = rig.connected(false);
            rig.is(State::Stalled);
        }
        assert_eq!(rig.status().since, SystemTime::UNIX_EPOCH + Duration::from_nanos(stalled_at));
        // The interface is gone: the join fails, and is tried every second at least.
        rig.sleep();
        rig.sleep();
        for _ in 0..5 {
            let _ = rig.failed(Class::Retry);
            rig.is(State::Backoff);
            let before = rig.now;
            assert!(matches!(rig.sleep().1, Some(Action::Dial(_))));
            assert!(rig.now - before <= SECOND);
        }
        let _ = rig.connected(false);
        rig.is(State::Stalled);
        let _ = rig.send(Event::Flowing);
        rig.is(State::Live);
    }

    #[test]
    fn a_group_that_never_sent_is_joined_anew_but_stays_idle() {
        let mut rig = Rig::new(multicast());
        let _ = rig.send(Event::Start);
        let _ = rig.connected(false);
        for _ in 0..3 {
            assert!(matches!(rig.sleep(), (3, Some(Action::Close(_)))));
            assert!(matches!(rig.sleep().1, Some(Action::Dial(_))));
            let _ = rig.connected(false);
            rig.is(State::Idle);
            assert_eq!(rig.status().reason, "waiting for the first packet");
        }
    }

    #[test]
    fn a_starved_output_is_kept_up_and_never_stalls() {
        for answering in [true, false] {
            let mut rig = Rig::new(policy(Role::Output));
            let _ = rig.send(Event::SourceBack);
            let _ = rig.send(Event::Start);
            let _ = rig.connected(answering);
            let live = rig.machine.state();
            let _ = rig.send(Event::SourceGone);
            assert_eq!(rig.sleep(), (365 * 86_400, None));
            rig.is(State::Starved);
            let _ = rig.send(Event::SourceBack);
            rig.is(live);
            assert_eq!(rig.machine.deadline(), Some(rig.now + 3 * SECOND));
        }
    }

    #[test]
    fn where_nothing_came_nothing_had_to_move() {
        for (answering, state) in [(true, State::Live), (false, State::Sending)] {
            let mut rig = Rig::new(Policy { redial_on_stall: true, ..policy(Role::Output) });
            let _ = (rig.send(Event::Start), rig.send(Event::SourceBack), rig.connected(answering));
            let _ = rig.send(Event::Flowing);
            for _ in 0..10 {
                rig.wait(2);
                assert_eq!(rig.send(Event::Quiet), None);
                assert_eq!(rig.send(Event::Tick), None);
                rig.is(state);
            }
            // The source goes on, and the peer does not.
            assert!(matches!(rig.sleep(), (3, Some(Action::Close(_)))));
            rig.is(State::Stalled);
        }
        // Whether a reader is still there shows only by what moves.
        let mut rig = Rig::new(Policy { serves: true, ..policy(Role::Output) });
        let _ = (rig.send(Event::Start), rig.send(Event::SourceBack), rig.connected(true));
        let _ = rig.send(Event::Flowing);
        rig.wait(2);
        let _ = rig.send(Event::Quiet);
        assert_eq!(rig.sleep().0, 1);
        rig.is(State::Idle);
    }

    #[test]
    fn reports_of_an_abandoned_attempt_change_nothing() {
        let mut rig = Rig::new(policy(Role::Output));
        let Some(Action::Dial(first)) = rig.send(Event::Start) else { panic!("no dial") };
        assert_eq!(rig.send(Event::Stop), Some(Action::Close(first)));
        let Some(Action::Dial(second)) = rig.send(Event::Start) else { panic!("no dial") };
        assert_ne!(first, second);
        let reason = "late".to_owned();
        assert_eq!(rig.send(Event::Failed { attempt: first, class: Class::Fatal, reason }), None);
        assert_eq!(rig.send(Event::Ended { attempt: first }), None);
        let late = Event::Connected { attempt: first, answering: true };
        assert_eq!(rig.send(late), Some(Action::Close(first)));
        rig.is(State::Connecting);
        assert_eq!(rig.machine.attempt(), Some(second));
        assert_eq!(rig.status().last_error, None);
    }

    #[test]
    fn a_new_policy_counts_from_the_next_decision() {
        let mut rig = situation(Role::Output, "backoff");
        rig.machine.adopt(Policy { auto_reconnect: false, ..policy(Role::Output) });
        assert!(matches!(rig.sleep(), (5, Some(Action::Dial(_)))));
        let _ = rig.failed(Class::Retry);
        rig.is(State::Failed);
    }

    #[test]
    fn is_small() {
        assert!(size_of::<Machine>() <= 216, "{} bytes", size_of::<Machine>());
    }

    /// One step of the world: an event, and how much time passes before it.
    fn steps() -> impl Strategy<Value = Vec<(u8, u64)>> {
        prop::collection::vec((0u8..16, prop_oneof![Just(0), 0..5 * SECOND, 0..200 * SECOND]), 1..200)
    }

    fn policies() -> impl Strategy<Value = Policy> {
        (any::<(bool, bool, bool, bool, bool, bool, bool)>(), 0u32..4, 0u64..8, 0.0..=1.0f64).prop_map(
            |(
                (input, auto_reconnect, redial_on_stall, slow, stalls, serves, held),
                max_attempts,
                base,
                jitter,
            )| {
                Policy {
                    role: if input { Role::Input } else { Role::Output },
                    backoff: Backoff::new(Duration::from_secs(base), Duration::from_secs(30), jitter)
                        .unwrap(),
                    auto_reconnect,
                    max_attempts,
                    fatal_retry: slow.then_some(Duration::from_secs(60)),
                    stall_after: stalls.then_some(Duration::from_secs(3)),
                    redial_on_stall,
                    serves,
                    hold: held.then_some(Duration::from_secs(30)),
                }
            },
        )
    }

    #[test]
    fn a_held_connection_is_closed_in_the_end_and_made_again_when_the_source_is_back() {
        let mut rig = Rig::new(Policy { hold: Some(Duration::from_secs(30)), ..policy(Role::Output) });
        let _ = rig.send(Event::Start);
        let _ = rig.send(Event::SourceBack);
        let _ = rig.connected(true);
        let _ = rig.send(Event::Flowing);
        rig.is(State::Live);
        let _ = rig.send(Event::SourceGone);
        rig.wait(29);
        assert_eq!(rig.send(Event::SourceBack), None, "the same connection goes on");
        let _ = rig.send(Event::Flowing);
        rig.is(State::Live);
        let first = rig.machine.attempt;
        let _ = rig.send(Event::SourceGone);
        rig.is(State::Starved);
        assert_eq!(rig.sleep(), (30, Some(Action::Close(first))));
        rig.is(State::Idle);
        assert_eq!((rig.machine.attempt(), rig.machine.deadline()), (None, None));
        let Some(Action::Dial(second)) = rig.send(Event::SourceBack) else { panic!("it is not dialled") };
        assert_ne!(first, second);
        rig.is(State::Connecting);
        // Stopped by hand it stays so.
        let _ = rig.send(Event::SourceGone);
        let _ = rig.connected(true);
        let _ = rig.sleep();
        let _ = rig.send(Event::Stop);
        assert_eq!(rig.send(Event::SourceBack), None);
        rig.is(State::Idle);
    }

    proptest! {
        /// Whatever happens, in whatever order: one attempt at most is open, its number is new, and what is
        /// shown agrees with what is there.
        #[test]
        fn never_two_attempts_and_never_a_lie(policy in policies(), steps in steps(), random in 0.0..1.0f64) {
            let mut machine = Machine::new(policy.clone(), 0);
            let mut now = 0;
            // What the owner holds: the attempt, and whether it is connected.
            let mut open: Option<(Attempt, bool)> = None;
            let (mut source, mut last) = (false, Attempt(0));
            for (step, pause) in steps {
                now += pause;
                let current = open.map_or(last, |(attempt, _)| attempt);
                let event = match step {
                    0 => Event::Start,
                    1 => Event::Stop,
                    2 | 3 => {
                        if let Some((_, connected)) = &mut open {
                            *connected = true;
                        }
                        Event::Connected { attempt: current, answering: step == 2 }
                    }
                    4..=6 => {
                        open = None;
                        let class = [Class::Retry, Class::Fatal, Class::Bug][usize::from(step - 4)];
                        Event::Failed { attempt: current, class, reason: "refused".into() }
                    }
                    7 => {
                        open = None;
                        Event::Ended { attempt: current }
                    }
                    8 => Event::Connected { attempt: Attempt(last.0.saturating_sub(1)), answering: true },
                    9 => Event::Flowing,
                    10 | 11 => {
                        source = step == 10;
                        if source { Event::SourceBack } else { Event::SourceGone }
                    }
                    12 => Event::Tick,
                    13 => Event::Quiet,
                    14 => Event::Sent,
                    _ => {
                        now = machine.deadline().unwrap_or(now).max(now);
                        Event::Tick
                    }
                };
                match machine.handle(event, now, random) {
                    Some(Action::Dial(attempt)) => {
                        prop_assert_eq!(open, None);
                        prop_assert!(attempt > last);
                        last = attempt;
                        open = Some((attempt, false));
                    }
                    Some(Action::Close(attempt)) => open = open.filter(|(opened, _)| *opened != attempt),
                    None => {}
                }
                prop_assert_eq!(machine.attempt(), open.map(|(attempt, _)| attempt));
                let (state, connected) = (machine.state(), open.is_some_and(|(_, connected)| connected));
                if machine.desired() == Desired::Stopped {
                    prop_assert_eq!((state, open, machine.deadline()), (State::Idle, None, None));
                }
                match state {
                    State::Idle | State::Stalled => {}
                    // Until the peer of an output has acknowledged something, nothing is proven.
                    State::Connecting => {
                        let unproven = policy.role == Role::Output && source && !policy.serves;
                        prop_assert!(open.is_some() && (!connected || unproven));
                    }
                    State::Live => prop_assert!(connected && (policy.role == Role::Input || source)),
                    State::Sending => prop_assert!(connected && policy.role == Role::Output && source),
                    State::Starved => prop_assert!(connected && policy.role == Role::Output && !source),
                    State::Backoff => prop_assert!(open.is_none() && machine.deadline().is_some()),
                    State::Failed => prop_assert!(open.is_none()),
                }
                if connected && policy.role == Role::Output && !source {
                    prop_assert_eq!(state, State::Starved);
                }
            }
        }

        /// A tick at the deadline always gets somewhere: no owner can spin.
        #[test]
        fn ticks_make_progress(policy in policies(), random in 0.0..1.0f64) {
            prop_assume!(policy.backoff.delay(0, random) > Duration::ZERO);
            let mut rig = Rig::new(policy);
            let _ = rig.send(Event::SourceBack);
            let _ = rig.send(Event::Start);
            for turn in 0..50 {
                let _ = if turn % 3 == 0 { rig.failed(Class::Retry) } else { rig.connected(turn % 2 == 0) };
                let Some(deadline) = rig.machine.deadline() else { continue };
                rig.now = deadline.max(rig.now);
                let _ = rig.machine.handle(Event::Tick, rig.now, random);
                prop_assert!(rig.machine.deadline().is_none_or(|next| next > rig.now));
            }
        }
    }

    #[test]
    fn what_leaves_without_an_answer_is_sending_and_what_somebody_acknowledges_is_live() {
        let mut rig = Rig::new(Policy { serves: true, ..policy(Role::Output) });
        for step in ["start", "back", "answering"] {
            let _ = apply(&mut rig, step);
        }
        rig.is(State::Idle);
        let _ = apply(&mut rig, "sent");
        rig.is(State::Sending);
        let _ = apply(&mut rig, "flowing");
        rig.is(State::Live);
        // A word of the peer counts for as long as one is expected.
        rig.wait(2);
        let _ = apply(&mut rig, "sent");
        rig.is(State::Live);
        let _ = rig.sleep();
        rig.is(State::Sending);
        let _ = apply(&mut rig, "gone");
        let _ = apply(&mut rig, "sent");
        rig.is(State::Starved);
        let _ = apply(&mut rig, "back");
        let _ = apply(&mut rig, "sent");
        rig.is(State::Sending);
        // Nobody is sent anything any more.
        assert_eq!(rig.sleep(), (3, None));
        rig.is(State::Idle);
        let mut resting = situation(Role::Output, "rest");
        assert_eq!(apply(&mut resting, "sent"), None);
        resting.is(State::Idle);
    }
}
