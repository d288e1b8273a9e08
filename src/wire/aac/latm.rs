//! AudioMuxElements of LATM (ISO/IEC 14496-3, 1.7.3; RFC 6416) enter, raw access units leave. Never takes more than
//! one program with one layer.

use thiserror::Error;

use super::config::Config;
use crate::wire::bits::Bits;

/// Why an AudioMuxElement was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LatmError {
    /// It ends too early.
    #[error("LATM element is cut off")]
    Truncated,
    /// It needs a configuration that has not come yet.
    #[error("LATM element without a configuration")]
    NoConfig,
    /// A part of the standard that is not known here.
    #[error("LATM with {0} is not supported")]
    Unsupported(&'static str),
}

/// Follows one LATM stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Latm {
    mux: Option<Mux>,
}

/// StreamMuxConfig (1.7.3.1, table 1.42), as far as it is allowed here.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mux {
    config: Config,
    config_bytes: Vec<u8>,
    /// PayloadMux of an element, 1 to 64.
    frames: u32,
    other_bits: u32,
}

impl Latm {
    /// None yet: the configuration comes in the stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// With a StreamMuxConfig that came another way: `config` of RFC 6416, with `cpresent=0`. It may end behind the
    /// AudioSpecificConfig, as GStreamer's rtpmp4apay writes it: the rest then has its usual values.
    ///
    /// # Errors
    /// [`LatmError`] when it is cut off before or not supported.
    pub fn with_config(stream_mux_config: &[u8]) -> Result<Self, LatmError> {
        let mut bits = Bits::new(stream_mux_config);
        let mux = read_layer(&mut bits)?;
        let other_bits = match read_other_bits(&mut bits) {
            Err(LatmError::Truncated) => 0,
            read => read?,
        };
        Ok(Self { mux: Some(Mux { other_bits, ..mux }) })
    }

    /// What the sound is; none before the first configuration.
    pub fn config(&self) -> Option<(Config, &[u8])> {
        self.mux.as_ref().map(|mux| (mux.config, mux.config_bytes.as_slice()))
    }

    /// Takes an AudioMuxElement and hands out its access units. `in_band`: it says whether it brings a
    /// configuration (muxConfigPresent, as in LOAS and with `cpresent=1`).
    ///
    /// # Errors
    /// [`LatmError`]; access units before the bad place have left.
    pub fn push(
        &mut self,
        element: &[u8],
        in_band: bool,
        emit: &mut impl FnMut(&[u8]),
    ) -> Result<(), LatmError> {
        let mut bits = Bits::new(element);
        if in_band && !bits.flag().ok_or(LatmError::Truncated)? {
            let mux = read_layer(&mut bits)?;
            let mux = Mux { other_bits: read_other_bits(&mut bits)?, ..mux };
            if self.mux.as_ref() != Some(&mux) {
                self.mux = Some(mux);
            }
        }
        let mux = self.mux.as_ref().ok_or(LatmError::NoConfig)?;
        let mut unit = Vec::new();
        for _ in 0..mux.frames {
            // PayloadLengthInfo (1.7.3.1, table 1.44), frameLengthType 0
            let mut length = 0usize;
            loop {
                let byte = bits.take(8).ok_or(LatmError::Truncated)?;
                length += byte as usize;
                if byte != 0xff {
                    break;
                }
            }
            if length > element.len() {
                return Err(LatmError::Truncated);
            }
            unit.clear();
            unit.reserve(length);
            for _ in 0..length {
                unit.push(bits.take(8).ok_or(LatmError::Truncated)? as u8);
            }
            if !unit.is_empty() {
                emit(&unit);
            }
        }
        bits.skip(mux.other_bits).ok_or(LatmError::Truncated)
    }
}

fn take(bits: &mut Bits<'_>, count: u32) -> Result<u32, LatmError> {
    bits.take(count).ok_or(LatmError::Truncated)
}

/// The first half: how many frames, and what they are.
fn read_layer(bits: &mut Bits<'_>) -> Result<Mux, LatmError> {
    if take(bits, 1)? == 1 {
        return Err(LatmError::Unsupported("audioMuxVersion 1"));
    }
    if take(bits, 1)? == 0 {
        return Err(LatmError::Unsupported("streams of different framing"));
    }
    let frames = take(bits, 6)? + 1;
    if take(bits, 4)? != 0 || take(bits, 3)? != 0 {
        return Err(LatmError::Unsupported("more than one program or layer"));
    }
    let before = bits.clone();
    let start = bits.position();
    let config = Config::read(bits).ok_or(LatmError::Unsupported("this AudioSpecificConfig"))?;
    let config_bytes = copy_bits(before, bits.position() - start);
    Ok(Mux { config, config_bytes, frames, other_bits: 0 })
}

