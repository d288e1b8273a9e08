//! Samples of a transport stream enter, what its metadata and the time stamps of its pictures do against their rules
//! leaves. Holds no clock; never more than sixteen programs of sixteen metadata streams.

use super::checks::{Checks, Moment};
use super::metadata::Lane;
use super::pictures::Pictures;
use super::report::MetadataFacts;
use crate::media::Nanos;
use crate::wire::h26x::Standard;
use crate::wire::ts::Sample;
use crate::wire::ts::demux::{Elementary, Event, Format, Pes, Programs};
use crate::wire::ts::packet::{PCR_HZ, pcr_delta};

/// Looks at the metadata and the pictures of a stream.
#[derive(Debug, Default)]
pub struct Examiner {
    demux: Programs,
    programs: Vec<Program>,
    stage: Stage,
}

/// What does not belong to one program.
#[derive(Debug, Default)]
struct Stage {
    checks: Checks,
    arrival: Nanos,
    lost: u64,
}

#[derive(Debug)]
struct Program {
    number: u16,
    /// PIDs of pictures.
    videos: Vec<(u16, Standard)>,
    lanes: Vec<Lane>,
    pictures: Pictures,
    pcr: Option<u64>,
    ticks: u64,
}

impl Examiner {
    /// Takes a sample, in the order of the stream.
    pub fn take(&mut self, sample: &Sample) {
        self.stage.lost += sample.lost;
        if sample.lost > 0 {
            self.programs.iter_mut().flat_map(|program| &mut program.lanes).for_each(Lane::reset);
        }
        for sampled in sample.iter() {
            if sampled.seam {
                self.begin_anew();
            }
            self.stage.arrival = sampled.arrival;
            let (programs, stage) = (&mut self.programs, &mut self.stage);
            self.demux.push(sampled.packet, &mut |number, event| read(programs, stage, number, event));
        }
    }

    /// The stream has ended: what was missing up to here will not come.
    pub fn finish(&mut self) {
        self.flush();
        let stage = &mut self.stage;
        for program in &mut self.programs {
            let seconds = program.seconds();
            for lane in &mut program.lanes {
                lane.finish(Moment { arrival: stage.arrival, seconds, pid: lane.pid }, &mut stage.checks);
            }
        }
    }

    /// What was found so far.
    pub fn checks(&self) -> &Checks {
        &self.stage.checks
    }

    /// Packets that were not looked at: more came than is looked at.
    pub fn lost(&self) -> u64 {
        self.stage.lost
    }

    /// The metadata streams that carry KLV.
    pub fn facts(&self) -> Vec<MetadataFacts> {
        let of = |program: &Program| {
            let seconds = program.seconds();
            let pictures = (program.pictures.count, program.pictures.with_stamp);
            let facts = program.lanes.iter().filter(|lane| lane.packets > 0).map(|lane| MetadataFacts {
                program: program.number,
                pid: lane.pid,
                carriage: lane.carriage().map(|carriage| match carriage {
                    crate::wire::ts::metadata::Carriage::Bare => "asynchronous",
                    crate::wire::ts::metadata::Carriage::Cells => "synchronous",
                }),
                packets: lane.packets,
                packets_per_second: if seconds > 0.0 {
                    (lane.packets as f64 / seconds * 1e3).round() / 1e3
                } else {
                    0.0
                },
                version: lane.version,
                pictures: pictures.0,
                pictures_with_time: pictures.1,
            });
            facts.collect::<Vec<_>>()
        };
        self.programs.iter().flat_map(of).collect()
    }
}

impl Examiner {
    /// What comes was made before what came: times and counters of metadata and pictures start anew.
    fn begin_anew(&mut self) {
        self.flush();
        for program in &mut self.programs {
            program.pictures.forget();
            program.lanes.iter_mut().for_each(Lane::begin_anew);
        }
    }

    /// Takes what waits for something behind it.
    fn flush(&mut self) {
        let (programs, stage) = (&mut self.programs, &mut self.stage);
        self.demux.flush(&mut |number, event| read(programs, stage, number, event));
        for program in programs {
            program.pictures.settle(None, &mut stage.checks);
        }
    }
}

impl Program {
    fn seconds(&self) -> f64 {
        self.ticks as f64 / PCR_HZ as f64
    }

    fn follow(&mut self, elementary: &[Elementary]) {
        self.videos = elementary
            .iter()
            .filter_map(|one| match one.format {
                Format::H264 => Some((one.pid, Standard::H264)),
                Format::H265 => Some((one.pid, Standard::H265)),
                _ => None,
            })
            .collect();
        // pictures of other kinds are pictures, too
        let pictures = !self.videos.is_empty() || elementary.iter().any(|one| one.name.contains("video"));
        self.lanes.retain(|lane| elementary.iter().any(|one| one.pid == lane.pid));
        for one in elementary.iter().filter(|one| matches!(one.format, Format::Metadata { .. })) {
            if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.pid == one.pid) {
                lane.follow(one, pictures);
            } else if self.lanes.len() < LANES_MOST {
                self.lanes.push(Lane::new(one, pictures));
            }
        }
    }

    fn clock(&mut self, pcr: u64, announced: bool) {
        let Some(last) = self.pcr.replace(pcr) else { return };
        match pcr_delta(last, pcr) {
            step @ 0..=A_SECOND if !announced => self.ticks += step as u64,
            _ => self.pictures.forget(),
        }
    }

    fn read(&mut self, pes: &Pes<'_>, stage: &mut Stage) {
        let moment = Moment { arrival: stage.arrival, seconds: self.seconds(), pid: pes.pid };
        if let Some(&(_, standard)) = self.videos.iter().find(|(pid, _)| *pid == pes.pid) {
            let metadata = self.lanes.iter().any(|lane| lane.packets > 0);
            return self.pictures.take(
                standard,
                pes.data,
                pes.header.pts,
                metadata,
                moment,
                &mut stage.checks,
            );
        }
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.pid == pes.pid) else { return };
        let position = pes.header.pts.or(self.pcr.map(|pcr| pcr / 300));
        let (pictures, mut times) = (&mut self.pictures, Vec::new());
        lane.take(pes, self.pcr, moment, &mut stage.checks, &mut |told| times.push(told));
        for told in times {
            if let Some(position) = position {
                // without a PTS it is near its picture at best
                let synchronous = told.synchronous && pes.header.pts.is_some();
                pictures.claim(moment, position, told.time, synchronous, &mut stage.checks);
            }
        }
    }
}

fn read(programs: &mut Vec<Program>, stage: &mut Stage, number: u16, event: Event<'_>) {
    let at = programs.iter().position(|program| program.number == number).unwrap_or_else(|| {
        programs.push(Program {
            number,
            videos: Vec::new(),
            lanes: Vec::new(),
            pictures: Pictures::default(),
            pcr: None,
            ticks: 0,
        });
        programs.len() - 1
    });
    let Some(program) = programs.get_mut(at) else { return };
    match event {
        Event::Program(elementary) => program.follow(elementary),
        Event::Start { .. } => {}
        Event::Clock { pcr, announced } => program.clock(pcr, announced),
        Event::Pes(pes) => program.read(&pes, stage),
    }
}

const LANES_MOST: usize = 16;
const A_SECOND: i64 = PCR_HZ as i64;
