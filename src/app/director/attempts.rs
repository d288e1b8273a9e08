//! Attempts of the director: dials begin within their budget and end in a driver that feeds or a target that is walked.
//! Never decides whether to try again.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::{Dialled, Director, Id, Made, Neighbours, UnderWay};
use crate::app::dial::{self, DialError, Origin};
use crate::app::sessions::{self, Meeting};
use crate::app::streams::Sink;
use crate::app::{rtmp, rtsp, tak};
use crate::control::OutputCard;
use crate::egress::FileTarget;
use crate::mux::Derivation;
use crate::net::{self, Route};
use crate::store::{Container, FileOutput, InputId, InputUrl, OutputId, OutputUrl};
use crate::supervise::{Attempt, Class, Event, Grant};
use crate::telemetry::Level;

impl Director {
    pub(super) fn dial(&mut self, id: Id, attempt: Attempt) {
        self.give_up(id);
        self.under_way.insert(id, UnderWay { attempt, task: None });
        if self.budget.request(&self.host(id), id) == Grant::Granted {
            self.begin(id);
        }
    }

    /// Begins an attempt whose turn it is.
    pub(super) fn begin(&mut self, id: Id) {
        let Some(attempt) = self.under_way.get(&id).map(|u| u.attempt) else { return };
        let defaults = self.defaults.clone();
        let turn = attempt.number().wrapping_sub(1);
        let task = match id {
            Id::Input(input) => {
                let Some(spec) = self.store.input(input).cloned() else { return };
                self.dials.spawn(async move {
                    let origin = dial::source(&spec.url, &spec.mediamtx_path, turn, &defaults).await;
                    let outcome = origin.map(|origin| match origin {
                        Origin::Source(source) => Made::Source(source),
                        Origin::Sessions(plan) => Made::Sessions(plan, None),
                        Origin::Feeder(feeder) => Made::Feeder(feeder),
                        Origin::Place(place) => Made::Place(place),
                    });
                    Dialled { id, attempt, outcome }
                })
            }
            Id::Output(input, output) => {
                let (Some(spec), Some(card)) =
                    (self.store.output(input, output).cloned(), self.board.output(input, output))
                else {
                    return;
                };
                let (lane, stats) = (self.streams.nowhere(), Arc::clone(card.stats()));
                let name = self.store.input(input).map(|spec| spec.mediamtx_path.clone()).unwrap_or_default();
                let tracks = self.announce(&spec);
                let persona = self.persona(&spec, &name);
                self.dials.spawn(async move {
                    let number = attempt.number();
                    if let OutputUrl::Rtsp(url) = &spec.url {
                        let outcome = match (url.end.listen(), tracks) {
                            (Some(listen), _) => {
                                rtsp::serve(url, listen, &name, &defaults).await.map(Made::Place)
                            }
                            (None, Some(tracks)) => {
                                let connected = rtsp::push(url, tracks, &defaults).await;
                                connected.map(|connected| Made::Connection(Box::new(connected)))
                            }
                            (None, None) => Err(DialError::Broken),
                        };
                        return Dialled { id, attempt, outcome };
                    }
                    if spec.url.tells() {
                        let reached = tak::reach(&spec.url, persona, &stats, &defaults).await;
                        let outcome = reached.map(|telling| Made::Telling(Box::new(telling)));
                        return Dialled { id, attempt, outcome };
                    }
                    if let OutputUrl::Srt(srt) = &spec.url {
                        let planned = sessions::send(srt, &name, turn, &defaults).await;
                        let outcome = planned.map(|(plan, route)| Made::Sessions(Box::new(plan), route));
                        return Dialled { id, attempt, outcome };
                    }
                    if let OutputUrl::Rtmp(url) = &spec.url {
                        let outcome = rtmp::push(url, &defaults).await;
                        let outcome = outcome.map(|connected| Made::Connection(Box::new(connected)));
                        return Dialled { id, attempt, outcome };
                    }
                    let way = dial::way((output, number), input, &spec.url, &defaults, lane, stats).await;
                    let outcome = way.map(|way| way.map_or(Made::File, |way| Made::Way(Box::new(way))));
                    Dialled { id, attempt, outcome }
                })
            }
        };
        if let Some(under_way) = self.under_way.get_mut(&id) {
            under_way.task = Some(task);
        }
    }

    /// Ends an attempt that is under way or waits for its turn.
    pub(super) fn give_up(&mut self, id: Id) {
        if let Some(under_way) = self.under_way.remove(&id)
            && let Some(task) = under_way.task
        {
            task.abort();
        }
        if let Some(next) = self.budget.release(&id) {
            self.begin(next);
        }
    }

