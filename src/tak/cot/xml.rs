//! Events enter, XML leaves, and back. Never expands an entity of a peer's own, and never builds more than a few hundred
//! elements of what a peer sends.

use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event as Token};
use quick_xml::{Reader, Writer, XmlVersion};
use thiserror::Error;

use super::event::{Element, Event, Point, clean};
use super::frame::MESSAGE_MAX;
use super::stamp;

/// Why XML is no event.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum XmlError {
    /// It is not well-formed.
    #[error("XML is not well-formed at byte {0}")]
    Malformed(u64),
    /// It is longer, deeper or has more elements than is read.
    #[error(
        "XML is longer than {MESSAGE_MAX} bytes, deeper than {DEPTH_MAX} elements, or has more than {ELEMENTS_MAX}"
    )]
    TooMuch,
    /// A document type, which no event has.
    #[error("XML has a document type")]
    DocumentType,
    /// It is another document than an event.
    #[error("root element is not <event>")]
    NoEvent,
    /// An attribute is missing or is not what it should be.
    #[error("<{element}> has no valid {attribute}")]
    Attribute {
        /// Its element.
        element: &'static str,
        /// Its name.
        attribute: &'static str,
    },
}

/// An event as XML; with `declaration` as the streaming protocol has it.
pub fn write(event: &Event, declaration: bool) -> String {
    let mut writer = Writer::new(Vec::with_capacity(1024));
    if declaration {
        put(&mut writer, Token::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)));
        put(&mut writer, Token::Text(BytesText::from_escaped("\n")));
    }
    let start = BytesStart::new("event").with_attributes([
        ("version", "2.0"),
        ("uid", &*clean(&event.uid)),
        ("type", &*clean(&event.kind)),
        ("how", &*clean(&event.how)),
        ("time", &*stamp::write(event.time)),
        ("start", &*stamp::write(event.start)),
        ("stale", &*stamp::write(event.stale)),
    ]);
    put(&mut writer, Token::Start(start));
    let point = event.point;
    let known = |value: Option<f64>| value.map_or_else(|| UNKNOWN.to_owned(), |value| value.to_string());
    let point = BytesStart::new("point").with_attributes([
        ("lat", &*point.latitude.to_string()),
        ("lon", &*point.longitude.to_string()),
        ("hae", &*known(point.hae)),
        ("ce", &*known(point.ce)),
        ("le", &*known(point.le)),
    ]);
    put(&mut writer, Token::Empty(point));
    put(&mut writer, Token::Start(BytesStart::new("detail")));
    event.detail.iter().for_each(|element| put_element(&mut writer, element));
    put(&mut writer, Token::End(BytesEnd::new("detail")));
    put(&mut writer, Token::End(BytesEnd::new("event")));
    text(writer)
}

/// Elements one after the other, without one around them.
pub(super) fn write_elements<'a>(elements: impl Iterator<Item = &'a Element>) -> String {
    let mut writer = Writer::new(Vec::new());
    elements.for_each(|element| put_element(&mut writer, element));
    text(writer)
}

/// Reads an event.
///
/// # Errors
/// [`XmlError`] when it is none, or is more than is read.
pub fn parse(xml: &str) -> Result<Event, XmlError> {
    let root = read(xml)?.into_iter().next().ok_or(XmlError::NoEvent)?;
    if root.name != "event" {
        return Err(XmlError::NoEvent);
    }
    let text = |attribute| {
        let value = root.attribute(attribute).filter(|value| !value.is_empty());
        value.ok_or(XmlError::Attribute { element: "event", attribute })
    };
    let time = |attribute| {
        text(attribute)
            .and_then(|value| stamp::parse(value).ok_or(XmlError::Attribute { element: "event", attribute }))
    };
    let point = root.child("point").ok_or(XmlError::Attribute { element: "event", attribute: "point" })?;
    let number = |attribute, limit: f64| {
        let value = point.attribute(attribute).and_then(|value| value.trim().parse::<f64>().ok());
        let value = value.filter(|value| value.abs() <= limit);
        value.ok_or(XmlError::Attribute { element: "point", attribute })
    };
    // 9999999 in XML and 999999 in some senders: not known
    let known = |attribute| number(attribute, f64::MAX).ok().filter(|value| value.abs() < 999_999.0);
    Ok(Event {
        uid: text("uid")?.to_owned(),
        kind: text("type")?.to_owned(),
        how: root.attribute("how").unwrap_or_default().to_owned(),
        time: time("time")?,
        start: time("start")?,
        stale: time("stale")?,
        point: Point {
            latitude: number("lat", 90.0)?,
            longitude: number("lon", 180.0)?,
            hae: known("hae"),
            ce: known("ce"),
            le: known("le"),
        },
        detail: root
            .children
            .into_iter()
            .find(|child| child.name == "detail")
            .map_or(Vec::new(), |d| d.children),
    })
}

