//! Elementwise kernels: rope, SwiGLU, AdamW. One unit processes one vector of values, or two that are rotated
//! together.

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;
use surgery_core::burn::tensor::DType;
use surgery_core::kernels::AdamWStep;

use crate::tensor::{BLOCK, Cubes, array, contiguous, copy, dtype, empty, empty_like, width};

/// Rotates the pairs (i, i + half) of every head by its token's angles: `[tokens, heads, 2 · half]`, with cosine and
/// sine `[tokens, half]`. `back` selects the inverse rotation, which is the gradient.
#[cube(launch)]
fn rope_kernel<E: Float, N: Size>(
    x: &Array<Vector<E, N>>,
    cos: &Array<Vector<f32, N>>,
    sin: &Array<Vector<f32, N>>,
    y: &mut Array<Vector<E, N>>,
    heads: u32,
    // In vectors.
    half: u32,
    #[comptime] back: bool,
    #[define(E)] _dtype: StorageType,
) {
    let half = half as usize;
    if ABSOLUTE_POS < y.len() / 2 {
        let (vector, pair) = (ABSOLUTE_POS / half, ABSOLUTE_POS % half);
        let angle = vector / heads as usize * half + pair;
        let at = vector * 2 * half + pair;
        let first = Vector::<f32, N>::cast_from(x[at]);
        let second = Vector::<f32, N>::cast_from(x[at + half]);
        let c = cos[angle];
        // CubeCL for CUDA does not support negation of a vector.
        let s = if comptime!(back) { Vector::new(0.0f32) - sin[angle] } else { sin[angle] };
        y[at] = Vector::cast_from(first * c - second * s);
        y[at + half] = Vector::cast_from(second * c + first * s);
    }
}

/// As [`ModelKernels::rope`](surgery_core::kernels::ModelKernels::rope), or its gradient: `x` is `[.., heads, head_dim]`.
pub(crate) fn rope<R: CubeRuntime>(
    x: CubeTensor<R>,
    cos: CubeTensor<R>,
    sin: CubeTensor<R>,
    back: bool,
) -> CubeTensor<R> {
    let (x, cos, sin) = (contiguous(x), contiguous(cos), contiguous(sin));
    let shape = x.meta.shape();
    let (heads, half) = (shape[2] as u32, shape[3] / 2);
    let y = empty_like(&x);
    let width = width(&[&x, &cos], half);
    let cubes = Cubes::covering(x.meta.num_elements() / 2 / width);
    let (client, kind) = (x.client.clone(), dtype(&x));
    let (x, cos, sin, out) = (array(x), array(cos), array(sin), array(y.clone()));
    let half = (half / width) as u32;
    rope_kernel::launch::<R>(
        &client,
        cubes.count,
        cubes.dim,
        width,
        x,
        cos,
        sin,
        out,
        heads,
        half,
        back,
        kind,
    );
    y
}

/// The logistic function.
#[cube]
fn sigmoid<N: Size>(x: Vector<f32, N>) -> Vector<f32, N> {
    let one = Vector::new(1.0f32);
    one / (one + (Vector::new(0.0f32) - x).exp())
}

/// `silu(gate) · up`.
#[cube(launch)]
fn swiglu_kernel<E: Float, N: Size>(
    gate: &Array<Vector<E, N>>,
    up: &Array<Vector<E, N>>,
    y: &mut Array<Vector<E, N>>,
    #[define(E)] _dtype: StorageType,
) {
    if ABSOLUTE_POS < y.len() {
        let g = Vector::<f32, N>::cast_from(gate[ABSOLUTE_POS]);
        let u = Vector::<f32, N>::cast_from(up[ABSOLUTE_POS]);
        y[ABSOLUTE_POS] = Vector::cast_from(g * sigmoid(g) * u);
    }
}

