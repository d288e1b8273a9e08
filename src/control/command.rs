//! Writes of the API enter as commands, refusals or cards come back. The queue is bounded: when it is full the
//! caller is told to come again, and nothing was changed.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::board::{InputCard, OutputCard};
use crate::store::{InputDraft, InputId, InputPatch, OutputDraft, OutputId, OutputPatch, Refusal};

/// Where the answer to a command goes. The receiver answers at once: when the desired state is stored and the
/// board shows it, without waiting for a dial or a shard. It may find the asker gone.
pub type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

/// What the API wants done.
#[derive(Debug)]
#[expect(missing_docs, reason = "fields are named after what they hold")]
pub enum Command {
    /// Make an input and start it.
    CreateInput { draft: InputDraft, reply: Reply<Arc<InputCard>> },
    /// Change an input; a new url restarts it when it runs.
    PatchInput { id: InputId, patch: InputPatch, reply: Reply<Arc<InputCard>> },
    /// Stop an input and its outputs and take them out.
    DeleteInput { id: InputId, reply: Reply<()> },
    /// Let an input run; begins anew when it has failed.
    StartInput { id: InputId, reply: Reply<()> },
    /// Let an input rest.
    StopInput { id: InputId, reply: Reply<()> },
    /// Make an output and start it.
    CreateOutput { input: InputId, draft: OutputDraft, reply: Reply<Arc<OutputCard>> },
    /// Change an output; a new url restarts it when it runs.
    PatchOutput { input: InputId, id: OutputId, patch: OutputPatch, reply: Reply<Arc<OutputCard>> },
    /// Stop an output and take it out.
    DeleteOutput { input: InputId, id: OutputId, reply: Reply<()> },
    /// Let an output run; begins anew when it has failed.
    StartOutput { input: InputId, id: OutputId, reply: Reply<()> },
    /// Let an output rest.
    StopOutput { input: InputId, id: OutputId, reply: Reply<()> },
}

/// Where commands are handed in.
#[derive(Debug, Clone)]
pub struct Commands(mpsc::Sender<Command>);

/// A queue of at most `capacity` commands (at least one), and its end for the director.
pub fn commands(capacity: usize) -> (Commands, mpsc::Receiver<Command>) {
    let (sender, receiver) = mpsc::channel(capacity.max(1));
    (Commands(sender), receiver)
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// It was, and it is refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The queue is full: the same command may be handed in again.
    #[error("too many writes are waiting")]
    Busy,
    /// Nobody takes commands any more.
    #[error("the engine is shutting down")]
    Closed,
}

impl Commands {
    /// Hands in the command that `make` builds around the reply, and waits for the answer. A full queue is
    /// told at once.
    pub async fn ask<T>(&self, make: impl FnOnce(Reply<T>) -> Command) -> Result<T, Unanswered> {
        let (reply, answer) = oneshot::channel();
        self.0.try_send(make(reply)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Unanswered::Busy,
            mpsc::error::TrySendError::Closed(_) => Unanswered::Closed,
        })?;
        Ok(answer.await.map_err(|_| Unanswered::Closed)??)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_queue_is_busy_and_a_closed_one_closed() {
        let (commands, mut receiver) = commands(1);
        let delete = |reply| Command::DeleteInput { id: 1, reply };
        let (refused, busy, answered) =
            tokio::join!(commands.ask(delete), async { commands.ask(delete).await }, async {
                let Some(Command::DeleteInput { reply, .. }) = receiver.recv().await else { return false };
                reply.send(Err(Refusal::NotFound("Input not found".into()))).is_ok()
            });
        assert!(matches!(refused, Err(Unanswered::Refused(Refusal::NotFound(_)))));
        assert!(matches!(busy, Err(Unanswered::Busy)) && answered);

        let (dropped, ()) = tokio::join!(commands.ask(delete), async { drop(receiver.recv().await) });
        assert!(matches!(dropped, Err(Unanswered::Closed)));
        drop(receiver);
        assert!(matches!(commands.ask(delete).await, Err(Unanswered::Closed)));
    }
}
