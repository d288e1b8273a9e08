//! A transport stream over RTP (RFC 2250, 2; payload type 33): payloads enter, whole transport packets leave. Packing
//! them is done where datagrams are made; the order of packets is judged by the reorder window.

/// The whole transport packets of a payload, and whether nothing else was in it.
pub fn packets(payload: &[u8]) -> (&[u8], bool) {
    let whole = payload.len() / PACKET * PACKET;
    (payload.get(..whole).unwrap_or_default(), whole == payload.len() && payload.first() == Some(&SYNC))
}

/// Length of a transport packet in bytes (ISO/IEC 13818-1, 2.4.3.2).
const PACKET: usize = 188;
const SYNC: u8 = 0x47;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_packets_leave() {
        let mut payload = vec![SYNC; 2 * PACKET];
        assert_eq!(packets(&payload), (&payload[..], true));
        payload.extend([SYNC; 9]);
        assert_eq!(packets(&payload), (&payload[..2 * PACKET], false));
        assert_eq!(packets(&[]), (&[][..], false));
    }
}
