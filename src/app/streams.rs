//! Where each stream and output lives: decisions of the director enter, commands to shards leave. Never waits for
//! a shard.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{mpsc, watch};

use super::ShardCommand;
use super::outlets::OutletCommand;
use super::sessions::{Meeting, Plan};
use super::shards::Shards;
use crate::egress::{self, ConnectionCommand, FileTarget, Finished, Link, Recorder, Target};
use crate::hub::{Bounds, Command, FeedWriter, Lane, StreamKey, feed};
use crate::ingest::{self, Driver, Fed, Inlet};
use crate::inspect::InputHealth;
use crate::inspect::klv::Tap;
use crate::media::{Message, Nanos, Tracks};
use crate::mux::{Derivation, Product};
use crate::port::{self, Bond, Call, Drain, Listen, Owner, Role};
use crate::telemetry::{InputStats, OutputStats, SessionId};

/// A shard has too many commands waiting.
#[derive(Debug, thiserror::Error)]
#[error("data thread {0} is too busy to take commands")]
pub(crate) struct ShardBusy(usize);

/// Streams, outputs and the lanes between them.
pub(crate) struct Streams {
    shards: Arc<Shards>,
    bounds: Bounds,
    streams: HashMap<StreamKey, Stream>,
    outputs: HashMap<egress::OutputKey, Placed>,
    /// Outputs on each shard.
    load: Vec<usize>,
    /// What a shard must be told but had no room for; while something waits here it takes nothing new, so this
    /// holds at most two commands for each object there is.
    backlog: Vec<VecDeque<ShardCommand>>,
    ingest_notices: mpsc::Sender<ingest::Notice>,
    egress_notices: mpsc::Sender<egress::Notice>,
    /// Dumps that were told to end and may still write.
    ending: HashMap<egress::OutputKey, Finished>,
    /// Where the sessions of each owner are, and the local address that they share.
    sessions: HashMap<Owner, (usize, Option<SocketAddr>)>,
    /// Shards of local addresses that were asked for, and how many use each.
    bound: HashMap<SocketAddr, (usize, usize)>,
    /// Who dialled in for an output over TCP, and on which shard it is.
    joined: HashMap<(egress::OutputKey, SessionId), Joined>,
}

/// Somebody who dialled in for an output over TCP.
struct Joined {
    stream: StreamKey,
    derivation: Derivation,
    shard: usize,
}

struct Stream {
    shard: usize,
    lane: Arc<Lane>,
    tracks: watch::Receiver<Arc<Tracks>>,
    derived: HashMap<Derivation, (Product, usize)>,
    /// It has a driver.
    fed: bool,
}

struct Placed {
    stream: StreamKey,
    derivation: Option<Derivation>,
    place: Place,
}

enum Place {
    Shard(usize),
    Connection(usize),
    /// Nothing reads here yet: sessions will.
    Server,
    Port(usize),
    Thread(Recorder),
}

impl Streams {
    pub(crate) fn new(
        shards: Arc<Shards>,
        bounds: Bounds,
        ingest_notices: mpsc::Sender<ingest::Notice>,
        egress_notices: mpsc::Sender<egress::Notice>,
    ) -> Self {
        let load = vec![0; shards.len()];
        let backlog = (0..shards.len()).map(|_| VecDeque::new()).collect();
        let (streams, outputs) = (HashMap::new(), HashMap::new());
        Self {
            shards,
            bounds,
            streams,
            outputs,
            load,
            backlog,
            ingest_notices,
            egress_notices,
            ending: HashMap::new(),
            sessions: HashMap::new(),
            bound: HashMap::new(),
            joined: HashMap::new(),
        }
    }

    /// Makes a stream on the shard that owns the fewest.
    pub(crate) fn open(
        &mut self,
        key: StreamKey,
        stats: Arc<InputStats>,
        health: Arc<InputHealth>,
        tap: Option<Tap>,
    ) {
        let owned = |shard: usize| self.streams.values().filter(|s| s.shard == shard).count();
        let shard = (0..self.shards.len()).min_by_key(|&s| owned(s)).unwrap_or(0);
        let (lane, writer) = Lane::new(self.bounds);
        let (told, tracks) = watch::channel(Arc::default());
        let notices = self.ingest_notices.clone();
        let inlet = Inlet::new(key, (writer, self.bounds), told, stats, (health, tap), notices);
        self.insist(shard, Command::Open(key, Box::new(inlet)));
        self.streams.insert(key, Stream { shard, lane, tracks, derived: HashMap::new(), fed: false });
    }

