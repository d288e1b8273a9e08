//! The extended headers that video and audio tags share enter, the packet of one track leaves (Enhanced RTMP v2,
//! "ExVideoTagHeader", "ExAudioTagHeader"). Tracks other than the first are left aside.

use bytes::Bytes;

use super::BadTag;

/// A packet behind its extended header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packet {
    /// What it is.
    pub(super) kind: u8,
    /// Its codec.
    pub(super) four_cc: [u8; 4],
    /// Nanoseconds that are added to the time of the message.
    pub(super) nanoseconds: u32,
    /// The rest.
    pub(super) body: Bytes,
}

/// Reads what stands behind the first byte, whose low half is `kind`. `None` is a packet of other tracks only.
pub(super) fn read(what: &'static str, kind: u8, body: &Bytes) -> Result<Option<Packet>, BadTag> {
    let mut cursor = Cursor { what, body: body.clone() };
    let mut kind = kind;
    let mut nanoseconds = 0;
    // Each turn takes three bytes at least, so that the body bounds them.
    while kind == MOD_EX {
        let mut size = usize::from(cursor.byte()?) + 1;
        if size == 256 {
            size = usize::from(u16::from_be_bytes(cursor.array()?)) + 1;
        }
        let data = cursor.take(size)?;
        let next = cursor.byte()?;
        if next >> 4 == TIMESTAMP_OFFSET_NANO
            && let Some([high, middle, low]) = data.first_chunk()
        {
            nanoseconds = u32::from_be_bytes([0, *high, *middle, *low]).min(999_999);
        }
        kind = next & 0x0F;
    }
    let multitrack = if what == super::video::WHAT { VIDEO_MULTITRACK } else { AUDIO_MULTITRACK };
    if kind != multitrack {
        return Ok(Some(Packet { kind, four_cc: cursor.array()?, nanoseconds, body: cursor.body }));
    }
    let next = cursor.byte()?;
    let (layout, kind) = (next >> 4, next & 0x0F);
    let mut four_cc = if layout == MANY_CODECS { [0; 4] } else { cursor.array()? };
    while !cursor.body.is_empty() {
        if layout == MANY_CODECS {
            four_cc = cursor.array()?;
        }
        let track = cursor.byte()?;
        let size = if layout == ONE_TRACK {
            cursor.body.len()
        } else {
            let [high, middle, low] = cursor.array()?;
            u32::from_be_bytes([0, high, middle, low]) as usize
        };
        let body = cursor.take(size)?;
        // Track 0 is the one that players without choice play.
        if track == 0 {
            return Ok(Some(Packet { kind, four_cc, nanoseconds, body }));
        }
    }
    Ok(None)
}

struct Cursor {
    what: &'static str,
    body: Bytes,
}

impl Cursor {
    fn byte(&mut self) -> Result<u8, BadTag> {
        self.array().map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BadTag> {
        let array = *self.body.first_chunk::<N>().ok_or(BadTag::Short(self.what))?;
        drop(self.body.split_to(N));
        Ok(array)
    }

    fn take(&mut self, size: usize) -> Result<Bytes, BadTag> {
        if size > self.body.len() {
            return Err(BadTag::Short(self.what));
        }
        Ok(self.body.split_to(size))
    }
}

const VIDEO_MULTITRACK: u8 = 6;
const AUDIO_MULTITRACK: u8 = 5;
const MOD_EX: u8 = 7;
const TIMESTAMP_OFFSET_NANO: u8 = 0;
const ONE_TRACK: u8 = 0;
const MANY_CODECS: u8 = 2;
