//! The names of columns enter, what they take out of a packet leaves as text. Never changes a name once it was given:
//! the names of items are those of ST 0601 in lower case with `_` between words.

use std::fmt::Write as _;
use std::io::{self, Write};

use millrace::wire::klv::{Checksum, Hex, Kind, ST0601, Set, SetSpec, Spec, Uuid, Value};

use super::Found;
use super::json::{carriage, stamp};

/// The columns of a table.
#[derive(Debug)]
pub(super) struct Columns(Vec<Column>);

#[derive(Debug, Clone)]
struct Column {
    name: String,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    /// One of [`ABOUT`].
    About(&'static str),
    /// An item, or an item of a set inside.
    Item(Vec<u32>),
}

impl Columns {
    /// Reads what was asked for; nothing = the usual ones.
    ///
    /// # Errors
    /// Names what is no column, and what comes near.
    pub(super) fn parse(fields: &[String]) -> Result<Self, String> {
        let usual: Vec<String>;
        let fields = if fields.is_empty() {
            usual = USUAL.iter().map(|field| (*field).to_owned()).collect();
            &usual
        } else {
            fields
        };
        let mut columns = Vec::new();
        for field in fields.iter().map(|field| field.trim()) {
            if field == "all" {
                columns.extend(ABOUT.iter().map(|(name, _)| about(name)));
                columns.extend(ST0601.items.iter().map(|spec| item(&[spec])));
            } else {
                columns.push(column(field)?);
            }
        }
        Ok(Self(columns))
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|column| column.name.as_str())
    }

    /// The text of each column; empty where the packet says nothing, or nothing that is a value.
    pub(super) fn values(&self, found: &Found<'_>) -> impl Iterator<Item = String> {
        self.0.iter().map(|column| match &column.what {
            What::About(name) => say(name, found),
            What::Item(path) => find(&found.set, path).map_or_else(String::new, text),
        })
    }
}

/// Lists every column.
pub(super) fn list(to: &mut dyn Write) -> io::Result<()> {
    let usual = |name: &str| if USUAL.contains(&name) { "*" } else { "" };
    writeln!(
        to,
        "Columns of --format csv; those with * are the usual ones. Nested sets: 48.1 or security_local_set.1\n"
    )?;
    for (name, says) in ABOUT {
        writeln!(to, "{:>4} {:1} {name:<46} {says}", "", usual(name))?;
    }
    for spec in ST0601.items {
        let name = snake(spec.name);
        writeln!(to, "{:>4} {:1} {name:<46} {}", spec.tag, usual(&name), spec.unit)?;
    }
    for spec in ST0601.items.iter().filter(|spec| spec.tag == 48) {
        let Kind::Set(set) = spec.kind else { continue };
        for inside in set.items {
            let (name, tag) = (format!("{}.{}", snake(spec.name), snake(inside.name)), inside.tag);
            writeln!(to, "{:>7} {:1} {name}", format!("48.{tag}"), usual(&name))?;
        }
    }
    Ok(())
}

fn about(name: &'static str) -> Column {
    Column { name: name.into(), what: What::About(name) }
}

fn item(path: &[&'static Spec]) -> Column {
    let name = path.iter().map(|spec| snake(spec.name)).collect::<Vec<_>>().join(".");
    Column { name, what: What::Item(path.iter().map(|spec| spec.tag).collect()) }
}

fn column(field: &str) -> Result<Column, String> {
    if let Some((name, _)) = ABOUT.iter().find(|(name, _)| *name == field) {
        return Ok(about(name));
    }
    let mut set: &'static SetSpec = &ST0601;
    let mut path = Vec::new();
    for part in field.split('.') {
        let known = match part.parse() {
            Ok(tag) => set.find(tag),
            Err(_) => set.items.iter().find(|spec| snake(spec.name) == part),
        };
        let Some(spec) = known else { return Err(unknown(field, part, set)) };
        path.push(spec);
        if let Kind::Set(inside) = spec.kind {
            set = inside;
        }
    }
    let inside = path.iter().rev().skip(1).all(|spec| matches!(spec.kind, Kind::Set(_)));
    if inside {
        Ok(item(&path))
    } else {
        Err(format!("`{field}`: only sets hold items; --list-fields lists all"))
    }
}

fn unknown(field: &str, part: &str, set: &SetSpec) -> String {
    let near = |spec: &&Spec| {
        let name = snake(spec.name);
        part.split('_').filter(|word| word.len() > 2 && name.contains(*word)).count()
    };
    let best = set.items.iter().max_by_key(near).filter(|spec| near(spec) > 0);
    let hint =
        best.map(|spec| format!("did you mean `{}` ({})? ", snake(spec.name), spec.tag)).unwrap_or_default();
    format!("`{field}` is no column: {} has no item `{part}`. {hint}--list-fields lists all", set.name)
}

fn snake(name: &str) -> String {
    let words = name.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect::<Vec<_>>().join("_")
}

fn find<'a>(set: &'a Set<'a>, path: &[u32]) -> Option<&'a Value<'a>> {
    match path {
        [] => None,
        [tag] => set.value(*tag),
        [tag, rest @ ..] => match set.value(*tag)? {
            Value::Set(inside) => find(inside, rest),
            _ => None,
        },
    }
}

fn say(name: &str, found: &Found<'_>) -> String {
    let number = |value: Option<u64>| value.map_or_else(String::new, |value| value.to_string());
    let time = found.packet.time();
    match name {
        "packet" => found.number.to_string(),
        "program" => number(found.program.map(u64::from)),
        "pid" => number(found.pid.map(u64::from)),
        "carriage" => found.carriage.map(carriage).unwrap_or_default().into(),
        "pts" => number(found.pts),
        "seconds" => found.seconds.map_or_else(String::new, |seconds| format!("{seconds:.6}")),
        "time_us" => number(time),
        "time" => time.map(stamp).unwrap_or_default(),
        "checksum_status" => match found.packet.checksum {
            Checksum::Right => "right".into(),
            Checksum::Wrong { .. } => "wrong".into(),
            Checksum::None => "none".into(),
        },
        "issues" => found.packet.issues.len().to_string(),
        _ => String::new(),
    }
}

