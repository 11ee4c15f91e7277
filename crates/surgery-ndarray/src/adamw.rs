//! AdamW in one pass, in place.

use rayon::prelude::*;
use surgery_core::kernels::AdamWStep;

use crate::simd::{fma, sum, vectorised};

/// Number of values that a thread processes at a time.
const RUN: usize = 1 << 14;

/// The step's constants in f32.
#[derive(Clone, Copy)]
struct Factors {
    clip: f32,
    beta_1: f32,
    beta_2: f32,
    rest_1: f32,
    rest_2: f32,
    epsilon: f32,
    /// `1 / (1-β₂ᵗ)`
    unbias_2: f32,
    /// `η / (1-β₁ᵗ)`
    rate: f32,
    /// `1 - ηλ`
    decay: f32,
}

#[inline(always)]
fn update_body<const FMA: bool>(p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], f: Factors) {
    for ((p, m), (v, g)) in p.iter_mut().zip(m).zip(v.iter_mut().zip(g)) {
        let g = g * f.clip;
        *m = *m * f.beta_1 + g * f.rest_1;
        *v = *v * f.beta_2 + g * g * f.rest_2;
        let root = (*v * f.unbias_2).sqrt() + f.epsilon;
        *p = *p * f.decay - *m / root * f.rate;
    }
}
vectorised!(fn update_run(p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], f: Factors) = update_body);

/// `g ← clip g; m ← β₁m + (1-β₁)g; v ← β₂v + (1-β₂)g²; p ← (1-ηλ)p - η/(1-β₁ᵗ) m / (√(v/(1-β₂ᵗ)) + ε)`
pub(crate) fn update(p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], step: &AdamWStep) {
    let factors = Factors {
        clip: step.clip as f32,
        beta_1: step.beta_1 as f32,
        beta_2: step.beta_2 as f32,
        rest_1: (1.0 - step.beta_1) as f32,
        rest_2: (1.0 - step.beta_2) as f32,
        epsilon: step.epsilon as f32,
        unbias_2: (1.0 / (1.0 - step.beta_2.powi(step.step))) as f32,
        rate: (step.rate / (1.0 - step.beta_1.powi(step.step))) as f32,
        decay: (1.0 - step.rate * step.weight_decay) as f32,
    };
    let runs = p.par_chunks_mut(RUN).zip(m.par_chunks_mut(RUN));
    runs.zip(v.par_chunks_mut(RUN).zip(g.par_chunks(RUN)))
        .for_each(|((p, m), (v, g))| update_run(p, m, v, g, factors));
}

#[inline(always)]
fn squares_body<const FMA: bool>(x: &[f32]) -> f32 {
    sum(x.len(), |i, sum| fma::<FMA>(x[i], x[i], sum))
}
vectorised!(fn squares_of_run(x: &[f32]) -> f32 = squares_body);

/// `Σ x²`. The sums of the runs are added in f64 and in order.
pub(crate) fn squares(x: &[f32]) -> f32 {
    let parts: Vec<f32> = x.par_chunks(RUN).map(squares_of_run).collect();
    parts.into_iter().map(f64::from).sum::<f64>() as f32
}
