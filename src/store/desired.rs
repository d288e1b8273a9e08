//! Drafts and patches enter, specs leave: which inputs and outputs there shall be. A write is checked whole
//! before anything changes. Kept in memory; starts nothing.

use std::collections::{BTreeMap, HashSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::SystemTime;

use super::paths::Roots;
use super::redact::RawUrl;
use super::refusal::{FieldError, Refusal};
use super::spec::{InputUrl, OutputUrl, Protocol};
use crate::telemetry::Desired;

/// Number of an input; counts from 1 and is never used again.
pub type InputId = u64;
/// Number of an output, over all inputs; counts from 1 and is never used again.
pub type OutputId = u64;

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
}

impl Default for Rules {
    fn default() -> Self {
        Self { udp_ports: 5000..=5100, max_outputs_per_input: None, reconnect_delay: 5, max_reconnect_attempts: 0 }
    }
}

/// An input as it shall be. Never changes: a write makes a new one.
#[derive(Debug, Clone)]
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
    /// Name for urls, made from the first name and kept when the input is renamed.
    pub mediamtx_path: String,
    /// What the operator asked for.
    pub desired: Desired,
    /// When it was made.
    pub created_at: SystemTime,
    /// When it was last changed.
    pub updated_at: SystemTime,
}

/// An output as it shall be. Never changes: a write makes a new one.
#[derive(Debug, Clone)]
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
    /// Word of [`Protocol`]; `None` = as the url says.
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
    /// Word of [`Protocol`] that the url must agree with.
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

/// All inputs and their outputs, as they shall be.
#[derive(Debug, Default)]
pub struct Store {
    rules: Rules,
    roots: Roots,
    inputs: BTreeMap<InputId, Entry>,
    last_input: InputId,
    last_output: OutputId,
}

impl Store {
    /// An empty store. Paths of `file:` urls must lie in `roots`.
    pub fn new(rules: Rules, roots: Roots) -> Self {
        Self { rules, roots, ..Self::default() }
    }

    /// Every input, oldest first.
    pub fn inputs(&self) -> impl Iterator<Item = &Arc<InputSpec>> {
        self.inputs.values().map(|entry| &entry.spec)
    }

    /// One input.
    pub fn input(&self, id: InputId) -> Option<&Arc<InputSpec>> {
        self.inputs.get(&id).map(|entry| &entry.spec)
    }

    /// Every output of an input, oldest first; nothing for an unknown input.
    pub fn outputs(&self, input: InputId) -> impl Iterator<Item = &Arc<OutputSpec>> {
        self.inputs.get(&input).into_iter().flat_map(|entry| entry.outputs.values())
    }

    /// One output of that input.
    pub fn output(&self, input: InputId, id: OutputId) -> Option<&Arc<OutputSpec>> {
        self.inputs.get(&input)?.outputs.get(&id)
    }

    /// Makes an input that shall run. Conflict: name taken, port taken, none free or outside the range.
    pub fn create_input(&mut self, draft: InputDraft, now: SystemTime) -> Result<Arc<InputSpec>, Refusal> {
        let mut errors = Vec::new();
        let name = keep(&mut errors, check_name(&draft.name));
        let url = draft.url.map(|raw| (keep(&mut errors, self.check_input_url(&raw)), raw));
        let range = || number("udp_port", draft.udp_port, 1024..=65_535);
        let port = keep(&mut errors, range()).flatten();
        if url.is_some() && draft.udp_port.is_some() {
            errors.push(FieldError::value("udp_port", "give url or udp_port, not both"));
        }
        let Some(name) = name.filter(|_| errors.is_empty()) else { return Err(Refusal::Invalid(errors)) };
        self.check_input_name(&name, None)?;
        let (raw_url, url, udp_port) = match url {
            Some((Some(url), raw_url)) => (raw_url, url, None),
            _ => {
                let port = self.allocate(port)?;
                let raw_url = RawUrl::from(format!("udp://0.0.0.0:{port}"));
                let url = InputUrl::parse(raw_url.reveal())?;
                (raw_url, url, Some(port))
            }
        };
        self.last_input += 1;
        let spec = Arc::new(InputSpec {
            id: self.last_input,
            mediamtx_path: self.derive_path(&name),
            name,
            raw_url,
            url,
            udp_port,
            desired: Desired::Running,
            created_at: now,
            updated_at: now,
        });
        let entry = Entry { spec: spec.clone(), outputs: BTreeMap::new(), names: HashSet::new() };
        self.inputs.insert(spec.id, entry);
        Ok(spec)
    }

    /// Changes an input. Conflict: name taken.
    pub fn patch_input(
        &mut self,
        id: InputId,
        patch: InputPatch,
        now: SystemTime,
    ) -> Result<Change<InputSpec>, Refusal> {
        let mut errors = Vec::new();
        let name = patch.name.and_then(|name| keep(&mut errors, check_name(&name)));
        let url = patch.url.and_then(|raw| Some((keep(&mut errors, self.check_input_url(&raw))?, raw)));
        if !errors.is_empty() {
            return Err(Refusal::Invalid(errors));
        }
        let before = self.input(id).ok_or_else(no_input)?.clone();
        let mut after = InputSpec::clone(&before);
        if let Some(name) = name {
            self.check_input_name(&name, Some(id))?;
            after.name = name;
        }
        if let Some((url, raw_url)) = url
            && raw_url != after.raw_url
        {
            (after.raw_url, after.url, after.udp_port) = (raw_url, url, None);
        }
        let changed = after.name != before.name || after.raw_url != before.raw_url;
        self.replace_input(before, after, changed, now)
    }

