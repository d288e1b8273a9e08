//! All connections that one shard walks: messages of lanes and moments in time enter, gathered writes that never wait
//! leave; or datagrams, where a connection only controls them. A connection that takes nothing harms no other, and falls
//! back to where its peer can start anew.

mod connection;
mod crowd;
mod fan;
mod line;
mod port;
mod receiver;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::mpsc;

use super::{Notice, NoticeKind, OutputKey};
use crate::hub::{Lane, Outflow, Pace, Schedule, StreamKey, Timetable, Wakes};
use crate::media::{Message, Nanos};
use crate::net::{ByteStream, Token};
use crate::telemetry::{FlowStats, OutputStats, SessionId, ShardStats};

use connection::{Connection, Flow};
pub use fan::Leg;
use fan::Shape;
use line::Line;
use port::PortTable;
use receiver::Receiver;

/// Names a connection: an output, and for those who dialled in their session.
pub type LinkKey = (OutputKey, Option<SessionId>);

/// A connection that a shard shall walk: dialled, its handshakes done.
pub struct Link {
    /// Its name.
    pub key: LinkKey,
    /// Which attempt of the output made it.
    pub attempt: u32,
    /// The stream that it reads.
    pub stream: StreamKey,
    /// The stream's intake lives on the same shard.
    pub local: bool,
    /// What it sends: from the newest random access point on, or from the next one.
    pub lane: Arc<Lane<Message>>,
    /// How long a message may wait for others (the delay class D), nanoseconds.
    pub delay: Nanos,
    /// The connection itself.
    pub socket: ByteStream,
    /// Where its packets go, in the order of their channels, instead of over it; empty = over it.
    pub legs: Vec<Leg>,
    /// What to say first, before any message.
    pub greeting: Vec<u8>,
    /// Hears what the other end says.
    pub peer: Box<dyn Peer>,
    /// What becomes of it when it falls out of the lane.
    pub lag: LagPolicy,
    /// Where the output counts.
    pub stats: Arc<OutputStats>,
    /// Where the connection counts.
    pub flow: Arc<FlowStats>,
    /// Asked often whether it shall end.
    pub kicked: Option<Arc<crate::telemetry::Session>>,
}

/// What becomes of a connection that falls out of the lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LagPolicy {
    /// It goes on at the newest random access point.
    #[default]
    SkipToKeyframe,
    /// It is ended.
    Disconnect,
}

/// The protocol of a connection whose media flows: what the peer says enters, answers leave. Never waits.
pub trait Peer: Send {
    /// Takes bytes that came; answers are appended to `reply` and leave behind the message that is under way.
    ///
    /// # Errors
    /// The connection is over, and why.
    fn hear(&mut self, bytes: &[u8], now: Nanos, reply: &mut Vec<u8>) -> Result<(), Farewell>;

    /// Does what time asks for, such as keepalives.
    ///
    /// # Errors
    /// The connection is over, and why: the peer missed its time.
    fn tick(&mut self, now: Nanos, reply: &mut Vec<u8>) -> Result<(), Farewell>;

    /// When [`Peer::tick`] is due; `None` = never.
    fn next_due(&self) -> Option<Nanos>;

    /// Whether messages are wanted now: a reader may pause.
    fn is_playing(&self) -> bool {
        true
    }

    /// Something that proves that the peer lives came beside the connection.
    fn touch(&mut self, _now: Nanos) {}

    /// The connection is about to be closed from here: last words.
    fn part(&mut self, reply: &mut Vec<u8>);
}

/// Why a connection is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Farewell {
    /// In words, without secrets.
    pub reason: String,
    /// Trying again may help without a change of the configuration.
    pub retryable: bool,
}

/// What can be asked of a shard's connections.
pub enum Command {
    /// Walk this connection from now on.
    Attach(Box<Link>),
    /// Close those of an output: its own, and all sessions.
    Detach(OutputKey),
}

