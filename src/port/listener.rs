//! A listening port: handshakes of anybody enter; requests that found their input or output leave, with what is agreed
//! to. Keeps nothing for a peer that has not proven its address.

use std::net::SocketAddr;

use super::{Listen, Owner, Role};
use crate::media::Nanos;
use crate::wire::srt::crypto::{Kek, Passphrase, SALT};
use crate::wire::srt::handshake::{
    Acceptance, Agreed, CookieSecret, Group, GroupKind, Heard, Listener, Request, Secret, Settings,
};
use crate::wire::srt::{Ask, AskMode, Packet, Reject, SocketId};

/// Who is served on a port, and the machine that answers there.
pub(super) struct Doors {
    listener: Listener,
    pub(super) routes: Vec<Listen>,
    /// Requests whose keys are being derived, by their sender.
    deriving: Vec<(SocketAddr, SocketId)>,
    complaints: Complaints,
}

/// How many lines about those turned away may still be told, as of a moment, and how many were not.
struct Complaints {
    left: u64,
    at: Nanos,
    untold: u64,
}

/// What came of a datagram to nobody.
pub(super) enum Knock {
    /// Nothing.
    None,
    /// Send this back.
    Answer(Vec<u8>),
    /// Send this back; the owner may want to hear why.
    TurnedAway(TurnedAway),
    /// Derive the key, then [`Doors::admit`].
    Derive(Box<Request>, Passphrase, [u8; SALT]),
    /// Let it in.
    Request(Box<Request>),
}

/// A request that is agreed to.
pub(super) struct Admitted {
    /// Index of the route.
    pub(super) place: usize,
    pub(super) agreed: Agreed,
    pub(super) answer: Vec<u8>,
}

/// A request that is not.
pub(super) struct TurnedAway {
    /// Who was asked for, where that is known.
    pub(super) owner: Option<Owner>,
    /// Why, in words.
    pub(super) text: String,
    pub(super) answer: Vec<u8>,
}

/// Why a request finds no route.
struct Refused {
    owner: Option<Owner>,
    reject: Reject,
    why: String,
}

impl Doors {
    pub(super) fn new(cookie: CookieSecret, now: Nanos) -> Self {
        Self {
            listener: Listener::new(Settings::default(), cookie, now),
            routes: Vec::new(),
            deriving: Vec::new(),
            complaints: Complaints { left: COMPLAINTS, at: now, untold: 0 },
        }
    }

    /// Serves one more.
    pub(super) fn open(&mut self, route: Listen) {
        self.routes.push(route);
        self.advertise();
    }

    /// Serves this owner no more.
    pub(super) fn shut(&mut self, owner: Owner) {
        self.routes.retain(|route| route.owner != owner);
        self.advertise();
    }

    /// A peer learns the key length before it says whom it asks for: the longest is short enough for nobody here.
    fn advertise(&mut self) {
        let lengths = self.routes.iter().filter_map(|route| route.settings.key_length);
        self.listener.advertise(lengths.max());
    }

    /// Takes a datagram for socket id 0.
    pub(super) fn knock(&mut self, from: SocketAddr, datagram: &[u8], now: Nanos) -> Knock {
        let Ok(packet) = Packet::parse(datagram) else { return Knock::None };
        match self.listener.handle(from, &packet, now) {
            Heard::Ignored => Knock::None,
            Heard::Answer(answer) => Knock::Answer(answer),
            Heard::Refused(refusal, answer) => {
                let text = format!("turned {} away: {refusal}", from.ip());
                Knock::TurnedAway(TurnedAway { owner: None, text, answer })
            }
            Heard::Request(request) => Knock::Request(request),
        }
    }

