//! RTP.

use std::time::Duration;

use millrace::wire::rtp::{Reorder, parse};

/// Datagrams of any bytes at any times: the window stays within its bounds and invents nothing.
pub fn reorder(data: &[u8]) {
    let [window, packets, rest @ ..] = data else { return };
    let mut reorder = Reorder::new(Duration::from_millis((*window).into()), (*packets).into());
    let (mut now, mut pushed, mut left) = (0, 0, 0);
    let mut rest = rest;
    // Each datagram: milliseconds since the last one, length, bytes.
    while let [step, len, behind @ ..] = rest {
        let (datagram, behind) = behind.split_at(behind.len().min((*len).into()));
        rest = behind;
        now += u64::from(*step) * 1_000_000;
        pushed += u64::from(parse(datagram).is_ok());
        reorder.push(datagram, now, &mut |_: &[u8]| left += 1);
        assert!(reorder.deadline().is_none_or(|deadline| deadline > now));
    }
    reorder.expire(u64::MAX, &mut |_: &[u8]| left += 1);
    assert_eq!(reorder.deadline(), None);
    let seen = reorder.counters();
    assert_eq!(seen.delivered, left);
    let settled = seen.delivered + seen.discarded + seen.foreign_types;
    // One packet may be set aside.
    assert!(settled == pushed || settled + 1 == pushed);
}
