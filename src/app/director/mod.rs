//! The one who decides: writes of the API, news from shards, dials that ended and time enter; commands to shards
//! and the board leave. Never waits for a dial or a shard.

mod attempts;
mod connections;
mod metadata;
mod policy;
mod view;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::dial::{Connected, DialError, Place, Source, Way};
use super::feeders::{Feeder, Task};
use super::servers::{self, Server, Servers};
use super::sessions::Plan;
use super::streams::Streams;
use super::tak;
use super::taps;
use crate::config::Config;
use crate::control::{Board, Command, InputCard, OutputCard};
use crate::egress;
use crate::ingest;
use crate::media::Tracks;
use crate::net::{HostPolicy, Route, clock};
use crate::port::{self, Owner};
use crate::store::{Delay, InputId, InputSpec, OutputId, OutputSpec, Refusal, Roots, Store, reader_of};
use crate::supervise::{Action, Attempt, Class, DialBudget, Event, Keeper, Nanos};
use crate::telemetry::{Desired, Level};
use crate::wire::srt::handshake::CookieSecret;

/// What the configuration says where a url is silent.
#[derive(Clone)]
pub struct Defaults {
    pub(super) policy: Arc<HostPolicy>,
    pub(super) roots: Arc<Roots>,
    pub(super) rcvbuf: usize,
    /// What the KLV of inputs says is found out.
    pub(super) klv: bool,
    pub(super) delay: Delay,
    pub(super) stall_after: Duration,
    pub(super) reconnect_cap: Duration,
    pub(super) jitter: f64,
    pub(super) fatal_retry: Option<Duration>,
    /// Peers that may read one output at the same time.
    pub(super) max_sessions: usize,
    /// The secret of SYN cookies on SRT ports.
    pub(super) cookie: CookieSecret,
    /// The folder of everything that is stored.
    pub(super) data_dir: Arc<Path>,
    /// Where others reach this engine.
    pub(super) public: Arc<tak::Public>,
    /// TCP ports that inputs and outputs share.
    pub(super) servers: Arc<Servers>,
}

/// An input or output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Id {
    Input(InputId),
    Output(InputId, OutputId),
}

/// Keeps what runs in step with what shall run.
pub(super) struct Director {
    pub(super) board: Arc<Board>,
    pub(super) store: Store,
    pub(super) keeper: Keeper<Id>,
    pub(super) budget: DialBudget<Id>,
    pub(super) dials: JoinSet<Dialled>,
    /// Attempts that run or wait for their turn; a newer one replaces it.
    pub(super) under_way: HashMap<Id, UnderWay>,
    pub(super) streams: Streams,
    pub(super) defaults: Defaults,
    /// One moment on both clocks.
    pub(super) epoch: (Nanos, SystemTime),
    pub(super) neighbours: Neighbours,
    pub(super) inputs: HashMap<InputId, SeenInput>,
    pub(super) outputs: HashMap<OutputId, SeenOutput>,
    /// Where tasks run that receive.
    pub(super) media: Handle,
    pub(super) ingest_notices: mpsc::Sender<ingest::Notice>,
    /// Tasks that feed inputs.
    pub(super) readers: HashMap<InputId, Task>,
    pub(super) egress_notices: mpsc::Sender<egress::Notice>,
    /// Tasks that tell what metadata say.
    pub(super) tellers: HashMap<OutputId, tak::Teller>,
    /// Those of them that have not ended.
    pub(super) busy: tak::Busy,
    /// Ports at which inputs and outputs have a place.
    pub(super) doors: HashMap<Id, Arc<Server>>,
}

/// What was last seen of an input.
pub(super) struct SeenInput {
    packets: u64,
    /// Its packets when its outputs were last looked at.
    packets_for_outputs: u64,
    live: bool,
    /// Somebody who dialled in is there.
    visited: bool,
    /// Decodes its KLV.
    _klv: Option<Task>,
    /// Holds it against the rules.
    _rules: Task,
}