    /// Lets a stream go; its outputs are gone already.
    pub(crate) fn close(&mut self, key: StreamKey) {
        if let Some(stream) = self.streams.remove(&key) {
            self.insist(stream.shard, Command::Close(key));
        }
    }

    /// Feeds a stream from a new driver.
    pub(crate) fn feed(&mut self, key: StreamKey, driver: Driver, attempt: u32) -> Result<(), ShardBusy> {
        let Some(shard) = self.streams.get(&key).map(|s| s.shard) else { return Ok(()) };
        self.ask(shard, Command::Intake(key, ingest::Command::Attach { driver, attempt }))?;
        if let Some(stream) = self.streams.get_mut(&key) {
            stream.fed = true;
        }
        Ok(())
    }

    /// Feeds a stream from sessions: one that we open, or those that dial in.
    pub(crate) fn feed_from(
        &mut self,
        key: StreamKey,
        plan: Plan,
        attempt: u32,
        stats: Arc<InputStats>,
    ) -> Result<(), AttachError> {
        let Some(shard) = self.streams.get(&key).map(|s| s.shard) else { return Ok(()) };
        let (writer, reader) = feed()?;
        self.feed(key, Driver::Fed(reader), attempt)?;
        let role = Role::Receive(Drain { feed: writer, stats });
        self.meet(Owner::Input(key), attempt, plan, role, shard)?;
        Ok(())
    }

    /// Feeds a stream with what is put into the queue that it answers.
    pub(crate) fn feed_media(
        &mut self,
        key: StreamKey,
        attempt: u32,
    ) -> Result<FeedWriter<Fed>, AttachError> {
        let (writer, reader) = feed()?;
        self.feed(key, Driver::Media(reader), attempt)?;
        Ok(writer)
    }

    /// The tracks of a stream, as far as somebody needs its frames.
    pub(crate) fn tracks(&self, key: StreamKey) -> Option<watch::Receiver<Arc<Tracks>>> {
        self.streams.get(&key).map(|stream| stream.tracks.clone())
    }

    /// The lane of messages that an output reads.
    pub(crate) fn messages_of(&self, output: egress::OutputKey) -> Option<Arc<Lane<Message>>> {
        let placed = self.outputs.get(&output)?;
        match self.streams.get(&placed.stream)?.derived.get(placed.derivation.as_ref()?)? {
            (Product::Messages(lane), _) => Some(Arc::clone(lane)),
            (Product::Datagrams(_), _) => None,
        }
    }

    /// Feeds it no more.
    pub(crate) fn starve(&mut self, key: StreamKey) {
        self.part(Owner::Input(key));
        if let Some(stream) = self.streams.get_mut(&key)
            && std::mem::take(&mut stream.fed)
        {
            let shard = stream.shard;
            self.insist(shard, Command::Intake(key, ingest::Command::Detach));
        }
    }

    /// Tells shards what they had no room for. Called often.
    pub(crate) fn catch_up(&mut self) {
        for (shard, waiting) in self.backlog.iter_mut().enumerate() {
            while let Some(command) = waiting.pop_front() {
                if let Err(command) = self.shards.send(shard, command) {
                    waiting.push_front(*command);
                    break;
                }
            }
        }
    }

    fn ask(&self, shard: usize, command: ShardCommand) -> Result<(), ShardBusy> {
        if self.backlog.get(shard).is_some_and(|waiting| !waiting.is_empty()) {
            return Err(ShardBusy(shard));
        }
        self.shards.send(shard, command).map_err(|_| ShardBusy(shard))
    }

    fn insist(&mut self, shard: usize, command: ShardCommand) {
        if let Some(waiting) = self.backlog.get_mut(shard) {
            waiting.push_back(command);
        }
        self.catch_up();
    }