/// The connections of one shard.
pub struct Connections {
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    by_output: HashMap<OutputKey, Vec<usize>>,
    table: Timetable,
    /// What is walked as one, by its number in the table.
    lines: Vec<Option<Line>>,
    /// Moments at which connections are looked at for their peers' sake, or because they could not send.
    timers: BinaryHeap<Reverse<(Nanos, usize)>>,
    /// Sockets of datagrams.
    ports: PortTable,
    wakes: Wakes,
    notices: mpsc::Sender<Notice>,
    stats: Arc<ShardStats>,
    /// Scratch.
    buffer: Vec<u8>,
}

impl Connections {
    /// None yet. What happens to them is told through `notices` (dropped when that is full).
    pub fn new(wakes: Wakes, notices: mpsc::Sender<Notice>, stats: Arc<ShardStats>) -> Self {
        Self {
            connections: Vec::new(),
            free: Vec::new(),
            by_output: HashMap::new(),
            table: Timetable::new(Arc::clone(&wakes.bell)),
            lines: Vec::new(),
            timers: BinaryHeap::new(),
            ports: PortTable::default(),
            wakes,
            notices,
            stats,
            buffer: vec![0; READ],
        }
    }

    fn attach(&mut self, mut link: Link, now: Nanos) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        let shape = match self.take_ports(index, &link.legs) {
            Ok(shape) => Some(shape).filter(|shape| !shape.is_empty()),
            Err(error) => {
                self.free.push(index);
                return self.refuse_link(&link, &error);
            }
        };
        let Link { stream, local, ref lane, delay, .. } = link;
        let grouped = link.legs.first().is_some_and(|leg| leg.rtp.ip().is_multicast());
        let number = self.line((stream, local, lane), delay, (shape.as_ref(), grouped), now);
        self.by_output.entry(link.key.0).or_default().push(index);
        let receiver = shape.map(|shape| Receiver::new(std::mem::take(&mut link.legs), shape));
        let connection = Connection::new(link, number, receiver, now);
        let token = Self::token(index);
        if let Err(error) = self.wakes.sockets.add(connection.socket.as_fd(), token) {
            tracing::debug!(%error, "a connection is not watched for what its peer says");
        }
        self.connections[index] = Some(connection);
        if let Some(line) = self.lines.get_mut(number).and_then(Option::as_mut) {
            line.users += 1;
            if line.crowd.is_none() {
                line.members.push(index);
            }
            self.table.weigh(number, line.users);
        }
        // What is in the lane already need not wait for a moment.
        self.walk_one(index, now);
    }

    /// The line with room for one more, or a new one.
    fn line(
        &mut self,
        (stream, local, lane): (StreamKey, bool, &Arc<Lane<Message>>),
        delay: Nanos,
        (shape, grouped): (Option<&Shape>, bool),
        now: Nanos,
    ) -> usize {
        let most = if shape.is_some() { CROWD } else { MEMBERS };
        let fits = |line: &Line| {
            let same = line.crowd.as_ref().map(|crowd| &crowd.shape) == shape;
            // To a group everything is sent once, however many listen.
            let room = line.users < most || grouped;
            same && line.delay == delay && Arc::ptr_eq(&line.lane, lane) && room
        };
        if let Some(found) = self.lines.iter().position(|line| line.as_ref().is_some_and(fits)) {
            return found;
        }
        let line = Line::new(stream, Arc::clone(lane), delay, shape.cloned());
        let reads = (stream, Arc::clone(lane.pulse()), local);
        let number = self.table.open(reads, Pace::class(delay), line.position(), now);
        if self.lines.len() <= number {
            self.lines.resize_with(number + 1, || None);
        }
        self.lines[number] = Some(line);
        number
    }

    fn detach(&mut self, output: OutputKey) {
        for index in self.by_output.get(&output).cloned().unwrap_or_default() {
            self.bid_farewell(index);
            if let Some(Some(connection)) = self.connections.get_mut(index) {
                connection.part();
            }
            self.remove(index);
        }
    }

    fn remove(&mut self, index: usize) -> Option<Connection> {
        self.forget_receiver(index);
        let connection = self.connections.get_mut(index)?.take()?;
        // It may be gone already.
        let _ = self.wakes.sockets.remove(connection.socket.as_fd());
        self.free.push(index);
        let output = connection.key.0;
        if let Some(of) = self.by_output.get_mut(&output) {
            of.retain(|&i| i != index);
            if of.is_empty() {
                self.by_output.remove(&output);
            }
        }
        let number = connection.line;
        if let Some(slot) = self.lines.get_mut(number)
            && let Some(line) = slot
        {
            line.users -= 1;
            if line.crowd.is_none() {
                line.members.retain(|&i| i != index);
            }
            self.table.weigh(number, line.users);
            if line.users == 0 {
                *slot = None;
                self.table.close(number);
            }
        }
        Some(connection)
    }

    /// Ends a connection and tells its owner.
    fn lose(&mut self, index: usize, why: Farewell) {
        let Some(mut connection) = self.remove(index) else { return };
        connection.publish_last();
        let Farewell { reason, retryable } = why;
        let kind = NoticeKind::Disconnected { session: connection.key.1, reason, retryable };
        self.tell(Notice { output: connection.key.0, attempt: connection.attempt, kind });
    }

    fn tell(&self, notice: Notice) {
        // Overflow policy: lost; the counters and the watchdog tell the same.
        if self.notices.try_send(notice).is_err() {
            self.stats.lost_notices.fetch_add(1, Relaxed);
        }
    }

    /// Sends what waits for one connection.
    fn walk_one(&mut self, index: usize, now: Nanos) {
        let Some(Some(connection)) = self.connections.get_mut(index) else { return };
        let Some(Some(line)) = self.lines.get_mut(connection.line) else { return };
        let flow = connection.flush(line);
        self.settle(index, flow, now);
        self.lead(index, now);
    }

    fn settle(&mut self, index: usize, flow: Result<Flow, Farewell>, now: Nanos) {
        match flow {
            Ok(Flow::Done) => self.arm(index, None),
            Ok(Flow::Blocked) => {
                // A peer that takes nothing is tried at the pace of its line, whether anything new arrives or not.
                let delay = self.connections.get(index).and_then(Option::as_ref).map_or(0, |c| c.delay);
                self.arm(index, Some(now + delay.max(RETRY)));
            }
            Err(why) => self.lose(index, why),
        }
    }

    fn arm(&mut self, index: usize, retry: Option<Nanos>) {
        let Some(Some(connection)) = self.connections.get_mut(index) else { return };
        let due = [retry, connection.peer_due()].into_iter().flatten().min();
        if let Some(due) = due
            && connection.timer.is_none_or(|at| due < at)
        {
            connection.timer = Some(due);
            self.timers.push(Reverse((due, index)));
        }
    }

    /// Hears what the peer of a connection said.
    fn hear(&mut self, index: usize, now: Nanos) {
        let Some(Some(connection)) = self.connections.get_mut(index) else { return };
        let heard = connection.hear(&mut self.buffer, now);
        match heard {
            Ok(()) => {
                let token = Self::token(index);
                // A socket that cannot be watched again is one whose end shows when it is written to.
                let _ = self.wakes.sockets.rearm(connection.socket.as_fd(), token);
                self.walk_one(index, now);
            }
            Err(why) => self.lose(index, why),
        }
    }

    fn walk_line(&mut self, number: usize, now: Nanos) {
        let Some(line) = self.lines.get_mut(number).and_then(Option::as_mut) else { return };
        if line.crowd.is_some() {
            return self.walk_crowd(number, now);
        }
        line.read();
        let members = std::mem::take(&mut line.members);
        let read_to = line.position();
        let mut ended = Vec::new();
        for &index in &members {
            let Some(Some(line)) = self.lines.get_mut(number) else { break };
            let Some(Some(connection)) = self.connections.get_mut(index) else { continue };
            match connection.flush(line) {
                Ok(flow) => self.settle(index, Ok(flow), now),
                Err(why) => ended.push((index, why)),
            }
        }
        if let Some(line) = self.lines.get_mut(number).and_then(Option::as_mut) {
            line.members = members;
            line.forget();
        }
        self.table.walked(number, read_to, now);
        for (index, why) in ended {
            self.lose(index, why);
        }
    }

    fn token(index: usize) -> Token {
        Token(index as u64 | Wakes::OURS | CONNECTION)
    }

    /// Whether a token of the outflow is one of these.
    pub fn owns(token: Token) -> bool {
        token.0 & CONNECTION != 0
    }
}

