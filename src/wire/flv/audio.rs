//! Bodies of audio tags enter, what is in them leaves; and the heads of those that we send (FLV E.4.2; Enhanced RTMP
//! v2, "Enhanced Audio"). Never looks into the sound.

use bytes::Bytes;

use super::{BadTag, extended};

/// One audio tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudioTag {
    /// The codec.
    pub codec: AudioCodec,
    /// Nanoseconds that are added to the time of its message, less than a million.
    pub nanoseconds: u32,
    /// What it carries.
    pub packet: AudioPacket,
}

/// Codecs that are carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AudioCodec {
    /// AAC.
    Aac,
    /// MPEG audio layer 3.
    Mp3,
    /// AC-3.
    Ac3,
    /// Opus.
    Opus,
    /// G.711 A-law, 8 kHz, mono.
    PcmA,
    /// G.711 µ-law, 8 kHz, mono.
    PcmU,
}

/// What an audio tag carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AudioPacket {
    /// What a decoder must know first: AudioSpecificConfig, or the identification header of Opus.
    Setup(Bytes),
    /// One frame, or several of codecs that know where each ends.
    Frame(Bytes),
    /// The sequence is over.
    End,
    /// Nothing that is needed: the order of channels, or a packet of other tracks.
    Nothing,
}

/// Reads the body of an audio message.
///
/// # Errors
/// It is cut, or its codec is not carried.
pub fn read_audio(body: &Bytes) -> Result<AudioTag, BadTag> {
    let first = *body.first().ok_or(BadTag::Short(WHAT))?;
    let data = body.slice(1..);
    let codec = match first >> 4 {
        EXTENDED => return read_extended(first & 0x0F, &data),
        2 | 14 => AudioCodec::Mp3,
        7 => AudioCodec::PcmA,
        8 => AudioCodec::PcmU,
        10 => AudioCodec::Aac,
        other => return Err(BadTag::Codec(WHAT, other)),
    };
    let packet = match (codec, data.first()) {
        (AudioCodec::Aac, Some(0)) => AudioPacket::Setup(data.slice(1..)),
        (AudioCodec::Aac, Some(1)) => AudioPacket::Frame(data.slice(1..)),
        (AudioCodec::Aac, Some(_)) => AudioPacket::Nothing,
        (AudioCodec::Aac, None) => return Err(BadTag::Short(WHAT)),
        _ => AudioPacket::Frame(data),
    };
    Ok(AudioTag { codec, nanoseconds: 0, packet })
}

/// Appends the head of an audio message: of what a decoder must know first (`setup`), or of a frame. `rate` and
/// `channels` are what legacy heads of MP3 tell; AAC's are fixed, whatever they are (E.4.2.1).
pub fn write_audio_head(out: &mut Vec<u8>, codec: AudioCodec, setup: bool, rate: u32, channels: u8) {
    let stereo = u8::from(channels > 1);
    match codec {
        AudioCodec::Aac => out.extend([0xAF, u8::from(!setup)]),
        AudioCodec::Mp3 => {
            let rate = match rate {
                ..=11_025 => 1,
                11_026..=22_050 => 2,
                _ => 3,
            };
            out.push(0x20 | rate << 2 | 2 | stereo);
        }
        // 16-bit samples, once decoded
        AudioCodec::PcmA => out.push(0x72 | stereo),
        AudioCodec::PcmU => out.push(0x82 | stereo),
        AudioCodec::Ac3 | AudioCodec::Opus => {
            out.push(EXTENDED << 4 | if setup { SEQUENCE_START } else { CODED_FRAMES });
            out.extend(if codec == AudioCodec::Ac3 { b"ac-3" } else { b"Opus" });
        }
    }
}

fn read_extended(kind: u8, body: &Bytes) -> Result<AudioTag, BadTag> {
    let nothing = AudioTag { codec: AudioCodec::Aac, nanoseconds: 0, packet: AudioPacket::Nothing };
    let Some(packet) = extended::read(WHAT, kind, body)? else { return Ok(nothing) };
    let codec = match &packet.four_cc {
        b"mp4a" => AudioCodec::Aac,
        b".mp3" => AudioCodec::Mp3,
        b"ac-3" => AudioCodec::Ac3,
        b"Opus" => AudioCodec::Opus,
        other => return Err(BadTag::FourCc(WHAT, *other)),
    };
    let content = match packet.kind {
        SEQUENCE_START => AudioPacket::Setup(packet.body),
        CODED_FRAMES => AudioPacket::Frame(packet.body),
        SEQUENCE_END => AudioPacket::End,
        _ => AudioPacket::Nothing,
    };
    Ok(AudioTag { codec, nanoseconds: packet.nanoseconds, packet: content })
}

const WHAT: &str = "audio";
const EXTENDED: u8 = 9;
const SEQUENCE_START: u8 = 0;
const CODED_FRAMES: u8 = 1;
const SEQUENCE_END: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<AudioTag, BadTag> {
        read_audio(&Bytes::copy_from_slice(bytes))
    }

    #[test]
    fn what_is_written_is_read() {
        use AudioCodec::{Aac, Ac3, Mp3, Opus, PcmA, PcmU};
        for codec in [Aac, Mp3, Ac3, Opus, PcmA, PcmU] {
            for setup in [false, true] {
                let mut bytes = Vec::new();
                write_audio_head(&mut bytes, codec, setup, 44_100, 2);
                bytes.extend(b"data");
                let data = Bytes::from_static(b"data");
                let configured = setup && !matches!(codec, Mp3 | PcmA | PcmU);
                let packet = if configured { AudioPacket::Setup(data) } else { AudioPacket::Frame(data) };
                assert_eq!(read(&bytes), Ok(AudioTag { codec, nanoseconds: 0, packet }));
            }
        }
    }

    #[test]
    fn enhanced_tags_are_understood() {
        assert_eq!(
            read(b"\x90mp4a\x12\x10").unwrap().packet,
            AudioPacket::Setup(Bytes::from_static(b"\x12\x10"))
        );
        assert_eq!(read(b"\x92Opus").unwrap().packet, AudioPacket::End);
        assert_eq!(read(b"\x94Opus\x01\x02").unwrap().packet, AudioPacket::Nothing, "order of channels");
        let multitrack = read(b"\x95\x01Opus\x00x").unwrap();
        assert_eq!(
            (multitrack.codec, multitrack.packet),
            (AudioCodec::Opus, AudioPacket::Frame(Bytes::from_static(b"x")))
        );
        assert_eq!(read(b"\x95\x01Opus\x01x").unwrap().packet, AudioPacket::Nothing);
        assert_eq!(read(b"\x97\x02\x00\x03\xE8\x01Opusx").unwrap().nanoseconds, 1000);
    }

    #[test]
    fn cut_and_unknown_tags_are_named() {
        for cut in [&b""[..], b"\xAF", b"\x91Opu", b"\x95", b"\x97\x02\0"] {
            assert_eq!(read(cut), Err(BadTag::Short(WHAT)), "{cut:?}");
        }
        assert_eq!(read(b"\xB2"), Err(BadTag::Codec(WHAT, 11)));
        assert_eq!(read(b"\x91fLaCx"), Err(BadTag::FourCc(WHAT, *b"fLaC")));
    }
}
