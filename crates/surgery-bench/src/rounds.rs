//! Measures one shape in rounds. Compared measurements alternate, so that other load on the machine affects them
//! equally.

use surgery_core::platform::{DeviceOf, Platform};
use surgery_core::recipe::Precision;
use surgery_ndarray::Cpu;

use crate::Result;
use crate::floor::{ProductRate, product_rates, step_operations};
use crate::job::measure_job;
use crate::memory::forget_peak;
use crate::ours::{Ours, ReferenceIs};
use crate::peer::{Arrangement, Peer, PeerParts, PeerStep};
use crate::quiet::{median, settle};
use crate::report::{Evaluation, Floor, Measured, Parts, PeerMeasured, Step};
use crate::work::{Lengths, OPTIONS, QUESTIONS, Shape, Work};

/// Settings of the measurement.
pub(crate) struct Choices {
    pub(crate) precision: Precision,
    pub(crate) lengths: Lengths,
    pub(crate) steps: u32,
    pub(crate) job: bool,
    /// Memory of the process before it had a model.
    pub(crate) idle_bytes: Option<u64>,
}

/// Our times in one round.
struct OurRound {
    step: f64,
    parts: Parts,
    reference_run: f64,
    evaluation: f64,
}

/// PyTorch's times in one round.
struct PeerRound {
    step: PeerStep,
    batched: f64,
    single: f64,
}

/// Measures one shape.
pub(crate) fn measure<P: Platform>(
    shape: &Shape,
    choices: &Choices,
    mut peer: Option<&mut Peer>,
    device: &DeviceOf<P>,
) -> Result<Measured> {
    let config = shape.config()?;
    let work = Work::new(shape, choices.lengths);
    let mut ours = Ours::<P>::new(&config, choices.precision, device);

    // Measure memory first, before anything but steps has used any. The first step creates the optimizer's state.
    ours.step(&work.draw, ReferenceIs::Known)?;
    let forgotten = forget_peak();
    ours.step(&work.draw, ReferenceIs::Known)?;
    // On a GPU, no memory is in use before the model.
    let idle_bytes = if P::NAME == Cpu::NAME { choices.idle_bytes.filter(|_| forgotten) } else { Some(0) };
    let memory_bytes = P::peak(device).zip(idle_bytes).map(|(peak, idle)| peak.saturating_sub(idle));
    let mut peer_memory = None;
    if let Some(peer) = peer.as_deref_mut() {
        peer.step(&work.draw)?;
        peer_memory = peer.step_memory(&work.draw)?;
    }

    let mut products = product_rates::<P>(&config, choices.precision, &work.draw, device)?;
    let (mut our_rounds, mut peer_rounds) = (Vec::new(), Vec::new());
    for number in 0..=choices.steps {
        let (our, their) = round(&mut ours, peer.as_deref_mut(), &work)?;
        // The warm-up round allocates memory and, on a GPU, compiles kernels.
        if number > 0 {
            our_rounds.push(our);
            peer_rounds.extend(their);
        }
    }
    // Measure the products again and take the best rate, in case of other load the first time.
    for (product, again) in
        products.iter_mut().zip(product_rates::<P>(&config, choices.precision, &work.draw, device)?)
    {
        product.rate = product.rate.max(again.rate);
    }
    let peer_rate = peer.as_deref_mut().map(|peer| peer.product_rate([2048; 3])).transpose()?;
    if let Some(rate) = peer_rate.filter(|_| P::NAME != Cpu::NAME) {
        // The vendor's library on the same device.
        products.push(ProductRate { form: "PyTorch".into(), shape: "2048x2048x2048".into(), rate });
    }

    let of = |value: fn(&OurRound) -> f64| median_of(&our_rounds, value);
    let (seconds, evaluation) = (of(|round| round.step), of(|round| round.evaluation));
    let step = Step {
        seconds,
        tokens_per_second: work.draw.num_tokens() as f64 / seconds,
        parts: Parts {
            forward: of(|round| round.parts.forward),
            head: of(|round| round.parts.head),
            backward: of(|round| round.parts.backward),
            clip: of(|round| round.parts.clip),
            adamw: of(|round| round.parts.adamw),
        },
        reference_run_seconds: of(|round| round.reference_run),
        memory_bytes,
    };
    let best = (0..products.len()).max_by(|&a, &b| products[a].rate.total_cmp(&products[b].rate));
    let best = best.ok_or("no matrix product was measured")?;
    let operations = step_operations(&config, &work.draw);
    let floor_seconds = operations / products[best].rate;
    let floor = Floor { operations, products, best, seconds: floor_seconds, share: floor_seconds / seconds };
    let evaluation = Evaluation {
        questions: QUESTIONS,
        options: QUESTIONS * OPTIONS,
        seconds: evaluation,
        questions_per_second: QUESTIONS as f64 / evaluation,
        options_per_second: (QUESTIONS * OPTIONS) as f64 / evaluation,
    };
    let peer_measured = peer_rate.map(|rate| peer_summary(&peer_rounds, peer_memory, rate, seconds));
    let job = choices
        .job
        .then(|| measure_job::<P>(&config, choices.precision, &work.job, peer, device))
        .transpose()?;
    Ok(Measured {
        shape: shape.name,
        parameters: config.num_parameters(),
        lengths: choices.lengths,
        documents: work.draw.num_documents(),
        tokens: work.draw.num_tokens(),
        rounds: choices.steps,
        step,
        floor,
        evaluation,
        peer: peer_measured,
        job,
    })
}

