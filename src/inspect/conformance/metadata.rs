//! PES packets of one metadata stream enter, breaches of ST 1402, ST 0601 and ST 0902 leave. Never believes what the
//! tables say: the bytes decide which rules apply.

use super::checks::{Check, Checks, Moment};
use super::minimum::Minimum;
use crate::wire::klv::{Checksum, Fault, Issue, Label, PREFIX, Packet, Value, split};
use crate::wire::ts::demux::{Elementary, Format, Pes};
use crate::wire::ts::metadata::{Carriage, Counters, Metadata, cells};
use crate::wire::ts::psi::descriptors;

/// A metadata stream of a program.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) pid: u16,
    stream_type: u8,
    descriptors: Vec<u8>,
    /// The tables call it KLV.
    klv: bool,
    /// The program has pictures.
    pictures: bool,
    /// What the PMT says was looked at.
    declared: bool,
    metadata: Metadata,
    carriage: Option<Carriage>,
    sequence: Option<u8>,
    /// A unit of several cells is under way.
    fragment: bool,
    minimum: Minimum,
    last_time: Option<u64>,
    last_seconds: Option<f64>,
    pub(super) packets: u64,
    pub(super) version: Option<u64>,
}

/// A packet of metadata that says what time it is.
pub(super) struct Told {
    /// Microseconds since 1970.
    pub(super) time: u64,
    pub(super) synchronous: bool,
}

impl Lane {
    pub(super) fn new(elementary: &Elementary, pictures: bool) -> Self {
        Self {
            pid: elementary.pid,
            stream_type: elementary.stream_type,
            descriptors: elementary.descriptors.clone(),
            klv: elementary.format == CALLED_KLV,
            pictures,
            declared: false,
            metadata: Metadata::default(),
            carriage: None,
            sequence: None,
            fragment: false,
            minimum: Minimum::default(),
            last_time: None,
            last_seconds: None,
            packets: 0,
            version: None,
        }
    }

    /// The tables say something new of it.
    pub(super) fn follow(&mut self, elementary: &Elementary, pictures: bool) {
        self.stream_type = elementary.stream_type;
        self.descriptors.clone_from(&elementary.descriptors);
        self.klv = elementary.format == CALLED_KLV;
        (self.pictures, self.declared) = (pictures, false);
    }

    /// How it travels, as far as the bytes showed.
    pub(super) fn carriage(&self) -> Option<Carriage> {
        self.carriage
    }

    /// Packets are missing in front of what comes next.
    pub(super) fn reset(&mut self) {
        self.metadata.reset();
        (self.sequence, self.fragment) = (None, false);
    }

    /// What comes was made before what came.
    pub(super) fn begin_anew(&mut self) {
        self.reset();
        self.last_time = None;
    }

    /// Takes a PES packet; `pcr` is the last one of its program.
    pub(super) fn take(
        &mut self,
        pes: &Pes<'_>,
        pcr: Option<u64>,
        moment: Moment,
        checks: &mut Checks,
        told: &mut impl FnMut(Told),
    ) {
        let before = self.metadata.counters();
        let mut found = None;
        let mut units: Vec<Vec<u8>> = Vec::new();
        let mut take = |unit: &[u8], carriage| {
            found = Some(carriage);
            units.push(unit.to_vec());
        };
        self.metadata.push_sound(pes.data, pes.sound, &mut take);
        let lost = pes.sound < pes.data.len();
        if lost {
            (self.sequence, self.fragment) = (None, false);
        }
        let seen = self.metadata.counters();
        if found.is_some() || self.carriage.is_some() || self.klv {
            self.whole(pes, (before, seen), lost, moment, checks);
        }
        // what goes on with a unit travels as the unit did
        let Some(carriage) = found.or(self.carriage) else { return };
        self.carriage = Some(carriage);
        self.declared(carriage, moment, checks);
        self.packet(pes, carriage, moment, checks);
        match carriage {
            _ if lost => {}
            Carriage::Cells => {
                self.cells(pes.data, moment, checks);
                if let Some((pts, pcr)) = pes.header.pts.zip(pcr) {
                    delay(pts, pcr, moment, checks);
                }
            }
            Carriage::Bare => {
                let starts = pes.data.starts_with(&PREFIX);
                checks.hold(Check::Alignment, pes.header.data_alignment == starts, moment, || {
                    format!(
                        "data_alignment_indicator is {}, and the PES packet {} with a key",
                        u8::from(pes.header.data_alignment),
                        if starts { "starts" } else { "does not start" }
                    )
                });
            }
        }
        for unit in units {
            for piece in split(&unit) {
                if let Some(time) = self.klv(piece.bytes(), moment, checks) {
                    told(Told { time, synchronous: carriage == Carriage::Cells });
                }
            }
        }
    }

