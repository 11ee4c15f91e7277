//! The operations without a graph.

use burn_cubecl::CubeRuntime;
use burn_cubecl::element::BoolElement;
use surgery_core::burn::tensor::{DType, FloatDType, Int, Tensor};
use surgery_core::kernels::{AdamWStep, Footprint, HeadKernels, ModelKernels, OptimizerKernels};
use surgery_core::placement::Placement;

use super::{Fused, Plain, primitive, product, tensor};
use crate::attention::Inputs;
use crate::elementwise;
use crate::rows::{self, LossTargets};

/// Losses, and the gradient with respect to logits.
type Losses<B> = (Tensor<B, 1>, Tensor<B, 2>);

/// The losses of logits and, if there are coefficients, their gradient.
fn losses<R: CubeRuntime, T: BoolElement>(
    logits: Tensor<Plain<R, T>, 2>,
    targets: LossTargets<R>,
    coefficients: Option<&[f32]>,
) -> Losses<Plain<R, T>> {
    let device = logits.device();
    let coefficients =
        coefficients.map(|values| primitive(Tensor::<Plain<R, T>, 1>::from_data(values, &device)));
    let (losses, gradient) = rows::losses(primitive(logits), targets, coefficients);
    (tensor(losses), tensor(gradient))
}

/// Token ids on the device.
fn tokens<R: CubeRuntime, T: BoolElement>(tokens: &[u32], logits: &Tensor<Plain<R, T>, 2>) -> LossTargets<R> {
    let tokens: Vec<i32> = tokens.iter().map(|&token| token as i32).collect();
    let tokens = Tensor::<Plain<R, T>, 1, Int>::from_data(tokens.as_slice(), &logits.device());
    LossTargets::Tokens(tokens.into_primitive())
}

impl<R: CubeRuntime, T: BoolElement> ModelKernels<Plain<R, T>> for Fused {
    const ONE_ROW: bool = true;

    fn project(x: Tensor<Plain<R, T>, 3>, weight: Tensor<Plain<R, T>, 2>) -> Tensor<Plain<R, T>, 3> {
        let ([rows, columns, inner], [outer, _], dtype) = (x.dims(), weight.dims(), weight.dtype());
        let x = x.cast(FloatDType::from(dtype)).reshape([rows * columns, inner]);
        product(x, weight.transpose(), dtype).reshape([rows, columns, outer])
    }

    fn rms_norm(
        x: Tensor<Plain<R, T>, 3>,
        weight: Tensor<Plain<R, T>, 1>,
        epsilon: f64,
        into: FloatDType,
    ) -> Tensor<Plain<R, T>, 3> {
        tensor(rows::norm(primitive(x), primitive(weight), epsilon as f32, into.into()))
    }

    fn rope(x: Tensor<Plain<R, T>, 4>, placement: &Placement<Plain<R, T>>) -> Tensor<Plain<R, T>, 4> {
        tensor(elementwise::rope(primitive(x), primitive(placement.cos()), primitive(placement.sin()), false))
    }

    fn attention(
        queries: Tensor<Plain<R, T>, 4>,
        keys: Tensor<Plain<R, T>, 4>,
        values: Tensor<Plain<R, T>, 4>,
        placement: &Placement<Plain<R, T>>,
    ) -> Tensor<Plain<R, T>, 4> {
        let sight = placement.sight().into_primitive();
        let inputs = Inputs::new(primitive(queries), primitive(keys), primitive(values), sight);
        tensor(inputs.forward().0)
    }

    fn swiglu(gate: Tensor<Plain<R, T>, 3>, up: Tensor<Plain<R, T>, 3>) -> Tensor<Plain<R, T>, 3> {
        tensor(elementwise::swiglu(primitive(gate), primitive(up)))
    }
}

impl<R: CubeRuntime, T: BoolElement> HeadKernels<Plain<R, T>> for Fused {
    fn logits(hidden: Tensor<Plain<R, T>, 2>, head: Tensor<Plain<R, T>, 2>) -> Tensor<Plain<R, T>, 2> {
        let dtype: FloatDType = head.dtype().into();
        product(hidden.cast(dtype), head.transpose(), DType::F32)
    }

    fn product(
        a: Tensor<Plain<R, T>, 2>,
        b: Tensor<Plain<R, T>, 2>,
        dtype: FloatDType,
    ) -> Tensor<Plain<R, T>, 2> {
        product(a.cast(dtype), b.cast(dtype), DType::F32)
    }

    fn nll(
        hidden: Tensor<Plain<R, T>, 2>,
        head: Tensor<Plain<R, T>, 2>,
        targets: &[u32],
    ) -> Tensor<Plain<R, T>, 1> {
        Self::nll_of_logits(Self::logits(hidden, head), targets)
    }

    fn kl(
        hidden: Tensor<Plain<R, T>, 2>,
        head: Tensor<Plain<R, T>, 2>,
        reference_hidden: Tensor<Plain<R, T>, 2>,
        reference_head: Tensor<Plain<R, T>, 2>,
    ) -> Tensor<Plain<R, T>, 1> {
        let reference = LossTargets::Reference(primitive(Self::logits(reference_hidden, reference_head)));
        losses(Self::logits(hidden, head), reference, None).0
    }

    fn nll_of_logits(logits: Tensor<Plain<R, T>, 2>, targets: &[u32]) -> Tensor<Plain<R, T>, 1> {
        let targets = tokens(targets, &logits);
        losses(logits, targets, None).0
    }

    fn nll_gradient(
        logits: Tensor<Plain<R, T>, 2>,
        targets: &[u32],
        coefficients: &[f32],
    ) -> (Tensor<Plain<R, T>, 1>, Tensor<Plain<R, T>, 2>) {
        let targets = tokens(targets, &logits);
        losses(logits, targets, Some(coefficients))
    }

    fn kl_gradient(
        logits: Tensor<Plain<R, T>, 2>,
        reference: Tensor<Plain<R, T>, 2>,
        coefficients: &[f32],
    ) -> (Tensor<Plain<R, T>, 1>, Tensor<Plain<R, T>, 2>) {
        losses(logits, LossTargets::Reference(primitive(reference)), Some(coefficients))
    }
}

impl<R: CubeRuntime, T: BoolElement> OptimizerKernels<Plain<R, T>> for Fused {
    fn squared_norm(x: Tensor<Plain<R, T>, 1>) -> Tensor<Plain<R, T>, 1> {
        tensor(elementwise::squares_sum(primitive(x)))
    }

    fn adamw(
        value: Tensor<Plain<R, T>, 1>,
        first: Tensor<Plain<R, T>, 1>,
        second: Tensor<Plain<R, T>, 1>,
        gradient: Tensor<Plain<R, T>, 1>,
        step: &AdamWStep,
    ) -> (Tensor<Plain<R, T>, 1>, Tensor<Plain<R, T>, 1>, Tensor<Plain<R, T>, 1>) {
        let state = [value, first, second].map(primitive);
        let [value, first, second] = elementwise::adamw(state, primitive(gradient), step);
        (tensor(value), tensor(first), tensor(second))
    }
}

impl<R: CubeRuntime, T: BoolElement> Footprint<Plain<R, T>> for Fused {}
