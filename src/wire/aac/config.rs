//! AudioSpecificConfig (ISO/IEC 14496-3, 1.6.2.1) enters and leaves. Never keeps what it does not know.

use crate::wire::bits::{BitWriter, Bits};

/// What an AudioSpecificConfig says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// audioObjectType of the core: 2 = AAC LC.
    pub object_type: u8,
    /// Samples per second of the core.
    pub rate: u32,
    /// channelConfiguration, 1 to 7: 7 means eight channels.
    pub channels: u8,
    /// Samples of a frame: 1024, or 960.
    pub frame_samples: u32,
    /// Spectral band replication that it says: samples per second of what comes out.
    pub extended_rate: Option<u32>,
    /// Parametric stereo that it says.
    pub parametric_stereo: bool,
}

impl Config {
    /// AAC of this object type, rate and channelConfiguration, nothing extended.
    pub fn new(object_type: u8, rate: u32, channels: u8) -> Self {
        Self {
            object_type,
            rate,
            channels,
            frame_samples: 1024,
            extended_rate: None,
            parametric_stereo: false,
        }
    }

    /// Reads one; none when it is cut off, or says what is not known here: object types other than AAC's main, LC,
    /// SSR, LTP and scalable, a channel layout of its own.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut bits = Bits::new(bytes);
        let mut config = Self::read(&mut bits)?;
        // Extensions may stand behind, so that old decoders do not see them (1.6.6.1).
        if config.extended_rate.is_none() && bits.take(11) == Some(0x2b7) && bits.take(5) == Some(5) {
            if bits.flag() == Some(true) {
                config.extended_rate = read_rate(&mut bits);
            }
            if bits.take(11) == Some(0x548) {
                config.parametric_stereo = bits.flag() == Some(true);
            }
        }
        Some(config)
    }

    /// Reads one up to its end, which in LATM is followed by something else.
    pub fn read(bits: &mut Bits<'_>) -> Option<Self> {
        let mut object_type = read_object_type(bits)?;
        let rate = read_rate(bits)?;
        let channels = bits.take(4)? as u8;
        let mut config = Self::new(object_type, rate, channels);
        if matches!(object_type, SBR | PS) {
            config.extended_rate = Some(read_rate(bits)?);
            config.parametric_stereo = object_type == PS;
            object_type = read_object_type(bits)?;
            config.object_type = object_type;
        }
        // GASpecificConfig (4.4.1)
        if !matches!(object_type, 1..=4 | 6) || !(1..=7).contains(&channels) {
            return None;
        }
        if bits.flag()? {
            config.frame_samples = 960;
        }
        if bits.flag()? {
            bits.skip(14)?;
        }
        let extension = bits.flag()?;
        if object_type == 6 {
            bits.skip(3)?;
        }
        if extension {
            bits.flag()?;
        }
        Some(config)
    }

    /// Writes it, extensions in the form in which they cannot be overlooked.
    pub fn to_bytes(self) -> Vec<u8> {
        let mut bits = BitWriter::default();
        self.write(&mut bits);
        bits.into_bytes()
    }

    /// The same, into the middle of something.
    pub fn write(self, bits: &mut BitWriter) {
        let first = match self.extended_rate {
            Some(_) if self.parametric_stereo => PS,
            Some(_) => SBR,
            None => self.object_type,
        };
        put_object_type(bits, first);
        put_rate(bits, self.rate);
        bits.put(self.channels.into(), 4);
        if let Some(rate) = self.extended_rate {
            put_rate(bits, rate);
            put_object_type(bits, self.object_type);
        }
        bits.put(u32::from(self.frame_samples == 960), 1);
        bits.put(0, if self.object_type == 6 { 5 } else { 2 });
    }

    /// Channels that it means.
    pub fn channel_count(self) -> u8 {
        if self.channels == 7 { 8 } else { self.channels }
    }
}

/// samplingFrequencyIndex of a rate (table 1.18); none = only in full.
pub fn rate_index(rate: u32) -> Option<u8> {
    RATES.iter().position(|&r| r == rate).map(|index| index as u8)
}

/// The rate behind an index; none = reserved, or in full.
pub(super) fn indexed_rate(index: u8) -> Option<u32> {
    RATES.get(usize::from(index)).copied()
}

fn read_object_type(bits: &mut Bits<'_>) -> Option<u8> {
    match bits.take(5)? {
        31 => Some(32 + bits.take(6)? as u8),
        short => Some(short as u8),
    }
}

fn put_object_type(bits: &mut BitWriter, object_type: u8) {
    if let Some(long) = object_type.checked_sub(32) {
        bits.put(31, 5);
        bits.put(long.into(), 6);
    } else {
        bits.put(object_type.into(), 5);
    }
}

fn read_rate(bits: &mut Bits<'_>) -> Option<u32> {
    match bits.take(4)? {
        15 => bits.take(24).filter(|&rate| rate > 0),
        index => indexed_rate(index as u8),
    }
}

fn put_rate(bits: &mut BitWriter, rate: u32) {
    match rate_index(rate) {
        Some(index) => bits.put(index.into(), 4),
        None => {
            bits.put(15, 4);
            bits.put(rate, 24);
        }
    }
}

const SBR: u8 = 5;
const PS: u8 = 29;
const RATES: [u32; 13] =
    [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn configurations_in_the_field() {
        assert_eq!(Config::parse(&[0x11, 0x90]), Some(Config::new(2, 48_000, 2)));
        assert_eq!(Config::parse(&[0x12, 0x10]), Some(Config::new(2, 44_100, 2)));
        // HE-AAC: said in front, and behind
        let he = Config { extended_rate: Some(48_000), ..Config::new(2, 24_000, 2) };
        assert_eq!(Config::parse(&[0x2b, 0x11, 0x88, 0x00]), Some(he));
        assert_eq!(Config::parse(&[0x13, 0x10, 0x56, 0xe5, 0x98]), Some(he));
        let v2 = Config { parametric_stereo: true, channels: 1, ..he };
        assert_eq!(Config::parse(&v2.to_bytes()), Some(v2));
        // its own layout; extended HE-AAC; cut off
        assert_eq!(Config::parse(&[0x11, 0x80]), None);
        assert_eq!(Config::parse(&[0xf9, 0x46, 0x40, 0, 0]), None);
        assert_eq!(Config::parse(&[0x11]), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            object_type in 1u8..=4, rate in 1u32..1 << 24, channels in 1u8..=7, short in any::<bool>(),
            extended in prop::option::of(1u32..1 << 24),
        ) {
            let config = Config {
                frame_samples: if short { 960 } else { 1024 },
                extended_rate: extended,
                ..Config::new(object_type, rate, channels)
            };
            prop_assert_eq!(Config::parse(&config.to_bytes()), Some(config));
        }

        #[test]
        fn any_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..12)) {
            if let Some(config) = Config::parse(&bytes) {
                prop_assert_eq!(Config::parse(&config.to_bytes()).map(|c| c.rate), Some(config.rate));
            }
        }
    }
}