/// The second half: what is in an element besides frames.
fn read_other_bits(bits: &mut Bits<'_>) -> Result<u32, LatmError> {
    if take(bits, 3)? != 0 {
        return Err(LatmError::Unsupported("a frameLengthType other than 0"));
    }
    take(bits, 8)?;
    let mut other_bits = 0u32;
    if take(bits, 1)? == 1 {
        loop {
            let more = take(bits, 1)? == 1;
            other_bits = other_bits.checked_mul(256).ok_or(LatmError::Unsupported("so much other data"))?;
            other_bits |= take(bits, 8)?;
            if !more {
                break;
            }
        }
    }
    if take(bits, 1)? == 1 {
        take(bits, 8)?;
    }
    Ok(other_bits)
}

/// These bits, from the first byte on, the last byte filled up with zeros.
fn copy_bits(mut from: Bits<'_>, count: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(count.div_ceil(8));
    let mut left = count as u32;
    while left > 0 {
        let step = left.min(8);
        bytes.push((from.take(step).unwrap_or(0) << (8 - step)) as u8);
        left -= step;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::bits::BitWriter;

    /// An element as an encoder makes it, its units all of one configuration.
    fn element(config: Option<Config>, frames: u32, units: &[&[u8]], other: u32) -> Vec<u8> {
        let mut bits = BitWriter::default();
        bits.put(u32::from(config.is_none()), 1);
        if let Some(config) = config {
            bits.put(0b01, 2);
            bits.put(frames - 1, 6);
            bits.put(0, 7);
            config.write(&mut bits);
            bits.put(0, 3);
            bits.put(0xff, 8);
            bits.put(u32::from(other > 0), 1);
            if other > 0 {
                bits.put(0, 1);
                bits.put(other, 8);
            }
            bits.put(0, 1);
        }
        for unit in units {
            let mut left = unit.len() as u32;
            while left >= 255 {
                bits.put(255, 8);
                left -= 255;
            }
            bits.put(left, 8);
            unit.iter().for_each(|&byte| bits.put(byte.into(), 8));
        }
        (0..other).for_each(|_| bits.put(1, 1));
        bits.into_bytes()
    }

    #[test]
    fn a_configuration_holds_until_the_next() {
        let mut latm = Latm::new();
        let mut found = Vec::new();
        let config = Config { extended_rate: Some(48_000), ..Config::new(2, 24_000, 2) };
        let long = [7; 600];
        let mut push = |latm: &mut Latm, element: &[u8]| {
            found.clear();
            latm.push(element, true, &mut |unit| found.push(unit.to_vec())).map(|()| found.clone())
        };
        assert_eq!(push(&mut latm, &element(None, 1, &[&[1]], 0)), Err(LatmError::NoConfig));
        assert_eq!(push(&mut latm, &element(Some(config), 1, &[&long], 0)), Ok(vec![long.to_vec()]));
        assert_eq!(push(&mut latm, &element(None, 1, &[&[1, 2]], 0)), Ok(vec![vec![1, 2]]));
        let (read, bytes) = latm.config().unwrap();
        assert_eq!((read, Config::parse(bytes)), (config, Some(config)));
        let two = element(Some(Config::new(2, 44_100, 1)), 2, &[&[1], &[2, 3]], 12);
        assert_eq!(push(&mut latm, &two), Ok(vec![vec![1], vec![2, 3]]));
        assert_eq!(latm.config().map(|c| c.0), Some(Config::new(2, 44_100, 1)));
        assert_eq!(push(&mut latm, &two[..two.len() - 4]), Err(LatmError::Truncated));
    }

    #[test]
    fn a_configuration_from_outside() {
        // RFC 6416, 5.3: config=40002410adca00 is of a SBR stream with PS; this one is of 48 kHz stereo
        let element = element(Some(Config::new(2, 48_000, 2)), 1, &[], 0);
        let mut bits = Bits::new(&element);
        bits.flag();
        let config = copy_bits(bits, element.len() * 8 - 1);
        let mut latm = Latm::with_config(&config).unwrap();
        let mut found = Vec::new();
        latm.push(&[3, 1, 2, 3], false, &mut |unit| found.extend_from_slice(unit)).unwrap();
        assert_eq!(found, [1, 2, 3]);
        assert_eq!(Latm::with_config(&[0x80]).unwrap_err(), LatmError::Unsupported("audioMuxVersion 1"));
        // GStreamer 1.22, rtpmp4apay: AAC-LC, 48 kHz, mono
        let short = Latm::with_config(&[0x40, 0x00, 0x23, 0x10]).unwrap();
        assert_eq!(short.config(), Some((Config::new(2, 48_000, 1), [0x11, 0x88].as_slice())));
        assert_eq!(
            Latm::with_config(&[0x40, 0x00]).unwrap_err(),
            LatmError::Unsupported("this AudioSpecificConfig")
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(elements in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..6)) {
            let mut latm = Latm::new();
            for element in elements {
                let mut bytes = 0;
                let _ = latm.push(&element, true, &mut |unit| bytes += unit.len());
                prop_assert!(bytes <= element.len());
            }
        }
    }
}
