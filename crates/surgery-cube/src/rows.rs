//! Kernels with one cube per row: the norm, and the losses of the head with their gradients.

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;
use surgery_core::burn::tensor::DType;

use crate::tensor::{BLOCK, Cubes, array, contiguous, copy, dtype, empty, empty_like, width};

/// The sum of the units' values in a cube, in a fixed order. `shared` has one element for each unit.
#[cube]
pub(crate) fn cube_sum(value: f32, shared: &mut SharedMemory<f32>) -> f32 {
    let unit = UNIT_POS as usize;
    // Earlier reads of `shared` are complete.
    sync_cube();
    shared[unit] = value;
    sync_cube();
    let mut half = CUBE_DIM as usize / 2;
    while half > 0 {
        if unit < half {
            shared[unit] = shared[unit] + shared[unit + half];
        }
        sync_cube();
        half /= 2;
    }
    shared[0]
}

/// The sum of a vector's values.
#[cube]
fn lanes_sum<N: Size>(vector: Vector<f32, N>) -> f32 {
    let mut sum = f32::new(0.0);
    #[unroll]
    for lane in 0..N::value() {
        sum += vector[lane];
    }
    sum
}

/// The maximum of the units' values, like [`cube_sum`].
#[cube]
fn cube_max(value: f32, shared: &mut SharedMemory<f32>) -> f32 {
    let unit = UNIT_POS as usize;
    sync_cube();
    shared[unit] = value;
    sync_cube();
    let mut half = CUBE_DIM as usize / 2;
    while half > 0 {
        if unit < half {
            shared[unit] = max(shared[unit], shared[unit + half]);
        }
        sync_cube();
        half /= 2;
    }
    shared[0]
}

/// `x / sqrt(mean(x²) + ε) · weight`.
#[cube(launch)]
fn norm_kernel<X: Float, W: Float, Y: Float, N: Size>(
    x: &Array<Vector<X, N>>,
    weight: &Array<Vector<W, N>>,
    y: &mut Array<Vector<Y, N>>,
    epsilon: f32,
    #[comptime] block: usize,
    #[define(X, W, Y)] _dtypes: [StorageType; 3],
) {
    let mut shared = SharedMemory::<f32>::new(block);
    let size = weight.len();
    let start = CUBE_POS * size;
    if start < y.len() {
        let mut sums = Vector::<f32, N>::new(0.0);
        let mut i = UNIT_POS as usize;
        while i < size {
            let value = Vector::<f32, N>::cast_from(x[start + i]);
            sums += value * value;
            i += block;
        }
        let count = f32::cast_from((size * N::value()) as u32);
        let mean = cube_sum(lanes_sum(sums), &mut shared) / count;
        let scale = Vector::<f32, N>::new(1.0 / (mean + epsilon).sqrt());
        let mut i = UNIT_POS as usize;
        while i < size {
            let value = Vector::<f32, N>::cast_from(x[start + i]);
            y[start + i] = Vector::cast_from(value * scale * Vector::cast_from(weight[i]));
            i += block;
        }
    }
}

/// The gradient of the norm's input, and each row's scale: with `r = 1 / sqrt(mean(x²) + ε)`, `g_x = r g w - r³ x Σ(g
/// w x) / size`.
#[cube(launch)]
fn norm_vjp_kernel<X: Float, W: Float, G: Float, N: Size>(
    x: &Array<Vector<X, N>>,
    weight: &Array<Vector<W, N>>,
    gradient: &Array<Vector<G, N>>,
    g_x: &mut Array<Vector<X, N>>,
    scales: &mut Array<f32>,
    epsilon: f32,
    #[comptime] block: usize,
    #[define(X, W, G)] _dtypes: [StorageType; 3],
) {
    let mut shared = SharedMemory::<f32>::new(block);
    let size = weight.len();
    let start = CUBE_POS * size;
    if start < g_x.len() {
        let mut squares = Vector::<f32, N>::new(0.0);
        let mut products = Vector::<f32, N>::new(0.0);
        let mut i = UNIT_POS as usize;
        while i < size {
            let value = Vector::<f32, N>::cast_from(x[start + i]);
            squares += value * value;
            products += Vector::cast_from(gradient[start + i]) * Vector::cast_from(weight[i]) * value;
            i += block;
        }
        let squares = cube_sum(lanes_sum(squares), &mut shared);
        let products = cube_sum(lanes_sum(products), &mut shared);
        let count = f32::cast_from((size * N::value()) as u32);
        let scale = 1.0 / (squares / count + epsilon).sqrt();
        let back = Vector::<f32, N>::new(scale * scale * scale * products / count);
        let mut i = UNIT_POS as usize;
        while i < size {
            let along = Vector::<f32, N>::cast_from(gradient[start + i]) * Vector::cast_from(weight[i]);
            let value = Vector::<f32, N>::cast_from(x[start + i]);
            g_x[start + i] = Vector::cast_from(along * Vector::new(scale) - value * back);
            i += block;
        }
        if UNIT_POS == 0 {
            scales[CUBE_POS] = scale;
        }
    }
}

