//! Bytes of one transport packet enter, its fields leave (ISO/IEC 13818-1, 2.4.3); restamps in place, never copies.

/// Length of a transport packet in bytes (2.4.3.2).
pub const PACKET: usize = 188;

/// First byte of every packet (2.4.3.3, sync_byte).
pub const SYNC: u8 = 0x47;

/// PID of null packets: padding without meaning, their continuity counter is undefined (2.4.3.3).
pub const NULL_PID: u16 = 0x1fff;

/// PID of the program association table.
pub const PAT_PID: u16 = 0;

/// Ticks of the programme clock in a second (2.4.2.1).
pub const PCR_HZ: u64 = 27_000_000;

/// Where the programme clock wraps: 33 bits of base times 300.
pub const PCR_WRAP: u64 = (1 << 33) * 300;

/// Ticks from `from` to `to` the shorter way round, so that a wrap is no step and a step back is negative.
pub fn pcr_delta(from: u64, to: u64) -> i64 {
    let forward = (to % PCR_WRAP + PCR_WRAP - from % PCR_WRAP) % PCR_WRAP;
    if forward < PCR_WRAP / 2 { forward as i64 } else { forward as i64 - PCR_WRAP as i64 }
}

/// `pcr` moved by `delta` ticks, wrapped.
pub fn pcr_add(pcr: u64, delta: i64) -> u64 {
    let wrap = PCR_WRAP as i64;
    ((pcr % PCR_WRAP) as i64 + delta % wrap).rem_euclid(wrap) as u64
}

/// A view of one transport packet.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a>(&'a [u8; PACKET]);

impl<'a> Packet<'a> {
    /// A view of exactly 188 bytes that start with the sync byte; anything else is none.
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        let bytes: &[u8; PACKET] = bytes.try_into().ok()?;
        (bytes[0] == SYNC).then_some(Self(bytes))
    }

    /// The packets of a datagram of whole packets, in order. Bytes behind the last whole packet and packets
    /// without a sync byte are left out.
    pub fn all(datagram: &'a [u8]) -> impl Iterator<Item = Self> {
        datagram.as_chunks().0.iter().filter(|p: &&[u8; PACKET]| p[0] == SYNC).map(Self)
    }

    /// The 188 bytes.
    pub fn bytes(self) -> &'a [u8; PACKET] {
        self.0
    }

    /// transport_error_indicator: a demodulator found bits that it could not correct. No other field is sure.
    pub fn has_error(self) -> bool {
        self.0[1] & 0x80 != 0
    }

    /// payload_unit_start_indicator: a PES packet or, behind a pointer_field, a section starts here.
    pub fn starts_unit(self) -> bool {
        self.0[1] & 0x40 != 0
    }

    /// Packet identifier, 13 bits.
    pub fn pid(self) -> u16 {
        u16::from_be_bytes([self.0[1] & 0x1f, self.0[2]])
    }

    /// transport_scrambling_control: 0 = the payload is in the clear.
    pub fn scrambling(self) -> u8 {
        self.0[3] >> 6
    }

    /// Whether adaptation_field_control announces a payload. Only such packets count (2.4.3.3).
    pub fn has_payload(self) -> bool {
        self.0[3] & 0x10 != 0
    }

    /// Whether adaptation_field_control announces an adaptation field.
    pub fn has_adaptation(self) -> bool {
        self.0[3] & 0x20 != 0
    }

    /// continuity_counter, 4 bits.
    pub fn continuity(self) -> u8 {
        self.0[3] & 0x0f
    }

    /// The adaptation field; none when there is none, when it is empty, or when its length does not fit.
    pub fn adaptation(self) -> Option<Adaptation<'a>> {
        if !self.has_adaptation() {
            return None;
        }
        let field = self.0[5..].get(..usize::from(self.0[4]))?;
        (!field.is_empty()).then_some(Adaptation(field))
    }

    /// Programme clock reference of this packet in units of 1/27 MHz.
    pub fn pcr(self) -> Option<u64> {
        self.adaptation()?.pcr()
    }

    /// Whether this packet announces that its counter or its clock goes on somewhere else (2.4.3.5).
    pub fn is_discontinuity(self) -> bool {
        self.adaptation().is_some_and(Adaptation::is_discontinuity)
    }

    /// Whether its adaptation field is longer than what is in it: the payload did not fill the packet (2.4.3.4).
    pub fn has_stuffing(self) -> bool {
        self.has_adaptation() && self.adaptation().is_none_or(Adaptation::has_stuffing)
    }

    /// The payload, possibly empty; none when none is announced or the adaptation field does not fit.
    pub fn payload(self) -> Option<&'a [u8]> {
        match self.0[3] & 0x30 {
            0x10 => Some(&self.0[4..]),
            0x30 => self.0.get(5 + usize::from(self.0[4])..),
            _ => None,
        }
    }
}

