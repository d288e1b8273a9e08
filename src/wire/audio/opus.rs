//! Opus packets (RFC 6716) and the control header in front of them in transport streams (opus_control_header of the
//! Opus in MPEG-TS draft of Xiph.org) enter, their length leaves. Never decodes sound.

/// Opus always plays at this rate.
pub const RATE: u32 = 48_000;

/// Samples at 48 kHz that a packet plays (RFC 6716, 3.1 and 3.2); none when it is empty or says more than 120 ms.
pub fn samples(packet: &[u8]) -> Option<u32> {
    let (&toc, rest) = packet.split_first()?;
    let frame = match toc >> 3 {
        config @ 0..=11 => [480, 960, 1920, 2880].get(usize::from(config & 3)).copied()?,
        config @ 12..=15 => 480 << (config & 1),
        config => 120 << (config & 3),
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(rest.first()? & 0x3f),
    };
    Some(frame * frames).filter(|&samples| (1..=MOST).contains(&samples))
}

/// Splits the next access unit with its control header off: the packet, and what stands behind it. None when no
/// control header stands there or the packet is cut off.
pub fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let &[0x7f, flags, ref rest @ ..] = bytes else { return None };
    if flags & 0xe0 != 0xe0 {
        return None;
    }
    let (mut rest, mut size) = (rest, 0usize);
    loop {
        let (&byte, behind) = rest.split_first()?;
        size += usize::from(byte);
        rest = behind;
        if byte != 0xff {
            break;
        }
    }
    for trim in [0x10, 0x08] {
        rest = if flags & trim != 0 { rest.get(2..)? } else { rest };
    }
    if flags & 0x04 != 0 {
        let (&extension, behind) = rest.split_first()?;
        rest = behind.get(usize::from(extension)..)?;
    }
    rest.split_at_checked(size).filter(|(packet, _)| !packet.is_empty())
}

/// Appends the control header of a packet of this length.
pub fn put_header(length: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&[0x7f, 0xe0]);
    out.resize(out.len() + length / 255, 0xff);
    out.push((length % 255) as u8);
}

/// Longest that a packet may play (RFC 6716, 3.2.5, R5).
const MOST: u32 = RATE / 1000 * 120;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_packets_play() {
        assert_eq!(samples(&[0x00, 1]), Some(480));
        assert_eq!(samples(&[0x18 | 1, 1]), Some(5760));
        assert_eq!(samples(&[0x68]), Some(960));
        assert_eq!(samples(&[0xfc, 1]), Some(960));
        assert_eq!(samples(&[0xff, 5]), Some(4800));
        assert_eq!(samples(&[0xff, 7]), None);
        assert_eq!(samples(&[0xff, 0]), None);
        assert_eq!(samples(&[0xff]), None);
        assert_eq!(samples(&[]), None);
    }

    #[test]
    fn control_headers_survive_writing_and_reading() {
        for length in [1, 254, 255, 256, 1275] {
            let mut bytes = Vec::new();
            put_header(length, &mut bytes);
            bytes.resize(bytes.len() + length, 9);
            bytes.extend_from_slice(&[1, 2]);
            let (packet, rest) = split(&bytes).unwrap();
            assert_eq!((packet.len(), rest), (length, &[1, 2][..]));
            assert!(split(&bytes[..bytes.len() - 3]).is_none());
        }
        // trims and an extension
        assert_eq!(split(&[0x7f, 0xfc, 1, 0, 8, 0, 8, 2, 9, 9, 0xfc, 5]), Some((&[0xfc][..], &[5][..])));
        assert_eq!(split(&[0x7f, 0xe0, 0]), None);
        assert_eq!(split(&[0x7e, 0xe0, 1, 1]), None);
    }
}
