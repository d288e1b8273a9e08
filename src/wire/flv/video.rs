//! Bodies of video tags enter, what is in them leaves; and the heads of those that we send (FLV E.4.3; Enhanced RTMP
//! v2, "Enhanced Video"). Never looks into the pictures.

use bytes::Bytes;

use super::{BadTag, extended};

/// One video tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VideoTag {
    /// The codec.
    pub codec: VideoCodec,
    /// It says that decoding can start here.
    pub key: bool,
    /// Nanoseconds that are added to the time of its message, less than a million.
    pub nanoseconds: u32,
    /// What it carries.
    pub packet: VideoPacket,
}

/// Codecs that are carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VideoCodec {
    /// H.264.
    Avc,
    /// H.265.
    Hevc,
    /// AV1.
    Av1,
}

/// What a video tag carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VideoPacket {
    /// The decoder configuration record.
    Setup(Bytes),
    /// One picture.
    Frame {
        /// Milliseconds from its decoding to its presentation.
        composition: i32,
        /// NAL units behind their lengths, or OBUs.
        data: Bytes,
    },
    /// The sequence is over.
    End,
    /// Colour metadata and the like, as AMF0.
    Metadata(Bytes),
    /// Nothing that a live stream needs: a seek command, or a packet of other tracks.
    Nothing,
}

/// Reads the body of a video message.
///
/// # Errors
/// It is cut, or its codec is not carried.
pub fn read_video(body: &Bytes) -> Result<VideoTag, BadTag> {
    let first = *body.first().ok_or(BadTag::Short(WHAT))?;
    let frame_type = first >> 4 & 7;
    let key = matches!(frame_type, KEY | GENERATED_KEY);
    if first & EXTENDED != 0 {
        return read_extended(first & 0x0F, frame_type, key, &body.slice(1..));
    }
    let codec = match first & 0x0F {
        7 => VideoCodec::Avc,
        // Not of Adobe's: what encoders agreed on before there were names of four characters.
        12 => VideoCodec::Hevc,
        13 => VideoCodec::Av1,
        other => return Err(BadTag::Codec(WHAT, other)),
    };
    let tag = |packet| VideoTag { codec, key, nanoseconds: 0, packet };
    if frame_type == COMMAND {
        return Ok(tag(VideoPacket::Nothing));
    }
    let [_, kind, c0, c1, c2] = *body.first_chunk().ok_or(BadTag::Short(WHAT))?;
    let data = body.slice(5..);
    Ok(tag(match kind {
        0 => VideoPacket::Setup(data),
        1 => VideoPacket::Frame { composition: signed(c0, c1, c2), data },
        2 => VideoPacket::End,
        _ => VideoPacket::Nothing,
    }))
}

/// Appends the head of a video message that carries a decoder configuration record (`composition` is `None`) or a
/// picture. H.264 is written as FLV always had it, the others with their names.
pub fn write_video_head(out: &mut Vec<u8>, codec: VideoCodec, key: bool, composition: Option<i32>) {
    let frame_type = if key { KEY } else { INTER } << 4;
    let [_, c0, c1, c2] = composition.unwrap_or_default().clamp(-0x80_0000, 0x7F_FFFF).to_be_bytes();
    let time = [c0, c1, c2];
    match (codec, composition) {
        (VideoCodec::Avc, None) => out.extend([frame_type | 7, 0, 0, 0, 0]),
        (VideoCodec::Avc, Some(_)) => out.extend([frame_type | 7, 1, c0, c1, c2]),
        (VideoCodec::Hevc | VideoCodec::Av1, None) => {
            out.push(EXTENDED | frame_type | SEQUENCE_START);
            out.extend(codec.four_cc());
        }
        (VideoCodec::Hevc, Some(ahead)) if ahead != 0 => {
            out.push(EXTENDED | frame_type | CODED_FRAMES);
            out.extend(codec.four_cc());
            out.extend(time);
        }
        (VideoCodec::Hevc, Some(_)) => {
            out.push(EXTENDED | frame_type | CODED_FRAMES_X);
            out.extend(codec.four_cc());
        }
        (VideoCodec::Av1, Some(_)) => {
            out.push(EXTENDED | frame_type | CODED_FRAMES);
            out.extend(codec.four_cc());
        }
    }
}

impl VideoCodec {
    /// Its name of four characters.
    pub fn four_cc(self) -> [u8; 4] {
        *match self {
            Self::Avc => b"avc1",
            Self::Hevc => b"hvc1",
            Self::Av1 => b"av01",
        }
    }
}

fn read_extended(kind: u8, frame_type: u8, key: bool, body: &Bytes) -> Result<VideoTag, BadTag> {
    let nothing =
        VideoTag { codec: VideoCodec::Avc, key: false, nanoseconds: 0, packet: VideoPacket::Nothing };
    // A command has one byte and no codec, unless metadata goes that way.
    if frame_type == COMMAND && kind != METADATA {
        return Ok(nothing);
    }
    let Some(packet) = extended::read(WHAT, kind, body)? else { return Ok(nothing) };
    let codec = match &packet.four_cc {
        b"avc1" => VideoCodec::Avc,
        b"hvc1" | b"hev1" => VideoCodec::Hevc,
        b"av01" => VideoCodec::Av1,
        other => return Err(BadTag::FourCc(WHAT, *other)),
    };
    let data = packet.body;
    let content = match packet.kind {
        SEQUENCE_START => VideoPacket::Setup(data),
        CODED_FRAMES if codec != VideoCodec::Av1 => {
            let [c0, c1, c2] = *data.first_chunk().ok_or(BadTag::Short(WHAT))?;
            VideoPacket::Frame { composition: signed(c0, c1, c2), data: data.slice(3..) }
        }
        CODED_FRAMES | CODED_FRAMES_X => VideoPacket::Frame { composition: 0, data },
        SEQUENCE_END => VideoPacket::End,
        METADATA => VideoPacket::Metadata(data),
        _ => VideoPacket::Nothing,
    };
    Ok(VideoTag { codec, key, nanoseconds: packet.nanoseconds, packet: content })
}

