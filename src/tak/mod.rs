//! What KLV says enters, Cursor-on-Target leaves, for ATAK, WinTAK, CloudTAK and TAK Server; and what a TAK Server gives
//! its clients is read: certificates, data packages. Never sends anything itself.

pub mod cot;
pub mod keystore;
pub mod marti;
pub mod package;