/// The gradient of `silu(gate) · up`: with σ = sigmoid(gate), `g_gate = g σ (1 + gate (1 - σ)) up` and
/// `g_up = g σ gate`.
#[cube(launch)]
fn swiglu_vjp_kernel<E: Float, N: Size>(
    gate: &Array<Vector<E, N>>,
    up: &Array<Vector<E, N>>,
    gradient: &Array<Vector<E, N>>,
    g_gate: &mut Array<Vector<E, N>>,
    g_up: &mut Array<Vector<E, N>>,
    #[define(E)] _dtype: StorageType,
) {
    if ABSOLUTE_POS < gate.len() {
        let g = Vector::<f32, N>::cast_from(gate[ABSOLUTE_POS]);
        let u = Vector::<f32, N>::cast_from(up[ABSOLUTE_POS]);
        let gy = Vector::<f32, N>::cast_from(gradient[ABSOLUTE_POS]);
        let s = sigmoid(g);
        let one = Vector::new(1.0f32);
        g_gate[ABSOLUTE_POS] = Vector::cast_from(gy * s * (one + g * (one - s)) * u);
        g_up[ABSOLUTE_POS] = Vector::cast_from(gy * s * g);
    }
}

/// As [`ModelKernels::swiglu`](surgery_core::kernels::ModelKernels::swiglu).
pub(crate) fn swiglu<R: CubeRuntime>(gate: CubeTensor<R>, up: CubeTensor<R>) -> CubeTensor<R> {
    let (gate, up) = (contiguous(gate), contiguous(up));
    let y = empty_like(&gate);
    let width = width(&[&gate], gate.meta.num_elements());
    let cubes = Cubes::covering(gate.meta.num_elements() / width);
    let (client, kind) = (gate.client.clone(), dtype(&gate));
    let (gate, up, out) = (array(gate), array(up), array(y.clone()));
    swiglu_kernel::launch::<R>(&client, cubes.count, cubes.dim, width, gate, up, out, kind);
    y
}

/// The gradients of gate and up.
pub(crate) fn swiglu_vjp<R: CubeRuntime>(
    gate: CubeTensor<R>,
    up: CubeTensor<R>,
    gradient: CubeTensor<R>,
) -> [CubeTensor<R>; 2] {
    let (gate, up, gradient) = (contiguous(gate), contiguous(up), contiguous(gradient));
    let gradients = [empty_like(&gate), empty_like(&up)];
    let width = width(&[&gate], gate.meta.num_elements());
    let cubes = Cubes::covering(gate.meta.num_elements() / width);
    let (client, kind) = (gate.client.clone(), dtype(&gate));
    let [g_gate, g_up] = gradients.clone().map(array);
    let (gate, up, gradient) = (array(gate), array(up), array(gradient));
    swiglu_vjp_kernel::launch::<R>(
        &client,
        cubes.count,
        cubes.dim,
        width,
        gate,
        up,
        gradient,
        g_gate,
        g_up,
        kind,
    );
    gradients
}

/// Constants of one step of AdamW.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
struct Constants {
    clip: f32,
    /// 1 - ηλ
    decay: f32,
    beta_1: f32,
    /// 1 - β₁ and 1 - β₂, computed in f64 and rounded once.
    rest_1: f32,
    beta_2: f32,
    rest_2: f32,
    /// 1 - β₂ᵗ
    correction_2: f32,
    /// η / (1 - β₁ᵗ)
    rate: f32,
    epsilon: f32,
}

/// One step of AdamW, in place.
#[cube(launch)]
fn adamw_kernel<P: Float, G: Float, N: Size>(
    value: &mut Array<Vector<P, N>>,
    first: &mut Array<Vector<f32, N>>,
    second: &mut Array<Vector<f32, N>>,
    gradient: &Array<Vector<G, N>>,
    constants: &Constants,
    #[define(P, G)] _dtypes: [StorageType; 2],
) {
    if ABSOLUTE_POS < value.len() {
        let g = Vector::<f32, N>::cast_from(gradient[ABSOLUTE_POS]) * Vector::new(constants.clip);
        let m = first[ABSOLUTE_POS] * Vector::new(constants.beta_1) + g * Vector::new(constants.rest_1);
        let v = second[ABSOLUTE_POS] * Vector::new(constants.beta_2) + g * g * Vector::new(constants.rest_2);
        first[ABSOLUTE_POS] = m;
        second[ABSOLUTE_POS] = v;
        let root = (v / Vector::new(constants.correction_2)).sqrt() + Vector::new(constants.epsilon);
        let p = Vector::<f32, N>::cast_from(value[ABSOLUTE_POS]) * Vector::new(constants.decay);
        value[ABSOLUTE_POS] = Vector::cast_from(p - m / root * Vector::new(constants.rate));
    }
}

