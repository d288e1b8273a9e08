//! AAC in LATM over RTP (RFC 6416, MP4A-LATM): packets in order enter, raw access units leave. What a multiplex is, is
//! known elsewhere; makes none.

use bytes::Bytes;

use super::header::Header;
use super::unit::{Assembly, Losses, Unit};
use crate::wire::aac::Latm;

/// What StreamMuxConfig (ISO/IEC 14496-3, 1.7.3.2.3) says about its one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MuxConfig {
    /// AudioSpecificConfig, in whole bytes.
    pub config: Bytes,
    /// Samples per second of the core.
    pub rate: u32,
    /// Channels.
    pub channels: u8,
    latm: Latm,
}

/// Puts access units together.
#[derive(Debug)]
pub struct LatmDepacketizer {
    latm: Latm,
    /// In force; `None` until one came in band.
    config: Option<MuxConfig>,
    in_band: bool,
    unit: Assembly,
}

impl MuxConfig {
    /// Reads the `config` of an SDP, as bytes; `None` where it is cut off, or not of one programme with one layer whose
    /// channels are known.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        Self::of(&Latm::with_config(bytes).ok()?)
    }

    fn of(latm: &Latm) -> Option<Self> {
        let (config, bytes) = latm.config()?;
        let channels = config.channel_count();
        let known =
            Self { config: Bytes::copy_from_slice(bytes), rate: config.rate, channels, latm: latm.clone() };
        (channels > 0).then_some(known)
    }
}

impl LatmDepacketizer {
    /// A depacketizer with the `config` of the SDP, and whether more may come in band (`cpresent=1`).
    pub fn new(config: Option<MuxConfig>, in_band: bool) -> Self {
        let latm = config.as_ref().map_or_else(Latm::new, |config| config.latm.clone());
        Self { latm, config, in_band, unit: Assembly::default() }
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
        if element.damaged {
            return;
        }
        let mut units = Vec::new();
        let taken = self.latm.push(&element.data, self.in_band, &mut |unit| {
            units.push(Bytes::copy_from_slice(unit));
        });
        if self.in_band && self.config.as_ref().map(|config| &config.latm) != Some(&self.latm) {
            self.config = MuxConfig::of(&self.latm);
        }
        let samples = self.latm.config().map_or(0, |(config, _)| config.frame_samples);
        let mut timestamp = element.timestamp;
        // One whose channels nobody knows is not played.
        for data in units.into_iter().filter(|_| self.config.is_some()) {
            emit(Unit { timestamp, data, damaged: false });
            timestamp = timestamp.wrapping_add(samples);
        }
        self.unit.losses.malformed += u64::from(taken.is_err());
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    /// ffmpeg's `config=` for AAC-LC, 48 kHz, stereo.
    const CONFIG: [u8; 6] = [0x40, 0x00, 0x23, 0x20, 0x3f, 0xc0];

    #[test]
    fn the_config_of_an_sdp_is_read() {
        let config = MuxConfig::parse(&CONFIG).unwrap();
        assert_eq!((config.rate, config.channels), (48_000, 2));
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
