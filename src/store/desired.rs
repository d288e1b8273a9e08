//! Drafts and patches enter, specs leave: which inputs and outputs there shall be. A write is checked whole
//! before anything changes. Kept in memory; starts nothing.

use std::collections::{BTreeMap, HashSet};
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::check::{check_name, check_protocol, keep, number};
use super::conflict::{Claim, Purpose};
use super::object::{
    Change, InputDraft, InputId, InputPatch, InputSpec, OutputDraft, OutputId, OutputPatch, OutputSpec,
    Rules, is_reader, reader_of,
};
use super::paths::Roots;
use super::redact::{RawUrl, restore};
use super::refusal::{FieldError, Refusal};
use super::spec::{InputUrl, OutputUrl};
use super::srt::SrtLink;
use super::tak::{CotEnd, CotOutput, Shown};
use super::tls::TlsTrust;
use crate::telemetry::Desired;

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

    /// Every output of an input, oldest first, and last its [`reader_of`]; nothing for an unknown input.
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
        let url = draft.url.map(|raw| keep(&mut errors, self.check_input_url(raw, None)));
        let range = || number("udp_port", draft.udp_port, 1024..=65_535);
        let port = keep(&mut errors, range()).flatten();
        if url.is_some() && draft.udp_port.is_some() {
            errors.push(FieldError::value("udp_port", "give url or udp_port, not both"));
        }
        let Some(name) = name.filter(|_| errors.is_empty()) else { return Err(Refusal::Invalid(errors)) };
        self.check_input_name(&name, None)?;
        let mediamtx_path = self.derive_path(&name);
        let (url, raw_url, udp_port, srt_port) = match url {
            Some(Some((url, raw_url))) => {
                self.check_claim(Claim::of_input(&url, &mediamtx_path), None)?;
                (url, raw_url, None, None)
            }
            _ => {
                let port = self.allocate(port)?;
                let raw_url = RawUrl::from(format!("udp://0.0.0.0:{port}"));
                (InputUrl::parse(raw_url.reveal())?, raw_url, Some(port), self.allocate_srt()?)
            }
        };
        let id = self.last_input + 1;
        let reader = srt_port.map(|port| self.reader(id, port, now)).transpose()?;
        self.last_input = id;
        let spec = Arc::new(InputSpec {
            id,
            name,
            raw_url,
            url,
            udp_port,
            srt_port,
            mediamtx_path,
            desired: Desired::Running,
            created_at: now,
            updated_at: now,
        });
        let outputs = reader.into_iter().map(|reader| (reader.id, reader)).collect();
        self.inputs.insert(id, Entry { spec: spec.clone(), outputs, names: HashSet::new() });
        Ok(spec)
    }

    /// Changes an input; where it had ports of its own and gets a url, they and its [`reader_of`] are gone. Conflict:
    /// name taken.
    pub fn patch_input(
        &mut self,
        id: InputId,
        patch: InputPatch,
        now: SystemTime,
    ) -> Result<Change<InputSpec>, Refusal> {
        let before = self.input(id).ok_or_else(no_input)?.clone();
        let mut errors = Vec::new();
        let name = patch.name.and_then(|name| keep(&mut errors, check_name(&name)));
        let stored = Some(&before.raw_url);
        let url = patch.url.and_then(|raw| keep(&mut errors, self.check_input_url(raw, stored)));
        if !errors.is_empty() {
            return Err(Refusal::Invalid(errors));
        }
        let mut after = InputSpec::clone(&before);
        if let Some(name) = name {
            self.check_input_name(&name, Some(id))?;
            after.name = name;
        }
        let mut reader = None;
        if let Some((url, raw_url)) = url
            && raw_url != after.raw_url
        {
            self.check_claim(Claim::of_input(&url, &after.mediamtx_path), Some(Own::Input(id)))?;
            (after.raw_url, after.url, after.udp_port) = (raw_url, url, None);
            reader = after.srt_port.take().map(|_| reader_of(id));
        }
        if let (Some(reader), Some(entry)) = (reader, self.inputs.get_mut(&id)) {
            entry.outputs.remove(&reader);
        }
        self.replace_input(before, after, now)
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
        self.replace_input(before, after, now)
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
        let patch = OutputPatch {
            name: Some(draft.name),
            url: Some(draft.url),
            protocol: draft.protocol,
            auto_reconnect: draft.auto_reconnect,
            reconnect_delay: draft.reconnect_delay,
            max_reconnect_attempts: draft.max_reconnect_attempts,
        };
        let settings = self.check_output(patch, None)?;
        let (rules, id) = (&self.rules, self.last_output + 1);
        let Some(entry) = self.inputs.get(&input) else {
            return Err(Refusal::Conflict(format!("Input {input} not found")));
        };
        if let Some(max) = rules.max_outputs_per_input.filter(|max| entry.names.len() >= *max) {
            return Err(Refusal::Conflict(format!("Maximum {max} outputs per input reached")));
        }
        let (Some(name), Some((url, raw_url))) = (settings.name, settings.url) else {
            return Err(FieldError::new("url", "missing", "Field required").into());
        };
        entry.check_name(&name)?;
        self.check_claim(Claim::of_output(&url, &entry.spec.mediamtx_path, &self.roots), None)?;
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
        let entry = self.inputs.get_mut(&input).ok_or_else(no_input)?;
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
        let before = self.own_output(input, id)?.clone();
        let protocol = patch.protocol.clone();
        let settings = self.check_output(patch, Some(&before.raw_url))?;
        let mut after = OutputSpec::clone(&before);
        if let Some((url, raw_url)) = settings.url {
            if url != after.url {
                let name = self.input(input).map_or("", |input| input.mediamtx_path.as_str());
                self.check_claim(Claim::of_output(&url, name, &self.roots), Some(Own::Output(id)))?;
            }
            (after.url, after.raw_url) = (url, raw_url);
        } else if let Some(word) = protocol {
            check_protocol(&word, Some(&after.url))?;
        }
        after.auto_reconnect = settings.auto_reconnect.unwrap_or(after.auto_reconnect);
        after.reconnect_delay = settings.reconnect_delay.unwrap_or(after.reconnect_delay);
        after.max_reconnect_attempts =
            settings.max_reconnect_attempts.unwrap_or(after.max_reconnect_attempts);
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
        let before = self.own_output(input, id)?.clone();
        let after = OutputSpec { desired, ..OutputSpec::clone(&before) };
        self.replace_output(before, after, now)
    }

    /// Takes an output out, and returns it.
    pub fn delete_output(&mut self, input: InputId, id: OutputId) -> Result<Arc<OutputSpec>, Refusal> {
        let spec = self.own_output(input, id)?.clone();
        let entry = self.inputs.get_mut(&input).ok_or_else(no_output)?;
        entry.outputs.remove(&id);
        entry.names.remove(&spec.name);
        Ok(spec)
    }

    /// An output that may be changed.
    fn own_output(&self, input: InputId, id: OutputId) -> Result<&Arc<OutputSpec>, Refusal> {
        self.output(input, id).filter(|_| !is_reader(id)).ok_or_else(no_output)
    }

    fn check_input_url(
        &self,
        raw: RawUrl,
        stored: Option<&RawUrl>,
    ) -> Result<(InputUrl, RawUrl), FieldError> {
        let raw = restore(raw, stored)?;
        let url = InputUrl::parse(raw.reveal())?;
        match &url {
            InputUrl::File(file) => self.check_path(&file.path)?,
            InputUrl::Srt(srt) => self.check_latency(&srt.link)?,
            InputUrl::Rtmp(rtmp) => self.check_trust(rtmp.dial().and_then(|dial| dial.tls.as_ref()))?,
            InputUrl::Rtsp(rtsp) => self.check_trust(rtsp.end.dial().and_then(|dial| dial.tls.as_ref()))?,
            InputUrl::Udp(_) | InputUrl::Rtp(_) => {}
        }
        Ok((url, raw))
    }

    fn check_output_url(
        &self,
        raw: RawUrl,
        stored: Option<&RawUrl>,
    ) -> Result<(OutputUrl, RawUrl), FieldError> {
        let raw = restore(raw, stored)?;
        let url = OutputUrl::parse(raw.reveal())?;
        match &url {
            OutputUrl::File(file) => self.check_path(&file.path)?,
            OutputUrl::Srt(srt) => self.check_latency(&srt.link)?,
            OutputUrl::Rtmp(rtmp) => self.check_trust(rtmp.dial.tls.as_ref())?,
            OutputUrl::Rtsp(rtsp) => self.check_trust(rtsp.end.dial().and_then(|dial| dial.tls.as_ref()))?,
            OutputUrl::Cot(cot) => self.check_cot(cot)?,
            OutputUrl::Udp(_) | OutputUrl::Rtp(_) | OutputUrl::Klv(_) => {}
        }
        Ok((url, raw))
    }

    /// Certificates and packages are read inside the roots, like every file that a url names.
    fn check_cot(&self, cot: &CotOutput) -> Result<(), FieldError> {
        let CotEnd::Tls(tls) = &cot.end else { return Ok(()) };
        self.check_trust(tls.trust.as_ref())?;
        match &tls.shown {
            Shown::Nothing => Ok(()),
            Shown::Pem { chain, key } => {
                self.check_path(chain)?;
                key.as_deref().map_or(Ok(()), |key| self.check_path(key))
            }
            Shown::Pkcs12 { path, .. } | Shown::Package { path, .. } => self.check_path(path),
        }
    }

    /// Authorities are read inside the roots, like every file that a url names.
    fn check_trust(&self, trust: Option<&TlsTrust>) -> Result<(), FieldError> {
        match trust {
            Some(TlsTrust::Authorities(path)) => self.check_path(path),
            _ => Ok(()),
        }
    }

    fn check_path(&self, path: &Path) -> Result<(), FieldError> {
        self.roots.check(path).map_err(|error| FieldError::value("url", error.to_string()))
    }

    /// What the receiver may still ask for must still be there.
    fn check_latency(&self, link: &SrtLink) -> Result<(), FieldError> {
        let (latency, lane) = (link.latency(), self.rules.lane);
        if latency + RETRANSMITS <= lane {
            return Ok(());
        }
        let msg = format!(
            "a latency of {} ms and 1 s for retransmits do not fit into the {} s of a stream that are kept: lower the \
             latency (it is in milliseconds) or raise lane.max_seconds",
            latency.as_millis(),
            lane.as_secs()
        );
        Err(FieldError::value("url", msg))
    }

    /// Nobody else holds what an object needs.
    fn check_claim(&self, claim: Option<Claim<'_>>, own: Option<Own>) -> Result<(), FieldError> {
        let Some(claim) = claim else { return Ok(()) };
        for Entry { spec: input, outputs, .. } in self.inputs.values() {
            let mut clash = None;
            if own != Some(Own::Input(input.id))
                && let Some(other) = Claim::of_input(&input.url, &input.mediamtx_path)
            {
                clash = claim.clash(&other, || format!("input '{}'", input.name));
            }
            let mut others = outputs.values().filter(|output| own != Some(Own::Output(output.id)));
            let clash = clash.or_else(|| {
                others.find_map(|output| {
                    let other = Claim::of_output(&output.url, &input.mediamtx_path, &self.roots)?;
                    claim.clash(&other, || format!("output '{}' of input '{}'", output.name, input.name))
                })
            });
            if let Some(clash) = clash {
                return Err(FieldError::value("url", clash));
            }
        }
        Ok(())
    }

    /// What serves an input over SRT on that port.
    fn reader(&self, input: InputId, port: u16, now: SystemTime) -> Result<Arc<OutputSpec>, FieldError> {
        let raw_url = RawUrl::from(format!("srt://0.0.0.0:{port}?mode=listener"));
        Ok(Arc::new(OutputSpec {
            id: reader_of(input),
            input_id: input,
            name: format!("SRT port {port}").into(),
            url: OutputUrl::parse(raw_url.reveal())?,
            raw_url,
            auto_reconnect: true,
            reconnect_delay: self.rules.reconnect_delay,
            max_reconnect_attempts: 0,
            desired: Desired::Running,
            created_at: now,
            updated_at: now,
        }))
    }

    fn check_input_name(&self, name: &str, own: Option<InputId>) -> Result<(), Refusal> {
        if self.inputs().any(|spec| *spec.name == *name && Some(spec.id) != own) {
            return Err(Refusal::Conflict(format!("Input with name '{name}' already exists")));
        }
        Ok(())
    }

    fn check_output(&self, patch: OutputPatch, stored: Option<&RawUrl>) -> Result<Settings, Refusal> {
        let mut errors = Vec::new();
        let name = patch.name.and_then(|name| keep(&mut errors, check_name(&name)));
        let url = patch.url.and_then(|raw| keep(&mut errors, self.check_output_url(raw, stored)));
        if let Some(word) = patch.protocol {
            keep(&mut errors, check_protocol(&word, url.as_ref().map(|(url, _)| url)));
        }
        let delay = keep(&mut errors, number("reconnect_delay", patch.reconnect_delay, 1..=300)).flatten();
        let attempts = number("max_reconnect_attempts", patch.max_reconnect_attempts, 0..=u32::MAX);
        let attempts = keep(&mut errors, attempts).flatten();
        if !errors.is_empty() {
            return Err(Refusal::Invalid(errors));
        }
        let auto_reconnect = patch.auto_reconnect;
        Ok(Settings { name, url, auto_reconnect, reconnect_delay: delay, max_reconnect_attempts: attempts })
    }

    /// The port asked for, or the first free one. Ports of inputs with a url of their own are taken too.
    fn allocate(&self, asked: Option<u16>) -> Result<u16, Refusal> {
        let taken: HashSet<u16> = self.inputs().filter_map(|spec| spec.url.udp_port()).collect();
        let is_free = |port: &u16| !taken.contains(port) && self.is_free(*port, Purpose::Datagrams);
        let range = &self.rules.udp_ports;
        match asked {
            Some(port) if !is_free(&port) => Err(Refusal::Conflict(format!("Port {port} is already in use"))),
            Some(port) if !range.contains(&port) => Err(Refusal::Conflict(format!(
                "Port {port} is outside allowed range {}-{}; give a url (udp://0.0.0.0:{port}) to use it",
                range.start(),
                range.end()
            ))),
            Some(port) => Ok(port),
            None => range
                .clone()
                .find(is_free)
                .ok_or_else(|| Refusal::Conflict("No available UDP ports in configured range".into())),
        }
    }

    /// The first port that nobody else has anything to do with; `None` where inputs are not served.
    fn allocate_srt(&self) -> Result<Option<u16>, Refusal> {
        let Some(range) = self.rules.srt_ports.clone() else { return Ok(None) };
        let mut free = range.filter(|port| self.is_free(*port, Purpose::Alone));
        let none = || Refusal::Conflict("No available SRT ports in configured range".into());
        free.next().map(Some).ok_or_else(none)
    }

    fn is_free(&self, port: u16, purpose: Purpose<'_>) -> bool {
        let address = Ipv4Addr::UNSPECIFIED.into();
        self.check_claim(Some(Claim::Port { address, port, purpose }), None).is_ok()
    }

    fn derive_path(&self, name: &str) -> String {
        let lower = name.to_lowercase().replace([' ', '-'], "_");
        let base: String = lower.chars().filter(|c| c.is_alphanumeric() || *c == '_').collect();
        let base = if base.is_empty() { "input".into() } else { base };
        let taken: HashSet<&str> = self.inputs().map(|spec| spec.mediamtx_path.as_str()).collect();
        let numbered = (1..).map(|n: u64| format!("{base}_{n}"));
        let free = std::iter::once(base.clone()).chain(numbered).find(|path| !taken.contains(path.as_str()));
        free.unwrap_or(base)
    }

    fn replace_input(
        &mut self,
        before: Arc<InputSpec>,
        mut after: InputSpec,
        now: SystemTime,
    ) -> Result<Change<InputSpec>, Refusal> {
        if after == *before {
            return Ok(Change { after: before.clone(), before });
        }
        after.updated_at = now;
        let after = Arc::new(after);
        self.inputs.get_mut(&after.id).ok_or_else(no_input)?.spec = after.clone();
        Ok(Change { before, after })
    }

    fn replace_output(
        &mut self,
        before: Arc<OutputSpec>,
        mut after: OutputSpec,
        now: SystemTime,
    ) -> Result<Change<OutputSpec>, Refusal> {
        if after == *before {
            return Ok(Change { after: before.clone(), before });
        }
        after.updated_at = now;
        let after = Arc::new(after);
        let entry = self.inputs.get_mut(&after.input_id).ok_or_else(no_output)?;
        entry.names.remove(&before.name);
        entry.names.insert(after.name.clone());
        entry.outputs.insert(after.id, after.clone());
        Ok(Change { before, after })
    }
}

