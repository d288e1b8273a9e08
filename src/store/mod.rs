//! The desired state: which inputs and outputs there shall be, and the grammar of their urls.
//! Holds data and checks it; runs nothing.

mod spec;

pub use spec::{
    Delay, FileInput, FileOutput, InputUrl, OutputUrl, Pace, RtpInput, Transform, UdpInput, UdpOutput,
};