    /// Finds who is asked for, and what is still needed.
    pub(super) fn judge(&mut self, request: Box<Request>) -> Knock {
        let turned_away = |refused: &Refused| {
            let text = format!("turned {} away: {}", request.from.ip(), refused.why);
            let answer = request.reject(refused.reject);
            Knock::TurnedAway(TurnedAway { owner: refused.owner, text, answer })
        };
        let route = match self.route(&request) {
            Ok(route) => route,
            Err(refused) => return turned_away(&refused),
        };
        let owner = Some(route.owner);
        if let Some(group) = request.group {
            let why = match (&route.role, group.kind) {
                (Role::Send(_), _) => "it wants to read over a connection group, which only publishers may",
                (_, GroupKind::Other(_)) => "it is a link of a connection group of an unknown kind",
                _ if !route.groups => "it is a link of a connection group, which this input does not take",
                _ => "",
            };
            if !why.is_empty() {
                return turned_away(&Refused { owner, reject: Reject::GROUP, why: why.into() });
            }
        }
        let strength = request.encryption.and_then(|ask| ask.strength);
        if let (Some(_), Some(least), Some((_, length))) =
            (&route.passphrase, route.settings.key_length, strength)
            && length < least
        {
            let why = format!(
                "its key of {} bytes is shorter than pbkeylen={} asks for",
                length as u8, least as u8
            );
            return turned_away(&Refused { owner, reject: Reject::CRYPTO, why });
        }
        let salt = request.encryption.and_then(|ask| ask.salt);
        match (&route.passphrase, salt) {
            (Some(passphrase), Some(salt)) => {
                let who = (request.from, request.peer);
                let of_host = self.deriving.iter().filter(|(from, _)| from.ip() == who.0.ip()).count();
                if self.deriving.contains(&who)
                    || of_host >= DERIVING_OF_HOST
                    || self.deriving.len() >= DERIVING_MOST
                {
                    return Knock::None;
                }
                let passphrase = passphrase.clone();
                self.deriving.push(who);
                Knock::Derive(request, passphrase, salt)
            }
            _ => Knock::Request(request),
        }
    }

    /// Agrees to a request, whose key is derived where it needs one. `socket` is the id of the new session; `mirror`
    /// names our end of a connection group of that owner.
    pub(super) fn admit(
        &mut self,
        request: &Request,
        kek: Option<&Kek>,
        socket: SocketId,
        mirror: impl FnOnce(Owner, Group) -> u32,
        now: Nanos,
    ) -> Result<Admitted, TurnedAway> {
        self.deriving.retain(|&who| who != (request.from, request.peer));
        let place = match self.place(request) {
            Ok(place) => place,
            Err(refused) => {
                let text = format!("turned {} away: {}", request.from.ip(), refused.why);
                return Err(TurnedAway {
                    owner: refused.owner,
                    text,
                    answer: request.reject(refused.reject),
                });
            }
        };
        let route = &self.routes[place];
        let secret = match &route.passphrase {
            None => Secret::None,
            Some(_) => Secret::Passphrase(kek),
        };
        let group = request.group.map(|group| Group { id: mirror(route.owner, group), ..group });
        let how = Acceptance { settings: &route.settings, socket, secret, group };
        match request.accept(&how, now) {
            Ok((agreed, answer)) => Ok(Admitted { place, agreed, answer }),
            Err((refusal, answer)) => {
                let text = format!("turned {} away: {refusal}", request.from.ip());
                Err(TurnedAway { owner: Some(route.owner), text, answer })
            }
        }
    }

    /// A derivation that will not be done.
    pub(super) fn give_up(&mut self, request: &Request) {
        self.deriving.retain(|&who| who != (request.from, request.peer));
    }

    /// The line about one who was turned away, if it is to be told: a flood of them tells nobody more than a few do,
    /// and would drive out what else there is to tell.
    pub(super) fn complain(&mut self, text: String, now: Nanos) -> Option<String> {
        let of = &mut self.complaints;
        let more = now.saturating_sub(of.at) / COMPLAINT_EVERY;
        of.left = (of.left + more).min(COMPLAINTS);
        of.at += more * COMPLAINT_EVERY;
        if of.left == 0 {
            of.untold += 1;
            return None;
        }
        of.left -= 1;
        match std::mem::take(&mut of.untold) {
            0 => Some(text),
            untold => Some(format!("{text} ({untold} more were turned away before)")),
        }
    }

    /// Who gave a request, without its password.
    pub(super) fn describe(request: &Request) -> (Option<Box<str>>, Box<str>) {
        let Some(id) = &request.stream_id else { return (None, "".into()) };
        match id.ask() {
            Ok(Ask { resource, user, mode, .. }) => {
                let mode = match mode {
                    Some(AskMode::Publish) => "publish:",
                    Some(AskMode::Request) => "read:",
                    _ => "",
                };
                (user.map(Into::into), format!("{mode}{}", resource.unwrap_or_default()).into())
            }
            Err(_) => (None, "".into()),
        }
    }

    fn route(&self, request: &Request) -> Result<&Listen, Refused> {
        self.place(request).map(|place| &self.routes[place])
    }

