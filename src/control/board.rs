//! The read model: states and counters of every input and output enter from the engine, snapshots leave to
//! whoever shows them. Sections under a lock are short and never wait.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

use parking_lot::{Mutex, RwLock};
use serde_json::{Value, json};

use crate::inspect::InputHealth;
use crate::inspect::conformance::Conformance;
use crate::inspect::klv::Metadata;
use crate::store::{InputId, InputSpec, OutputId, OutputSpec, is_reader, reader_of};
use crate::telemetry::{Event, EventRing, InputStats, Level, OutputStats, Status};

/// Every input and output, as it is.
#[derive(Debug, Default)]
pub struct Board {
    inputs: RwLock<BTreeMap<InputId, Arc<InputCard>>>,
    last_event: AtomicU64,
}

impl Board {
    /// Shows a new input, at rest.
    pub fn add_input(&self, spec: Arc<InputSpec>, now: SystemTime) -> Arc<InputCard> {
        let id = spec.id;
        let card = Arc::new(InputCard {
            card: Card::new(spec, now),
            health: Arc::default(),
            outputs: RwLock::default(),
        });
        self.inputs.write().insert(id, card.clone());
        card
    }

    /// Shows a new output of that input, at rest; `None` when the input is not on the board.
    pub fn add_output(&self, spec: Arc<OutputSpec>, now: SystemTime) -> Option<Arc<OutputCard>> {
        let input = self.input(spec.input_id)?;
        let id = spec.id;
        let card = Arc::new(Card::new(spec, now));
        input.outputs.write().insert(id, card.clone());
        Some(card)
    }

    /// Takes an input and its outputs off the board.
    pub fn remove_input(&self, id: InputId) -> Option<Arc<InputCard>> {
        self.inputs.write().remove(&id)
    }

    /// Takes an output off the board.
    pub fn remove_output(&self, input: InputId, id: OutputId) -> Option<Arc<OutputCard>> {
        self.input(input)?.outputs.write().remove(&id)
    }

    /// One input.
    pub fn input(&self, id: InputId) -> Option<Arc<InputCard>> {
        self.inputs.read().get(&id).cloned()
    }

    /// One output of that input.
    pub fn output(&self, input: InputId, id: OutputId) -> Option<Arc<OutputCard>> {
        self.input(input)?.outputs.read().get(&id).cloned()
    }

    /// Inputs, oldest first, from the `skip`th on, at most `limit`.
    pub fn inputs(&self, skip: usize, limit: usize) -> Vec<Arc<InputCard>> {
        self.inputs.read().values().skip(skip).take(limit).cloned().collect()
    }

    /// An event with the next number of this process, for [`Card::log`].
    pub fn event(&self, level: Level, message: impl Into<String>, at: SystemTime) -> Event {
        Event { id: self.last_event.fetch_add(1, Relaxed) + 1, at, level, message: message.into() }
    }
}

/// What is known of one input or output. Counters are written by the shard, everything else by the director.
#[derive(Debug)]
pub struct Card<Spec, Stats> {
    spec: RwLock<Arc<Spec>>,
    status: RwLock<Status>,
    stats: Arc<Stats>,
    events: Mutex<EventRing>,
}

/// What is known of one output.
pub type OutputCard = Card<OutputSpec, OutputStats>;

impl<Spec, Stats: Default> Card<Spec, Stats> {
    fn new(spec: Arc<Spec>, now: SystemTime) -> Self {
        Self {
            spec: RwLock::new(spec),
            status: RwLock::new(Status::idle(now)),
            stats: Arc::default(),
            events: Mutex::default(),
        }
    }
}

impl<Spec, Stats> Card<Spec, Stats> {
    /// As it shall be.
    pub fn spec(&self) -> Arc<Spec> {
        self.spec.read().clone()
    }

    /// Shows a changed spec.
    pub fn set_spec(&self, spec: Arc<Spec>) {
        *self.spec.write() = spec;
    }

    /// How it stands.
    pub fn status(&self) -> Status {
        self.status.read().clone()
    }

    /// Looks at how it stands without a copy. `look` runs under the lock: it must not wait.
    pub fn peek<T>(&self, look: impl FnOnce(&Status) -> T) -> T {
        look(&self.status.read())
    }

    /// Shows how it stands now.
    pub fn set_status(&self, status: Status) {
        *self.status.write() = status;
    }

    /// Its counters, shared with the shard that writes them.
    pub fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }

    /// Adds an event of [`Board::event`].
    pub fn log(&self, event: Event) {
        self.events.lock().push(event);
    }

    /// The last events, newest first, at most `limit`.
    pub fn events(&self, limit: usize) -> Vec<Event> {
        self.events.lock().newest().take(limit).cloned().collect()
    }
}

/// What is known of one input.
#[derive(Debug)]
pub struct InputCard {
    /// What every object has.
    pub card: Card<InputSpec, InputStats>,
    health: Arc<InputHealth>,
    outputs: RwLock<BTreeMap<OutputId, Arc<OutputCard>>>,
}

impl InputCard {
    /// What the shard finds out about the stream.
    pub fn health(&self) -> &Arc<InputHealth> {
        &self.health
    }

    /// What the KLV of the stream says.
    pub fn klv(&self) -> &Arc<Metadata> {
        self.health.klv()
    }

    /// What is in the stream and who sends it, as last reported; `None` before the first report.
    pub fn report(&self) -> Option<Value> {
        let report = self.health.latest()?;
        let senders = self.health.latest_senders();
        Some(json!({ "stream": *report, "senders": senders.as_deref() }))
    }

