//! Bytes of AMF0 enter, values leave, and the other way round (Action Message Format 0, Adobe 2007). Depth and number
//! of values are bounded; text that is not UTF-8 is read lossily. Never knows what a value means.

/// A property of an object: its name and value.
pub type Property = (String, Value);

/// One AMF0 value (clause 2.1).
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A double.
    Number(f64),
    /// `true` or `false`.
    Boolean(bool),
    /// Text; one that is longer than 65,535 bytes is written as a long string.
    String(String),
    /// Named values in the order they came.
    Object(Vec<Property>),
    /// `null`.
    Null,
    /// `undefined`, and what AMF0 calls unsupported.
    Undefined,
    /// The index of a complex value that was already sent.
    Reference(u16),
    /// Named values, as an associative array.
    EcmaArray(Vec<Property>),
    /// Values by their index.
    StrictArray(Vec<Self>),
    /// A time.
    Date {
        /// Milliseconds since 1970-01-01 UTC.
        milliseconds: f64,
        /// Reserved by the specification; minutes from UTC where a writer fills it.
        zone: i16,
    },
    /// An XML document.
    Xml(String),
    /// Named values of a class.
    Typed {
        /// Name of the class.
        class: String,
        /// Its properties.
        properties: Vec<Property>,
    },
}

/// Why bytes are not AMF0 that is accepted here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadAmf {
    /// The bytes end inside a value.
    #[error("AMF0 ends inside a value")]
    Short,
    /// A marker of clause 2.1 that is reserved, or unknown.
    #[error("AMF0 marker 0x{0:02x} is not supported")]
    Marker(u8),
    /// Objects or arrays in each other deeper than [`DEPTH_MOST`].
    #[error("AMF0 values are nested deeper than {DEPTH_MOST}")]
    Deep,
    /// More than [`VALUES_MOST`] values.
    #[error("AMF0 has more than {VALUES_MOST} values")]
    Many,
}

/// How deep objects and arrays may stand in each other.
pub const DEPTH_MOST: usize = 16;

/// How many values one message may hold, those inside objects counted.
pub const VALUES_MOST: usize = 4096;

impl Value {
    /// A string.
    pub fn text(text: impl Into<String>) -> Self {
        Self::String(text.into())
    }

    /// The number, if it is one.
    pub fn as_number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The text, if it is some.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The properties of an object or associative array; none of anything else.
    pub fn properties(&self) -> &[Property] {
        match self {
            Self::Object(properties) | Self::EcmaArray(properties) | Self::Typed { properties, .. } => {
                properties
            }
            _ => &[],
        }
    }

    /// The property with this name.
    pub fn property(&self, name: &str) -> Option<&Self> {
        self.properties().iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// Appends its bytes.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Number(number) => {
                out.push(NUMBER);
                out.extend(number.to_be_bytes());
            }
            Self::Boolean(value) => out.extend([BOOLEAN, u8::from(*value)]),
            Self::String(text) if text.len() <= usize::from(u16::MAX) => {
                out.push(STRING);
                write_short(text, out);
            }
            Self::String(text) => write_long(LONG_STRING, text, out),
            Self::Xml(text) => write_long(XML, text, out),
            Self::Object(properties) => {
                out.push(OBJECT);
                write_properties(properties, out);
            }
            Self::Null => out.push(NULL),
            Self::Undefined => out.push(UNDEFINED),
            Self::Reference(index) => {
                out.push(REFERENCE);
                out.extend(index.to_be_bytes());
            }
            Self::EcmaArray(properties) => {
                out.push(ECMA_ARRAY);
                out.extend((properties.len() as u32).to_be_bytes());
                write_properties(properties, out);
            }
            Self::StrictArray(values) => {
                out.push(STRICT_ARRAY);
                out.extend((values.len() as u32).to_be_bytes());
                values.iter().for_each(|value| value.write(out));
            }
            Self::Date { milliseconds, zone } => {
                out.push(DATE);
                out.extend(milliseconds.to_be_bytes());
                out.extend(zone.to_be_bytes());
            }
            Self::Typed { class, properties } => {
                out.push(TYPED);
                write_short(class, out);
                write_properties(properties, out);
            }
        }
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Boolean(value)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.into())
    }
}

/// Reads values until the bytes end. What stands before an error is kept: a command is known by its first values.
pub fn read_values(bytes: &[u8]) -> (Vec<Value>, Option<BadAmf>) {
    let mut reader = Reader { bytes, values: 0 };
    let mut values = Vec::new();
    while !reader.bytes.is_empty() {
        match reader.value(0) {
            Ok(value) => values.push(value),
            Err(why) => return (values, Some(why)),
        }
    }
    (values, None)
}

