//! What an output delivered enters, packet by packet; whether it is what went in leaves. Never holds a socket.

use std::collections::BTreeMap;
use std::fmt;

use millrace::media::PACKET;
use millrace::wire::ts::Packet;
use millrace::wire::ts::packet::{
    Continuity, Counter, NULL_PID, PCR_HZ, PCR_WRAP, pcr_delta, set_continuity, set_opcr, set_pcr,
};
use millrace::wire::ts::pes::{PesHeader, set_dts, set_pts};

use super::table::{grouped, plural};

/// Compares what arrives with a file that is played again and again, from its first packet on.
///
/// The first pass must be the file, byte for byte. So must every later one but for the bits that looping restamps,
/// and these must go on: all clocks and timestamps of a pass are moved by one offset, no PCR steps back or by more
/// than 1 s, no continuity counter jumps.
#[derive(Debug)]
pub(super) struct Comparer {
    file: &'static [[u8; PACKET]],
    /// Packets that were right.
    packets: usize,
    /// By how much the running pass is moved (27 MHz).
    shift: Option<u64>,
    pcr: Option<u64>,
    counters: BTreeMap<u16, Counter>,
    /// Nothing is compared behind it.
    mismatch: Option<Mismatch>,
}

/// The first thing that was wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mismatch {
    /// So many packets never came.
    Missing(usize),
    /// This byte of the packet is another one.
    Byte(usize),
    /// A clock or timestamp does not go on.
    Clock,
    /// The continuity counter of this PID does not go on.
    Counter(u16),
    /// A datagram of so many bytes is no whole packets.
    Length(usize),
}

impl Comparer {
    /// For a file with clocks and counters that do not jump, and PES headers that are not split.
    pub(super) fn new(file: &'static [[u8; PACKET]]) -> Self {
        Self { file, packets: 0, shift: None, pcr: None, counters: BTreeMap::new(), mismatch: None }
    }

    /// Takes the payload of the next datagram.
    pub(super) fn take(&mut self, datagram: &[u8]) {
        let (packets, rest) = datagram.as_chunks();
        for packet in packets {
            if self.mismatch.is_some() {
                return;
            }
            match self.judge(packet) {
                Ok(()) => self.packets += 1,
                Err(mismatch) => self.mismatch = Some(mismatch),
            }
        }
        if !rest.is_empty() {
            self.mismatch.get_or_insert(Mismatch::Length(datagram.len()));
        }
    }

    /// What was wrong first.
    pub(super) fn mismatch(&self) -> Option<Mismatch> {
        self.mismatch
    }

    /// Something came, and nothing in it was wrong.
    pub(super) fn is_good(&self) -> bool {
        self.mismatch.is_none() && self.packets > 0
    }

    fn judge(&mut self, packet: &[u8; PACKET]) -> Result<(), Mismatch> {
        if !self.stands(packet, self.packets) {
            return Err(self.explain(packet));
        }
        if self.packets.is_multiple_of(self.file.len()) {
            self.shift = None;
        }
        for (was, is) in times(self.expected(self.packets)).into_iter().zip(times(packet)) {
            let (Some(was), Some(is)) = (was, is) else { continue };
            let shift = (is + PCR_WRAP - was) % PCR_WRAP;
            if *self.shift.get_or_insert(shift) != shift {
                return Err(Mismatch::Clock);
            }
        }
        let Some(view) = Packet::new(packet) else { return Ok(()) };
        if let Some(pcr) = view.pcr()
            && let Some(before) = self.pcr.replace(pcr)
            && !(0..=PCR_HZ as i64).contains(&pcr_delta(before, pcr))
        {
            return Err(Mismatch::Clock);
        }
        let pid = view.pid();
        if pid != NULL_PID && self.counters.entry(pid).or_default().check(view) == Continuity::Lost {
            return Err(Mismatch::Counter(pid));
        }
        Ok(())
    }

    /// Whether this packet may stand at that place, counted over all passes.
    fn stands(&self, packet: &[u8; PACKET], place: usize) -> bool {
        let expected = self.expected(place);
        packet == expected || place >= self.file.len() && unstamped(packet) == unstamped(expected)
    }

    fn expected(&self, place: usize) -> &'static [u8; PACKET] {
        &self.file[place % self.file.len()]
    }

    /// Why a packet may not stand where the next one should.
    fn explain(&self, packet: &[u8; PACKET]) -> Mismatch {
        let missing = (1..self.file.len()).find(|ahead| self.stands(packet, self.packets + ahead));
        missing.map_or_else(
            || {
                let (is, was) = (unstamped(packet), unstamped(self.expected(self.packets)));
                let byte = is.iter().zip(&was).position(|(is, was)| is != was);
                byte.map_or(Mismatch::Clock, Mismatch::Byte)
            },
            Mismatch::Missing,
        )
    }
}