/// What was last seen of an output.
pub(super) struct SeenOutput {
    input: InputId,
    /// Datagrams sent, or acknowledged.
    moved: u64,
    /// Datagrams sent to peers that need not answer.
    unanswered: u64,
    skipped: u64,
    /// Milliseconds since the Unix epoch at which its limit of bandwidth last refused something; 0 = never.
    limited_ms: u64,
    limited: bool,
    /// Somebody who dialled in is there.
    visited: bool,
    refusing: bool,
    packets_per_datagram: u64,
    /// The tracks that `dropped_tracks` was last made of.
    tracks: Option<Arc<Tracks>>,
    /// Why its protocol carries none of them.
    unsupported: Option<String>,
    /// Where the picture is to be had, for outputs that tell it.
    video: watch::Sender<Option<String>>,
    /// Whose turn it is at the server's list of videos.
    turn: tak::Turn,
}

/// An attempt that runs or waits for its turn.
pub(super) struct UnderWay {
    attempt: Attempt,
    task: Option<AbortHandle>,
}

/// How an attempt ended.
pub(super) struct Dialled {
    id: Id,
    attempt: Attempt,
    outcome: Result<Made, DialError>,
}

/// News from the shards.
pub(super) struct News {
    pub(super) ingest: mpsc::Receiver<ingest::Notice>,
    pub(super) egress: mpsc::Receiver<egress::Notice>,
    pub(super) port: mpsc::Receiver<port::Notice>,
    pub(super) servers: mpsc::Receiver<servers::News>,
}

pub(super) enum Made {
    Source(Source),
    Sessions(Box<Plan>, Option<Route>),
    Way(Box<Way>),
    File,
    Feeder(Feeder),
    Place(Place),
    Connection(Box<Connected>),
    Telling(Box<tak::Telling>),
}

/// On-link neighbours in use, to warn before the kernel's table overflows.
#[derive(Default)]
pub(super) struct Neighbours {
    used: HashMap<IpAddr, usize>,
    by_output: HashMap<OutputId, IpAddr>,
    warned: bool,
}

impl Director {
    /// Starts what the configuration file names.
    pub(super) fn seed(&mut self, config: &Config) -> Result<(), Refusal> {
        config.seed(&mut self.store, clock::wall())?;
        let inputs: Vec<Arc<InputSpec>> = self.store.inputs().cloned().collect();
        for input in inputs {
            let outputs: Vec<Arc<OutputSpec>> = self.store.outputs(input.id).cloned().collect();
            self.add_input(&input);
            for output in outputs {
                self.add_output(&output);
            }
        }
        Ok(())
    }

