//! What an input and an output are, how they are asked for and how they are changed. Holds data only.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::redact::RawUrl;
use super::spec::{InputUrl, OutputUrl};
use crate::telemetry::Desired;

/// Number of an input; counts from 1 and is never used again.
pub type InputId = u64;
/// Number of an output, over all inputs; counts from 1 and is never used again.
pub type OutputId = u64;

/// The output that serves an input on its [`InputSpec::srt_port`]. It stands among the outputs of the store, is no
/// concern of whoever lists or changes outputs, and goes with its input.
pub const fn reader_of(input: InputId) -> OutputId {
    READER | input
}

/// Whether an output is the [`reader_of`] an input.
pub const fn is_reader(output: OutputId) -> bool {
    output & READER != 0
}

/// What may be set for the whole store.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Ports for inputs that are made without a url.
    pub udp_ports: RangeInclusive<u16>,
    /// `None` = unlimited.
    pub max_outputs_per_input: Option<usize>,
    /// Seconds before the first retry of an output that says nothing else, 1 to 300.
    pub reconnect_delay: u16,
    /// Attempts of an output that says nothing else; 0 = for ever.
    pub max_reconnect_attempts: u32,
    /// How much time of a stream is kept: the latency of SRT and a second for retransmits must fit.
    pub lane: Duration,
    /// Ports on which inputs that are made without a url are served over SRT; `None` = they are not.
    pub srt_ports: Option<RangeInclusive<u16>>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            udp_ports: 5000..=5100,
            max_outputs_per_input: None,
            reconnect_delay: 5,
            max_reconnect_attempts: 0,
            lane: Duration::from_secs(8),
            srt_ports: None,
        }
    }
}

/// An input as it shall be. Never changes: a write makes a new one.
#[derive(Debug, Clone, PartialEq)]
pub struct InputSpec {
    /// Its number.
    pub id: InputId,
    /// Unique among inputs, 1 to 255 characters.
    pub name: Arc<str>,
    /// The url as written.
    pub raw_url: RawUrl,
    /// What the url says.
    pub url: InputUrl,
    /// The port that was asked for or allocated; `None` for an input with a url of its own.
    pub udp_port: Option<u16>,
    /// The port on which it is served over SRT, by the output [`reader_of`] it; `None` for an input with a url of its
    /// own.
    pub srt_port: Option<u16>,
    /// Name for urls and stream ids, made from the first name and kept when the input is renamed.
    pub mediamtx_path: String,
    /// What the operator asked for.
    pub desired: Desired,
    /// When it was made.
    pub created_at: SystemTime,
    /// When it was last changed.
    pub updated_at: SystemTime,
}

impl InputSpec {
    /// What peers publish under, where it listens for SRT.
    pub fn publish_name(&self) -> Option<&str> {
        let InputUrl::Srt(srt) = &self.url else { return None };
        Some(srt.link.listen()?.name.as_deref().unwrap_or(&self.mediamtx_path))
    }

    /// What peers read this output of it under, where that serves SRT.
    pub fn read_name<'a>(&'a self, output: &'a OutputSpec) -> Option<&'a str> {
        let OutputUrl::Srt(srt) = &output.url else { return None };
        Some(srt.link.listen()?.name.as_deref().unwrap_or(&self.mediamtx_path))
    }
}

/// An output as it shall be. Never changes: a write makes a new one.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputSpec {
    /// Its number.
    pub id: OutputId,
    /// The input that it belongs to.
    pub input_id: InputId,
    /// Unique within the input, 1 to 255 characters.
    pub name: Arc<str>,
    /// The url as written.
    pub raw_url: RawUrl,
    /// What the url says.
    pub url: OutputUrl,
    /// Try again after a failure; `false` = one attempt, then it waits to be started by hand.
    pub auto_reconnect: bool,
    /// Seconds before the first retry, 1 to 300.
    pub reconnect_delay: u16,
    /// Retries before it gives up; 0 = never.
    pub max_reconnect_attempts: u32,
    /// What the operator asked for.
    pub desired: Desired,
    /// When it was made.
    pub created_at: SystemTime,
    /// When it was last changed.
    pub updated_at: SystemTime,
}

/// A new input, unchecked.
#[derive(Debug, Clone, Default)]
pub struct InputDraft {
    /// Name.
    pub name: String,
    /// Without a url the input listens on a UDP port of [`Rules::udp_ports`].
    pub url: Option<RawUrl>,
    /// That port; `None` = the first free one.
    pub udp_port: Option<i64>,
}

/// Changes to an input, unchecked; `None` = as it was.
#[derive(Debug, Clone, Default)]
pub struct InputPatch {
    /// New name.
    pub name: Option<String>,
    /// New url.
    pub url: Option<RawUrl>,
}

/// A new output, unchecked.
#[derive(Debug, Clone)]
pub struct OutputDraft {
    /// Name.
    pub name: String,
    /// Destination.
    pub url: RawUrl,
    /// Word of [`Protocol`](super::Protocol); `None` = as the url says.
    pub protocol: Option<String>,
    /// `None` = true.
    pub auto_reconnect: Option<bool>,
    /// Seconds; `None` = as [`Rules`] say.
    pub reconnect_delay: Option<i64>,
    /// `None` = as [`Rules`] say.
    pub max_reconnect_attempts: Option<i64>,
}

/// Changes to an output, unchecked; `None` = as it was.
#[derive(Debug, Clone, Default)]
pub struct OutputPatch {
    /// New name.
    pub name: Option<String>,
    /// New url.
    pub url: Option<RawUrl>,
    /// Word of [`Protocol`](super::Protocol) that the url must agree with.
    pub protocol: Option<String>,
    /// New choice.
    pub auto_reconnect: Option<bool>,
    /// Seconds.
    pub reconnect_delay: Option<i64>,
    /// Retries; 0 = for ever.
    pub max_reconnect_attempts: Option<i64>,
}

/// One spec before and after a write; the same one twice when the write changed nothing.
#[derive(Debug, Clone)]
pub struct Change<T> {
    /// As it was.
    pub before: Arc<T>,
    /// As it is.
    pub after: Arc<T>,
}

const READER: OutputId = 1 << 63;
