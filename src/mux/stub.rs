use crate::media::{Frame, Nanos};
#[derive(Default)]
pub struct Demuxer;
impl Demuxer {
    pub fn push(&mut self, _: &[u8], _: Nanos, _: &mut impl FnMut(Frame)) {}
}
#[derive(Default)]
pub struct Muxer;
impl Muxer {
    pub fn push(&mut self, _: &Frame, _: &mut impl FnMut(&[u8], Nanos)) {}
}
