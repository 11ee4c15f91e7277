//! Operations on one row between two matrix products, forward and backward. Every function is a loop over contiguous
//! floats; its gradient follows it, with the formula.

use crate::simd::{LANES, exp, fma, sum, total, vectorised};

#[inline(always)]
fn inverse_norm<const FMA: bool>(x: &[f32], epsilon: f32) -> f32 {
    let squares = sum(x.len(), |i, sum| fma::<FMA>(x[i], x[i], sum));
    1.0 / (squares / x.len() as f32 + epsilon).sqrt()
}

#[inline(always)]
fn rms_norm_body<const FMA: bool>(x: &[f32], weight: &[f32], epsilon: f32, y: &mut [f32]) {
    let weight = &weight[..x.len()];
    let inverse = inverse_norm::<FMA>(x, epsilon);
    for (y, (x, w)) in y.iter_mut().zip(x.iter().zip(weight)) {
        *y = x * inverse * w;
    }
}
vectorised!(
    /// `y = x r w` with `r = 1 / sqrt(mean(x²) + ε)`.
    pub(crate) fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32, y: &mut [f32]) = rms_norm_body
);

#[inline(always)]
fn rms_norm_vjp_body<const FMA: bool>(
    x: &[f32],
    weight: &[f32],
    epsilon: f32,
    gy: &[f32],
    base: &[f32],
    gx: &mut [f32],
    gw: &mut [f32],
) {
    let n = x.len();
    let (weight, gy, base, gx, gw) = (&weight[..n], &gy[..n], &base[..n], &mut gx[..n], &mut gw[..n]);
    let inverse = inverse_norm::<FMA>(x, epsilon);
    let along = sum(n, |i, sum| fma::<FMA>(gy[i] * weight[i], x[i], sum));
    let back = along * inverse * inverse * inverse / n as f32;
    for i in 0..n {
        gw[i] = fma::<FMA>(gy[i] * inverse, x[i], gw[i]);
        gx[i] = base[i] + fma::<FMA>(gy[i] * inverse, weight[i], -(x[i] * back));
    }
}
vectorised!(
    /// The gradient of [`rms_norm`]; that of `x` is added to `base`: `gx ← base + r (gy w) - x r³ Σ(gy w x) / n`, `gw
    /// ← gw + gy x r`.
    pub(crate) fn rms_norm_vjp(
        x: &[f32], weight: &[f32], epsilon: f32, gy: &[f32], base: &[f32], gx: &mut [f32], gw: &mut [f32],
    ) = rms_norm_vjp_body
);

#[inline(always)]
fn rope_body<const FMA: bool>(x: &mut [f32], cos: &[f32], sin: &[f32], turn: f32, scale: f32) {
    let half = cos.len();
    let sin = &sin[..half];
    for head in x.chunks_exact_mut(2 * half) {
        let (first, second) = head.split_at_mut(half);
        for i in 0..half {
            let (a, b) = (first[i] * scale, second[i] * scale);
            let s = sin[i] * turn;
            first[i] = fma::<FMA>(a, cos[i], -(b * s));
            second[i] = fma::<FMA>(b, cos[i], a * s);
        }
    }
}
vectorised!(
    /// Rotates the pairs (i, i + n/2) of every head of `x` by the angles of its position, and scales them. `turn` is
    /// 1 for the rotation, or -1 for its inverse, which is also its gradient.
    pub(crate) fn rope(x: &mut [f32], cos: &[f32], sin: &[f32], turn: f32, scale: f32) = rope_body
);

#[inline(always)]
fn swiglu_body<const FMA: bool>(gate: &[f32], up: &[f32], y: &mut [f32]) {
    for (y, (gate, up)) in y.iter_mut().zip(gate.iter().zip(up)) {
        *y = gate / (1.0 + exp::<FMA>(-gate)) * up;
    }
}
vectorised!(
    /// `y = silu(gate) up`, `silu(g) = g / (1 + e^-g)`.
    pub(crate) fn swiglu(gate: &[f32], up: &[f32], y: &mut [f32]) = swiglu_body
);

