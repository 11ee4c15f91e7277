//! The floor of a step's time: its matrix products at the best rate that this machine reaches for any product.

use std::process::Command;
use std::time::Instant;

use serde::Serialize;
use surgery_core::burn::tensor::{Distribution, Tensor};
use surgery_core::config::LlamaConfig;
use surgery_core::kernels::{HEAD_CHUNK, ModelKernels};
use surgery_core::platform::{DeviceOf, Platform};
use surgery_core::recipe::Precision;
use surgery_ndarray::Cpu;

use crate::Result;
use crate::ours::timed;
use crate::work::StepSample;

/// The best rate of a matrix product.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ProductRate {
    /// NT, NN or TN.
    pub(crate) form: String,
    /// Rows, inner size and columns of the layer's forward product.
    pub(crate) shape: String,
    /// Operations a second.
    pub(crate) rate: f64,
}

/// Operations of the matrix products of one step with precomputed reference states. A multiplication and an addition
/// count as two operations, an embedding lookup as none.
pub(crate) fn step_operations(config: &LlamaConfig, draw: &StepSample) -> f64 {
    let LlamaConfig { hidden_size, intermediate_size, vocab_size, .. } = *config;
    let queries = config.num_attention_heads * config.head_dim;
    let keys = config.num_key_value_heads * config.head_dim;
    let layer = hidden_size * (2 * queries + 2 * keys + 3 * intermediate_size);
    let (layers, layer, head) =
        (config.num_hidden_layers as f64, layer as f64, (vocab_size * hidden_size) as f64);
    let of_document = |(length, is_retain): (usize, bool)| {
        let (tokens, predicted) = (length as f64, (length - 1) as f64);
        // The forward pass, and twice as much for the gradients of the input and the weights.
        let weights = 6.0 * layers * layer * tokens;
        // For each query and the keys up to its own: 2 products forward and 5 backward, one of which recomputes the
        // scores.
        let pairs = tokens * (tokens + 1.0) / 2.0;
        let attention = 2.0 * (2.0 + 5.0) * layers * queries as f64 * pairs;
        // The last position predicts nothing. The reference's logits need no gradient.
        let heads = if is_retain { 6.0 + 2.0 } else { 6.0 } * head * predicted;
        weights + attention + heads
    };
    draw.lengths().map(of_document).sum()
}

/// The rates of the products in a step's layers and of a large square product: on the CPU from the program
/// `surgery-gemm`, on another device from the backend's own products.
pub(crate) fn product_rates<P: Platform>(
    config: &LlamaConfig,
    precision: Precision,
    draw: &StepSample,
    device: &DeviceOf<P>,
) -> Result<Vec<ProductRate>> {
    let (tokens, hidden, wide) = (draw.num_tokens(), config.hidden_size, config.intermediate_size);
    let head_rows = HEAD_CHUNK.min(tokens);
    let shapes = [
        [tokens, hidden, hidden],
        [tokens, hidden, wide],
        [tokens, wide, hidden],
        [head_rows, hidden, config.vocab_size],
        [2048, 2048, 2048],
    ];
    if P::NAME != Cpu::NAME {
        return shapes.into_iter().map(|shape| rate_on::<P>(shape, precision, device)).collect();
    }
    let program =
        std::env::current_exe()?.with_file_name(format!("surgery-gemm{}", std::env::consts::EXE_SUFFIX));
    let arguments = shapes.map(|[rows, inner, columns]| format!("{rows}x{inner}x{columns}"));
    let output = Command::new(&program).args(arguments).output().map_err(|error| {
        format!("cannot run {}: {error}; `cargo xtask bench` builds it", program.display())
    })?;
    if !output.status.success() {
        return Err(
            format!("{} failed: {}", program.display(), String::from_utf8_lossy(&output.stderr)).into()
        );
    }
    let parse = |line: &str| {
        let [form, shape, rate] = line.split(' ').collect::<Vec<_>>().try_into().ok()?;
        Some(ProductRate { form: form.into(), shape: shape.into(), rate: str::parse(rate).ok()? })
    };
    let rates = String::from_utf8(output.stdout)?.lines().map(parse).collect::<Option<Vec<_>>>();
    rates
        .filter(|rates| !rates.is_empty())
        .ok_or_else(|| format!("{} printed no rates", program.display()).into())
}

/// The best rate of `x Wᵀ` over at least 5 products and 0.3 s, after one for compilation.
fn rate_on<P: Platform>(
    [rows, inner, columns]: [usize; 3],
    precision: Precision,
    device: &DeviceOf<P>,
) -> Result<ProductRate> {
    let random = |shape| {
        Tensor::<P::Infer, 2>::random(shape, Distribution::Default, device).cast(precision.computed())
    };
    let (x, w) = (random([rows, inner]).reshape([1, rows, inner]), random([columns, inner]));
    let product = || {
        timed::<P, _>(device, || Ok(<P::Kernels as ModelKernels<P::Infer>>::project(x.clone(), w.clone())))
    };
    product()?;
    let (mut best, mut count, started) = (f64::INFINITY, 0, Instant::now());
    while count < 5 || started.elapsed().as_secs_f64() < 0.3 {
        best = best.min(product()?.1);
        count += 1;
    }
    let rate = 2.0 * rows as f64 * inner as f64 * columns as f64 / best;
    Ok(ProductRate { form: "NT".into(), shape: format!("{rows}x{inner}x{columns}"), rate })
}

#[cfg(test)]
mod tests {
    use crate::work::{Lengths, SHAPES, Work};

    #[test]
    fn operations_equal_a_count_by_hand() {
        let shape = &SHAPES[0];
        let work = Work::new(shape, Lengths::Equal);
        // 32 documents of 120 tokens; 4 layers of 128 x (4 x 128 + 3 x 344); 128 x 1024 in the head.
        let weights = 6.0 * 4.0 * 197_632.0 * 3840.0;
        let attention = 14.0 * 4.0 * 128.0 * 7260.0 * 32.0;
        let head = 131_072.0 * 119.0 * (24.0 * 6.0 + 8.0 * 8.0);
        let operations = super::step_operations(&shape.config().unwrap(), &work.draw);
        assert_eq!(operations, weights + attention + head);
    }
}
