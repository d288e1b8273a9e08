//! A reader that fell out of the ring goes on where a decoder can start, whatever the encoder says of that place,
//! and every datagram that it left out is counted.
#![allow(clippy::disallowed_methods, reason = "tests run in real time")]

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use support::{Api, Receiver, Sender, free_port, knock, mark, require, wait_for};

/// A stream without sound that ffmpeg makes, with a picture to start from about twice a second.
fn encode(codec: &[&str], seconds: u32) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("made.ts");
    let made = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-f", "lavfi"])
        // Noise fills the bit rate.
        .args(["-i", "testsrc2=size=320x180:rate=25,noise=alls=60:allf=t", "-t", &seconds.to_string()])
        .args(codec)
        .args(["-preset", "ultrafast", "-bf", "0", "-b:v", "8M", "-maxrate", "8M", "-bufsize", "2M"])
        .args(["-f", "mpegts"])
        .arg(&file)
        .output()
        .expect("ffmpeg");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut bytes = std::fs::read(&file).expect("a stream");
    assert!(bytes.len() > 5 << 20, "{} bytes", bytes.len());
    fill_up(&mut bytes);
    bytes
}

/// Adds null packets until the last datagram is full.
fn fill_up(stream: &mut Vec<u8>) {
    let mut null = [0xff; 188];
    null[..4].copy_from_slice(&[0x47, 0x1f, 0xff, 0x10]);
    while !stream.len().is_multiple_of(DATAGRAM) {
        stream.extend_from_slice(&null);
    }
}

fn pid(packet: &[u8; 188]) -> u16 {
    u16::from_be_bytes([packet[1] & 0x1f, packet[2]])
}

fn starts_unit(packet: &[u8; 188]) -> bool {
    packet[1] & 0x40 != 0
}

/// Whether the random access indicator is set (ISO/IEC 13818-1, 2.4.3.5).
fn is_flagged(packet: &[u8; 188]) -> bool {
    packet[3] & 0x20 != 0 && packet[4] > 0 && packet[5] & 0x40 != 0
}

/// What many encoders send: no random access indicator anywhere.
fn clear_flags(stream: &mut [u8]) {
    for packet in stream.as_chunks_mut::<188>().0 {
        if is_flagged(packet) {
            packet[5] &= !0x40;
        }
    }
}

/// Moves PAT and PMT behind each picture that is flagged, and takes all others out.
fn move_tables_behind_pictures(stream: &[u8]) -> Vec<u8> {
    let packets = stream.as_chunks::<188>().0;
    let first = |wanted| *packets.iter().find(|p| pid(p) == wanted).expect("a table");
    let (mut pat, mut pmt) = (first(PAT), first(PMT));
    // The first pictures come without any table at all.
    let (mut out, mut due) = (Vec::new(), false);
    for packet in packets.iter().filter(|p| pid(p) == VIDEO) {
        if starts_unit(packet) {
            if due {
                for table in [&mut pat, &mut pmt] {
                    out.extend_from_slice(table);
                    table[3] = table[3] & 0xf0 | (table[3] + 1) & 0x0f;
                }
            }
            due = is_flagged(packet);
        }
        out.extend_from_slice(packet);
    }
    fill_up(&mut out);
    out
}

/// Marks the pictures as scrambled with the even key; nobody can look into them.
fn scramble(stream: &mut [u8]) {
    let packets = stream.as_chunks_mut::<188>().0.iter_mut();
    packets.filter(|p| pid(p) == VIDEO && p[3] & 0x10 != 0).for_each(|p| p[3] |= 0x80);
}

/// Sends the stream while the reader of one output is held for longer than the ring lasts, and returns where in the
/// stream it went on.
fn resume(stream: &[u8]) -> usize {
    let folder = tempfile::tempdir().expect("a folder");
    let text = format!(
        "api: {{listen: '127.0.0.1:0'}}\nmetrics: {{listen: 'off'}}\nshards: 2\npin_shards: false\nlane: {{max_mb: 1}}\ndata_dir: {}\n",
        folder.path().display()
    );
    let config = millrace::config::Config::parse(&text, Path::new("test"), []).expect("a configuration");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let app = runtime.block_on(millrace::app::App::start(config)).expect("an engine");
    let api = Api::new(&app.address().to_string());

    let port = free_port();
    let to: SocketAddr = (Ipv4Addr::LOCALHOST, port).into();
    let input = api.add_input("in", &format!("udp://{to}"));
    let (steady, held) = (Receiver::new(), Receiver::new());
    api.add_output(input, "steady", &steady.url());
    // The stream lives on shard 0. Outputs with a port of their own go to the shard that the port says, so that
    // those of one port share its socket.
    let odd = wait_for("an odd port", || Some(free_port()).filter(|port| port % 2 == 1));
    let output = api.add_output(input, "held", &format!("{}?source_port={odd}", held.url()));
    let mut sender = Sender::new(to);
    knock(0, |mark| sender.send(mark), || steady.count() > 0 && held.count() > 0);
    std::thread::scope(|scope| {
        scope.spawn(|| sender.send_paced(stream, DATAGRAM, 16.0));
        wait_for("the stream at the held one", || (held.count() > 100).then_some(()));
        app.hold_shard(1, Duration::from_secs(2));
    });
    let payload = |receiver: &Receiver| -> Vec<Vec<u8>> {
        receiver.datagrams().into_iter().filter(|datagram| *datagram != mark(0)).collect()
    };
    let skipped = api.wait(&output, "a skip", |o| o["stats"]["skips"] == 1);
    let skipped = skipped["stats"]["skipped"].as_u64().expect("a number") as usize;
    let sent: Vec<&[u8]> = stream.chunks(DATAGRAM).collect();
    wait_for("the end", || (payload(&held).len() == sent.len() - skipped).then_some(()));
    assert!(payload(&steady) == sent, "the other output lost nothing");
    let got = payload(&held);
    let head = got.iter().zip(&sent).take_while(|(got, sent)| got == sent).count();
    assert!(got[head..] == sent[head + skipped..], "what follows the skip is the end of the stream, whole");

    let logs = api.get(&format!("{output}/logs"));
    let told = format!("fell behind and skipped {skipped} datagrams");
    let mut entries = logs.as_array().expect("a list").iter();
    assert!(entries.any(|entry| entry["message"] == told.as_str()), "{logs}");
    let report = api.get(&format!("/api/inputs/{input}/report"));
    let points = |report: &Value| report["stream"]["random_access_points"].as_u64();
    assert!(points(&report) > Some(2), "{report}");
    runtime.block_on(app.stop());
    (head + skipped) * DATAGRAM
}

