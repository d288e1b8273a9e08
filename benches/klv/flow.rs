//! A stream with KLV in memory enters, what it costs to find it and how soon it is told leave: taken apart here, by an
//! engine with and without the tap, and by an engine whose events a client hears over a WebSocket.

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use futures_util::StreamExt;
use millrace::wire::ts::demux::Extractor;
use serde_json::Value;

use crate::{Result, sys};

/// Streams of `testdata/ts`, one of each carriage.
const CARRIAGES: [&str; 7] = [
    "h264_async.ts",
    "h264_async_multi.ts",
    "h264_async_pts.ts",
    "h264_sync.ts",
    "h265_sync.ts",
    "h264_dualklv.ts",
    "h264_multiprog.ts",
];

/// MB of transport stream a second and core that are searched for KLV, of the carriage that takes longest, and its name.
pub(crate) fn extract(seconds: f64) -> Result<(f64, &'static str)> {
    let mut worst = (f64::MAX, "");
    for name in CARRIAGES {
        let bytes = stream(name)?;
        let rate = crate::rate(seconds / CARRIAGES.len() as f64, 10, || {
            let mut extractor = Extractor::default();
            for datagram in black_box(&bytes).chunks(DATAGRAM) {
                extractor.push(datagram, &mut |extract| {
                    black_box(extract.bytes);
                });
            }
            extractor.flush(&mut |_| ());
            assert!(extractor.counters().packets >= 60);
        })?;
        let rate = rate * bytes.len() as f64 / 1e6;
        if rate < worst.0 {
            worst = (rate, name);
        }
    }
    Ok(worst)
}

/// CPU that the tap takes of one core, in percent: an engine that decodes less one that does not, on a stream of 10 Mb/s
/// with 30 KLV packets a second, in ten slices by turns.
pub(crate) fn tap(seconds: f64) -> Result<f64> {
    let engines = [Engine::start(true)?, Engine::start(false)?];
    let datagrams = busy_stream()?;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut used = [0; 2];
    let slice = Duration::from_secs_f64(seconds.max(2.0));
    for turn in 0..10 {
        // the order changes, so that what drifts hits both
        for side in if turn % 2 == 0 { [0, 1] } else { [1, 0] } {
            let engine = &engines[side];
            let before = sys::cpu_time(engine.child.id())?;
            pace(&datagrams, slice, |_, datagram| socket.send_to(datagram, engine.input).map(drop))?;
            used[side] += sys::cpu_time(engine.child.id())? - before;
        }
    }
    let klv = engines[0].get("/api/inputs/1/klv")?;
    let (packets, dropped) = (&klv["counters"]["packets"], &klv["counters"]["dropped"]);
    let expected = slice.as_secs_f64() * 10.0 * 30.0;
    if packets.as_f64() < Some(expected * 0.9) || dropped != 0 {
        return Err(format!("{packets} KLV packets, {dropped} dropped, of {expected:.0}").into());
    }
    let wall = slice.as_nanos() as f64 * 10.0;
    Ok((used[0] as f64 - used[1] as f64) / wall * 100.0)
}

/// Milliseconds from the last byte of a KLV packet to its event at a client, p99, less those of a datagram that is sent
/// beside it to a plain socket, p99; and the latter.
pub(crate) fn to_websocket(seconds: f64) -> Result<(f64, f64)> {
    let engine = Engine::start(true)?;
    let datagrams = busy_stream()?;
    let ends = ends(&datagrams);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let url = format!("ws://{}/api/inputs/1/klv/stream?max_rate=0", engine.api);
    let mut socket = runtime.block_on(tokio_tungstenite::connect_async(url))?.0;

    let control = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    control.set_read_timeout(Some(Duration::from_millis(500)))?;
    let direct = control.local_addr()?;
    let done = Arc::new(AtomicBool::new(false));
    let (over, beside) = (Arc::clone(&done), Arc::clone(&done));
    let listening = std::thread::spawn(move || {
        let (mut heard, mut buffer) = (Vec::new(), [0; 2048]);
        while !beside.load(Relaxed) {
            if let Ok((8.., _)) = control.recv_from(&mut buffer) {
                heard.push(sys::now());
            }
        }
        heard
    });
    let sending = std::thread::spawn(move || -> std::io::Result<Vec<u64>> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let mut sent = Vec::new();
        pace(&datagrams, Duration::from_secs_f64(seconds.max(5.0)), |index, datagram| {
            let klv = ends[index % ends.len()];
            for _ in 0..klv {
                sent.push(sys::now());
            }
            socket.send_to(datagram, engine.input)?;
            (0..klv).try_for_each(|_| socket.send_to(datagram, direct).map(drop))
        })?;
        over.store(true, Relaxed);
        drop(engine);
        Ok(sent)
    });
    // until the engine is gone
    let mut heard: Vec<(u64, u64)> = Vec::new();
    runtime.block_on(async {
        while let Some(Ok(message)) = socket.next().await {
            let now = sys::now();
            if let Some(event) =
                message.to_text().ok().and_then(|text| serde_json::from_str::<Value>(text).ok())
                && let Some(number) = event["number"].as_u64()
            {
                heard.push((number, now));
            }
        }
    });
    let sent = sending.join().map_err(|_| "the sender broke")??;
    let direct = listening.join().map_err(|_| "the control flow broke")?;
    let late = |number: usize, at: u64| sent.get(number).map(|sent| at.saturating_sub(*sent) as f64 / 1e6);
    let mut events: Vec<f64> = heard.iter().filter_map(|&(number, at)| late(number as usize, at)).collect();
    let mut control: Vec<f64> = direct.iter().enumerate().filter_map(|(n, &at)| late(n, at)).collect();
    if events.len() + 5 < sent.len() || control.len() < sent.len() {
        return Err(format!("{} sent, {} events, {} direct", sent.len(), events.len(), control.len()).into());
    }
    let direct = p99(&mut control);
    Ok((p99(&mut events) - direct, direct))
}

