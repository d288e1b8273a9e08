//! Attempts that end in a TCP connection or in a place where peers dial in: what was made enters, tasks that feed inputs,
//! routes of ports and connections that shards walk leave.

use std::sync::Arc;

use tokio::sync::watch;

use super::{Director, Id};
use crate::app::dial::{Connected, DialError, Place};
use crate::app::feeders::Feeder;
use crate::app::rtsp;
use crate::app::servers::{self, Owner, Publish, Read};
use crate::app::streams::Sink;
use crate::egress::Link;
use crate::media::Tracks;
use crate::store::{InputId, OutputId, OutputSpec, OutputUrl};
use crate::supervise::{Attempt, Class};
use crate::telemetry::Level;

pub(super) type Done = Result<(), (Class, String)>;

impl Director {
    /// Starts the task that reads a source.
    pub(super) fn start_feeder(&mut self, input: InputId, attempt: Attempt, feeder: Feeder) -> Done {
        let card = self.board.input(input).ok_or_else(bug)?;
        let feed = self.streams.feed_media(input, attempt.number()).map_err(|e| retry(&e))?;
        let (stats, notices) = (Arc::clone(card.card.stats()), self.ingest_notices.clone());
        let task = feeder.start(&self.media, (input, attempt.number()), feed, stats, notices);
        self.readers.insert(input, task);
        Ok(())
    }

    /// Lets peers publish to an input.
    pub(super) fn let_publish(&mut self, input: InputId, attempt: Attempt, place: Place) -> Done {
        let card = self.board.input(input).ok_or_else(bug)?;
        let feed = self.streams.feed_media(input, attempt.number()).map_err(|e| retry(&e))?;
        let Place { server, name, login, replace, .. } = place;
        let publish = Publish {
            input,
            attempt: attempt.number(),
            login,
            replace,
            feed,
            stats: Arc::clone(card.card.stats()),
            closed: Default::default(),
        };
        server.routes.offer_publish(&name, publish).map_err(|e| (Class::Fatal, e.to_string()))?;
        self.log(Id::Input(input), Level::Info, format!("listens on {} for publishers", server.address));
        self.doors.insert(Id::Input(input), server);
        Ok(())
    }

    /// Lets peers read an output.
    pub(super) fn let_read(
        &mut self,
        input: InputId,
        output: OutputId,
        attempt: Attempt,
        place: Place,
    ) -> Done {
        let card = self.board.output(input, output).ok_or_else(bug)?;
        let Place { server, name, login, max_sessions, delay, lag, payload, group, derivation, .. } = place;
        self.streams.attach(output, input, derivation, Sink::Server).map_err(|e| retry(&e))?;
        let read = Read {
            output,
            attempt: attempt.number(),
            stream: input,
            lane: self.streams.messages_of(output),
            tracks: self.streams.tracks(input).ok_or_else(bug)?,
            login,
            payload,
            group,
            max_sessions,
            delay,
            lag,
            stats: Arc::clone(card.stats()),
            closed: Default::default(),
        };
        if let Err(error) = server.routes.offer_read(&name, read) {
            self.streams.detach(output);
            return Err((Class::Fatal, error.to_string()));
        }
        self.log(Id::Output(input, output), Level::Info, format!("listens on {} for {name}", server.address));
        self.doors.insert(Id::Output(input, output), server);
        Ok(())
    }

    /// Lets a shard walk a connection that an output dialled.
    pub(super) fn start_connection(
        &mut self,
        input: InputId,
        output: OutputId,
        attempt: Attempt,
        connected: Connected,
    ) -> Done {
        let card = self.board.output(input, output).ok_or_else(bug)?;
        let Connected { socket, legs, greeting, peer, derivation, delay, lag } = connected;
        let stats = Arc::clone(card.stats());
        let link = Link {
            key: (output, None),
            attempt: attempt.number(),
            stream: input,
            local: false,
            lane: self.streams.no_messages(),
            delay,
            socket,
            legs,
            greeting,
            peer,
            lag,
            flow: stats.flow.open(),
            stats,
            kicked: None,
        };
        let sink = Sink::Connection(Box::new(link));
        self.streams.attach(output, input, Some(derivation), sink).map_err(|e| retry(&e))
    }

    /// Makes the frames of a stream known to an output that has to say before it begins what they are; answers its
    /// tracks, as they become known.
    pub(super) fn announce(&mut self, spec: &OutputSpec) -> Option<watch::Receiver<Arc<Tracks>>> {
        let OutputUrl::Rtsp(url) = &spec.url else { return None };
        url.end.dial()?;
        let derivation = Some(rtsp::derivation(url.payload, &self.defaults));
        self.streams.attach(spec.id, spec.input_id, derivation, Sink::Server).ok()?;
        self.streams.tracks(spec.input_id)
    }

    /// Hears what connections at shared ports have to tell.
    pub(super) fn hear_server(&mut self, news: servers::News) {
        match news {
            servers::News::Word { owner, attempt, text } => {
                let id = match owner {
                    servers::Owner::Input(input) => Id::Input(input),
                    servers::Owner::Output(output) => {
                        let Some(input) = self.outputs.get(&output).map(|seen| seen.input) else { return };
                        Id::Output(input, output)
                    }
                };
                let current = self.keeper.machine(&id).and_then(|m| m.attempt()).map(Attempt::number);
                if current == Some(attempt) {
                    self.log(id, Level::Info, text);
                }
            }
            servers::News::Join { stream, derivation, link, shard } => {
                let (output, session) = link.key;
                if let Err(error) = self.streams.join(stream, derivation, link, shard) {
                    let id = Id::Output(stream, output);
                    self.log(id, Level::Warning, format!("a reader was turned away: {error}"));
                    let card = self.board.output(stream, output);
                    if let (Some(card), Some(session)) = (card, session) {
                        card.stats().sessions.remove(session);
                    }
                }
            }
        }
    }

    /// Takes the place at a port away that an object has, with the connections made for it.
    pub(super) fn close_door(&mut self, id: Id) {
        let owner = match id {
            Id::Input(input) => Owner::Input(input),
            Id::Output(_, output) => Owner::Output(output),
        };
        if let Some(server) = self.doors.remove(&id) {
            server.routes.withdraw(owner);
        }
        match id {
            Id::Input(input) => {
                if let Some(card) = self.board.input(input) {
                    card.card.stats().flow.show(None);
                }
            }
            Id::Output(input, output) => {
                if let Some(card) = self.board.output(input, output) {
                    card.stats().flow.show(None);
                }
            }
        }
    }
}

fn retry(error: &dyn std::fmt::Display) -> (Class, String) {
    (Class::Retry, error.to_string())
}

pub(super) fn bug() -> (Class, String) {
    (Class::Bug, DialError::Broken.to_string())
}
