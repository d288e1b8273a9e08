//! Outputs that tell what metadata say: what was reached enters, tasks that tell leave; whether there is something to tell
//! and where the picture is are looked at again and again.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::connections::{Done, bug};
use super::{Director, Id};
use crate::app::tak;
use crate::control::OutputCard;
use crate::store::{InputId, OutputId, OutputSpec, OutputUrl};
use crate::supervise::{Attempt, Event};
use crate::telemetry::State;

impl Director {
    /// Who the stream of an output is to TAK; `None` where TAK is told nothing. `path` is what the stream goes by.
    pub(super) fn persona(&self, spec: &OutputSpec, path: &str) -> Option<tak::Persona> {
        let OutputUrl::Cot(cot) = &spec.url else { return None };
        let name = self.store.input(spec.input_id).map(|input| input.name.to_string()).unwrap_or_default();
        Some(tak::Persona { told: cot.identity.clone(), path: path.into(), name, uid: String::new() })
    }

    /// Starts the task that tells what metadata say.
    pub(super) fn start_telling(
        &mut self,
        input: InputId,
        output: OutputId,
        attempt: Attempt,
        telling: tak::Telling,
    ) -> Done {
        let source = self.board.input(input).ok_or_else(bug)?;
        let card = self.board.output(input, output).ok_or_else(bug)?;
        if let Some((route, destination)) = telling.route {
            self.count_neighbour(output, route, destination.ip());
        }
        let video = self.video_of(input, &card.spec());
        let seen = self.outputs.get(&output).ok_or_else(bug)?;
        seen.video.send_replace(video);
        let (news, video, turn) = (source.klv().subscribe(), seen.video.subscribe(), Arc::clone(&seen.turn));
        let (stats, tak) = (Arc::clone(card.stats()), card.stats().tak.keep());
        let remarks = tak::Remarks::new(self.egress_notices.clone(), output, attempt.number());
        let desk = |ended| tak::Desk { news, video, ended, stats, tak, remarks, turn };
        self.tellers.insert(output, telling.start(&self.media, &self.busy, desk));
        Ok(())
    }

    /// Says to an output that tells whether there is something to tell, and where the picture is.
    pub(super) fn look_at_metadata(&mut self, output: &OutputCard, now_ms: u64) {
        let spec = output.spec();
        let video = self.video_of(spec.input_id, &spec);
        let last = output.stats().tak.stats().map_or(0, |tak| tak.told_ms.load(Relaxed));
        let Some(seen) = self.outputs.get_mut(&spec.id) else { return };
        seen.video.send_if_modified(|known| {
            let other = *known != video;
            *known = video;
            other
        });
        // Stopped, or played to its end. Of one that is only away the last place is worth something: that goes stale by
        // itself.
        let input = self.board.input(spec.input_id);
        let ended = input.is_none_or(|input| input.card.peek(|status| status.state == State::Idle));
        if let Some(teller) = self.tellers.get(&spec.id) {
            teller.end(ended);
        }
        let told = now_ms.saturating_sub(last) < TOLD_MS;
        let event = if told { Event::SourceBack } else { Event::SourceGone };
        self.tell(Id::Output(spec.input_id, spec.id), event);
    }

    /// Where the picture of an input is to be had, while it is live.
    fn video_of(&self, input: InputId, spec: &OutputSpec) -> Option<String> {
        let OutputUrl::Cot(cot) = &spec.url else { return None };
        let source =
            self.store.input(input).filter(|_| self.inputs.get(&input).is_some_and(|seen| seen.live))?;
        let outputs: Vec<_> = self.store.outputs(input).collect();
        tak::video_url(&outputs, &source.mediamtx_path, cot.identity.video, &self.defaults.public)
    }
}

/// Metadata that are older say nothing any more; a sender says all at least every so often.
const TOLD_MS: u64 = 5_000;
