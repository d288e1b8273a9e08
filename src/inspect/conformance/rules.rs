//! The rules: what each is called, where it stands, and what exactly is measured. Holds no stream.

use serde::Serialize;

use super::checks::Check;
use crate::wire::ts::Vital;

/// A rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Its name for machines; never changes.
    pub id: &'static str,
    /// What it asks for.
    pub title: &'static str,
    /// Where it stands.
    pub clause: &'static str,
    /// 1 = the stream cannot be decoded, 2 = it should be watched, 3 = good to know (as in TR 101 290).
    pub priority: u8,
    /// What is measured, and what makes it not applicable.
    pub measured: &'static str,
    #[serde(skip)]
    pub(super) source: Source,
}

/// Who keeps the count of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Vital(Vital),
    Check(Check),
}

const fn vital(
    vital: Vital,
    priority: u8,
    id: &'static str,
    title: &'static str,
    clause: &'static str,
    measured: &'static str,
) -> Rule {
    Rule { id, title, clause, priority, measured, source: Source::Vital(vital) }
}

const fn check(
    check: Check,
    priority: u8,
    id: &'static str,
    title: &'static str,
    clause: &'static str,
    measured: &'static str,
) -> Rule {
    Rule { id, title, clause, priority, measured, source: Source::Check(check) }
}