/// Elements one after the other.
pub(in crate::tak) fn read(xml: &str) -> Result<Vec<Element>, XmlError> {
    if xml.len() > MESSAGE_MAX {
        return Err(XmlError::TooMuch);
    }
    let mut reader = Reader::from_str(xml);
    let mut open = vec![Element::default()];
    let mut count = 0;
    loop {
        let at = reader.buffer_position();
        let malformed = |_| XmlError::Malformed(at);
        match reader.read_event().map_err(malformed)? {
            Token::Eof => break,
            Token::Start(start) => {
                count += 1;
                if open.len() > DEPTH_MAX || count > ELEMENTS_MAX {
                    return Err(XmlError::TooMuch);
                }
                open.push(element(&start, at)?);
            }
            Token::Empty(start) => {
                count += 1;
                if count > ELEMENTS_MAX {
                    return Err(XmlError::TooMuch);
                }
                let element = element(&start, at)?;
                open.last_mut().ok_or(XmlError::Malformed(at))?.children.push(element);
            }
            Token::End(_) => {
                let done = open.pop().ok_or(XmlError::Malformed(at))?;
                open.last_mut().ok_or(XmlError::Malformed(at))?.children.push(done);
            }
            Token::Text(text) => push(&mut open, &text.xml10_content()),
            Token::CData(text) => push(&mut open, &text.xml10_content()),
            Token::GeneralRef(reference) => {
                let c = match reference.resolve_char_ref().map_err(|_| XmlError::Malformed(at))? {
                    Some(c) => c.to_string(),
                    // the five that XML itself has; no others
                    None => quick_xml::escape::resolve_predefined_entity(&reference.xml10_content())
                        .ok_or(XmlError::Malformed(at))?
                        .to_owned(),
                };
                push(&mut open, &c);
            }
            Token::DocType(_) => return Err(XmlError::DocumentType),
            Token::Comment(_) | Token::PI(_) | Token::Decl(_) => {}
        }
    }
    match open.pop() {
        Some(root) if open.is_empty() => Ok(root.children),
        _ => Err(XmlError::Malformed(xml.len() as u64)),
    }
}

fn element(start: &BytesStart<'_>, at: u64) -> Result<Element, XmlError> {
    let mut element = Element::new(start.name().0);
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|_| XmlError::Malformed(at))?;
        let value =
            attribute.normalized_value(XmlVersion::Implicit1_0).map_err(|_| XmlError::Malformed(at))?;
        element.attributes.push((attribute.key.0.to_owned(), value.into_owned()));
    }
    Ok(element)
}

fn push(open: &mut [Element], text: &str) {
    if let Some(element) = open.last_mut() {
        // white space between elements says nothing
        if !(text.trim().is_empty() && element.text.is_empty()) {
            element.text.push_str(text);
        }
    }
}

fn put_element(writer: &mut Writer<Vec<u8>>, element: &Element) {
    let attributes = element.attributes.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let start = BytesStart::new(element.name.as_str()).with_attributes(attributes);
    if element.children.is_empty() && element.text.is_empty() {
        return put(writer, Token::Empty(start));
    }
    put(writer, Token::Start(start));
    put(writer, Token::Text(BytesText::new(&clean(&element.text))));
    element.children.iter().for_each(|child| put_element(writer, child));
    put(writer, Token::End(BytesEnd::new(element.name.as_str())));
}

/// Writing to memory does not fail.
fn put(writer: &mut Writer<Vec<u8>>, token: Token<'_>) {
    let _ = writer.write_event(token);
}

fn text(writer: Writer<Vec<u8>>) -> String {
    String::from_utf8(writer.into_inner()).unwrap_or_default()
}

/// What a number is that is not known.
const UNKNOWN: &str = "9999999";

/// Elements in elements that are read.
const DEPTH_MAX: usize = 24;

/// Elements of one event that are read.
const ELEMENTS_MAX: usize = 2000;
