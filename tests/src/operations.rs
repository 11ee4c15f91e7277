//! Each operation of a platform on random values, compared with its portable form on the CPU.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use surgery_core::batch::{PrefixGroup, Rows, Window};
use surgery_core::burn::tensor::backend::{AutodiffBackend, Backend};
use surgery_core::burn::tensor::{DType, FloatDType, Tensor, TensorData};
use surgery_core::config::LlamaConfig;
use surgery_core::data::Example;
use surgery_core::kernels::{AdamWStep, Kernels, Portable};
use surgery_core::placement::Placement;
use surgery_core::platform::{DeviceOf, Platform};

use crate::parity::Found;
use crate::{Cpu, Infer, Train, relative_distance, values_of};

/// Differentiable operations of a model.
#[derive(Debug, Clone, Copy)]
enum Differentiable {
    Embed { vocab: usize, size: usize },
    Norm { size: usize },
    Project { from: usize, to: usize },
    Rope { heads: usize, size: usize },
    Attention { heads: usize, kv_heads: usize, size: usize },
    Swiglu { size: usize },
}

/// Lengths of the texts: one token, a tile of a kernel, one token more, and several tiles.
const LENGTHS: [usize; 8] = [1, 2, 15, 32, 33, 70, 5, 130];

fn random(generator: &mut ChaCha8Rng, count: usize) -> Vec<f32> {
    (0..count).map(|_| generator.random_range(-1.0..1.0)).collect()
}

impl Differentiable {
    /// The shape of each input for this number of tokens.
    fn shapes(self, tokens: usize) -> Vec<Vec<usize>> {
        match self {
            Self::Embed { vocab, size } => vec![vec![vocab, size]],
            Self::Norm { size } => vec![vec![1, tokens, size], vec![size]],
            Self::Project { from, to } => vec![vec![1, tokens, from], vec![to, from]],
            Self::Rope { heads, size } => vec![vec![1, tokens, heads, size]],
            Self::Attention { heads, kv_heads, size } => {
                [heads, kv_heads, kv_heads].map(|heads| vec![1, tokens, heads, size]).into()
            }
            Self::Swiglu { size } => vec![vec![1, tokens, size]; 2],
        }
    }

    fn run<B: Backend, K: Kernels<B>>(
        self,
        inputs: &[Tensor<B, 1>],
        shapes: &[Vec<usize>],
        placement: &Placement<B>,
        dtype: FloatDType,
    ) -> Tensor<B, 1> {
        fn shaped<B: Backend, const D: usize>(input: &Tensor<B, 1>, shape: &[usize]) -> Tensor<B, D> {
            input.clone().reshape(<[usize; D]>::try_from(shape).expect("as many dimensions"))
        }
        let three = |i: usize| shaped::<B, 3>(&inputs[i], &shapes[i]);
        let four = |i: usize| shaped::<B, 4>(&inputs[i], &shapes[i]);
        match self {
            Self::Embed { vocab, .. } => {
                // Some tokens occur once, some often, some never.
                let tokens = placement.layout().positions.len();
                let ids: Vec<u32> = (0..tokens).map(|i| (i * i / 9 % (vocab - 3)) as u32).collect();
                K::embed(shaped(&inputs[0], &shapes[0]), &ids, [1, tokens]).reshape([-1])
            }
            Self::Norm { .. } => K::rms_norm(three(0), inputs[1].clone(), 1e-5, dtype).reshape([-1]),
            Self::Project { .. } => K::project(three(0), shaped(&inputs[1], &shapes[1])).reshape([-1]),
            Self::Rope { .. } => K::rope(four(0), placement).reshape([-1]),
            Self::Attention { .. } => K::attention(four(0), four(1), four(2), placement).reshape([-1]),
            Self::Swiglu { .. } => K::swiglu(three(0), three(1)).reshape([-1]),
        }
    }

    /// The result in `dtype`, and the gradient of each input from a weighted sum of the result.
    fn gradients<B: AutodiffBackend, K: Kernels<B>>(
        self,
        values: &[Vec<f32>],
        weights: &[f32],
        placement: &Placement<B>,
        dtype: FloatDType,
        device: &B::Device,
    ) -> Vec<Vec<f32>> {
        let tensor = |values: &[f32]| Tensor::<B, 1>::from_data(values, (device, DType::F32));
        let inputs: Vec<_> = values.iter().map(|values| tensor(values).require_grad()).collect();
        let narrow: Vec<_> = inputs.iter().map(|input| input.clone().cast(dtype)).collect();
        let shapes = self.shapes(placement.layout().positions.len());
        let out = self.run::<B, K>(&narrow, &shapes, placement, dtype).cast(FloatDType::F32);
        let graph = (out.clone() * tensor(weights)).sum().backward();
        let gradients = inputs.iter().map(|input| values_of(input.grad(&graph).expect("a gradient")));
        std::iter::once(values_of(out.inner())).chain(gradients).collect()
    }
}

fn config(head_dim: usize) -> LlamaConfig {
    let config = json!({
        "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4,
        "intermediate_size": 64, "vocab_size": 64, "max_position_embeddings": 1024, "head_dim": head_dim,
    });
    LlamaConfig::parse("operations", &config).expect("a shape")
}

