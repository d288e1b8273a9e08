//! Time and the other side's handshakes enter; this side's handshakes and what was agreed on leave, where both dial
//! each other at the same time (draft-sharabayko-srt-01, 4.3.2). Never takes part in more than one meeting.

use super::agree::{Agreed, Letter, Opening, PeerClock, Refusal, Secret, check_body, check_opening, respond};
use super::body::{Blocks, Body, Extensions, Kind};
use super::caller::Dial;
use super::{Progress, RETRY};
use crate::wire::srt::crypto::{Kek, KeyMaterial};
use crate::wire::srt::{Control, ControlPacket, Nanos, Packet, Reject, SocketId};

/// One side of a rendezvous that is not connected yet.
///
/// When a packet has brought [`Progress::Connected`] or [`Progress::Refused`], [`Self::poll`] has one more datagram,
/// which tells the other side.
#[derive(Debug)]
pub struct Rendezvous {
    dial: Dial,
    cookie: u32,
    /// The other side's socket id, 0 until it is heard.
    peer: SocketId,
    role: Role,
    due: Nanos,
    ends: Nanos,
    /// What the other side is told last.
    last: Option<Vec<u8>>,
    agreement: Option<Vec<u8>>,
}

#[derive(Debug)]
enum Role {
    /// Nobody was heard.
    Waving,
    /// This side's cookie has won: it asks.
    Initiator(Opening),
    /// This side's cookie has lost: it answers.
    Responder(Answering),
    Ended,
}

#[derive(Debug)]
enum Answering {
    /// The other side's request is awaited.
    Request,
    /// The key for it is derived.
    Key(Box<Asked>),
    /// Its answer is sent until the other side agrees.
    Answered { agreed: Box<Agreed>, blocks: Blocks, field: u16 },
}

#[derive(Debug)]
struct Asked {
    body: Body,
    blocks: Blocks,
    clock: PeerClock,
}

impl Rendezvous {
    /// Begins to wave: [`Self::poll`] has the first datagram at once. `cookie` is random; the draw between the two
    /// sides' cookies decides who asks. libsrt gives a rendezvous ten times a caller's time.
    pub fn new(dial: Dial, cookie: u32, now: Nanos) -> Self {
        let ends = now.saturating_add(dial.timeout);
        Self {
            dial,
            // 0 means none
            cookie: cookie.max(1),
            peer: SocketId(0),
            role: Role::Waving,
            due: now,
            ends,
            last: None,
            agreement: None,
        }
    }

    /// This side's socket id. The other side's first packets go to id 0.
    pub const fn socket(&self) -> SocketId {
        self.dial.local.socket
    }

    /// The next datagram to the other side, if one is due: at once after each step, then every 250 ms.
    pub fn poll(&mut self, now: Nanos) -> Option<Vec<u8>> {
        if let Some(last) = self.last.take() {
            return Some(last);
        }
        if now < self.due || now >= self.ends {
            return None;
        }
        let letter = match &self.role {
            Role::Waving => self.letter(Kind::WaveAHand, (0, &[]), now),
            Role::Initiator(opening) => {
                self.letter(Kind::Conclusion, (opening.field, opening.blocks.0.as_slice()), now)
            }
            Role::Responder(Answering::Answered { field, blocks, .. }) => {
                self.letter(Kind::Conclusion, (*field, &blocks.0), now)
            }
            Role::Responder(_) => self.letter(Kind::Conclusion, (0, &[]), now),
            Role::Ended => return None,
        };
        self.due = now.saturating_add(RETRY);
        Some(letter)
    }

    /// When [`Self::poll`] or [`Self::overdue`] have something to say.
    pub fn next_due(&self) -> Nanos {
        self.due.min(self.ends)
    }

    /// Why nothing came of it, if the time is up.
    pub fn overdue(&self, now: Nanos) -> Option<Refusal> {
        (now >= self.ends && !matches!(self.role, Role::Ended)).then_some(Refusal {
            reject: Reject::TIMEOUT,
            by_peer: false,
            field: None,
        })
    }

    /// What to answer with when the other side repeats its conclusion to a connection that stands: it has missed the
    /// last word. `None` where the last word was its own.
    pub fn agreement(&self) -> Option<&[u8]> {
        self.agreement.as_deref()
    }