/// The first datagram from here on holds a PAT, as a decoder needs it.
#[track_caller]
fn starts_with_pat(rest: &[u8]) {
    let first = &rest.as_chunks::<188>().0[..7];
    assert!(first.iter().any(|p| pid(p) == PAT && starts_unit(p)));
}

/// What ffmpeg makes of this: its complaints, and the number of pictures.
fn decode(stream: &[u8]) -> (String, usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("rest.ts");
    std::fs::write(&file, stream).expect("a file");
    let probe = Command::new("ffprobe")
        .args(["-v", "error", "-count_frames", "-select_streams", "v:0"])
        .args(["-show_entries", "stream=nb_read_frames", "-of", "csv=p=0"])
        .arg(&file)
        .output()
        .expect("ffprobe");
    let count = String::from_utf8_lossy(&probe.stdout);
    let count = count.split_whitespace().next().and_then(|n| n.trim_end_matches(',').parse().ok());
    (String::from_utf8_lossy(&probe.stderr).into_owned(), count.unwrap_or(0))
}

#[test]
fn pictures_to_start_from_are_found_without_their_flag() {
    require!("ffmpeg", "ffprobe");
    let mut stream = encode(&["-c:v", "libx264", "-g", "12"], 8);
    clear_flags(&mut stream);
    let at = resume(&stream);
    starts_with_pat(&stream[at..]);
    let (complaints, pictures) = decode(&stream[at..]);
    assert_eq!(complaints, "");
    assert!(pictures > 5, "{pictures} pictures");
    // The judge is awake: in the middle of a group of pictures it complains.
    let packets = stream.as_chunks::<188>().0;
    let tables = || packets.iter().filter(|p| matches!(pid(p), PAT | PMT)).take(2).flatten().copied();
    let units: Vec<usize> =
        (0..packets.len()).filter(|&i| pid(&packets[i]) == VIDEO && starts_unit(&packets[i])).collect();
    let middle = units.get(18).expect("18 pictures") * 188;
    let broken: Vec<u8> = tables().chain(stream[middle..].iter().copied()).collect();
    assert_ne!(decode(&broken).0, "");
}

#[test]
fn h265_is_looked_into_too() {
    require!("ffmpeg", "ffprobe");
    let mut stream = encode(&["-c:v", "libx265", "-x265-params", "log-level=none:keyint=12"], 6);
    clear_flags(&mut stream);
    let at = resume(&stream);
    starts_with_pat(&stream[at..]);
    let (complaints, pictures) = decode(&stream[at..]);
    assert_eq!(complaints, "");
    assert!(pictures > 5, "{pictures} pictures");
}

#[test]
fn intra_refresh_has_points_to_start_from() {
    require!("ffmpeg", "ffprobe");
    let refresh = ["-c:v", "libx264", "-x264-params", "intra-refresh=1:keyint=12:scenecut=0"];
    let mut stream = encode(&refresh, 8);
    clear_flags(&mut stream);
    let at = resume(&stream);
    starts_with_pat(&stream[at..]);
    // Pictures heal in the course of a refresh, so only their number can be judged.
    let (_, pictures) = decode(&stream[at..]);
    assert!(pictures > 5, "{pictures} pictures");
    let units =
        |from: &[u8]| from.as_chunks::<188>().0.iter().filter(|p| pid(p) == VIDEO && starts_unit(p)).count();
    assert!(pictures + 12 >= units(&stream[at..]), "{pictures} of {} pictures", units(&stream[at..]));
}

#[test]
fn tables_behind_the_picture_serve_the_next_one() {
    require!("ffmpeg", "ffprobe");
    let mut stream = move_tables_behind_pictures(&encode(&["-c:v", "libx264", "-g", "12"], 8));
    clear_flags(&mut stream);
    let at = resume(&stream);
    starts_with_pat(&stream[at..]);
    // Up to the next picture to start from nothing can be shown; from there on all can.
    let (_, pictures) = decode(&stream[at..]);
    let units = stream[at..].as_chunks::<188>().0.iter().filter(|p| pid(p) == VIDEO && starts_unit(p));
    let units = units.count();
    assert!(pictures > 5 && pictures + 12 >= units, "{pictures} of {units} pictures");
}

#[test]
fn scrambled_pictures_start_anywhere() {
    require!("ffmpeg");
    let mut stream = encode(&["-c:v", "libx264", "-g", "1000"], 8);
    clear_flags(&mut stream);
    scramble(&mut stream);
    let at = resume(&stream);
    starts_with_pat(&stream[at..]);
}

const DATAGRAM: usize = 7 * 188;
const PAT: u16 = 0;
/// Where ffmpeg puts the PMT and the video of its first program.
const PMT: u16 = 0x1000;
const VIDEO: u16 = 0x100;
