//! The innermost loop: a block of `C` stays in registers while products are added to it.
//!
//! All functions here are inlined into callers compiled for the processor's instruction set. Loops are written
//! without closures: a closure that is not inlined would be compiled without these instructions.
#![allow(clippy::needless_range_loop)]

/// Number of panel rows to prefetch.
const AHEAD: usize = 32;
/// Floats in a cache line.
pub(super) const LINE: usize = 16;
/// Columns of the widest panel.
const MOST: usize = 32;

/// A block of `C` that fits into the registers. Element (i, k) of its `A` is at `i · DOWN + k · ACROSS`; its panel of
/// `B` is `W` registers wide.
pub(super) struct Block {
    pub(super) a: *const f32,
    pub(super) b: *const f32,
    pub(super) c: *mut f32,
    /// Distance between rows of `C`.
    pub(super) stride: usize,
    /// Columns of `A` and rows of `B`.
    pub(super) deep: usize,
    /// Columns of `C`; at most those of the panel.
    pub(super) width: usize,
    /// The matrix to add the products to, with the row distance of `C`; null for none.
    pub(super) base: *const f32,
}

impl Block {
    /// Runs the loop compiled for `height` rows; `height` is at most `HEIGHT`.
    ///
    /// # Safety
    /// The block must lie inside its matrices, and the processor must support the instructions of `V`.
    #[inline(always)]
    pub(super) unsafe fn run<
        V: Register,
        const W: usize,
        const HEIGHT: usize,
        const DOWN: usize,
        const ACROSS: usize,
    >(
        self,
        height: usize,
    ) {
        macro_rules! of {
            ($($n:literal)*) => {
                match height {
                    // SAFETY: promised by the caller.
                    $($n if $n <= HEIGHT => unsafe { self.fixed::<V, W, $n, DOWN, ACROSS>() },)*
                    _ => unreachable!(),
                }
            };
        }
        of!(14 13 12 11 10 9 8 7 6 5 4 3 2 1)
    }

    /// # Safety
    /// The conditions of [`run`](Self::run).
    #[inline(always)]
    unsafe fn fixed<V: Register, const W: usize, const H: usize, const DOWN: usize, const ACROSS: usize>(
        self,
    ) {
        let Self { a, b, c, stride, deep, width, base } = self;
        // SAFETY: promised by the caller: H rows of A, `deep` rows of the panel, `width` columns of C.
        unsafe {
            let mut sums = [[V::zero(); W]; H];
            for i in 0..H {
                for column in (0..W * V::LANES).step_by(LINE) {
                    // C is written at the end, so prefetch it now.
                    super::fetch(c.wrapping_add(i * stride + column));
                }
            }
            for k in 0..deep {
                for column in (0..W * V::LANES).step_by(LINE) {
                    super::fetch(b.wrapping_add((k + AHEAD) * W * V::LANES + column));
                }
                let mut right = [V::zero(); W];
                for w in 0..W {
                    right[w] = V::load(b.add((k * W + w) * V::LANES));
                }
                for i in 0..H {
                    let left = V::splat(*a.add(i * DOWN + k * ACROSS));
                    for w in 0..W {
                        sums[i][w] = V::fma(left, right[w], sums[i][w]);
                    }
                }
            }
            if width == W * V::LANES {
                for i in 0..H {
                    for w in 0..W {
                        let (at, sum) = (i * stride + w * V::LANES, sums[i][w]);
                        let sum = if base.is_null() { sum } else { V::add(V::load(base.add(at)), sum) };
                        V::store(c.add(at), sum);
                    }
                }
                return;
            }
            let mut values = [0.0f32; MOST];
            for i in 0..H {
                for w in 0..W {
                    V::store(values.as_mut_ptr().add(w * V::LANES), sums[i][w]);
                }
                for j in 0..width {
                    let at = i * stride + j;
                    *c.add(at) = if base.is_null() { values[j] } else { *base.add(at) + values[j] };
                }
            }
        }
    }
}

/// A SIMD register of floats.
pub(super) trait Register: Copy {
    /// Number of floats.
    const LANES: usize;
    unsafe fn zero() -> Self;
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(to: *mut f32, value: Self);
    unsafe fn add(a: Self, b: Self) -> Self;
    /// `a · b + c`
    unsafe fn fma(a: Self, b: Self, c: Self) -> Self;
}

macro_rules! register {
    ($type:ident, $lanes:literal, $zero:ident, $splat:ident, $load:ident, $store:ident, $add:ident, $fma:ident) => {
        #[cfg(target_arch = "x86_64")]
        impl Register for std::arch::x86_64::$type {
            const LANES: usize = $lanes;
            #[inline(always)]
            unsafe fn zero() -> Self {
                // SAFETY: the caller promises that the processor supports it.
                unsafe { std::arch::x86_64::$zero() }
            }
            #[inline(always)]
            unsafe fn splat(value: f32) -> Self {
                // SAFETY: the caller promises that the processor supports it.
                unsafe { std::arch::x86_64::$splat(value) }
            }
            #[inline(always)]
            unsafe fn load(from: *const f32) -> Self {
                // SAFETY: promised by the caller, for the processor and the pointer.
                unsafe { std::arch::x86_64::$load(from) }
            }
            #[inline(always)]
            unsafe fn store(to: *mut f32, value: Self) {
                // SAFETY: promised by the caller, for the processor and the pointer.
                unsafe { std::arch::x86_64::$store(to, value) }
            }
            #[inline(always)]
            unsafe fn add(a: Self, b: Self) -> Self {
                // SAFETY: the caller promises that the processor supports it.
                unsafe { std::arch::x86_64::$add(a, b) }
            }
            #[inline(always)]
            unsafe fn fma(a: Self, b: Self, c: Self) -> Self {
                // SAFETY: the caller promises that the processor supports it.
                unsafe { std::arch::x86_64::$fma(a, b, c) }
            }
        }
    };
}

register!(
    __m512,
    16,
    _mm512_setzero_ps,
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_add_ps,
    _mm512_fmadd_ps
);
register!(
    __m256,
    8,
    _mm256_setzero_ps,
    _mm256_set1_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_add_ps,
    _mm256_fmadd_ps
);

/// The portable fallback: four floats, vectorised by the compiler.
impl Register for [f32; 4] {
    const LANES: usize = 4;
    #[inline(always)]
    unsafe fn zero() -> Self {
        [0.0; 4]
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        [value; 4]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: promised by the caller; an array of floats has the alignment of a float.
        unsafe { from.cast::<[f32; 4]>().read() }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: Self) {
        // SAFETY: as above.
        unsafe { to.cast::<[f32; 4]>().write(value) }
    }
    #[inline(always)]
    unsafe fn add(a: Self, b: Self) -> Self {
        std::array::from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn fma(a: Self, b: Self, c: Self) -> Self {
        std::array::from_fn(|i| crate::simd::fma::<{ crate::simd::BASELINE_FMA }>(a[i], b[i], c[i]))
    }
}
