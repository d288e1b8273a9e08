//! Peers that dial in: datagrams to nobody enter, sessions of a listening port and answers leave.

use std::net::SocketAddr;
use std::sync::Arc;

use super::bonds::group_id;
use super::{Derivation, Port, Ports};
use crate::media::Nanos;
use crate::net::clock;
use crate::port::listener::{Admitted, Doors, Knock, TurnedAway};
use crate::port::outbox::Addressee;
use crate::port::session::{Dialler, End, Membership, Session, Stage, Visit};
use crate::port::{NoticeKind, Owner, Role};
use crate::telemetry::{self, SessionList, SrtStats, Transport, next_session};
use crate::wire::srt::Reject;
use crate::wire::srt::crypto::Kek;
use crate::wire::srt::handshake::Request;

impl Ports {
    pub(super) fn knocked(&mut self, index: usize, from: SocketAddr, datagram: &[u8], now: Nanos) {
        let Some(Some(port)) = self.ports.get_mut(index) else { return };
        let Some(doors) = &mut port.doors else { return self.waved(index, from, datagram, now) };
        let mut knock = doors.knock(from, datagram, now);
        if let Knock::Request(request) = knock {
            // The same request again: it is given the same answer again.
            if let Some(visit) = port
                .visits
                .get(&(from, request.peer))
                .and_then(|&at| self.sessions.get(at)?.as_ref()?.visit.as_ref())
            {
                return self.reply(index, from, &visit.answer.clone());
            }
            knock = doors.judge(request);
        }
        match knock {
            Knock::None => {}
            Knock::Answer(answer) => self.reply(index, from, &answer),
            Knock::TurnedAway(TurnedAway { owner, text, answer }) => {
                self.reply(index, from, &answer);
                self.tell_route(index, owner, text, now);
            }
            Knock::Derive(request, passphrase, salt) => {
                let asked = self.deriver.as_ref().is_some_and(|deriver| {
                    deriver.ask(Derivation::Request(index, request.clone()), passphrase, salt)
                });
                if !asked && let Some(Some(Port { doors: Some(doors), .. })) = self.ports.get_mut(index) {
                    doors.give_up(&request);
                }
            }
            Knock::Request(request) => self.let_in(index, &request, None, now),
        }
    }

    /// The first packets of a rendezvous do not know our number yet.
    fn waved(&mut self, index: usize, from: SocketAddr, datagram: &[u8], now: Nanos) {
        let awaits = |session: &Option<Session>| {
            session.as_ref().is_some_and(|session| {
                session.port == index
                    && session.peer == from
                    && matches!(&session.stage, Stage::Dialling(dialling)
                        if matches!(dialling.dialler, Dialler::Rendezvous(_)))
            })
        };
        let Some(at) = self.sessions.iter().position(awaits) else { return };
        let Some(Some(session)) = self.sessions.get_mut(at) else { return };
        let reaction = session.handle(datagram, now);
        self.react(at, reaction, now);
    }

    pub(super) fn derived(&mut self, of: Derivation, kek: &Kek, now: Nanos) {
        match of {
            Derivation::Request(port, request) => self.let_in(port, &request, Some(kek), now),
            Derivation::Session(index, id) => {
                let Some(Some(session)) = self.sessions.get_mut(index) else { return };
                if session.local == id {
                    let reaction = session.adopt(index, kek, &mut self.outbox, now);
                    let port = session.port;
                    self.post(port);
                    self.react(index, reaction, now);
                    self.answer_touched(now);
                }
            }
        }
    }

