//! The operations of [`surgery_core::kernels`] on the CPU: conversions between burn's tensors and contiguous floats.

mod graph;
mod plain;

use std::sync::Arc;

use burn_ndarray::{NdArray, NdArrayTensor};
use ndarray::{ArcArray, ArrayD, IxDyn};
use surgery_core::burn::backend::Autodiff;
use surgery_core::burn::tensor::{Tensor, TensorPrimitive};
use surgery_core::kernels::{AttentionWeights, MlpWeights};
use surgery_core::placement::Layout;

use crate::attention::Heads;
use crate::buffer::Buffer;
use crate::sublayers::{Attention, Mlp, Norm};

/// The CPU without a graph.
pub(super) type Plain = NdArray<f32>;
/// The CPU with burn's autodiff.
pub(super) type Graph = Autodiff<Plain>;

/// The operations on contiguous floats, on all cores.
#[derive(Debug, Clone, Copy)]
pub struct Fused;

/// A tensor's floats, row by row; shared, not copied.
#[derive(Debug, Clone)]
pub(super) struct Floats(pub(super) ArcArray<f32, IxDyn>);

impl Floats {
    pub(super) fn new(tensor: NdArrayTensor) -> Self {
        let NdArrayTensor::F32(storage) = tensor else { panic!("the CPU computes in f32") };
        let array = storage.into_shared();
        match array.is_standard_layout() {
            true => Self(array),
            false => Self(array.as_standard_layout().into_owned().into_shared()),
        }
    }

    pub(super) fn of<const D: usize>(tensor: Tensor<Plain, D>) -> Self {
        Self::new(tensor.into_primitive().tensor())
    }

    /// The floats without a copy if they are not shared, otherwise a copy.
    pub(super) fn into_vec(self) -> Vec<f32> {
        let length = self.0.len();
        let (values, offset) = self.0.into_owned().into_raw_vec_and_offset();
        match offset {
            Some(start) if start > 0 || values.len() != length => values[start..start + length].to_vec(),
            _ => values,
        }
    }

    /// Reuses the floats as working memory if they are not shared.
    pub(super) fn recycle(self) {
        if self.0.is_unique() {
            drop(Buffer::adopt(self.into_vec()));
        }
    }
}

impl std::ops::Deref for Floats {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        self.0.as_slice().expect("in standard layout")
    }
}

pub(super) fn primitive(values: Vec<f32>, shape: &[usize]) -> NdArrayTensor {
    let array = ArrayD::from_shape_vec(IxDyn(shape), values).expect("as many values as the shape says");
    NdArrayTensor::from(array.into_shared())
}

pub(super) fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> Tensor<Plain, D> {
    Tensor::from_primitive(TensorPrimitive::Float(primitive(values, &shape)))
}

/// An attention sublayer's weights, and its layout.
#[derive(Debug, Clone)]
pub(super) struct AttentionInputs {
    pub(super) weights: [Floats; 5],
    epsilon: f32,
    heads: Heads,
    pub(super) layout: Arc<Layout>,
}

impl AttentionInputs {
    pub(super) fn new(weights: AttentionWeights<Plain>, layout: &Arc<Layout>) -> Self {
        let AttentionWeights { norm, query, key, value, output, epsilon } = weights;
        let size = layout.head_dim;
        let heads = Heads { queries: query.dims()[0] / size, keys: key.dims()[0] / size, size };
        let weights =
            [Floats::of(norm), Floats::of(query), Floats::of(key), Floats::of(value), Floats::of(output)];
        Self { weights, epsilon: epsilon as f32, heads, layout: layout.clone() }
    }

    pub(super) fn sublayer(&self) -> Attention<'_> {
        let [norm, query, key, value, output] = &self.weights;
        let norm = Norm { weight: norm, epsilon: self.epsilon };
        Attention { norm, query, key, value, output, heads: self.heads }
    }
}

/// A feed-forward sublayer's weights.
#[derive(Debug, Clone)]
pub(super) struct MlpInputs {
    pub(super) weights: [Floats; 4],
    epsilon: f32,
}

impl MlpInputs {
    pub(super) fn new(weights: MlpWeights<Plain>) -> Self {
        let MlpWeights { norm, gate, up, down, epsilon } = weights;
        let weights = [Floats::of(norm), Floats::of(gate), Floats::of(up), Floats::of(down)];
        Self { weights, epsilon: epsilon as f32 }
    }

    pub(super) fn sublayer(&self) -> Mlp<'_> {
        let [norm, gate, up, down] = &self.weights;
        Mlp { norm: Norm { weight: norm, epsilon: self.epsilon }, gate, up, down }
    }
}
