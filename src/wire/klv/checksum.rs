//! The checksums of KLV sets. Bytes enter, numbers leave. Never compares.

/// The running sum of 16 bits (ST 0601, ST 0903): the bytes in pairs, high byte first.
pub fn sum16(bytes: &[u8]) -> u16 {
    let (pairs, rest) = bytes.as_chunks::<2>();
    // sums of 32 bits do not overflow before 65536 pairs; only the low 16 bits count
    let sum = pairs.iter().fold(0_u32, |sum, &pair| sum.wrapping_add(u32::from(u16::from_be_bytes(pair))));
    let last = rest.first().map_or(0, |&b| u32::from(b) << 8);
    sum.wrapping_add(last) as u16
}

/// CRC-16-CCITT as ST 1002 has it: polynomial 0x1021, start 0x1d0f; with the checksum behind the bytes it is 0.
pub fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0x1d0f, |crc, &byte| {
        (0..8)
            .fold(crc ^ u16::from(byte) << 8, |crc, _| crc << 1 ^ if crc & 0x8000 == 0 { 0 } else { 0x1021 })
    })
}
