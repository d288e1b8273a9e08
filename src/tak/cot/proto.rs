//! Events enter, messages of the TAK protocol, version 1 (protobuf) leave, and back. What a typed field cannot say
//! travels as XML in the message, so that nothing is lost.

use super::event::{Element, Event, Point};
use super::xml::{XmlError, read, write_elements};

/// What travels: control, an event, or both.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TakMessage {
    /// Which versions the sender speaks.
    #[prost(message, optional, tag = "1")]
    pub control: Option<TakControl>,
    /// An event.
    #[prost(message, optional, tag = "2")]
    pub event: Option<CotEvent>,
    /// When TAK Server took it, milliseconds since 1970.
    #[prost(uint64, tag = "3")]
    pub submission_time: u64,
    /// When it was made.
    #[prost(uint64, tag = "4")]
    pub creation_time: u64,
}

/// Which versions a sender speaks; 0 means 1.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct TakControl {
    /// The lowest.
    #[prost(uint32, tag = "1")]
    pub min_version: u32,
    /// The highest.
    #[prost(uint32, tag = "2")]
    pub max_version: u32,
    /// Whose control it is, where no event says so.
    #[prost(string, tag = "3")]
    pub contact_uid: String,
}

/// An event.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CotEvent {
    /// What it is about.
    #[prost(string, tag = "1")]
    pub kind: String,
    /// Who may read it.
    #[prost(string, tag = "2")]
    pub access: String,
    /// Quality of service.
    #[prost(string, tag = "3")]
    pub qos: String,
    /// Operation or exercise.
    #[prost(string, tag = "4")]
    pub opex: String,
    /// Who or what it is about.
    #[prost(string, tag = "5")]
    pub uid: String,
    /// Milliseconds since 1970, as the two that follow.
    #[prost(uint64, tag = "6")]
    pub send_time: u64,
    /// From when on it holds.
    #[prost(uint64, tag = "7")]
    pub start_time: u64,
    /// Until when.
    #[prost(uint64, tag = "8")]
    pub stale_time: u64,
    /// How it came about.
    #[prost(string, tag = "9")]
    pub how: String,
    /// Degrees.
    #[prost(double, tag = "10")]
    pub lat: f64,
    /// Degrees.
    #[prost(double, tag = "11")]
    pub lon: f64,
    /// Metres above the ellipsoid; 999999 = not known, as for the two that follow.
    #[prost(double, tag = "12")]
    pub hae: f64,
    /// Circular error, metres.
    #[prost(double, tag = "13")]
    pub ce: f64,
    /// Linear error, metres.
    #[prost(double, tag = "14")]
    pub le: f64,
    /// What else there is to say.
    #[prost(message, optional, tag = "15")]
    pub detail: Option<Detail>,
    /// Caveat.
    #[prost(string, tag = "16")]
    pub caveat: String,
    /// Whom it may be given to.
    #[prost(string, tag = "17")]
    pub releasable_to: String,
}

/// The detail of an event.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Detail {
    /// What the fields that follow cannot say: elements one after the other.
    #[prost(string, tag = "1")]
    pub xml: String,
    /// `<contact>`
    #[prost(message, optional, tag = "2")]
    pub contact: Option<Contact>,
    /// `<__group>`
    #[prost(message, optional, tag = "3")]
    pub group: Option<Group>,
    /// `<precisionlocation>`
    #[prost(message, optional, tag = "4")]
    pub precision_location: Option<PrecisionLocation>,
    /// `<status>`
    #[prost(message, optional, tag = "5")]
    pub status: Option<Status>,
    /// `<takv>`
    #[prost(message, optional, tag = "6")]
    pub takv: Option<Takv>,
    /// `<track>`
    #[prost(message, optional, tag = "7")]
    pub track: Option<Track>,
}

/// Whom to talk to.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Contact {
    /// Where.
    #[prost(string, tag = "1")]
    pub endpoint: String,
    /// Name.
    #[prost(string, tag = "2")]
    pub callsign: String,
}

/// Team and role.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Group {
    /// Team.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Role.
    #[prost(string, tag = "2")]
    pub role: String,
}

/// What a place comes from.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PrecisionLocation {
    /// Source of the position.
    #[prost(string, tag = "1")]
    pub geopointsrc: String,
    /// Source of the height.
    #[prost(string, tag = "2")]
    pub altsrc: String,
}

/// State of a device.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Status {
    /// Percent.
    #[prost(uint32, tag = "1")]
    pub battery: u32,
}

/// What sent it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Takv {
    /// Device.
    #[prost(string, tag = "1")]
    pub device: String,
    /// Program.
    #[prost(string, tag = "2")]
    pub platform: String,
    /// Operating system.
    #[prost(string, tag = "3")]
    pub os: String,
    /// Version.
    #[prost(string, tag = "4")]
    pub version: String,
}

/// Movement.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Track {
    /// m/s.
    #[prost(double, tag = "1")]
    pub speed: f64,
    /// Degrees from true north.
    #[prost(double, tag = "2")]
    pub course: f64,
}

