//! Stream types, descriptors and elementary bytes enter; names leave, and whether a decoder can start at a picture.
//! Never decodes a picture.

use serde::Serialize;

use super::psi::{Stream, descriptors};
use crate::wire::h26x::{self, RECOVERY_POINT, Standard};

/// What an elementary stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Pictures.
    Video,
    /// Sound.
    Audio,
    /// KLV metadata (SMPTE ST 336) that the tables declare.
    Klv,
    /// Anything else: other metadata, subtitles, tables, unknown.
    Data,
}

/// How pictures are looked for in an elementary stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    /// MPEG-1 and MPEG-2 video start codes (ISO/IEC 13818-2, 6.2.1).
    Mpeg2,
    /// H.264 NAL units (ITU-T H.264, 7.3.1).
    H264,
    /// H.265 NAL units (ITU-T H.265, 7.3.1).
    H265,
    /// Not known here.
    Opaque,
}

/// What the tables say about an elementary stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Codec {
    /// Its name, as people say it.
    pub name: &'static str,
    /// What it carries.
    pub kind: Kind,
    /// How to look for pictures.
    pub syntax: Syntax,
}

impl Codec {
    /// Reads stream_type, and the descriptors where it is a private one.
    pub fn of(stream: &Stream) -> Self {
        use Kind::{Audio, Data, Klv, Video};
        let (name, kind) = match stream.stream_type {
            0x01 => ("MPEG-1 video", Video),
            0x02 => ("MPEG-2 video", Video),
            0x03 => ("MPEG-1 audio", Audio),
            0x04 => ("MPEG-2 audio", Audio),
            0x0f => ("AAC", Audio),
            0x10 => ("MPEG-4 Visual", Video),
            0x11 | 0x1c => ("AAC (LATM)", Audio),
            0x1b => ("H.264", Video),
            0x1e => ("MPEG-2 auxiliary video", Video),
            0x1f | 0x20 => ("H.264 (SVC, MVC)", Video),
            0x21 => ("JPEG 2000", Video),
            0x24 => ("H.265", Video),
            0x25 | 0x28 | 0x29 | 0x2a | 0x2b => ("H.265 (layered)", Video),
            0x2d | 0x2e => ("MPEG-H 3D audio", Audio),
            0x32 => ("JPEG XS", Video),
            0x33 => ("H.266", Video),
            0x42 => ("AVS video", Video),
            0x81 => ("AC-3", Audio),
            0x87 => ("E-AC-3", Audio),
            0xd1 => ("Dirac", Video),
            0xd2 => ("AVS2 video", Video),
            0xea => ("VC-1", Video),
            _ if declares_klv(stream) => ("KLV", Klv),
            0x06 | 0x80.. => private(stream).unwrap_or(("private data", Data)),
            0x05 => ("private sections", Data),
            0x0b | 0x0d => ("DSM-CC sections", Data),
            0x15..=0x19 => ("metadata", Data),
            _ => ("data", Data),
        };
        let syntax = match name {
            "MPEG-1 video" | "MPEG-2 video" => Syntax::Mpeg2,
            "H.264" => Syntax::H264,
            "H.265" => Syntax::H265,
            _ => Syntax::Opaque,
        };
        Self { name, kind, syntax }
    }
}

/// Whether the tables declare KLV: `KLVA` in a registration descriptor (asynchronous, MISB ST 1402) or in a metadata
/// descriptor (synchronous), or metadata in PES packets that says no format at all.
pub fn declares_klv(stream: &Stream) -> bool {
    let named = descriptors(&stream.descriptors).any(|(tag, payload)| match tag {
        0x05 => payload.starts_with(b"KLVA"),
        0x26 => metadata_format(payload) == Some(Format::Identifier(*b"KLVA")),
        _ => false,
    });
    named || stream.stream_type == 0x15 && !descriptors(&stream.descriptors).any(|(tag, _)| tag == 0x26)
}