    /// Whether the stream keeps the rules; `None` before the first report.
    pub fn conformance(&self) -> Option<Conformance> {
        self.health.conformance()
    }

    /// Its outputs, oldest first, and last its reader.
    pub fn outputs(&self) -> Vec<Arc<OutputCard>> {
        self.outputs.read().values().cloned().collect()
    }

    /// Its outputs without its reader, oldest first.
    pub fn listed_outputs(&self) -> Vec<Arc<OutputCard>> {
        self.outputs.read().range(..reader_of(0)).map(|(_, output)| output.clone()).collect()
    }

    /// How many outputs it has; the reader is none.
    pub fn output_count(&self) -> usize {
        let outputs = self.outputs.read();
        outputs.len() - usize::from(outputs.last_key_value().is_some_and(|(id, _)| is_reader(*id)))
    }

    /// What serves it on its SRT port ([`reader_of`]).
    pub fn reader(&self) -> Option<Arc<OutputCard>> {
        let outputs = self.outputs.read();
        outputs.last_key_value().filter(|(id, _)| is_reader(**id)).map(|(_, reader)| reader.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{InputDraft, OutputDraft, Store};
    use crate::telemetry::State;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn store() -> (Store, Arc<InputSpec>) {
        let mut store = Store::default();
        let input =
            store.create_input(InputDraft { name: "a".into(), ..InputDraft::default() }, NOW).unwrap();
        (store, input)
    }

    fn output(store: &mut Store, name: &str, url: &str) -> Arc<OutputSpec> {
        let draft = OutputDraft {
            name: name.into(),
            url: url.into(),
            protocol: None,
            auto_reconnect: None,
            reconnect_delay: None,
            max_reconnect_attempts: None,
        };
        store.create_output(1, draft, NOW).unwrap()
    }

    #[test]
    fn cards_come_and_go() {
        let (mut store, spec) = store();
        let board = Board::default();
        let early = output(&mut store, "x", "udp://h:1");
        assert!(board.add_output(early.clone(), NOW).is_none(), "its input is not on the board yet");
        let input = board.add_input(spec, NOW);
        let card = board.add_output(early, NOW).unwrap();
        assert_eq!((input.output_count(), board.inputs(0, 9).len(), board.inputs(1, 9).len()), (1, 1, 0));
        card.set_status(Status { state: State::Sending, ..card.status() });
        assert_eq!(board.output(1, 1).unwrap().peek(|status| status.state), State::Sending);
        assert!(board.output(2, 1).is_none() && board.remove_output(1, 2).is_none());
        assert!(board.remove_output(1, 1).is_some() && board.output(1, 1).is_none());
        assert!(board.remove_input(1).is_some() && board.input(1).is_none());
    }

    #[test]
    fn events_are_numbered_over_all_cards() {
        let (mut store, spec) = store();
        let board = Board::default();
        let input = board.add_input(spec, NOW);
        let output = board.add_output(output(&mut store, "x", "udp://h:1"), NOW).unwrap();
        input.card.log(board.event(Level::Info, "a", NOW));
        output.log(board.event(Level::Info, "b", NOW));
        input.card.log(board.event(Level::Info, "c", NOW));
        assert_eq!(input.card.events(9).iter().map(|e| e.id).collect::<Vec<_>>(), [3, 1]);
        assert_eq!(output.events(9).iter().map(|e| e.id).collect::<Vec<_>>(), [2]);
        assert_eq!(input.card.events(1).len(), 1);
    }

    /// Thousands of outputs share the 4 kB that each may cost with all that sends it.
    #[test]
    fn an_output_costs_little() {
        const COUNTS_OF_ARC: usize = 16;
        const MALLOC: usize = 8 + 8;
        // Key and pointer in two trees (store and board), at least half full, and a place in the set of names.
        const INDEX: usize = 2 * 2 * 16 + 2 * 17;
        let (mut store, spec) = store();
        let board = Board::default();
        board.add_input(spec, NOW);
        let url = "udp://239.192.100.200:50000?interface=eth0.1234&ttl=16&dscp=34&delay_ms=20";
        let spec = output(&mut store, "Operations room, wall 12, north", url);
        let card = board.add_output(spec.clone(), NOW).unwrap();
        let messages =
            ["created", "connecting", "sending to 239.192.100.200:50000 from eth0.1234", "Sending"];
        for message in messages {
            card.log(board.event(Level::Info, message, NOW));
        }
        let reason = "sending, peer refuses (ICMP port unreachable)".to_owned();
        card.set_status(Status { last_error: Some(reason.clone()), reason: reason.clone(), ..card.status() });
        let texts =
            [spec.name.len(), url.len(), "239.192.100.200".len(), "eth0.1234".len(), 2 * reason.len()];
        let events = messages.len() * size_of::<Event>() + messages.iter().map(|m| m.len()).sum::<usize>();
        let blocks = 3 * (COUNTS_OF_ARC + MALLOC) + (texts.len() + messages.len() + 2) * MALLOC;
        let own = size_of::<OutputCard>() + size_of::<OutputSpec>() + size_of::<OutputStats>();
        let all = own + texts.iter().sum::<usize>() + events + blocks + INDEX;
        println!("an output on the board: {own} bytes of its own, {all} with texts, events and indexes");
        assert!(all < 1800, "{all} bytes");
    }
}
