//! RTCP (RFC 3550, 6): compound packets enter, reports leave; reports enter, bytes leave. Never measures anything.

use std::ops::ControlFlow;

/// One packet of a compound packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rtcp {
    /// What a sender says of itself (6.4.1), and of those it receives.
    SenderReport(SenderReport, Vec<ReportBlock>),
    /// What a receiver says of those it receives (6.4.2).
    ReceiverReport {
        /// Who says it.
        ssrc: u32,
        /// About whom.
        blocks: Vec<ReportBlock>,
    },
    /// A source and its canonical name, if it is told (6.5).
    Description {
        /// Whose name.
        ssrc: u32,
        /// CNAME, as it came.
        cname: Vec<u8>,
    },
    /// These sources leave (6.6).
    Bye(Vec<u32>),
    /// Anything else: its packet type.
    Other(u8),
}

/// What a sender says of itself (RFC 3550, 6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SenderReport {
    /// Whose report it is.
    pub ssrc: u32,
    /// Wall clock, seconds since 1900 in 32.32 fixed point.
    pub ntp: u64,
    /// The same moment on the clock of its RTP timestamps.
    pub rtp: u32,
    /// Packets sent.
    pub packets: u32,
    /// Bytes of payload sent.
    pub octets: u32,
}

/// What a receiver says of one source (RFC 3550, 6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReportBlock {
    /// The source.
    pub ssrc: u32,
    /// Share of packets lost since the last report, in 1/256.
    pub fraction: u8,
    /// Packets lost in all, -2^23 to 2^23 - 1.
    pub lost: i32,
    /// Highest sequence number, with its cycles in the upper half.
    pub highest: u32,
    /// Jitter in units of the clock rate.
    pub jitter: u32,
    /// Middle 32 bits of the NTP time of the last sender report, 0 for none.
    pub last_report: u32,
    /// Delay since then, in 1/65536 s.
    pub delay: u32,
}

/// Why bytes are not RTCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The version is not 2.
    #[error("RTCP version {0}, expected 2")]
    Version(u8),
    /// A packet ends within its header, its fixed part or its padding.
    #[error("RTCP packet of type {0} is too short")]
    Short(u8),
}

/// Hands every packet of a compound packet to `take`. Leaves out report blocks beyond those that are there.
///
/// # Errors
/// A packet breaks RFC 3550, 6; those before it were handed out.
pub fn parse(mut compound: &[u8], mut take: impl FnMut(Rtcp)) -> Result<(), Malformed> {
    while !compound.is_empty() {
        let (&[flags, kind, l0, l1], rest) = compound
            .split_first_chunk::<4>()
            .ok_or(Malformed::Short(compound.get(1).copied().unwrap_or(0)))?;
        if flags >> 6 != 2 {
            return Err(Malformed::Version(flags >> 6));
        }
        let short = Malformed::Short(kind);
        let length = 4 * usize::from(u16::from_be_bytes([l0, l1]));
        let (mut body, behind) = rest.split_at_checked(length).ok_or(short)?;
        if flags & 0x20 != 0 {
            let padding = usize::from(body.last().copied().unwrap_or(0));
            body = body.len().checked_sub(padding).and_then(|end| body.get(..end)).ok_or(short)?;
        }
        compound = behind;
        take(packet(kind, flags & 0x1f, body).ok_or(short)?);
    }
    Ok(())
}

/// Appends a sender report without blocks.
pub fn write_sender_report(out: &mut Vec<u8>, report: &SenderReport) {
    write_header(out, 0, SR, 24);
    for word in [report.ssrc, (report.ntp >> 32) as u32, report.ntp as u32] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    for word in [report.rtp, report.packets, report.octets] {
        out.extend_from_slice(&word.to_be_bytes());
    }
}

/// Appends a receiver report of `ssrc` with at most 31 blocks.
pub fn write_receiver_report(out: &mut Vec<u8>, ssrc: u32, blocks: &[ReportBlock]) {
    let blocks = blocks.get(..31).unwrap_or(blocks);
    // At most 31.
    write_header(out, blocks.len() as u8, RR, 4 + 24 * blocks.len());
    out.extend_from_slice(&ssrc.to_be_bytes());
    for block in blocks {
        out.extend_from_slice(&block.ssrc.to_be_bytes());
        let [_, lost @ ..] = block.lost.clamp(-0x80_0000, 0x7f_ffff).to_be_bytes();
        out.push(block.fraction);
        out.extend_from_slice(&lost);
        for word in [block.highest, block.jitter, block.last_report, block.delay] {
            out.extend_from_slice(&word.to_be_bytes());
        }
    }
}

/// Appends the description of a source: its canonical name, of which at most 255 bytes are told.
pub fn write_description(out: &mut Vec<u8>, ssrc: u32, cname: &str) {
    let name = cname.as_bytes();
    let name = name.get(..255).unwrap_or(name);
    // SSRC, type, length, the name, and zeros up to a word (at least one).
    let length = (4 + 2 + name.len()) / 4 * 4 + 4;
    write_header(out, 1, SDES, length);
    let end = out.len() + length;
    out.extend_from_slice(&ssrc.to_be_bytes());
    // At most 255.
    out.extend_from_slice(&[CNAME, name.len() as u8]);
    out.extend_from_slice(name);
    out.resize(end, 0);
}

/// Appends the leave of a source.
pub fn write_bye(out: &mut Vec<u8>, ssrc: u32) {
    write_header(out, 1, BYE, 4);
    out.extend_from_slice(&ssrc.to_be_bytes());
}

