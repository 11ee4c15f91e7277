//! Matrix products, by the kernels of burn's backend (cubek).

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubek::matmul::components::tile::TileMatmulKind::{Cmma, Mma};
use cubek::matmul::definition::{MatmulElems, MatmulGlobalElems};
use cubek::matmul::launch::{Strategy, launch_ref};
use cubek::matmul::routines::BlueprintStrategy::Inferred;
use cubek::matmul::routines::double_buffering::DoubleBufferingArgs;
use cubek::matmul::routines::simple::SimpleArgs;
use cubek::std::InputBinding;
use surgery_core::burn::tensor::DType;

use crate::tensor::{dtype, empty};

/// The product of `a`, `[n, k]`, and `b`, `[k, m]`, with output `[n, m]` of dtype `into`. Sums are in f32.
///
/// The kernel is chosen here rather than by burn's autotune. Autotune compiles every kernel for every shape, some of
/// them for 40 s, and rounding would depend on timings.
///
/// f32 is multiplied in f32, with tiles in registers. burn would round it to TF32 (11 bits) on all NVIDIA cards since
/// Ampere, whose tensor cores are faster; PyTorch does that only on request. Other dtypes use tensor cores if the
/// card has them.
pub(crate) fn product<R: CubeRuntime>(a: CubeTensor<R>, b: CubeTensor<R>, into: DType) -> CubeTensor<R> {
    let (rows, columns) = (a.meta.shape()[0], b.meta.shape()[1]);
    let out = empty(&a, [rows, columns], into);
    let (client, kinds) = (a.client.clone(), [dtype(&a), dtype(&b), dtype(&out)]);
    let [lhs, rhs, global] = kinds;
    let launch = |strategy: Strategy| {
        let [a, b] = [(&a, lhs), (&b, rhs)].map(|(x, kind)| InputBinding::new(x.clone().binding(), kind));
        let mut kinds = MatmulElems::from_globals(&MatmulGlobalElems { lhs, rhs, out: global });
        launch_ref(&strategy, &client, a, b, out.clone().binding(), &mut kinds)
    };
    let tensor_cores = if a.dtype == DType::F32 { Vec::new() } else { on_tensor_cores(&a, &b) };
    tensor_cores
        .into_iter()
        .chain([Strategy::SimpleUnit(Default::default()), Strategy::Naive])
        .find_map(|strategy| launch(strategy).ok())
        .expect("the naive kernel supports every product");
    out
}

/// Tensor-core kernels in the order in which they are tried. The first one reads with Hopper's copy engine (TMA),
/// which requires rows of a multiple of 16 bytes.
///
/// 14 of cubek's 24 kernels were timed on an H100 in bf16, in TFLOP/s, on three products: 2048 × 2048 with a
/// transposed 5632 × 2048; 2048 × 5632 with 5632 × 2048; the first with a transposed 32000 × 2048 into f32.
/// SimpleTmaCmma: 179, 110, 213. DoubleTmaMma: 110, 155, 140. DoubleCyclicMma: 112, 107, 143. The others: 15 to 136.
/// PyTorch (cuBLAS) reaches 384 on 2048³ there.
fn on_tensor_cores<R: CubeRuntime>(a: &CubeTensor<R>, b: &CubeTensor<R>) -> Vec<Strategy> {
    let aligned = |x: &CubeTensor<R>| {
        let bytes = |values: usize| values * x.dtype.size();
        let inner = x.meta.strides().iter().filter(|stride| **stride == 1).count() == 1;
        let mut rows = x.meta.strides().iter().filter(|stride| **stride != 1);
        let start = x.handle.offset_start.unwrap_or(0);
        inner && rows.all(|stride| bytes(*stride).is_multiple_of(16)) && start.is_multiple_of(16)
    };
    let double = || DoubleBufferingArgs { specialized: false, tile_matmul: Mma };
    let mut strategies = Vec::new();
    if aligned(a) && aligned(b) {
        // The faster one for a transposed right matrix (a projection), and for any other.
        strategies.push(match b.meta.strides()[0] == 1 {
            true => Strategy::SimpleTmaCmma(Inferred(SimpleArgs { multi_rows: true, tile_matmul: Cmma })),
            false => Strategy::DoubleTmaMma(Inferred(double())),
        });
    }
    strategies.push(Strategy::DoubleCyclicMma(Inferred(double())));
    strategies
}
