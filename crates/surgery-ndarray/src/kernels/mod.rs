//! The operations of [`surgery_core::kernels`] on the CPU: conversions between burn's tensors and contiguous floats.

mod graph;
mod plain;

use std::sync::Arc;

use burn_ndarray::{NdArray, NdArrayTensor};
use ndarray::{ArcArray, ArrayD, IxDyn};
use surgery_core::burn::backend::Autodiff;
use surgery_core::burn::tensor::backend::Backend;
use surgery_core::burn::tensor::{Tensor, TensorPrimitive};
use surgery_core::kernels::{AttentionWeights, MlpWeights};
use surgery_core::placement::Layout;

use crate::attention::Heads;
use crate::buffer::Buffer;
use crate::sublayers::{ATTENTION_WEIGHTS, Attention, Linear, MLP_WEIGHTS, Mlp, Norm};

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

/// A weight that every model has.
const PRESENT: &str = "every model has this weight";

/// The floats of a sublayer's weights, in the order of their gradients; `None` for those that the model does not have.
pub(super) type Weights<const N: usize> = [Option<Floats>; N];

/// The tensors of an attention sublayer's weights, in the order of its gradients.
pub(super) fn attention_weights<B: Backend>(
    weights: AttentionWeights<B>,
) -> [Option<B::FloatTensorPrimitive>; ATTENTION_WEIGHTS] {
    let AttentionWeights { norm, query, key, value, output, query_norm, key_norm, epsilon: _ } = weights;
    let layers = [query, key, value, output];
    let [query_bias, key_bias, value_bias, output_bias] =
        layers.each_ref().map(|layer| primitive_of(layer.bias.clone()));
    let [query, key, value, output] = layers.map(|layer| primitive_of(Some(layer.matrix)));
    [
        primitive_of(Some(norm)),
        query,
        key,
        value,
        output,
        query_bias,
        key_bias,
        value_bias,
        output_bias,
        primitive_of(query_norm),
        primitive_of(key_norm),
    ]
}

/// The tensors of a feed-forward sublayer's weights, in the order of its gradients.
pub(super) fn mlp_weights<B: Backend>(
    weights: MlpWeights<B>,
) -> [Option<B::FloatTensorPrimitive>; MLP_WEIGHTS] {
    let MlpWeights { norm, gate, up, down, epsilon: _ } = weights;
    let layers = [gate, up, down];
    let [gate_bias, up_bias, down_bias] = layers.each_ref().map(|layer| primitive_of(layer.bias.clone()));
    let [gate, up, down] = layers.map(|layer| primitive_of(Some(layer.matrix)));
    [primitive_of(Some(norm)), gate, up, down, gate_bias, up_bias, down_bias]
}

fn primitive_of<B: Backend, const D: usize>(tensor: Option<Tensor<B, D>>) -> Option<B::FloatTensorPrimitive> {
    tensor.map(|tensor| tensor.into_primitive().tensor())
}

/// An attention sublayer's weights, and its layout.
#[derive(Debug, Clone)]
pub(super) struct AttentionInputs {
    pub(super) weights: Weights<ATTENTION_WEIGHTS>,
    epsilon: f32,
    heads: Heads,
    pub(super) layout: Arc<Layout>,
}

impl AttentionInputs {
    pub(super) fn new(weights: Weights<ATTENTION_WEIGHTS>, epsilon: f64, layout: &Arc<Layout>) -> Self {
        let size = layout.head_dim;
        let [_, queries, keys, ..] = weights.each_ref().map(|weight| match weight {
            Some(Floats(array)) => array.shape()[0] / size,
            None => 0,
        });
        let heads = Heads { queries, keys, size };
        Self { weights, epsilon: epsilon as f32, heads, layout: layout.clone() }
    }

    pub(super) fn sublayer(&self) -> Attention<'_> {
        let [
            norm,
            query,
            key,
            value,
            output,
            query_bias,
            key_bias,
            value_bias,
            output_bias,
            query_norm,
            key_norm,
        ] = self.weights.each_ref().map(Option::as_deref);
        let norm_of = |weight| Norm { weight, epsilon: self.epsilon };
        Attention {
            norm: norm_of(norm.expect(PRESENT)),
            query: Linear { matrix: query.expect(PRESENT), bias: query_bias },
            key: Linear { matrix: key.expect(PRESENT), bias: key_bias },
            value: Linear { matrix: value.expect(PRESENT), bias: value_bias },
            output: Linear { matrix: output.expect(PRESENT), bias: output_bias },
            head_norms: query_norm.zip(key_norm).map(|(query, key)| [query, key].map(norm_of)),
            heads: self.heads,
        }
    }
}

/// A feed-forward sublayer's weights.
#[derive(Debug, Clone)]
pub(super) struct MlpInputs {
    pub(super) weights: Weights<MLP_WEIGHTS>,
    epsilon: f32,
}

impl MlpInputs {
    pub(super) fn new(weights: Weights<MLP_WEIGHTS>, epsilon: f64) -> Self {
        Self { weights, epsilon: epsilon as f32 }
    }

    pub(super) fn sublayer(&self) -> Mlp<'_> {
        let [norm, gate, up, down, gate_bias, up_bias, down_bias] =
            self.weights.each_ref().map(Option::as_deref);
        Mlp {
            norm: Norm { weight: norm.expect(PRESENT), epsilon: self.epsilon },
            gate: Linear { matrix: gate.expect(PRESENT), bias: gate_bias },
            up: Linear { matrix: up.expect(PRESENT), bias: up_bias },
            down: Linear { matrix: down.expect(PRESENT), bias: down_bias },
        }
    }
}