    /// Takes a packet from the other side's address. What is none of this meeting changes nothing.
    pub fn handle(&mut self, packet: &Packet<'_>, now: Nanos) -> Progress {
        let (timestamp, destination, bytes) = match packet {
            Packet::Control(ControlPacket { timestamp, destination, control: Control::Handshake(bytes) }) => {
                (*timestamp, *destination, *bytes)
            }
            // The other side counts the connection as made, and its agreement was lost.
            Packet::Data(header, _) if header.destination == self.dial.local.socket => return self.settled(),
            Packet::Control(ControlPacket {
                destination,
                control: Control::KeepAlive | Control::Ack(_) | Control::User(..),
                ..
            }) if *destination == self.dial.local.socket => return self.settled(),
            Packet::Control(ControlPacket { destination, control: Control::Shutdown, .. })
                if *destination == self.dial.local.socket && !matches!(self.role, Role::Ended) =>
            {
                let asked_with_keys =
                    matches!(&self.role, Role::Initiator(opening) if opening.key_length().is_some());
                return self.refuse(Refusal::unexplained(asked_with_keys), now);
            }
            _ => return Progress::Waiting,
        };
        if destination != SocketId(0) && destination != self.dial.local.socket {
            return Progress::Waiting;
        }
        let Some((body, rest)) = Body::parse(bytes) else { return Progress::Waiting };
        let clock = PeerClock { at: now, timestamp };
        self.step(&body, rest, clock).unwrap_or_else(|refusal| self.refuse(refusal, now))
    }

    /// Goes on after [`Progress::Derive`], with the key for the salt that was asked for.
    pub fn adopt(&mut self, kek: &Kek, now: Nanos) -> Progress {
        let Role::Responder(Answering::Key(asked)) = &self.role else { return Progress::Waiting };
        match self.answer(&asked.body, &asked.blocks.0, asked.clock, Some(kek)) {
            Ok(answered) => {
                self.role = Role::Responder(answered);
                self.due = now;
                Progress::Waiting
            }
            Err(refusal) => self.refuse(refusal, now),
        }
    }

    fn step(&mut self, body: &Body, rest: &[u8], clock: PeerClock) -> Result<Progress, Refusal> {
        if matches!(self.role, Role::Ended) {
            return Ok(Progress::Waiting);
        }
        match body.kind {
            Kind::Rejection(reject) => return Err(Refusal::theirs(reject)),
            Kind::Induction => {
                return Err(Refusal::ours(Reject::ROGUE, "induction, which is a caller's: no rendezvous"));
            }
            Kind::Other(_) => return Ok(Progress::Waiting),
            Kind::Agreement => return Ok(self.settled()),
            Kind::WaveAHand | Kind::Conclusion => {}
        }
        if body.version != 5 {
            return Err(Refusal::ours(Reject::VERSION, "handshake version"));
        }
        check_body(body)?;
        self.meet(body)?;
        self.due = clock.at;
        if body.kind == Kind::WaveAHand || body.extension == 0 {
            return Ok(Progress::Waiting);
        }
        let all = Extensions::parse(rest).map_err(|(reject, field)| Refusal::ours(reject, field))?;
        match &self.role {
            Role::Initiator(opening) => {
                let Dial { settings, local, stream_id, group, offer, .. } = &self.dial;
                let terms = opening.conclude(settings, offer.as_ref(), *group, &all)?;
                let mut agreed = terms.agreed(settings, *local, body, clock)?;
                agreed.stream_id = stream_id.clone();
                let agreement = self.letter(Kind::Agreement, (0, &[]), clock.at);
                self.last = Some(agreement.clone());
                self.agreement = Some(agreement);
                self.role = Role::Ended;
                Ok(Progress::Connected(Box::new(agreed)))
            }
            Role::Responder(Answering::Request) => {
                check_opening(&self.dial.settings, &all)?;
                let salt = all
                    .key_request
                    .filter(|_| self.dial.offer.is_some())
                    .and_then(|message| KeyMaterial::parse(message).ok())
                    .map(|material| material.salt);
                match salt {
                    Some(salt) => {
                        let asked = Asked { body: *body, blocks: Blocks(rest.to_vec()), clock };
                        self.role = Role::Responder(Answering::Key(Box::new(asked)));
                        Ok(Progress::Derive(salt))
                    }
                    None => {
                        self.role = Role::Responder(self.answer(body, rest, clock, None)?);
                        Ok(Progress::Waiting)
                    }
                }
            }
            // a repeat: the answer is on its way, or sent again at once
            Role::Responder(_) | Role::Waving | Role::Ended => Ok(Progress::Waiting),
        }
    }

