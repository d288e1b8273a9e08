//! The agreement on protobuf over a stream to a TAK Server: events of the server and moments enter, what to do leaves.
//! Never sends anything while the server has not answered, as the protocol says.

use std::time::Duration;

use super::event::{Element, Event, Point};

/// How far client and server have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Negotiation {
    /// Both speak XML; the server may offer more.
    #[default]
    Xml,
    /// Protobuf was asked for; the client is silent until the answer, or until this moment.
    Asked(Duration),
    /// Both speak protobuf.
    Proto,
    /// The server said no, and will not be asked again.
    Refused,
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Nothing: the event was no word of the negotiation.
    None,
    /// Send this event as XML, and nothing after it before the next step.
    Ask(Box<Event>),
    /// Send and read protobuf from here on.
    Switch,
    /// Go on in XML.
    Stay,
    /// The server did not answer in time: close the connection.
    Disconnect,
}

impl Negotiation {
    /// Takes an event of the server that came at `now` (from any fixed beginning); `utc` is milliseconds since 1970,
    /// `uid` that of this connection.
    pub fn take(&mut self, event: &Event, now: Duration, utc: u64, uid: &str) -> Step {
        let control = event.part("TakControl");
        match (*self, event.kind.as_str()) {
            (Self::Xml, "t-x-takp-v") => {
                let offers = |child: &Element| {
                    child.name == "TakProtocolSupport" && child.attribute("version") == Some(VERSION)
                };
                if !control.is_some_and(|control| control.children.iter().any(offers)) {
                    return Step::None;
                }
                *self = Self::Asked(now + TIMEOUT);
                Step::Ask(Box::new(request(uid, utc)))
            }
            (Self::Asked(_), "t-x-takp-r") => {
                let answer = control.and_then(|control| control.child("TakResponse"));
                if answer.and_then(|answer| answer.attribute("status")) == Some("true") {
                    *self = Self::Proto;
                    Step::Switch
                } else {
                    *self = Self::Refused;
                    Step::Stay
                }
            }
            _ => Step::None,
        }
    }

    /// What to do when nothing comes.
    pub fn wait(&self, now: Duration) -> Step {
        match *self {
            Self::Asked(until) if now >= until => Step::Disconnect,
            _ => Step::None,
        }
    }

    /// When [`wait`](Self::wait) will have something to say.
    pub fn deadline(&self) -> Option<Duration> {
        if let Self::Asked(until) = self { Some(*until) } else { None }
    }

    /// Whether events may be sent now.
    pub fn may_send(&self) -> bool {
        !matches!(self, Self::Asked(_))
    }

    /// Whether what is sent now is protobuf.
    pub fn is_proto(&self) -> bool {
        *self == Self::Proto
    }
}

fn request(uid: &str, utc: u64) -> Event {
    let ask = Element::new("TakRequest").with("version", VERSION);
    Event {
        uid: uid.to_owned(),
        kind: "t-x-takp-q".to_owned(),
        how: "m-g".to_owned(),
        time: utc,
        start: utc,
        stale: utc + TIMEOUT.as_millis() as u64,
        point: Point { latitude: 0.0, longitude: 0.0, hae: Some(0.0), ce: None, le: None },
        detail: vec![Element::new("TakControl").holding(ask)],
    }
}

/// The server must have answered by then (TAK protocol, stream connections).
const TIMEOUT: Duration = Duration::from_secs(60);

const VERSION: &str = "1";
