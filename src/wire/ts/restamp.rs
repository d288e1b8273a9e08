//! Packets of a file that plays again and again enter, and leave with clocks, timestamps and continuity counters
//! that go on. Never changes any other bit, and nothing in the first pass.

use super::first_clock::FirstClock;
use super::pacer::NoClock;
use super::packet::{
    Continuity, Counter, NULL_PID, PACKET, PCR_HZ, PCR_WRAP, Packet, pcr_delta, set_continuity, set_opcr,
    set_pcr,
};
use super::pes::{PTS_WRAP, PesHeader, set_dts, set_pts};

/// Restamps the passes of a looping file.
///
/// [`Self::observe`] every packet of the first pass, then [`Self::next_pass`], then [`Self::rewrite`] every packet
/// of the second one, and so on. Each pass must be made of the same packets.
///
/// Every pass moves PCR, OPCR, PTS and DTS of all programs by one and the same offset, a whole number of 90 kHz
/// ticks: last PCR − first PCR of the first program, and the time that the bytes behind the last and in front
/// of the first one take at the file's mean rate. So that clock passes the seam without a step; a discontinuity
/// within the file is there again in every pass. The continuity counter of each PID is moved so that the first
/// payload of a pass follows the last one of the pass before; duplicates stay duplicates, losses stay losses.
///
/// Left as they are: null packets; PTS and DTS in packets that are scrambled or flagged as damaged (their counter
/// and clock are restamped, an adaptation field is never scrambled); ESCR, splice points and times in sections.
///
/// A PES header that is split over packets is put together in the first pass, and its parts are restamped where
/// they stand. At most 262,144 parts are remembered (6 MB); those behind keep their timestamps and are counted.
#[derive(Debug, Default)]
pub struct Restamper {
    facts: Facts,
    /// Ticks of 27 MHz that one pass takes, and that the running one is moved by. Multiples of 300.
    pass_ticks: u64,
    offset: u64,
    /// By PID: how far one pass moves the counter, and how far the running one is moved.
    pass_counts: Vec<u8>,
    counts: Vec<u8>,
    /// Packets of the running pass so far.
    index: u64,
    /// Where the parts of split headers stand, in the order of the packets, and which comes next.
    parts: Vec<Part>,
    next_part: usize,
}

/// What the first pass is watched for.
#[derive(Debug, Default)]
struct Facts {
    clock: FirstClock,
    pids: Vec<PidFacts>,
    dropped_parts: u64,
}

#[derive(Debug, Clone, Default)]
struct PidFacts {
    counter: Counter,
    /// Counters of the first and the last packet with a payload.
    counts: Option<(u8, u8)>,
    clock: Option<Box<ClockFacts>>,
    header: Option<Box<Header>>,
}

/// The PCRs of one PID: which came first and last (packet, value), and how much time passed over how many packets.
#[derive(Debug, Clone)]
struct ClockFacts {
    first: (u64, u64),
    last: (u64, u64),
    ticks: u64,
    packets: u64,
}

/// A PES header that did not fit into one packet, as far as it was seen.
#[derive(Debug, Clone, Default)]
struct Header {
    bytes: Vec<u8>,
    /// Packet, and how many bytes of the header stood before it.
    parts: Vec<(u64, u8)>,
    /// It is complete and read; a duplicate of its last packet may still come.
    read: Option<Stamps>,
}

#[derive(Debug, Clone, Copy)]
struct Stamps {
    pts: u64,
    dts: Option<u64>,
}

/// One packet's share of a split PES header.
#[derive(Debug, Clone, Copy)]
struct Part {
    packet: u64,
    pid: u16,
    /// How many bytes of the header stand in packets before.
    from: u8,
    stamps: Stamps,
}

impl Restamper {
    /// Takes note of the next packet of the first pass.
    pub fn observe(&mut self, packet: Packet<'_>) {
        let index = self.index;
        self.index += 1;
        self.facts.clock.push(packet);
        let pid = packet.pid();
        if pid == NULL_PID {
            return;
        }
        if self.facts.pids.is_empty() {
            self.facts.pids = vec![PidFacts::default(); usize::from(NULL_PID)];
        }
        let Some(facts) = self.facts.pids.get_mut(usize::from(pid)) else { return };
        if let Some(pcr) = packet.pcr() {
            facts.note_clock(index, pcr);
        }
        if packet.has_error() {
            return;
        }
        if packet.has_payload() {
            let count = packet.continuity();
            facts.counts = Some((facts.counts.map_or(count, |c| c.0), count));
        }
        let continuity = facts.counter.check(packet);
        for (packet, from, stamps) in facts.note_header(index, packet, continuity) {
            if self.parts.len() < PARTS {
                self.parts.push(Part { packet, pid, from, stamps });
            } else {
                self.facts.dropped_parts += 1;
            }
        }
    }

