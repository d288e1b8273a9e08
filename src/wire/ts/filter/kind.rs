//! What the PMT says about an elementary stream enters, whether it is media, KLV or neither leaves; bytes enter,
//! whether KLV is in them leaves.

use crate::wire::ts::psi::{Stream, descriptors};

/// What an elementary stream is, as declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Anything else: only its bytes tell.
    Private,
    /// Declared to be KLV.
    Klv,
    /// A known kind of picture, sound or subtitle.
    Media,
}

/// Judges an entry of a PMT. A stream_type that ISO/IEC 13818-1, table 2-34 gives to pictures or sound is believed
/// before any descriptor, KLV before descriptors of media. stream_type 0x15 and metadata descriptors mean KLV unless
/// they say ID3.
pub(super) fn kind(stream: &Stream) -> Kind {
    let any =
        |of: &dyn Fn(u8, &[u8]) -> bool| descriptors(&stream.descriptors).any(|(tag, body)| of(tag, body));
    let holds = |body: &[u8], id: &[u8]| body.windows(id.len()).any(|w| w == id);
    let klva = any(&|tag, body| names_klv(tag, body));
    let id3 = any(&|tag, body| matches!(tag, REGISTRATION | METADATA) && holds(body, b"ID3 "));
    let metadata = stream.stream_type == METADATA_IN_PES || any(&|tag, _| tag == METADATA);
    let media = any(&|tag, body| match (tag, body) {
        (REGISTRATION, _) => REGISTERED.iter().any(|id| body.starts_with(id)),
        (EXTENSION, [extended, ..]) => EXTENDED.contains(extended),
        _ => DESCRIBED.contains(&tag),
    });
    match stream.stream_type {
        0x01..=0x04 | 0x0f..=0x11 | 0x1b..=0x26 | 0x28..=0x2b | 0x2d | 0x2e | 0x31..=0x36 => Kind::Media,
        _ if klva || metadata && !id3 => Kind::Klv,
        by_convention if media || BY_CONVENTION.contains(&by_convention) => Kind::Media,
        _ => Kind::Private,
    }
}

/// The descriptors without those that say KLV or hold its label.
pub(super) fn without_klv(raw: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(raw.len());
    for (tag, body) in descriptors(raw).filter(|(tag, body)| !names_klv(*tag, body) && !holds_label(body)) {
        // A body is at most 255 bytes: its length stood in one byte.
        kept.extend_from_slice(&[tag, body.len() as u8]);
        kept.extend_from_slice(body);
    }
    if holds_label(&kept) {
        // Spelt by two descriptors together.
        kept.clear();
    }
    kept
}

/// Whether the universal label of SMPTE ST 336 keys is somewhere in these bytes.
pub(super) fn holds_label(bytes: &[u8]) -> bool {
    bytes.windows(LABEL.len()).any(|w| w == LABEL)
}

/// Follows the label through the payloads of one PID: `matched` bytes of it ended the one before. Returns how many
/// end this one, or `None` when the label is complete somewhere in it.
pub(super) fn follow_label(mut matched: u8, payload: &[u8]) -> Option<u8> {
    for &byte in payload {
        matched = match LABEL.get(usize::from(matched)) {
            Some(&want) if want == byte => matched + 1,
            _ => u8::from(byte == LABEL[0]),
        };
        if usize::from(matched) == LABEL.len() {
            return None;
        }
    }
    Some(matched)
}

fn names_klv(tag: u8, body: &[u8]) -> bool {
    match tag {
        REGISTRATION => body.starts_with(KLVA),
        METADATA | METADATA_POINTER => body.windows(KLVA.len()).any(|w| w == KLVA),
        _ => false,
    }
}

/// The bytes with which every universal label of SMPTE begins (ST 298).
pub(super) const LABEL: [u8; 4] = [0x06, 0x0e, 0x2b, 0x34];

/// format_identifier of KLV (RFC 6597 and ST 1402 after SMPTE RA).
const KLVA: &[u8] = b"KLVA";

const METADATA_IN_PES: u8 = 0x15;
const REGISTRATION: u8 = 0x05;
const METADATA_POINTER: u8 = 0x25;
const METADATA: u8 = 0x26;
const EXTENSION: u8 = 0x7f;

