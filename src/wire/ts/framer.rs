//! Bytes of a transport stream in any packing enter; datagrams of whole 188-byte packets leave, in order. Never
//! judges a packet by more than its sync byte: errors, scrambling and duplicates are passed on.

use super::packet::{NULL_PID, PACKET, PAT_PID, SYNC};

/// Finds the packets in datagrams or in a byte stream.
///
/// A datagram that is whole packets leaves as it came, without a copy. Everything else (packets of 192 or 204
/// bytes, packets that straddle datagrams, junk) is cut into packets and leaves in packs of seven.
#[derive(Debug)]
pub struct Framer {
    /// Whether the ends of what is pushed mean something.
    datagrams: bool,
    /// Distance of the sync bytes; none while they are looked for.
    stride: Option<usize>,
    /// Bytes to come before the next sync byte is due, when `carry` is empty.
    owed: usize,
    /// Bytes not yet judged: the start of a packet, or a place where the grid may go on.
    carry: Vec<u8>,
    /// Packets of a pack under way.
    pack: Vec<u8>,
    /// The grid was found at least once.
    found: bool,
    junk: u64,
    resyncs: u64,
}

impl Framer {
    /// For datagrams, each of which most often holds whole packets.
    pub fn datagrams() -> Self {
        Self {
            datagrams: true,
            stride: None,
            owed: 0,
            carry: Vec::new(),
            pack: Vec::new(),
            found: false,
            junk: 0,
            resyncs: 0,
        }
    }

    /// For a file or a pipe, where the ends of what is pushed mean nothing.
    pub fn stream() -> Self {
        Self { datagrams: false, ..Self::datagrams() }
    }

    /// Takes the next bytes and hands out datagrams of whole packets. A datagram that starts inside a packet, or
    /// ends inside one, shares packs with its neighbours: [`Framer::pending`] says whether one was started.
    pub fn push(&mut self, data: &[u8], emit: &mut impl FnMut(&[u8])) {
        if self.datagrams
            && let Some(stride) = whole_packets(data)
            && self.starts_packet(data, stride)
        {
            self.leave_whole(data, stride, emit);
            return;
        }
        let seam = self.carry.len();
        let mut bytes = std::mem::take(&mut self.carry);
        bytes.extend_from_slice(data);
        let used = self.cut(&bytes, seam, false, emit);
        bytes.drain(..used);
        self.carry = bytes;
        if self.datagrams && (self.carry.is_empty() || self.stride.is_none()) {
            self.flush(emit);
        }
    }

    /// Hands out a pack that was started, for instance when nothing has come for a while.
    pub fn flush(&mut self, emit: &mut impl FnMut(&[u8])) {
        if !self.pack.is_empty() {
            emit(&self.pack);
            self.pack.clear();
        }
    }

    /// The end of the stream: judges what is left with the evidence there is, then flushes. What comes after
    /// it is a new stream.
    pub fn finish(&mut self, emit: &mut impl FnMut(&[u8])) {
        self.settle(emit);
        self.flush(emit);
        (self.stride, self.owed, self.found) = (None, 0, false);
    }

    /// Whole packets that wait for their pack to be full.
    pub fn pending(&self) -> usize {
        self.pack.len() / PACKET
    }

    /// Bytes thrown away: junk, packets cut off, packets whose sync byte was damaged.
    pub fn junk_bytes(&self) -> u64 {
        self.junk
    }

    /// How often the grid of sync bytes was lost and found again somewhere else.
    pub fn resyncs(&self) -> u64 {
        self.resyncs
    }

    /// Size of the packets that arrive: 188, 192 or 204 bytes; none while it is not known.
    pub fn packet_size(&self) -> Option<usize> {
        self.stride
    }

    /// Whether a datagram that looks like whole packets may be taken as it is. Where a packet is under way or the
    /// grid is lost, one or two sync bytes in the right place may be chance.
    fn starts_packet(&self, data: &[u8], stride: usize) -> bool {
        let first = stride == PACKET && !self.found && self.carry.is_empty();
        let goes_on = self.due().is_some_and(|(due, stride)| {
            due < data.len() && data.iter().skip(due).step_by(stride).all(|&b| b == SYNC)
        });
        first || self.is_due(stride) || data.len() >= SURE * stride && !goes_on
    }

