//! What the director sees and shows: counters are looked at, machines hear that data moved, the board and the logs
//! learn what changed. Decides nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::{Director, Id};
use crate::control::OutputCard;
use crate::media::Tracks;
use crate::mux::flv::dropped_tracks;
use crate::mux::{Mp4, rtp, unsupported};
use crate::net::clock;
use crate::store::{Container, InputUrl, OutputUrl, Payload};
use crate::supervise::{Class, Event, UNREAD};
use crate::telemetry::{DroppedTrack, Level, Skip, State, Status};

impl Director {
    pub(super) fn look_at_inputs(&mut self) {
        for card in self.board.inputs(0, usize::MAX) {
            let input = card.card.spec().id;
            let id = Id::Input(input);
            let packets = card.card.stats().packets.load(Relaxed);
            let Some(seen) = self.inputs.get_mut(&input) else { continue };
            if std::mem::replace(&mut seen.packets, packets) != packets {
                self.note(id, Event::Flowing);
            }
            let Some(seen) = self.inputs.get_mut(&input) else { continue };
            let visited = !card.card.stats().sessions.is_empty();
            if std::mem::replace(&mut seen.visited, visited) != visited {
                self.show(id);
            }
            let live = self.keeper.machine(&id).is_some_and(|m| m.state() == State::Live);
            let Some(seen) = self.inputs.get_mut(&input) else { continue };
            if std::mem::replace(&mut seen.live, live) != live {
                let event = if live { Event::SourceBack } else { Event::SourceGone };
                let streams = card.outputs().into_iter().filter(|output| !output.spec().url.tells());
                for output in streams {
                    self.tell(Id::Output(input, output.spec().id), event.clone());
                }
            }
        }
    }

    pub(super) fn look_at_outputs(&mut self) {
        let now = clock::wall_ms();
        for card in self.board.inputs(0, usize::MAX) {
            let seen = self.inputs.get_mut(&card.card.spec().id);
            let muxed = card.card.stats().is_muxed.load(Relaxed);
            let quiet = seen.is_some_and(|seen| replace(&mut seen.packets_for_outputs, seen.packets) == 0);
            for output in card.outputs() {
                let spec = output.spec();
                if spec.url.tells() {
                    self.look_at_metadata(&output, now);
                }
                let Some(seen) = self.outputs.get_mut(&spec.id) else { continue };
                let stats = output.stats();
                // Where peers acknowledge, only that counts.
                let counter = match spec.url {
                    OutputUrl::Srt(_) | OutputUrl::Rtmp(_) | OutputUrl::Rtsp(_) => &stats.acknowledged,
                    OutputUrl::Cot(ref cot) if cot.dial().is_some() => &stats.acknowledged,
                    _ => &stats.datagrams,
                };
                let moved = replace(&mut seen.moved, counter.load(Relaxed));
                // A report comes every few seconds (RFC 3550, 6.2): as long as it is fresh, what leaves arrives.
                let unanswered = replace(&mut seen.unanswered, stats.unanswered.load(Relaxed));
                let reported = now.saturating_sub(stats.last_report_ms.load(Relaxed)) < REPORTED_MS;
                let skipped = replace(&mut seen.skipped, stats.skipped.load(Relaxed));
                let causes = stats.skip_causes.take();
                if causes.iter().any(|skip| skip.by_bandwidth > 0) {
                    seen.limited_ms = now;
                }
                let limited = now.saturating_sub(seen.limited_ms) < REFUSING_MS;
                let bounded = std::mem::replace(&mut seen.limited, limited) != limited;
                let visited = !stats.sessions.is_empty();
                let others = std::mem::replace(&mut seen.visited, visited) != visited;
                let refusing = is_refusing(&output, now);
                let packets = stats.packets_per_datagram.load(Relaxed);
                let icmp = std::mem::replace(&mut seen.refusing, refusing) != refusing;
                let size = std::mem::replace(&mut seen.packets_per_datagram, packets) != packets;
                let turned = icmp || size || bounded || others;
                let id = Id::Output(spec.input_id, spec.id);
                match &spec.url {
                    OutputUrl::Rtmp(_) => self.look_at_tracks(id, &output, |tracks| {
                        dropped_tracks(tracks)
                            .into_iter()
                            .map(|dropped| (dropped.track, dropped.reason))
                            .collect()
                    }),
                    OutputUrl::Rtsp(rtsp) if rtsp.payload == Payload::Tracks => {
                        self.look_at_tracks(id, &output, |tracks| {
                            rtp::describe(tracks)
                                .1
                                .into_iter()
                                .map(|(track, dropped)| (track, dropped.why))
                                .collect()
                        })
                    }
                    OutputUrl::File(file) if file.container == Container::Mp4 => {
                        self.look_at_tracks(id, &output, Mp4::left_out)
                    }
                    url if url.tells() => {}
                    // A transport stream that came as one leaves as it is.
                    _ if muxed => self.look_at_tracks(id, &output, unsupported),
                    _ => self.leave_nothing_out(&output),
                }
                if skipped > 0 {
                    let why = describe_skips(&causes);
                    self.log(id, Level::Warning, format!("fell behind and skipped {skipped} datagrams{why}"));
                }
                if moved > 0 || unanswered > 0 && reported {
                    self.note(id, Event::Flowing);
                } else if unanswered > 0 {
                    self.note(id, Event::Sent);
                } else if quiet {
                    self.note(id, Event::Quiet);
                }
                if turned {
                    self.show(id);
                }
            }
        }
    }

