//! Null packets that no stream holds: sent in front of what a test sends and behind it, they say that all is in
//! place and that all has come. What is between two of them is to be what was sent, no byte more or less.

/// A null packet (ISO/IEC 13818-1, 2.4.3.3) with a number in its payload.
pub(crate) fn mark(number: u16) -> [u8; 188] {
    let mut packet = [0xff; 188];
    packet[..4].copy_from_slice(&[0x47, 0x1f, 0xff, 0x10]);
    packet[4..4 + WORD.len()].copy_from_slice(WORD);
    packet[4 + WORD.len()..][..2].copy_from_slice(&number.to_be_bytes());
    packet
}

/// Sends the mark until `heard` says that it has come out everywhere.
pub(crate) fn knock(number: u16, mut send: impl FnMut(&[u8]), mut heard: impl FnMut() -> bool) {
    super::wait_for(&format!("mark {number}"), || {
        send(&mark(number));
        // Two rounds through a delay of 40 ms.
        std::thread::sleep(std::time::Duration::from_millis(80));
        heard().then_some(())
    });
}

/// The packets behind the last mark `first` and before the first mark `last`; nothing until that has come.
pub(crate) fn between(first: u16, last: u16, bytes: &[u8]) -> Option<&[u8]> {
    let (packets, _) = bytes.as_chunks::<188>();
    let start = packets.iter().rposition(|p| *p == mark(first))? + 1;
    let length = packets[start..].iter().position(|p| *p == mark(last))?;
    Some(&bytes[start * 188..(start + length) * 188])
}

/// Whether this datagram is a mark.
pub(crate) fn is_mark(datagram: &[u8]) -> bool {
    datagram.len() == 188 && datagram[4..].starts_with(WORD)
}

/// Whether a mark has come.
pub(crate) fn holds(number: u16, bytes: &[u8]) -> bool {
    bytes.as_chunks::<188>().0.contains(&mark(number))
}

const WORD: &[u8] = b"a mark of a test, number ";