    /// Lets an output read from a stream, or from what is derived of it: by a shard, by a thread of its own, or by
    /// sessions that join later.
    pub(crate) fn attach(
        &mut self,
        output: egress::OutputKey,
        stream: StreamKey,
        derivation: Option<Derivation>,
        sink: Sink,
    ) -> Result<(), AttachError> {
        self.detach(output);
        let product = self.product(stream, derivation.as_ref())?;
        match self.start(output, stream, product, sink) {
            Ok(place) => {
                if let Place::Shard(shard) | Place::Connection(shard) | Place::Port(shard) = place {
                    self.load[shard] += 1;
                }
                self.outputs.insert(output, Placed { stream, derivation, place });
                Ok(())
            }
            Err(error) => {
                self.release(stream, derivation);
                Err(error)
            }
        }
    }

    fn start(
        &mut self,
        output: egress::OutputKey,
        stream: StreamKey,
        product: Product,
        sink: Sink,
    ) -> Result<Place, AttachError> {
        let owner = self.streams.get(&stream).map_or(0, |s| s.shard);
        match (sink, product) {
            (Sink::Datagrams(mut target), Product::Datagrams(lane)) => {
                // Outputs with a source port of their own share one socket, so all of them live on one shard.
                let shard = match target.socket.source_port {
                    Some(port) => usize::from(port) % self.shards.len(),
                    None => self.choose(owner),
                };
                (target.local, target.lane) = (shard == owner, lane);
                let attach = OutletCommand::Fanout(egress::Command::Attach(target));
                self.ask(shard, Command::Outflow(attach))?;
                Ok(Place::Shard(shard))
            }
            (Sink::Connection(mut link), Product::Messages(lane)) => {
                let shard = self.choose(owner);
                (link.local, link.lane) = (shard == owner, lane);
                let attach = OutletCommand::Connection(ConnectionCommand::Attach(link));
                self.ask(shard, Command::Outflow(attach))?;
                Ok(Place::Connection(shard))
            }
            (Sink::Session { plan, attempt, delay, stats }, Product::Datagrams(lane)) => {
                let preferred = self.choose(owner);
                let source = port::Source { stream, local: false, lane, delay, stats };
                let role = Role::Send(source);
                Ok(Place::Port(self.meet(Owner::Output(output), attempt, *plan, role, preferred)?))
            }
            (Sink::File(target), product) => {
                self.ending.retain(|_, finished| !finished.load(Ordering::Acquire));
                let (before, notices) = (self.ending.remove(&output), self.egress_notices.clone());
                let recorder = match product {
                    Product::Datagrams(lane) => Recorder::start(*target, lane, before, notices)?,
                    Product::Messages(lane) => Recorder::start(*target, lane, before, notices)?,
                };
                Ok(Place::Thread(recorder))
            }
            (Sink::Server, _) => Ok(Place::Server),
            _ => Err(AttachError::Mismatch),
        }
    }

    /// Lets an output read no more, with everybody who dialled in for it.
    pub(crate) fn detach(&mut self, output: egress::OutputKey) {
        let sessions: Vec<SessionId> =
            self.joined.keys().filter(|(of, _)| *of == output).map(|(_, session)| *session).collect();
        let shards: BTreeSet<usize> =
            sessions.into_iter().filter_map(|session| self.leave(output, session)).collect();
        for shard in shards {
            self.insist(shard, detach_connections(output));
        }
        let Some(placed) = self.outputs.remove(&output) else { return };
        match placed.place {
            Place::Shard(shard) => {
                self.load[shard] -= 1;
                self.insist(shard, Command::Outflow(OutletCommand::Fanout(egress::Command::Detach(output))));
            }
            Place::Connection(shard) => {
                self.load[shard] -= 1;
                self.insist(shard, detach_connections(output));
            }
            Place::Port(shard) => {
                self.load[shard] -= 1;
                self.part(Owner::Output(output));
            }
            Place::Thread(recorder) => {
                self.ending.insert(output, recorder.finished());
                // What its maker holds belongs into the file, too.
                match (&placed.derivation, self.streams.get(&placed.stream).map(|stream| stream.shard)) {
                    (Some(derivation), Some(shard)) => {
                        let settled = Arc::<AtomicBool>::default();
                        let settle = ingest::Command::Settle(derivation.clone(), Arc::clone(&settled));
                        self.insist(shard, Command::Intake(placed.stream, settle));
                        recorder.end(settled);
                    }
                    _ => drop(recorder),
                }
            }
            Place::Server => {}
        }
        self.release(placed.stream, placed.derivation);
    }