/// Wall clock as RTCP tells it, from the nanoseconds since 1970.
pub fn ntp(unix_nanos: u64) -> u64 {
    let (seconds, nanos) = (unix_nanos / NANOS, unix_nanos % NANOS);
    // Wraps in 2036, as the field does (RFC 3550, 4).
    (seconds.wrapping_add(SECONDS_TO_1970) << 32) | ((nanos << 32) / NANOS)
}

fn packet(kind: u8, count: u8, body: &[u8]) -> Option<Rtcp> {
    let mut words = Words(body);
    Some(match kind {
        SR => {
            let report = SenderReport {
                ssrc: words.next()?,
                ntp: u64::from(words.next()?) << 32 | u64::from(words.next()?),
                rtp: words.next()?,
                packets: words.next()?,
                octets: words.next()?,
            };
            Rtcp::SenderReport(report, blocks(count, &mut words))
        }
        RR => Rtcp::ReceiverReport { ssrc: words.next()?, blocks: blocks(count, &mut words) },
        SDES => {
            let ssrc = if count == 0 { 0 } else { words.next()? };
            let mut cname = Vec::new();
            // Items of the first chunk up to its null item.
            let _ = items(words.0).try_for_each(|(kind, text)| {
                if kind == CNAME {
                    cname = text.to_vec();
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            });
            Rtcp::Description { ssrc, cname }
        }
        BYE => Rtcp::Bye((0..count).map_while(|_| words.next()).collect()),
        other => Rtcp::Other(other),
    })
}

fn items(mut rest: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (&[kind, length], behind) = rest.split_first_chunk::<2>()?;
        let (text, behind) = behind.split_at_checked(length.into())?;
        rest = behind;
        (kind != 0).then_some((kind, text))
    })
}

fn blocks(count: u8, words: &mut Words<'_>) -> Vec<ReportBlock> {
    let block = |words: &mut Words<'_>| {
        let ssrc = words.next()?;
        let [fraction, lost @ ..] = words.next()?.to_be_bytes();
        let [l0, l1, l2] = lost;
        Some(ReportBlock {
            ssrc,
            fraction,
            lost: i32::from_be_bytes([l0, l1, l2, 0]) >> 8,
            highest: words.next()?,
            jitter: words.next()?,
            last_report: words.next()?,
            delay: words.next()?,
        })
    };
    (0..count).map_while(|_| block(words)).collect()
}

struct Words<'a>(&'a [u8]);

impl Words<'_> {
    fn next(&mut self) -> Option<u32> {
        let (word, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*word))
    }
}

fn write_header(out: &mut Vec<u8>, count: u8, kind: u8, length: usize) {
    // At most 31 blocks of 24 bytes.
    let [l0, l1] = ((length / 4) as u16).to_be_bytes();
    out.extend_from_slice(&[0x80 | count, kind, l0, l1]);
}

const SR: u8 = 200;
const RR: u8 = 201;
const SDES: u8 = 202;
const BYE: u8 = 203;
const CNAME: u8 = 1;
const NANOS: u64 = 1_000_000_000;

/// Seconds from 1900 to 1970 (RFC 5905, 6).
const SECONDS_TO_1970: u64 = 2_208_988_800;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(compound: &[u8]) -> Vec<Rtcp> {
        let mut out = Vec::new();
        parse(compound, |packet| out.push(packet)).unwrap();
        out
    }

    #[test]
    fn what_is_written_is_read() {
        let report = SenderReport { ssrc: 7, ntp: 0x0123_4567_89ab_cdef, rtp: 9, packets: 3, octets: 4000 };
        let block = ReportBlock {
            ssrc: 8,
            fraction: 12,
            lost: -3,
            highest: 0x0001_fffe,
            jitter: 90,
            last_report: 0x4567_89ab,
            delay: 65_536,
        };
        for name in ["", "m", "ab", "abc", "millrace"] {
            let mut out = Vec::new();
            write_sender_report(&mut out, &report);
            write_receiver_report(&mut out, 1, &[block]);
            write_description(&mut out, 7, name);
            write_bye(&mut out, 7);
            assert_eq!(
                read(&out),
                [
                    Rtcp::SenderReport(report, vec![]),
                    Rtcp::ReceiverReport { ssrc: 1, blocks: vec![block] },
                    Rtcp::Description { ssrc: 7, cname: name.into() },
                    Rtcp::Bye(vec![7]),
                ]
            );
        }
    }

    #[test]
    fn padding_and_unknown_types_are_passed_over() {
        let compound = [0xa0, 204, 0, 2, 1, 2, 3, 4, 0, 0, 0, 4, 0x80, 77, 0, 0];
        assert_eq!(read(&compound), [Rtcp::Other(204), Rtcp::Other(77)]);
    }

    #[test]
    fn bounds_are_held() {
        let fail = |bytes: &[u8]| parse(bytes, |_| {}).unwrap_err();
        assert_eq!(fail(&[0x80, 200, 0]), Malformed::Short(200));
        assert_eq!(fail(&[0x40, 200, 0, 0]), Malformed::Version(1));
        assert_eq!(fail(&[0x80, 200, 0, 1, 0, 0, 0, 0]), Malformed::Short(200));
        assert_eq!(fail(&[0x80, 201, 0, 9, 0, 0]), Malformed::Short(201));
        assert_eq!(fail(&[0xa0, 204, 0, 1, 0, 0, 0, 9]), Malformed::Short(204));
        // more blocks are told than there are
        assert_eq!(read(&[0x9f, 201, 0, 1, 0, 0, 0, 5]), [Rtcp::ReceiverReport { ssrc: 5, blocks: vec![] }]);
    }

    #[test]
    fn the_wall_clock_is_told_since_1900() {
        assert_eq!(ntp(0), 2_208_988_800 << 32);
        assert_eq!(ntp(1_500_000_000), 2_208_988_801 << 32 | 1 << 31);
    }
}
