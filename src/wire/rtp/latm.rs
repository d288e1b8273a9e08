//! AAC in LATM over RTP (RFC 6416, MP4A-LATM): packets in order enter, raw access units leave. Reads a multiplex of one
//! programme with one layer, as every sender makes it; makes none.

use bytes::Bytes;

use super::header::Header;
use super::unit::{Assembly, Losses, Unit};

/// What StreamMuxConfig (ISO/IEC 14496-3, 1.7.3.2.3) says about the one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MuxConfig {
    /// AudioSpecificConfig, in whole bytes.
    pub config: Bytes,
    /// Access units of an AudioMuxElement.
    pub frames: u8,
    /// Samples per second of the core.
    pub rate: u32,
    /// Channels, 0 when a programme config element says it.
    pub channels: u8,
}

/// Puts access units together.
#[derive(Debug)]
pub struct LatmDepacketizer {
    /// In force; `None` until one came in band.
    config: Option<MuxConfig>,
    in_band: bool,
    unit: Assembly,
}

impl MuxConfig {
    /// Reads the `config` of an SDP, as bytes.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        Self::read(&mut Bits { bytes, at: 0 })
    }

    fn read(bits: &mut Bits<'_>) -> Option<Self> {
        // audioMuxVersion 1 has lengths and buffer sizes, which no camera sends.
        let version = bits.read(1)?;
        let same_framing = bits.read(1)?;
        let frames = bits.read(6)? + 1;
        let programs = bits.read(4)?;
        let layers = bits.read(3)?;
        if version != 0 || same_framing != 1 || programs != 0 || layers != 0 {
            return None;
        }
        let start = bits.at;
        let (rate, channels) = read_audio_config(bits)?;
        let config = bits.copy(start, bits.at)?;
        let frame_length_type = bits.read(3)?;
        if frame_length_type != 0 {
            return None;
        }
        let _latm_buffer_fullness = bits.read(8)?;
        if bits.read(1)? == 1 {
            // otherDataLenBits
            while bits.read(1)? == 1 {
                bits.read(8)?;
            }
            bits.read(8)?;
        }
        if bits.read(1)? == 1 {
            let _crc = bits.read(8)?;
        }
        Some(Self { config, frames: frames as u8, rate, channels })
    }
}

impl LatmDepacketizer {
    /// A depacketizer with the `config` of the SDP, and whether more may come in band (`cpresent=1`).
    pub fn new(config: Option<MuxConfig>, in_band: bool) -> Self {
        Self { config, in_band, unit: Assembly::default() }
    }

    /// What is in force.
    pub fn config(&self) -> Option<&MuxConfig> {
        self.config.as_ref()
    }

    /// Takes the payload of the next packet; `lost` tells that packets before it are missing.
    pub fn push(&mut self, header: &Header, payload: &[u8], lost: bool, emit: &mut impl FnMut(Unit)) {
        if let Some(ended) = self.unit.turn(header, lost) {
            self.element(&ended, emit);
        }
        self.unit.extend(payload);
        if header.marker
            && let Some(ended) = self.unit.finish()
        {
            self.element(&ended, emit);
        }
    }

    /// What was lost so far.
    pub fn losses(&self) -> Losses {
        self.unit.losses
    }

    /// Takes an AudioMuxElement apart (ISO/IEC 14496-3, 1.7.3.2).
    fn element(&mut self, element: &Unit, emit: &mut impl FnMut(Unit)) {
        if !element.damaged && self.read(element, emit).is_none() {
            self.unit.losses.malformed += 1;
        }
    }

    fn read(&mut self, element: &Unit, emit: &mut impl FnMut(Unit)) -> Option<()> {
        let mut bits = Bits { bytes: &element.data, at: 0 };
        if self.in_band && bits.read(1)? == 0 {
            self.config = Some(MuxConfig::read(&mut bits)?);
        }
        let config = self.config.as_ref()?;
        for frame in 0..u32::from(config.frames) {
            let mut length = 0;
            loop {
                let more = bits.read(8)? as usize;
                length += more;
                if more < 0xff {
                    break;
                }
            }
            let data = bits.copy(bits.at, bits.at.checked_add(8 * length)?)?;
            bits.at += 8 * length;
            let timestamp = element.timestamp.wrapping_add(frame * SAMPLES);
            if !data.is_empty() {
                emit(Unit { timestamp, data, damaged: false });
            }
        }
        Some(())
    }
}

