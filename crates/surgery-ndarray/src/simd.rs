//! Loops compiled once for each instruction set, chosen at run time.

use std::fmt::{self, Display, Formatter};
use std::sync::OnceLock;

/// The instruction sets that loops are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isa {
    /// 32 registers of 16 floats.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// 16 registers of 8 floats, with fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// The minimum of this architecture.
    Baseline,
}

impl Display for Isa {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str(match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => "AVX-512",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => "AVX2",
            Isa::Baseline => std::env::consts::ARCH,
        })
    }
}

/// The best instruction set of this processor.
#[inline]
pub(crate) fn isa() -> Isa {
    static ISA: OnceLock<Isa> = OnceLock::new();
    *ISA.get_or_init(|| {
        #[cfg(target_arch = "x86_64")]
        {
            let all = is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl");
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq") && all {
                return Isa::Avx512;
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Isa::Avx2;
            }
        }
        Isa::Baseline
    })
}

/// Whether the baseline has a fused multiply-add.
pub(crate) const BASELINE_FMA: bool = cfg!(target_arch = "aarch64");

/// Declares a function that runs a body of the same signature, compiled for each instruction set. The body is plain
/// Rust, generic over whether fused multiply-add is one instruction, and the compiler vectorises it.
macro_rules! vectorised {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $ret:ty)? = $body:ident) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        #[allow(unsafe_code)]
        $vis fn $name($($arg: $type),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
            fn avx512($($arg: $type),*) $(-> $ret)? {
                $body::<true>($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $type),*) $(-> $ret)? {
                $body::<true>($($arg),*)
            }
            match $crate::simd::isa() {
                // SAFETY: the processor supports exactly these instructions.
                #[cfg(target_arch = "x86_64")]
                $crate::simd::Isa::Avx512 => unsafe { avx512($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::simd::Isa::Avx2 => unsafe { avx2($($arg),*) },
                $crate::simd::Isa::Baseline => $body::<{ $crate::simd::BASELINE_FMA }>($($arg),*),
            }
        }
    };
}
pub(crate) use vectorised;

/// `a · b + c`, rounded once if `FMA` is true, which means one instruction.
#[inline(always)]
pub(crate) fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// `eˣ` to within 2 units in the last place: `x = n ln 2 + r` with |r| ≤ ln 2 / 2, a polynomial in `r` (the
/// coefficients of Cephes' expf), and `n` added to the exponent. Underflow gives the smallest normal number, overflow
/// infinity.
#[inline(always)]
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Adding it rounds to a whole number, which is then in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let bounded = x.clamp(-87.3, 88.3);
    let shifted = fma::<FMA>(bounded, LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = fma::<FMA>(n, -LN2_HIGH, bounded);
    let r = fma::<FMA>(n, -LN2_LOW, r);
    let mut p = 1.987_569_1e-4;
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5] {
        p = fma::<FMA>(p, r, coefficient);
    }
    let p = fma::<FMA>(p, r * r, r) + 1.0;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
    // A NaN passes through the clamp and the product.
    if x > 88.3 { f32::INFINITY } else { p * power }
}

/// Number of partial sums of a reduction: that of the widest register, so that every instruction set adds in the same
/// order.
pub(crate) const LANES: usize = 16;

/// The sum of the partial sums, added pairwise.
#[inline(always)]
pub(crate) fn total(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// `Σ f(i)` over the indices of slices of length `n`, in [`LANES`] partial sums.
#[inline(always)]
pub(crate) fn sum(n: usize, term: impl Fn(usize, f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let whole = n / LANES * LANES;
    let mut start = 0;
    while start < whole {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum = term(start + lane, *sum);
        }
        start += LANES;
    }
    for index in whole..n {
        lanes[index - whole] = term(index, lanes[index - whole]);
    }
    total(lanes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(always)]
    fn exps_body<const FMA: bool>(values: &mut [f32]) {
        values.iter_mut().for_each(|value| *value = exp::<FMA>(*value));
    }
    vectorised!(fn exps(values: &mut [f32]) = exps_body);

    #[test]
    fn exp_is_accurate_to_two_units() {
        let x: Vec<f32> = (-87_000..88_000).map(|i| i as f32 / 1000.0).collect();
        let mut y = x.clone();
        exps(&mut y);
        for (x, y) in x.iter().zip(y) {
            let exact = f64::from(*x).exp();
            assert!((f64::from(y) - exact).abs() <= exact * 2.4e-7, "exp({x}) = {y}, not {exact}");
        }
        let mut ends = [f32::NEG_INFINITY, -1e30, 0.0, 89.0, f32::INFINITY, f32::NAN];
        exps(&mut ends);
        assert!(ends[0] < 2e-38 && ends[1] < 2e-38 && ends[2] == 1.0);
        assert!(ends[3] == f32::INFINITY && ends[4] == f32::INFINITY && ends[5].is_nan());
    }

    #[test]
    fn sums_cover_every_length() {
        for n in 0..50 {
            assert_eq!(sum(n, |i, sum| sum + i as f32), (0..n).sum::<usize>() as f32);
        }
    }
}