    /// A pass ended: the packets of the next one come.
    ///
    /// # Errors
    /// [`NoClock`]: the first pass had no two PCRs of the first program, in order and at most 1 s apart.
    pub fn next_pass(&mut self) -> Result<(), NoClock> {
        if self.pass_counts.is_empty() {
            self.learn()?;
        }
        self.index = 0;
        self.next_part = 0;
        self.offset = (self.offset + self.pass_ticks) % PCR_WRAP;
        for (count, pass) in self.counts.iter_mut().zip(&self.pass_counts) {
            *count = (*count + pass) & 0x0f;
        }
        Ok(())
    }

    /// Restamps the next packet of a later pass. Before [`Self::next_pass`] it changes nothing.
    pub fn rewrite(&mut self, packet: &mut [u8; PACKET]) {
        let index = self.index;
        self.index += 1;
        let Some(view) = Packet::new(packet) else { return };
        let (pid, count) = (view.pid(), view.continuity());
        let Some(moved) = self.counts.get(usize::from(pid)) else { return };
        let payload = view.payload().map_or(PACKET, |payload| PACKET - payload.len());
        let clear = view.scrambling() == 0 && !view.has_error();
        let starts = view.starts_unit();
        let (pcr, opcr) = view.adaptation().map_or((None, None), |field| (field.pcr(), field.opcr()));

        set_continuity(packet, count + moved);
        if let Some(pcr) = pcr {
            set_pcr(packet, pcr + self.offset);
        }
        if let Some(opcr) = opcr {
            set_opcr(packet, opcr + self.offset);
        }
        let Some(payload) = packet.get_mut(payload..).filter(|_| clear) else { return };
        if starts
            && wanted(payload).is_some_and(|wanted| wanted <= payload.len())
            && let Some(PesHeader { pts: Some(pts), dts, .. }) = PesHeader::parse(payload)
        {
            Stamps { pts, dts }.moved(self.offset).write(payload);
        }
        while let Some(part) = self.parts.get(self.next_part).filter(|part| part.packet <= index) {
            if part.packet == index && part.pid == pid {
                part.restamp(payload, self.offset);
            }
            self.next_part += 1;
        }
    }

    /// Parts of split PES headers that keep their timestamps because there were too many.
    pub fn dropped_parts(&self) -> u64 {
        self.facts.dropped_parts
    }

    /// Turns what the first pass showed into what one pass moves.
    fn learn(&mut self) -> Result<(), NoClock> {
        let pids = std::mem::take(&mut self.facts.pids);
        let clock = self.facts.clock.pid().and_then(|pid| pids.get(usize::from(pid))?.clock.as_deref());
        let no_clock = NoClock(self.index * PACKET as u64);
        let clock = clock.filter(|clock| clock.packets > 0).ok_or(no_clock)?;
        let seam = u128::from(self.index - clock.last.0 + clock.first.0) * u128::from(clock.ticks)
            / u128::from(clock.packets);
        let ticks = PCR_WRAP + clock.last.1 - clock.first.1 + (seam % u128::from(PCR_WRAP)) as u64;
        // PCR_WRAP is a multiple of 300, too.
        self.pass_ticks = (ticks + 150) / 300 * 300 % PCR_WRAP;
        self.pass_counts = pids
            .iter()
            .map(|pid| pid.counts.map_or(0, |(first, last)| last.wrapping_sub(first).wrapping_add(1) & 0x0f))
            .collect();
        self.counts = vec![0; self.pass_counts.len()];
        self.parts.sort_unstable_by_key(|part| part.packet);
        Ok(())
    }
}

