//! What both sides of a connection say about codecs enters and leaves as properties of `connect` and its answer
//! (Enhanced RTMP v2, "Enhancing NetConnection connect Command"). Never refuses anything.

use super::amf0::{Property, Value};

/// What a peer says about codecs that are named by four characters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FourCcs {
    /// The names it knows, such as `hvc1`; `*` is any.
    pub names: Vec<String>,
    /// Bits of `capsEx`: 1 reconnect request, 2 multitrack, 4 extended headers, 8 times in nanoseconds.
    pub extended: u32,
}

/// The codecs that are carried here.
pub const FOUR_CCS: [&str; 7] = ["avc1", "hvc1", "av01", "mp4a", "Opus", "ac-3", ".mp3"];

impl FourCcs {
    /// Reads them from the command object of `connect`, or from the objects of its answer.
    pub fn read(object: &Value) -> Self {
        let mut names: Vec<String> = Vec::new();
        let mut add = |name: &str| {
            if name.len() <= 4 && names.len() < NAMES_MOST && !names.iter().any(|known| known == name) {
                names.push(name.into());
            }
        };
        if let Some(Value::StrictArray(listed)) = object.property("fourCcList") {
            listed.iter().filter_map(Value::as_text).for_each(&mut add);
        }
        for map in ["videoFourCcInfoMap", "audioFourCcInfoMap"] {
            let properties = object.property(map).map(Value::properties).unwrap_or_default();
            properties.iter().for_each(|(name, _)| add(name));
        }
        let extended = object.property("capsEx").and_then(Value::as_number).unwrap_or_default();
        Self { names, extended: extended as u32 }
    }

    /// Whether the peer said that it speaks of codecs in this way at all.
    pub fn is_told(&self) -> bool {
        !self.names.is_empty()
    }

    /// Whether it said that it knows this one.
    pub fn has(&self, name: &str) -> bool {
        self.names.iter().any(|known| known == name || known == "*")
    }

    /// Our own, as properties. Media are passed on as they are: the flag is "can forward".
    pub(super) fn ours() -> Vec<Property> {
        let map = |names: &[&str]| {
            Value::Object(names.iter().map(|name| ((*name).into(), Value::Number(CAN_FORWARD))).collect())
        };
        let (video, audio) = FOUR_CCS.split_at(3);
        vec![
            ("fourCcList".into(), Value::StrictArray(FOUR_CCS.into_iter().map(Value::from).collect())),
            ("videoFourCcInfoMap".into(), map(video)),
            ("audioFourCcInfoMap".into(), map(audio)),
            ("capsEx".into(), Value::Number(EXTENDED_HEADERS)),
        ]
    }
}

const CAN_FORWARD: f64 = 4.0;
const EXTENDED_HEADERS: f64 = 4.0;
const NAMES_MOST: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let ours = FourCcs::read(&Value::Object(FourCcs::ours()));
        assert_eq!(ours, FourCcs { names: FOUR_CCS.map(String::from).into(), extended: 4 });
        assert!(ours.is_told() && ours.has("hvc1") && !ours.has("vp09"));
        assert!(!FourCcs::read(&Value::Null).is_told());
    }

    #[test]
    fn a_star_is_any_and_names_are_bounded() {
        let star = vec![("*".into(), Value::Number(7.0))];
        let any = Value::Object(vec![("videoFourCcInfoMap".into(), Value::Object(star))]);
        assert!(FourCcs::read(&any).has("vp09"));
        let many = (0..1000).map(|i| Value::text(format!("{i:04}"))).collect();
        let many = Value::Object(vec![("fourCcList".into(), Value::StrictArray(many))]);
        assert_eq!(FourCcs::read(&many).names.len(), NAMES_MOST);
    }
}