/// metadata_format of a metadata descriptor (ISO/IEC 13818-1, 2.6.60).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One of the values of table 2-85.
    Value(u8),
    /// An identifier of the registration authority.
    Identifier([u8; 4]),
}

/// The format in the payload of a metadata descriptor; none when it is cut off.
pub fn metadata_format(payload: &[u8]) -> Option<Format> {
    let ([0xff, 0xff, _, _, _, _, format @ ..] | [_, _, format @ ..]) = payload else { return None };
    match *format {
        [0xff, a, b, c, d, ..] => Some(Format::Identifier([a, b, c, d])),
        [0xff, ..] | [] => None,
        [value, ..] => Some(Format::Value(value)),
    }
}

/// What the descriptors of a private stream say it is: by registration, or by a DVB tag (ETSI EN 300 468, 6.1).
fn private(stream: &Stream) -> Option<(&'static str, Kind)> {
    use Kind::{Audio, Data, Video};
    descriptors(&stream.descriptors).find_map(|(tag, payload)| match (tag, payload) {
        (0x05, [b'H', b'E', b'V', b'C', ..]) => Some(("H.265", Video)),
        (0x05, [b'V', b'C', b'-', b'1', ..]) => Some(("VC-1", Video)),
        (0x05, [b'A', b'V', b'0', b'1', ..]) => Some(("AV1", Video)),
        (0x05, [b'd', b'r', b'a', b'c', ..]) => Some(("Dirac", Video)),
        (0x05, [b'A', b'C', b'-', b'3', ..]) => Some(("AC-3", Audio)),
        (0x05, [b'E', b'A', b'C', b'3', ..]) => Some(("E-AC-3", Audio)),
        (0x05, [b'A', b'C', b'-', b'4', ..]) => Some(("AC-4", Audio)),
        (0x05, [b'O', b'p', b'u', b's', ..]) => Some(("Opus", Audio)),
        (0x05, [b'B', b'S', b'S', b'D', ..]) => Some(("SMPTE 302M PCM", Audio)),
        (0x05, [b'D', b'T', b'S', _, ..]) => Some(("DTS", Audio)),
        (0x05, [b'C', b'U', b'E', b'I', ..]) => Some(("SCTE 35 cues", Data)),
        (0x6a, _) => Some(("AC-3", Audio)),
        (0x7a, _) => Some(("E-AC-3", Audio)),
        (0x7b, _) => Some(("DTS", Audio)),
        (0x7c, _) => Some(("AAC", Audio)),
        (0x56, _) => Some(("teletext", Data)),
        (0x59, _) => Some(("DVB subtitles", Data)),
        _ => None,
    })
}

/// Looks at the bytes of a picture, in any pieces, up to its first slice.
///
/// The header of the PES packet may be among them: it is made so that it holds no start code.
#[derive(Debug)]
pub struct PictureScan {
    syntax: Syntax,
    /// The last bytes, newest lowest.
    last: u32,
    state: State,
}

/// What the bytes said so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A decoder can start here.
    RandomAccess,
    /// A picture began and nothing said that a decoder can start at it.
    Dependent,
    /// No slice yet.
    Open,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Between start codes.
    Seek,
    /// The next byte says what the unit is.
    Unit,
    /// Bytes of an H.265 NAL unit header before an SEI message.
    Header,
    /// Sum of the bytes of payload_type so far (H.264, 7.3.2.3.1).
    SeiType(u32),
    /// The type, and the sum of the bytes of payload_size so far.
    SeiSize(u32, u32),
    /// Bytes of the message still to come.
    SeiBody(u32),
}