    /// Whether a datagram of packets of this size would start where the next packet is due.
    fn is_due(&self, stride: usize) -> bool {
        self.due().is_some_and(|(due, known)| known == stride && due % stride == lead(stride))
    }

    /// Where in the bytes to come the next sync byte is due, and the distance of those behind it.
    fn due(&self) -> Option<(usize, usize)> {
        let stride = self.stride?;
        Some((if self.carry.is_empty() { self.owed } else { stride - self.carry.len() % stride }, stride))
    }

    /// A datagram of whole packets keeps its boundaries.
    fn leave_whole(&mut self, data: &[u8], stride: usize, emit: &mut impl FnMut(&[u8])) {
        self.resyncs += u64::from(self.found && !self.is_due(stride));
        self.settle(emit);
        self.flush(emit);
        if stride == PACKET {
            emit(data);
        } else {
            for packet in data.chunks_exact(stride) {
                self.pack
                    .extend_from_slice(packet.get(lead(stride)..lead(stride) + PACKET).unwrap_or_default());
            }
            self.flush(emit);
        }
        self.stride = Some(stride);
        self.owed = lead(stride);
        self.found = true;
    }

    /// Judges everything that was carried. Afterwards nothing is, and the grid is kept only if it ended with it.
    fn settle(&mut self, emit: &mut impl FnMut(&[u8])) {
        if self.carry.is_empty() {
            return;
        }
        let bytes = std::mem::take(&mut self.carry);
        let used = self.cut(&bytes, 0, true, emit);
        if used < bytes.len() {
            self.junk += (bytes.len() - used) as u64;
            self.stride = None;
        }
        self.carry = bytes;
        self.carry.clear();
    }

    /// Cuts packets off the front of `bytes`, of which those from `seam` on came last, and says how many bytes were
    /// used. The rest can only be judged with what comes next; nothing comes next when this is the `end`.
    fn cut(&mut self, bytes: &[u8], seam: usize, end: bool, emit: &mut impl FnMut(&[u8])) -> usize {
        let mut at = self.owed;
        loop {
            let Some(stride) = self.stride else {
                match hunt(bytes, at, None, end) {
                    Hunt::Found { at: found, stride } => {
                        self.junk += (found - at).saturating_sub(lead(stride)) as u64;
                        self.resyncs += u64::from(self.found);
                        self.stride = Some(stride);
                        self.found = true;
                        at = found;
                        continue;
                    }
                    Hunt::Open(open) => {
                        // The bytes in front of a packet of 192 stay with it.
                        let keep = open.saturating_sub(LEAD).max(at);
                        self.junk += (keep - at) as u64;
                        at = keep;
                    }
                }
                break;
            };
            let Some(&first) = bytes.get(at) else { break };
            let whole = bytes.get(at..at + PACKET).filter(|_| first == SYNC);
            if first == SYNC {
                let Some(packet) = whole else { break };
                let confirmed = match bytes.get(at + stride) {
                    Some(&next) => next == SYNC,
                    None if self.datagrams || end => true,
                    None => break,
                };
                if confirmed {
                    self.take(packet, emit);
                    at += stride;
                    continue;
                }
            }
            // Lost, unless only one sync byte was damaged (here or at the next packet) and the grid goes on.
            let lone = at + stride * if whole.is_some() { 2 } else { 1 };
            let next = match hunt(bytes, at + 1, Some((lone, stride)), end) {
                Hunt::Found { at: found, stride } => {
                    self.stride = Some(stride);
                    self.resyncs += u64::from(found != lone);
                    // Inside a packet that looks whole, chance puts a sync byte in front of the new grid once in
                    // 256 times: then the packet was not cut short, but junk follows it.
                    let chance = whole.is_some() && found < at + PACKET && !is_akin(bytes, at, found, stride);
                    if chance { found + stride } else { found }
                }
                Hunt::Open(open) if open <= lone && !end => break,
                Hunt::Open(open) => {
                    self.stride = None;
                    open
                }
            };
            // A datagram that starts with the rest of another packet: the one between was lost, and this one
            // would be made of two halves.
            let torn = at < seam && seam < at + PACKET && next != lone && next < seam + stride;
            match whole.filter(|_| next >= at + PACKET && !(torn && self.datagrams)) {
                Some(packet) => {
                    self.take(packet, emit);
                    self.junk += (next - at).saturating_sub(stride) as u64;
                }
                None => self.junk += (next - at) as u64,
            }
            at = next;
        }
        self.owed = at.saturating_sub(bytes.len());
        at.min(bytes.len())
    }

