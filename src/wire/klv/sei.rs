//! ST 0604 time stamps: the payload of a user_data_unregistered SEI message enters, the frame's time leaves. Never looks
//! for SEI messages itself; emulation prevention must be taken out before.

/// The time of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timestamp {
    /// Since 1970, in the sender's time scale.
    pub nanoseconds: u64,
    /// Whether the clock said so to a nanosecond (H.265 only) or to a microsecond.
    pub is_fine: bool,
    /// Whether the clock followed a reference (ST 0603).
    pub is_locked: bool,
    /// Whether it jumped since the frame before, and if so, whether back.
    pub jump: Option<Jump>,
}

/// A jump of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Jump {
    /// Into the future.
    Forward,
    /// Into the past.
    Back,
}

/// Reads the payload of a user_data_unregistered SEI message (payload type 5): UUID, status, time. `None` for another
/// UUID or what is not formed as ST 0604 says.
pub fn read_timestamp(payload: &[u8]) -> Option<Timestamp> {
    let (id, rest) = payload.split_first_chunk::<16>()?;
    let fine = match id {
        MICROSECONDS | HEVC_MICROSECONDS => false,
        HEVC_NANOSECONDS => true,
        _ => return None,
    };
    // 0xff after every second byte, so that no start code can arise
    let &[status, a, b, 0xff, c, d, 0xff, e, f, 0xff, g, h] = rest.first_chunk()? else { return None };
    let value = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    let jump = match status >> 5 & 3 {
        0b10 => Some(Jump::Forward),
        0b11 => Some(Jump::Back),
        _ => None,
    };
    Some(Timestamp {
        nanoseconds: if fine { value } else { value.checked_mul(1000)? },
        is_fine: fine,
        is_locked: status & 0x80 == 0,
        jump,
    })
}

/// The UUIDs of ST 0604: H.264 in microseconds, H.265 in microseconds and nanoseconds.
const MICROSECONDS: &[u8; 16] = b"MISPmicrosectime";
const HEVC_MICROSECONDS: &[u8; 16] = b"\xa8\x68\x7d\xd4\xd7\x59\x37\x58\xa5\xce\xf0\x33\x8b\x65\x45\xf1";
const HEVC_NANOSECONDS: &[u8; 16] = b"\xcf\x84\x82\x78\xee\x23\x30\x6c\x92\x65\xe8\xfe\xf2\x2f\xb8\xb8";

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(id: &[u8; 16], status: u8, time: u64) -> Vec<u8> {
        let t = time.to_be_bytes();
        let time = [t[0], t[1], 0xff, t[2], t[3], 0xff, t[4], t[5], 0xff, t[6], t[7]];
        [&id[..], &[status], &time].concat()
    }

    #[test]
    fn a_time_stamp_of_each_codec_is_read() {
        let time = read_timestamp(&payload(MICROSECONDS, 0x1f, 1_231_798_102_000_000)).expect("one");
        assert_eq!(time.nanoseconds, 1_231_798_102_000_000_000);
        assert_eq!((time.is_fine, time.is_locked, time.jump), (false, true, None));
        let time = read_timestamp(&payload(HEVC_MICROSECONDS, 0x9f, 1)).expect("one");
        assert_eq!((time.nanoseconds, time.is_locked), (1000, false));
        let time = read_timestamp(&payload(HEVC_NANOSECONDS, 0x7f, 5)).expect("one");
        assert_eq!((time.nanoseconds, time.is_fine, time.jump), (5, true, Some(Jump::Back)));
        let time = read_timestamp(&payload(MICROSECONDS, 0x5f, 5)).expect("one");
        assert_eq!(time.jump, Some(Jump::Forward));
    }

    #[test]
    fn other_payloads_are_none() {
        assert_eq!(read_timestamp(&payload(&[7; 16], 0x1f, 1)), None);
        assert_eq!(read_timestamp(&payload(MICROSECONDS, 0x1f, u64::MAX)), None);
        let mut broken = payload(MICROSECONDS, 0x1f, 1);
        broken[19] = 0;
        assert_eq!(read_timestamp(&broken), None);
        assert_eq!(read_timestamp(&payload(MICROSECONDS, 0x1f, 1)[..27]), None);
        assert_eq!(read_timestamp(&[]), None);
    }
}