#[inline(always)]
fn swiglu_vjp_body<const FMA: bool>(
    gate: &[f32],
    up: &[f32],
    y: &mut [f32],
    g_gate: &mut [f32],
    g_up: &mut [f32],
) {
    let n = y.len();
    let (gate, up, g_gate, g_up) = (&gate[..n], &up[..n], &mut g_gate[..n], &mut g_up[..n]);
    for i in 0..n {
        let (g, u, gy) = (gate[i], up[i], y[i]);
        let sigmoid = 1.0 / (1.0 + exp::<FMA>(-g));
        let silu = g * sigmoid;
        y[i] = silu * u;
        g_up[i] = gy * silu;
        g_gate[i] = gy * u * fma::<FMA>(silu, 1.0 - sigmoid, sigmoid);
    }
}
vectorised!(
    /// The gradient of [`swiglu`]: `y` holds `gy` and becomes `silu(gate) up`; `g_gate` becomes
    /// `gy up σ (1 + gate (1 - σ))`, `g_up` becomes `gy silu(gate)`.
    pub(crate) fn swiglu_vjp(gate: &[f32], up: &[f32], y: &mut [f32], g_gate: &mut [f32], g_up: &mut [f32]) =
        swiglu_vjp_body
);

/// The largest of `x`; NaN if any is.
#[inline(always)]
fn largest(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let larger = |a: f32, b: f32| if b > a || b.is_nan() { b } else { a };
    let (whole, rest) = x.as_chunks::<LANES>();
    for chunk in whole {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, *x);
        }
    }
    lanes.into_iter().chain(rest.iter().copied()).fold(f32::NEG_INFINITY, larger)
}

#[inline(always)]
fn most_body<const FMA: bool>(x: &[f32]) -> f32 {
    largest(x)
}
vectorised!(
    /// The largest of `x`; NaN if any is.
    pub(crate) fn most(x: &[f32]) -> f32 = most_body
);

#[inline(always)]
fn exponentials_body<const FMA: bool>(x: &mut [f32]) -> (f32, f32) {
    let most = largest(x);
    let mut lanes = [0.0; LANES];
    let (whole, rest) = x.as_chunks_mut::<LANES>();
    for chunk in whole {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *x = exp::<FMA>(*x - most);
            *lane += *x;
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *x = exp::<FMA>(*x - most);
        *lane += *x;
    }
    (most, total(lanes))
}
vectorised!(
    /// `x ← e^(x - m)` with `m` the largest of `x`; returns `m` and the sum.
    pub(crate) fn exponentials(x: &mut [f32]) -> (f32, f32) = exponentials_body
);

#[inline(always)]
fn softmax_again_body<const FMA: bool>(x: &mut [f32], log_sum: f32) {
    x.iter_mut().for_each(|x| *x = exp::<FMA>(*x - log_sum));
}
vectorised!(
    /// `x ← e^(x - l)`: the softmax, recomputed from the logarithm `l` of the sum of exponentials.
    pub(crate) fn softmax_again(x: &mut [f32], log_sum: f32) = softmax_again_body
);

#[inline(always)]
fn softmax_vjp_body<const FMA: bool>(p: &[f32], gp: &mut [f32], along: f32) {
    for (gp, p) in gp.iter_mut().zip(p) {
        *gp = p * (*gp - along);
    }
}
vectorised!(
    /// The gradient of a softmax `p`: `gp ← p (gp - along)` with `along = Σ p gp`.
    pub(crate) fn softmax_vjp(p: &[f32], gp: &mut [f32], along: f32) = softmax_vjp_body
);

#[inline(always)]
fn dot_body<const FMA: bool>(a: &[f32], b: &[f32]) -> f32 {
    let b = &b[..a.len()];
    sum(a.len(), |i, sum| fma::<FMA>(a[i], b[i], sum))
}
vectorised!(
    /// `Σ a b`
    pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 = dot_body
);

#[inline(always)]
fn add_body<const FMA: bool>(sum: &mut [f32], x: &[f32], scale: f32) {
    for (sum, x) in sum.iter_mut().zip(x) {
        *sum = fma::<FMA>(scale, *x, *sum);
    }
}
vectorised!(
    /// `sum ← sum + scale x`
    pub(crate) fn add(sum: &mut [f32], x: &[f32], scale: f32) = add_body
);

#[inline(always)]
fn scale_body<const FMA: bool>(x: &mut [f32], scale: f32) {
    x.iter_mut().for_each(|x| *x *= scale);
}
vectorised!(
    /// `x ← scale x`
    pub(crate) fn scale(x: &mut [f32], scale: f32) = scale_body
);