    fn place(&self, request: &Request) -> Result<usize, Refused> {
        let refuse = |owner, reject, why: &str| Refused { owner, reject, why: why.into() };
        let ask = match &request.stream_id {
            None => Ask::default(),
            Some(id) => id.ask().map_err(|bad| refuse(None, Reject::BAD_REQUEST, &bad.to_string()))?,
        };
        let reads = |route: &Listen| matches!(route.role, Role::Send(_));
        let fits = |route: &Listen| match ask.mode {
            Some(AskMode::Publish) => !reads(route),
            Some(AskMode::Request) => reads(route),
            Some(AskMode::Bidirectional) => false,
            None => true,
        };
        if ask.mode == Some(AskMode::Bidirectional) {
            return Err(refuse(None, Reject::BAD_MODE, "it wants to send and receive at once"));
        }
        let named = |route: &&(usize, &Listen)| match (&route.1.name, ask.resource) {
            (Some(name), Some(asked)) => **name == *asked,
            _ => false,
        };
        let fitting: Vec<(usize, &Listen)> =
            self.routes.iter().enumerate().filter(|(_, r)| fits(r)).collect();
        let found = fitting
            .iter()
            // A bare name asks to read, where both exist.
            .filter(|route| named(route))
            .max_by_key(|route| reads(route.1))
            .or_else(|| match (&*fitting, ask.resource) {
                // A port with one tenant needs no name.
                ([only], None) => Some(only),
                ([only], Some(_)) if only.1.name.is_none() => Some(only),
                _ => None,
            });
        let Some(&(place, route)) = found else {
            let why = match ask.resource {
                Some(name) => format!("nothing of the name {} is here for it", quoted(name)),
                None => {
                    "it does not say what it wants (stream id), and there is more than one thing here".into()
                }
            };
            return Err(refuse(None, Reject::NOT_FOUND, &why));
        };
        if let Some((user, password)) = &route.login
            && !(ask.user == Some(user)
                && ask.password.is_some_and(|p| equal(p.as_bytes(), password.as_bytes())))
        {
            return Err(refuse(Some(route.owner), Reject::UNAUTHORIZED, "wrong or missing user or password"));
        }
        Ok(place)
    }
}

/// What a stranger wrote, for a line of a log: what is no letter of a line is escaped, and it ends somewhere, at the
/// latest where a password may stand that was written in a form of others.
fn quoted(name: &str) -> String {
    let plain = name.split([':', '?', '=', '@', ',', ';', '&']).next().unwrap_or_default();
    let mut short: String = plain.chars().take(NAME_MOST).collect();
    if short.len() < name.len() {
        short.push('…');
    }
    format!("{short:?}")
}

/// In a time that does not depend on where they differ.
fn equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

/// Letters of a name that a line shows.
const NAME_MOST: usize = 64;
/// Requests of one port whose keys are being derived.
const DERIVING_MOST: usize = 512;
/// Of these, those of one address: who floods the port with requests keeps nobody else waiting for long.
const DERIVING_OF_HOST: usize = 64;
/// Lines about those turned away that may be told at once, and the time after which there may be one more.
const COMPLAINTS: u64 = 64;
const COMPLAINT_EVERY: Nanos = 100_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_a_stranger_stays_on_its_line() {
        assert_eq!(quoted("cam\n\u{1b}[1m"), r#""cam\n\u{1b}[1m""#);
        let long = quoted(&"x".repeat(500));
        assert_eq!(long.chars().count(), NAME_MOST + 3);
        assert!(long.ends_with("…\""));
        assert_eq!(quoted("cam:me:secret"), "\"cam…\"");
    }

    #[test]
    fn a_flood_is_told_of_in_a_few_lines_that_count_the_rest() {
        let mut doors = Doors::new(CookieSecret::new([7; 32]), 5);
        let mut tell = |now| doors.complain("x".into(), now);
        assert!((0..COMPLAINTS).all(|_| tell(5).as_deref() == Some("x")));
        assert!((0..1000).all(|_| tell(5).is_none()));
        assert_eq!(tell(5 + COMPLAINT_EVERY).as_deref(), Some("x (1000 more were turned away before)"));
        assert_eq!(tell(5 + COMPLAINT_EVERY), None);
        let later = 5 + 1000 * COMPLAINT_EVERY;
        assert_eq!(tell(later).as_deref(), Some("x (1 more were turned away before)"));
        assert_eq!((0..1000).filter_map(|_| tell(later)).count() as u64, COMPLAINTS - 1);
    }
}