impl fmt::Display for Comparer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mismatch {
            Some(mismatch) => {
                let pass = self.packets / self.file.len() + 1;
                write!(f, "MISMATCH at packet {} (pass {pass}): {mismatch}", grouped(self.packets as u64 + 1))
            }
            None if self.packets == 0 => f.write_str("nothing received yet"),
            None => {
                let passes = self.packets.div_ceil(self.file.len());
                let (packets, passes) = (plural(self.packets, "packet"), plural(passes, "pass"));
                write!(f, "verified: {packets} identical, {passes}")
            }
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(count) => write!(f, "{} missing", plural(*count, "packet")),
            Self::Byte(byte) => write!(f, "byte {byte} is another one"),
            Self::Clock => f.write_str("a clock or timestamp does not go on"),
            Self::Counter(pid) => write!(f, "the continuity counter of PID {pid:#06x} does not go on"),
            Self::Length(bytes) => write!(f, "a datagram of {bytes} bytes is no whole packets"),
        }
    }
}

/// The packet with every bit that looping restamps set to 0: continuity_counter (null packets keep theirs), PCR,
/// OPCR, PTS, DTS. Reserved and marker bits stay.
fn unstamped(packet: &[u8; PACKET]) -> [u8; PACKET] {
    let mut bare = *packet;
    let Some(view) = Packet::new(packet) else { return bare };
    if view.pid() != NULL_PID {
        set_continuity(&mut bare, 0);
    }
    set_pcr(&mut bare, 0);
    set_opcr(&mut bare, 0);
    let payload = view.payload().filter(|_| view.starts_unit()).map_or(0, <[u8]>::len);
    let pes = &mut bare[PACKET - payload..];
    set_pts(pes, 0);
    set_dts(pes, 0);
    bare
}