/// AudioSpecificConfig (ISO/IEC 14496-3, 1.6.2.1) of the general audio coder: rate and channels of the core.
fn read_audio_config(bits: &mut Bits<'_>) -> Option<(u32, u8)> {
    let mut kind = read_object_type(bits)?;
    let rate = read_rate(bits)?;
    let channels = bits.read(4)? as u8;
    // Explicit signalling of SBR and PS.
    if kind == 5 || kind == 29 {
        let _extension_rate = read_rate(bits)?;
        kind = read_object_type(bits)?;
    }
    // AAC Main, LC, SSR, LTP: the rest are coders that cameras do not have.
    if !(1..=4).contains(&kind) || channels == 0 {
        return None;
    }
    let _frame_length_flag = bits.read(1)?;
    if bits.read(1)? == 1 {
        let _core_coder_delay = bits.read(14)?;
    }
    let _extension_flag = bits.read(1)?;
    Some((rate, channels))
}

fn read_object_type(bits: &mut Bits<'_>) -> Option<u32> {
    match bits.read(5)? {
        31 => Some(32 + bits.read(6)?),
        kind => Some(kind),
    }
}

fn read_rate(bits: &mut Bits<'_>) -> Option<u32> {
    match bits.read(4)? as usize {
        15 => bits.read(24),
        index => RATES.get(index).copied(),
    }
}

/// Bits, most significant first.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn read(&mut self, count: u32) -> Option<u32> {
        let mut value = 0;
        for _ in 0..count {
            let byte = self.bytes.get(self.at / 8)?;
            value = value << 1 | u32::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Some(value)
    }

    /// The bits from `start` to `end`, moved to the front of whole bytes.
    fn copy(&self, start: usize, end: usize) -> Option<Bytes> {
        if end > 8 * self.bytes.len() || start > end {
            return None;
        }
        let (first, shift) = (start / 8, start % 8);
        let byte = |i: usize| self.bytes.get(i).copied().unwrap_or(0);
        let mut out: Vec<u8> = (0..(end - start).div_ceil(8))
            .map(|i| {
                let pair = u16::from_be_bytes([byte(first + i), byte(first + i + 1)]);
                (pair << shift).to_be_bytes()[0]
            })
            .collect();
        let spare = (8 - (end - start) % 8) % 8;
        if let Some(last) = out.last_mut() {
            *last &= 0xff << spare;
        }
        Some(out.into())
    }
}

/// Samples of an access unit.
const SAMPLES: u32 = 1024;

/// samplingFrequencyIndex (ISO/IEC 14496-3, table 1.18).
const RATES: [u32; 13] =
    [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    /// ffmpeg's `config=` for AAC-LC, 48 kHz, stereo.
    const CONFIG: [u8; 6] = [0x40, 0x00, 0x23, 0x20, 0x3f, 0xc0];

    #[test]
    fn the_config_of_an_sdp_is_read() {
        let config = MuxConfig::parse(&CONFIG).unwrap();
        assert_eq!((config.rate, config.channels, config.frames), (48_000, 2, 1));
        assert_eq!(config.config[..], [0x11, 0x90]);
        assert_eq!(MuxConfig::parse(&CONFIG[..3]), None);
        assert_eq!(MuxConfig::parse(&[0xc0; 6]), None);
    }

    #[test]
    fn an_element_over_two_packets_is_one_access_unit() {
        let mut depacketizer = LatmDepacketizer::new(MuxConfig::parse(&CONFIG), false);
        let element = [&[255, 45][..], &[7; 300]].concat();
        let mut out = Vec::new();
        let (first, second) = element.split_at(100);
        depacketizer.push(&samples::header(0, 9, false), first, false, &mut |unit| out.push(unit));
        depacketizer.push(&samples::header(1, 9, true), second, false, &mut |unit| out.push(unit));
        assert_eq!(out, [Unit { timestamp: 9, data: vec![7; 300].into(), damaged: false }]);
        depacketizer.push(&samples::header(3, 10, true), &[9, 1, 2], true, &mut |unit| out.push(unit));
        assert_eq!((out.len(), depacketizer.losses().damaged), (1, 1));
    }

    #[test]
    fn a_config_in_band_shifts_what_follows() {
        // useSameStreamMux 0, the config, a length of 2, two bytes
        let mut bits: Vec<u8> = vec![0];
        bits.extend(CONFIG.iter().flat_map(|byte| (0..8).map(move |i| byte >> (7 - i) & 1)).take(42 + 2));
        for byte in [2u8, 0xab, 0xcd] {
            bits.extend((0..8).map(|i| byte >> (7 - i) & 1));
        }
        bits.resize(bits.len().div_ceil(8) * 8, 0);
        let element: Vec<u8> =
            bits.chunks(8).map(|byte| byte.iter().fold(0, |all, bit| all << 1 | bit)).collect();
        let mut depacketizer = LatmDepacketizer::new(None, true);
        let mut out = Vec::new();
        depacketizer.push(&samples::header(0, 9, true), &element, false, &mut |unit| out.push(unit));
        assert_eq!(depacketizer.config().map(|config| config.rate), Some(48_000));
        assert_eq!(out.iter().map(|unit| unit.data.to_vec()).collect::<Vec<_>>(), [[0xab, 0xcd]]);
    }
}