    pub(super) fn dialled(&mut self, dialled: Dialled) {
        let Dialled { id, attempt, outcome } = dialled;
        if self.under_way.get(&id).is_none_or(|u| u.attempt != attempt) {
            return;
        }
        self.give_up(id);
        let outcome = outcome.map_err(|error| (error.class(), error.to_string()));
        let connected = outcome.and_then(|made| self.connect(id, attempt, made));
        match connected {
            Ok(Some(answering)) => self.tell(id, Event::Connected { attempt, answering }),
            // Its port tells when the peer has answered.
            Ok(None) => {}
            Err((class, reason)) => {
                self.log_failure(id, reason.clone());
                self.tell(id, Event::Failed { attempt, class, reason });
            }
        }
    }

    /// Puts what an attempt made to work; whether its peer acknowledges what it gets, or `None` while a peer has to
    /// answer first.
    pub(super) fn connect(
        &mut self,
        id: Id,
        attempt: Attempt,
        made: Made,
    ) -> Result<Option<bool>, (Class, String)> {
        let retry = |error: &dyn std::fmt::Display| (Class::Retry, error.to_string());
        let ready = match &made {
            Made::Sessions(..) => None,
            Made::Telling(telling) => Some(telling.answers),
            Made::Place(..) | Made::Connection(..) => Some(true),
            _ => Some(false),
        };
        let done = match (id, made) {
            (Id::Input(input), Made::Sessions(plan, _)) => {
                let Some(card) = self.board.input(input) else {
                    return Err((Class::Bug, DialError::Broken.to_string()));
                };
                let stats = Arc::clone(card.card.stats());
                self.streams.feed_from(input, *plan, attempt.number(), stats).map_err(|e| retry(&e))
            }
            (Id::Output(input, output), Made::Sessions(plan, route)) => {
                let (Some(spec), Some(card)) =
                    (self.store.output(input, output).cloned(), self.board.output(input, output))
                else {
                    return Err((Class::Bug, DialError::Broken.to_string()));
                };
                let OutputUrl::Srt(srt) = &spec.url else {
                    return Err((Class::Bug, DialError::Broken.to_string()));
                };
                if let (Some(route), Meeting::Dial { peer, .. }) = (route, &plan.meeting) {
                    self.count_neighbour(output, route, peer.ip());
                }
                let delay = srt.delay.unwrap_or(self.defaults.delay).as_ms() * 1_000_000;
                let (attempt, stats) = (attempt.number(), Arc::clone(card.stats()));
                self.streams
                    .attach(
                        output,
                        input,
                        srt.transform.clone().map(Derivation::Filtered),
                        Sink::Session { plan, attempt, delay, stats },
                    )
                    .map_err(|e| retry(&e))
            }
            (Id::Input(input), Made::Source(source)) => {
                if let Some((requested, granted)) = source.buffer {
                    self.note_buffer(input, requested, granted);
                }
                self.streams.feed(input, source.driver, attempt.number()).map_err(|e| retry(&e))
            }
            (Id::Output(input, output), Made::Way(way)) => {
                let spec = self.store.output(input, output);
                let filter = spec.and_then(|spec| transform(&spec.url).cloned()).map(Derivation::Filtered);
                self.count_neighbour(output, way.route, way.target.destination.ip());
                let sink = Sink::Datagrams(Box::new(way.target));
                self.streams.attach(output, input, filter, sink).map_err(|e| retry(&e))
            }
            (Id::Output(input, output), Made::File) => {
                let (Some(spec), Some(card)) =
                    (self.store.output(input, output), self.board.output(input, output))
                else {
                    return Err((Class::Bug, DialError::Broken.to_string()));
                };
                let OutputUrl::File(file) = &spec.url else {
                    return Err((Class::Bug, DialError::Broken.to_string()));
                };
                let target = self.file_target(output, attempt, file, &card);
                let derivation = match file.container {
                    Container::Ts => file.transform.clone().map(Derivation::Filtered),
                    Container::Mp4 => Some(Derivation::Mp4),
                };
                self.streams
                    .attach(output, input, derivation, Sink::File(Box::new(target)))
                    .map_err(|e| retry(&e))
            }
            (Id::Input(input), Made::Feeder(feeder)) => self.start_feeder(input, attempt, feeder),
            (Id::Input(input), Made::Place(place)) => self.let_publish(input, attempt, place),
            (Id::Output(input, output), Made::Place(place)) => self.let_read(input, output, attempt, place),
            (Id::Output(input, output), Made::Telling(telling)) => {
                self.start_telling(input, output, attempt, *telling)
            }
            (Id::Output(input, output), Made::Connection(connected)) => {
                self.start_connection(input, output, attempt, *connected)
            }
            _ => Err((Class::Bug, DialError::Broken.to_string())),
        };
        done.map(|()| ready)
    }