    fn take(&mut self, packet: &[u8], emit: &mut impl FnMut(&[u8])) {
        self.pack.extend_from_slice(packet);
        if self.pack.len() >= PACK {
            self.flush(emit);
        }
    }
}

/// What a search for the grid came to.
enum Hunt {
    /// A packet starts at `at`, and the next ones follow at this distance.
    Found { at: usize, stride: usize },
    /// None starts before this place; from here on it depends on bytes that have not come.
    Open(usize),
}

/// Looks for the first place from `from` on where a grid starts. `lone` is the place where a grid that was lost just
/// before would go on, with its distance: two sync bytes are enough there, if no other grid starts around it.
fn hunt(bytes: &[u8], from: usize, mut lone: Option<(usize, usize)>, end: bool) -> Hunt {
    if let Some((at, stride)) = lone
        && grid(bytes, at, stride) == Some(SYNCS)
    {
        return Hunt::Found { at, stride };
    }
    let mut at = from;
    loop {
        let step = bytes.get(at..).and_then(|rest| rest.iter().position(|&b| b == SYNC));
        at = step.map_or(bytes.len(), |step| at + step);
        if let Some((place, stride)) = lone
            && at >= place + 2 * stride
        {
            if goes_on(bytes, place, stride) {
                return Hunt::Found { at: place, stride };
            }
            lone = None;
        }
        if step.is_none() {
            break;
        }
        let mut open = false;
        for stride in STRIDES {
            let Some(seen) = grid(bytes, at, stride) else { continue };
            let rest = (bytes.len() - at) % stride;
            let sure = seen >= SURE || rest == 0 || rest == PACKET;
            if seen == SYNCS || end && sure {
                return Hunt::Found { at, stride };
            }
            open = true;
        }
        if open && !end {
            return Hunt::Open(lone.map_or(at, |(place, _)| place.min(at)));
        }
        at += 1;
    }
    match lone {
        Some((place, stride)) if !goes_on(bytes, place, stride) => Hunt::Open(bytes.len()),
        Some((at, stride)) if end && at < bytes.len() => Hunt::Found { at, stride },
        Some((place, _)) if !end => Hunt::Open(place),
        _ => Hunt::Open(bytes.len()),
    }
}

/// How many of the sync bytes of a grid that starts here are there; none when one of them is wrong.
fn grid(bytes: &[u8], at: usize, stride: usize) -> Option<usize> {
    let mut syncs = bytes.iter().skip(at).step_by(stride).take(SYNCS);
    let seen = syncs.len();
    syncs.all(|&b| b == SYNC).then_some(seen)
}

/// Whether a grid may go on here: neither of the next two sync bytes is wrong.
fn goes_on(bytes: &[u8], at: usize, stride: usize) -> bool {
    [at, at + stride].iter().all(|&i| bytes.get(i).is_none_or(|&b| b == SYNC))
}

/// Whether the header at `at` is plausible: no error, a payload or an adaptation field, and the PID of a table, of
/// padding, of the packet at `before` or of one that follows on the grid.
fn is_akin(bytes: &[u8], before: usize, at: usize, stride: usize) -> bool {
    let header = |at: usize| bytes.get(at..).and_then(|b| b.first_chunk::<4>());
    let pid = |h: &[u8; 4]| u16::from_be_bytes([h[1] & 0x1f, h[2]]);
    header(at).is_some_and(|h| {
        let near = (1..SYNCS).map(|n| at + n * stride).chain([before]).filter_map(header).map(pid);
        h[1] & 0x80 == 0 && h[3] & 0x30 != 0 && near.chain([PAT_PID, NULL_PID]).any(|p| p == pid(h))
    })
}

