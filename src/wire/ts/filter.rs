//! Packets of one transport stream enter, packets of a smaller one leave: programs, PIDs or KLV taken out.

use std::collections::BTreeSet;

/// What is taken out of a transport stream. Equal specs share one derived lane.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct FilterSpec {
    /// Keep only this program (program_number, 1 to 65535).
    pub program: Option<u16>,
    /// Keep only these elementary PIDs (PSI and the PCR PID's clock are kept).
    pub pids: Option<BTreeSet<u16>>,
    /// Take these elementary PIDs out.
    pub drop_pids: BTreeSet<u16>,
    /// Take out every elementary stream that carries KLV.
    pub strip_klv: bool,
    /// What takes the place of a packet taken out.
    pub fill: Fill,
}

/// What takes the place of a packet taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Fill {
    /// A null packet: the bit rate stays constant.
    #[default]
    Null,
    /// Nothing.
    Remove,
}