    /// The stream has ended.
    pub(super) fn finish(&mut self, moment: Moment, checks: &mut Checks) {
        if self.packets > 0 {
            let missing = self.minimum.finish();
            checks.hold(Check::Minimum, missing.is_empty(), moment, || {
                format!("never came: {}", missing.join(", "))
            });
        }
    }

    /// What the PMT says, once for each.
    fn declared(&mut self, carriage: Carriage, moment: Moment, checks: &mut Checks) {
        if std::mem::replace(&mut self.declared, true) {
            return;
        }
        let stream_type = self.stream_type;
        let (wanted, is) = match carriage {
            Carriage::Bare => (0x06, "bare KLV packets (asynchronous)"),
            Carriage::Cells => (0x15, "metadata access unit cells (synchronous)"),
        };
        checks.hold(Check::StreamType, stream_type == wanted, moment, || {
            format!("the PMT says stream_type {stream_type:#04x}; it carries {is}, which is {wanted:#04x}")
        });
        checks.hold(Check::SameProgram, self.pictures, moment, || "its program has no pictures".into());
        let all = || descriptors(&self.descriptors);
        match carriage {
            Carriage::Bare => {
                let there = all().any(|(tag, payload)| tag == 0x05 && payload.starts_with(b"KLVA"));
                checks.hold(Check::Registration, there, moment, || {
                    "its PMT entry has no registration_descriptor KLVA".into()
                });
            }
            Carriage::Cells => {
                // metadata_application_format, metadata_format 0xff and its identifier
                let klva = |payload: &[u8]| matches!(payload, [_, _, 0xff, b'K', b'L', b'V', b'A', ..]);
                let there = all().any(|(tag, payload)| tag == 0x26 && klva(payload));
                checks.hold(Check::MetadataDescriptor, there, moment, || {
                    "its PMT entry has no metadata_descriptor of format KLVA".into()
                });
                let (whole, count) = all()
                    .filter(|(tag, _)| *tag == 0x27)
                    .fold((true, 0), |(whole, n), d| (whole && d.1.len() >= 9, n + 1));
                checks.hold(Check::MetadataStd, whole && count == 1, moment, || match (count, whole) {
                    (0, _) => "its PMT entry has no metadata_STD_descriptor".into(),
                    (1, _) => "its metadata_STD_descriptor is cut off".into(),
                    (count, _) => format!("its PMT entry has {count} metadata_STD_descriptors"),
                });
            }
        }
    }

    /// Whether a PES packet holds nothing but KLV, all of it.
    fn whole(
        &self,
        pes: &Pes<'_>,
        (before, seen): (Counters, Counters),
        lost: bool,
        moment: Moment,
        checks: &mut Checks,
    ) {
        let (foreign, junk) = (seen.foreign > before.foreign, seen.junk - before.junk);
        let broken = seen.broken > before.broken && !lost;
        checks.hold(Check::Structure, !foreign && junk == 0 && !broken, moment, || {
            if foreign {
                format!("a PES packet of {} bytes without KLV", pes.data.len())
            } else if junk > 0 {
                format!("{junk} bytes that are no KLV")
            } else {
                "the rest of a KLV packet never came".into()
            }
        });
        checks.hold(Check::PesLength, lost || !pes.damaged, moment, || {
            let (said, came) =
                (pes.header.packet_length, pes.data.len() + pes.header.header_len - BEFORE_LENGTH);
            format!("PES_packet_length is {said}, and {came} bytes came")
        });
    }

    /// What every PES packet must have.
    fn packet(&self, pes: &Pes<'_>, carriage: Carriage, moment: Moment, checks: &mut Checks) {
        let header = &pes.header;
        let (wanted, is) = match carriage {
            Carriage::Bare => (0xbd, "asynchronous"),
            Carriage::Cells => (0xfc, "synchronous"),
        };
        checks.hold(Check::StreamId, header.stream_id == wanted, moment, || {
            format!("stream_id is {:#04x}; that of {is} KLV is {wanted:#04x}", header.stream_id)
        });
        checks.hold(Check::PesLength, header.packet_length > 0, moment, || "PES_packet_length is 0".into());
        match carriage {
            Carriage::Bare => {
                checks.hold(
                    Check::PtsForbidden,
                    header.pts.is_none() && header.dts.is_none(),
                    moment,
                    || "asynchronous KLV has a PTS".into(),
                );
            }
            Carriage::Cells => {
                checks.hold(Check::PtsRequired, header.pts.is_some(), moment, || {
                    "synchronous KLV has no PTS: nobody knows to which picture it belongs".into()
                });
            }
        }
    }