/// The bytes of these values, one behind the other.
pub fn write_values(values: &[Value]) -> Vec<u8> {
    let mut out = Vec::new();
    values.iter().for_each(|value| value.write(&mut out));
    out
}

struct Reader<'a> {
    bytes: &'a [u8],
    values: usize,
}

impl<'a> Reader<'a> {
    fn value(&mut self, depth: usize) -> Result<Value, BadAmf> {
        self.values += 1;
        if self.values > VALUES_MOST {
            return Err(BadAmf::Many);
        }
        if depth > DEPTH_MOST {
            return Err(BadAmf::Deep);
        }
        let [marker] = self.array()?;
        Ok(match marker {
            NUMBER => Value::Number(f64::from_be_bytes(self.array()?)),
            BOOLEAN => Value::Boolean(self.array::<1>()? != [0]),
            STRING => Value::String(self.short_text()?),
            OBJECT => Value::Object(self.properties(depth)?),
            NULL => Value::Null,
            UNDEFINED | UNSUPPORTED => Value::Undefined,
            REFERENCE => Value::Reference(u16::from_be_bytes(self.array()?)),
            ECMA_ARRAY => {
                // The count is a hint (2.10), and wrong in what several encoders send: the end marker decides.
                let _: [u8; 4] = self.array()?;
                Value::EcmaArray(self.properties(depth)?)
            }
            STRICT_ARRAY => {
                let count = u32::from_be_bytes(self.array()?) as usize;
                // Each value has a byte at least, so that a count which lies costs nothing.
                if count > self.bytes.len() {
                    return Err(BadAmf::Short);
                }
                if count > VALUES_MOST {
                    return Err(BadAmf::Many);
                }
                let mut values = Vec::new();
                for _ in 0..count {
                    values.push(self.value(depth + 1)?);
                }
                Value::StrictArray(values)
            }
            DATE => Value::Date {
                milliseconds: f64::from_be_bytes(self.array()?),
                zone: i16::from_be_bytes(self.array()?),
            },
            LONG_STRING => Value::String(self.long_text()?),
            XML => Value::Xml(self.long_text()?),
            TYPED => Value::Typed { class: self.short_text()?, properties: self.properties(depth)? },
            marker => return Err(BadAmf::Marker(marker)),
        })
    }

    /// Properties up to the end marker: an empty name and 0x09 (2.11). A message that ends instead ends the object
    /// too, as some encoders leave the marker out.
    fn properties(&mut self, depth: usize) -> Result<Vec<Property>, BadAmf> {
        let mut properties = Vec::new();
        while !self.bytes.is_empty() {
            let name = self.short_text()?;
            if name.is_empty() && self.bytes.first() == Some(&OBJECT_END) {
                self.bytes = &self.bytes[1..];
                break;
            }
            properties.push((name, self.value(depth + 1)?));
        }
        Ok(properties)
    }

    fn short_text(&mut self) -> Result<String, BadAmf> {
        let length = u16::from_be_bytes(self.array()?);
        self.text(usize::from(length))
    }

    fn long_text(&mut self) -> Result<String, BadAmf> {
        let length = u32::from_be_bytes(self.array()?);
        self.text(length as usize)
    }