/// PCR, OPCR, PTS and DTS of a packet in units of 1/27 MHz; all of them wrap at [`PCR_WRAP`].
fn times(packet: &[u8; PACKET]) -> [Option<u64>; 4] {
    let Some(view) = Packet::new(packet) else { return [None; 4] };
    let field = view.adaptation();
    let pes = view.payload().filter(|_| view.starts_unit()).and_then(PesHeader::parse);
    [
        field.and_then(|field| field.pcr()),
        field.and_then(|field| field.opcr()),
        pes.and_then(|pes| pes.pts).map(|pts| pts * 300),
        pes.and_then(|pes| pes.dts).map(|dts| dts * 300),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace::wire::ts::packet::pcr_add;

    fn file() -> &'static [[u8; PACKET]] {
        super::super::SAMPLE.as_chunks().0
    }

    /// The sample as a later pass: clocks moved by so many seconds, counters by so much.
    fn pass(seconds: u64, count: u8) -> Vec<[u8; PACKET]> {
        let ticks = seconds * PCR_HZ;
        let restamp = |packet: &[u8; PACKET]| {
            let mut moved = *packet;
            let view = Packet::new(packet).unwrap();
            set_continuity(&mut moved, view.continuity() + count);
            let [pcr, opcr, pts, dts] =
                times(packet).map(|time| time.map(|time| pcr_add(time, ticks as i64)));
            pcr.map(|pcr| set_pcr(&mut moved, pcr));
            opcr.map(|opcr| set_opcr(&mut moved, opcr));
            let pes = &mut moved[PACKET - view.payload().map_or(0, <[u8]>::len)..];
            pts.map(|pts| set_pts(pes, pts / 300));
            dts.map(|dts| set_dts(pes, dts / 300));
            moved
        };
        file().iter().map(restamp).collect()
    }

    /// The packets of one PID, and by how much its counter moves in each pass so that the seam has no jump.
    fn one_pid(pid: u16) -> (&'static [[u8; PACKET]], u8) {
        let packets: Vec<_> =
            file().iter().filter(|p| Packet::new(*p).unwrap().pid() == pid).copied().collect();
        let count = packets.iter().filter(|p| Packet::new(*p).unwrap().has_payload()).count() as u8;
        (packets.leak(), count)
    }

    fn compare(packets: &[[u8; PACKET]]) -> Comparer {
        let mut comparer = Comparer::new(file());
        packets.chunks(7).for_each(|datagram| comparer.take(datagram.as_flattened()));
        comparer
    }

    #[test]
    fn the_file_itself_is_verified() {
        let comparer = compare(file());
        assert!(comparer.is_good());
        assert_eq!(comparer.to_string(), "verified: 2,524 packets identical, 1 pass");
        assert!(!Comparer::new(file()).is_good(), "nothing is not good");
    }

    #[test]
    fn a_flipped_bit_is_found_wherever_it_is() {
        for (packet, byte) in [(0, 0), (0, 3), (700, 4), (1200, 100), (2523, 187)] {
            let mut packets = file().to_vec();
            packets[packet][byte] ^= 1;
            let comparer = compare(&packets);
            assert!(!comparer.is_good(), "packet {packet} byte {byte}");
            assert_eq!(comparer.packets, packet);
        }
        let mut packets = file().to_vec();
        packets[1200][100] ^= 0x80;
        let comparer = compare(&packets);
        assert_eq!(comparer.mismatch(), Some(Mismatch::Byte(100)));
        assert_eq!(comparer.to_string(), "MISMATCH at packet 1,201 (pass 1): byte 100 is another one");
    }

    #[test]
    fn lost_doubled_and_swapped_packets_are_found() {
        let mut lost = file().to_vec();
        lost.drain(70..77);
        assert_eq!(compare(&lost).mismatch(), Some(Mismatch::Missing(7)));
        assert_eq!(compare(&file()[1..]).mismatch(), Some(Mismatch::Missing(1)), "the first one, too");
        let mut doubled = file().to_vec();
        doubled.insert(500, doubled[499]);
        assert!(!compare(&doubled).is_good());
        let mut swapped = file().to_vec();
        swapped.swap(40, 41);
        assert_eq!(compare(&swapped).mismatch(), Some(Mismatch::Missing(1)));
        let mut comparer = Comparer::new(file());
        comparer.take(&file().as_flattened()[..200]);
        assert_eq!(comparer.mismatch(), Some(Mismatch::Length(200)));
    }

    #[test]
    fn the_first_pass_may_not_be_restamped() {
        assert!(!compare(&pass(6, 0)).is_good());
        assert!(!compare(&pass(0, 1)).is_good());
    }

    #[test]
    fn later_passes_may_differ_in_what_is_restamped_and_in_nothing_else() {
        let (file, count) = one_pid(0x101);
        let restamped = |seconds, count| -> Vec<[u8; PACKET]> {
            let all = pass(seconds, count);
            all.into_iter().filter(|p| Packet::new(p).unwrap().pid() == 0x101).collect()
        };
        let second = restamped(6, count);
        let judge = |second: &[[u8; PACKET]]| {
            let mut comparer = Comparer::new(file);
            comparer.take(file.as_flattened());
            comparer.take(second.as_flattened());
            comparer
        };
        let good = judge(&second);
        assert!(good.is_good(), "{good}");
        assert!(good.to_string().ends_with(", 2 passes"), "{good}");

        assert_eq!(judge(&restamped(6, count + 1)).mismatch(), Some(Mismatch::Counter(0x101)));
        assert_eq!(judge(&restamped(0, count)).mismatch(), Some(Mismatch::Clock), "it stood still");
        assert_eq!(judge(&restamped(8, count)).mismatch(), Some(Mismatch::Clock), "it jumped over the seam");
        let mut lost = second.clone();
        lost.remove(900);
        assert_eq!(judge(&lost).mismatch(), Some(Mismatch::Missing(1)));
        let at = second.iter().rposition(|p| times(p)[2].is_some()).unwrap();
        let pes = PACKET - Packet::new(&second[at]).unwrap().payload().unwrap().len();
        let [pcr, _, Some(pts), _] = times(&second[at]) else { panic!("a PTS") };
        let mut late = second.clone();
        set_pts(&mut late[at][pes..], pts / 300 + 1);
        assert_eq!(judge(&late).mismatch(), Some(Mismatch::Clock), "one timestamp alone");
        let mut late = second.clone();
        set_pcr(&mut late[at], pcr.unwrap() + 1);
        assert_eq!(judge(&late).mismatch(), Some(Mismatch::Clock), "one PCR alone");
        for byte in [1, 5, 40, 187] {
            let mut flipped = second.clone();
            flipped[at][byte] ^= 4;
            assert!(!judge(&flipped).is_good(), "byte {byte}");
        }
    }

    #[test]
    fn exactly_the_restamped_bits_are_set_to_zero() {
        let mut field = [0xff; PACKET];
        field[..6].copy_from_slice(&[0x47, 0x41, 0x01, 0x3f, 13, 0x18]);
        field[18..37].copy_from_slice(&[
            0, 0, 1, 0xe0, 0, 0, 0x80, 0xc0, 10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        ]);
        let cleared: Vec<u32> =
            unstamped(&field).iter().zip(field).map(|(a, b)| (a ^ b).count_ones()).collect();
        assert_eq!(cleared.iter().sum::<u32>(), 4 + 2 * 42 + 2 * 33);
        assert_eq!(cleared[3], 4);
        assert_eq!((cleared[6..12].iter().sum::<u32>(), cleared[12..18].iter().sum::<u32>()), (42, 42));
        assert_eq!((cleared[27..32].iter().sum::<u32>(), cleared[32..37].iter().sum::<u32>()), (33, 33));
        let mut null = field;
        null[1..3].copy_from_slice(&[0x1f, 0xff]);
        assert_eq!(unstamped(&null)[3], 0x3f);
    }

    /// What [`Comparer::new`] asks of its file.
    #[test]
    fn the_sample_has_whole_headers_and_no_jumps() {
        for packet in file() {
            let view = Packet::new(packet).unwrap();
            let payload = view.payload().filter(|p| view.starts_unit() && p.starts_with(&[0, 0, 1]));
            if let Some(payload) = payload {
                let header = PesHeader::parse(payload).unwrap();
                assert!(header.pts.is_some() && header.header_len <= payload.len());
            }
        }
        let (packets, rest) = super::super::SAMPLE.as_chunks::<PACKET>();
        assert!(rest.is_empty() && compare(packets).is_good());
    }
}