    /// Lets somebody who dialled in for an output read what is derived of a stream; on `shard`, where its sockets belong
    /// to one.
    pub(crate) fn join(
        &mut self,
        stream: StreamKey,
        derivation: Derivation,
        mut link: Box<Link>,
        shard: Option<usize>,
    ) -> Result<(), AttachError> {
        let (output, Some(session)) = link.key else { return Err(AttachError::Mismatch) };
        let Product::Messages(lane) = self.product(stream, Some(&derivation))? else {
            self.release(stream, Some(derivation));
            return Err(AttachError::Mismatch);
        };
        let owner = self.streams.get(&stream).map_or(0, |s| s.shard);
        let shard = shard.filter(|shard| *shard < self.load.len()).unwrap_or_else(|| self.choose(owner));
        (link.local, link.lane) = (shard == owner, lane);
        let attach = OutletCommand::Connection(ConnectionCommand::Attach(link));
        if let Err(error) = self.ask(shard, Command::Outflow(attach)) {
            self.release(stream, Some(derivation));
            return Err(error.into());
        }
        self.load[shard] += 1;
        self.joined.insert((output, session), Joined { stream, derivation, shard });
        Ok(())
    }

    /// Books that somebody who had dialled in is gone; on which shard that was.
    pub(crate) fn leave(&mut self, output: egress::OutputKey, session: SessionId) -> Option<usize> {
        let Joined { stream, derivation, shard } = self.joined.remove(&(output, session))?;
        self.load[shard] -= 1;
        self.release(stream, Some(derivation));
        Some(shard)
    }

    /// Lets sessions begin on the shard that owns their local address, or on `preferred`. Answers which.
    fn meet(
        &mut self,
        owner: Owner,
        attempt: u32,
        plan: Plan,
        mut role: Role,
        preferred: usize,
    ) -> Result<usize, ShardBusy> {
        self.part(owner);
        let local = Some(plan.port.local).filter(|local| local.port() != 0);
        let shard = local.and_then(|local| self.bound.get(&local)).map_or(preferred, |(shard, _)| *shard);
        if let Role::Send(source) = &mut role {
            source.local = self.streams.get(&source.stream).is_some_and(|s| s.shard == shard);
        }
        let Some(command) = command(owner, attempt, plan, role) else { return Ok(shard) };
        self.ask(shard, Command::Outflow(OutletCommand::Port(command)))?;
        if let Some(local) = local {
            self.bound.entry(local).or_insert((shard, 0)).1 += 1;
        }
        self.sessions.insert(owner, (shard, local));
        Ok(shard)
    }

    /// Ends the sessions of an owner.
    fn part(&mut self, owner: Owner) {
        let Some((shard, local)) = self.sessions.remove(&owner) else { return };
        self.insist(shard, Command::Outflow(OutletCommand::Port(port::Command::Close(owner))));
        if let Some(local) = local
            && let Some((_, users)) = self.bound.get_mut(&local)
        {
            *users -= 1;
            if *users == 0 {
                self.bound.remove(&local);
            }
        }
    }

    /// Whether every dump that was told to end has written its last byte.
    pub(crate) fn are_files_closed(&self) -> bool {
        self.ending.values().all(|finished| finished.load(Ordering::Acquire))
    }

    /// A placeholder lane for targets that are not attached yet.
    pub(crate) fn nowhere(&self) -> Arc<Lane> {
        <Lane>::new(self.bounds).0
    }

    /// The same for connections.
    pub(crate) fn no_messages(&self) -> Arc<Lane<Message>> {
        Lane::new(self.bounds).0
    }

