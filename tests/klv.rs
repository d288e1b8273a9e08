//! `millrace klv`: what it writes of streams and files, in every format, against what an independent decoder reads; its
//! exit codes, and what it keeps in memory.

mod support;

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use support::{free_port, oracle, send_paced, skipped, streams, testdata, wait_for};

fn klv(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
    command.arg("klv").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Exit code, standard output, standard error.
fn done(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = klv(arguments).output().expect("millrace runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code(), text(stdout), text(stderr))
}

fn good(arguments: &[&str]) -> String {
    let (code, out, error) = done(arguments);
    assert_eq!((code, error.as_str()), (Some(0), ""), "{arguments:?}");
    out
}

fn packets(arguments: &[&str]) -> Vec<Value> {
    good(arguments).lines().map(|line| serde_json::from_str(line).expect("a JSON object a line")).collect()
}

fn item(packet: &Value, tag: u64) -> &Value {
    let items = packet["items"].as_array().expect("items");
    items.iter().find(|item| item["tag"] == tag).map_or(&Value::Null, |item| &item["value"])
}

fn path(name: &str) -> String {
    testdata(name).to_str().expect("UTF-8").to_owned()
}

/// A file of the samples, which stand beside the checkout or where `KLV_SAMPLES` says.
fn sample(name: &str) -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let beside = ["../shared/samples", "../../shared/samples"].map(|path| root.join(path));
    let asked = std::env::var_os("KLV_SAMPLES").map(PathBuf::from);
    let found = asked.into_iter().chain(beside).map(|folder| folder.join(name)).find(|path| path.is_file());
    if found.is_none() {
        skipped(&format!("no {name} in shared/samples beside the checkout, nor in $KLV_SAMPLES"));
    }
    found
}

#[test]
fn every_packet_of_every_stream_is_written_with_where_it_came() {
    for (name, _) in streams() {
        let found = packets(&[&path(&format!("ts/{name}"))]);
        let expected = match name.as_str() {
            "h264_async_multi.ts" | "h264_dualklv.ts" | "h264_multiprog.ts" => 120,
            _ => 60,
        };
        assert_eq!(found.len(), expected, "{name}");
        let carriages = |wanted: &str| found.iter().filter(|packet| packet["carriage"] == wanted).count();
        let synchronous =
            if name == "h264_multiprog.ts" { 60 } else { expected * usize::from(name.contains("_sync")) };
        assert_eq!(
            (carriages("synchronous"), carriages("asynchronous")),
            (synchronous, expected - synchronous)
        );
        let mut times: Vec<u64> =
            found.iter().map(|packet| packet["time_us"].as_u64().expect("a time")).collect();
        times.sort_unstable();
        assert_eq!(
            (times[0], times[expected - 1] / 1_000_000),
            (1_700_000_000_000_000, 1_700_000_005),
            "{name}"
        );
        let wrong = found.iter().filter(|packet| packet["checksum"] == "wrong").count();
        assert_eq!(wrong, if name == "h264_badsum.ts" { 12 } else { 0 }, "{name}");
        let with_pts = found.iter().filter(|packet| !packet["pts"].is_null()).count();
        let expected_pts = if name == "h264_async_pts.ts" { 60 } else { synchronous };
        assert_eq!(with_pts, expected_pts, "{name}");
        for (at, packet) in found.iter().enumerate() {
            assert_eq!((&packet["packet"], &packet["set"]), (&(at + 1).into(), &"ST 0601".into()), "{name}");
            assert_eq!(item(packet, 4), "TAIL42", "{name}");
            let seconds = packet["seconds"].as_f64().expect("seconds");
            let passed = (packet["time_us"].as_f64().expect("a time") - 1.7e15) / 1e6;
            let jumped = name == "h264_pcr_disc.ts";
            assert!(
                (seconds - passed).abs() < if jumped { 0.2 } else { 0.11 },
                "{name} {at}: {seconds} {passed}"
            );
        }
    }
}

#[test]
fn a_stream_or_file_of_klv_gives_the_values_that_are_expected_of_it() {
    let first = &packets(&[&path("klv/DynamicOnlyMISMMSPacketData.bin")])[0];
    assert_eq!(
        (item(first, 13), item(first, 23)),
        (&60.176_822_966_978_335.into(), &(-10.542_388_633_146_132).into())
    );
    assert_eq!((&first["time"], &first["length"]), (&"2009-01-12T22:08:22.000000Z".into(), &114.into()));
    assert_eq!(
        (&first["pid"], &first["carriage"], &first["pts"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    let second = &packets(&[&path("klv/DynamicConstantMISMMSPacketData.fixed.bin")])[0];
    assert_eq!((item(second, 3), item(second, 10)), (&"Mission 12".into(), &"Predator".into()));
    assert_eq!(item(second, 48)["items"][0]["value"], "unclassified");

    for (name, count) in [("truck.klv", 711), ("day-flight.klv", 0)] {
        let (Some(file), Some(expected)) =
            (sample(&format!("klv/{name}")), sample(&format!("expected/{name}.json")))
        else {
            continue;
        };
        let found = packets(&[file.to_str().expect("UTF-8")]);
        let expected: Value =
            serde_json::from_slice(&std::fs::read(expected).expect("a file")).expect("JSON");
        let expected = expected["packets"].as_array().expect("packets");
        assert!(
            found.len() == expected.len() && (count == 0 || count == found.len()),
            "{name}: {}",
            found.len()
        );
        let mut compared = 0;
        for (packet, expected) in found.iter().zip(expected) {
            assert_eq!(packet["checksum"] == "right", expected["checksum_ok"] == true, "{name}");
            for (tag, value) in expected["items"].as_object().expect("items") {
                let ours = item(packet, tag.parse().expect("a tag"));
                if let (Some(ours), Some(value)) = (ours.as_f64(), value.as_f64()) {
                    // serde_json reads the last bit of a number otherwise than it was written
                    assert!((ours - value).abs() <= value.abs() * 1e-15, "{name} item {tag}: {ours} {value}");
                    compared += 1;
                }
            }
        }
        assert!(compared > 15 * found.len(), "{name}: {compared}");
    }
}

/// Prints for each packet of a transport stream `time;tag=value;…` of every item that is a number.
const ORACLE: &str = r#"
import sys
from stanag4609.st0601 import FieldDecodingMode, UASLocalSet
from stanag4609.transport.demux import PESStreamEvent, StreamKind, TransportDemuxer
from stanag4609.transport.metadata_stream import MetadataStreamDecoder
demuxer = TransportDemuxer()
decoder = MetadataStreamDecoder(field_decoding=FieldDecodingMode.PRESERVE, validate_sequence=False)
def consume(events):
    for event in events:
        if not isinstance(event, PESStreamEvent) or event.kind is not StreamKind.KLV:
            continue
        for metadata in decoder.feed(event):
            if not isinstance(metadata.decoded, UASLocalSet):
                continue
            out = [str(metadata.pid)]
            for field in metadata.decoded.fields:
                value = field.value
                if isinstance(value, bool) or not isinstance(value, (int, float)):
                    continue
                out.append(f"{field.definition.tag}={float(value)!r}")
            print(";".join(out))
with open(sys.argv[1], "rb") as source:
    while chunk := source.read(1 << 20):
        consume(demuxer.feed(chunk))
consume(demuxer.finish())
"#;

#[test]
fn an_independent_demuxer_and_decoder_find_the_same() {
    let Some(python) = oracle("stanag4609") else { return };
    for name in
        ["h264_async.ts", "h265_sync.ts", "h264_async_multi.ts", "h264_dualklv.ts", "h264_multiprog.ts"]
    {
        let file = path(&format!("ts/{name}"));
        let output = Command::new(&python).args(["-c", ORACLE, &file]).output().expect("python");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let (mut found, mut numbers) = (packets(&[&file]), 0);
        // each PID in its order: what two programs carry in between may come in another
        found.sort_by_key(|packet| packet["pid"].as_u64());
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_by_key(|line| line.split(';').next().and_then(|pid| pid.parse::<u64>().ok()));
        assert_eq!(lines.len(), found.len(), "{name}");
        for (line, packet) in lines.iter().zip(&found) {
            let mut fields = line.split(';');
            assert_eq!(fields.next().and_then(|pid| pid.parse().ok()), packet["pid"].as_u64(), "{name}");
            for (tag, value) in fields.filter_map(|field| field.split_once('=')) {
                let tag = tag.parse().expect("a tag");
                let value: f64 = value.parse().expect("a number");
                // choices are named here and numbers there
                if let Some(ours) = item(packet, tag).as_f64() {
                    assert!(
                        (ours - value).abs() <= 1e-9 * value.abs().max(1.0),
                        "{name} item {tag}: {ours} {value}"
                    );
                    numbers += 1;
                }
            }
        }
        assert!(numbers >= 18 * found.len(), "{name}: {numbers}");
    }
}

#[test]
fn a_table_has_the_columns_that_are_asked_for() {
    let file = path("ts/h264_sync.ts");
    let table = good(&[&file, "--format", "csv"]);
    let mut lines = table.lines();
    let head = lines.next().expect("names");
    assert!(
        head.starts_with(
            "time_us,time,seconds,program,pid,pts,checksum_status,issues,mission_id,platform_tail_number,"
        ),
        "{head}"
    );
    let width = head.split(',').count();
    let found = packets(&[&file]);
    let at =
        |name: &str| head.split(',').position(|column| column == name).unwrap_or_else(|| panic!("no {name}"));
    let (latitude, mission, roll) = (at("sensor_latitude"), at("mission_id"), at("platform_roll_angle_full"));
    let mut rows = 0;
    for (line, packet) in lines.zip(&found) {
        let fields: Vec<&str> = line.split(',').collect();
        assert_eq!(fields.len(), width);
        let said = item(packet, 13).as_f64().expect("a latitude");
        // serde_json reads the last bit of a number otherwise than it was written
        assert!((fields[latitude].parse::<f64>().expect("a number") - said).abs() < 1e-12);
        assert_eq!((fields[mission], fields[roll]), (item(packet, 3).as_str().expect("text"), ""));
        rows += 1;
    }
    assert_eq!(rows, 60);
    let table = good(&[&file, "--format", "csv", "--fields", "time_us,14,sensor_latitude,48.1", "-n", "2"]);
    assert_eq!(
        table,
        "time_us,sensor_longitude,sensor_latitude,security_local_set.security_classification\n\
         1700000000000000,-76.99999997252598,39.018000009943734,unclassified\n\
         1700000000100000,-76.99927124986391,39.017991125126365,unclassified\n"
    );
    let listed = good(&["--list-fields"]);
    assert!(head.split(',').all(|name| listed.contains(name)), "a column that is not listed");
    let (code, _, error) = done(&[&file, "--format", "csv", "--fields", "13,latitude"]);
    assert!(code == Some(2) && error.contains("`latitude` is no column"), "{error}");
    for (idle, format) in [(&["--fields", "13"][..], "csv"), (&["--every", "2"], "geojson")] {
        let (code, _, error) = done(&[&[file.as_str()], idle].concat());
        let says = error.contains(idle[0]) && error.contains(format);
        assert!(code == Some(2) && says, "{error}");
    }
}

#[test]
fn a_flight_is_drawn() {
    let collection: Value =
        serde_json::from_str(&good(&[&path("ts/h264_async.ts"), "--format", "geojson"])).expect("JSON");
    assert_eq!(collection["type"], "FeatureCollection");
    let features = collection["features"].as_array().expect("features");
    let of = |role: &str| features.iter().filter(|f| f["properties"]["role"] == role).collect::<Vec<_>>();
    // a scene a second of six, and the track of all
    assert_eq!((of("platform").len(), of("footprint").len(), of("track").len()), (6, 6, 1));
    assert_eq!(of("track")[0]["geometry"]["coordinates"].as_array().map(Vec::len), Some(6));
    let footprint = of("footprint")[0];
    assert_eq!(footprint["geometry"]["type"], "Polygon");
    assert_eq!(footprint["properties"]["time_utc"], "2023-11-14T22:13:20.000000Z");
    let all: Value =
        serde_json::from_str(&good(&[&path("ts/h264_async.ts"), "-f", "geojson", "--every", "0"]))
            .expect("JSON");
    let features = all["features"].as_array().expect("features");
    assert_eq!(features.iter().filter(|f| f["properties"]["role"] == "platform").count(), 60);
    // packets that are damaged draw nothing
    let bad: Value =
        serde_json::from_str(&good(&[&path("ts/h264_badsum.ts"), "-f", "geojson", "--every", "0"]))
            .expect("JSON");
    let features = bad["features"].as_array().expect("features");
    assert_eq!(features.iter().filter(|f| f["properties"]["role"] == "platform").count(), 48);
}

#[test]
fn what_is_written_is_limited_as_asked() {
    let multi = path("ts/h264_multiprog.ts");
    assert_eq!(packets(&[&multi, "--program", "2"]).len(), 60);
    assert_eq!(packets(&[&multi, "--pid", "0x202"]).len(), 60);
    assert_eq!(packets(&[&multi, "--limit", "7"]).len(), 7);
    let short = packets(&[&path("ts/h264_sync.ts"), "--seconds", "2"]);
    assert!((20..=21).contains(&short.len()), "{}", short.len());
    let raw = &packets(&[&path("klv/DynamicOnlyMISMMSPacketData.bin"), "--raw"])[0];
    assert_eq!(raw["raw"].as_str().map(str::len), Some(228));
    assert_eq!(raw["items"][1]["raw"], "71c2");

    // what a packet leaves out holds all the same
    let both = [
        std::fs::read(testdata("klv/DynamicConstantMISMMSPacketData.fixed.bin")).expect("a file"),
        std::fs::read(testdata("klv/DynamicOnlyMISMMSPacketData.bin")).expect("a file"),
    ];
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("both.klv");
    std::fs::write(&file, both.concat()).expect("written");
    let file = file.to_str().expect("UTF-8");
    assert_eq!(item(&packets(&[file])[1], 3), &Value::Null);
    assert_eq!(item(&packets(&[file, "--hold"])[1], 3), "Mission 12");
}

#[test]
fn standard_input_is_read_and_junk_is_passed_over() {
    let klv_file = std::fs::read(testdata("klv/DynamicOnlyMISMMSPacketData.bin")).expect("a file");
    let stream = std::fs::read(testdata("ts/h264_sync.ts")).expect("a stream");
    let junk = [b"not a packet ".to_vec(), klv_file.clone(), b"junk".to_vec(), klv_file.clone()].concat();
    let cut = klv_file[..60].to_vec();
    // Without its first table a stream says nothing until the next one: one packet of 60 is before that.
    for (bytes, expected, whole) in
        [(klv_file, 1, true), (stream[17..].to_vec(), 59, true), (junk, 2, true), (cut, 1, false)]
    {
        let mut child = klv(&["-"]).stdin(Stdio::piped()).spawn().expect("millrace runs");
        let mut stdin = child.stdin.take().expect("a pipe");
        let writer = std::thread::spawn(move || stdin.write_all(&bytes));
        let output = child.wait_with_output().expect("it ends");
        writer.join().expect("a thread").expect("written");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.stdout.iter().filter(|&&byte| byte == b'\n').count(), expected);
        if !whole {
            let packet: Value = serde_json::from_slice(&output.stdout).expect("JSON");
            assert_eq!(packet["issues"][0]["fault"], "truncated", "{packet}");
        }
    }
}

#[test]
fn what_is_wrong_is_named_and_ends_with_a_failure() {
    let text = testdata("README.md");
    let text = text.to_str().expect("UTF-8");
    let clip = path("clips/h264_ac3.ts");
    let silent = format!("udp://127.0.0.1:{}", free_port());
    for (arguments, reason) in [
        (vec![text], "neither a transport stream nor KLV"),
        (
            vec![clip.as_str()],
            "no KLV; there is H.264 on PID 0x0100 of program 1, AC-3 on PID 0x0101 of program 1",
        ),
        (vec!["missing.ts"], "missing.ts: cannot be read: No such file"),
        (vec!["/"], "cannot be read"),
        (vec!["http://127.0.0.1:5000"], "not supported yet"),
        (vec!["udp://127.0.0.1"], "a port from 1 to 65535"),
        (vec!["--seconds", "1", &silent], "nothing was received in 1 s"),
    ] {
        let (code, out, error) = done(&arguments);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{arguments:?}: {error}");
        assert!(error.contains(reason), "{arguments:?}: {error}");
    }
    let file = path("ts/h264_sync.ts");
    let (code, _, error) = done(&[&file, "--pid", "0x1ff"]);
    assert!(code == Some(1) && error.contains("no KLV of PID 511, but others have it"), "{error}");
    assert_eq!(done(&[&file, "--format", "xml"]).0, Some(2));
    assert_eq!(done(&[]).0, Some(2));
}

#[test]
fn a_reader_that_goes_away_is_nobodys_mistake() {
    for (format, more) in [("json", &[][..]), ("csv", &[]), ("geojson", &["--every", "0"])] {
        let mut child = klv(&[&["-", "--format", format], more].concat())
            .stdin(Stdio::piped())
            .spawn()
            .expect("millrace runs");
        let mut stdin = child.stdin.take().expect("a pipe");
        // far more than a pipe holds
        let stream = std::fs::read(testdata("ts/h264_sync.ts")).expect("a stream").repeat(20);
        let writer = std::thread::spawn(move || drop(stdin.write_all(&stream)));
        let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
        out.read_line(&mut String::new()).expect("a line");
        drop(out);
        let mut error = String::new();
        child.stderr.take().expect("a pipe").read_to_string(&mut error).expect("text");
        assert!(child.wait().expect("it ends").success(), "{format}: {error}");
        assert_eq!(error, "", "{format}");
        writer.join().expect("a thread");
    }
}

#[test]
fn memory_does_not_grow_with_the_stream() {
    let stream = std::fs::read(testdata("ts/h264_sync.ts")).expect("a stream");
    for format in ["json", "geojson"] {
        let mut child = klv(&["-", "--format", format])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("runs");
        let mut stdin = child.stdin.take().expect("a pipe");
        let status = format!("/proc/{}/status", child.id());
        let peak = || {
            let text = std::fs::read_to_string(&status).expect("the kernel's word");
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
            line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number")
        };
        let mut feed = |times: usize| (0..times).for_each(|_| stdin.write_all(&stream).expect("it reads"));
        feed(20);
        let early = peak();
        feed(200);
        let late = peak();
        drop(stdin);
        assert!(child.wait().expect("it ends").success());
        assert!(late < early + 4096 && late < 60_000, "{format}: {early} kB, then {late} kB");
    }
}

#[test]
fn packets_of_a_live_stream_are_written_when_they_come() {
    let port = free_port();
    let mut child =
        klv(&[&format!("udp://127.0.0.1:{port}"), "--limit", "5"]).spawn().expect("millrace runs");
    let bound = || std::fs::read_to_string("/proc/net/udp").expect("the kernel's list of sockets");
    wait_for("it to listen", || bound().contains(&format!("0100007F:{port:04X} ")).then_some(()));
    let stream = std::fs::read(testdata("ts/h264_sync.ts")).expect("a stream");
    let sender = std::thread::spawn(move || {
        send_paced(([127, 0, 0, 1], port).into(), &stream[..1316 * 100], 1316, 2.0)
    });
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let first: Value = serde_json::from_str(&lines.next().expect("a line").expect("text")).expect("JSON");
    assert_eq!((&first["pid"], &first["carriage"]), (&258.into(), &"synchronous".into()));
    assert_eq!(lines.count(), 4);
    assert!(child.wait().expect("it ends").success());
    sender.join().expect("a thread");
}