/// Partial sums, over stretches of rows, of the gradient of the norm's weight, `[stretches, size]`. A unit sums one
/// column of one stretch. [`columns_sum_kernel`] adds them up.
#[cube(launch)]
fn norm_weight_kernel<X: Float, G: Float>(
    x: &Array<X>,
    gradient: &Array<G>,
    scales: &Array<f32>,
    parts: &mut Array<f32>,
    size: u32,
    #[comptime] stretch: usize,
    #[define(X, G)] _dtypes: [StorageType; 2],
) {
    if ABSOLUTE_POS < parts.len() {
        let size = size as usize;
        let (part, column) = (ABSOLUTE_POS / size, ABSOLUTE_POS % size);
        let end = min((part + 1) * stretch, scales.len());
        let mut sum = f32::new(0.0);
        for row in part * stretch..end {
            let at = row * size + column;
            sum += f32::cast_from(x[at]) * f32::cast_from(gradient[at]) * scales[row];
        }
        parts[ABSOLUTE_POS] = sum;
    }
}

/// The sum of each column of `x`, `[rows, size]`, in order. A unit sums one column.
#[cube(launch)]
fn columns_sum_kernel<Y: Float>(x: &Array<f32>, y: &mut Array<Y>, #[define(Y)] _dtype: StorageType) {
    if ABSOLUTE_POS < y.len() {
        let mut sum = f32::new(0.0);
        let mut at = ABSOLUTE_POS;
        while at < x.len() {
            sum += x[at];
            at += y.len();
        }
        y[ABSOLUTE_POS] = Y::cast_from(sum);
    }
}

/// Number of rows that one unit sums.
const STRETCH: usize = 32;

/// As [`ModelKernels::rms_norm`](surgery_core::kernels::ModelKernels::rms_norm), with values of dtype `into`: `x` is `[.., size]`.
pub(crate) fn norm<R: CubeRuntime>(
    x: CubeTensor<R>,
    weight: CubeTensor<R>,
    epsilon: f32,
    into: DType,
) -> CubeTensor<R> {
    let (x, weight) = (contiguous(x), contiguous(weight));
    let mut y = empty(&x, [x.meta.num_elements()], into);
    y.meta = x.meta.clone();
    let cubes = Cubes::of(x.meta.num_elements() / weight.meta.num_elements());
    let (client, kinds) = (x.client.clone(), [dtype(&x), dtype(&weight), dtype(&y)]);
    let width = width(&[&x, &weight, &y], weight.meta.num_elements());
    let (x, weight, out, block) = (array(x), array(weight), array(y.clone()), BLOCK as usize);
    norm_kernel::launch::<R>(&client, cubes.count, cubes.dim, width, x, weight, out, epsilon, block, kinds);
    y
}

/// The gradients of a norm's input and weight.
pub(crate) fn norm_vjp<R: CubeRuntime>(
    x: CubeTensor<R>,
    weight: CubeTensor<R>,
    gradient: CubeTensor<R>,
    epsilon: f32,
) -> [CubeTensor<R>; 2] {
    let (x, weight, gradient) = (contiguous(x), contiguous(weight), contiguous(gradient));
    let size = weight.meta.num_elements();
    let rows = x.meta.num_elements() / size;
    let stretches = rows.div_ceil(STRETCH);
    let g_x = empty_like(&x);
    let scales = empty(&x, [rows], DType::F32);
    let parts = empty(&x, [stretches, size], DType::F32);
    let g_weight = empty_like(&weight);
    let client = x.client.clone();
    let [kind, of_weight, of_gradient] = [dtype(&x), dtype(&weight), dtype(&gradient)];
    let cubes = Cubes::of(rows);
    norm_vjp_kernel::launch::<R>(
        &client,
        cubes.count,
        cubes.dim,
        width(&[&x, &weight, &gradient], size),
        array(x.clone()),
        array(weight),
        array(gradient.clone()),
        array(g_x.clone()),
        array(scales.clone()),
        epsilon,
        BLOCK as usize,
        [kind, of_weight, of_gradient],
    );
    let cubes = Cubes::covering(stretches * size);
    norm_weight_kernel::launch::<R>(
        &client,
        cubes.count,
        cubes.dim,
        array(x),
        array(gradient),
        array(scales),
        array(parts.clone()),
        size as u32,
        STRETCH,
        [kind, of_gradient],
    );
    let cubes = Cubes::covering(size);
    let (parts, out) = (array(parts), array(g_weight.clone()));
    columns_sum_kernel::launch::<R>(&client, cubes.count, cubes.dim, parts, out, of_weight);
    [g_x, g_weight]
}

/// A value below every logit.
const LOWEST: f32 = -1e30;

/// The logarithm of the sum of exponentials of a row.
#[cube]
fn log_sum(
    logits: &Array<f32>,
    start: usize,
    end: usize,
    shared: &mut SharedMemory<f32>,
    #[comptime] block: usize,
) -> f32 {
    let (mut top, mut sum) = (f32::new(LOWEST), f32::new(0.0));
    let mut i = start + UNIT_POS as usize;
    while i < end {
        let value = logits[i];
        let higher = max(top, value);
        sum = sum * (top - higher).exp() + (value - higher).exp();
        top = higher;
        i += block;
    }
    let highest = cube_max(top, shared);
    cube_sum(sum * (top - highest).exp(), shared).ln() + highest
}