/// Every rule, in the order in which they are reported.
#[rustfmt::skip]
pub static RULES: [Rule; 44] = [
    vital(Vital::SyncLoss, 1, "tr101290.ts_sync_loss", "Packets stay where their sync bytes put them", "TR 101 290, 1.1",
        "times the grid of sync bytes was lost and found again somewhere else"),
    vital(Vital::SyncByte, 1, "tr101290.sync_byte_error", "Every packet starts with 0x47", "TR 101 290, 1.2",
        "stretches of bytes that are no packets"),
    vital(Vital::Pat, 1, "tr101290.pat_error", "A PAT comes at least every 0.5 s, in the clear", "TR 101 290, 1.3 (PAT_error_2)",
        "gaps, by the stream's own clock; proven by the PCRs around them"),
    vital(Vital::Continuity, 1, "tr101290.continuity_count_error", "No packet is missing, doubled twice or out of order", "TR 101 290, 1.4",
        "jumps of the continuity counters, all PIDs"),
    vital(Vital::Pmt, 1, "tr101290.pmt_error", "Every PMT comes at least every 0.5 s, in the clear", "TR 101 290, 1.5 (PMT_error_2)",
        "gaps, by the stream's own clock; proven by the PCRs around them"),
    vital(Vital::Pid, 1, "tr101290.pid_error", "Every stream that the tables name is there", "TR 101 290, 1.6",
        "pictures, sound or clock away for 5 s, KLV for 30 s, by the stream's own clock"),
    vital(Vital::Transport, 2, "tr101290.transport_error", "No packet is marked as damaged", "TR 101 290, 2.1",
        "packets with transport_error_indicator"),
    vital(Vital::Crc, 2, "tr101290.crc_error", "Tables have the right CRC", "TR 101 290, 2.2",
        "sections of PAT and PMT with a wrong CRC or length; other tables are not read"),
    vital(Vital::PcrRepetition, 2, "tr101290.pcr_repetition_error", "A PCR comes at least every 100 ms", "TR 101 290, 2.3a; ST 1402.2, 7.2; ISO/IEC 13818-1, 2.7.2",
        "differences of successive PCRs between 100 ms and 1 s; stretches without a PCR, by arrival"),
    vital(Vital::PcrDiscontinuity, 2, "tr101290.pcr_discontinuity_indicator_error", "The clock jumps only where that is announced", "TR 101 290, 2.3b",
        "steps of the PCR back, or by more than 1 s, without discontinuity_indicator"),
    vital(Vital::PcrAccuracy, 2, "tr101290.pcr_accuracy_error", "PCRs are right to 0.5 us", "TR 101 290, 2.4; ISO/IEC 13818-1, 2.4.2.2",
        "PCRs of a program off the line that 32 of them make over their bytes, up to 16 programs; not applicable while the bit rate varies"),
    vital(Vital::PcrArrival, 2, "ts102034.pcr_jitter", "PCRs arrive when they say, to 40 ms", "ETSI TS 102 034 (network jitter); TR 101 290, 2.4 (PCR_OJ)",
        "arrival of a PCR after the one before of its program, less what the clock says: jitter of source and network \
         together, as the kernel stamps datagrams; not applicable to files"),
    vital(Vital::Pts, 2, "tr101290.pts_error", "A PTS comes at least every 0.7 s", "TR 101 290, 2.5; ST 1402.2, 7.3",
        "differences of successive PTS of pictures and sound"),
    vital(Vital::Cat, 2, "tr101290.cat_error", "Scrambled streams have a CAT", "TR 101 290, 2.6",
        "not applicable while nothing is scrambled"),
    vital(Vital::Unreferenced, 3, "tr101290.unreferenced_pid", "Every PID is named by a table", "TR 101 290, 3.4",
        "PIDs from 0x20 on that came for 0.5 s without being named"),
    vital(Vital::TableRate, 2, "st1402.table_rate", "PAT and PMT come more than four times a second", "ST 1402.2, ST 1402-02",
        "gaps of more than 250 ms, by the stream's own clock; proven by the PCRs around them"),
    check(Check::StreamType, 2, "st1402.stream_type", "KLV is declared as what it is", "ST 1402.2, ST 1402-06 and -23",
        "stream_type 0x06 for bare KLV, 0x15 for metadata access unit cells; what the bytes are decides; once for each PMT"),
    check(Check::StreamId, 2, "st1402.stream_id", "PES packets of KLV have the right stream_id", "ST 1402.2; ISO/IEC 13818-1, table 2-22",
        "0xBD for asynchronous, 0xFC for synchronous KLV; each PES packet"),
    check(Check::Registration, 2, "st1402.registration", "Asynchronous KLV is registered as KLVA", "ST 1402.2, ST 1402-03 and -25",
        "registration_descriptor of its PMT entry; once for each PMT"),
    check(Check::MetadataDescriptor, 2, "st1402.metadata_descriptor", "Synchronous KLV has a metadata_descriptor of format KLVA", "ST 1402.2, ST 1402-15 and 1402.1-26",
        "descriptors of its PMT entry; once for each PMT"),
    check(Check::MetadataStd, 2, "st1402.metadata_std", "Synchronous KLV has one metadata_STD_descriptor", "ST 1402.2, ST 1402-17",
        "descriptors of its PMT entry; once for each PMT"),
    check(Check::SameProgram, 2, "st1402.program", "KLV is in the program of its pictures", "ST 1402.2, ST 1402-14 and -24",
        "once for each PMT"),
    check(Check::PtsForbidden, 2, "st1402.pts_forbidden", "Asynchronous KLV has no PTS", "ST 1402.2, 9",
        "each PES packet"),
    check(Check::PtsRequired, 1, "st1402.pts_required", "Synchronous KLV has a PTS", "ST 1402.2, 8; ISO/IEC 13818-1, 2.12.4",
        "each PES packet"),
    check(Check::Delay, 2, "st1402.delay", "Synchronous KLV comes before its PTS, by at most 1 s", "ST 1402.2, ST 1402-12",
        "PTS less the last PCR of the program, give or take the 100 ms that may lie between two of them"),
    check(Check::Cells, 1, "st1402.cells", "Metadata access unit cells are whole", "ISO/IEC 13818-1, 2.12.4.2",
        "cells that are cut off, fragments out of order, reserved bits"),
    check(Check::Sequence, 2, "st1402.sequence", "Sequence numbers of cells run on", "ISO/IEC 13818-1, 2.12.4.2",
        "each cell; not across lost packets"),
    check(Check::Alignment, 3, "st1402.alignment", "data_alignment_indicator says where KLV starts", "ST 1402.2, 9",
        "asynchronous KLV: 1 where the PES packet starts with a key, else 0"),
    check(Check::PesLength, 2, "st1402.pes_length", "PES packets of KLV say how long they are", "ISO/IEC 13818-1, 2.4.3.7",
        "PES_packet_length 0 is for pictures only"),
    check(Check::Structure, 1, "st0601.structure", "KLV packets are whole", "SMPTE ST 336; ST 0601.19",
        "key, length, nesting; each packet"),
    check(Check::Checksum, 1, "st0601.checksum", "KLV packets are as they were sent", "ST 0601.19, item 1",
        "checksums that are wrong; such packets are looked at no further"),
    check(Check::Mandatory, 1, "st0601.mandatory", "Time stamp, version and checksum are in every packet", "ST 0601.19, items 1, 2 and 65",
        "each packet"),
    check(Check::Order, 2, "st0601.order", "The time stamp is first, the checksum last", "ST 0601.19, 6; ST 1607",
        "each packet; items that may not stand where they do"),
    check(Check::Version, 3, "st0601.version", "The version names an edition of ST 0601", "ST 0601.19, item 65",
        "0 names none"),
    check(Check::Items, 2, "st0601.items", "Items have the length, range and form that they must have", "ST 0601.19, 8",
        "each packet with such an item, nested sets too"),
    check(Check::Time, 2, "st0601.time", "Time does not go back", "ST 0601.19, item 2; ST 0603.5, 6",
        "each packet against the one before on its PID"),
    check(Check::Rate, 2, "st0601.rate", "Metadata comes at least every 30 s", "ST 0107.5; ST 0902.8",
        "time between packets of a PID, by the stream's own clock"),
    check(Check::Deviations, 3, "st0601.deviations", "Nothing has to be read otherwise than it is written", "ST 0601.19; ST 0102.12",
        "deviations that are known from the field and were understood"),
    check(Check::Security, 2, "st0102.mandatory", "Security sets are complete", "ST 0102.12",
        "mandatory items that a security set leaves out; each packet"),
    check(Check::Minimum, 2, "st0902.minimum", "The minimum metadata set is there", "ST 0902.8, table 1; ST 0902.3-04",
        "items that did not come for 30 s, in the stream's own time; not applicable before; a file is judged at its end"),
    check(Check::StampPresent, 2, "st0604.present", "Every picture has one time stamp", "MISP-2018.1-104; ST 0604.6",
        "user_data_unregistered in front of the first slice, H.264 and H.265; not applicable without metadata"),
    check(Check::StampOrder, 2, "st0604.order", "Time stamps of pictures go on", "ST 0603.5, 6",
        "order of time stamps against that of PTS; announced jumps are none"),
    check(Check::StampLocked, 3, "st0604.locked", "The clock of the pictures follows a reference", "ST 0603.5, 7.4",
        "status of each time stamp"),
    check(Check::StampAgrees, 2, "st0604.agrees", "Pictures and metadata agree on what time it is", "ST 0604.6; ST 1402.2, 8",
        "item 2 against the picture of the same PTS to 0.1 s; asynchronous KLV against the pictures around it to 1 s"),
];