/// Every operation on values rounded to `dtype`: one item each, with the worst error of the result and its gradients.
pub(crate) fn measure<P: Platform>(
    device: &DeviceOf<P>,
    dtype: FloatDType,
    tolerance: f64,
    found: &mut Found,
) {
    let mut generator = ChaCha8Rng::seed_from_u64(11);
    let cpu = Cpu::device(0).expect("there is a CPU");
    // Each predicts its last token, so that a text of one token has a window too.
    let examples = LENGTHS.map(|length| Example {
        tokens: vec![0; length],
        predicted: vec![length - 1..length],
        alternatives: Vec::new(),
    });
    let windows = examples.each_ref().map(|example| Window { example, start: 0, end: example.len() });
    let rows = Rows::pack(&windows, true);
    let operations = [
        Differentiable::Embed { vocab: 60, size: 44 },
        Differentiable::Embed { vocab: 500, size: 7 },
        Differentiable::Norm { size: 300 },
        Differentiable::Norm { size: 64 },
        Differentiable::Project { from: 48, to: 33 },
        Differentiable::Rope { heads: 3, size: 24 },
        Differentiable::Attention { heads: 4, kv_heads: 4, size: 16 },
        Differentiable::Attention { heads: 6, kv_heads: 2, size: 20 },
        Differentiable::Attention { heads: 4, kv_heads: 1, size: 64 },
        Differentiable::Attention { heads: 1, kv_heads: 1, size: 128 },
        Differentiable::Swiglu { size: 97 },
    ];
    for operation in operations {
        let head_dim = match operation {
            Differentiable::Rope { size, .. } | Differentiable::Attention { size, .. } => size,
            _ => 16,
        };
        let shapes = operation.shapes(rows.columns);
        // Queries and keys of this size give some large weights and mostly small ones.
        let values: Vec<Vec<f32>> =
            shapes.iter().map(|shape| random(&mut generator, shape.iter().product())).collect();
        let there = Placement::packed(&rows, &config(head_dim), &cpu).expect("short texts");
        let here = Placement::packed(&rows, &config(head_dim), device).expect("short texts");
        let length = match operation {
            Differentiable::Embed { size, .. } => rows.columns * size,
            Differentiable::Project { to, .. } => rows.columns * to,
            _ => values[0].len(),
        };
        let weights = random(&mut generator, length);
        let wanted = operation.gradients::<Train, Portable>(&values, &weights, &there, FloatDType::F32, &cpu);
        let got = operation.gradients::<P::Train, P::Kernels>(&values, &weights, &here, dtype, device);
        let errors = got.iter().zip(&wanted).map(|(got, wanted)| relative_distance(got, wanted));
        found.add(format!("operation: {operation:?}"), tolerance, errors);
    }
    prefixes::<P>(device, tolerance, dtype, &mut generator, found);
    head::<P>(device, tolerance, dtype, &mut generator, found);
    optimizer::<P>(device, &mut generator, found);
}

/// Attention of texts that continue a shared prefix, and from a cache.
fn prefixes<P: Platform>(
    device: &DeviceOf<P>,
    tolerance: f64,
    dtype: FloatDType,
    generator: &mut ChaCha8Rng,
    found: &mut Found,
) {
    let (prefix, suffixes) = (vec![0; 40], [vec![0; 3], vec![0; 17]]);
    let group = PrefixGroup { prefix: &prefix, suffixes: suffixes.iter().map(Vec::as_slice).collect() };
    let rows = Rows::pack_groups(&[PrefixGroup::of(&[&prefix]), group], true);
    let config = config(20);
    let cpu = Cpu::device(0).expect("there is a CPU");
    type Pair<P> = (Placement<Infer>, Placement<<P as Platform>::Infer>, [usize; 2], [usize; 2]);
    let shape = [1, rows.columns];
    let cases: [(&str, Pair<P>); 2] = [
        ("a shared prefix", {
            let there = Placement::packed(&rows, &config, &cpu).expect("short texts");
            (there, Placement::packed(&rows, &config, device).expect("short texts"), shape, shape)
        }),
        ("a cache", {
            let there = Placement::continued([3, 37, 2], &config, &cpu).expect("short texts");
            let here = Placement::continued([3, 37, 2], &config, device).expect("short texts");
            (there, here, [3, 2], [3, 39])
        }),
    ];
    for (what, (there, here, of_queries, of_keys)) in cases {
        let inputs = [(of_queries, 6), (of_keys, 2), (of_keys, 2)].map(|([rows, columns], heads)| {
            let shape = [rows, columns, heads, 20];
            TensorData::new(random(generator, shape.iter().product()), shape)
        });
        fn run<B: Backend, K: Kernels<B>>(
            inputs: [TensorData; 3],
            placement: &Placement<B>,
            dtype: FloatDType,
            device: &B::Device,
        ) -> Vec<f32> {
            let [q, k, v] =
                inputs.map(|data| Tensor::<B, 4>::from_data(data, (device, DType::F32)).cast(dtype));
            values_of(K::attention(q, k, v, placement))
        }
        let wanted = run::<Infer, Portable>(inputs.clone(), &there, FloatDType::F32, &cpu);
        let got = run::<P::Infer, P::Kernels>(inputs, &here, dtype, device);
        let error = relative_distance(&got, &wanted);
        found.add(format!("operation: attention from {what}"), tolerance, [error]);
    }
}