fn p99(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() * 99 / 100).copied().unwrap_or(f64::NAN)
}

fn stream(name: &str) -> Result<Vec<u8>> {
    Ok(std::fs::read(format!("{}/testdata/ts/{name}", env!("CARGO_MANIFEST_DIR")))?)
}

/// Datagrams of a stream that has, at 10 Mb/s, 30 KLV packets a second: 6 s of one with 10 of them, three times as fast,
/// filled up with packets of a PID that no table names.
fn busy_stream() -> Result<Vec<Vec<u8>>> {
    let bytes = stream("h264_async.ts")?;
    let wanted = (RATE * 2.0 / 8.0 / 188.0) as usize;
    let (packets, _) = bytes.as_chunks::<188>();
    let mut filler = [0xff; 188];
    filler[..4].copy_from_slice(&[0x47, 0x1f, 0xf0, 0x10]);
    let mut out = Vec::with_capacity(wanted * 188);
    let mut taken = 0;
    for place in 0..wanted {
        let due = (place + 1) * packets.len() / wanted;
        if due > taken {
            out.extend_from_slice(packets.get(taken).ok_or("too few packets")?);
            taken += 1;
        } else {
            filler[3] = 0x10 | (filler[3] + 1) & 0x0f;
            out.extend_from_slice(&filler);
        }
    }
    out.truncate(out.len() / DATAGRAM * DATAGRAM);
    Ok(out.chunks(DATAGRAM).map(<[u8]>::to_vec).collect())
}

/// How many KLV packets end in each datagram, when they are sent again and again.
fn ends(datagrams: &[Vec<u8>]) -> Vec<usize> {
    let mut extractor = Extractor::default();
    let counts = |extractor: &mut Extractor| -> Vec<usize> {
        let count = |datagram: &Vec<u8>| {
            let mut count = 0;
            extractor.push(datagram, &mut |_| count += 1);
            count
        };
        datagrams.iter().map(count).collect()
    };
    counts(&mut extractor)
}

/// Sends datagrams again and again at 10 Mb/s, for so long.
fn pace(
    datagrams: &[Vec<u8>],
    time: Duration,
    mut send: impl FnMut(usize, &[u8]) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let (start, gap) = (sys::now(), DATAGRAM as f64 * 8.0 / RATE * 1e9);
    for (index, datagram) in datagrams.iter().cycle().enumerate() {
        let due = (index as f64 * gap) as u64;
        if due >= time.as_nanos() as u64 {
            break;
        }
        while sys::now() - start < due {
            #[expect(clippy::disallowed_methods, reason = "the thread serves nothing else")]
            std::thread::sleep(Duration::from_nanos(due.saturating_sub(sys::now() - start)));
        }
        send(index, datagram)?;
    }
    Ok(())
}

/// An engine with one input.
struct Engine {
    child: Child,
    api: SocketAddr,
    input: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Engine {
    fn start(decode: bool) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (api, input) = (free_port()?, free_port()?);
        let file = folder.path().join("millrace.yaml");
        let text = format!(
            "api: {{listen: \"{api}\"}}\nmetrics: {{listen: off}}\nklv: {{decode: {decode}}}\nshards: 1\npin_shards: false\n\
             data_dir: {}\ninputs:\n  - {{name: in, url: \"udp://{input}\"}}\n",
            folder.path().display()
        );
        std::fs::write(&file, text)?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
        command.args(["run", "--config"]).arg(&file).stdin(Stdio::null());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let engine = Self { child, api, input, _folder: folder };
        for _ in 0..200 {
            if engine
                .get("/api/inputs/1")
                .is_ok_and(|input| input["stats"]["rcvbuf_granted"].as_u64() > Some(0))
            {
                return Ok(engine);
            }
            #[expect(clippy::disallowed_methods, reason = "the thread serves nothing else")]
            std::thread::sleep(Duration::from_millis(50));
        }
        Err("the engine did not start".into())
    }

    fn get(&self, path: &str) -> Result<Value> {
        let mut answer = ureq::get(format!("http://{}{path}", self.api)).call()?;
        Ok(serde_json::from_str(&answer.body_mut().read_to_string()?)?)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> Result<SocketAddr> {
    Ok(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Bits per second.
const RATE: f64 = 10e6;
const DATAGRAM: usize = 1316;