    fn cells(&mut self, payload: &[u8], moment: Moment, checks: &mut Checks) {
        let (cells, behind) = cells(payload);
        checks.hold(Check::Cells, behind == 0, moment, || {
            format!("{behind} bytes behind the last cell: it is cut off, or its length is wrong")
        });
        for cell in cells {
            checks.hold(Check::Cells, cell.reserved, moment, || "reserved bits of a cell are not 1".into());
            checks.hold(Check::Cells, cell.starts != self.fragment, moment, || {
                if cell.starts {
                    "a unit starts before the one before it ended"
                } else {
                    "a part of a unit whose start is missing"
                }
                .into()
            });
            self.fragment = !cell.ends;
            if let Some(last) = self.sequence.replace(cell.sequence) {
                let expected = last.wrapping_add(1);
                checks.hold(Check::Sequence, cell.sequence == expected, moment, || {
                    format!("the sequence number is {} behind {last}, {expected} was expected", cell.sequence)
                });
            }
        }
    }

    /// A KLV packet; what time it says it is.
    fn klv(&mut self, bytes: &[u8], moment: Moment, checks: &mut Checks) -> Option<u64> {
        if !bytes.starts_with(&PREFIX) {
            checks.hold(Check::Structure, false, moment, || {
                format!("{} bytes between KLV packets", bytes.len())
            });
            return None;
        }
        let packet = Packet::read(bytes);
        if packet.label != Label::Uas {
            return None;
        }
        self.packets += 1;
        if let Some(last) = self.last_seconds.replace(moment.seconds) {
            let passed = moment.seconds - last;
            checks.hold(Check::Rate, passed <= WITHIN, moment, || format!("no metadata for {passed:.1} s"));
        }
        let right = !matches!(packet.checksum, Checksum::Wrong { .. });
        checks.hold(Check::Checksum, right, moment, || match packet.checksum {
            Checksum::Wrong { stored, computed } => {
                format!("the checksum says {stored:#06x}, the bytes make {computed:#06x}")
            }
            _ => String::new(),
        });
        if !right {
            return None;
        }
        self.issues(&packet.issues, moment, checks);
        let time = packet.time();
        if let Some(time) = time
            && let Some(last) = self.last_time.replace(time)
        {
            checks.hold(Check::Time, time >= last, moment, || {
                format!("the time stamp goes back by {:.3} s", (last - time) as f64 / 1e6)
            });
        }
        self.version = packet.set.value(65).and_then(Value::count).or(self.version);
        if packet.set.value(65).is_some() {
            checks.hold(Check::Version, self.version != Some(0), moment, || "the version is 0".into());
        }
        let overdue = self.minimum.take(&packet.set, moment.seconds);
        if self.minimum.is_judged(moment.seconds) {
            checks.hold(Check::Minimum, overdue.is_empty(), moment, || {
                format!("did not come for 30 s: {}", overdue.join(", "))
            });
        }
        time
    }

    /// Each rule counts a packet once, however much is wrong with it.
    fn issues(&self, issues: &[Issue], moment: Moment, checks: &mut Checks) {
        for (check, belongs) in BELONGS {
            let mut of = issues.iter().filter(|issue| belongs(issue));
            let first = of.next();
            let more = of.count();
            checks.hold(check, first.is_none(), moment, || {
                let first = first.map(ToString::to_string).unwrap_or_default();
                if more > 0 { format!("{first}, and {more} more") } else { first }
            });
        }
    }
}

/// Whether an issue belongs to a rule.
type Belongs = fn(&Issue) -> bool;

/// The rule that an issue belongs to.
const BELONGS: [(Check, Belongs); 6] = [
    (Check::Structure, |issue| {
        matches!(issue.what, Fault::Key | Fault::Truncated | Fault::Trailing(_) | Fault::TooMuch)
    }),
    (Check::Mandatory, |issue| issue.what == Fault::Missing && issue.set == ROOT),
    (Check::Order, |issue| issue.what == Fault::Misplaced),
    (Check::Items, |issue| {
        let nested = issue.what == Fault::Missing && issue.set != ROOT && issue.set != SECURITY;
        nested || matches!(issue.what, Fault::Length(..) | Fault::Range | Fault::Encoding | Fault::Duplicate)
    }),
    (Check::Security, |issue| issue.what == Fault::Missing && issue.set == SECURITY),
    (Check::Deviations, |issue| matches!(issue.what, Fault::Salvaged(_))),
];

/// Synchronous metadata waits at most a second for its picture (T-STD of ISO/IEC 13818-1, 2.12.10).
fn delay(pts: u64, pcr: u64, moment: Moment, checks: &mut Checks) {
    let ahead = crate::wire::ts::packet::pcr_delta(pcr, pts * 300) as f64 / 27e6;
    checks.hold(Check::Delay, (0.0..=1.1).contains(&ahead), moment, || {
        if ahead < 0.0 {
            format!("it came {:.3} s after its PTS", -ahead)
        } else {
            format!("it came {ahead:.3} s before its PTS")
        }
    });
}

const ROOT: &str = "ST 0601";
const SECURITY: &str = "ST 0102";
const CALLED_KLV: Format = Format::Metadata { declared: true };
/// Bytes of a PES header that its length does not count.
const BEFORE_LENGTH: usize = 6;
/// ST 0107: seconds.
const WITHIN: f64 = 30.0;