/// The bytes of an adaptation field behind its length (2.4.3.4); at least the flags.
#[derive(Debug, Clone, Copy)]
pub struct Adaptation<'a>(&'a [u8]);

impl Adaptation<'_> {
    /// discontinuity_indicator.
    pub fn is_discontinuity(self) -> bool {
        self.flags() & 0x80 != 0
    }

    /// random_access_indicator: a decoder can start here. Many encoders never set it.
    pub fn is_random_access(self) -> bool {
        self.flags() & 0x40 != 0
    }

    /// Programme clock reference in units of 1/27 MHz.
    pub fn pcr(self) -> Option<u64> {
        (self.flags() & PCR_FLAG != 0).then(|| self.clock(1)).flatten()
    }

    /// Original programme clock reference in units of 1/27 MHz.
    pub fn opcr(self) -> Option<u64> {
        (self.flags() & OPCR_FLAG != 0).then(|| self.clock(opcr_offset(self.flags()))).flatten()
    }

    fn has_stuffing(self) -> bool {
        let flags = self.flags();
        let clocks = [(PCR_FLAG, 6), (OPCR_FLAG, 6), (0x04, 1)];
        let mut used: usize =
            1 + clocks.iter().filter(|(flag, _)| flags & flag != 0).map(|f| f.1).sum::<usize>();
        // transport_private_data, adaptation_field_extension: a length and as many bytes
        for flag in [0x02, 0x01] {
            if flags & flag != 0 {
                used += 1 + usize::from(self.0.get(used).copied().unwrap_or(0));
            }
        }
        self.0.len() > used
    }

    fn flags(self) -> u8 {
        self.0.first().copied().unwrap_or(0)
    }

    fn clock(self, at: usize) -> Option<u64> {
        let b: [u8; 6] = self.0.get(at..at + 6)?.try_into().ok()?;
        let bits = u64::from_be_bytes([0, 0, b[0], b[1], b[2], b[3], b[4], b[5]]);
        // 33 bits base, 6 reserved, 9 extension
        Some(((bits >> 15) * 300 + (bits & 0x1ff)) % PCR_WRAP)
    }
}

/// What the continuity counter of a packet says about the packets before it on its PID (2.4.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continuity {
    /// The first packet of its PID, or the next one, or one that need not count.
    Ok,
    /// The packet before it once more, which the standard allows: to be passed on, not to be parsed.
    Duplicate,
    /// An announced jump (discontinuity_indicator): what was started does not go on here.
    Jump,
    /// At least one packet is missing.
    Lost,
}

/// Follows the continuity counter of one PID.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counter {
    seen: bool,
    duplicated: bool,
    last: u8,
    print: u64,
}

impl Counter {
    /// Judges the next packet of the PID. Packets with an error flag and null packets must not come here.
    pub fn check(&mut self, packet: Packet<'_>) -> Continuity {
        let count = packet.continuity();
        // A duplicate repeats every byte but a PCR, so the last bytes tell it from a loss of 16 packets.
        let print = fingerprint(packet);
        let before =
            std::mem::replace(&mut *self, Self { seen: true, duplicated: false, last: count, print });
        if !before.seen || count == (before.last + u8::from(packet.has_payload())) & 0x0f {
            if !packet.has_payload() {
                // The payload that a duplicate may repeat is still the one before.
                (self.duplicated, self.print) = (before.duplicated, before.print);
            }
            return Continuity::Ok;
        }
        if packet.is_discontinuity() {
            return Continuity::Jump;
        }
        if packet.has_payload() && count == before.last && !before.duplicated && print == before.print {
            self.duplicated = true;
            return Continuity::Duplicate;
        }
        Continuity::Lost
    }
}

