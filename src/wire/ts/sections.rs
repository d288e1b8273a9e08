//! Packets of one PID that carries PSI enter, whole sections leave. Never trusts a packet that is damaged,
//! scrambled or there twice.

use super::packet::{Continuity, Counter, Packet};
use super::psi::Assembler;

/// Reads the sections of one PID.
#[derive(Debug, Default)]
pub struct Sections {
    counter: Counter,
    assembler: Assembler,
}

impl Sections {
    /// Takes the next packet of the PID and hands out every section that it completes.
    pub fn push(&mut self, packet: Packet<'_>, emit: &mut impl FnMut(&[u8])) {
        if packet.has_error() || packet.scrambling() != 0 {
            return self.assembler.reset();
        }
        match self.counter.check(packet) {
            Continuity::Duplicate => return,
            Continuity::Lost | Continuity::Jump => self.assembler.reset(),
            Continuity::Ok => {}
        }
        if let Some(payload) = packet.payload() {
            self.assembler.push(payload, packet.starts_unit(), emit);
        }
    }
}