/// One round: our step, PyTorch's step, our answers, PyTorch's answers.
fn round<P: Platform>(
    ours: &mut Ours<P>,
    mut peer: Option<&mut Peer>,
    work: &Work,
) -> Result<(OurRound, Option<PeerRound>)> {
    let (time, clip) = ours.step_and_norm(&work.draw)?;
    let their_step = in_turn(&mut peer, |peer| peer.step(&work.draw))?;
    let [forward, head] = ours.forward_and_head(&work.draw)?;
    let reference_run = ours.step(&work.draw, ReferenceIs::Run)?.step();
    let evaluation = ours.answer(&work.questions)?;
    let batched = in_turn(&mut peer, |peer| peer.answer(&work.questions, Arrangement::Batched))?;
    let single = in_turn(&mut peer, |peer| peer.answer(&work.questions, Arrangement::Single))?;

    let backward = time.gradients - forward - head - clip;
    let parts = Parts { forward, head, backward, clip, adamw: time.update };
    let ours = OurRound { step: time.step(), parts, reference_run, evaluation };
    let theirs = their_step.zip(batched).zip(single);
    Ok((ours, theirs.map(|((step, batched), single)| PeerRound { step, batched, single })))
}

/// Runs PyTorch's part, if there is one, between two pauses.
fn in_turn<T>(peer: &mut Option<&mut Peer>, work: impl FnOnce(&mut Peer) -> Result<T>) -> Result<Option<T>> {
    let Some(peer) = peer.as_deref_mut() else { return Ok(None) };
    settle();
    let value = work(peer)?;
    settle();
    Ok(Some(value))
}

fn peer_summary(
    rounds: &[PeerRound],
    memory_bytes: Option<u64>,
    product_rate: f64,
    our_step: f64,
) -> PeerMeasured {
    let of = |value: fn(&PeerRound) -> f64| median_of(rounds, value);
    let step_seconds = of(|round| round.step.seconds);
    PeerMeasured {
        step_seconds,
        parts: PeerParts {
            forward: of(|round| round.step.parts.forward),
            reference: of(|round| round.step.parts.reference),
            loss: of(|round| round.step.parts.loss),
            backward: of(|round| round.step.parts.backward),
            clip: of(|round| round.step.parts.clip),
            adamw: of(|round| round.step.parts.adamw),
        },
        memory_bytes,
        batched_evaluation_seconds: of(|round| round.batched),
        single_evaluation_seconds: of(|round| round.single),
        product_rate,
        step_ratio: step_seconds / our_step,
    }
}

fn median_of<T>(rounds: &[T], value: impl Fn(&T) -> f64) -> f64 {
    median(&mut rounds.iter().map(value).collect::<Vec<_>>())
}
