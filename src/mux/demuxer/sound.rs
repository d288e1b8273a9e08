//! PES packets of sound enter, one frame of sound after the other leaves, each with its own time. Never decodes.

use bytes::{Bytes, BytesMut};

use super::{DemuxerCounters, Unit, make_room};
use crate::media::{AudioFormat, Codec, Nanos, Setup, Stamps, TICKS_PER_SECOND, Ticks, Timeline, TrackId};
use crate::wire::aac::{Adts, Config, Latm};
use crate::wire::audio::{Splitter, Syntax, mpeg_layer, opus};
use crate::wire::ts::demux::{Format, Pes};

/// One stream of sound.
#[derive(Debug)]
pub(super) struct Sound {
    coding: Coding,
    splitter: Splitter,
    setup: Setup,
    clock: SampleClock,
    /// Where frames are put together; each takes its part of it along.
    room: BytesMut,
}

#[derive(Debug)]
enum Coding {
    Adts(Option<Config>),
    Loas(Latm),
    Mpeg,
    Ac3,
    Opus,
}

/// Times of frames by counting samples from the last time stamp on.
#[derive(Debug, Default)]
struct SampleClock {
    /// The time of a frame, and the samples since.
    anchor: Option<(Ticks, u64)>,
    last: Option<Ticks>,
}

impl Sound {
    /// None for a format that is no sound. `channels`: what a descriptor tells of Opus.
    pub(super) fn new(format: Format, channels: Option<u8>) -> Option<Self> {
        let (coding, syntax) = match format {
            Format::Adts => (Coding::Adts(None), Syntax::Adts),
            Format::Loas => (Coding::Loas(Latm::new()), Syntax::Loas),
            Format::Mpeg => (Coding::Mpeg, Syntax::Mpeg),
            Format::Ac3 => (Coding::Ac3, Syntax::Ac3),
            // Opus has no frames to look for: control headers stand one behind the other.
            Format::Opus => (Coding::Opus, Syntax::Loas),
            _ => return None,
        };
        let setup = match (&coding, channels) {
            (Coding::Opus, channels) => {
                Setup::Audio(AudioFormat { rate: opus::RATE, channels: channels.unwrap_or(2) })
            }
            _ => Setup::Unknown,
        };
        let splitter = Splitter::new(syntax);
        Some(Self { coding, splitter, setup, clock: SampleClock::default(), room: BytesMut::new() })
    }

    pub(super) fn codec(&self) -> Codec {
        match self.coding {
            Coding::Adts(_) | Coding::Loas(_) => Codec::Aac,
            Coding::Mpeg => Codec::MpegAudio,
            Coding::Ac3 => Codec::Ac3,
            Coding::Opus => Codec::Opus,
        }
    }

    pub(super) fn setup(&self) -> Setup {
        self.setup.clone()
    }

    /// Answers whether the setup changed.
    pub(super) fn read(
        &mut self,
        pes: &Pes<'_>,
        arrival: Nanos,
        timeline: &mut Timeline,
        counters: &mut DemuxerCounters,
        units: &mut Vec<Unit>,
    ) -> bool {
        if pes.damaged {
            counters.damaged += 1;
            self.splitter.reset();
            return false;
        }
        let Self { coding, splitter, setup, clock, room } = self;
        let before = units.len();
        let mut stamp = pes.header.pts.map(|pts| pts as i64);
        let mut new_setup = None;
        let mut put = |data: &[u8], carried: bool, samples: u32, rate: u32| {
            // The stamp is that of the first frame that starts in this PES packet (ISO/IEC 13818-1, 2.4.3.7).
            let own = if carried { None } else { stamp.take() };
            match clock.place(own, (samples, rate), pes.pid, arrival, timeline) {
                Some(stamps) => {
                    make_room(room, data.len());
                    room.extend_from_slice(data);
                    units.push(Unit { data: room.split().freeze(), stamps, random_access: true });
                }
                None => counters.untimed += 1,
            }
        };
        let mpeg = matches!(coding, Coding::Mpeg);
        match coding {
            Coding::Opus => {
                let mut rest = pes.data;
                while let Some((packet, behind)) = opus::split(rest) {
                    rest = behind;
                    put(packet, false, opus::samples(packet).unwrap_or(0), opus::RATE);
                }
            }
            Coding::Mpeg | Coding::Ac3 => splitter.push(pes.data, &mut |found| {
                let format = AudioFormat { rate: found.header.rate, channels: found.header.channels };
                let layer = found.frame.get(1).map_or(3, |&byte| mpeg_layer(byte));
                new_setup =
                    Some(if mpeg { Setup::MpegAudio { layer, format } } else { Setup::Audio(format) });
                put(found.frame, found.carried, found.header.samples, found.header.rate);
            }),
            Coding::Adts(config) => splitter.push(pes.data, &mut |found| {
                // Several raw data blocks in a frame cannot be told apart without decoding; none are known that do it.
                let Some(adts) = Adts::parse(found.frame).filter(|a| a.blocks == 1 && a.config.channels > 0)
                else {
                    return;
                };
                if *config != Some(adts.config) {
                    *config = Some(adts.config);
                    new_setup = Some(aac_setup(adts.config, &adts.config.to_bytes()));
                }
                let data = found.frame.get(adts.header_len..).unwrap_or_default();
                put(data, found.carried, found.header.samples, found.header.rate);
            }),
            Coding::Loas(latm) => splitter.push(pes.data, &mut |found| {
                let element = found.frame.get(Syntax::Loas.header_len()..).unwrap_or_default();
                let mut access_units = Vec::new();
                // Elements before the first configuration, and of kinds that are not known, count as foreign below.
                let _ = latm.push(element, true, &mut |data| access_units.push(data.to_vec()));
                let Some((config, bytes)) = latm.config() else { return };
                if !matches!(setup, Setup::Aac { config, .. } if config == bytes) {
                    new_setup = Some(aac_setup(config, bytes));
                }
                for data in access_units {
                    put(&data, found.carried, config.frame_samples, config.rate);
                }
            }),
        }
        counters.foreign += u64::from(units.len() == before && !pes.data.is_empty());
        new_setup.is_some_and(|new| {
            let other = new != *setup;
            *setup = new;
            other
        })
    }
}

impl SampleClock {
    /// The time of the next frame, from its own stamp or from those before it.
    fn place(
        &mut self,
        stamp: Option<i64>,
        (samples, rate): (u32, u32),
        track: TrackId,
        arrival: Nanos,
        timeline: &mut Timeline,
    ) -> Option<Stamps> {
        if let Some(stamp) = stamp {
            self.anchor = Some((timeline.place(track, stamp, None, arrival).dts, 0));
        }
        let (anchor, passed) = self.anchor.as_mut()?;
        let ticks = u128::from(*passed) * TICKS_PER_SECOND as u128 / u128::from(rate.max(1));
        let time = anchor.saturating_add(ticks as Ticks);
        *passed += u64::from(samples);
        let time = self.last.map_or(time, |last| time.max(last.saturating_add(1)));
        self.last = Some(time);
        Some(Stamps { pts: time, dts: time })
    }
}

fn aac_setup(config: Config, bytes: &[u8]) -> Setup {
    let format = AudioFormat { rate: config.rate, channels: config.channel_count() };
    Setup::Aac { config: Bytes::copy_from_slice(bytes), format }
}
