//! NAL units of H.264 (ITU-T H.264, ISO/IEC 14496-10) and H.265 (ITU-T H.265, ISO/IEC 23008-2): coded pictures enter,
//! their units, parameter sets, places to start and decoder records leave. Never decodes a picture.

mod nal;
mod parameter_sets;
mod picture;
mod record;
mod sps264;
mod sps265;

pub use nal::{AnnexB, Kind, LengthPrefixed, Standard, annex_b, length_prefixed, put_length_prefixed};
pub use parameter_sets::ParameterSets;
pub(crate) use picture::RECOVERY_POINT;
pub use picture::{Picture, Slice};
pub use record::{Record, RecordError, avcc, hvcc};
pub use sps264::Sps264;
pub use sps265::Sps265;

/// What a sequence parameter set says about the pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sequence {
    /// Luma samples in a row, as shown.
    pub width: u32,
    /// Rows of luma samples, as shown.
    pub height: u32,
    /// Pictures (H.264: frames) per second as a fraction, if it was told.
    pub rate: Option<(u32, u32)>,
    /// How many pictures at most come before one in the stream and behind it on the screen; none = not told.
    pub reorder: Option<u8>,
    /// A picture may be a field: two of them are one frame (H.264).
    pub fields: bool,
}
