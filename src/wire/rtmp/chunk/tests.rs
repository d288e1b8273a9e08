//! What is written is read, whatever the order of chunks and the size of pieces; what is hostile ends.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

fn message(kind: u8, timestamp: u32, stream: u32, payload: impl Into<Bytes>) -> Message {
    Message { kind, timestamp, stream, payload: payload.into() }
}

/// Cuts a chunked message into its chunks, as only who wrote them can.
fn chunks(id: u32, chunk_size: u32, message: &Message) -> Vec<Vec<u8>> {
    let bytes = message.chunked(id, chunk_size);
    let basic = if id < 64 { 1 } else { 2 + usize::from(id >= 320) };
    let extended = if message.timestamp >= EXTENDED { 4 } else { 0 };
    let mut rest = &bytes[..];
    let mut out = Vec::new();
    while !rest.is_empty() {
        let header = basic + extended + if out.is_empty() { 11 } else { 0 };
        let (chunk, later) = rest.split_at((header + chunk_size as usize).min(rest.len()));
        out.push(chunk.to_vec());
        rest = later;
    }
    out
}

fn read_all(reader: &mut Reader, bytes: &[u8], piece: usize) -> Result<Vec<Message>, BadChunk> {
    let mut messages = Vec::new();
    for mut piece in bytes.chunks(piece.max(1)) {
        while let Some(message) = reader.read(&mut piece)? {
            messages.push(message);
        }
        assert!(piece.is_empty());
    }
    Ok(messages)
}

fn timestamps() -> impl Strategy<Value = u32> {
    prop_oneof![any::<u32>(), 0u32..100, (EXTENDED - 2)..(EXTENDED + 2), Just(u32::MAX)]
}

proptest! {
    #[test]
    fn messages_come_back_whatever_the_interleaving(
        chunk_size in 1u32..300,
        piece in 1usize..400,
        senders in prop::collection::vec(
            prop::collection::vec((timestamps(), 0usize..900, any::<u8>()), 1..4), 1..5),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..400),
    ) {
        let ids = [2, 63, 64, 319, 320, 65_599];
        let mut queues = Vec::new();
        let mut want: Vec<Vec<Message>> = Vec::new();
        for (at, sent) in senders.iter().enumerate() {
            let sent: Vec<Message> = sent
                .iter()
                .map(|(time, length, fill)| message(kind::VIDEO, *time, at as u32, vec![*fill; *length]))
                .collect();
            let mut queue: Vec<Vec<u8>> = sent.iter().flat_map(|m| chunks(ids[at], chunk_size, m)).collect();
            queue.reverse();
            queues.push(queue);
            want.push(sent);
        }
        let mut bytes = Vec::new();
        for index in &order {
            let at = index.index(queues.len());
            bytes.extend(queues[at].pop().unwrap_or_default());
        }
        queues.iter_mut().for_each(|queue| while let Some(chunk) = queue.pop() { bytes.extend(chunk) });
        let mut reader = Reader::new(Limits::default());
        reader.resize(chunk_size).unwrap();
        let got = read_all(&mut reader, &bytes, piece).unwrap();
        for (at, want) in want.iter().enumerate() {
            let got: Vec<&Message> = got.iter().filter(|m| m.stream == at as u32).collect();
            prop_assert_eq!(got, want.iter().collect::<Vec<_>>());
        }
        prop_assert_eq!(reader.held(), 0);
    }
}

#[test]
fn a_message_in_parts_has_the_chunks_of_the_whole() {
    let payload: Vec<u8> = (0..1000).map(|i| i as u8).collect();
    let whole = message(kind::AUDIO, 0x0100_0000, 1, payload.clone()).chunked(4, 128);
    for at in [0, 1, 127, 128, 129, 999, 1000] {
        let mut out = Vec::new();
        let (head, tail) = payload.split_at(at);
        write_chunked(&mut out, 4, 128, (kind::AUDIO, 0x0100_0000, 1), &[head, tail]);
        assert_eq!(out, whole);
    }
}

#[test]
fn headers_of_type_1_2_and_3_lean_on_the_one_before() {
    let mut reader = Reader::new(Limits::default());
    let bytes = [
        // type 0: at 1000, 2 bytes, audio, stream 1
        &[0x04, 0, 3, 0xE8, 0, 0, 2, 8, 1, 0, 0, 0, b'a', b'b'][..],
        // type 3 right behind it: the same time again
        &[0xC4, b'c', b'd'],
        // type 1: 20 later, 1 byte, video
        &[0x44, 0, 0, 20, 0, 0, 1, 9, b'e'],
        // type 2: 30 later
        &[0x84, 0, 0, 30, b'f'],
        // type 3: 30 later again
        &[0xC4, b'g'],
    ];
    let got = read_all(&mut reader, &bytes.concat(), 1).unwrap();
    let want = [(8, 1000, "ab"), (8, 1000, "cd"), (9, 1020, "e"), (9, 1050, "f"), (9, 1080, "g")];
    assert_eq!(got, want.map(|(kind, time, text)| message(kind, time, 1, text)));
}

