//! A raw descriptor loop enters, readable descriptors leave (ISO/IEC 13818-1, 2.6; ETSI EN 300 468, 6). Never
//! refuses one: what it does not know stays hexadecimal.
//!
//! Registration, languages, maximum bit rate and AVC are read by mpeg2ts-reader. It has no types for the metadata
//! and DVB descriptors; their few fields are read here.

use std::fmt::Write;

use mpeg2ts_reader::descriptor::{CoreDescriptors, Descriptor as _};
use serde::Serialize;

use super::codec::{Format, metadata_format};
use super::psi::descriptors;

/// One descriptor of a program or stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DescriptorReport {
    /// descriptor_tag.
    pub tag: u8,
    /// Its payload, hexadecimal.
    pub hex: String,
    /// What it is called in its standard; none = not known here.
    pub name: Option<&'static str>,
    /// What its payload says, in words; none = not known here.
    pub text: Option<String>,
}

/// Reads the descriptors of a loop, up to one that is cut off.
pub(super) fn describe(raw: &[u8]) -> Vec<DescriptorReport> {
    let describe = |(tag, payload): (u8, &[u8])| DescriptorReport {
        tag,
        hex: hex(payload),
        name: name(tag),
        text: typed(tag, payload).or_else(|| text(tag, payload)),
    };
    descriptors(raw).map(describe).collect()
}

/// What mpeg2ts-reader has a type for.
fn typed(tag: u8, payload: &[u8]) -> Option<String> {
    let len = u8::try_from(payload.len()).ok()?;
    let raw = [&[tag, len], payload].concat();
    match CoreDescriptors::from_bytes(&raw).ok()? {
        CoreDescriptors::Registration(d) => {
            let info = d.additional_identification_info();
            let more = if info.is_empty() { String::new() } else { format!(" {}", hex(info)) };
            Some(fourcc(payload.get(..4)?) + &more)
        }
        CoreDescriptors::ISO639Language(d) => {
            let languages =
                d.languages().flatten().map(|l| format!("{} ({:?})", printable(&l.code()), l.audio_type()));
            Some(languages.collect::<Vec<_>>().join(", "))
        }
        CoreDescriptors::MaximumBitrate(d) => Some(format!("{} bit/s", d.maximum_bits_per_second())),
        CoreDescriptors::AvcVideo(d) => {
            let level = d.level_idc();
            Some(format!("profile_idc {}, level {}.{}", d.profile_idc(), level / 10, level % 10))
        }
        _ => None,
    }
}

fn text(tag: u8, payload: &[u8]) -> Option<String> {
    match (tag, payload) {
        (0x26, [a0, a1, ..]) => {
            let format = match metadata_format(payload)? {
                Format::Identifier(id) => fourcc(&id),
                Format::Value(value) => format!("{value:#04x}"),
            };
            Some(format!("application format {:#06x}, format {format}", u16::from_be_bytes([*a0, *a1])))
        }
        (0x27, &[i0, i1, i2, b0, b1, b2, o0, o1, o2, ..]) => {
            let field = |a: u8, b: u8, c: u8| u32::from_be_bytes([0, a & 0x3f, b, c]);
            Some(format!(
                "input {} bit/s, buffer {} bytes, output {} bit/s",
                u64::from(field(i0, i1, i2)) * 400,
                u64::from(field(b0, b1, b2)) * 1024,
                u64::from(field(o0, o1, o2)) * 400,
            ))
        }
        (0x38, [profile, _, _, _, _, _, _, _, _, _, _, level, ..]) => {
            Some(format!("profile_idc {}, level {}.{}", profile & 0x1f, level / 30, level % 30 / 3))
        }
        (0x52, [component]) => Some(format!("component_tag {component}")),
        (0x56 | 0x59, loops) => {
            let size = if tag == 0x56 { 5 } else { 8 };
            let languages = loops.chunks_exact(size).filter_map(|c| c.get(..3)).map(latin);
            Some(languages.collect::<Vec<_>>().join(", "))
        }
        _ => None,
    }
}

