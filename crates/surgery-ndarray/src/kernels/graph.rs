//! The operations as nodes of burn's autodiff graph: one for each sublayer.

use surgery_core::burn::backend::autodiff::checkpoint::base::Checkpointer;
use surgery_core::burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use surgery_core::burn::backend::autodiff::grads::Gradients;
use surgery_core::burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use surgery_core::burn::tensor::ops::FloatTensor;
use surgery_core::burn::tensor::{FloatDType, Tensor, TensorPrimitive};
use surgery_core::config::LlamaConfig;
use surgery_core::kernels::{
    AttentionWeights, Footprint, HeadKernels, Memory, MlpWeights, ModelKernels, OptimizerKernels, Portable,
};
use surgery_core::placement::Placement;

use super::{
    AttentionInputs, Floats, Fused, Graph, MlpInputs, Plain, Weights, attention_weights, mlp_weights,
    primitive,
};
use crate::sublayers::{ATTENTION_WEIGHTS, Attended, Gated, MLP_WEIGHTS, Norm, norm_vjp};

impl ModelKernels<Graph> for Fused {
    const ONE_ROW: bool = true;

    fn project(x: Tensor<Graph, 3>, weight: Tensor<Graph, 2>) -> Tensor<Graph, 3> {
        Portable::project(x, weight)
    }

    fn rms_norm(
        x: Tensor<Graph, 3>,
        weight: Tensor<Graph, 1>,
        epsilon: f64,
        into: FloatDType,
    ) -> Tensor<Graph, 3> {
        let y = <Fused as ModelKernels<Plain>>::rms_norm(
            x.clone().inner(),
            weight.clone().inner(),
            epsilon,
            into,
        );
        let (x, weight) = (x.into_primitive().tensor(), weight.into_primitive().tensor());
        let parents = [x.node.clone(), weight.node.clone()];
        let y = y.into_primitive().tensor();
        let y = match NormBack.prepare::<NoCheckpointing>(parents).compute_bound().stateful() {
            OpsKind::UnTracked(prepared) => prepared.finish(y),
            OpsKind::Tracked(prepared) => {
                let state = (Floats::new(x.primitive), Floats::new(weight.primitive), epsilon as f32);
                prepared.finish(state, y)
            }
        };
        Tensor::from_primitive(TensorPrimitive::Float(y))
    }

    fn attention_sublayer(
        x: Tensor<Graph, 3>,
        weights: AttentionWeights<Graph>,
        placement: &Placement<Graph>,
        memory: Option<&mut Memory<Graph>>,
    ) -> Tensor<Graph, 3> {
        assert!(memory.is_none(), "generation runs without a graph");
        let shape = x.dims();
        let epsilon = weights.epsilon;
        let weights = attention_weights(weights);
        let inputs = AttentionInputs::new(floats(&weights), epsilon, placement.layout());
        let x = x.into_primitive().tensor();
        let input = Floats::new(x.primitive.clone());
        let (y, attended) = inputs.sublayer().forward(&input, placement.layout());
        let y = primitive(y.into_vec(), &shape);
        let parents = parents(x, weights);
        let nodes = parents.each_ref().map(|parent| parent.node.clone());
        let y = match AttentionBack.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
            OpsKind::UnTracked(prepared) => prepared.finish(y),
            OpsKind::Tracked(prepared) => prepared.finish((input, inputs, attended, shape), y),
        };
        Tensor::from_primitive(TensorPrimitive::Float(y))
    }

    fn mlp_sublayer(x: Tensor<Graph, 3>, weights: MlpWeights<Graph>) -> Tensor<Graph, 3> {
        let shape = x.dims();
        let epsilon = weights.epsilon;
        let weights = mlp_weights(weights);
        let inputs = MlpInputs::new(floats(&weights), epsilon);
        let x = x.into_primitive().tensor();
        let input = Floats::new(x.primitive.clone());
        let (y, gated) = inputs.sublayer().forward(&input, true);
        let gated = gated.expect("requested");
        let y = primitive(y.into_vec(), &shape);
        let parents = parents(x, weights);
        let nodes = parents.each_ref().map(|parent| parent.node.clone());
        let y = match MlpBack.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
            OpsKind::UnTracked(prepared) => prepared.finish(y),
            OpsKind::Tracked(prepared) => prepared.finish((input, inputs, gated, shape), y),
        };
        Tensor::from_primitive(TensorPrimitive::Float(y))
    }
}

impl HeadKernels<Graph> for Fused {}

impl OptimizerKernels<Graph> for Fused {}

impl Footprint<Graph> for Fused {
    const RESERVE: f64 = 1.0 / crate::buffer::RESERVE as f64;

