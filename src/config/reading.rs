//! The tree of a file and the environment enter, a configuration and every mistake in them leave.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

use super::tree::{Found, Node, Value};
use super::{CONTRACT, Config, ConfigError, InputSeed, KEYS, OutputSeed, PREFIX, Place};
use crate::store::{InputDraft, InputId, OutputDraft, RawUrl, Refusal, Store};

/// A configuration that is being read.
pub(super) struct Reading<'a> {
    path: &'a Path,
    config: Config,
    errors: Vec<ConfigError>,
}

impl<'a> Reading<'a> {
    pub(super) fn new(path: &'a Path) -> Self {
        Self { path, config: Config::default(), errors: Vec::new() }
    }

    /// Reads everything but the inputs, which are returned: they are checked under the rules that come of
    /// the file and the environment.
    pub(super) fn read_keys<'t>(&mut self, tree: &'t Value) -> Option<&'t Node> {
        let entries = match tree {
            Value::Null => return None,
            Value::Map(entries) => entries,
            _ => {
                self.refuse(1, None, "must be a map of keys: see the shipped millrace.yaml".into());
                return None;
            }
        };
        let mut inputs = None;
        for (name, node) in entries {
            let prefix = format!("{name}.");
            if name == INPUTS {
                inputs = Some(node);
            } else if KEYS.iter().any(|key| key.path.starts_with(&prefix)) {
                self.read_section(&prefix, node);
            } else {
                self.read_key(name, node);
            }
        }
        inputs
    }

    /// Reads the variables that are ours and those of the contract; others are not looked at.
    pub(super) fn read_variables(&mut self, variables: impl IntoIterator<Item = (String, String)>) {
        let mut variables: BTreeMap<String, String> = variables.into_iter().collect();
        for (name, key) in CONTRACT {
            // Compose files pass variables on that are set to nothing.
            if let Some(text) = variables.remove(*name).filter(|text| !text.is_empty()) {
                let read = (key.read)(&mut self.config, &Value::Text(text));
                self.check_variable(name, key.path, key.allowed, read);
            }
        }
        for (kind, range) in [("UDP", &self.config.udp_ports), ("SRT", &self.config.srt_ports)] {
            if range.is_empty() {
                let place = Place::Variable(format!("{kind}_PORT_RANGE_START and {kind}_PORT_RANGE_END"));
                let reason =
                    format!("the first port ({}) is behind the last ({})", range.start(), range.end());
                let key = Some(format!("{}_port_range", kind.to_lowercase()));
                self.errors.push(ConfigError { place, key, reason });
            }
        }
        for (name, text) in variables.into_iter().filter(|(name, _)| name.starts_with(PREFIX)) {
            if let Some(key) = KEYS.iter().find(|key| key.variable() == name) {
                let read = (key.read)(&mut self.config, &Value::Text(text));
                self.check_variable(&name, key.path, key.allowed, read);
            } else {
                let known: Vec<String> = KEYS.iter().map(|key| key.variable()).collect();
                let hint = suggest(&name, known.iter().map(String::as_str));
                let place = Place::Variable(name);
                let reason = format!("there is no such variable{hint}");
                self.errors.push(ConfigError { place, key: None, reason });
            }
        }
    }

    /// Reads the inputs and outputs, and lets a store of their own judge them.
    pub(super) fn read_inputs(&mut self, node: &Node) {
        let mut store = Store::new(self.config.rules(), self.config.roots());
        for (index, node) in self.items(INPUTS, node).iter().enumerate() {
            self.read_input(&format!("{INPUTS}[{index}]"), node, &mut store);
        }
    }

    /// The configuration, or every mistake in the order of the file.
    pub(super) fn finish(mut self) -> Result<Config, Vec<ConfigError>> {
        if self.errors.is_empty() {
            return Ok(self.config);
        }
        self.errors.sort_by(|a, b| a.place.cmp(&b.place));
        Err(self.errors)
    }

    fn read_section(&mut self, prefix: &str, node: &Node) {
        match &node.value {
            Value::Null => {}
            Value::Map(entries) => {
                for (name, node) in entries {
                    self.read_key(&format!("{prefix}{name}"), node);
                }
            }
            found => {
                let known = KEYS.iter().filter_map(|key| key.path.strip_prefix(prefix));
                let known = known.collect::<Vec<_>>().join(", ");
                let section = prefix.trim_end_matches('.');
                self.refuse(node.line, Some(section), format!("must be a map of {known}, not {found}"));
            }
        }
    }

    fn read_key(&mut self, path: &str, node: &Node) {
        let Some(key) = KEYS.iter().find(|key| key.path == path) else {
            let hint = suggest(path, KEYS.iter().map(|key| key.path).chain([INPUTS]));
            return self.refuse(node.line, Some(path), format!("there is no such key{hint}"));
        };
        if let Err(found) = (key.read)(&mut self.config, &node.value) {
            self.refuse(node.line, Some(path), format!("must be {}, not {found}", key.allowed));
        }
    }

    fn read_input(&mut self, path: &str, node: &Node, store: &mut Store) {
        let Some(fields) = self.fields(path, node, &["name", "url", "enabled", "outputs"]) else { return };
        let name = self.required(path, node, &fields, "name");
        let url = self.required(path, node, &fields, "url").map(RawUrl::from);
        let enabled = self.optional(path, &fields, "enabled", "true or false", Value::flag).unwrap_or(true);
        let mut input = None;
        let draft = name.zip(url).map(|(name, url)| InputDraft { name, url: Some(url), udp_port: None });
        if let Some(draft) = &draft {
            let made = store.create_input(draft.clone(), SystemTime::UNIX_EPOCH).map(|spec| spec.id);
            input = self.judge(path, node, &fields, made);
        }
        // Outputs of an input that is refused are checked all the same.
        let input = input.or_else(|| stand_in(store, node.line));
        let mut outputs = Vec::new();
        if let (Some(list), Some(input)) = (fields.get("outputs"), input) {
            let path = format!("{path}.outputs");
            for (index, node) in self.items(&path, list).iter().enumerate() {
                outputs.extend(self.read_output(&format!("{path}[{index}]"), node, input, store));
            }
        }
        self.config.inputs.extend(draft.map(|draft| InputSeed { draft, enabled, outputs }));
    }

    fn read_output(
        &mut self,
        path: &str,
        node: &Node,
        input: InputId,
        store: &mut Store,
    ) -> Option<OutputSeed> {
        const KNOWN: [&str; 6] =
            ["name", "url", "enabled", "auto_reconnect", "reconnect_delay", "max_reconnect_attempts"];
        let fields = self.fields(path, node, &KNOWN)?;
        let (flag, number) = ("true or false", "a whole number");
        let whole = |value: &Value| value.whole(i64::MIN..=i64::MAX);
        let name = self.required(path, node, &fields, "name");
        let url = self.required(path, node, &fields, "url").map(RawUrl::from);
        let enabled = self.optional(path, &fields, "enabled", flag, Value::flag).unwrap_or(true);
        let auto_reconnect = self.optional(path, &fields, "auto_reconnect", flag, Value::flag);
        let reconnect_delay = self.optional(path, &fields, "reconnect_delay", number, whole);
        let max_reconnect_attempts = self.optional(path, &fields, "max_reconnect_attempts", number, whole);
        let (name, url) = name.zip(url)?;
        let draft = OutputDraft {
            name,
            url,
            protocol: None,
            auto_reconnect,
            reconnect_delay,
            max_reconnect_attempts,
        };
        let made = store.create_output(input, draft.clone(), SystemTime::UNIX_EPOCH);
        self.judge(path, node, &fields, made)?;
        Some(OutputSeed { draft, enabled })
    }

    fn items<'t>(&mut self, path: &str, node: &'t Node) -> &'t [Node] {
        match &node.value {
            Value::Null => {}
            Value::List(nodes) => return nodes,
            found => self.refuse(node.line, Some(path), format!("must be a list, not {found}")),
        }
        &[]
    }

    /// The keys of one input or output. Those without a value are left out: they say nothing.
    fn fields<'t>(&mut self, path: &str, node: &'t Node, known: &[&'static str]) -> Option<Fields<'t>> {
        let Value::Map(entries) = &node.value else {
            let reason = format!("must be a map of {}, not {}", known.join(", "), node.value);
            self.refuse(node.line, Some(path), reason);
            return None;
        };
        let mut fields = Fields::new();
        for (name, node) in entries {
            let Some(known) = known.iter().find(|known| *known == name) else {
                let hint = suggest(name, known.iter().copied());
                let reason = format!("there is no such key{hint}; known are {}", known.join(", "));
                self.refuse(node.line, Some(&format!("{path}.{name}")), reason);
                continue;
            };
            if node.value != Value::Null {
                fields.insert(known, node);
            }
        }
        Some(fields)
    }

    fn required(&mut self, path: &str, node: &Node, fields: &Fields<'_>, name: &str) -> Option<String> {
        if !fields.contains_key(name) {
            self.refuse(node.line, Some(&format!("{path}.{name}")), "is missing".into());
        }
        self.optional(path, fields, name, "text", |value| value.text().map(str::to_owned))
    }

    fn optional<T>(
        &mut self,
        path: &str,
        fields: &Fields<'_>,
        name: &str,
        allowed: &str,
        read: impl Fn(&Value) -> Result<T, Found>,
    ) -> Option<T> {
        let node = fields.get(name)?;
        match read(&node.value) {
            Ok(value) => Some(value),
            Err(found) => {
                let reason = format!("must be {allowed}, not {found}");
                self.refuse(node.line, Some(&format!("{path}.{name}")), reason);
                None
            }
        }
    }

    /// Puts what the store refuses on the line of the field that it names.
    fn judge<T>(
        &mut self,
        path: &str,
        node: &Node,
        fields: &Fields<'_>,
        made: Result<T, Refusal>,
    ) -> Option<T> {
        match made {
            Ok(made) => return Some(made),
            Err(Refusal::Invalid(errors)) => {
                for error in errors {
                    let line = fields.get(&*error.field).map_or(node.line, |node| node.line);
                    self.refuse(line, Some(&format!("{path}.{}", error.field)), error.msg);
                }
            }
            Err(refusal) => self.refuse(node.line, Some(path), refusal.to_string()),
        }
        None
    }

    fn check_variable(&mut self, name: &str, key: &str, allowed: &str, read: Result<(), Found>) {
        if let Err(found) = read {
            let place = Place::Variable(name.into());
            let reason = format!("must be {allowed}, not {found}");
            self.errors.push(ConfigError { place, key: Some(key.into()), reason });
        }
    }

    fn refuse(&mut self, line: u64, key: Option<&str>, reason: String) {
        let place = Place::File(self.path.into(), Some(line));
        self.errors.push(ConfigError { place, key: key.map(str::to_owned), reason });
    }
}