    pub(super) fn file_target(
        &self,
        key: OutputId,
        attempt: Attempt,
        file: &FileOutput,
        card: &OutputCard,
    ) -> FileTarget {
        FileTarget {
            key,
            attempt: attempt.number(),
            stats: Arc::clone(card.stats()),
            create: Box::new(dial::files(file, Arc::clone(&self.defaults.roots))),
            rotate_bytes: file.rotate_bytes,
            rotate_after: file.rotate_after,
        }
    }

    pub(super) fn close(&mut self, id: Id, attempt: Attempt) {
        if self.under_way.get(&id).is_some_and(|u| u.attempt == attempt) {
            self.give_up(id);
        }
        self.close_door(id);
        match id {
            Id::Input(input) => {
                self.readers.remove(&input);
                self.streams.starve(input);
            }
            Id::Output(_, output) => {
                self.streams.detach(output);
                // It is asked to end, and takes back first what it entered into lists.
                self.tellers.remove(&output);
                self.neighbours.leave(output);
            }
        }
    }

    pub(super) fn host(&self, id: Id) -> String {
        let host = match id {
            Id::Input(input) => self.store.input(input).map(|spec| match &spec.url {
                InputUrl::Udp(udp) => udp.host.clone(),
                InputUrl::Rtp(rtp) => rtp.udp.host.clone(),
                InputUrl::Srt(srt) => srt.link.dial().map(|dial| dial.host.clone()).unwrap_or_default(),
                InputUrl::Rtmp(rtmp) => rtmp.dial().map(|dial| dial.host.clone()).unwrap_or_default(),
                InputUrl::Rtsp(rtsp) => rtsp.end.dial().map(|dial| dial.host.clone()).unwrap_or_default(),
                InputUrl::File(_) => String::new(),
            }),
            Id::Output(input, output) => self.store.output(input, output).map(|spec| match &spec.url {
                OutputUrl::Udp(udp) | OutputUrl::Rtp(udp) => udp.host.clone(),
                OutputUrl::Srt(srt) => srt.link.dial().map(|dial| dial.host.clone()).unwrap_or_default(),
                OutputUrl::Rtmp(rtmp) => rtmp.dial.host.clone(),
                OutputUrl::Rtsp(rtsp) => rtsp.end.dial().map(|dial| dial.host.clone()).unwrap_or_default(),
                OutputUrl::Klv(klv) => klv.way.host.clone(),
                OutputUrl::Cot(cot) => match (cot.dial(), cot.way()) {
                    (Some(dial), _) => dial.host.clone(),
                    (None, way) => way.map(|way| way.host.clone()).unwrap_or_default(),
                },
                OutputUrl::File(_) => String::new(),
            }),
        };
        host.unwrap_or_default()
    }

    pub(super) fn note_buffer(&self, input: InputId, requested: usize, granted: usize) {
        let Some(card) = self.board.input(input) else { return };
        let stats = card.card.stats();
        stats.rcvbuf_requested.store(requested as u64, Relaxed);
        stats.rcvbuf_granted.store(granted as u64, Relaxed);
        if granted < requested {
            let message = format!(
                "receive buffer: asked for {requested} bytes, granted {granted}; raise net.core.rmem_max"
            );
            self.log(Id::Input(input), Level::Warning, message);
        }
    }

    pub(super) fn count_neighbour(&mut self, output: OutputId, route: Route, peer: IpAddr) {
        if !route.on_link {
            return self.neighbours.leave(output);
        }
        let used = self.neighbours.join(output, peer);
        let limit = net::neighbour_limit(peer.is_ipv6());
        if used > limit && !std::mem::replace(&mut self.neighbours.warned, true) {
            tracing::warn!(
                used,
                limit,
                "outputs use more on-link neighbours than the kernel's table holds: raise net.ipv4.neigh.default.gc_thresh3"
            );
        }
    }
}

impl Neighbours {
    /// Books an output's neighbour and answers how many different ones are in use.
    fn join(&mut self, output: OutputId, neighbour: IpAddr) -> usize {
        self.leave(output);
        *self.used.entry(neighbour).or_default() += 1;
        self.by_output.insert(output, neighbour);
        self.used.len()
    }

    fn leave(&mut self, output: OutputId) {
        let Some(neighbour) = self.by_output.remove(&output) else { return };
        if let Some(users) = self.used.get_mut(&neighbour) {
            *users -= 1;
            if *users == 0 {
                self.used.remove(&neighbour);
            }
        }
    }
}

fn transform(url: &OutputUrl) -> Option<&crate::wire::ts::FilterSpec> {
    match url {
        OutputUrl::Udp(udp) | OutputUrl::Rtp(udp) => udp.transform.as_ref(),
        OutputUrl::Srt(srt) => srt.transform.as_ref(),
        OutputUrl::Rtmp(_) | OutputUrl::Rtsp(_) | OutputUrl::Klv(_) | OutputUrl::Cot(_) => None,
        OutputUrl::File(file) => file.transform.as_ref(),
    }
}