/// What is no value leaves its field empty: unknown, and code words that stand for no number.
fn text(value: &Value<'_>) -> String {
    match value {
        Value::Unknown | Value::Special(_) => String::new(),
        Value::Uint(value) | Value::Time(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Real(value) => value.to_string(),
        Value::Choice(choice) => choice.label.into(),
        Value::Flags(bits, names) => {
            let set = names.0.iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1);
            set.map(|(_, name)| *name).collect::<Vec<_>>().join("|")
        }
        Value::Text(text) => plain(text),
        Value::Uuid(id) => Uuid(id).to_string(),
        Value::Raw(bytes) => Hex(bytes).to_string(),
        // the identifier has a form that people know
        Value::Record(_) if value.field("text").and_then(Value::text).is_some() => {
            plain(value.field("text").and_then(Value::text).unwrap_or_default())
        }
        Value::List(_) | Value::Record(_) | Value::Set(_) => serde_json::to_string(value).unwrap_or_default(),
    }
}

/// Text came from the network. Spreadsheets take a field that starts so for a formula, terminals obey control characters.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 1);
    if text.starts_with(['=', '+', '-', '@']) {
        out.push('\'');
    }
    for c in text.chars() {
        let _ = out.write_char(if c.is_control() { ' ' } else { c });
    }
    out
}

/// Columns about the packet, and what they say.
const ABOUT: [(&str, &str); 10] = [
    ("packet", "number of the packet, from 1 on"),
    ("program", "program_number; empty in a file of KLV"),
    ("pid", "PID"),
    ("carriage", "asynchronous or synchronous (ST 1402), as the bytes are"),
    ("pts", "presentation time of its PES packet, 1/90000 s"),
    ("seconds", "since the first packet, by the program's clock; by item 2 in a file of KLV"),
    ("time_us", "item 2, microseconds since 1970, in the sender's time scale"),
    ("time", "the same as date and time"),
    ("checksum_status", "right, wrong or none"),
    ("issues", "how many things are wrong with the packet; --format json names them"),
];

/// What is written when nothing else is asked for. Only ever to be made longer, at the end.
const USUAL: [&str; 49] = [
    "time_us",
    "time",
    "seconds",
    "program",
    "pid",
    "pts",
    "checksum_status",
    "issues",
    "mission_id",
    "platform_tail_number",
    "platform_designation",
    "image_source_sensor",
    "platform_heading_angle",
    "platform_pitch_angle",
    "platform_roll_angle",
    "platform_pitch_angle_full",
    "platform_roll_angle_full",
    "platform_ground_speed",
    "sensor_latitude",
    "sensor_longitude",
    "sensor_true_altitude",
    "sensor_ellipsoid_height",
    "sensor_horizontal_field_of_view",
    "sensor_vertical_field_of_view",
    "sensor_relative_azimuth_angle",
    "sensor_relative_elevation_angle",
    "sensor_relative_roll_angle",
    "slant_range",
    "target_width",
    "frame_center_latitude",
    "frame_center_longitude",
    "frame_center_elevation",
    "frame_center_height_above_ellipsoid",
    "target_location_latitude",
    "target_location_longitude",
    "target_location_elevation",
    "corner_latitude_point_1_full",
    "corner_longitude_point_1_full",
    "corner_latitude_point_2_full",
    "corner_longitude_point_2_full",
    "corner_latitude_point_3_full",
    "corner_longitude_point_3_full",
    "corner_latitude_point_4_full",
    "corner_longitude_point_4_full",
    "platform_call_sign",
    "security_local_set.security_classification",
    "security_local_set.classifying_country",
    "uas_datalink_ls_version_number",
    "miis_core_identifier",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn names(fields: &[&str]) -> Result<Vec<String>, String> {
        let fields: Vec<String> = fields.iter().map(|field| (*field).into()).collect();
        Columns::parse(&fields).map(|columns| columns.names().map(str::to_owned).collect())
    }

    #[test]
    fn columns_are_named_by_number_or_name() {
        assert_eq!(names(&[]).expect("the usual ones"), USUAL);
        assert_eq!(
            names(&["14", "sensor_latitude", "48.1", "security_local_set.3", " time "]).expect("columns"),
            [
                "sensor_longitude",
                "sensor_latitude",
                "security_local_set.security_classification",
                "security_local_set.classifying_country",
                "time"
            ]
        );
        let all = names(&["all"]).expect("all");
        assert_eq!(all.len(), ABOUT.len() + 143);
        let mut once = all.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), all.len(), "two columns of one name");
    }

    #[test]
    fn what_is_no_column_is_said_with_what_comes_near() {
        let error = names(&["sensor_lattitude"]).expect_err("a mistake");
        assert!(error.contains("`sensor_lattitude` is no column") && error.contains("sensor_"), "{error}");
        assert!(names(&["13.1"]).expect_err("no set").contains("only sets hold items"));
        assert!(names(&["48.99"]).expect_err("no item").contains("ST 0102 has no item `99`"));
        assert!(names(&["144"]).is_err());
    }

    #[test]
    fn text_of_senders_is_no_formula_and_no_command() {
        assert_eq!(plain("=1+1"), "'=1+1");
        assert_eq!(plain("a\u{1b}[2Jb\n"), "a [2Jb ");
        assert_eq!(text(&Value::Real(-1.5)), "-1.5");
    }
}