impl PidFacts {
    fn note_clock(&mut self, index: u64, pcr: u64) {
        let now = (index, pcr);
        let Some(clock) = &mut self.clock else {
            self.clock = Some(Box::new(ClockFacts { first: now, last: now, ticks: 0, packets: 0 }));
            return;
        };
        let step = pcr_delta(clock.last.1, pcr);
        if step > 0 && step as u64 <= PCR_HZ {
            clock.ticks += step as u64;
            clock.packets += index - clock.last.0;
        }
        if step != 0 {
            clock.last = now;
        }
    }

    /// Puts split PES headers together; returns the parts whose timestamps are now known.
    fn note_header(
        &mut self,
        index: u64,
        packet: Packet<'_>,
        continuity: Continuity,
    ) -> impl Iterator<Item = (u64, u8, Stamps)> + use<> {
        let payload = packet.payload().filter(|p| !p.is_empty() && packet.scrambling() == 0);
        let mut known = (Vec::new(), None);
        if let Some(payload) = payload {
            if continuity == Continuity::Duplicate {
                // It stands where the packet before it stands.
                if let Some(header) = &mut self.header
                    && let Some(&(_, from)) = header.parts.last()
                {
                    match header.read {
                        Some(_) => known = (vec![(index, from)], header.read),
                        None => header.parts.push((index, from)),
                    }
                }
            } else {
                if packet.starts_unit() {
                    let split = wanted(payload).is_some_and(|wanted| wanted > payload.len());
                    self.header = split.then(Box::default);
                } else if continuity != Continuity::Ok
                    || self.header.as_ref().is_some_and(|h| h.read.is_some())
                {
                    self.header = None;
                }
                if let Some(header) = &mut self.header {
                    header.push(index, payload);
                    match wanted(&header.bytes) {
                        Some(wanted) if wanted > header.bytes.len() => {}
                        Some(_) if header.read().is_some() => known = (header.parts.clone(), header.read),
                        _ => self.header = None,
                    }
                }
            }
        }
        let (parts, stamps) = known;
        parts.into_iter().filter_map(move |(index, from)| Some((index, from, stamps?)))
    }
}

impl Header {
    fn push(&mut self, index: u64, payload: &[u8]) {
        self.parts.push((index, self.bytes.len() as u8));
        self.bytes.extend(payload.iter().take(STAMPED - self.bytes.len()));
    }

    fn read(&mut self) -> Option<Stamps> {
        let header = PesHeader::parse(&self.bytes)?;
        self.read = header.pts.map(|pts| Stamps { pts, dts: header.dts });
        self.read
    }
}

impl Stamps {
    fn moved(self, offset: u64) -> Self {
        let moved = |time| (time + offset / 300) % PTS_WRAP;
        Self { pts: moved(self.pts), dts: self.dts.map(moved) }
    }

    fn write(self, pes: &mut [u8]) {
        set_pts(pes, self.pts);
        if let Some(dts) = self.dts {
            set_dts(pes, dts);
        }
    }
}

impl Part {
    /// Completes the header around this part, restamps it, and takes the part back.
    fn restamp(&self, payload: &mut [u8], offset: u64) {
        let flags = if self.stamps.dts.is_some() { 0xc0 } else { 0x80 };
        let mut header = [0; STAMPED];
        header[..9].copy_from_slice(&[0, 0, 1, 0xe0, 0, 0, 0x80, flags, 10]);
        let Some(part) = header.get_mut(self.from.into()..) else { return };
        let len = part.len().min(payload.len());
        for (to, from) in part.iter_mut().zip(&*payload) {
            *to = *from;
        }
        self.stamps.moved(offset).write(&mut header);
        for (to, from) in payload.iter_mut().zip(header.iter().skip(self.from.into()).take(len)) {
            *to = *from;
        }
    }
}

/// How many bytes of a PES header must be there to restamp it, as far as these first ones tell; none when it is
/// not one that has timestamps.
fn wanted(head: &[u8]) -> Option<usize> {
    if !head.iter().zip([0, 0, 1]).all(|(byte, want)| *byte == want) {
        return None;
    }
    match (PesHeader::parse(head), head.len()) {
        (Some(header), _) => (header.header_len > 6).then_some(header.header_len.min(STAMPED)),
        (None, ..9) => Some(9),
        (None, _) => None,
    }
}

/// Bytes of a PES header up to the end of its DTS.
const STAMPED: usize = 19;

/// Most parts of split headers that are remembered.
const PARTS: usize = 1 << 18;

#[cfg(test)]
mod tests;
