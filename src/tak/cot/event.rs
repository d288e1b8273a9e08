//! A Cursor-on-Target event as both its forms, XML and protobuf, say it. Never holds text that XML cannot carry.

/// An event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Who or what it is about; a later event with the same uid replaces it.
    pub uid: String,
    /// What it is about, such as `a-f-A-M-F-Q`.
    pub kind: String,
    /// How it came about, such as `m-g`.
    pub how: String,
    /// When it was made, milliseconds since 1970 in UTC, as the two that follow.
    pub time: u64,
    /// From when on it holds.
    pub start: u64,
    /// Until when.
    pub stale: u64,
    /// Where it is.
    pub point: Point,
    /// What else there is to say.
    pub detail: Vec<Element>,
}

/// A place on WGS 84.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Degrees.
    pub latitude: f64,
    /// Degrees.
    pub longitude: f64,
    /// Metres above the ellipsoid, where known.
    pub hae: Option<f64>,
    /// Circular error, metres, one sigma, where known.
    pub ce: Option<f64>,
    /// Linear (height) error, metres, one sigma, where known.
    pub le: Option<f64>,
}

/// A part of an event's detail.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Element {
    /// Its name.
    pub name: String,
    /// Names and values, in their order.
    pub attributes: Vec<(String, String)>,
    /// Elements in it.
    pub children: Vec<Self>,
    /// Text in it.
    pub text: String,
}

impl Event {
    /// The first part of the detail with this name.
    pub fn part(&self, name: &str) -> Option<&Element> {
        self.detail.iter().find(|element| element.name == name)
    }
}

impl Element {
    /// An element without anything in it.
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// With an attribute. What XML cannot carry becomes a space, and what is longer than anybody reads is cut.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.attributes.push((name.into(), clean(value.as_ref())));
        self
    }

    /// With an attribute that may not be known.
    #[must_use]
    pub fn with_some(self, name: &str, value: Option<impl AsRef<str>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// With an element in it.
    #[must_use]
    pub fn holding(mut self, child: Self) -> Self {
        self.children.push(child);
        self
    }

    /// The value of an attribute.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The first element in it with this name.
    pub fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }
}

/// Text that an XML 1.0 attribute can carry: control characters, which KLV strings may hold, become spaces.
pub(super) fn clean(text: &str) -> String {
    let allowed = |c: char| !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}');
    text.chars().take(TEXT_MAX).map(|c| if allowed(c) { c } else { ' ' }).collect()
}

/// Characters of a value that are kept.
const TEXT_MAX: usize = 2048;
