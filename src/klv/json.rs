//! Packets enter, a JSON object a line leaves. Never writes a number for what is none.

use std::io::{self, Write};

use millrace::tak::cot::write_stamp;
use millrace::wire::klv::{Checksum, Hex, Issue, Item, Value};
use millrace::wire::ts::metadata::Carriage;
use serde::Serialize;

use super::{Found, Render};

/// Writes each packet as an object.
pub(super) struct Json {
    raw: bool,
}

impl Json {
    /// With the bytes of packets and items, or without.
    pub(super) fn new(raw: bool) -> Self {
        Self { raw }
    }
}

/// A line.
#[derive(Serialize)]
struct Line<'a> {
    packet: u64,
    program: Option<u16>,
    pid: Option<u16>,
    carriage: Option<&'static str>,
    pts: Option<u64>,
    seconds: Option<f64>,
    time_us: Option<u64>,
    time: Option<String>,
    set: &'static str,
    length: usize,
    checksum: Checksum,
    items: Vec<Entry<'a>>,
    issues: &'a [Issue],
    #[serde(skip_serializing_if = "Option::is_none")]
    raw: Option<String>,
}

#[derive(Serialize)]
struct Entry<'a> {
    tag: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'static str,
    value: &'a Value<'a>,
    #[serde(skip_serializing_if = "str::is_empty")]
    unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw: Option<String>,
}

impl Render for Json {
    fn packet(&mut self, found: &Found<'_>, to: &mut dyn Write) -> io::Result<()> {
        let packet = &found.packet;
        let hex = |bytes: &[u8]| self.raw.then(|| Hex(bytes).to_string());
        let entry = |item| entry(item, hex);
        let time = packet.time();
        let line = Line {
            packet: found.number,
            program: found.program,
            pid: found.pid,
            carriage: found.carriage.map(carriage),
            pts: found.pts,
            seconds: found.seconds,
            time_us: time,
            time: time.map(stamp),
            set: packet.set.spec.name,
            length: found.bytes.len(),
            checksum: packet.checksum,
            items: found.set.items.iter().map(entry).collect(),
            issues: &packet.issues,
            raw: hex(found.bytes),
        };
        serde_json::to_writer(&mut *to, &line)?;
        to.write_all(b"\n")
    }
}

fn entry<'a>(item: &'a Item<'a>, hex: impl Fn(&[u8]) -> Option<String>) -> Entry<'a> {
    Entry {
        tag: item.tag,
        name: item.name(),
        value: &item.value,
        unit: item.spec.map_or("", |spec| spec.unit),
        raw: hex(&item.raw),
    }
}

/// As ST 1402 calls it.
pub(super) fn carriage(carriage: Carriage) -> &'static str {
    match carriage {
        Carriage::Bare => "asynchronous",
        Carriage::Cells => "synchronous",
    }
}

/// Microseconds since 1970 as date and time, in the sender's time scale.
pub(super) fn stamp(time: u64) -> String {
    let whole = write_stamp(time / 1000);
    let micro = time % 1000;
    // milliseconds, then what they leave
    whole.strip_suffix('Z').map_or_else(|| whole.clone(), |whole| format!("{whole}{micro:03}Z"))
}
