//! Items of packets enter, those of the minimum metadata set that did not come in time leave (MISB ST 0902). Never asks
//! what they say, only whether they are there.

use crate::wire::klv::{Set, Value};

/// When each item of the minimum set was last there.
#[derive(Debug, Default)]
pub(super) struct Minimum {
    /// Seconds of the stream at which looking began.
    begun: Option<f64>,
    seen: [Option<f64>; GROUPS_COUNT],
    told: u64,
}

/// Items of which one must be there, alone or in the security set.
struct Group {
    name: &'static str,
    tags: &'static [u32],
    security: bool,
}

impl Minimum {
    /// Takes what a packet has at this second of the stream; the names of what is overdue since now.
    pub(super) fn take(&mut self, set: &Set<'_>, now: f64) -> Vec<&'static str> {
        self.begun.get_or_insert(now);
        let security = set.value(48).and_then(Value::set);
        let known = |set: &Set<'_>, tag: &u32| set.value(*tag).is_some_and(|value| *value != Value::Unknown);
        for (group, seen) in GROUPS.iter().zip(&mut self.seen) {
            let there = match (group.security, security) {
                (false, _) => group.tags.iter().any(|tag| known(set, tag)),
                (true, Some(security)) => group.tags.iter().any(|tag| known(security, tag)),
                (true, None) => false,
            };
            if there {
                *seen = Some(now);
            }
        }
        self.overdue(now, WITHIN)
    }

    /// Whether every item had its time to come.
    pub(super) fn is_judged(&self, now: f64) -> bool {
        self.begun.is_some_and(|begun| now - begun > WITHIN)
    }

    /// The stream has ended: what never came is missing, however short it was.
    pub(super) fn finish(&mut self) -> Vec<&'static str> {
        let missing = GROUPS.iter().zip(&self.seen).zip(0..);
        let names: Vec<_> = missing
            .filter(|((_, seen), at)| seen.is_none() && self.told >> at & 1 == 0)
            .map(|((group, _), _)| group.name)
            .collect();
        self.told = u64::MAX;
        names
    }

    /// Each is told once until it comes again.
    fn overdue(&mut self, now: f64, within: f64) -> Vec<&'static str> {
        let begun = self.begun.unwrap_or(now);
        let mut names = Vec::new();
        for ((group, seen), at) in GROUPS.iter().zip(&self.seen).zip(0..) {
            let late = now - seen.unwrap_or(begun) > within;
            if late && self.told >> at & 1 == 0 {
                names.push(group.name);
            }
            self.told = self.told & !(1 << at) | u64::from(late) << at;
        }
        names
    }
}

const fn root(name: &'static str, tags: &'static [u32]) -> Group {
    Group { name, tags, security: false }
}

const fn security(name: &'static str, tags: &'static [u32]) -> Group {
    Group { name, tags, security: true }
}

/// ST 0902.8, table 1, without what ST 0102 asks for only where it applies.
#[rustfmt::skip]
static GROUPS: [Group; GROUPS_COUNT] = [
    root("1 Checksum", &[1]),
    root("2 Precision Time Stamp", &[2]),
    root("3 Mission ID", &[3]),
    root("5 Platform Heading Angle", &[5]),
    root("6 or 90 Platform Pitch Angle", &[6, 90]),
    root("7 or 91 Platform Roll Angle", &[7, 91]),
    root("10 Platform Designation", &[10]),
    root("11 Image Source Sensor", &[11]),
    root("12 Image Coordinate System", &[12]),
    root("13 Sensor Latitude", &[13]),
    root("14 Sensor Longitude", &[14]),
    root("15, 75 or 104 Sensor Altitude", &[15, 75, 104]),
    root("16 Sensor Horizontal Field of View", &[16]),
    root("17 Sensor Vertical Field of View", &[17]),
    root("18 Sensor Relative Azimuth Angle", &[18]),
    root("19 Sensor Relative Elevation Angle", &[19]),
    root("20 Sensor Relative Roll Angle", &[20]),
    root("21 Slant Range", &[21]),
    root("22 or 96 Target Width", &[22, 96]),
    root("23 Frame Center Latitude", &[23]),
    root("24 Frame Center Longitude", &[24]),
    root("25 or 78 Frame Center Elevation", &[25, 78]),
    root("65 UAS Datalink LS Version Number", &[65]),
    root("94 MIIS Core Identifier", &[94]),
    security("48.1 Security Classification", &[1]),
    security("48.2 Country Coding Method", &[2]),
    security("48.3 Classifying Country", &[3]),
    security("48.12 Object Country Coding Method", &[12]),
    security("48.13 Object Country Codes", &[13]),
    security("48.22 Security Metadata Version", &[22]),
];

const GROUPS_COUNT: usize = 30;
/// ST 0902.3-04: seconds.
const WITHIN: f64 = 30.0;
