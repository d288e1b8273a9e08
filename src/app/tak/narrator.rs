//! Observations enter, the events that are due leave: one track of a stream at a time, under one uid. Knows no transport.

use std::sync::Arc;
use std::time::Duration;

use super::Address;
use super::identity;
use crate::app::dial::DialError;
use crate::app::director::Defaults;
use crate::inspect::klv::Observation;
use crate::net::clock;
use crate::store::{CotIdentity, CotSide, CotUid};
use crate::tak::cot::{Affiliation, Element, Event, Identity, Moment, Point, Reporter, Video};
use crate::wire::klv::{Set, TimeScale};

/// Who a stream is to TAK.
#[derive(Debug, Clone)]
pub(in crate::app) struct Persona {
    /// What the url says.
    pub(in crate::app) told: CotIdentity,
    /// The name that the stream keeps.
    pub(in crate::app) path: String,
    /// The name that people read.
    pub(in crate::app) name: String,
    /// The uid; empty until it is prepared.
    pub(in crate::app) uid: String,
}

/// Makes events of observations.
pub(super) struct Narrator {
    persona: Persona,
    chosen: Chosen,
    /// Under the uid that was last told.
    current: Option<(Identity, Reporter)>,
}

/// The track that is followed: the one that was asked for, or the first one, until it is silent.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    asked: Option<u16>,
    followed: Option<(u16, u64)>,
}

impl Persona {
    /// Finds out its uid.
    pub(super) async fn prepare(&mut self, defaults: &Defaults) -> Result<(), DialError> {
        self.uid = match &self.told.uid {
            CotUid::Fixed(uid) => uid.clone(),
            CotUid::Own | CotUid::Mission => identity::own_uid(&self.path, defaults).await?,
        };
        Ok(())
    }
}

impl Chosen {
    pub(super) fn new(asked: Option<u16>) -> Self {
        Self { asked, followed: None }
    }

    /// Whether an observation is of the track that is followed, at `now` in nanoseconds.
    pub(super) fn is_of(&mut self, track: u16, now: u64) -> bool {
        if let Some(asked) = self.asked {
            return asked == track;
        }
        match &mut self.followed {
            Some((followed, seen)) if *followed == track || now.saturating_sub(*seen) > SILENT => {
                (*followed, *seen) = (track, now);
                true
            }
            Some(_) => false,
            none => {
                *none = Some((track, now));
                true
            }
        }
    }
}

impl Narrator {
    pub(super) fn new(persona: Persona) -> Self {
        let chosen = Chosen::new(persona.told.track);
        Self { persona, chosen, current: None }
    }

    /// The uid of this end, whatever the stream is called.
    pub(super) fn uid(&self) -> &str {
        &self.persona.uid
    }

    /// Whether somebody says of himself what only this end says.
    pub(super) fn is_own(&self, uid: &str) -> bool {
        let current = self.current.as_ref().map(|(identity, _)| identity.uid.as_str());
        [Some(self.persona.uid.as_str()), current]
            .into_iter()
            .flatten()
            .any(|own| uid.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with('-')))
    }

    /// Whether an observation has something to tell. It is to be asked before every [`tell`](Self::tell).
    pub(super) fn hears(&mut self, observation: &Observation) -> bool {
        let scene = &observation.scene;
        let tells = scene.sensor.is_some()
            || scene.center.is_some()
            || scene.target.is_some()
            || scene.footprint.is_some();
        observation.accepted && tells && self.chosen.is_of(observation.sighting.track, clock::now())
    }

    /// The events that are due.
    pub(super) fn tell(&mut self, observation: &Arc<Observation>, address: &Address) -> Vec<Event> {
        let uid = self.uid_of(&observation.set);
        let url = address.borrow().clone();
        let same = self.current.as_ref().is_some_and(|(known, _)| {
            known.uid == uid && known.video.as_ref().map(|video| &video.url) == url.as_ref()
        });
        let mut events = Vec::new();
        if !same {
            let identity = self.identity(uid, url);
            match &mut self.current {
                Some((known, reporter)) if known.uid == identity.uid => {
                    reporter.change(identity.clone());
                    *known = identity;
                }
                // Another mission: nobody tells of the one before any more.
                _ => {
                    events = self.withdraw();
                    self.current = Some((identity.clone(), Reporter::new(identity)));
                }
            }
        }
        let Some((_, reporter)) = &mut self.current else { return events };
        let moment = Moment { monotonic: Duration::from_nanos(clock::now()), utc: clock::wall_ms() };
        events.extend(reporter.report(&observation.set, &observation.scene, moment));
        events
    }

    /// Takes back what was told.
    pub(super) fn withdraw(&mut self) -> Vec<Event> {
        let reporter = self.current.as_mut().map(|(_, reporter)| reporter);
        reporter.map_or(Vec::new(), |reporter| reporter.withdraw(clock::wall_ms()))
    }

    /// The video as it is entered into lists.
    pub(super) fn video(&self, url: String) -> Video {
        video(&self.persona.uid, &self.persona.name, url)
    }

    /// Says that this end is still there.
    pub(super) fn ping(&self) -> Event {
        let utc = clock::wall_ms();
        Event {
            uid: format!("{}-ping", self.persona.uid),
            kind: "t-x-c-t".into(),
            how: "m-g".into(),
            time: utc,
            start: utc,
            stale: utc + PING_STALE,
            point: Point { latitude: 0.0, longitude: 0.0, hae: Some(0.0), ce: None, le: None },
            detail: vec![Element::new("contact").with("callsign", &self.persona.name)],
        }
    }

    fn uid_of(&self, set: &Set<'_>) -> String {
        let text = |tag| set.text(tag).map(str::trim).filter(|text| !text.is_empty());
        match (&self.persona.told.uid, text(10), text(3)) {
            (CotUid::Mission, Some(platform), Some(mission)) => format!("{platform}_{mission}"),
            _ => self.persona.uid.clone(),
        }
    }

    fn identity(&self, uid: String, url: Option<String>) -> Identity {
        let told = &self.persona.told;
        Identity {
            video: url.map(|url| video(&uid, &self.persona.name, url)),
            uid,
            callsign: told.callsign.clone(),
            affiliation: match told.affiliation {
                CotSide::Friend => Affiliation::Friend,
                CotSide::Hostile => Affiliation::Hostile,
                CotSide::Neutral => Affiliation::Neutral,
                CotSide::Unknown => Affiliation::Unknown,
            },
            platform: told.kind.clone(),
            stale: told.stale,
            every: told.every,
            time_scale: told
                .leap_seconds
                .map_or(TimeScale::Utc, |leap_seconds| TimeScale::Misp { leap_seconds }),
        }
    }
}

fn video(uid: &str, alias: &str, url: String) -> Video {
    Video { uid: format!("{uid}-video"), alias: alias.into(), url }
}

/// A track that says nothing for so long is given up for another, nanoseconds.
const SILENT: u64 = 5_000_000_000;
/// How long a ping holds, milliseconds.
const PING_STALE: u64 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_track_is_followed_until_it_is_silent() {
        let mut chosen = Chosen::new(None);
        assert!(chosen.is_of(256, 0));
        assert!(!chosen.is_of(257, 1_000_000_000));
        assert!(chosen.is_of(256, 2_000_000_000));
        assert!(!chosen.is_of(257, 7_000_000_000));
        assert!(chosen.is_of(257, 7_000_000_001));
        assert!(!chosen.is_of(256, 7_000_000_002));
        let mut asked = Chosen::new(Some(300));
        assert!(!asked.is_of(256, 0) && asked.is_of(300, 0));
    }
}
