//! Packets of a transport stream enter, PES packets of all its programs leave, each with the number of its program.
//! Never follows more than sixteen programs.

use super::{Demux, Event};
use crate::wire::ts::packet::{PAT_PID, Packet};
use crate::wire::ts::psi::Pat;
use crate::wire::ts::sections::Sections;

/// Takes every program of a transport stream apart.
#[derive(Debug, Default)]
pub struct Programs {
    pat: Sections,
    demuxes: Vec<(u16, Demux)>,
    /// Programs beyond those that are followed, in the last PAT.
    left_out: usize,
}

impl Programs {
    /// Takes whole packets in and hands out what each program says, in the order of the stream but for what several
    /// programs make of the same datagram.
    pub fn push(&mut self, datagram: &[u8], emit: &mut impl FnMut(u16, Event<'_>)) {
        for packet in Packet::all(datagram).filter(|packet| packet.pid() == PAT_PID) {
            let (demuxes, left_out) = (&mut self.demuxes, &mut self.left_out);
            self.pat.push(packet, &mut |section| {
                if let Ok(pat) = Pat::parse(section) {
                    *left_out = follow(demuxes, &pat);
                }
            });
        }
        for (program, demux) in &mut self.demuxes {
            demux.push(datagram, &mut |event| emit(*program, event));
        }
    }

    /// Nothing more comes for now: hands out pictures that only the next one would end.
    pub fn flush(&mut self, emit: &mut impl FnMut(u16, Event<'_>)) {
        for (program, demux) in &mut self.demuxes {
            demux.flush(&mut |event| emit(*program, event));
        }
    }

    /// Numbers of the programs that are followed.
    pub fn numbers(&self) -> impl Iterator<Item = u16> {
        self.demuxes.iter().map(|(program, _)| *program)
    }

    /// How many programs of the last PAT are not followed.
    pub fn left_out(&self) -> usize {
        self.left_out
    }
}

/// Follows the programs of a section that are new. Those that a PAT no longer names stay: their packets may still be
/// under way, and a damaged PAT must not end them.
fn follow(demuxes: &mut Vec<(u16, Demux)>, pat: &Pat) -> usize {
    let mut left_out = 0;
    for &(program, _) in &pat.programs {
        if demuxes.iter().any(|(known, _)| *known == program) {
            continue;
        }
        if demuxes.len() < PROGRAMS_MOST {
            demuxes.push((program, Demux::new(Some(program))));
        } else {
            left_out += 1;
        }
    }
    left_out
}

/// Each may hold 32 MB.
const PROGRAMS_MOST: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ts::samples::sample;

    #[test]
    fn every_program_gives_what_it_would_alone() {
        let stream = sample("h264_multiprog.ts");
        let mut programs = Programs::default();
        let mut all = Vec::new();
        for datagram in stream.chunks(7 * 188) {
            programs.push(datagram, &mut |program, event| {
                if let Event::Pes(pes) = event {
                    all.push((program, pes.pid, pes.data.len()));
                }
            });
        }
        programs.flush(&mut |program, event| {
            if let Event::Pes(pes) = event {
                all.push((program, pes.pid, pes.data.len()));
            }
        });
        assert_eq!((programs.numbers().collect::<Vec<_>>(), programs.left_out()), (vec![1, 2], 0));
        for program in [1, 2] {
            let mut alone = Vec::new();
            let mut demux = Demux::new(Some(program));
            let mut take = |event: Event<'_>| {
                if let Event::Pes(pes) = event {
                    alone.push((program, pes.pid, pes.data.len()));
                }
            };
            demux.push(stream, &mut take);
            demux.flush(&mut take);
            let together: Vec<_> = all.iter().copied().filter(|pes| pes.0 == program).collect();
            assert!(alone.len() == 240 && together == alone, "program {program}: {}", alone.len());
        }
    }
}
