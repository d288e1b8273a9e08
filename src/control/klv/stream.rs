//! Clients that hear events as they come: observations enter, their events leave at the pace that each client asked for.
//! A client that is slow loses the oldest, counted; it holds up nobody.

use std::collections::{BTreeMap, HashMap};
use std::future::pending;
use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::body::Bytes;
use parking_lot::Mutex;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, watch};
use tokio::time::Sleep;

use super::choice::{Choice, Fields};
use super::event::{Encoder, Shared, with_dropped};
use crate::inspect::klv::{Metadata, Observation};
use crate::store::InputId;

/// Everybody who hears events.
#[derive(Debug)]
pub(in crate::control) struct Streams {
    room: Arc<Semaphore>,
    encoders: Mutex<HashMap<(InputId, Fields), Weak<Encoder>>>,
    closing: watch::Sender<bool>,
}

/// One who hears the events of an input.
pub(super) struct Client {
    news: broadcast::Receiver<Arc<Observation>>,
    encoder: Shared,
    track: Option<u16>,
    period: Option<Duration>,
    turns: BTreeMap<u16, Turn>,
    /// Runs out when the first of the events that wait is due.
    timer: Option<Pin<Box<Sleep>>>,
    /// Observations of the input that were lost since the last event.
    dropped: u64,
    closing: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
}

/// When a track may speak again, on the clock of arrivals.
struct Turn {
    next: u64,
    waiting: Option<Arc<Observation>>,
}

/// What a client hears next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// An event, one line of JSON.
    Event(Bytes),
    /// Nothing came for a while.
    Quiet,
    /// Nothing more comes.
    Gone(&'static str),
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            room: Arc::new(Semaphore::new(CLIENTS)),
            encoders: Mutex::default(),
            closing: watch::Sender::new(false),
        }
    }
}

impl Streams {
    /// Lets somebody in; none when there are too many.
    pub(super) fn join(&self, input: InputId, metadata: &Metadata, choice: Choice) -> Option<Client> {
        let place = Arc::clone(&self.room).try_acquire_owned().ok()?;
        Some(Client {
            news: metadata.subscribe(),
            encoder: self.encoder(input, choice.fields),
            track: choice.track,
            period: choice.period,
            turns: BTreeMap::new(),
            timer: None,
            dropped: 0,
            closing: self.closing.subscribe(),
            _place: place,
        })
    }

    /// Everybody who hears events hears that it is over.
    pub(in crate::control) fn close(&self) {
        self.closing.send_replace(true);
    }

    fn encoder(&self, input: InputId, fields: Fields) -> Shared {
        let mut encoders = self.encoders.lock();
        encoders.retain(|_, encoder| encoder.strong_count() > 0);
        let key = (input, fields);
        if let Some(encoder) = encoders.get(&key).and_then(Weak::upgrade) {
            return encoder;
        }
        let encoder = Arc::new(Encoder::new(input, key.1.clone()));
        encoders.insert(key, Arc::downgrade(&encoder));
        encoder
    }
}

impl Client {
    /// Waits for what comes next. May be dropped and called again without a loss.
    pub(super) async fn next(&mut self) -> Next {
        enum Heard {
            Closing,
            Due,
            News(Result<Arc<Observation>, RecvError>),
            Nothing,
        }
        let mut quiet = pin!(tokio::time::sleep(QUIET));
        loop {
            if *self.closing.borrow() {
                return Next::Gone("the engine stops");
            }
            let timer = &mut self.timer;
            let due = async {
                match timer {
                    Some(timer) => timer.as_mut().await,
                    None => pending().await,
                }
            };
            let heard = tokio::select! {
                biased;
                // An error says that the server is gone.
                _ = self.closing.changed() => Heard::Closing,
                () = due => Heard::Due,
                news = self.news.recv() => Heard::News(news),
                () = &mut quiet => Heard::Nothing,
            };
            let event = match heard {
                Heard::Closing => return Next::Gone("the engine stops"),
                Heard::Nothing => return Next::Quiet,
                Heard::Due => self.due(),
                Heard::News(Ok(observation)) => self.offer(observation),
                Heard::News(Err(RecvError::Lagged(lost))) => {
                    self.dropped += lost;
                    None
                }
                Heard::News(Err(RecvError::Closed)) => return Next::Gone("the input is gone"),
            };
            if let Some(observation) = event {
                let dropped = std::mem::take(&mut self.dropped);
                return Next::Event(with_dropped(self.encoder.encode(&observation), dropped));
            }
        }
    }

    /// The observation back, if its turn is now; else it waits, in the place of an older one.
    fn offer(&mut self, observation: Arc<Observation>) -> Option<Arc<Observation>> {
        let sighting = &observation.sighting;
        if self.track.is_some_and(|track| track != sighting.track) {
            return None;
        }
        let Some(period) = self.period else { return Some(observation) };
        let (track, now) = (sighting.track, sighting.arrival);
        let turn = self.turns.entry(track).or_insert(Turn { next: 0, waiting: None });
        if now >= turn.next {
            *turn = Turn { next: now + period.as_nanos() as u64, waiting: None };
            return Some(observation);
        }
        let wait = turn.next - now;
        turn.waiting = Some(observation);
        if self.timer.is_none() {
            self.timer = Some(Box::pin(tokio::time::sleep(Duration::from_nanos(wait))));
        }
        None
    }

    /// The timer ran out: what waited for the longest is due, and the timer is set for the next one.
    fn due(&mut self) -> Option<Arc<Observation>> {
        self.timer = None;
        let period = self.period?.as_nanos() as u64;
        let waits = |turns: &BTreeMap<u16, Turn>| {
            turns.values().filter(|turn| turn.waiting.is_some()).map(|turn| turn.next).min()
        };
        let now = waits(&self.turns)?;
        let turn = self.turns.values_mut().find(|turn| turn.waiting.is_some() && turn.next == now)?;
        let observation = turn.waiting.take();
        turn.next = now + period;
        if let Some(next) = waits(&self.turns) {
            self.timer = Some(Box::pin(tokio::time::sleep(Duration::from_nanos(next - now))));
        }
        // tracks that are gone leave nothing behind
        self.turns.retain(|_, turn| turn.waiting.is_some() || turn.next + FORGET > now);
        observation
    }
}

/// Clients at the same time; more are answered 503.
pub(super) const CLIENTS: usize = 256;
/// Without an event for so long, a sign of life tells whether the client is still there.
const QUIET: Duration = Duration::from_secs(20);
/// A track that was silent for so long is not remembered.
const FORGET: u64 = 60_000_000_000;
