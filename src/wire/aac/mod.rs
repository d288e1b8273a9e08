//! AAC (ISO/IEC 14496-3): ADTS, LATM and AudioSpecificConfig enter and leave, raw access units in between. Never
//! decodes sound.

mod adts;
mod config;
mod latm;

pub use adts::{Adts, adts_header};
pub use config::{Config, rate_index};
pub use latm::{Latm, LatmError};