/// Whose own claim is no conflict.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Own {
    Input(InputId),
    Output(OutputId),
}

/// One input with its outputs.
#[derive(Debug)]
struct Entry {
    spec: Arc<InputSpec>,
    outputs: BTreeMap<OutputId, Arc<OutputSpec>>,
    /// Names of the outputs: an input may have thousands.
    names: HashSet<Arc<str>>,
}

impl Entry {
    fn check_name(&self, name: &str) -> Result<(), Refusal> {
        if self.names.contains(name) {
            return Err(Refusal::Conflict(format!(
                "Output with name '{name}' already exists for this input"
            )));
        }
        Ok(())
    }
}

/// An [`OutputPatch`], checked.
struct Settings {
    name: Option<Arc<str>>,
    url: Option<(OutputUrl, RawUrl)>,
    auto_reconnect: Option<bool>,
    reconnect_delay: Option<u16>,
    max_reconnect_attempts: Option<u32>,
}

fn no_input() -> Refusal {
    Refusal::NotFound("Input not found".into())
}

fn no_output() -> Refusal {
    Refusal::NotFound("Output not found".into())
}

/// What is sent again must lie so far behind the latency at most.
const RETRANSMITS: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Protocol;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn input(name: &str) -> InputDraft {
        InputDraft { name: name.into(), ..InputDraft::default() }
    }

    fn output(name: &str) -> OutputDraft {
        OutputDraft {
            name: name.into(),
            url: "udp://10.0.0.1:6000?ttl=4".into(),
            protocol: None,
            auto_reconnect: None,
            reconnect_delay: None,
            max_reconnect_attempts: None,
        }
    }

    fn store_with(names: &[&str]) -> Store {
        let mut store = Store::default();
        for name in names {
            store.create_input(input(name), at(1)).unwrap();
        }
        store
    }

    /// What a refused write must leave as it was.
    fn picture(store: &Store) -> String {
        format!("{:?} {} {}", store.inputs, store.last_input, store.last_output)
    }

    fn fields(refusal: Refusal) -> Vec<(String, &'static str)> {
        match refusal {
            Refusal::Invalid(errors) => errors.into_iter().map(|e| (e.field.into_owned(), e.kind)).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn ports_are_allocated_and_freed() {
        let mut store = store_with(&["a"]);
        let own = InputDraft { url: Some("udp://239.1.1.1:5001".into()), ..input("b") };
        let own = store.create_input(own, at(1)).unwrap();
        assert_eq!((own.udp_port, own.id, own.mediamtx_path.as_str()), (None, 2, "b"));
        let third = store.create_input(input("c"), at(1)).unwrap();
        assert_eq!((third.udp_port, third.raw_url.reveal()), (Some(5002), "udp://0.0.0.0:5002"));
        store.delete_input(1).unwrap();
        let fourth = store.create_input(input("d"), at(1)).unwrap();
        assert_eq!((fourth.udp_port, fourth.id), (Some(5000), 4));
        let asked = |port| InputDraft { udp_port: Some(port), ..input("e") };
        let mut refused = |port| store.create_input(asked(port), at(1)).unwrap_err();
        assert_eq!(refused(5001), Refusal::Conflict("Port 5001 is already in use".into()));
        assert!(
            matches!(refused(6000), Refusal::Conflict(m) if m.contains("outside allowed range 5000-5100"))
        );
        assert_eq!(fields(refused(80)), [("udp_port".into(), "greater_than_equal")]);
        assert_eq!(fields(refused(65_536)), [("udp_port".into(), "less_than_equal")]);
        for n in 0..98 {
            store.create_input(input(&format!("n{n}")), at(1)).unwrap();
        }
        let full = Refusal::Conflict("No available UDP ports in configured range".into());
        assert_eq!(store.create_input(input("last"), at(1)).unwrap_err(), full);
    }

    #[test]
    fn paths_are_derived_from_names() {
        let mut store = store_with(&["Camera-1 North!", "camera 1 north", "CAMERA_1_NORTH", "!!", "??"]);
        let paths: Vec<_> = store.inputs().map(|spec| spec.mediamtx_path.as_str()).collect();
        assert_eq!(paths, ["camera_1_north", "camera_1_north_1", "camera_1_north_2", "input", "input_1"]);
        let patch = InputPatch { name: Some("South".into()), url: None };
        assert_eq!(store.patch_input(1, patch, at(2)).unwrap().after.mediamtx_path, "camera_1_north");
    }

    #[test]
    fn inputs_change_only_as_far_as_they_are_patched() {
        let mut store = store_with(&["a", "b"]);
        let change = store.patch_input(1, InputPatch::default(), at(9)).unwrap();
        assert_eq!((change.after.updated_at, Arc::ptr_eq(&change.before, &change.after)), (at(1), true));
        let same = InputPatch { name: Some("a".into()), url: Some("udp://0.0.0.0:5000".into()) };
        assert_eq!(store.patch_input(1, same, at(9)).unwrap().after.udp_port, Some(5000));
        let other = InputPatch { name: Some("c".into()), url: Some("rtp://:5000".into()) };
        let after = store.patch_input(1, other, at(9)).unwrap().after;
        assert_eq!((&*after.name, after.udp_port, after.updated_at), ("c", None, at(9)));
        assert_eq!((after.created_at, store.input(1)), (at(1), Some(&after)));
        let change = store.set_input_desired(1, Desired::Stopped, at(10)).unwrap();
        assert_eq!((change.before.desired, change.after.desired), (Desired::Running, Desired::Stopped));
        assert_eq!(store.set_input_desired(1, Desired::Stopped, at(11)).unwrap().after.updated_at, at(10));
    }

    #[test]
    fn outputs_take_the_rules_where_they_say_nothing() {
        let rules = Rules { reconnect_delay: 7, max_reconnect_attempts: 3, ..Rules::default() };
        let mut store = Store::new(rules, Roots::default());
        store.create_input(input("a"), at(1)).unwrap();
        let plain = store.create_output(1, output("x"), at(2)).unwrap();
        assert_eq!((plain.id, plain.input_id, plain.desired), (1, 1, Desired::Running));
        assert_eq!((plain.auto_reconnect, plain.reconnect_delay, plain.max_reconnect_attempts), (true, 7, 3));
        let own = OutputDraft {
            protocol: Some("udp".into()),
            auto_reconnect: Some(false),
            reconnect_delay: Some(300),
            max_reconnect_attempts: Some(0),
            ..output("y")
        };
        let own = store.create_output(1, own, at(2)).unwrap();
        assert_eq!((own.auto_reconnect, own.reconnect_delay, own.max_reconnect_attempts), (false, 300, 0));
        assert_eq!(store.outputs(1).count(), 2);
        assert_eq!(store.outputs(7).count(), 0);
    }

    #[test]
    fn outputs_change_only_as_far_as_they_are_patched() {
        let mut store = store_with(&["a"]);
        store.create_output(1, output("x"), at(2)).unwrap();
        let patch =
            OutputPatch { protocol: Some("udp".into()), name: Some("x".into()), ..OutputPatch::default() };
        assert_eq!(store.patch_output(1, 1, patch, at(9)).unwrap().after.updated_at, at(2));
        let patch =
            OutputPatch { url: Some("rtp://h:1".into()), name: Some("z".into()), ..OutputPatch::default() };
        let after = store.patch_output(1, 1, patch, at(9)).unwrap().after;
        assert_eq!(
            (after.url.protocol(), after.raw_url.reveal(), after.reconnect_delay),
            (Protocol::Rtp, "rtp://h:1", 5)
        );
        let free = store.create_output(1, output("x"), at(3)).unwrap();
        assert_eq!(free.id, 2);
        assert_eq!(
            store.set_output_desired(1, 2, Desired::Stopped, at(4)).unwrap().after.desired,
            Desired::Stopped
        );
        assert_eq!(store.delete_output(1, 2).unwrap().id, 2);
        assert_eq!(store.create_output(1, output("x"), at(3)).unwrap().id, 3);
        assert_eq!(store.delete_input(1).unwrap().1.len(), 2);
    }

    #[test]
    fn refused_writes_change_nothing() {
        let rules = Rules { max_outputs_per_input: Some(2), ..Rules::default() };
        let mut store = Store::new(rules, Roots::default());
        for name in ["a", "b"] {
            store.create_input(input(name), at(1)).unwrap();
        }
        for name in ["x", "y"] {
            store.create_output(1, output(name), at(1)).unwrap();
        }
        let before = picture(&store);
        let conflict = |m: &str| Refusal::Conflict(m.into());
        let missing = |m: &str| Refusal::NotFound(m.into());

        let refused = store.create_input(input("a"), at(2)).unwrap_err();
        assert_eq!(refused, conflict("Input with name 'a' already exists"));
        let draft = InputDraft { name: " ".into(), url: Some("http://h:1".into()), udp_port: Some(1) };
        let names = ["name", "url", "udp_port", "udp_port"].map(String::from);
        let refused = fields(store.create_input(draft, at(2)).unwrap_err());
        assert_eq!(refused.into_iter().map(|(field, _)| field).collect::<Vec<_>>(), names);
        for (name, kind) in [
            (String::new(), "string_too_short"),
            ("é".repeat(256), "string_too_long"),
            ("a\n".into(), "value_error"),
        ] {
            assert_eq!(fields(store.create_input(input(&name), at(2)).unwrap_err()), [("name".into(), kind)]);
        }
        let file = InputDraft { url: Some("file:../clip.ts".into()), ..input("c") };
        assert_eq!(fields(store.create_input(file, at(2)).unwrap_err()), [("url".into(), "value_error")]);
        let patch = InputPatch { name: Some("b".into()), url: Some("udp://:9000".into()) };
        let taken = conflict("Input with name 'b' already exists");
        assert_eq!(store.patch_input(1, patch.clone(), at(2)).unwrap_err(), taken);
        assert_eq!(store.patch_input(9, patch, at(2)).unwrap_err(), missing("Input not found"));
        assert_eq!(store.delete_input(9).unwrap_err(), missing("Input not found"));
        assert_eq!(
            store.set_input_desired(9, Desired::Running, at(2)).unwrap_err(),
            missing("Input not found")
        );

        let refused = store.create_output(1, output("z"), at(2)).unwrap_err();
        assert_eq!(refused, conflict("Maximum 2 outputs per input reached"));
        assert_eq!(store.create_output(9, output("z"), at(2)).unwrap_err(), conflict("Input 9 not found"));
        let draft = OutputDraft {
            name: String::new(),
            url: "udp://h".into(),
            protocol: Some("tak".into()),
            auto_reconnect: None,
            reconnect_delay: Some(301),
            max_reconnect_attempts: Some(-1),
        };
        let wrong = [
            ("name", "string_too_short"),
            ("url", "value_error"),
            ("protocol", "enum"),
            ("reconnect_delay", "less_than_equal"),
            ("max_reconnect_attempts", "greater_than_equal"),
        ];
        let wrong = wrong.map(|(field, kind)| (field.to_owned(), kind));
        assert_eq!(fields(store.create_output(1, draft, at(2)).unwrap_err()), wrong);
        for (word, part) in [
            ("rtp", "must start with rtp://"),
            ("srt_listener", "must start with srt:// and have mode=listener"),
            ("cot_tcp", "must start with cot+tcp://"),
            ("Udp", "'srt_caller', "),
        ] {
            let refused = |refusal: Refusal| assert!(refusal.to_string().contains(part), "{word}: {refusal}");
            let protocol = Some(word.to_owned());
            refused(
                store
                    .create_output(2, OutputDraft { protocol: protocol.clone(), ..output("z") }, at(2))
                    .unwrap_err(),
            );
            refused(
                store
                    .patch_output(1, 1, OutputPatch { protocol, ..OutputPatch::default() }, at(2))
                    .unwrap_err(),
            );
        }
        let patch =
            OutputPatch { name: Some("y".into()), url: Some("udp://h:1".into()), ..OutputPatch::default() };
        let taken = conflict("Output with name 'y' already exists for this input");
        assert_eq!(store.patch_output(1, 1, patch.clone(), at(2)).unwrap_err(), taken);
        // An output of another input is not found.
        assert_eq!(store.patch_output(2, 1, patch, at(2)).unwrap_err(), missing("Output not found"));
        assert_eq!(store.delete_output(2, 1).unwrap_err(), missing("Output not found"));
        assert_eq!(
            store.set_output_desired(1, 9, Desired::Stopped, at(2)).unwrap_err(),
            missing("Output not found")
        );

        assert_eq!(picture(&store), before);
    }
}
