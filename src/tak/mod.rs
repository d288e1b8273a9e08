//! What KLV says enters, Cursor-on-Target leaves, for ATAK, WinTAK, CloudTAK and TAK Server. Never sends anything itself.

pub mod cot;
