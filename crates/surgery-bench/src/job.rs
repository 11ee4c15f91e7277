//! The whole job as a user runs it: evaluate, train, evaluate again.

use surgery_core::config::LlamaConfig;
use surgery_core::platform::{DeviceOf, Platform};
use surgery_core::recipe::Precision;

use crate::Result;
use crate::ours::Ours;
use crate::peer::{Arrangement, Peer};
use crate::quiet::{median, settle};
use crate::report::{Job, PeerJob};
use crate::work;

/// Number of rounds; few, because a job takes long.
const ROUNDS: usize = 3;

pub(crate) fn measure_job<P: Platform>(
    config: &LlamaConfig,
    precision: Precision,
    work: &work::Job,
    mut peer: Option<&mut Peer>,
    device: &DeviceOf<P>,
) -> Result<Job> {
    let (mut ours, mut batched, mut single) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(Ours::<P>::job(config, precision, work, device)?);
        if let Some(peer) = peer.as_deref_mut() {
            settle();
            batched.push(peer.job(work, Arrangement::Batched)?);
            single.push(peer.job(work, Arrangement::Single)?);
            settle();
        }
    }
    let peer =
        peer.map(|_| PeerJob { batched_seconds: median(&mut batched), single_seconds: median(&mut single) });
    let (steps, texts, questions) = (work.draws.len(), work.texts.len(), work.questions.len());
    Ok(Job { rounds: ROUNDS, texts, questions, steps, seconds: median(&mut ours), peer })
}