/// The NLL of a row's token. With `gradient`, the logits are replaced by their gradient, `coefficient (q -
/// onehot(token))`.
#[cube(launch)]
fn nll_kernel(
    logits: &mut Array<f32>,
    tokens: &Array<i32>,
    coefficients: &Array<f32>,
    losses: &mut Array<f32>,
    vocab: u32,
    #[comptime] gradient: bool,
    #[comptime] block: usize,
) {
    let mut shared = SharedMemory::<f32>::new(block);
    let vocab = vocab as usize;
    let start = CUBE_POS * vocab;
    if CUBE_POS < losses.len() {
        let log_sum = log_sum(logits, start, start + vocab, &mut shared, block);
        let token = start + u32::cast_from(tokens[CUBE_POS]) as usize;
        let loss = log_sum - logits[token];
        // All units have read the token's logit before it is overwritten.
        sync_cube();
        if UNIT_POS == 0 {
            losses[CUBE_POS] = loss;
        }
        if comptime!(gradient) {
            let coefficient = coefficients[CUBE_POS];
            let mut i = start + UNIT_POS as usize;
            while i < start + vocab {
                let q = (logits[i] - log_sum).exp();
                let onehot = select(i == token, f32::new(1.0), f32::new(0.0));
                logits[i] = coefficient * (q - onehot);
                i += block;
            }
        }
    }
}

/// The KL of a row, `Σ p (log p - log q) + q - p`. With `gradient`, the logits are replaced by their gradient,
/// `coefficient (q - p)`.
#[cube(launch)]
fn kl_kernel(
    logits: &mut Array<f32>,
    reference: &Array<f32>,
    coefficients: &Array<f32>,
    losses: &mut Array<f32>,
    vocab: u32,
    #[comptime] gradient: bool,
    #[comptime] block: usize,
) {
    let mut shared = SharedMemory::<f32>::new(block);
    let vocab = vocab as usize;
    let start = CUBE_POS * vocab;
    if CUBE_POS < losses.len() {
        let sum_q = log_sum(logits, start, start + vocab, &mut shared, block);
        let sum_p = log_sum(reference, start, start + vocab, &mut shared, block);
        let mut coefficient = f32::new(0.0);
        if comptime!(gradient) {
            coefficient = coefficients[CUBE_POS];
        }
        let mut sum = f32::new(0.0);
        let mut i = start + UNIT_POS as usize;
        while i < start + vocab {
            let (log_q, log_p) = (logits[i] - sum_q, reference[i] - sum_p);
            let (q, p) = (log_q.exp(), log_p.exp());
            sum += p * (log_p - log_q) + (q - p);
            if comptime!(gradient) {
                logits[i] = coefficient * (q - p);
            }
            i += block;
        }
        let loss = cube_sum(sum, &mut shared);
        if UNIT_POS == 0 {
            losses[CUBE_POS] = loss;
        }
    }
}

/// The targets that the logits are compared with.
pub(crate) enum LossTargets<R: CubeRuntime> {
    /// The next tokens, `[rows]`.
    Tokens(CubeTensor<R>),
    /// The reference's logits, `[rows, vocab]` in f32.
    Reference(CubeTensor<R>),
}

/// The loss of each row of f32 logits `[rows, vocab]`. With coefficients `[rows]`, the logits are replaced by the
/// gradient of the weighted sum, in place if they are not shared. Without coefficients, they are unchanged.
pub(crate) fn losses<R: CubeRuntime>(
    logits: CubeTensor<R>,
    targets: LossTargets<R>,
    coefficients: Option<CubeTensor<R>>,
) -> (CubeTensor<R>, CubeTensor<R>) {
    let gradient = coefficients.is_some();
    let logits = contiguous(logits);
    let logits = if gradient && !logits.can_mut() { copy(logits) } else { logits };
    let (rows, vocab) = (logits.meta.shape()[0], logits.meta.shape()[1] as u32);
    let losses = empty(&logits, [rows], DType::F32);
    // The kernel ignores this placeholder.
    let coefficients = coefficients.unwrap_or_else(|| empty(&logits, [1], DType::F32));
    let (client, cubes, block) = (logits.client.clone(), Cubes::of(rows), BLOCK as usize);
    let (weights, out, z) = (array(contiguous(coefficients)), array(losses.clone()), array(logits.clone()));
    match targets {
        LossTargets::Tokens(tokens) => {
            let tokens = array(contiguous(tokens));
            nll_kernel::launch::<R>(
                &client,
                cubes.count,
                cubes.dim,
                z,
                tokens,
                weights,
                out,
                vocab,
                gradient,
                block,
            );
        }
        LossTargets::Reference(reference) => {
            let reference = array(contiguous(reference));
            kl_kernel::launch::<R>(
                &client,
                cubes.count,
                cubes.dim,
                z,
                reference,
                weights,
                out,
                vocab,
                gradient,
                block,
            );
        }
    }
    (losses, logits)
}
