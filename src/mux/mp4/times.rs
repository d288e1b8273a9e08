//! A fragment on the timeline of its stream enters, the same on that of its file leaves.

use crate::media::Ticks;

/// A copy of a movie fragment whose times begin where `start` was: its decode times (ISO/IEC 14496-12, 8.8.12) are so
/// much less, the same for all tracks, so that these stay together. Other bytes are left as they are.
pub fn rebased(fragment: &[u8], start: Ticks) -> Vec<u8> {
    let mut bytes = fragment.to_vec();
    let start = u64::try_from(start).unwrap_or(0);
    for (from, to) in children(fragment, b"moof", (0, fragment.len())) {
        for (from, to) in children(fragment, b"traf", (from, to)) {
            for (from, _) in children(fragment, b"tfdt", (from, to)) {
                shift(&mut bytes, from, start);
            }
        }
    }
    bytes
}

/// The insides of the boxes of a type between two places.
fn children(bytes: &[u8], kind: &[u8; 4], (mut at, end): (usize, usize)) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    while let Some(&[a, b, c, d, ref name @ ..]) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let next = at.saturating_add(u32::from_be_bytes([a, b, c, d]) as usize);
        // Sizes of 0 and 1 mean other things; they do not stand in fragments of this engine.
        if next < at + 8 || next > end {
            break;
        }
        if name == kind {
            found.push((at + 8, next));
        }
        at = next;
    }
    found
}

/// Takes `start` off the time in the box whose inside begins at `from`.
fn shift(bytes: &mut [u8], from: usize, start: u64) {
    match bytes.get_mut(from..) {
        Some([1, _, _, _, rest @ ..]) => {
            if let Some(time) = rest.first_chunk_mut::<8>() {
                *time = u64::from_be_bytes(*time).saturating_sub(start).to_be_bytes();
            }
        }
        Some([0, _, _, _, rest @ ..]) => {
            if let Some(time) = rest.first_chunk_mut::<4>() {
                let before = u64::from(u32::from_be_bytes(*time));
                *time = (before.saturating_sub(start) as u32).to_be_bytes();
            }
        }
        _ => {}
    }
}