    /// Says which tracks of its input an output leaves out (`left_out`: their indexes and why), when the tracks are others
    /// than before; ends RTSP sessions that cannot go on with those.
    fn look_at_tracks(
        &mut self,
        id: Id,
        output: &OutputCard,
        left_out: impl FnOnce(&Tracks) -> Vec<(usize, &'static str)>,
    ) {
        let Id::Output(input, number) = id else { return };
        let Some(tracks) = self.streams.tracks(input).map(|tracks| Arc::clone(&tracks.borrow())) else {
            return;
        };
        let Some(seen) = self.outputs.get_mut(&number) else { return };
        let mut last = None;
        if seen.tracks.as_ref().is_none_or(|last| !Arc::ptr_eq(last, &tracks)) {
            let named = left_out(&tracks).into_iter().filter_map(|(index, reason)| {
                let track = tracks.0.get(index)?;
                Some(DroppedTrack { track: track.id, codec: track.codec.name(), reason })
            });
            let named: Vec<DroppedTrack> = named.collect();
            let told = named.iter().map(|d| format!("track {} ({}): {}", d.track, d.codec, d.reason));
            let told = told.collect::<Vec<_>>().join(", ");
            let nothing_left = !named.is_empty() && named.len() == tracks.0.len();
            seen.unsupported = nothing_left.then(|| format!("Unsupported: {told}"));
            last = seen.tracks.replace(Arc::clone(&tracks));
            if output.stats().dropped_tracks.show(named) && !told.is_empty() && !nothing_left {
                self.log(id, Level::Warning, format!("leaves out {told}"));
            }
        }
        // A connection that will never carry anything is not kept up as if it did.
        let unsupported = self.outputs.get(&number).and_then(|seen| seen.unsupported.clone());
        if let (Some(reason), Some(attempt)) =
            (unsupported, self.keeper.machine(&id).and_then(|machine| machine.attempt()))
        {
            return self.tell(id, Event::Failed { attempt, class: Class::Fatal, reason });
        }
        let rtsp = matches!(self.store.output(input, number).map(|spec| &spec.url), Some(OutputUrl::Rtsp(_)));
        if rtsp && last.is_some_and(|last| !rtp::goes_on(&last, &tracks)) {
            self.begin_anew(id, output);
        }
    }

    /// An output takes what there is as it is.
    fn leave_nothing_out(&mut self, output: &OutputCard) {
        let seen = self.outputs.get_mut(&output.spec().id);
        if let Some(seen) = seen.filter(|seen| seen.tracks.is_some()) {
            (seen.tracks, seen.unsupported) = (None, None);
            output.stats().dropped_tracks.show(Vec::new());
        }
    }

    /// The tracks are others than those that peers were told of: they have to ask again.
    fn begin_anew(&mut self, id: Id, output: &OutputCard) {
        let reason = "the tracks of the input are others than before".to_owned();
        self.log(id, Level::Info, reason.clone());
        output.stats().sessions.all().iter().for_each(|session| session.kick());
        let Id::Output(input, number) = id else { return };
        let Some(spec) = self.store.output(input, number) else { return };
        let pushes = matches!(&spec.url, OutputUrl::Rtsp(rtsp) if rtsp.end.dial().is_some());
        let attempt = self.keeper.machine(&id).and_then(|machine| machine.attempt());
        if let Some(attempt) = attempt.filter(|_| pushes) {
            self.tell(id, Event::Failed { attempt, class: Class::Retry, reason });
        }
    }

    /// Shows a machine's state on the board and logs a change of it.
    pub(super) fn show(&mut self, id: Id) {
        let Some(machine) = self.keeper.machine(&id) else { return };
        let (then, wall) = self.epoch;
        let mut status = machine.status(|at| {
            if at >= then {
                wall + Duration::from_nanos(at - then)
            } else {
                wall - Duration::from_nanos(then - at)
            }
        });
        match id {
            Id::Input(input) => {
                let Some(card) = self.board.input(input) else { return };
                let waits =
                    matches!(status.state, State::Idle | State::Stalled) && machine.attempt().is_some();
                if waits && listens(&card.card.spec().url) && card.card.stats().sessions.is_empty() {
                    status.reason = "listening, nobody publishes".into();
                }
                if card.card.peek(|old| old.state != status.state) {
                    self.log_state(id, &status);
                }
                card.card.set_status(status);
            }
            Id::Output(input, output) => {
                let Some(card) = self.board.output(input, output) else { return };
                if status.state == State::Sending && is_refusing(&card, clock::wall_ms()) {
                    status.reason = "peer refuses (ICMP)".into();
                } else if status.reason == UNREAD && !card.stats().sessions.is_empty() {
                    status.reason = "readers are here and acknowledge nothing".into();
                } else if status.state == State::Starved && card.spec().url.tells() {
                    status.reason = "the input has no metadata with something to tell".into();
                } else if matches!(status.state, State::Live) && status.reason.is_empty() {
                    let warnings = card.stats().tak.stats().map(|tak| tak.warnings.all());
                    status.reason = warnings.unwrap_or_default().join("; ");
                    if self.outputs.get(&output).is_some_and(|seen| seen.limited) {
                        status.reason =
                            "the limit of bandwidth (maxbw, inputbw) leaves out a part of the stream".into();
                    }
                } else if status.state == State::Sending {
                    let packets = card.stats().packets_per_datagram.load(Relaxed);
                    if packets > 0 {
                        status.reason = format!("{packets} packets per datagram: the path carries no more");
                    }
                }
                if card.peek(|old| (old.state, &old.reason) != (status.state, &status.reason)) {
                    self.log_state(id, &status);
                }
                card.set_status(status);
            }
        }
    }

    /// Notes something for the object's own log and that of the process.
    pub(super) fn log(&self, id: Id, level: Level, message: String) {
        self.write(id, level, level, message);
    }

    /// A failure, which the log of the process gets with what becomes of it ([`Director::show`]).
    pub(super) fn log_failure(&self, id: Id, reason: String) {
        self.write(id, Level::Error, Level::Debug, reason);
    }

    /// A state that was entered: the log of the process gets trouble, and that it is over.
    fn log_state(&self, id: Id, status: &Status) {
        let level = level_of(status.state);
        let told = match status.state {
            State::Live => level,
            State::Sending if status.last_error.is_some() => level,
            _ if level == Level::Info => Level::Debug,
            _ => level,
        };
        self.write(id, level, told, describe(status.state, &status.reason));
    }

    fn write(&self, id: Id, level: Level, told: Level, message: String) {
        let (input, output) = match id {
            Id::Input(input) => (input, None),
            Id::Output(input, output) => (input, self.board.output(input, output)),
        };
        let Some(card) = self.board.input(input) else { return };
        let (of, to) = (card.card.spec(), output.as_ref().map(|output| output.spec()));
        let (of, to) = (&*of.name, to.as_ref().map(|to| &*to.name));
        match told {
            Level::Error | Level::Warning => tracing::warn!(?id, input = of, output = to, "{message}"),
            Level::Info => tracing::info!(?id, input = of, output = to, "{message}"),
            Level::Debug => tracing::debug!(?id, input = of, output = to, "{message}"),
        }
        let event = self.board.event(level, message, clock::wall());
        match (id, output) {
            (Id::Input(_), _) => card.card.log(event),
            (Id::Output(..), Some(output)) => output.log(event),
            (Id::Output(..), None) => {}
        }
    }
}

/// Puts a counter's new value in place and answers by how much it grew.
fn replace(counter: &mut u64, value: u64) -> u64 {
    value.saturating_sub(std::mem::replace(counter, value))
}

fn is_refusing(output: &OutputCard, now_ms: u64) -> bool {
    let last = output.stats().last_icmp_ms.load(Relaxed);
    last > 0 && now_ms.saturating_sub(last) < REFUSING_MS
}

/// Behind a count of datagrams that were skipped: whose they were, and why.
fn describe_skips(causes: &[Skip]) -> String {
    let mut told = String::new();
    for (number, Skip { peer, by_bandwidth, by_window }) in causes.iter().enumerate() {
        told.push_str(if number == 0 { ": " } else { "; " });
        told.push_str(&format!("for {peer} "));
        match (by_bandwidth, by_window) {
            (bandwidth, 0) => told.push_str(&format!("{bandwidth} refused by maxbw")),
            (0, window) => told.push_str(&format!("{window} that its receive window has no room for")),
            (bandwidth, window) => told.push_str(&format!(
                "{bandwidth} refused by maxbw, {window} that its receive window has no room for"
            )),
        }
    }
    told
}

/// Whether publishers dial in.
fn listens(url: &InputUrl) -> bool {
    match url {
        InputUrl::Srt(srt) => srt.link.listen().is_some(),
        InputUrl::Rtmp(rtmp) => rtmp.dial().is_none(),
        InputUrl::Rtsp(rtsp) => rtsp.end.listen().is_some(),
        InputUrl::Udp(_) | InputUrl::Rtp(_) | InputUrl::File(_) => false,
    }
}

fn level_of(state: State) -> Level {
    match state {
        State::Stalled | State::Backoff => Level::Warning,
        State::Failed => Level::Error,
        _ => Level::Info,
    }
}

fn describe(state: State, reason: &str) -> String {
    if reason.is_empty() { format!("{state:?}") } else { format!("{state:?}: {reason}") }
}

/// How long a receiver report counts: as long as the next one may take, and be lost.
const REPORTED_MS: u64 = 10_000;
/// How long after an ICMP error an output counts as refused.
const REFUSING_MS: u64 = 5_000;