impl From<&Event> for CotEvent {
    fn from(event: &Event) -> Self {
        let known = |value: Option<f64>| value.unwrap_or(UNKNOWN);
        Self {
            kind: event.kind.clone(),
            uid: event.uid.clone(),
            send_time: event.time,
            start_time: event.start,
            stale_time: event.stale,
            how: event.how.clone(),
            lat: event.point.latitude,
            lon: event.point.longitude,
            hae: known(event.point.hae),
            ce: known(event.point.ce),
            le: known(event.point.le),
            detail: Some(detail(&event.detail)),
            ..Self::default()
        }
    }
}

impl CotEvent {
    /// The event that it says.
    ///
    /// # Errors
    /// [`XmlError`] when the XML in it is none, or its place is nowhere.
    pub fn event(&self) -> Result<Event, XmlError> {
        let place = |attribute, value: f64, limit: f64| {
            let inside = value.abs() <= limit;
            if inside { Ok(value) } else { Err(XmlError::Attribute { element: "point", attribute }) }
        };
        let known = |value: f64| (value.abs() < UNKNOWN).then_some(value);
        let mut parts = Vec::new();
        if let Some(detail) = &self.detail {
            parts = read(&detail.xml)?;
            parts.extend(typed(detail));
        }
        Ok(Event {
            uid: self.uid.clone(),
            kind: self.kind.clone(),
            how: self.how.clone(),
            time: self.send_time,
            start: self.start_time,
            stale: self.stale_time,
            point: Point {
                latitude: place("lat", self.lat, 90.0)?,
                longitude: place("lon", self.lon, 180.0)?,
                hae: known(self.hae),
                ce: known(self.ce),
                le: known(self.le),
            },
            detail: parts,
        })
    }
}

/// Elements that have a field of their own, when it can say all that they say; the rest as XML.
fn detail(elements: &[Element]) -> Detail {
    let mut detail = Detail::default();
    let mut rest = Vec::new();
    for element in elements {
        let says = |names: &[&str]| {
            element.children.is_empty()
                && element.text.is_empty()
                && element.attributes.iter().all(|(name, _)| names.contains(&name.as_str()))
        };
        let text = |name| element.attribute(name).unwrap_or_default().to_owned();
        let number = |name| element.attribute(name).and_then(|value| value.parse::<f64>().ok());
        match element.name.as_str() {
            "contact" if detail.contact.is_none() && says(&["endpoint", "callsign"]) => {
                detail.contact = Some(Contact { endpoint: text("endpoint"), callsign: text("callsign") });
            }
            "__group" if detail.group.is_none() && says(&["name", "role"]) => {
                detail.group = Some(Group { name: text("name"), role: text("role") });
            }
            "precisionlocation"
                if detail.precision_location.is_none() && says(&["geopointsrc", "altsrc"]) =>
            {
                detail.precision_location =
                    Some(PrecisionLocation { geopointsrc: text("geopointsrc"), altsrc: text("altsrc") });
            }
            "status" if detail.status.is_none() && says(&["battery"]) => {
                match element.attribute("battery").and_then(|value| value.parse().ok()) {
                    Some(battery) => detail.status = Some(Status { battery }),
                    None => rest.push(element),
                }
            }
            "takv" if detail.takv.is_none() && says(&["device", "platform", "os", "version"]) => {
                detail.takv = Some(Takv {
                    device: text("device"),
                    platform: text("platform"),
                    os: text("os"),
                    version: text("version"),
                });
            }
            "track" if detail.track.is_none() && says(&["speed", "course"]) => {
                // a movement of which one half is not known has no typed form
                match number("speed").zip(number("course")) {
                    Some((speed, course)) => detail.track = Some(Track { speed, course }),
                    None => rest.push(element),
                }
            }
            _ => rest.push(element),
        }
    }
    detail.xml = write_elements(rest.into_iter());
    detail
}

fn typed(detail: &Detail) -> Vec<Element> {
    let mut parts = Vec::new();
    // an empty text is one that was not said
    let said = |value: &String| (!value.is_empty()).then(|| value.clone());
    if let Some(contact) = &detail.contact {
        let element = Element::new("contact").with_some("endpoint", said(&contact.endpoint));
        parts.push(element.with_some("callsign", said(&contact.callsign)));
    }
    if let Some(group) = &detail.group {
        parts.push(Element::new("__group").with("name", &group.name).with("role", &group.role));
    }
    if let Some(place) = &detail.precision_location {
        let element = Element::new("precisionlocation").with_some("geopointsrc", said(&place.geopointsrc));
        parts.push(element.with_some("altsrc", said(&place.altsrc)));
    }
    if let Some(status) = &detail.status {
        parts.push(Element::new("status").with("battery", status.battery.to_string()));
    }
    if let Some(takv) = &detail.takv {
        let element = Element::new("takv").with("device", &takv.device).with("platform", &takv.platform);
        parts.push(element.with("os", &takv.os).with("version", &takv.version));
    }
    if let Some(track) = &detail.track {
        let element = Element::new("track").with("speed", track.speed.to_string());
        parts.push(element.with("course", track.course.to_string()));
    }
    parts
}

/// What a number is that is not known.
const UNKNOWN: f64 = 999_999.0;