    fn kept_values(config: &LlamaConfig, _longest: usize) -> usize {
        // The input of the second sublayer, queries, keys and values, attention's output and log-sums, gate and up; and
        // queries and keys before their norms.
        let (heads, keys) = (config.num_attention_heads, config.num_key_value_heads);
        let queries_and_keys = (heads + keys) * config.head_dim;
        let before_norms = if config.head_norms { queries_and_keys } else { 0 };
        config.hidden_size + 2 * queries_and_keys + before_norms + heads + 2 * config.intermediate_size
    }

    fn work_values(config: &LlamaConfig) -> usize {
        // The gradients of the sublayer's output and input, of attention's output, and of queries, keys and values.
        let (heads, keys) = (config.num_attention_heads, config.num_key_value_heads);
        2 * config.hidden_size + 2 * (heads + keys) * config.head_dim
    }
}

/// The floats of a sublayer's weights.
fn floats<const N: usize>(weights: &[Option<FloatTensor<Graph>>; N]) -> Weights<N> {
    let floats = |weight: &FloatTensor<Graph>| Floats::new(weight.primitive.clone());
    weights.each_ref().map(|weight| weight.as_ref().map(floats))
}

/// The tensors of a sublayer's input and weights. In place of a weight that the model does not have stands one without a
/// gradient.
fn parents<const N: usize, const M: usize>(
    x: FloatTensor<Graph>,
    weights: [Option<FloatTensor<Graph>>; N],
) -> [FloatTensor<Graph>; M] {
    let absent = || Tensor::<Graph, 1>::empty([0], &Default::default()).into_primitive().tensor();
    let weights = weights.into_iter().map(|weight| weight.unwrap_or_else(absent));
    let mut all = std::iter::once(x).chain(weights);
    std::array::from_fn(|_| all.next().expect("one more than weights"))
}

/// The gradient of a norm.
#[derive(Debug)]
struct NormBack;

impl Backward<Plain, 2> for NormBack {
    type State = (Floats, Floats, f32);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [x_node, weight_node] = ops.parents;
        let gy = Floats::new(grads.consume::<Plain>(&ops.node));
        let (x, weight, epsilon) = ops.state;
        let (gx, gw) = norm_vjp(&x, Norm { weight: &weight, epsilon }, &gy);
        if let Some(node) = x_node {
            grads.register::<Plain>(node.id, primitive(gx.into_vec(), x.0.shape()));
        }
        if let Some(node) = weight_node {
            grads.register::<Plain>(node.id, primitive(gw, weight.0.shape()));
        }
        gy.recycle();
    }
}

/// The gradient of an attention sublayer.
#[derive(Debug)]
struct AttentionBack;

impl Backward<Plain, { 1 + ATTENTION_WEIGHTS }> for AttentionBack {
    type State = (Floats, AttentionInputs, Attended, [usize; 3]);

    fn backward(
        self,
        ops: Ops<Self::State, { 1 + ATTENTION_WEIGHTS }>,
        grads: &mut Gradients,
        _: &mut Checkpointer,
    ) {
        let [x_node, nodes @ ..] = ops.parents;
        let gy = Floats::new(grads.consume::<Plain>(&ops.node));
        let (x, inputs, attended, shape) = ops.state;
        let is_wanted = nodes.each_ref().map(Option::is_some);
        let (gx, weights) = inputs.sublayer().backward(&x, attended, &gy, &inputs.layout, is_wanted);
        x.recycle();
        gy.recycle();
        if let Some(node) = x_node {
            grads.register::<Plain>(node.id, primitive(gx.into_vec(), &shape));
        }
        for ((node, gradient), weight) in nodes.into_iter().zip(weights).zip(&inputs.weights) {
            if let (Some(node), Some(gradient), Some(weight)) = (node, gradient, weight) {
                grads.register::<Plain>(node.id, primitive(gradient, weight.0.shape()));
            }
        }
    }
}

/// The gradient of a feed-forward sublayer.
#[derive(Debug)]
struct MlpBack;

impl Backward<Plain, { 1 + MLP_WEIGHTS }> for MlpBack {
    type State = (Floats, MlpInputs, Gated, [usize; 3]);

    fn backward(
        self,
        ops: Ops<Self::State, { 1 + MLP_WEIGHTS }>,
        grads: &mut Gradients,
        _: &mut Checkpointer,
    ) {
        let [x_node, nodes @ ..] = ops.parents;
        let gy = Floats::new(grads.consume::<Plain>(&ops.node));
        let (x, inputs, gated, shape) = ops.state;
        let is_wanted = nodes.each_ref().map(Option::is_some);
        let (gx, weights) = inputs.sublayer().backward(&x, gated, &gy, is_wanted);
        x.recycle();
        gy.recycle();
        if let Some(node) = x_node {
            grads.register::<Plain>(node.id, primitive(gx.into_vec(), &shape));
        }
        for ((node, gradient), weight) in nodes.into_iter().zip(weights).zip(&inputs.weights) {
            if let (Some(node), Some(gradient), Some(weight)) = (node, gradient, weight) {
                grads.register::<Plain>(node.id, primitive(gradient, weight.0.shape()));
            }
        }
    }
}