impl Outflow for Connections {
    type Command = Command;

    fn handle(&mut self, command: Command, now: Nanos) {
        match command {
            Command::Attach(link) => self.attach(*link, now),
            Command::Detach(output) => self.detach(output),
        }
    }

    fn arrived(&mut self, stream: StreamKey, hurry: bool, now: Nanos) {
        self.table.arrived(stream, hurry, now);
    }

    fn rang(&mut self, now: Nanos) {
        self.table.rang(now);
    }

    fn readable(&mut self, token: Token, now: Nanos) {
        if let Some(port) = PortTable::number(token) {
            return self.hear_port(port, now);
        }
        self.hear((token.0 & !(Wakes::OURS | CONNECTION)) as usize, now);
    }

    fn walk(&mut self, now: Nanos, refresh: &mut dyn FnMut(StreamKey) -> u32) {
        while let Some(&Reverse((due, index))) = self.timers.peek()
            && due <= now
        {
            self.timers.pop();
            let Some(connection) = self.connections.get_mut(index).and_then(Option::as_mut) else { continue };
            if connection.timer != Some(due) {
                continue;
            }
            connection.timer = None;
            match connection.tick(now) {
                Ok(()) => self.walk_one(index, now),
                Err(why) => self.lose(index, why),
            }
        }
        // Bounded, so that sockets and commands get their turn; what is left is due still.
        for _ in 0..LINES {
            let Some(number) = self.table.take_due(now) else { break };
            if let Some(Some(line)) = self.lines.get(number) {
                let stream = line.stream;
                if refresh(stream) > 0 {
                    self.table.arrived(stream, false, now);
                }
            }
            self.walk_line(number, now);
        }
    }