/// Logits, losses and their gradients, which are in f32 for any dtype of the products.
fn head<P: Platform>(
    device: &DeviceOf<P>,
    tolerance: f64,
    dtype: FloatDType,
    generator: &mut ChaCha8Rng,
    found: &mut Found,
) {
    const COUNT: usize = 37;
    const VOCAB: usize = 700;
    const SIZE: usize = 64;
    fn run<B: Backend, K: Kernels<B>>(
        values: &[TensorData; 4],
        tokens: &[u32],
        coefficients: &[f32],
        dtype: FloatDType,
        device: &B::Device,
    ) -> Vec<(&'static str, Vec<f32>)> {
        let [hidden, head, reference_hidden, reference_head] =
            values.clone().map(|data| Tensor::<B, 2>::from_data(data, (device, DType::F32)));
        let (head, reference_head) = (head.cast(dtype), reference_head.cast(dtype));
        let (logits, reference) = (
            K::logits(hidden.clone(), head.clone()),
            K::logits(reference_hidden.clone(), reference_head.clone()),
        );
        let (nll, by_nll) = K::nll_gradient(logits.clone(), tokens, coefficients);
        let (kl, by_kl) = K::kl_gradient(logits.clone(), reference, coefficients);
        let (spread, by_spread) = K::spread_gradient(logits.clone(), coefficients);
        vec![
            ("logits", values_of(logits)),
            ("product", values_of(K::product(by_nll.clone(), head.clone(), dtype))),
            ("nll", values_of(K::nll(hidden.clone(), head.clone(), tokens))),
            ("nll_of_logits", values_of(K::nll_of_logits(K::logits(hidden.clone(), head.clone()), tokens))),
            ("spread_gradient", [values_of(spread), values_of(by_spread)].concat()),
            ("nll_gradient", [values_of(nll), values_of(by_nll)].concat()),
            ("kl", values_of(K::kl(hidden, head, reference_hidden, reference_head))),
            ("kl_gradient", [values_of(kl), values_of(by_kl)].concat()),
        ]
    }
    let values = [COUNT, VOCAB, COUNT, VOCAB]
        .map(|rows| TensorData::new(random(generator, rows * SIZE), [rows, SIZE]));
    let tokens: Vec<u32> = (0..COUNT).map(|_| generator.random_range(0..VOCAB as u32)).collect();
    let coefficients = random(generator, COUNT);
    let cpu = Cpu::device(0).expect("there is a CPU");
    let wanted = run::<Infer, Portable>(&values, &tokens, &coefficients, FloatDType::F32, &cpu);
    let got = run::<P::Infer, P::Kernels>(&values, &tokens, &coefficients, dtype, device);
    for ((what, got), (_, wanted)) in got.into_iter().zip(wanted) {
        found.add(format!("operation: {what}"), tolerance, [relative_distance(&got, &wanted)]);
    }
}

/// AdamW and the norm of gradients, in f32.
fn optimizer<P: Platform>(device: &DeviceOf<P>, generator: &mut ChaCha8Rng, found: &mut Found) {
    fn run<B: Backend, K: Kernels<B>>(values: &[Vec<f32>; 4], device: &B::Device) -> Vec<Vec<f32>> {
        let step = AdamWStep {
            clip: 0.7,
            rate: 1e-2,
            beta_1: 0.9,
            beta_2: 0.95,
            epsilon: 1e-8,
            weight_decay: 0.1,
            step: 3,
        };
        let all = || values.each_ref().map(|values| Tensor::<B, 1>::from_data(values.as_slice(), device));
        let [value, first, second, gradient] = all();
        let (value, first, second) = K::adamw(value, first, second, gradient, &step);
        // A shared input must not change.
        let [again, one, two, gradient] = all();
        let held = again.clone();
        let _ = K::adamw(again, one, two, gradient.clone(), &step);
        let norm = K::squared_norm(gradient);
        vec![values_of(value), values_of(first), values_of(second), values_of(norm), values_of(held)]
    }
    let mut errors = Vec::new();
    for length in [1, 15, 257, 40_000] {
        let mut scaled =
            |scale: f32| random(generator, length).into_iter().map(|x| x * scale).collect::<Vec<f32>>();
        let values =
            [scaled(1.0), scaled(1e-3), scaled(1e-6).iter().map(|x| x.abs()).collect(), scaled(1e-3)];
        let cpu = Cpu::device(0).expect("there is a CPU");
        let wanted = run::<Infer, Portable>(&values, &cpu);
        let got = run::<P::Infer, P::Kernels>(&values, device);
        errors.extend(got.iter().zip(&wanted).map(|(got, wanted)| relative_distance(got, wanted)));
    }
    found.add("operation: AdamW and norms".into(), 1e-5, errors);
}