    /// Says whether an input shall run.
    pub fn set_input_desired(
        &mut self,
        id: InputId,
        desired: Desired,
        now: SystemTime,
    ) -> Result<Change<InputSpec>, Refusal> {
        let before = self.input(id).ok_or_else(no_input)?.clone();
        let after = InputSpec { desired, ..InputSpec::clone(&before) };
        let changed = desired != before.desired;
        self.replace_input(before, after, changed, now)
    }

    /// Takes an input and all its outputs out, and returns them.
    pub fn delete_input(&mut self, id: InputId) -> Result<(Arc<InputSpec>, Vec<Arc<OutputSpec>>), Refusal> {
        let entry = self.inputs.remove(&id).ok_or_else(no_input)?;
        Ok((entry.spec, entry.outputs.into_values().collect()))
    }

    /// Makes an output that shall run. Conflict: no such input, name taken, too many outputs.
    pub fn create_output(
        &mut self,
        input: InputId,
        draft: OutputDraft,
        now: SystemTime,
    ) -> Result<Arc<OutputSpec>, Refusal> {
        let settings = self.check_output(OutputPatch {
            name: Some(draft.name),
            url: Some(draft.url),
            protocol: draft.protocol,
            auto_reconnect: draft.auto_reconnect,
            reconnect_delay: draft.reconnect_delay,
            max_reconnect_attempts: draft.max_reconnect_attempts,
        })?;
        let (rules, id) = (&self.rules, self.last_output + 1);
        let Some(entry) = self.inputs.get_mut(&input) else {
            return Err(Refusal::Conflict(format!("Input {input} not found")));
        };
        if let Some(max) = rules.max_outputs_per_input.filter(|max| entry.outputs.len() >= *max) {
            return Err(Refusal::Conflict(format!("Maximum {max} outputs per input reached")));
        }
        let (Some(name), Some((url, raw_url))) = (settings.name, settings.url) else {
            return Err(FieldError::new("url", "missing", "Field required").into());
        };
        entry.check_name(&name)?;
        let spec = Arc::new(OutputSpec {
            id,
            input_id: input,
            name,
            raw_url,
            url,
            auto_reconnect: settings.auto_reconnect.unwrap_or(true),
            reconnect_delay: settings.reconnect_delay.unwrap_or(rules.reconnect_delay),
            max_reconnect_attempts: settings.max_reconnect_attempts.unwrap_or(rules.max_reconnect_attempts),
            desired: Desired::Running,
            created_at: now,
            updated_at: now,
        });
        self.last_output = id;
        entry.names.insert(spec.name.clone());
        entry.outputs.insert(id, spec.clone());
        Ok(spec)
    }

    /// Changes an output. Conflict: name taken.
    pub fn patch_output(
        &mut self,
        input: InputId,
        id: OutputId,
        patch: OutputPatch,
        now: SystemTime,
    ) -> Result<Change<OutputSpec>, Refusal> {
        let protocol = patch.protocol.clone();
        let settings = self.check_output(patch)?;
        let before = self.output(input, id).ok_or_else(no_output)?.clone();
        let mut after = OutputSpec::clone(&before);
        if let Some((url, raw_url)) = settings.url {
            (after.url, after.raw_url) = (url, raw_url);
        } else if let Some(word) = protocol {
            check_protocol(&word, Some(&after.url))?;
        }
        after.auto_reconnect = settings.auto_reconnect.unwrap_or(after.auto_reconnect);
        after.reconnect_delay = settings.reconnect_delay.unwrap_or(after.reconnect_delay);
        after.max_reconnect_attempts = settings.max_reconnect_attempts.unwrap_or(after.max_reconnect_attempts);
        if let Some(name) = settings.name.filter(|name| *name != after.name) {
            self.inputs.get(&input).ok_or_else(no_output)?.check_name(&name)?;
            after.name = name;
        }
        self.replace_output(before, after, now)
    }

    /// Says whether an output shall run.
    pub fn set_output_desired(
        &mut self,
        input: InputId,
        id: OutputId,
        desired: Desired,
        now: SystemTime,
    ) -> Result<Change<OutputSpec>, Refusal> {
        let before = self.output(input, id).ok_or_else(no_output)?.clone();
        let after = OutputSpec { desired, ..OutputSpec::clone(&before) };
        self.replace_output(before, after, now)
    }

    /// Takes an output out, and returns it.
    pub fn delete_output(&mut self, input: InputId, id: OutputId) -> Result<Arc<OutputSpec>, Refusal> {
        let entry = self.inputs.get_mut(&input).ok_or_else(no_output)?;
        let spec = entry.outputs.remove(&id).ok_or_else(no_output)?;
        entry.names.remove(&spec.name);
        Ok(spec)
    }
