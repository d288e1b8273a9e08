//! What ffmpeg finds in a file: every access unit and its time, and everything that a decoder complains about.

use std::path::Path;
use std::process::{Command, Stdio};

use super::rtmp::{adts_units, assert_run, nal_units};

/// A track of pictures from its first key frame on, and a track of sound.
pub(crate) struct Media {
    /// NAL units without delimiters, filler and parameter sets.
    pictures: Vec<Vec<u8>>,
    /// AAC access units.
    sounds: Vec<Vec<u8>>,
    /// When each picture and each sound is due, in seconds.
    due: [Vec<f64>; 2],
    complaints: String,
}

impl Media {
    /// Reads and decodes it.
    pub(crate) fn read(file: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let output = Command::new("ffmpeg")
            .args(["-v", "error", "-threads", "1", "-copyts", "-i"])
            .arg(file)
            .args("-map 0:v:0 -c copy -bsf:v h264_mp4toannexb -f h264".split(' '))
            .arg(at("pictures"))
            .args("-map 0:a:0 -c copy -f adts".split(' '))
            .arg(at("sounds"))
            .args("-map 0:v:0 -map 0:a:0 -c copy -f framecrc".split(' '))
            .arg(at("due"))
            .args("-map 0:v:0 -map 0:a:0 -f null -".split(' '))
            .stdin(Stdio::null())
            .output()
            .expect("ffmpeg");
        let read = |name: &str| std::fs::read(at(name)).unwrap_or_default();
        Self {
            pictures: nal_units(&read("pictures")),
            sounds: adts_units(&read("sounds")),
            due: due(&String::from_utf8_lossy(&read("due"))),
            complaints: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Asserts that this is `sent` from a random access point in its first half on: nothing that a decoder complains
    /// about, no access unit missing in between, 95 % of those that were to come, and every one due when it was, give or
    /// take a tick of the coarsest clock on the way of pictures and of sound.
    pub(crate) fn assert_comes_of(&self, sent: &Self, ticks: [f64; 2], what: &str) {
        assert_eq!(self.complaints, "", "{what}: decoding it");
        let most = |units: usize| units * 95 / 200;
        let first = self.pictures.iter().find(|unit| is_slice(unit)).map(|unit| unit[0] & 0x1F);
        assert_eq!(first, Some(5), "{what}: the type of the first slice");
        let begins = assert_run(
            &format!("{what}: pictures"),
            whole(&self.pictures),
            &sent.pictures,
            most(sent.pictures.len()),
        );
        let begins = sent.pictures[..begins].iter().filter(|unit| is_slice(unit)).count();
        assert_eq!(self.due[0].len(), self.pictures.iter().filter(|unit| is_slice(unit)).count(), "{what}");
        let sounds = whole(&self.sounds);
        let sound_begins =
            assert_run(&format!("{what}: sounds"), sounds, &sent.sounds, most(sent.sounds.len()));
        assert_eq!(self.due[1].len(), self.sounds.len(), "{what}");
        for (track, begins) in [begins, sound_begins].into_iter().enumerate() {
            let (got, sent) = (whole(&self.due[track]), &sent.due[track][begins..]);
            let name = ["pictures", "sounds"][track];
            assert!(got.len() <= sent.len(), "{what}: {name} begin anew");
            assert!(got.len() * 100 >= sent.len() * 95, "{what}: {} {name} of {}", got.len(), sent.len());
            for (index, (due, was)) in got.iter().zip(sent).enumerate() {
                let off = (due - got[0]) - (was - sent[0]);
                assert!(
                    off.abs() <= ticks[track] * 1.01,
                    "{what}: {name} {index} of {} by {off} s",
                    got.len()
                );
            }
        }
        let apart = (self.due[1][0] - self.due[0][0]) - (sent.due[1][sound_begins] - sent.due[0][begins]);
        assert!(apart.abs() <= (ticks[0] + ticks[1]) * 1.01, "{what}: sound is {apart} s from its pictures");
    }
}

/// A transport stream without what is of no use before its first random access point: all but its tables.
pub(crate) fn from_random_access(stream: &[u8]) -> Vec<u8> {
    let pid = |packet: &[u8]| u16::from_be_bytes([packet[1] & 0x1F, packet[2]]);
    let packets: Vec<&[u8]> = stream.chunks_exact(188).collect();
    // With a clock: sound is marked as well.
    let marked = |packet: &&[u8]| packet[3] & 0x20 != 0 && packet[4] > 0 && packet[5] & 0x50 == 0x50;
    let start = packets.iter().position(marked).unwrap_or(0);
    // The PMT's PID stands behind the only program of the PAT.
    let pat = packets.iter().find(|packet| pid(packet) == 0);
    let pmt = pat.map(|pat| pid(&pat[14..]));
    let (before, behind) = packets.split_at(start);
    let tables = before.iter().filter(|packet| pid(packet) == 0 || Some(pid(packet)) == pmt);
    tables.chain(behind).copied().collect::<Vec<_>>().concat()
}

/// Without what was being written at the end.
fn whole<T>(units: &[T]) -> &[T] {
    &units[..units.len().saturating_sub(2)]
}

/// ffmpeg makes one slice of each picture.
fn is_slice(unit: &[u8]) -> bool {
    unit.first().is_some_and(|byte| matches!(byte & 0x1F, 1 | 5))
}

/// Presentation times of both streams of a list as the framecrc muxer writes it: `#tb 0: 1/90000`, then a line of
/// stream, DTS, PTS and more for each packet.
fn due(list: &str) -> [Vec<f64>; 2] {
    let mut due = [Vec::new(), Vec::new()];
    let mut ticks = [1.0, 1.0];
    for line in list.lines() {
        if let Some(base) = line.strip_prefix("#tb ") {
            let (stream, base) = base.split_once(": ").expect("a stream");
            let (over, under) = base.split_once('/').expect("a fraction");
            let number = |text: &str| text.trim().parse::<f64>().expect("a number");
            ticks[stream.parse::<usize>().expect("a stream")] = number(over) / number(under);
        } else if !line.starts_with('#') {
            let mut fields = line.split(',').map(|field| field.trim().parse::<i64>().expect("a number"));
            let (stream, _, pts) = (fields.next(), fields.next(), fields.next());
            let stream = stream.expect("a stream") as usize;
            due[stream].push(pts.expect("a time") as f64 * ticks[stream]);
        }
    }
    due
}
