//! Matrix products, by the kernels that burn stands on.

use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::matmul::{MatmulStrategy, matmul};
use burn_cubecl::tensor::CubeTensor;
use cubek::matmul::definition::{MatmulElems, MatmulGlobalElems};
use cubek::matmul::launch::{Strategy, launch_ref};
use cubek::std::InputBinding;
use surgery_core::burn::tensor::DType;

use crate::tensor::{dtype, empty};

/// `a b` of values of one dtype, with values of `into`: `[n, k]` and `[k, m]` to `[n, m]`. Sums are f32's.
///
/// f32 is multiplied as f32. burn would round it to TF32, of 11 bits, wherever a card has tensor cores for that and they
/// are faster, which they are on every NVIDIA card since Ampere; PyTorch does so only where it is told to. And autotune
/// has no part in it, so that the last digits do not depend on what was the fastest on some day.
pub(crate) fn product<R: CubeRuntime>(a: CubeTensor<R>, b: CubeTensor<R>, into: DType) -> CubeTensor<R> {
    if a.dtype != DType::F32 {
        return matmul(a, b, None, MatmulStrategy::default(), into)
            .expect("burn has a product for every shape");
    }
    let (rows, columns) = (a.meta.shape()[0], b.meta.shape()[1]);
    let out = empty(&a, [rows, columns], into);
    let (client, kinds) = (a.client.clone(), [dtype(&a), dtype(&b), dtype(&out)]);
    let [lhs, rhs, global] = kinds;
    let launch = |strategy: Strategy| {
        let [a, b] = [(&a, lhs), (&b, rhs)].map(|(x, kind)| InputBinding::new(x.clone().binding(), kind));
        let mut kinds = MatmulElems::from_globals(&MatmulGlobalElems { lhs, rhs, out: global });
        launch_ref(&strategy, &client, a, b, out.clone().binding(), &mut kinds)
    };
    // Its tiles are in registers: units multiply, not tensor cores.
    launch(Strategy::SimpleUnit(Default::default()))
        .or_else(|_| launch(Strategy::Naive))
        .expect("the plain kernel has no conditions");
    out
}