    /// Makes a session out of a request, or turns it away.
    pub(super) fn let_in(&mut self, index: usize, request: &Request, kek: Option<&Kek>, now: Nanos) {
        let id = self.free_id(index);
        let Some(Some(port)) = self.ports.get_mut(index) else { return };
        let Some(doors) = &mut port.doors else { return };
        if port.visits.contains_key(&(request.from, request.peer)) {
            return doors.give_up(request);
        }
        let (gatherings, fresh) = (&self.gatherings, group_id());
        let mirror = |owner, group| {
            let mut known = gatherings.iter().flatten();
            known.find(|gathering| gathering.is(owner, group)).map_or(fresh, |gathering| gathering.id)
        };
        let Admitted { place, agreed, answer } = match doors.admit(request, kek, id, mirror, now) {
            Ok(admitted) => admitted,
            Err(TurnedAway { owner, text, answer }) => {
                self.reply(index, request.from, &answer);
                return self.tell_route(index, owner, text, now);
            }
        };
        let route = &doors.routes[place];
        let (owner, attempt, replace, mut max) =
            (route.owner, route.attempt, route.replace, route.max_sessions);
        let (role, conduct, passphrase) = (route.role.clone(), route.conduct, route.passphrase.clone());
        let of = role.clone();
        let list = sessions_of(&of);
        let (user, stream_id) = Doors::describe(request);
        let id_of_card = next_session();
        let stats = Arc::<SrtStats>::default();
        let session = telemetry::Session::new(
            id_of_card,
            request.from,
            user,
            stream_id.clone(),
            "srt_listener",
            clock::wall(),
            Transport::Srt(Arc::clone(&stats)),
        );
        let known = request
            .group
            .and_then(|group| self.gatherings.iter().flatten().find(|gathering| gathering.is(owner, group)));
        if let Some(gathering) = known {
            // One more link of a publisher that is here already.
            max = if gathering.links.len() < LINKS_MOST { usize::MAX } else { list.len() };
        } else if list.len() >= max && replace {
            self.make_room(list, &format!("{} takes its place", request.from), now);
        }
        let Ok(card) = list.add(session, max) else {
            let text = format!("turned {} away: all {max} sessions are taken", request.from.ip());
            let answer = request.reject(Reject::OVERLOAD);
            self.reply(index, request.from, &answer);
            return self.tell_route(index, Some(owner), text, now);
        };
        let stage = match Stage::agreed(agreed, role, conduct, passphrase, &stats, now) {
            Ok(stage) => stage,
            Err(end) => {
                list.remove(card.id);
                self.reply(index, request.from, &request.reject(Reject::RESOURCE));
                let text = format!("turned {} away: {}", request.from.ip(), end.reason);
                return self.tell_route(index, Some(owner), text, now);
            }
        };
        self.reply(index, request.from, &answer);
        if let Role::Receive(drain) = &of {
            drain.stats.srt.show(Some(Arc::clone(&stats)));
        }
        let mut session = Session::new((owner, attempt), (index, id, request.from), stage, stats);
        let visit = Visit { card, asked_as: request.peer, answer };
        session.visit = Some(Box::new(visit));
        let at = self.admit(session);
        if let Some(Some(port)) = self.ports.get_mut(index) {
            port.visits.insert((request.from, request.peer), at);
        }
        if let (Some(group), Role::Receive(drain)) = (request.group, &of) {
            let gathering = self.gather(owner, group, fresh, drain);
            self.join(gathering, at, group.weight);
        }
        self.begin(at, now);
        let what = if stream_id.is_empty() { String::new() } else { format!(" for {stream_id}") };
        self.tell(owner, attempt, NoticeKind::Peer(format!("{} dialled in{what}", request.from)));
    }

    /// Ends the oldest session of a list, and where it is a link of a group all links of that.
    fn make_room(&mut self, list: &SessionList, why: &str, now: Nanos) {
        let Some(oldest) = list.all().first().map(|card| card.id) else { return };
        let is = |session: &Session| session.visit.as_ref().is_some_and(|visit| visit.card.id == oldest);
        let Some(old) = self.sessions.iter().position(|s| s.as_ref().is_some_and(is)) else { return };
        let links = match self.sessions[old].as_ref().map(|session| session.membership) {
            Some(Membership::Receives(group)) => match self.gatherings.get(group) {
                Some(Some(gathering)) => gathering.links.iter().map(|link| link.session).collect(),
                _ => vec![old],
            },
            _ => vec![old],
        };
        links.into_iter().for_each(|link| self.end(link, &End::lost(why), now));
    }

    /// Sends one datagram to somebody who has no session.
    pub(super) fn reply(&mut self, index: usize, to: SocketAddr, datagram: &[u8]) {
        let Some(Some(port)) = self.ports.get(index) else { return };
        let addressee = Addressee { session: usize::MAX, to, segmented: false };
        self.outbox.raw(addressee, datagram);
        let posted = self.outbox.post(&port.socket);
        self.settle(index, posted);
    }

    /// Tells the owner of a route, or everybody on the port, about one who was turned away.
    fn tell_route(&mut self, index: usize, owner: Option<Owner>, text: String, now: Nanos) {
        let Some(Some(Port { doors: Some(doors), .. })) = self.ports.get_mut(index) else { return };
        let Some(text) = doors.complain(text, now) else { return };
        let Some(Some(Port { doors: Some(doors), .. })) = self.ports.get(index) else { return };
        for route in doors.routes.iter().filter(|route| owner.is_none_or(|owner| owner == route.owner)) {
            self.tell(route.owner, route.attempt, NoticeKind::Peer(text.clone()));
        }
    }
}

fn sessions_of(role: &Role) -> &SessionList {
    match role {
        Role::Send(source) => &source.stats.sessions,
        Role::Receive(drain) => &drain.stats.sessions,
    }
}

/// Links of one publisher at the most.
const LINKS_MOST: usize = 16;