    pub(super) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut news: News,
        mut stopping: watch::Receiver<bool>,
    ) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut looks = 0u32;
        loop {
            let deadline = self.keeper.next_deadline().unwrap_or(u64::MAX);
            let wait = Duration::from_nanos(deadline.saturating_sub(clock::now()).min(IDLE));
            tokio::select! {
                biased;
                _ = stopping.changed() => break,
                _ = look.tick() => {
                    looks = looks.wrapping_add(1);
                    self.streams.catch_up();
                    self.look_at_inputs();
                    if looks.is_multiple_of(OUTPUTS_EVERY) {
                        self.look_at_outputs();
                    }
                }
                () = tokio::time::sleep(wait) => {
                    for (id, action) in self.keeper.expire(clock::now(), fastrand::f64) {
                        self.act(id, action);
                    }
                }
                Some(command) = commands.recv() => self.obey(command),
                Some(notice) = news.ingest.recv() => self.hear_source(notice),
                Some(notice) = news.egress.recv() => self.hear_output(notice),
                Some(notice) = news.port.recv() => self.hear_port(notice),
                Some(word) = news.servers.recv() => self.hear_server(word),
                Some(done) = self.dials.join_next(), if !self.dials.is_empty() => {
                    // An aborted attempt was booked when it was aborted.
                    if let Ok(dialled) = done {
                        self.dialled(dialled);
                    }
                }
            }
        }
        self.drain().await;
    }

    /// Stops every input, then every output, and gives shards and files the time to end.
    async fn drain(mut self) {
        self.dials.shutdown().await;
        let mut ids: Vec<Id> = self.keeper.iter().map(|(id, _)| *id).collect();
        ids.sort_by_key(|id| matches!(id, Id::Output(..)));
        for id in ids {
            self.tell(id, Event::Stop);
        }
        self.streams.catch_up();
        // Shards take their commands within milliseconds; a file's thread writes out what it holds.
        for _ in 0..FILE_DRAIN {
            tokio::time::sleep(Duration::from_millis(50)).await;
            self.streams.catch_up();
            if self.streams.are_files_closed() && self.busy.is_over() {
                break;
            }
        }
    }

    fn obey(&mut self, command: Command) {
        // Whoever asked may be gone: the command was carried out all the same.
        match command {
            Command::CreateInput { draft, reply } => {
                let made = self.store.create_input(draft, clock::wall());
                drop(reply.send(made.map(|spec| {
                    let card = self.add_input(&spec);
                    let reader = self.store.output(spec.id, reader_of(spec.id)).cloned();
                    reader.and_then(|reader| self.add_output(&reader));
                    card
                })));
            }
            Command::PatchInput { id, patch, reply } => {
                let changed = self.store.patch_input(id, patch, clock::wall());
                drop(reply.send(changed.and_then(|change| {
                    let restart = change.before.url != change.after.url;
                    let card = self.board.input(id).ok_or_else(gone)?;
                    card.card.set_spec(Arc::clone(&change.after));
                    self.keeper.adopt(Id::Input(id), self.input_policy(&change.after));
                    if change.before.srt_port.is_some() && change.after.srt_port.is_none() {
                        self.forget(Id::Output(id, reader_of(id)));
                        self.board.remove_output(id, reader_of(id));
                    }
                    if restart {
                        self.restart(Id::Input(id), change.after.desired);
                    }
                    Ok(card)
                })));
            }
            Command::DeleteInput { id, reply } => {
                drop(reply.send(self.store.delete_input(id).map(|(_, outputs)| {
                    outputs.iter().for_each(|output| self.forget(Id::Output(id, output.id)));
                    self.forget(Id::Input(id));
                    self.streams.close(id);
                    self.inputs.remove(&id);
                    self.board.remove_input(id);
                })));
            }
            Command::StartInput { id, reply } => drop(reply.send(self.switch_input(id, Desired::Running))),
            Command::StopInput { id, reply } => drop(reply.send(self.switch_input(id, Desired::Stopped))),
            Command::CreateOutput { input, draft, reply } => {
                let made = self.store.create_output(input, draft, clock::wall());
                drop(reply.send(made.and_then(|spec| self.add_output(&spec).ok_or_else(gone))));
            }
            Command::PatchOutput { input, id, patch, reply } => {
                let changed = self.store.patch_output(input, id, patch, clock::wall());
                drop(reply.send(changed.and_then(|change| {
                    let restart = change.before.url != change.after.url;
                    let card = self.board.output(input, id).ok_or_else(gone)?;
                    card.set_spec(Arc::clone(&change.after));
                    self.keeper.adopt(Id::Output(input, id), self.output_policy(&change.after));
                    if restart {
                        self.restart(Id::Output(input, id), change.after.desired);
                    }
                    // What it carries may be of another kind than before.
                    if restart && !change.after.url.tells() {
                        let live = self.inputs.get(&input).is_some_and(|input| input.live);
                        let event = if live { Event::SourceBack } else { Event::SourceGone };
                        self.tell(Id::Output(input, id), event);
                    }
                    Ok(card)
                })));
            }
            Command::DeleteOutput { input, id, reply } => {
                drop(reply.send(self.store.delete_output(input, id).map(|_| {
                    self.forget(Id::Output(input, id));
                    self.board.remove_output(input, id);
                })));
            }
            Command::StartOutput { input, id, reply } => {
                drop(reply.send(self.switch_output(input, id, Desired::Running)));
            }
            Command::StopOutput { input, id, reply } => {
                drop(reply.send(self.switch_output(input, id, Desired::Stopped)));
            }
        }
    }

    /// Shows an input of the store and starts it when it shall run.
    fn add_input(&mut self, spec: &Arc<InputSpec>) -> Arc<InputCard> {
        let card = self.board.add_input(Arc::clone(spec), clock::wall());
        let (tap, klv) = self.defaults.klv.then(|| taps::open(&self.media, card.klv())).unzip();
        self.streams.open(spec.id, Arc::clone(card.card.stats()), Arc::clone(card.health()), tap);
        let rules = taps::examine(&self.media, card.health());
        self.inputs.insert(
            spec.id,
            SeenInput {
                packets: 0,
                packets_for_outputs: 0,
                live: false,
                visited: false,
                _klv: klv,
                _rules: rules,
            },
        );
        let id = Id::Input(spec.id);
        self.keeper.insert(id, self.input_policy(spec), clock::now());
        if spec.desired == Desired::Running {
            self.tell(id, Event::Start);
        }
        card
    }

    /// Shows an output of the store and starts it when it shall run.
    fn add_output(&mut self, spec: &Arc<OutputSpec>) -> Option<Arc<OutputCard>> {
        let card = self.board.add_output(Arc::clone(spec), clock::wall())?;
        let seen = SeenOutput {
            input: spec.input_id,
            moved: 0,
            unanswered: 0,
            skipped: 0,
            limited_ms: 0,
            limited: false,
            visited: false,
            refusing: false,
            packets_per_datagram: 0,
            tracks: None,
            unsupported: None,
            video: watch::Sender::new(None),
            turn: tak::Turn::default(),
        };
        self.outputs.insert(spec.id, seen);
        let id = Id::Output(spec.input_id, spec.id);
        self.keeper.insert(id, self.output_policy(spec), clock::now());
        // Where metadata are told, only they are something to send.
        if !spec.url.tells() && self.inputs.get(&spec.input_id).is_some_and(|input| input.live) {
            self.tell(id, Event::SourceBack);
        }
        if spec.desired == Desired::Running {
            self.tell(id, Event::Start);
        }
        Some(card)
    }

    fn switch_input(&mut self, id: InputId, desired: Desired) -> Result<(), Refusal> {
        let spec = self.store.set_input_desired(id, desired, clock::wall())?;
        if let Some(card) = self.board.input(id) {
            card.card.set_spec(spec.after);
        }
        self.tell(Id::Input(id), event_for(desired));
        Ok(())
    }

    fn switch_output(&mut self, input: InputId, id: OutputId, desired: Desired) -> Result<(), Refusal> {
        let spec = self.store.set_output_desired(input, id, desired, clock::wall())?;
        if let Some(card) = self.board.output(input, id) {
            card.set_spec(spec.after);
        }
        self.tell(Id::Output(input, id), event_for(desired));
        Ok(())
    }

    fn restart(&mut self, id: Id, desired: Desired) {
        self.tell(id, Event::Stop);
        if desired == Desired::Running {
            self.tell(id, Event::Start);
        }
    }

    fn forget(&mut self, id: Id) {
        let action = self.keeper.remove(&id);
        self.act(id, action);
        self.give_up(id);
        if let Id::Output(_, output) = id {
            self.outputs.remove(&output);
        }
    }

    /// Passes an event to a machine, does what it asks for and shows the result.
    fn tell(&mut self, id: Id, event: Event) {
        let action = self.keeper.handle(id, event, clock::now(), fastrand::f64());
        self.act(id, action);
    }

    /// Tells a machine that data moved. Thousands hear it every second, so what changes nothing shows nothing.
    fn note(&mut self, id: Id, event: Event) {
        let before = self.keeper.machine(&id).map(|m| m.state());
        let action = self.keeper.handle(id, event, clock::now(), fastrand::f64());
        if action.is_some() || self.keeper.machine(&id).map(|m| m.state()) != before {
            self.act(id, action);
        }
    }

    fn act(&mut self, id: Id, action: Option<Action>) {
        match action {
            Some(Action::Dial(attempt)) => self.dial(id, attempt),
            Some(Action::Close(attempt)) => self.close(id, attempt),
            None => {}
        }
        self.show(id);
    }

    fn hear_source(&mut self, notice: ingest::Notice) {
        let id = Id::Input(notice.stream);
        let Some(attempt) = self.keeper.machine(&id).and_then(|m| m.attempt()) else { return };
        if attempt.number() != notice.attempt {
            return;
        }
        match notice.kind {
            ingest::NoticeKind::Ended => {
                self.log(id, Level::Info, "came to its end".into());
                self.tell(id, Event::Ended { attempt });
            }
            ingest::NoticeKind::Failed { reason, retryable } => {
                self.log_failure(id, reason.clone());
                let class = if retryable { Class::Retry } else { Class::Fatal };
                self.tell(id, Event::Failed { attempt, class, reason });
            }
        }
    }

    fn hear_output(&mut self, notice: egress::Notice) {
        let Some(input) = self.outputs.get(&notice.output).map(|seen| seen.input) else { return };
        let id = Id::Output(input, notice.output);
        let Some(attempt) = self.keeper.machine(&id).and_then(|m| m.attempt()) else { return };
        if attempt.number() != notice.attempt {
            return;
        }
        let errno = |errno: i32| std::io::Error::from_raw_os_error(errno);
        match notice.kind {
            egress::NoticeKind::NoSocket { reason, retryable }
            | egress::NoticeKind::WriteFailed { reason, retryable } => {
                self.log_failure(id, reason.clone());
                let class = if retryable { Class::Retry } else { Class::Fatal };
                self.tell(id, Event::Failed { attempt, class, reason });
            }
            egress::NoticeKind::Refused(code) => {
                self.log(id, Level::Warning, format!("the kernel refuses to send: {}", errno(code)));
            }
            egress::NoticeKind::SmallerDatagrams(packets) => {
                self.log(
                    id,
                    Level::Warning,
                    format!("the path carries smaller datagrams: {packets} packets in each from now on"),
                );
            }
            egress::NoticeKind::Disconnected { session: None, reason, retryable } => {
                self.log_failure(id, reason.clone());
                let class = if retryable { Class::Retry } else { Class::Fatal };
                self.tell(id, Event::Failed { attempt, class, reason });
            }
            egress::NoticeKind::Disconnected { session: Some(session), reason, .. } => {
                self.streams.leave(notice.output, session);
                let card = self.board.output(input, notice.output);
                if let Some(gone) = card.and_then(|card| card.stats().sessions.remove(session)) {
                    self.log(id, Level::Info, format!("{} left: {reason}", gone.peer));
                }
            }
            egress::NoticeKind::Remark(text) => self.log(id, Level::Info, text),
            egress::NoticeKind::NoSegmentation(code) => {
                let error = errno(code);
                self.log(
                    id,
                    Level::Info,
                    format!(
                        "the path refuses segmentation by the kernel ({error}): datagrams are sent one by one"
                    ),
                );
            }
        }
    }

    fn hear_port(&mut self, notice: port::Notice) {
        let id = match notice.owner {
            Owner::Input(input) => Id::Input(input),
            Owner::Output(output) => {
                let Some(input) = self.outputs.get(&output).map(|seen| seen.input) else { return };
                Id::Output(input, output)
            }
        };
        let Some(attempt) = self.keeper.machine(&id).and_then(|m| m.attempt()) else { return };
        if attempt.number() != notice.attempt {
            return;
        }
        match notice.kind {
            port::NoticeKind::Listening(local) => {
                self.log(id, Level::Info, format!("listens on {local}"));
                self.tell(id, Event::Connected { attempt, answering: true });
            }
            port::NoticeKind::Connected => {
                self.log(id, Level::Info, "the handshake is done".into());
                self.tell(id, Event::Connected { attempt, answering: true });
            }
            port::NoticeKind::Failed { reason, retryable } => {
                self.log_failure(id, reason.clone());
                let class = if retryable { Class::Retry } else { Class::Fatal };
                self.tell(id, Event::Failed { attempt, class, reason });
            }
            port::NoticeKind::Peer(text) => self.log(id, Level::Info, text),
        }
    }
}

/// Store and board always hold the same objects.
fn gone() -> Refusal {
    Refusal::NotFound("it was deleted".into())
}

fn event_for(desired: Desired) -> Event {
    match desired {
        Desired::Running => Event::Start,
        Desired::Stopped => Event::Stop,
    }
}

/// Looks, 50 ms apart, at whether files are closed when the engine stops: 3 s.
const FILE_DRAIN: usize = 60;
const LOOK: Duration = Duration::from_millis(100);
const OUTPUTS_EVERY: u32 = 5;
/// Longest sleep without anything to do.
const IDLE: Nanos = 3_600_000_000_000;