impl PictureScan {
    /// For a picture that starts with the next byte.
    pub fn new(syntax: Syntax) -> Self {
        Self { syntax, last: u32::MAX, state: State::Seek }
    }

    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) -> Verdict {
        for &byte in bytes {
            // 00 00 03: the 3 was put in so that a message cannot look like a start code (H.264, 7.4.1)
            let stuffed = self.last & 0xffff == 0 && byte == 3;
            self.last = self.last << 8 | u32::from(byte);
            if self.last & 0xff_ffff == 1 {
                self.state = State::Unit;
                continue;
            }
            self.state = match self.state {
                State::Seek => State::Seek,
                State::Unit => match self.unit(byte) {
                    Ok(next) => next,
                    Err(verdict) => return verdict,
                },
                _ if stuffed => self.state,
                State::Header => State::SeiType(0),
                State::SeiType(sum) if byte == 0xff => State::SeiType(sum.saturating_add(255)),
                State::SeiType(sum) => match sum.saturating_add(byte.into()) {
                    RECOVERY_POINT => return Verdict::RandomAccess,
                    kind => State::SeiSize(kind, 0),
                },
                State::SeiSize(kind, sum) if byte == 0xff => State::SeiSize(kind, sum.saturating_add(255)),
                State::SeiSize(_, sum) => match sum.saturating_add(byte.into()) {
                    0 => State::SeiType(0),
                    size => State::SeiBody(size),
                },
                State::SeiBody(1) => State::SeiType(0),
                State::SeiBody(left) => State::SeiBody(left - 1),
            };
        }
        Verdict::Open
    }

    /// What the first byte behind a start code says. A picture parameter set alone is no sign: some encoders send
    /// one with each picture.
    fn unit(&self, byte: u8) -> Result<State, Verdict> {
        let standard = match self.syntax {
            Syntax::H264 => Standard::H264,
            Syntax::H265 => Standard::H265,
            Syntax::Mpeg2 => {
                return match byte {
                    // sequence header; group of pictures
                    0xb3 | 0xb8 => Err(Verdict::RandomAccess),
                    0x00 => Err(Verdict::Dependent),
                    _ => Ok(State::Seek),
                };
            }
            Syntax::Opaque => return Err(Verdict::RandomAccess),
        };
        match (standard.kind(byte), standard) {
            (h26x::Kind::KeySlice | h26x::Kind::Sps | h26x::Kind::Vps, _) => Err(Verdict::RandomAccess),
            (h26x::Kind::Slice, _) => Err(Verdict::Dependent),
            (h26x::Kind::Sei, Standard::H264) => Ok(State::SeiType(0)),
            (h26x::Kind::Sei, Standard::H265) => Ok(State::Header),
            // reserved for slices: as good as one (H.265, table 7-1)
            (h26x::Kind::Other, Standard::H265) if standard.unit_type(byte) < 32 => Err(Verdict::Dependent),
            _ => Ok(State::Seek),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Verdict::{Dependent, Open, RandomAccess};

    /// The verdict, which must not depend on how the bytes are cut.
    fn scan(syntax: Syntax, bytes: &[u8]) -> Verdict {
        let whole = PictureScan::new(syntax).push(bytes);
        for cut in 0..bytes.len() {
            let mut scan = PictureScan::new(syntax);
            let first = scan.push(&bytes[..cut]);
            let verdict = if first == Open { scan.push(&bytes[cut..]) } else { first };
            assert_eq!(verdict, whole, "cut at {cut}");
        }
        whole
    }

    #[test]
    fn h264() {
        let h264 = |bytes: &[u8]| scan(Syntax::H264, &[&[0, 0, 1, 9, 0xf0], bytes].concat());
        assert_eq!(h264(&[]), Open);
        assert_eq!(h264(&[0, 0, 0, 1, 0x65, 1]), RandomAccess);
        assert_eq!(h264(&[0, 0, 0, 1, 0x41, 1, 0, 0, 1, 0x65]), Dependent);
        assert_eq!(h264(&[0, 0, 0, 1, 0x67, 1]), RandomAccess);
        assert_eq!(h264(&[0, 0, 0, 1, 0x68, 1, 0, 0, 1, 0x41]), Dependent);
        // a user data message of 5 bytes with an emulation prevention byte in it, then a recovery point
        assert_eq!(
            h264(&[0, 0, 1, 6, 5, 5, 6, 0, 0, 3, 1, 6, 6, 1, 0x84, 0x80, 0, 0, 1, 0x41]),
            RandomAccess
        );
        // the same without the recovery point: the 6 inside the message is not one
        assert_eq!(h264(&[0, 0, 1, 6, 5, 5, 6, 0, 0, 3, 1, 6, 0x80, 0, 0, 1, 0x41]), Dependent);
        // a message longer than 255 bytes
        let long = [&[0, 0, 1, 6, 4, 0xff, 1][..], &[6; 256], &[6, 1, 0x84, 0x80]].concat();
        assert_eq!(h264(&long), RandomAccess);
    }

    #[test]
    fn h265() {
        let h265 = |bytes: &[u8]| scan(Syntax::H265, &[&[0, 0, 1, 0x46, 1, 0x50], bytes].concat());
        assert_eq!(h265(&[0, 0, 1, 19 << 1, 1]), RandomAccess);
        assert_eq!(h265(&[0, 0, 1, 21 << 1, 1]), RandomAccess);
        assert_eq!(h265(&[0, 0, 1, 32 << 1, 1]), RandomAccess);
        assert_eq!(h265(&[0, 0, 1, 34 << 1, 1, 0, 0, 1, 1 << 1, 1]), Dependent);
        assert_eq!(h265(&[0, 0, 1, 39 << 1, 1, 6, 1, 0x80]), RandomAccess);
        assert_eq!(h265(&[0, 0, 1, 39 << 1, 1, 1, 1, 6, 0x80, 0, 0, 1, 2, 1]), Dependent);
    }

    #[test]
    fn mpeg2_and_the_pes_header() {
        let pes = [0, 0, 1, 0xe0, 0, 0, 0x84, 0xc0, 10, 0x31, 0, 1, 0, 1, 0x11, 0, 1, 0, 1];
        let with = |syntax, bytes: &[u8]| scan(syntax, &[&pes, bytes].concat());
        assert_eq!(with(Syntax::Mpeg2, &[0, 0, 1, 0xb3]), RandomAccess);
        assert_eq!(with(Syntax::Mpeg2, &[0, 0, 1, 0xb8]), RandomAccess);
        assert_eq!(with(Syntax::Mpeg2, &[0, 0, 1, 0x00]), Dependent);
        for syntax in [Syntax::H264, Syntax::H265, Syntax::Mpeg2] {
            assert_eq!(with(syntax, &[]), Open);
        }
    }

    #[test]
    fn names_come_from_types_and_descriptors() {
        let stream = |stream_type, descriptors: &[u8]| {
            Codec::of(&Stream { stream_type, pid: 1, descriptors: descriptors.to_vec() })
        };
        let klva = b"\x05\x04KLVA";
        let metadata = b"\x26\x09\x01\x00\xffKLVA\x00\x0f";
        assert_eq!(stream(0x1b, &[]).syntax, Syntax::H264);
        assert_eq!(stream(0x06, klva).kind, Kind::Klv);
        assert_eq!(stream(0x15, metadata).kind, Kind::Klv);
        assert_eq!(stream(0x15, &[]).kind, Kind::Klv);
        assert_eq!(stream(0x15, b"\x26\x09\x01\x00\xffID3 \x00\x0f").kind, Kind::Data);
        assert_eq!(stream(0x06, b"\x05\x04HEVC").syntax, Syntax::H265);
        assert_eq!(stream(0x06, &[0x52, 1, 9, 0x6a, 1, 0]).name, "AC-3");
        assert_eq!(stream(0x06, &[]).kind, Kind::Data);
        assert_eq!(stream(0xfe, &[]).name, "private data");
        assert_eq!(metadata_format(&[0xff, 0xff, 1, 2, 3, 4, 0x10]), Some(Format::Value(0x10)));
        assert_eq!(metadata_format(&[1, 0, 0xff, 1]), None);
    }
}