    fn next_due(&mut self) -> Option<Nanos> {
        while let Some(&Reverse((due, index))) = self.timers.peek() {
            if self.connections.get(index).and_then(Option::as_ref).is_some_and(|c| c.timer == Some(due)) {
                break;
            }
            self.timers.pop();
        }
        let timer = self.timers.peek().map(|&Reverse((due, _))| due);
        [timer, self.table.next_due()].into_iter().flatten().min()
    }

    fn schedule(&self, stream: StreamKey) -> Schedule {
        self.table.schedule(stream)
    }

    fn set_ticking(&mut self, stream: StreamKey, ticking: bool, now: Nanos) {
        self.table.set_ticking(stream, ticking, now);
    }

    fn publish(&mut self, now: Nanos) {
        self.look_at_paths(now);
        self.show_crowds();
        let mut kicked = Vec::new();
        let mut rates: HashMap<OutputKey, u64> = HashMap::new();
        for (index, connection) in self.connections.iter_mut().enumerate() {
            let Some(connection) = connection else { continue };
            *rates.entry(connection.key.0).or_default() += connection.publish(now);
            if connection.is_kicked() {
                kicked.push(index);
            }
        }
        for connection in self.connections.iter().flatten() {
            connection.stats.bitrate_bps.store(rates[&connection.key.0], Relaxed);
        }
        for index in kicked {
            self.bid_farewell(index);
            if let Some(Some(connection)) = self.connections.get_mut(index) {
                connection.part();
            }
            self.lose(index, Farewell { reason: "it was kicked".into(), retryable: true });
        }
    }

    fn finish(&mut self, _: Nanos) {
        for index in 0..self.connections.len() {
            self.bid_farewell(index);
            if let Some(Some(connection)) = self.connections.get_mut(index) {
                connection.part();
            }
        }
    }
}

/// Tells these tokens from those of ports.
const CONNECTION: u64 = 1 << 62;
/// Connections in a line at the most: they leave one after the other.
const MEMBERS: usize = 64;
/// The same where their packets are datagrams: 128 sends take about as long as the wake-up that they need.
const CROWD: usize = 128;
/// Lines walked in one turn.
const LINES: usize = 16;
/// How soon a connection that could not send is tried again, at the least.
const RETRY: Nanos = 10_000_000;
const READ: usize = 16 << 10;

#[cfg(test)]
mod tests;