fn name(tag: u8) -> Option<&'static str> {
    Some(match tag {
        0x02 => "video_stream",
        0x03 => "audio_stream",
        0x04 => "hierarchy",
        0x05 => "registration",
        0x06 => "data_stream_alignment",
        0x07 => "target_background_grid",
        0x08 => "video_window",
        0x09 => "CA",
        0x0a => "ISO_639_language",
        0x0b => "system_clock",
        0x0c => "multiplex_buffer_utilization",
        0x0d => "copyright",
        0x0e => "maximum_bitrate",
        0x0f => "private_data_indicator",
        0x10 => "smoothing_buffer",
        0x11 => "STD",
        0x12 => "ibp",
        0x1b => "MPEG-4_video",
        0x1c => "MPEG-4_audio",
        0x24 => "content_labeling",
        0x25 => "metadata_pointer",
        0x26 => "metadata",
        0x27 => "metadata_STD",
        0x28 => "AVC_video",
        0x2a => "AVC_timing_and_HRD",
        0x2b => "MPEG-2_AAC_audio",
        0x32 => "J2K_video",
        0x38 => "HEVC_video",
        0x3f => "extension",
        0x45 => "VBI_data",
        0x52 => "stream_identifier",
        0x56 => "teletext",
        0x59 => "subtitling",
        0x5f => "private_data_specifier",
        0x6a => "AC-3",
        0x6f => "application_signalling",
        0x7a => "enhanced_AC-3",
        0x7b => "DTS",
        0x7c => "AAC",
        0x7f => "DVB_extension",
        0x81 => "AC-3_audio (ATSC)",
        0x86 => "caption_service",
        0x8a => "cue_identifier",
        _ => return None,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut hex, byte| {
        // writing to a String cannot fail
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// An identifier as text if it is text, else as a number.
fn fourcc(id: &[u8]) -> String {
    if id.iter().all(|b| b.is_ascii_graphic() || *b == b' ') {
        format!("\"{}\"", latin(id))
    } else {
        format!("0x{}", hex(id))
    }
}

fn latin(bytes: &[u8]) -> String {
    printable(&bytes.iter().map(|&b| char::from(b)).collect::<String>())
}

/// Names from the network go to terminals: no control characters.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(raw: &[u8]) -> (Option<&'static str>, String) {
        let all = describe(raw);
        assert_eq!(all.len(), 1);
        (all[0].name, all[0].text.clone().unwrap_or_default())
    }

    #[test]
    fn the_descriptors_of_metadata_streams_are_readable() {
        assert_eq!(one(b"\x05\x04KLVA"), (Some("registration"), "\"KLVA\"".into()));
        assert_eq!(one(b"\x05\x06HDMV\xff\x1b"), (Some("registration"), "\"HDMV\" ff1b".into()));
        assert_eq!(one(b"\x05\x04\x00\x01\x02\x03").1, "0x00010203");
        assert_eq!(one(b"\x26\x09\x01\x00\xffKLVA\x00\x0f").1, "application format 0x0100, format \"KLVA\"");
        let std = one(&[0x27, 9, 0xc0, 0, 10, 0xc0, 0, 2, 0xc0, 0, 10]);
        assert_eq!(
            std,
            (Some("metadata_STD"), "input 4000 bit/s, buffer 2048 bytes, output 4000 bit/s".into())
        );
    }

    #[test]
    fn other_descriptors() {
        assert_eq!(one(b"\x0a\x08eng\x00d\x1bu\x03").1, "eng (Undefined), d?u (VisualImpairedCommentary)");
        assert_eq!(one(&[0x0e, 3, 0xc0, 1, 0]).1, "102400 bit/s");
        assert_eq!(one(&[0x28, 4, 100, 0, 41, 0x3f]).1, "profile_idc 100, level 4.1");
        assert_eq!(one(&[0xd0, 2, 0xab, 1]), (None, String::new()));
        assert_eq!(describe(&[0xd0, 2, 0xab, 1])[0].hex, "ab01");
    }

    #[test]
    fn any_descriptor_of_any_length_is_safe() {
        for tag in 0..=255 {
            for len in 0..40 {
                let raw = [&[tag, len][..], &vec![0xff; len.into()]].concat();
                assert_eq!(describe(&raw).len(), 1);
                assert_eq!(describe(&raw[..raw.len() - 1]).len(), 0);
            }
        }
    }
}