/// As [`OptimizerKernels::adamw`](surgery_core::kernels::OptimizerKernels::adamw), in place for tensors that are not shared.
pub(crate) fn adamw<R: CubeRuntime>(
    state: [CubeTensor<R>; 3],
    gradient: CubeTensor<R>,
    step: &AdamWStep,
) -> [CubeTensor<R>; 3] {
    let gradient = contiguous(gradient);
    let state = state.map(|tensor| {
        let tensor = contiguous(tensor);
        if tensor.can_mut() { tensor } else { copy(tensor) }
    });
    let AdamWStep { clip, rate, beta_1, beta_2, epsilon, weight_decay, step } = *step;
    let constants = ConstantsLaunch::<R>::new(
        clip as f32,
        (1.0 - rate * weight_decay) as f32,
        beta_1 as f32,
        (1.0 - beta_1) as f32,
        beta_2 as f32,
        (1.0 - beta_2) as f32,
        (1.0 - beta_2.powi(step)) as f32,
        (rate / (1.0 - beta_1.powi(step))) as f32,
        epsilon as f32,
    );
    let width = width(&[&state[0], &state[1], &gradient], gradient.meta.num_elements());
    let cubes = Cubes::covering(gradient.meta.num_elements() / width);
    let (client, kinds) = (gradient.client.clone(), [dtype(&state[0]), dtype(&gradient)]);
    let [p, m, v] = state.clone().map(array);
    let g = array(gradient);
    adamw_kernel::launch::<R>(&client, cubes.count, cubes.dim, width, p, m, v, g, constants, kinds);
    state
}

/// Number of values that each cube of [`squares_kernel`] sums.
const SQUARES: usize = 64 * BLOCK as usize;

/// The sum of squares of [`SQUARES`] values in each cube.
#[cube(launch)]
fn squares_kernel<E: Float>(
    x: &Array<E>,
    sums: &mut Array<f32>,
    #[comptime] each: usize,
    #[comptime] block: usize,
    #[define(E)] _dtype: StorageType,
) {
    let mut shared = SharedMemory::<f32>::new(block);
    let mut sum = f32::new(0.0);
    let end = min((CUBE_POS + 1) * each, x.len());
    let mut at = CUBE_POS * each + UNIT_POS as usize;
    while at < end {
        let value = f32::cast_from(x[at]);
        sum += value * value;
        at += block;
    }
    let total = crate::rows::cube_sum(sum, &mut shared);
    if UNIT_POS == 0 && CUBE_POS < sums.len() {
        sums[CUBE_POS] = total;
    }
}

/// The sum of all values, in one cube.
#[cube(launch)]
fn sum_kernel(x: &Array<f32>, y: &mut Array<f32>, #[comptime] block: usize) {
    let mut shared = SharedMemory::<f32>::new(block);
    let mut sum = f32::new(0.0);
    let mut at = UNIT_POS as usize;
    while at < x.len() {
        sum += x[at];
        at += block;
    }
    let total = crate::rows::cube_sum(sum, &mut shared);
    if UNIT_POS == 0 && CUBE_POS < y.len() {
        y[CUBE_POS] = total;
    }
}

/// The sum of squares of `x`, `[1]`, from partial sums in a fixed order. burn's own sum uses atomics, whose order
/// varies.
pub(crate) fn squares_sum<R: CubeRuntime>(x: CubeTensor<R>) -> CubeTensor<R> {
    let x = contiguous(x);
    let parts = x.meta.num_elements().div_ceil(SQUARES);
    let sums = empty(&x, [parts], DType::F32);
    let total = empty(&x, [1], DType::F32);
    let cubes = Cubes::of(parts);
    let (client, kind) = (x.client.clone(), dtype(&x));
    let out = array(sums.clone());
    squares_kernel::launch::<R>(
        &client,
        cubes.count,
        cubes.dim,
        array(x),
        out,
        SQUARES,
        BLOCK as usize,
        kind,
    );
    let (cubes, sums, out) = (Cubes::of(1), array(sums), array(total.clone()));
    sum_kernel::launch::<R>(&client, cubes.count, cubes.dim, sums, out, BLOCK as usize);
    total
}
