//! Messages of a publisher or of a server that plays enter, access units leave into the stream's queue, counted. What
//! cannot be read is left out and named once.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::{Ready, RtmpError};
use crate::app::feeders::Ending;
use crate::hub::FeedWriter;
use crate::ingest::Fed;
use crate::mux::flv::FlvDemux;
use crate::net::clock;
use crate::telemetry::{FlowStats, InputStats, Rate};
use crate::wire::rtmp::{ClientEvent, Message};

/// Where the media of one connection go.
pub(super) struct Intake {
    demux: FlvDemux,
    feed: FeedWriter<Fed>,
    flow: Arc<FlowStats>,
    rate: Rate,
    fresh: bool,
    named: bool,
}

impl Intake {
    /// Media of a connection that begins.
    pub(super) fn new(feed: FeedWriter<Fed>, flow: Arc<FlowStats>, encrypted: bool) -> Self {
        feed.push(Fed::Frames);
        flow.since_ms.store(clock::wall_ms(), Relaxed);
        flow.encrypted.store(encrypted, Relaxed);
        Self { demux: FlvDemux::new(), feed, flow, rate: Rate::default(), fresh: false, named: false }
    }

    /// Takes one message.
    pub(super) fn take(&mut self, message: &Message) {
        self.flow.messages.fetch_add(1, Relaxed);
        self.flow.bytes.fetch_add(message.payload.len() as u64, Relaxed);
        match self.demux.push(message, clock::now()) {
            Ok(Some(frame)) => {
                self.feed.push(Fed::Frame(frame));
                self.fresh = true;
            }
            Ok(None) => {}
            Err(why) if !self.named => {
                self.named = true;
                tracing::warn!(%why, "a message of a publisher was left out; further ones are not told");
            }
            Err(_) => {}
        }
    }

    /// Wakes the stream when there is something for it, and counts.
    pub(super) fn ring(&mut self) {
        if std::mem::take(&mut self.fresh) {
            self.feed.ring();
        }
        let rate = self.rate.update(clock::now(), self.flow.bytes.load(Relaxed));
        self.flow.rate_bps.store(rate, Relaxed);
    }
}

/// Is played to until the server ends it.
pub(super) async fn play(ready: Ready, feed: FeedWriter<Fed>, stats: Arc<InputStats>) -> Ending {
    let encrypted = !matches!(ready.socket, crate::app::socket::Socket::Plain(_));
    let intake = Intake::new(feed, stats.flow.open(), encrypted);
    let ending = match read(ready, intake).await {
        Ok(()) => Ending::Ended,
        Err(why) => Ending::Failed { retryable: why.is_retryable(), reason: why.to_string() },
    };
    stats.flow.show(None);
    ending
}

async fn read(ready: Ready, mut intake: Intake) -> Result<(), RtmpError> {
    let Ready { mut socket, mut client, rest, .. } = ready;
    let mut buffer = vec![0; READ];
    let mut came = rest;
    loop {
        let mut input = came.as_slice();
        while let Some(event) = client.read(&mut input)? {
            match event {
                ClientEvent::Media(message) => intake.take(&message),
                ClientEvent::Ended => {
                    intake.ring();
                    return Ok(());
                }
                ClientEvent::Publishing(_)
                | ClientEvent::Playing(_)
                | ClientEvent::Redial(_)
                | ClientEvent::Status { .. } => {}
            }
        }
        intake.ring();
        socket.write(&client.take_output()).await?;
        let count = match tokio::time::timeout(SILENCE, socket.read(&mut buffer)).await {
            Ok(read) => read?,
            Err(_) => return Err(RtmpError::Silent(SILENCE)),
        };
        if count == 0 {
            return Err(RtmpError::Left);
        }
        came.clear();
        came.extend_from_slice(buffer.get(..count).unwrap_or_default());
    }
}

/// A key frame of a second at 40 Mb/s comes in a few of these.
const READ: usize = 64 << 10;
/// A server that sends nothing for this long, not even metadata, has nothing.
const SILENCE: Duration = Duration::from_secs(30);