fn signed(high: u8, middle: u8, low: u8) -> i32 {
    i32::from_be_bytes([high, middle, low, 0]) >> 8
}

pub(super) const WHAT: &str = "video";
const EXTENDED: u8 = 0x80;
const KEY: u8 = 1;
const INTER: u8 = 2;
const GENERATED_KEY: u8 = 4;
const COMMAND: u8 = 5;
const SEQUENCE_START: u8 = 0;
const CODED_FRAMES: u8 = 1;
const SEQUENCE_END: u8 = 2;
const CODED_FRAMES_X: u8 = 3;
const METADATA: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<VideoTag, BadTag> {
        read_video(&Bytes::copy_from_slice(bytes))
    }

    fn frame(composition: i32, data: &'static [u8]) -> VideoPacket {
        VideoPacket::Frame { composition, data: Bytes::from_static(data) }
    }

    #[test]
    fn what_is_written_is_read() {
        for codec in [VideoCodec::Avc, VideoCodec::Hevc, VideoCodec::Av1] {
            for key in [true, false] {
                for composition in [None, Some(0), Some(80), Some(-40), Some(0x7F_FFFF), Some(-0x80_0000)] {
                    let mut bytes = Vec::new();
                    write_video_head(&mut bytes, codec, key, composition);
                    bytes.extend(b"data");
                    let composition = composition.map(|c| if codec == VideoCodec::Av1 { 0 } else { c });
                    let packet = match composition {
                        None => VideoPacket::Setup(Bytes::from_static(b"data")),
                        Some(composition) => frame(composition, b"data"),
                    };
                    assert_eq!(read(&bytes), Ok(VideoTag { codec, key, nanoseconds: 0, packet }));
                }
            }
        }
    }

    #[test]
    fn legacy_and_enhanced_tags_are_understood() {
        let tag = |codec, key, packet| Ok(VideoTag { codec, key, nanoseconds: 0, packet });
        assert_eq!(read(&[0x17, 2, 0, 0, 0]), tag(VideoCodec::Avc, true, VideoPacket::End));
        assert_eq!(read(&[0x57, 0]), tag(VideoCodec::Avc, false, VideoPacket::Nothing));
        assert_eq!(read(b"\x1C\x01\0\0\x28x"), tag(VideoCodec::Hevc, true, frame(40, b"x")));
        assert_eq!(read(b"\x92hvc1"), tag(VideoCodec::Hevc, true, VideoPacket::End));
        assert_eq!(read(b"\xA3hvc1x"), tag(VideoCodec::Hevc, false, frame(0, b"x")));
        assert_eq!(read(b"\xA1avc1\xFF\xFF\xFFx"), tag(VideoCodec::Avc, false, frame(-1, b"x")));
        let metadata = VideoPacket::Metadata(Bytes::from_static(b"amf"));
        assert_eq!(read(b"\xD4hvc1amf"), tag(VideoCodec::Hevc, false, metadata));
        assert_eq!(read(&[0xD0, 0]), tag(VideoCodec::Avc, false, VideoPacket::Nothing));
        assert_eq!(read(b"\x95av01x"), tag(VideoCodec::Av1, true, VideoPacket::Nothing), "MPEG-2 TS setup");
    }

    #[test]
    fn of_many_tracks_the_first_is_taken() {
        let tag = |packet| Ok(VideoTag { codec: VideoCodec::Hevc, key: true, nanoseconds: 0, packet });
        assert_eq!(read(b"\x96\x03hvc1\0x"), tag(frame(0, b"x")), "one track");
        assert_eq!(read(b"\x96\x13hvc1\x01\0\0\x02yy\0\0\0\x01x"), tag(frame(0, b"x")), "many tracks");
        let codecs = b"\x96\x23av01\x01\0\0\x02yyhvc1\0\0\0\x01x";
        assert_eq!(read(codecs), tag(frame(0, b"x")), "many tracks and codecs");
        assert_eq!(read(b"\x96\x03hvc1\x01x").unwrap().packet, VideoPacket::Nothing, "only another track");
        assert_eq!(read(b"\x96\x13hvc1\0\xFF\xFF\xFFx"), Err(BadTag::Short(WHAT)));
    }

    #[test]
    fn times_finer_than_a_millisecond_are_read() {
        let tag = read(b"\x97\x02\x07\xA1\x20\x03hvc1x").unwrap();
        assert_eq!((tag.nanoseconds, tag.packet), (500_000, frame(0, b"x")));
        let unknown = read(b"\x97\x00\xAA\x13hvc1x").unwrap();
        assert_eq!((unknown.nanoseconds, unknown.packet), (0, frame(0, b"x")));
        let long = [&b"\x97\xFF\x00\xFF"[..], &[0; 256], b"\x03hvc1x"].concat();
        assert_eq!(read(&long).unwrap().packet, frame(0, b"x"));
    }

    #[test]
    fn cut_and_unknown_tags_are_named() {
        for cut in
            [&b""[..], b"\x17", b"\x17\x01\0\0", b"\x93hvc", b"\x91hvc1\0\0", b"\x97", b"\x97\x05\0", b"\x96"]
        {
            assert_eq!(read(cut), Err(BadTag::Short(WHAT)), "{cut:?}");
        }
        assert_eq!(read(b"\x12x"), Err(BadTag::Codec(WHAT, 2)));
        assert_eq!(read(b"\x93vp\x0009").unwrap_err().to_string(), "video codec vp.0 is not supported");
    }
}