/// The distance of the sync bytes if this is nothing but whole packets.
fn whole_packets(data: &[u8]) -> Option<usize> {
    STRIDES.into_iter().find(|&stride| {
        !data.is_empty()
            && data.len().is_multiple_of(stride)
            && data.iter().skip(lead(stride)).step_by(stride).all(|&b| b == SYNC)
    })
}

/// Bytes in front of the sync byte of a packet in a datagram of its own.
fn lead(stride: usize) -> usize {
    if stride == PACKET + LEAD { LEAD } else { 0 }
}

/// Plain; with a time code in front (M2TS); with a Reed-Solomon code behind (ETSI EN 300 429).
const STRIDES: [usize; 3] = [PACKET, PACKET + LEAD, PACKET + 16];
/// Bytes of the time code.
const LEAD: usize = 4;
/// Sync bytes in a row that make a grid: ISO/IEC 13818-1 G.1 and ETSI TR 101 290, 5.2.1 ask for five, and that
/// chance forges one in 256^4 places. The same clause calls it lost after two wrong ones in a row, so that one
/// damaged sync byte costs one packet.
const SYNCS: usize = 5;
/// Sync bytes in a row that make a grid when a datagram or the stream ends with them.
const SURE: usize = 3;
/// Bytes in a full pack: what a UDP datagram carries on an Ethernet path.
const PACK: usize = 7 * PACKET;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Packets of noise (sync bytes in it as often as chance has it) with their number in front.
    fn packets(count: usize, seed: u64) -> Vec<[u8; PACKET]> {
        let mut state = seed | 1;
        let mut noise = move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 56) as u8
        };
        (0..count)
            .map(|n| {
                let mut packet = [0; PACKET];
                packet.fill_with(&mut noise);
                packet[..4].copy_from_slice(&[SYNC, 1, 2, 0x10 | n as u8 & 15]);
                packet[4..8].copy_from_slice(&(n as u32).to_be_bytes());
                packet
            })
            .collect()
    }

    /// The packets as they are sent with this distance.
    fn wire(packets: &[[u8; PACKET]], stride: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (n, packet) in packets.iter().enumerate() {
            bytes.extend_from_slice(&[0, 1, 2, n as u8][..lead(stride)]);
            bytes.extend_from_slice(packet);
            bytes.resize((n + 1) * stride, 0x55);
        }
        bytes
    }

    fn frame(mut framer: Framer, chunks: &[&[u8]]) -> (Vec<Vec<u8>>, Framer) {
        let mut out = Vec::new();
        for chunk in chunks {
            framer.push(chunk, &mut |d| out.push(d.to_vec()));
            assert!(framer.carry.len() < 2048 && framer.pending() < 7);
        }
        framer.finish(&mut |d| out.push(d.to_vec()));
        assert!(out.iter().all(|d| whole_packets(d) == Some(PACKET)));
        (out, framer)
    }

    /// Cuts `bytes` into pieces of these sizes, over and over.
    fn pieces<'a>(mut bytes: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
        let mut pieces = Vec::new();
        for &size in sizes.iter().cycle() {
            if bytes.is_empty() {
                break;
            }
            let (piece, rest) = bytes.split_at(size.min(bytes.len()));
            pieces.push(piece);
            bytes = rest;
        }
        pieces
    }

    #[test]
    fn a_datagram_of_whole_packets_leaves_as_the_same_slice() {
        let bytes = wire(&packets(7, 1), PACKET);
        let mut framer = Framer::datagrams();
        for len in [7, 1, 3, 2] {
            let datagram = &bytes[..len * PACKET];
            let mut seen = Vec::new();
            framer.push(datagram, &mut |d| seen.push((d.as_ptr(), d.len())));
            assert_eq!(seen, [(datagram.as_ptr(), datagram.len())]);
        }
        assert_eq!((framer.junk_bytes(), framer.resyncs(), framer.packet_size()), (0, 0, Some(188)));
    }

    #[test]
    fn datagrams_of_192_and_204_keep_their_boundaries() {
        for stride in [192, 204] {
            let packets = packets(12, 2);
            let bytes = wire(&packets, stride);
            let (out, framer) =
                frame(Framer::datagrams(), &pieces(&bytes, &[7 * stride, stride, 4 * stride]));
            assert_eq!(out, [packets[..7].concat(), packets[7].to_vec(), packets[8..].concat()]);
            assert_eq!((framer.junk_bytes(), framer.resyncs()), (0, 0));
        }
    }

    #[test]
    fn straddling_packets_are_repacked_by_seven() {
        let packets = packets(7 * 94 * 2 + 20, 3);
        let bytes = wire(&packets, PACKET);
        let mut framer = Framer::datagrams();
        let mut out = Vec::new();
        for datagram in bytes.chunks(1358) {
            framer.push(datagram, &mut |d| out.push(d.to_vec()));
        }
        assert!(framer.pending() > 0 || out.concat() == bytes);
        framer.flush(&mut |d| out.push(d.to_vec()));
        assert_eq!(out.concat(), bytes);
        // 94 datagrams of 1358 bytes are 679 packets: there a boundary falls together
        assert!(out.iter().filter(|d| d.len() != PACK).count() <= 2);
        assert_eq!((framer.junk_bytes(), framer.resyncs()), (0, 0));
    }

    #[test]
    fn a_lone_damaged_sync_byte_costs_one_packet() {
        let packets = packets(40, 4);
        for stride in STRIDES {
            for sizes in [[7 * stride, 7 * stride], [1358, 1358], [1, 700]] {
                for bad in [6, 7, 8, 20, 39] {
                    let mut bytes = wire(&packets, stride);
                    bytes[bad * stride + lead(stride)] ^= 1;
                    for framer in [Framer::datagrams(), Framer::stream()] {
                        let (out, framer) = frame(framer, &pieces(&bytes, &sizes));
                        let kept = [&packets[..bad], &packets[bad + 1..]].concat();
                        let got: Vec<_> = out.concat().chunks(188).map(|p| p[7]).collect();
                        let want: Vec<_> = kept.iter().map(|p| p[7]).collect();
                        assert_eq!(got, want, "{stride} {sizes:?} {bad} {framer:?}");
                        assert_eq!(out.concat(), kept.concat());
                        assert!(
                            (188..=stride as u64).contains(&framer.junk_bytes()),
                            "{stride} {sizes:?} {bad} {framer:?}"
                        );
                        assert_eq!(framer.resyncs(), 0);
                    }
                }
            }
        }
    }

    #[test]
    fn junk_in_front_and_between_datagrams() {
        let packets = packets(21, 5);
        let bytes = wire(&packets, PACKET);
        let (one, rest) = bytes.split_at(7 * PACKET);
        let (two, three) = rest.split_at(7 * PACKET);
        let (out, framer) = frame(Framer::datagrams(), &[&[1; 50], one, &[2; 1316], two, b"hello", three]);
        assert_eq!(out, [one, two, three]);
        assert_eq!(framer.junk_bytes(), 50 + 1316 + 5);
        assert_eq!(framer.resyncs(), 2);
    }

    #[test]
    fn a_lost_datagram_makes_no_packet_of_two_halves() {
        let packets = packets(80, 6);
        let bytes = wire(&packets, PACKET);
        let mut datagrams: Vec<_> = bytes.chunks(1358).collect();
        datagrams.remove(5);
        let (out, framer) = frame(Framer::datagrams(), &datagrams);
        let whole = packets
            .iter()
            .enumerate()
            .filter(|(n, _)| n * PACKET + PACKET <= 5 * 1358 || n * PACKET >= 6 * 1358);
        assert_eq!(out.concat(), whole.map(|(_, p)| *p).collect::<Vec<_>>().concat());
        assert_eq!(framer.resyncs(), 1);
    }

    #[test]
    fn the_packet_size_may_change() {
        let packets = packets(42, 7);
        let a = wire(&packets[..14], 204);
        let b = wire(&packets[14..28], 188);
        let c = wire(&packets[28..], 192);
        let (out, framer) = frame(Framer::datagrams(), &[&a[..1428], &a[1428..], &b, &c]);
        assert_eq!(out.concat(), packets.concat());
        assert_eq!((framer.junk_bytes(), framer.resyncs()), (0, 2));
        let (out, _) = frame(Framer::stream(), &[&a, &b, &c]);
        assert_eq!(out.concat(), packets.concat());
    }

    #[test]
    fn endless_noise_is_not_kept() {
        let mut noise = packets(4000, 8).concat();
        noise.iter_mut().step_by(PACKET).for_each(|b| *b = 0);
        let (_, framer) = frame(Framer::stream(), &pieces(&noise, &[1, 5000, 64]));
        let (_, other) = frame(Framer::datagrams(), &pieces(&[SYNC; 100_000], &[1, 500, 64]));
        assert!(framer.junk_bytes() > 700_000 && other.junk_bytes() < 1000);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_packets(
            count in 5usize..60,
            seed: u64,
            stride in prop::sample::select(&STRIDES[..]),
            sizes in prop::collection::vec(prop_oneof![1usize..3000, 1usize..220, Just(1316), Just(1358)], 1..20),
            stream: bool,
        ) {
            let packets = packets(count, seed);
            let bytes = wire(&packets, stride);
            let framer = if stream { Framer::stream() } else { Framer::datagrams() };
            let (out, framer) = frame(framer, &pieces(&bytes, &sizes));
            prop_assert_eq!(out.concat(), packets.concat());
            // a first datagram of 188 bytes with a sync byte is one packet, whatever comes after it
            if stream || stride == PACKET {
                prop_assert_eq!((framer.junk_bytes(), framer.resyncs()), (0, 0));
            }
        }

        /// Junk between or in packets, each piece followed by at least the packets that make a grid.
        #[test]
        fn junk_costs_at_most_what_it_damages(
            seed: u64,
            stride in prop::sample::select(&STRIDES[..]),
            junk in prop::collection::vec((SYNCS..30, 0usize..260, prop::collection::vec(any::<u8>(), 204..700)), 1..5),
            sizes in prop::collection::vec(prop_oneof![1usize..3000, 1usize..220, Just(1316), Just(1358)], 1..20),
            short: bool,
        ) {
            let count = junk.iter().map(|j| j.0 + 2).sum::<usize>() + 5;
            let packets = packets(count, seed);
            let mut bytes = wire(&packets, stride);
            let mut damaged = Vec::new();
            // from the back, so that the places in front stay where they are
            let mut place = 0;
            let places: Vec<_> = junk.iter().map(|(gap, inside, noise)| {
                place += gap + 1;
                let inside = (*inside).min(stride - 1);
                damaged.extend((lead(stride) + 1..lead(stride) + PACKET).contains(&inside).then_some(place));
                // a datagram knows a packet that straddles it only by what follows, so junk there is long
                (place * stride + inside, if short { &noise[..noise.len() / 20] } else { &noise[..] })
            }).collect();
            for (at, noise) in places.into_iter().rev() {
                bytes.splice(at..at, noise.iter().copied());
            }
            let framer = if short { Framer::stream() } else { Framer::datagrams() };
            let (out, _) = frame(framer, &pieces(&bytes, &sizes));
            let out = out.concat();
            let mut out = out.chunks(PACKET);
            for (n, packet) in packets.iter().enumerate().filter(|(n, _)| !damaged.contains(n)) {
                prop_assert!(out.any(|p| p == packet), "packet {} of {} is lost, damaged {:?}", n, count, damaged);
            }
        }

        #[test]
        fn nothing_is_lost_or_made_up(
            chunks in prop::collection::vec(prop_oneof![
                prop::collection::vec(prop_oneof![Just(SYNC), any::<u8>()], 0..2000),
                (1usize..9, any::<u64>()).prop_map(|(n, seed)| packets(n, seed).concat()),
            ], 0..20),
            stream: bool,
        ) {
            let framer = if stream { Framer::stream() } else { Framer::datagrams() };
            let chunks: Vec<_> = chunks.iter().map(Vec::as_slice).collect();
            let (out, framer) = frame(framer, &chunks);
            prop_assert!(out.concat().len() as u64 + framer.junk_bytes() <= chunks.concat().len() as u64);
        }
    }
}