#[test]
fn time_goes_back_and_wraps_with_deltas_of_32_bits() {
    let mut reader = Reader::new(Limits::default());
    let bytes = [
        &[0x04, 0xFF, 0xFF, 0xFF, 0, 0, 1, 8, 1, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFE, b'a'][..],
        &[0x84, 0, 0, 4, b'b'],
        &[0x84, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xF6, b'c'],
        // type 3 has the field too, and adds it again
        &[0xC4, 0xFF, 0xFF, 0xFF, 0xF6, b'd'],
    ];
    let times: Vec<u32> =
        read_all(&mut reader, &bytes.concat(), 3).unwrap().iter().map(|m| m.timestamp).collect();
    assert_eq!(times, [0xFFFF_FFFE, 2, 0xFFFF_FFF8, 0xFFFF_FFEE]);
}

#[test]
fn senders_that_leave_the_extended_field_out_of_type_3_are_understood() {
    for length in [129usize, 130, 131, 132, 133, 300] {
        let sent =
            message(kind::VIDEO, 0x0200_0000, 1, (0..length).map(|i| i as u8 ^ 0x5A).collect::<Vec<_>>());
        let next = message(kind::AUDIO, 5, 1, &b"next"[..]);
        let mut bytes = Vec::new();
        for (at, mut chunk) in chunks(6, 128, &sent).into_iter().enumerate() {
            if at > 0 {
                chunk.drain(1..5);
            }
            bytes.extend(chunk);
        }
        bytes.extend(chunks(4, 128, &next).concat());
        bytes.extend(chunks(4, 128, &next).concat());
        for piece in [1, 2, 3, 7, 4096] {
            let got = read_all(&mut Reader::new(Limits::default()), &bytes, piece).unwrap();
            assert_eq!(
                got,
                [sent.clone(), next.clone(), next.clone()],
                "{length} bytes in pieces of {piece}"
            );
        }
    }
}

#[test]
fn an_abort_frees_what_was_held() {
    let mut reader = Reader::new(Limits::default());
    let sent = message(kind::VIDEO, 0, 1, vec![7; 300]);
    let parts = chunks(6, 128, &sent);
    assert_eq!(read_all(&mut reader, &parts[0], 9), Ok(vec![]));
    assert_eq!(reader.held(), 128);
    reader.abort(6);
    reader.abort(99);
    assert_eq!(reader.held(), 0);
    assert_eq!(read_all(&mut reader, &parts.concat(), 9), Ok(vec![sent]));
}

#[test]
fn a_new_header_inside_a_message_starts_over() {
    let mut reader = Reader::new(Limits::default());
    let sent = message(kind::VIDEO, 0, 1, vec![7; 300]);
    let parts = chunks(6, 128, &sent);
    let got = read_all(&mut reader, &[&parts[0][..], &parts[1], &parts.concat()].concat(), 4096);
    assert_eq!(got, Ok(vec![sent]));
    assert_eq!(reader.held(), 0);
}

#[test]
fn what_a_header_announces_takes_no_memory() {
    let limits = Limits { held: 1000, streams: 4, ..Limits::default() };
    let mut reader = Reader::new(limits);
    let announce = |id: u8| [id, 0, 0, 0, 0x7F, 0xFF, 0xFF, kind::VIDEO, 1, 0, 0, 0];
    for id in 4..8 {
        assert_eq!(read_all(&mut reader, &[&announce(id)[..], &[0; 128]].concat(), 50), Ok(vec![]));
    }
    assert_eq!(reader.held(), 512);
    assert_eq!(read_all(&mut reader, &announce(8), 50), Err(BadChunk::Streams(4)));
    let mut reader = Reader::new(limits);
    let flood = [&announce(4)[..], &[0; 128], &[&[0xC4][..], &[0; 128]].concat().repeat(8)].concat();
    assert_eq!(read_all(&mut reader, &flood, 50), Err(BadChunk::Held(1000)));
    assert!(reader.held() <= 1000);
}

#[test]
fn hostile_headers_are_named() {
    let read = |bytes: &[u8]| read_all(&mut Reader::new(Limits::default()), bytes, 64);
    assert_eq!(read(&[0xC4]), Err(BadChunk::Headless(4, 3)));
    assert_eq!(read(&[0x44, 0, 0, 0, 0, 0, 1, 8]), Err(BadChunk::Headless(4, 1)));
    let long = [0x04, 0, 0, 0, 0xFF, 0xFF, 0xFF, 9, 0, 0, 0, 0];
    assert_eq!(read(&long), Err(BadChunk::Long { kind: 9, length: 0xFF_FFFF, most: 8 << 20 }));
    let long = [0x03, 0, 0, 0, 1, 0, 1, 20, 0, 0, 0, 0];
    assert_eq!(read(&long), Err(BadChunk::Long { kind: 20, length: 65_537, most: 65_536 }));
    let mut reader = Reader::new(Limits::default());
    assert_eq!(reader.resize(0), Err(BadChunk::ChunkSize(0)));
    assert_eq!(reader.resize(0x8000_0000), Err(BadChunk::ChunkSize(0x8000_0000)));
    assert_eq!(reader.resize(0x7FFF_FFFF), Ok(()));
}
