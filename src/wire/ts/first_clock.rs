//! Packets of a stream enter, the clock of its first program leaves. Never guesses: without a PAT and a PMT
//! there is no clock.

use super::packet::{NULL_PID, PAT_PID, Packet};
use super::psi::{Pat, Pmt};
use super::sections::Sections;

/// Finds the PCRs of the first program: the one that stands first in the PAT. Follows PAT and PMT when they
/// change.
#[derive(Debug, Default)]
pub struct FirstClock {
    pat: Sections,
    pmt: Sections,
    /// program_number and PID of its PMT.
    program: Option<(u16, u16)>,
    pid: Option<u16>,
}

impl FirstClock {
    /// Takes the next packet; its PCR (27 MHz) if it has one and its PID is the one of the first program's clock.
    pub fn push(&mut self, packet: Packet<'_>) -> Option<u64> {
        let pid = packet.pid();
        if pid == PAT_PID {
            let program = &mut self.program;
            let before = *program;
            self.pat.push(packet, &mut |section| {
                if let Ok(pat) = Pat::parse(section)
                    && pat.section == 0
                {
                    *program = pat.programs.first().copied();
                }
            });
            if *program != before {
                self.pmt = Sections::default();
            }
        } else if let Some((number, pmt_pid)) = self.program
            && pmt_pid == pid
        {
            let clock = &mut self.pid;
            self.pmt.push(packet, &mut |section| {
                if let Ok(pmt) = Pmt::parse(section)
                    && pmt.program == number
                {
                    *clock = Some(pmt.pcr_pid).filter(|pid| *pid != NULL_PID);
                }
            });
        }
        packet.pcr().filter(|_| self.pid == Some(pid) && !packet.has_error())
    }

    /// The PID that carries the clock, once PAT and PMT named it.
    pub fn pid(&self) -> Option<u16> {
        self.pid
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ts::packet::PACKET;
    use crate::wire::ts::psi::packetize;

    fn table(section: &[u8], pid: u16, count: &mut u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        packetize(section, pid, count, |p| bytes.extend_from_slice(p));
        bytes
    }

    fn clock(pid: u16) -> [u8; PACKET] {
        let mut p = [0xff; PACKET];
        p[..6].copy_from_slice(&[0x47, (pid >> 8) as u8, pid as u8, 0x20, 183, 0x10]);
        p[6..12].copy_from_slice(&[0, 0, 0, 1, 0x7e, 0]);
        p
    }

    #[test]
    fn follows_the_first_program() {
        let pat = |programs| Pat { programs, ..Pat::default() }.section().unwrap();
        let pmt = |program, pcr_pid| Pmt { program, pcr_pid, ..Pmt::default() }.section().unwrap();
        let (mut c0, mut c1, mut c2) = (0, 0, 0);
        let mut finder = FirstClock::default();
        let mut clocks = |bytes: Vec<u8>| {
            Packet::all(&bytes).for_each(|p| assert_eq!(finder.push(p), None));
            [0x100, 0x200].map(|pid| finder.push(Packet::new(&clock(pid)).unwrap()).is_some())
        };
        assert_eq!(clocks(table(&pmt(2, 0x200), 0x20, &mut c2)), [false, false]);
        assert_eq!(clocks(table(&pat(vec![(2, 0x20), (1, 0x10)]), 0, &mut c0)), [false, false]);
        assert_eq!(clocks(table(&pmt(1, 0x100), 0x10, &mut c1)), [false, false]);
        assert_eq!(clocks(table(&pmt(2, 0x200), 0x20, &mut c2)), [false, true]);
        assert_eq!(clocks(table(&pmt(2, 0x100), 0x20, &mut c2)), [true, false]);
        assert_eq!(clocks(table(&pmt(3, 0x200), 0x20, &mut c2)), [true, false], "not its program");
        assert_eq!(clocks(table(&pat(vec![(1, 0x10)]), 0, &mut c0)), [true, false], "until the new PMT");
        assert_eq!(clocks(table(&pmt(1, 0x200), 0x10, &mut c1)), [false, true]);
        assert_eq!(clocks(table(&pmt(1, NULL_PID), 0x10, &mut c1)), [false, false]);
    }
}
