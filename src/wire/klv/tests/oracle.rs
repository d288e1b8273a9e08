//! The same packets, read by an independent decoder: the PyPI package `stanag4609`, where it is installed.

use std::io::Write as _;
use std::process::{Command, Stdio};

use super::super::ber::{write_length, write_oid};
use super::super::{Kind, Label, Packet, ST0601, Value, sum16};

/// Prints, for each packet in hexadecimal on a line, `tag=value` of every item that is a number or a text.
const SCRIPT: &str = r#"
import sys
from stanag4609.st0601 import FieldDecodingMode, decode_uas_local_set
for line in sys.stdin:
    decoded = decode_uas_local_set(bytes.fromhex(line), field_decoding=FieldDecodingMode.PRESERVE)
    out = []
    for field in decoded.fields:
        tag, value = field.definition.tag, field.value
        if isinstance(value, bool):
            continue
        if isinstance(value, (int, float)):
            out.append(f"{tag}={float(value)!r}" if isinstance(value, float) else f"{tag}={int(value)}")
        elif type(value).__name__ in ("SpecialValue", "IMAPSpecialValue"):
            out.append(f"{tag}=special")
    print(";".join(out))
"#;

/// xorshift64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// A packet with every scaled and counted item, each with random bytes.
fn packet(random: &mut Random) -> Vec<u8> {
    let mut body = vec![2, 8, 0, 5, 0x9b, 8, 0xc1, 0xfa, 0x40, 0];
    for spec in ST0601.items {
        if matches!(spec.tag, 1 | 2)
            || !matches!(spec.kind, Kind::Linear(_) | Kind::Imap(..) | Kind::Uint(..) | Kind::Int)
        {
            continue;
        }
        let usual = usize::from(if spec.bytes.usual > 0 { spec.bytes.usual } else { spec.bytes.max });
        let bytes = random.next().to_be_bytes();
        let mut value = bytes[..usual.min(8)].to_vec();
        match random.next() % 8 {
            // the ends of the range, and the error code
            0 => value.fill(0),
            1 => value.fill(0xff),
            2 => {
                value.fill(0);
                value[0] = 0x80;
            }
            // small enough for any mapping
            3 | 4 if matches!(spec.kind, Kind::Imap(..)) => value[0] &= 0x0f,
            _ => {}
        }
        write_oid(u64::from(spec.tag), &mut body);
        write_length(value.len() as u64, &mut body);
        body.extend_from_slice(&value);
    }
    let mut packet = Label::Uas.key().to_vec();
    write_length(body.len() as u64 + 4, &mut packet);
    packet.extend_from_slice(&body);
    packet.extend([1, 2]);
    let sum = sum16(&packet);
    packet.extend(sum.to_be_bytes());
    packet
}

#[test]
fn an_independent_decoder_reads_the_same_numbers() {
    let python = std::env::var_os("ORACLE_PYTHON").unwrap_or_else(|| "python3".into());
    let there = Command::new(&python).args(["-c", "import stanag4609"]).stderr(Stdio::null()).status();
    if !there.is_ok_and(|status| status.success()) {
        println!("SKIPPED: no stanag4609; pip install stanag4609, or set ORACLE_PYTHON");
        return;
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let packets: Vec<Vec<u8>> = (0..200).map(|_| packet(&mut random)).collect();
    let mut child = Command::new(&python)
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python");
    let mut stdin = child.stdin.take().expect("a pipe");
    let lines: String = packets.iter().map(|packet| format!("{}\n", super::super::Hex(packet))).collect();
    let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let output = child.wait_with_output().expect("python");
    writer.join().expect("a thread").expect("written");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success());
    assert_eq!(text.lines().count(), packets.len());
    let (mut numbers, mut specials) = (0, 0);
    for (packet, line) in packets.iter().zip(text.lines()) {
        let read = Packet::read(packet);
        for (tag, said) in line.split(';').filter_map(|entry| entry.split_once('=')) {
            let tag: u32 = tag.parse().expect("a tag");
            let value = read.set.value(tag).expect("an item");
            if said == "special" {
                specials += 1;
                assert!(matches!(value, Value::Special(_) | Value::Unknown), "item {tag}: {value:?}");
                continue;
            }
            let expected: f64 = said.parse().expect("a number");
            match value {
                // a code word behind that of the maximum is a number to the other decoder
                Value::Special(super::super::Special::Code(_)) => {
                    let Some(Kind::Imap(_, max)) = ST0601.find(tag).map(|spec| spec.kind) else {
                        panic!("item {tag}")
                    };
                    assert!(expected > max, "item {tag}: {expected}");
                }
                value => {
                    numbers += 1;
                    let found = value.number().or_else(|| value.count().map(|count| count as f64));
                    assert_eq!(found, Some(expected), "item {tag} of {packet:x?}");
                }
            }
        }
    }
    assert!(numbers > 10_000 && specials > 500, "{numbers} numbers, {specials} special values");
}