    /// The other side is heard: the cookies say who asks.
    fn meet(&mut self, body: &Body) -> Result<(), Refusal> {
        if !matches!(self.role, Role::Waving) {
            return Ok(());
        }
        self.peer = body.socket;
        let Dial { settings, stream_id, group, offer, .. } = &self.dial;
        self.role = if wins(self.cookie, body.cookie).ok_or(Refusal::ours(Reject::COOKIE, "cookie"))? {
            let advertised = body.key_length();
            Role::Initiator(Opening::new(settings, offer.as_ref(), advertised, stream_id.as_ref(), *group))
        } else {
            Role::Responder(Answering::Request)
        };
        Ok(())
    }

    fn answer(
        &self,
        body: &Body,
        blocks: &[u8],
        clock: PeerClock,
        kek: Option<&Kek>,
    ) -> Result<Answering, Refusal> {
        let all = Extensions::parse(blocks).map_err(|(reject, field)| Refusal::ours(reject, field))?;
        let Dial { settings, local, group, offer, .. } = &self.dial;
        let secret = if offer.is_some() { Secret::Passphrase(kek) } else { Secret::None };
        let (terms, blocks, field) = respond(settings, secret, *group, &all)?;
        let agreed = Box::new(terms.agreed(settings, *local, body, clock)?);
        Ok(Answering::Answered { agreed, blocks, field })
    }

    /// The other side has agreed to the answer, if there is one.
    fn settled(&mut self) -> Progress {
        match std::mem::replace(&mut self.role, Role::Ended) {
            Role::Responder(Answering::Answered { agreed, .. }) => Progress::Connected(agreed),
            role => {
                self.role = role;
                Progress::Waiting
            }
        }
    }

    fn refuse(&mut self, refusal: Refusal, now: Nanos) -> Progress {
        self.role = Role::Ended;
        if !refusal.by_peer {
            self.last = Some(self.letter(Kind::Rejection(refusal.reject), (0, &[]), now));
        }
        Progress::Refused(refusal)
    }

    fn letter(&self, kind: Kind, extensions: (u16, &[u8]), now: Nanos) -> Vec<u8> {
        let Dial { settings, local, to, offer, .. } = &self.dial;
        Letter {
            settings,
            local: *local,
            to: *to,
            destination: self.peer,
            version: 5,
            kind,
            cookie: self.cookie,
            encryption: settings.key_length.filter(|_| offer.is_some()),
        }
        .write(extensions, now)
    }
}

