//! Payloads of PES packets enter, whole frames of sound leave. Never holds more than the frame under way.

use super::{Header, Syntax};

/// Finds the frames in a stream that is cut anywhere.
#[derive(Debug)]
pub struct Splitter {
    syntax: Syntax,
    /// The start of a frame that goes on in the next payload.
    carry: Vec<u8>,
    /// The last frame ended where the next one has to start.
    synchronous: bool,
    junk: u64,
}

/// A frame that was found.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    /// All of it, with its header.
    pub frame: &'a [u8],
    /// What the header says.
    pub header: Header,
    /// It started in an earlier payload than the one that ended it: the time stamp of this one is not its own.
    pub carried: bool,
}

impl Splitter {
    /// For a stream of this syntax.
    pub fn new(syntax: Syntax) -> Self {
        Self { syntax, carry: Vec::new(), synchronous: false, junk: 0 }
    }

    /// Takes the next payload and hands out every frame that it completes.
    pub fn push(&mut self, payload: &[u8], emit: &mut impl FnMut(Found<'_>)) {
        if self.carry.is_empty() {
            let used = self.split(payload, 0, emit);
            self.carry.extend_from_slice(payload.get(used..).unwrap_or_default());
            return;
        }
        let seam = self.carry.len();
        let mut bytes = std::mem::take(&mut self.carry);
        bytes.extend_from_slice(payload);
        let used = self.split(&bytes, seam, emit);
        bytes.drain(..used);
        self.carry = bytes;
    }

    /// Forgets the frame under way: something is missing in front of the next payload.
    pub fn reset(&mut self) {
        self.junk += self.carry.len() as u64;
        self.carry.clear();
        self.synchronous = false;
    }

    /// Bytes that were no part of a frame.
    pub fn junk_bytes(&self) -> u64 {
        self.junk
    }

    /// Splits frames off the front and says how many bytes were used; those up to `seam` came earlier.
    fn split(&mut self, bytes: &[u8], seam: usize, emit: &mut impl FnMut(Found<'_>)) -> usize {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let Some(header) = self.syntax.header(rest) else {
                if rest.len() < self.syntax.header_len() && rest.first() == Some(&self.syntax.first_byte()) {
                    break;
                }
                self.synchronous = false;
                let next = memchr::memchr(self.syntax.first_byte(), rest.get(1..).unwrap_or_default());
                let skipped = next.map_or(rest.len(), |next| next + 1);
                self.junk += skipped as u64;
                at += skipped;
                continue;
            };
            let Some((frame, behind)) = rest.split_at_checked(header.length) else { break };
            // Out of step, a header inside a frame looks like one: the next one must stand behind it.
            let short = behind.len() < self.syntax.header_len();
            if !self.synchronous && !short && self.syntax.header(behind).is_none() {
                self.junk += 1;
                at += 1;
                continue;
            }
            self.synchronous = true;
            emit(Found { frame, header, carried: at < seam });
            at += header.length;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame of MPEG audio layer 2, 192 kbit/s, 48 kHz.
    fn frame(fill: u8) -> Vec<u8> {
        let mut frame = vec![fill; 576];
        frame[..4].copy_from_slice(&[0xff, 0xfd, 0xa4, 0]);
        frame
    }

    fn split(splitter: &mut Splitter, payload: &[u8]) -> Vec<(u8, bool)> {
        let mut found = Vec::new();
        splitter.push(payload, &mut |f| found.push((f.frame[5], f.carried)));
        found
    }

    #[test]
    fn a_frame_may_go_on_in_the_next_payload() {
        let mut splitter = Splitter::new(Syntax::Mpeg);
        let stream = [frame(1), frame(2), frame(3)].concat();
        assert_eq!(split(&mut splitter, &stream[..578]), [(1, false)]);
        assert_eq!(split(&mut splitter, &stream[578..]), [(2, true), (3, false)]);
        assert_eq!(splitter.junk_bytes(), 0);
    }

    #[test]
    fn junk_and_false_headers_are_left_out() {
        let mut splitter = Splitter::new(Syntax::Mpeg);
        // a header in the junk whose frame would end in the middle of another
        let stream = [&[0, 0xff, 0xfd, 0xa4, 0, 9][..], &frame(1), &frame(2)].concat();
        assert_eq!(split(&mut splitter, &stream), [(1, false), (2, false)]);
        assert_eq!(splitter.junk_bytes(), 6);
        split(&mut splitter, &frame(3)[..300]);
        splitter.reset();
        assert_eq!(split(&mut splitter, &[&frame(3)[400..], &frame(4)[..], &frame(5)].concat()).len(), 2);
    }

    proptest! {
        #[test]
        fn frames_come_out_however_they_are_cut(cuts in prop::collection::vec(1usize..1300, 1..20)) {
            let frames: Vec<_> = (1..=12).map(frame).collect();
            let stream = frames.concat();
            let mut splitter = Splitter::new(Syntax::Mpeg);
            let (mut at, mut found) = (0, Vec::new());
            for cut in cuts.iter().cycle() {
                let end = (at + cut).min(stream.len());
                splitter.push(&stream[at..end], &mut |f| found.push(f.frame.to_vec()));
                at = end;
                if at == stream.len() {
                    break;
                }
            }
            prop_assert_eq!(found, frames);
        }

        #[test]
        fn any_bytes_are_safe(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..10)) {
            for syntax in [Syntax::Adts, Syntax::Loas, Syntax::Mpeg, Syntax::Ac3] {
                let mut splitter = Splitter::new(syntax);
                for payload in &payloads {
                    splitter.push(payload, &mut |f| assert_eq!(f.frame.len(), f.header.length));
                    assert!(splitter.carry.len() < 1 << 14);
                }
            }
        }
    }
}
