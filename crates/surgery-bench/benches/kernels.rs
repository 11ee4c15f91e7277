//! The operations of [`Kernels`] one by one, in the CPU backend's form and in the portable form, at the sizes of a
//! step of the shape `6m`. `cargo xtask bench --micro` runs this.

use divan::Bencher;
use surgery_core::batch::{Rows, Window};
use surgery_core::burn::tensor::{Distribution as Random, FloatDType, Tensor};
use surgery_core::config::LlamaConfig;
use surgery_core::data::Example;
use surgery_core::kernels::{
    AdamWStep, AttentionWeights, Distribution, Kernels, LinearWeights, MlpWeights, Portable, Predictions,
    TokenLoss,
};
use surgery_core::placement::Placement;
use surgery_core::platform::{DeviceOf, Platform};
use surgery_ndarray::Cpu;

type B = <Cpu as Platform>::Infer;
type CpuKernels = <Cpu as Platform>::Kernels;

const HIDDEN: usize = 256;
const HEADS: usize = 4;
const INTERMEDIATE: usize = 688;
const VOCAB: usize = 2048;
const LAYERS: usize = 6;
/// Documents of a step, all of the same length.
const DOCUMENTS: usize = 32;
const LENGTH: usize = 120;
const TOKENS: usize = DOCUMENTS * LENGTH;
const EPSILON: f64 = 1e-6;

fn main() {
    divan::main();
}

fn device() -> DeviceOf<Cpu> {
    Cpu::device(0).expect("there is a CPU")
}

fn random<const D: usize>(shape: [usize; D]) -> Tensor<B, D> {
    Tensor::random(shape, Random::Normal(0.0, 0.02), &device())
}

/// The hidden states of a step's tokens, one row for each document.
fn states() -> Tensor<B, 3> {
    random([DOCUMENTS, LENGTH, HIDDEN])
}

fn placement() -> Placement<B> {
    let config = serde_json::json!({
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": INTERMEDIATE,
        "vocab_size": VOCAB,
        "max_position_embeddings": LENGTH,
    });
    let config = LlamaConfig::parse("6m", &config).expect("a whole configuration");
    let documents = vec![Example::of_text(vec![0; LENGTH]); DOCUMENTS];
    let rows = Rows::pack(&Window::of_all(&documents, LENGTH), false);
    Placement::packed(&rows, &config, &device()).expect("short texts")
}

#[divan::bench(types = [CpuKernels, Portable], sample_count = 20, max_time = 2)]
fn project<K: Kernels<B>>(bencher: Bencher) {
    let (x, weight) = (states(), random([INTERMEDIATE, HIDDEN]));
    bencher.bench_local(|| K::project(x.clone(), weight.clone()));
}

#[divan::bench(types = [CpuKernels, Portable], sample_count = 20, max_time = 2)]
fn rms_norm<K: Kernels<B>>(bencher: Bencher) {
    let (x, weight) = (states(), random([HIDDEN]));
    bencher.bench_local(|| K::rms_norm(x.clone(), weight.clone(), EPSILON, FloatDType::F32));
}

fn layer(shape: [usize; 2]) -> LinearWeights<B> {
    LinearWeights { matrix: random(shape), bias: None }
}

#[divan::bench(types = [CpuKernels, Portable], sample_count = 20, max_time = 2)]
fn attention_sublayer<K: Kernels<B>>(bencher: Bencher) {
    let (x, placement) = (states(), placement());
    let weights = AttentionWeights {
        norm: random([HIDDEN]),
        query: layer([HIDDEN, HIDDEN]),
        key: layer([HIDDEN, HIDDEN]),
        value: layer([HIDDEN, HIDDEN]),
        output: layer([HIDDEN, HIDDEN]),
        query_norm: None,
        key_norm: None,
        epsilon: EPSILON,
    };
    bencher.bench_local(|| K::attention_sublayer(x.clone(), weights.clone(), &placement, None));
}

#[divan::bench(types = [CpuKernels, Portable], sample_count = 20, max_time = 2)]
fn mlp_sublayer<K: Kernels<B>>(bencher: Bencher) {
    let x = states();
    let weights = MlpWeights {
        norm: random([HIDDEN]),
        gate: layer([INTERMEDIATE, HIDDEN]),
        up: layer([INTERMEDIATE, HIDDEN]),
        down: layer([HIDDEN, INTERMEDIATE]),
        epsilon: EPSILON,
    };
    bencher.bench_local(|| K::mlp_sublayer(x.clone(), weights.clone()));
}

#[divan::bench(types = [CpuKernels, Portable], sample_count = 20, max_time = 2)]
fn head_gradient<K: Kernels<B>>(bencher: Bencher) {
    let (hidden, head) = (random([TOKENS, HIDDEN]), random([VOCAB, HIDDEN]));
    // A quarter of the documents are retain documents. The last position of each document predicts nothing.
    let predicting = |documents: std::ops::Range<usize>| -> Vec<usize> {
        documents.flat_map(|document| document * LENGTH..(document + 1) * LENGTH - 1).collect()
    };
    let kl = Distribution { of_reference: true, shift: 0.0, is_entropy_counted: false };
    let quarter = DOCUMENTS / 4;
    let predictions =
        [(0..3 * quarter, TokenLoss::Nll), (3 * quarter..DOCUMENTS, TokenLoss::Distribution(kl))];
    let predictions = predictions.map(|(documents, loss)| {
        let positions = predicting(documents);
        Predictions {
            loss,
            tokens: positions.iter().map(|position| (position % VOCAB) as u32).collect(),
            coefficients: vec![1e-3; positions.len()],
            is_nll_wanted: false,
            reference: Some((random([positions.len(), HIDDEN]), random([VOCAB, HIDDEN]))),
            positions,
        }
    });
    bencher.bench_local(|| K::head_gradient(hidden.clone(), head.clone(), &predictions));
}

/// All the model's values as one parameter, which is not shared and can be updated in place.
#[divan::bench(types = [CpuKernels, Portable], sample_count = 20, max_time = 2)]
fn adamw<K: Kernels<B>>(bencher: Bencher) {
    let layer = 4 * HIDDEN * HIDDEN + 3 * HIDDEN * INTERMEDIATE;
    let count = LAYERS * layer + 2 * VOCAB * HIDDEN;
    let step = AdamWStep {
        clip: 0.5,
        rate: 2e-4,
        beta_1: 0.9,
        beta_2: 0.95,
        epsilon: 1e-8,
        weight_decay: 0.01,
        step: 2,
    };
    bencher
        .with_inputs(|| {
            let value = || random([count]);
            (value(), value(), value().abs(), value())
        })
        .bench_local_values(|(value, first, second, gradient)| {
            K::adamw(value, first, second, gradient, &step)
        });
}