    fn text(&mut self, length: usize) -> Result<String, BadAmf> {
        let (text, rest) = self.bytes.split_at_checked(length).ok_or(BadAmf::Short)?;
        self.bytes = rest;
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BadAmf> {
        let (array, rest) = self.bytes.split_first_chunk::<N>().ok_or(BadAmf::Short)?;
        self.bytes = rest;
        Ok(*array)
    }
}

fn write_properties(properties: &[Property], out: &mut Vec<u8>) {
    for (name, value) in properties {
        write_short(name, out);
        value.write(out);
    }
    out.extend([0, 0, OBJECT_END]);
}

/// Text behind its length in 16 bits; what is longer is cut at a character.
fn write_short(text: &str, out: &mut Vec<u8>) {
    let mut end = text.len().min(usize::from(u16::MAX));
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    out.extend((end as u16).to_be_bytes());
    out.extend(&text.as_bytes()[..end]);
}

fn write_long(marker: u8, text: &str, out: &mut Vec<u8>) {
    out.push(marker);
    out.extend((text.len() as u32).to_be_bytes());
    out.extend(text.as_bytes());
}

const NUMBER: u8 = 0x00;
const BOOLEAN: u8 = 0x01;
const STRING: u8 = 0x02;
const OBJECT: u8 = 0x03;
const NULL: u8 = 0x05;
const UNDEFINED: u8 = 0x06;
const REFERENCE: u8 = 0x07;
const ECMA_ARRAY: u8 = 0x08;
const OBJECT_END: u8 = 0x09;
const STRICT_ARRAY: u8 = 0x0A;
const DATE: u8 = 0x0B;
const LONG_STRING: u8 = 0x0C;
const UNSUPPORTED: u8 = 0x0D;
const XML: u8 = 0x0F;
const TYPED: u8 = 0x10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            (-1e12f64..1e12).prop_map(Value::Number),
            any::<bool>().prop_map(Value::Boolean),
            ".{0,12}".prop_map(Value::String),
            Just(Value::Null),
            Just(Value::Undefined),
            any::<u16>().prop_map(Value::Reference),
            (0f64..1e13, any::<i16>()).prop_map(|(milliseconds, zone)| Value::Date { milliseconds, zone }),
            ".{0,12}".prop_map(Value::Xml),
        ];
        leaf.prop_recursive(6, 40, 6, |inner| {
            // An empty name with a value is legal, but for one whose marker reads as the end of the object.
            let properties = prop::collection::vec(("[a-z]{1,8}", inner.clone()), 0..6);
            prop_oneof![
                properties.clone().prop_map(Value::Object),
                properties.clone().prop_map(Value::EcmaArray),
                ("[a-z]{0,8}", properties).prop_map(|(class, properties)| Value::Typed { class, properties }),
                prop::collection::vec(inner, 0..6).prop_map(Value::StrictArray),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(values in prop::collection::vec(values(), 0..5)) {
            prop_assert_eq!(read_values(&write_values(&values)), (values, None));
        }
    }

    #[test]
    fn text_beyond_16_bits_is_a_long_string() {
        let long = Value::text("x".repeat(70_000));
        let bytes = write_values(std::slice::from_ref(&long));
        assert_eq!(bytes[..5], [LONG_STRING, 0, 1, 0x11, 0x70]);
        assert_eq!(read_values(&bytes), (vec![long], None));
        let mut out = Vec::new();
        write_short(&"é".repeat(40_000), &mut out);
        assert_eq!(out.len(), 2 + 65_534);
    }

    #[test]
    fn objects_in_objects_end_at_the_bound_and_not_at_the_stack() {
        let mut bomb = Vec::new();
        while bomb.len() < 8 << 20 {
            bomb.extend([OBJECT, 0, 1, b'a']);
        }
        assert_eq!(read_values(&bomb), (vec![], Some(BadAmf::Deep)));
        let arrays = [STRICT_ARRAY, 0, 0, 0, 1].repeat(1 << 20);
        assert_eq!(read_values(&arrays), (vec![], Some(BadAmf::Deep)));
        let wide = [NULL].repeat(1 << 20);
        assert_eq!(read_values(&wide).1, Some(BadAmf::Many));
        assert_eq!(read_values(&wide).0.len(), VALUES_MOST);
    }

    #[test]
    fn lengths_that_lie_cost_nothing() {
        for lie in [
            &[STRING, 0xFF, 0xFF, b'a'][..],
            &[LONG_STRING, 0xFF, 0xFF, 0xFF, 0xFF, b'a'],
            &[STRICT_ARRAY, 0xFF, 0xFF, 0xFF, 0xFF, NULL],
            &[NUMBER, 0],
            &[DATE, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[ECMA_ARRAY, 0, 0],
            &[OBJECT, 0, 9, b'a'],
        ] {
            assert_eq!(read_values(lie), (vec![], Some(BadAmf::Short)), "{lie:?}");
        }
    }

    #[test]
    fn an_array_ends_at_its_marker_whatever_its_count_says() {
        let mut bytes = vec![ECMA_ARRAY, 0, 0, 0, 99, 0, 1, b'a', NULL, 0, 0, OBJECT_END, BOOLEAN, 1];
        let array = Value::EcmaArray(vec![("a".into(), Value::Null)]);
        assert_eq!(read_values(&bytes), (vec![array.clone(), Value::Boolean(true)], None));
        bytes.truncate(9);
        assert_eq!(read_values(&bytes), (vec![array], None), "without its end");
    }

    #[test]
    fn text_that_is_not_utf_8_is_read_lossily() {
        let bytes = [STRING, 0, 3, b'a', 0xFF, b'b'];
        assert_eq!(read_values(&bytes), (vec![Value::text("a\u{FFFD}b")], None));
    }

    #[test]
    fn what_stands_before_a_marker_of_amf3_is_kept() {
        let bytes = [STRING, 0, 1, b'a', 0x11, 0x0A];
        assert_eq!(read_values(&bytes), (vec![Value::text("a")], Some(BadAmf::Marker(0x11))));
    }
}