type Fields<'t> = BTreeMap<&'static str, &'t Node>;

fn stand_in(store: &mut Store, line: u64) -> Option<InputId> {
    let draft = InputDraft {
        name: format!("the input of line {line}"),
        url: Some("udp://127.0.0.1:1".into()),
        udp_port: None,
    };
    store.create_input(draft, SystemTime::UNIX_EPOCH).ok().map(|spec| spec.id)
}

/// The known word that is nearest to a wrong one, if any is near.
fn suggest<'k>(wrong: &str, known: impl Iterator<Item = &'k str>) -> String {
    let last = |path: &str| path.rsplit('.').next().map(str::to_owned);
    let nearest = known
        .map(|known| {
            // A key that was put into the wrong section is as near as it gets.
            let misplaced = last(known) == last(wrong);
            (if misplaced { 0 } else { distance(wrong, known) }, known)
        })
        .min();
    match nearest {
        Some((distance, known)) if distance <= 1 + wrong.len() / 5 => format!(", did you mean {known}?"),
        _ => String::new(),
    }
}

/// How many letters have to be changed, put in or taken out to make one word the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, to) in row.iter_mut().skip(1).zip(b.chars()) {
            let cost = (diagonal + usize::from(from != to)).min(left + 1).min(*cell + 1);
            diagonal = std::mem::replace(cell, cost);
            left = cost;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

const INPUTS: &str = "inputs";