/// Writes the continuity counter (its low 4 bits) of a packet. Nothing happens to fewer than 4 bytes.
pub fn set_continuity(packet: &mut [u8], count: u8) {
    if let Some(byte) = packet.get_mut(3) {
        *byte = *byte & 0xf0 | count & 0x0f;
    }
}

/// Replaces the PCR of a packet that has one; whether it had one.
pub fn set_pcr(packet: &mut [u8], pcr: u64) -> bool {
    match Packet::new(packet).and_then(Packet::pcr) {
        Some(_) => write_clock(packet, 6, pcr),
        None => false,
    }
}

/// Replaces the OPCR of a packet that has one; whether it had one.
pub fn set_opcr(packet: &mut [u8], opcr: u64) -> bool {
    match Packet::new(packet).and_then(Packet::adaptation) {
        Some(field) if field.opcr().is_some() => {
            let at = 5 + opcr_offset(field.flags());
            write_clock(packet, at, opcr)
        }
        _ => false,
    }
}

fn write_clock(packet: &mut [u8], at: usize, clock: u64) -> bool {
    let Some(field) = packet.get_mut(at..at + 6) else { return false };
    let clock = clock % PCR_WRAP;
    let reserved = u64::from(field[4] & 0x7e) << 8;
    let bits = (clock / 300) << 15 | reserved | (clock % 300);
    field.copy_from_slice(&bits.to_be_bytes()[2..]);
    true
}

fn opcr_offset(flags: u8) -> usize {
    if flags & PCR_FLAG == 0 { 1 } else { 7 }
}

fn fingerprint(packet: Packet<'_>) -> u64 {
    let (words, _) = packet.0.as_chunks::<8>();
    let tail: &[u8; 8] = packet.0.last_chunk().unwrap_or(&[0; 8]);
    u64::from_le_bytes(*tail) ^ u64::from_le_bytes(words[12]).rotate_left(29)
}