    /// The owner's shard as long as it is not much fuller than another: its outputs then need no bell.
    fn choose(&self, owner: usize) -> usize {
        let (emptiest, load) =
            self.load.iter().copied().enumerate().min_by_key(|(_, load)| *load).unwrap_or((owner, 0));
        if self.load[owner] > load + LEAN { emptiest } else { owner }
    }

    /// What an output reads: the native lane, or what is derived of it, made when its first reader comes.
    fn product(&mut self, stream: StreamKey, derivation: Option<&Derivation>) -> Result<Product, ShardBusy> {
        let Some(state) = self.streams.get_mut(&stream) else {
            return Ok(Product::Datagrams(self.nowhere()));
        };
        let Some(derivation) = derivation else { return Ok(Product::Datagrams(Arc::clone(&state.lane))) };
        if let Some((product, users)) = state.derived.get_mut(derivation) {
            *users += 1;
            return Ok(product.clone());
        }
        let shard = state.shard;
        let (product, maker) = derivation.open(self.bounds);
        let derive = ingest::Command::Derive(derivation.clone(), maker);
        self.ask(shard, Command::Intake(stream, derive))?;
        if let Some(state) = self.streams.get_mut(&stream) {
            state.derived.insert(derivation.clone(), (product.clone(), 1));
        }
        Ok(product)
    }

    fn release(&mut self, stream: StreamKey, derivation: Option<Derivation>) {
        let (Some(state), Some(derivation)) = (self.streams.get_mut(&stream), derivation) else { return };
        let Some((_, users)) = state.derived.get_mut(&derivation) else { return };
        *users -= 1;
        if *users == 0 {
            state.derived.remove(&derivation);
            let shard = state.shard;
            self.insist(shard, Command::Intake(stream, ingest::Command::Forget(derivation)));
        }
    }
}

fn detach_connections(output: egress::OutputKey) -> ShardCommand {
    Command::Outflow(OutletCommand::Connection(ConnectionCommand::Detach(output)))
}

/// What a shard is told to let sessions begin; `None` for an input that would dial a group.
pub(super) fn command(owner: Owner, attempt: u32, plan: Plan, role: Role) -> Option<port::Command> {
    let Plan { port, passphrase, conduct, meeting } = plan;
    Some(match meeting {
        Meeting::Dial { peer, dial, rendezvous } => port::Command::Call(Box::new(Call {
            owner,
            attempt,
            port,
            peer,
            passphrase,
            dial,
            rendezvous,
            conduct,
            role,
        })),
        Meeting::Bond { kind, patience, links } => {
            let Role::Send(source) = role else { return None };
            port::Command::Bond(Box::new(Bond {
                owner,
                attempt,
                kind,
                links,
                passphrase,
                conduct,
                patience,
                source,
            }))
        }
        Meeting::Listen { cookie, name, login, settings, max_sessions, replace, groups } => {
            port::Command::Listen(Box::new(Listen {
                owner,
                attempt,
                port,
                cookie,
                name,
                login,
                passphrase,
                settings,
                conduct,
                role,
                max_sessions,
                replace,
                groups,
            }))
        }
    })
}

/// What reads a lane.
pub(crate) enum Sink {
    /// Walked by a shard.
    Datagrams(Box<Target>),
    /// Sent by sessions.
    Session {
        /// How they begin.
        plan: Box<Plan>,
        /// Which attempt makes them.
        attempt: u32,
        /// Delay class, nanoseconds.
        delay: Nanos,
        /// Where they count.
        stats: Arc<OutputStats>,
    },
    /// Written by a thread.
    File(Box<FileTarget>),
    /// A connection that a shard walks.
    Connection(Box<Link>),
    /// Read by those who will dial in: what they need is made ready.
    Server,
}

/// Why an output could not be attached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttachError {
    #[error(transparent)]
    Busy(#[from] ShardBusy),
    #[error("cannot start it: {0}")]
    System(#[from] io::Error),
    #[error("what it reads is not what it sends")]
    Mismatch,
}

/// Outputs by which the owner's shard may be ahead before others take over.
const LEAN: usize = 256;