/// Whether the side with the cookie `ours` asks; `None` for a draw. libsrt takes the difference of the two as signed
/// numbers of 64 bits and looks at its bit 31, so that is what decides.
const fn wins(ours: u32, theirs: u32) -> Option<bool> {
    let (ours, theirs) = (ours as i32 as i64, theirs as i32 as i64);
    const SIGN: i64 = 1 << 31;
    if ours == theirs {
        return None;
    }
    if (ours - theirs) & SIGN == 0 {
        return Some(true);
    }
    Some((theirs - ours) & SIGN != 0 && ours > theirs)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_secured, dial, offer, packet, passphrase};
    use super::*;
    use crate::wire::srt::crypto::{Cipher, KeyLength, derive};
    use crate::wire::srt::{Seq, StreamId};

    const MS: Nanos = 1_000_000;
    const SECRET: &str = "open sesame!";

    struct Side {
        machine: Rendezvous,
        secret: Option<&'static str>,
        agreed: Option<Agreed>,
        refused: Option<Refusal>,
        /// Milliseconds that deriving a key takes.
        derives: Nanos,
        adopts: Option<(Nanos, [u8; 16])>,
    }

    fn side(id: u32, cookie: u32, secret: Option<&'static str>, now: Nanos) -> Side {
        let mut dial = Dial { offer: secret.map(offer), timeout: 10_000 * MS, ..dial() };
        (dial.local.socket, dial.local.first) = (SocketId(id), Seq::new(1000 * id));
        dial.stream_id = StreamId::new(format!("from {id}").as_bytes()).ok();
        let machine = Rendezvous::new(dial, cookie, now);
        Side { machine, secret, agreed: None, refused: None, derives: 0, adopts: None }
    }

    impl Side {
        fn take(&mut self, progress: Progress, now: Nanos) {
            match progress {
                Progress::Waiting => {}
                Progress::Derive(salt) => self.adopts = Some((now + self.derives * MS, salt)),
                Progress::Connected(agreed) => self.agreed = Some(*agreed),
                Progress::Refused(refusal) => self.refused = Some(refusal),
            }
        }

        fn is_over(&self) -> bool {
            self.agreed.is_some() || self.refused.is_some()
        }

        /// What a connection does once it stands: answers a repeated conclusion, and keeps itself alive.
        fn stands(&self, datagram: &[u8]) -> Option<Vec<u8>> {
            let Packet::Control(ControlPacket { control: Control::Handshake(body), .. }) = packet(datagram)
            else {
                return None;
            };
            let (body, _) = Body::parse(body)?;
            (body.kind == Kind::Conclusion).then(|| self.machine.agreement().map(<[u8]>::to_vec))?
        }
    }

    /// Lets both run, one way taking 15 ms, the second starting `later`; `lost(n)` loses the datagram n.
    fn meet(sides: &mut [Side; 2], later: Nanos, lost: impl Fn(u32) -> bool) {
        let mut flying: Vec<(Nanos, usize, Vec<u8>)> = Vec::new();
        let mut count = 0;
        for now in (0..9_000).map(|ms| ms * MS) {
            for at in [0, 1] {
                if at == 1 && now < later {
                    continue;
                }
                let mut sent = Vec::new();
                while let Some(place) = flying.iter().position(|(due, to, _)| *due <= now && *to == at) {
                    let (_, _, datagram) = flying.remove(place);
                    if sides[at].agreed.is_some() {
                        sent.extend(sides[at].stands(&datagram));
                        continue;
                    }
                    let progress = sides[at].machine.handle(&packet(&datagram), now);
                    sides[at].take(progress, now);
                }
                if let Some((_, salt)) = sides[at].adopts.take_if(|(due, _)| *due <= now) {
                    let kek = derive(&passphrase(sides[at].secret.unwrap()), salt);
                    let progress = sides[at].machine.adopt(&kek, now);
                    sides[at].take(progress, now);
                }
                sent.extend(sides[at].machine.poll(now));
                for datagram in sent {
                    count += 1;
                    if !lost(count - 1) {
                        flying.push((now + 15 * MS, 1 - at, datagram));
                    }
                }
            }
            if sides.iter().all(Side::is_over) && flying.is_empty() {
                return;
            }
        }
    }

    fn assert_met(sides: &[Side; 2], secret: Option<&str>) {
        let [one, other] = sides.each_ref().map(|side| side.agreed.as_ref().expect("connected"));
        assert_eq!((one.local, one.peer), (other.peer, other.local));
        assert_eq!((one.first_sent, one.first_received), (other.first_received, other.first_sent));
        // the side that asks says what for
        assert_eq!(one.stream_id, other.stream_id);
        if secret.is_some() {
            assert_secured(one, other, Cipher::Ctr, KeyLength::Aes128);
        }
        let agreements = sides.iter().filter(|side| side.machine.agreement().is_some()).count();
        assert_eq!(agreements, 1, "one side has the last word");
    }

    #[test]
    fn two_sides_meet_whoever_starts_and_wins() {
        for secret in [None, Some(SECRET)] {
            for cookies in [(5, 3), (3, 5), (0x8000_0000, 5)] {
                for later in [0, 1, 100, 700].map(|ms| ms * MS) {
                    let mut sides = [side(1, cookies.0, secret, 0), side(2, cookies.1, secret, later)];
                    meet(&mut sides, later, |_| false);
                    assert_met(&sides, secret);
                }
            }
        }
    }

    #[test]
    fn any_lost_datagram_is_made_up_for() {
        for secret in [None, Some(SECRET)] {
            for cookies in [(5, 3), (3, 5)] {
                for mask in 0..1 << 8_u32 {
                    let mut sides = [side(1, cookies.0, secret, 0), side(2, cookies.1, secret, 20 * MS)];
                    meet(&mut sides, 20 * MS, |n| mask >> n & 1 == 1);
                    assert_met(&sides, secret);
                }
            }
        }
    }

    #[test]
    fn deriving_may_take_its_time() {
        for cookies in [(5, 3), (3, 5)] {
            let mut sides = [side(1, cookies.0, Some(SECRET), 0), side(2, cookies.1, Some(SECRET), 0)];
            sides.iter_mut().for_each(|side| side.derives = 900);
            meet(&mut sides, 0, |_| false);
            assert_met(&sides, Some(SECRET));
        }
    }

    #[test]
    fn passphrases_that_differ_end_the_meeting_on_both_sides() {
        for (ours, theirs, reject) in [
            (Some(SECRET), Some("open barley!"), Reject::BAD_SECRET),
            (Some(SECRET), None, Reject::UNSECURE),
            (None, Some(SECRET), Reject::UNSECURE),
        ] {
            let mut sides = [side(1, 5, ours, 0), side(2, 3, theirs, 0)];
            meet(&mut sides, 0, |_| false);
            for (at, by_peer) in [(0, true), (1, false)] {
                let refusal = sides[at].refused.expect("refused");
                assert_eq!((refusal.reject, refusal.by_peer), (reject, by_peer));
            }
        }
    }

    #[test]
    fn equal_cookies_are_a_draw() {
        let mut sides = [side(1, 7, None, 0), side(2, 7, None, 0)];
        meet(&mut sides, 0, |_| false);
        assert!(
            sides.iter().all(|side| side.refused.is_some_and(|refusal| refusal.reject == Reject::COOKIE))
        );
    }

    #[test]
    fn a_side_that_hears_nobody_gives_up() {
        let mut side = side(1, 7, None, 0);
        let (mut now, mut sent) = (0, 0);
        while side.machine.overdue(now).is_none() {
            sent += u32::from(side.machine.poll(now).is_some());
            now = side.machine.next_due();
        }
        assert_eq!((now, sent), (10_000 * MS, 40));
    }

    #[test]
    fn data_stands_for_a_lost_agreement() {
        let mut sides = [side(1, 5, None, 0), side(2, 3, None, 0)];
        // the initiator is told to be connected and never heard again
        let [initiator, responder] = &mut sides;
        for datagram in [initiator.machine.poll(0).unwrap(), initiator.machine.poll(250 * MS).unwrap()] {
            let progress = responder.machine.handle(&packet(&datagram), 300 * MS);
            assert!(matches!(progress, Progress::Waiting));
        }
        let keep_alive = |to: u32| [&[0x80, 1][..], &[0; 10], &to.to_be_bytes(), &[0; 4]].concat();
        assert!(matches!(responder.machine.handle(&packet(&keep_alive(2)), 300 * MS), Progress::Waiting));
        let empty = responder.machine.poll(300 * MS).unwrap();
        initiator.machine.handle(&packet(&empty), 301 * MS);
        let request = initiator.machine.poll(301 * MS).unwrap();
        responder.machine.handle(&packet(&request), 302 * MS);
        assert!(matches!(responder.machine.handle(&packet(&keep_alive(9)), 303 * MS), Progress::Waiting));
        assert!(matches!(
            responder.machine.handle(&packet(&keep_alive(2)), 303 * MS),
            Progress::Connected(_)
        ));
    }

    /// libsrt 1.5.1 sends no code when the passphrases differ.
    #[test]
    fn a_shutdown_in_place_of_an_answer_is_a_refusal() {
        let shutdown = |to: u32| [&[0x80, 5][..], &[0; 10], &to.to_be_bytes(), &[0; 4]].concat();
        for (secret, reject) in [(None, Reject::CLOSE), (Some(SECRET), Reject::BAD_SECRET)] {
            let (mut initiator, mut other) = (side(1, 5, secret, 0), side(2, 3, secret, 0));
            initiator.machine.handle(&packet(&other.machine.poll(0).unwrap()), 0);
            let strange = initiator.machine.handle(&packet(&shutdown(7)), 0);
            assert!(matches!(strange, Progress::Waiting));
            let Progress::Refused(refusal) = initiator.machine.handle(&packet(&shutdown(1)), 0) else {
                panic!()
            };
            assert_eq!((refusal.reject, refusal.by_peer), (reject, true));
            assert_eq!(initiator.machine.poll(1000 * MS), None);
        }
    }

    #[test]
    fn a_caller_is_no_partner() {
        let mut side = side(1, 5, None, 0);
        let induction = super::super::Caller::new(dial(), 0).poll(0).unwrap();
        let Progress::Refused(refusal) = side.machine.handle(&packet(&induction), 0) else { panic!() };
        assert_eq!((refusal.reject, refusal.by_peer), (Reject::ROGUE, false));
        let farewell = side.machine.poll(0).expect("the other side is told");
        assert_eq!((farewell.len(), side.machine.poll(1000 * MS)), (64, None));
    }

    #[test]
    fn one_of_two_cookies_wins() {
        let cookies =
            [1, 2, 77, 0x7FFF_FFFF, 0x8000_0000, 0x8000_0001, 0xFFFF_FFFF, 0x4000_0000, 0xC000_0000];
        for ours in cookies {
            for theirs in cookies {
                match (wins(ours, theirs), wins(theirs, ours)) {
                    (None, None) => assert_eq!(ours, theirs),
                    (Some(here), Some(there)) => assert_ne!(here, there, "{ours:x} {theirs:x}"),
                    _ => panic!("a draw for one side only: {ours:x} {theirs:x}"),
                }
            }
        }
        assert_eq!(wins(5, 3), Some(true));
    }
}