const PCR_FLAG: u8 = 0x10;
const OPCR_FLAG: u8 = 0x08;

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet with this control nibble (payload, adaptation), counter and adaptation field.
    fn packet(control: u8, count: u8, adaptation: &[u8]) -> [u8; PACKET] {
        let mut p = [0xaa; PACKET];
        p[..4].copy_from_slice(&[SYNC, 0x41, 0x23, control << 4 | count]);
        if control & 2 != 0 {
            p[4] = adaptation.len() as u8;
            p[5..5 + adaptation.len()].copy_from_slice(adaptation);
        }
        p
    }

    fn view(bytes: &[u8]) -> Packet<'_> {
        Packet::new(bytes).unwrap()
    }

    #[test]
    fn reads_the_header() {
        let bytes = packet(1, 9, &[]);
        let p = view(&bytes);
        assert_eq!((p.pid(), p.continuity(), p.scrambling()), (0x123, 9, 0));
        assert!(p.starts_unit() && !p.has_error() && p.has_payload() && !p.has_adaptation());
        assert_eq!(p.payload().map(<[u8]>::len), Some(184));
        assert!(Packet::new(&bytes[1..]).is_none());
        assert!(Packet::new(&[0; PACKET]).is_none());
    }

    #[test]
    fn an_adaptation_field_of_any_length_is_safe() {
        for control in 0..4 {
            for len in 0..=255 {
                let mut bytes = packet(control, 0, &[]);
                bytes[4] = len;
                bytes[5] = 0xff;
                let p = view(&bytes);
                let fits = len <= 183;
                assert_eq!(p.adaptation().is_some(), control & 2 != 0 && fits && len > 0);
                assert_eq!(p.pcr().is_some(), control & 2 != 0 && fits && len >= 7);
                let payload = match control {
                    1 => Some(184),
                    3 if fits => Some(183 - usize::from(len)),
                    _ => None,
                };
                assert_eq!(p.payload().map(<[u8]>::len), payload);
                let before = bytes;
                assert_eq!(set_opcr(&mut bytes, 5), control & 2 != 0 && fits && len >= 13);
                assert_eq!(bytes[..4], before[..4]);
            }
        }
    }

    #[test]
    fn stuffing_is_told_from_what_an_adaptation_field_is_for() {
        let stuffed = |field: &[u8]| view(&packet(3, 0, field)).has_stuffing();
        assert!(!view(&packet(1, 0, &[])).has_stuffing());
        // a length of 0 fills one byte up
        assert!(stuffed(&[]) && !stuffed(&[0]) && stuffed(&[0, 0xff]));
        assert!(!stuffed(&[0x10, 0, 0, 0, 0, 0, 0]) && stuffed(&[0x10, 0, 0, 0, 0, 0, 0, 0xff]));
        assert!(!stuffed(&[0x06, 0, 2, 9, 9]) && stuffed(&[0x06, 0, 2, 9, 9, 0xff]));
        assert!(
            !stuffed(&[0x03, 1, 9, 1, 9]) && stuffed(&[0x03, 1, 9, 1, 9, 0xff]) && !stuffed(&[0x02, 200])
        );
    }

    #[test]
    fn clocks_are_replaced_in_place() {
        let mut field = [0; 20];
        field[0] = 0x18;
        field[5] = 0x7e;
        let mut bytes = packet(3, 0, &field);
        let untouched = bytes;
        for clock in [0, 1, 299, 300, PCR_WRAP - 1, 123_456_789_012] {
            assert!(set_pcr(&mut bytes, clock));
            assert!(set_opcr(&mut bytes, PCR_WRAP + clock));
            assert_eq!(view(&bytes).pcr(), Some(clock));
            assert_eq!(view(&bytes).adaptation().and_then(Adaptation::opcr), Some(clock));
        }
        set_pcr(&mut bytes, 0);
        set_opcr(&mut bytes, 0);
        assert_eq!(bytes, untouched);
        set_continuity(&mut bytes, 0x1c);
        assert_eq!(view(&bytes).continuity(), 12);
        assert!(!set_pcr(&mut packet(1, 0, &[]), 1));
    }

    #[test]
    fn a_lone_opcr_is_found() {
        let mut field = [0; 7];
        field[0] = 0x08;
        let mut bytes = packet(3, 0, &field);
        assert!(set_opcr(&mut bytes, 77));
        assert_eq!(view(&bytes).adaptation().and_then(Adaptation::opcr), Some(77));
        assert_eq!(view(&bytes).pcr(), None);
    }

    #[test]
    fn the_clock_wraps() {
        assert_eq!(pcr_delta(PCR_WRAP - 5, 7), 12);
        assert_eq!(pcr_delta(7, PCR_WRAP - 5), -12);
        assert_eq!(pcr_delta(3, 3), 0);
        assert_eq!(pcr_add(PCR_WRAP - 5, 12), 7);
        assert_eq!(pcr_add(7, -12), PCR_WRAP - 5);
    }

    #[test]
    fn the_counter_knows_what_the_standard_allows() {
        use Continuity::{Duplicate, Jump, Lost, Ok};
        let judge = |packets: &[[u8; PACKET]]| {
            let mut counter = Counter::default();
            packets.iter().map(|p| counter.check(view(p))).collect::<Vec<_>>()
        };
        let plain = |count| packet(1, count, &[]);
        let other = |count| {
            let mut p = plain(count);
            p[187] = 0;
            p
        };
        assert_eq!(judge(&[plain(14), plain(15), plain(0)]), [Ok, Ok, Ok]);
        assert_eq!(judge(&[plain(3), plain(5)]), [Ok, Lost]);
        assert_eq!(judge(&[plain(3), plain(3), plain(4)]), [Ok, Duplicate, Ok]);
        assert_eq!(judge(&[plain(3), plain(3), plain(3)]), [Ok, Duplicate, Lost]);
        // sixteen packets are missing
        assert_eq!(judge(&[plain(3), other(3)]), [Ok, Lost]);
        // without payload the counter stands still
        assert_eq!(judge(&[plain(3), packet(2, 3, &[0]), plain(4)]), [Ok, Ok, Ok]);
        assert_eq!(judge(&[plain(3), packet(2, 4, &[0])]), [Ok, Lost]);
        assert_eq!(judge(&[plain(3), packet(3, 9, &[0x80]), plain(10)]), [Ok, Jump, Ok]);
    }
}
