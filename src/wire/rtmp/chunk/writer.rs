//! One message enters, its chunks leave: a full header first, then type 3. Bytes depend on nothing that was sent
//! before, so that one chunking serves every connection with the same chunk size and message stream.

use bytes::Bytes;

use super::{EXTENDED, Message};

/// Appends the chunks of a message whose contents stand in `parts`, one behind the other. `chunk_stream` is 2 to
/// 65,599, `chunk_size` 1 or more; contents beyond 2^24 - 1 bytes have no length that can be told, and are not
/// written.
pub fn write_chunked(
    out: &mut Vec<u8>,
    chunk_stream: u32,
    chunk_size: u32,
    (kind, timestamp, stream): (u8, u32, u32),
    parts: &[&[u8]],
) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    if length > LENGTH_MOST {
        return;
    }
    let chunk_size = chunk_size.max(1) as usize;
    let extended = (timestamp >= EXTENDED).then(|| timestamp.to_be_bytes());
    out.reserve(length + 18 + length / chunk_size * 8);
    write_basic(out, 0, chunk_stream);
    out.extend(&timestamp.min(EXTENDED).to_be_bytes()[1..]);
    out.extend(&(length as u32).to_be_bytes()[1..]);
    out.push(kind);
    out.extend(stream.to_le_bytes());
    out.extend(extended.iter().flatten());
    let mut room = chunk_size;
    for part in parts {
        let mut part = *part;
        while !part.is_empty() {
            if room == 0 {
                write_basic(out, 3, chunk_stream);
                // Type 3 repeats the field where the header before it has one (5.3.1.3).
                out.extend(extended.iter().flatten());
                room = chunk_size;
            }
            let (now, later) = part.split_at(room.min(part.len()));
            out.extend(now);
            room -= now.len();
            part = later;
        }
    }
}

/// Appends the chunks of a message.
pub fn write_message(out: &mut Vec<u8>, chunk_stream: u32, chunk_size: u32, message: &Message) {
    let head = (message.kind, message.timestamp, message.stream);
    write_chunked(out, chunk_stream, chunk_size, head, &[&message.payload]);
}

impl Message {
    /// Its chunks, to be sent to any number of peers.
    pub fn chunked(&self, chunk_stream: u32, chunk_size: u32) -> Bytes {
        let mut out = Vec::new();
        write_message(&mut out, chunk_stream, chunk_size, self);
        out.into()
    }
}

fn write_basic(out: &mut Vec<u8>, format: u8, chunk_stream: u32) {
    let format = format << 6;
    match chunk_stream {
        2..64 => out.push(format | chunk_stream as u8),
        64..320 => out.extend([format, (chunk_stream - 64) as u8]),
        _ => {
            let [_, _, high, low] = chunk_stream.saturating_sub(64).to_be_bytes();
            out.extend([format | 1, low, high]);
        }
    }
}

const LENGTH_MOST: usize = 0xFF_FFFF;
