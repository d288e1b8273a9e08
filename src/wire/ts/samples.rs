//! The streams in `testdata/ts`, for tests.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use super::packet::PACKET;

/// (file name, bytes) of every sample.
pub(super) static SAMPLES: LazyLock<Vec<(String, Vec<u8>)>> = LazyLock::new(|| {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/ts");
    let mut samples: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "ts"))
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(path).unwrap()))
        .collect();
    samples.sort();
    assert!(samples.len() >= 14);
    samples
});

/// The sample with this name.
pub(super) fn sample(name: &str) -> &'static [u8] {
    SAMPLES.iter().find(|sample| sample.0 == name).map(|sample| sample.1.as_slice()).unwrap()
}

/// What ffprobe prints about these bytes, checked to be without errors; none when it is not installed.
pub(super) fn ffprobe(stream: &[u8], arguments: &[&str]) -> Option<String> {
    if Command::new("ffprobe").arg("-version").output().is_err() {
        // Past the capture of the test harness, so that it is seen.
        writeln!(std::io::stderr(), "SKIPPED: ffprobe is not installed").unwrap();
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let path: &Path = &folder.path().join("stream.ts");
    std::fs::write(path, stream).unwrap();
    let out = Command::new("ffprobe").args(["-v", "error"]).args(arguments).arg(path).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stderr), "");
    Some(String::from_utf8(out.stdout).unwrap())
}

/// The same damaged streams every time: 400 packets of a sample with bytes of any value put anywhere, and with the
/// checksums of sections put right, so that the damage reaches what is behind them.
pub(super) fn damaged(count: u64) -> impl Iterator<Item = Vec<u8>> {
    (1..=count).map(|seed| {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let file = &SAMPLES[random.below(SAMPLES.len())].1;
        let start = random.below(file.len() / PACKET - 380) * PACKET;
        let mut stream = [&file[..20 * PACKET], &file[start..start + 380 * PACKET]].concat();
        for _ in 0..random.below(60) {
            // Headers and the tables at the start are hit more often than the rest.
            let packet = if random.below(2) == 0 { random.below(20) } else { random.below(400) };
            let within = if random.below(2) == 0 { random.below(24) } else { random.below(PACKET) };
            stream[packet * PACKET + within] = random.below(256) as u8;
        }
        for packet in stream.as_chunks_mut::<PACKET>().0.iter_mut().take(20) {
            if let [0x47, head, _, 0x10..=0x1f, 0, 0 | 2, l0, l1, ..] = *packet
                && head & 0x40 != 0
                && let Some(section) = packet.get_mut(5..8 + (usize::from(l0 & 0x0f) << 8 | usize::from(l1)))
                && let Some((body, crc)) = section.split_last_chunk_mut::<4>()
            {
                *crc = mpeg2ts_reader::mpegts_crc::sum32(body).to_be_bytes();
            }
        }
        stream
    })
}

/// Xorshift (Marsaglia 2003): tests must not depend on chance.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound.max(1)
    }
}