/// User private stream_types that mean media nearly everywhere: AVS, AC-3, TrueHD, E-AC-3, DTS-HD, DTS, AVS2, AVS3,
/// Dirac, VC-1.
const BY_CONVENTION: [u8; 13] =
    [0x42, 0x81, 0x83, 0x84, 0x85, 0x87, 0x8a, 0xa1, 0xa2, 0xd1, 0xd2, 0xd4, 0xea];

/// Registrations of media that travel with private stream_types.
const REGISTERED: [&[u8]; 14] = [
    b"AC-3", b"EAC3", b"AC-4", b"DTS1", b"DTS2", b"DTS3", b"Opus", b"BSSD", b"HEVC", b"AV01", b"VP09",
    b"VC-1", b"drac", b"mlpa",
];

/// Descriptors of media: video, audio, AVC and HEVC video (ISO/IEC 13818-1); VBI, teletext, subtitling, AC-3, enhanced
/// AC-3, DTS, AAC (ETSI EN 300 468); AC-3 (ATSC A/52).
const DESCRIBED: [u8; 13] = [0x02, 0x03, 0x28, 0x38, 0x45, 0x46, 0x56, 0x59, 0x6a, 0x7a, 0x7b, 0x7c, 0x81];

/// The same with an extended tag: DTS-HD, AC-4, TTML subtitling, DTS-UHD (EN 300 468, 6.4).
const EXTENDED: [u8; 4] = [0x0e, 0x15, 0x20, 0x21];

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(stream_type: u8, descriptors: &[u8]) -> Kind {
        kind(&Stream { stream_type, pid: 0x100, descriptors: descriptors.to_vec() })
    }

    #[test]
    fn declared_kinds() {
        let klva = b"\x05\x04KLVA";
        let metadata = b"\x26\x09\x01\x00\xffKLVA\x00\x0f";
        let id3 = b"\x26\x0d\xff\xffID3 \xffID3 \x00\x0f";
        for (stream_type, descriptors, want) in [
            (0x1b, &[][..], Kind::Media),
            (0x24, &klva[..], Kind::Media),
            (0x81, &[], Kind::Media),
            (0x06, b"\x6a\x01\x00", Kind::Media),
            (0x06, b"\x0a\x04eng\x00\x05\x04Opus", Kind::Media),
            (0x06, b"\x7f\x02\x15\x00", Kind::Media),
            (0x06, klva, Kind::Klv),
            (0x06, metadata, Kind::Klv),
            (0x06, b"\x6a\x01\x00\x05\x04KLVA", Kind::Klv),
            (0x15, &[], Kind::Klv),
            (0x15, metadata, Kind::Klv),
            (0x15, id3, Kind::Private),
            (0x06, &[], Kind::Private),
            (0x06, b"\x7f\x00\x05\x02KL", Kind::Private),
            (0xfe, &[], Kind::Private),
            (0x05, &[], Kind::Private),
        ] {
            assert_eq!(judge(stream_type, descriptors), want, "{stream_type:#x} {descriptors:?}");
        }
    }

    #[test]
    fn descriptors_lose_what_says_klv() {
        let kept = b"\x09\x04\x00\x01\xe0\x50\x05\x04HDMV";
        let raw =
            [&b"\x05\x04KLVA"[..], kept, b"\x25\x05\x01\x00\xffKL", b"\x80\x05\x00\x06\x0e\x2b\x34"].concat();
        assert_eq!(without_klv(&raw), [&kept[..], b"\x25\x05\x01\x00\xffKL"].concat());
        let apart = [&b"\x80\x01\x06\x0e\x2b\x34"[..], &[0; 42]].concat();
        assert_eq!(without_klv(&apart), [0u8; 0][..]);
    }

    #[test]
    fn a_label_is_found_however_it_is_cut() {
        let bytes = [0x06, 0x06, 0x0e, 0x06, 0x0e, 0x2b, 0x34, 0x02];
        for a in 0..=8 {
            for b in a..=8 {
                let found = [&bytes[..a], &bytes[a..b], &bytes[b..]].into_iter().try_fold(0, follow_label);
                assert_eq!(found, None, "{a} {b}");
            }
        }
        assert_eq!(follow_label(0, &bytes[..6]), Some(3));
        assert_eq!(follow_label(3, &[0x06]), Some(1));
        assert!(holds_label(&bytes) && !holds_label(&bytes[..6]));
    }
}
