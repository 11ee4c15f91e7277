//! The operations as nodes of burn's autodiff graph.

use burn_cubecl::CubeRuntime;
use burn_cubecl::element::BoolElement;
use burn_cubecl::tensor::CubeTensor;
use surgery_core::burn::backend::autodiff::checkpoint::base::Checkpointer;
use surgery_core::burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use surgery_core::burn::backend::autodiff::grads::Gradients;
use surgery_core::burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use surgery_core::burn::tensor::{FloatDType, Int, Tensor, TensorPrimitive};
use surgery_core::config::LlamaConfig;
use surgery_core::kernels::{Footprint, HeadKernels, ModelKernels, OptimizerKernels, Portable};
use surgery_core::placement::Placement;

use super::{Fused, Graph, Plain, primitive, product, tensor};
use crate::attention::{Attended, Inputs};
use crate::elementwise;
use crate::embedding::{Occurrences, embedding_vjp};
use crate::rows;
use crate::tensor::zeros_in_a_row;

impl<R: CubeRuntime, T: BoolElement> ModelKernels<Graph<R, T>> for Fused {
    const ONE_ROW: bool = true;

    fn embed(weight: Tensor<Graph<R, T>, 2>, ids: &[u32], shape: [usize; 2]) -> Tensor<Graph<R, T>, 3> {
        let weight = weight.into_primitive().tensor();
        let there = tensor::<R, T, 2>(weight.primitive);
        let y = <Self as ModelKernels<Plain<R, T>>>::embed(there.clone(), ids, shape);
        let back = Backward::<Plain<R, T>, 1>::prepare::<NoCheckpointing>(EmbedBack, [weight.node]);
        let y = match back.compute_bound().stateful() {
            OpsKind::UnTracked(prepared) => prepared.finish(primitive(y)),
            OpsKind::Tracked(prepared) => {
                let Occurrences { tokens, starts, positions } = Occurrences::of(ids);
                let upload = |values: Vec<i32>| {
                    Tensor::<Plain<R, T>, 1, Int>::from_data(values.as_slice(), &there.device())
                        .into_primitive()
                };
                prepared
                    .finish((primitive(there.clone()), [tokens, starts, positions].map(upload)), primitive(y))
            }
        };
        Tensor::from_primitive(TensorPrimitive::Float(y))
    }

    fn project(x: Tensor<Graph<R, T>, 3>, weight: Tensor<Graph<R, T>, 2>) -> Tensor<Graph<R, T>, 3> {
        let ([rows, columns, inner], [outer, _], dtype) = (x.dims(), weight.dims(), weight.dtype());
        let x = x.cast(FloatDType::from(dtype)).reshape([rows * columns, inner]);
        let (x, weight) = (x.into_primitive().tensor(), weight.into_primitive().tensor());
        let operands = [x.primitive, weight.primitive].map(tensor::<R, T, 2>);
        let [x_there, weight_there] = operands.clone();
        let y = primitive(product(x_there, weight_there.transpose(), dtype));
        let back = Backward::<Plain<R, T>, 2>::prepare::<NoCheckpointing>(ProjectBack, [x.node, weight.node]);
        let y = match back.compute_bound().stateful() {
            OpsKind::UnTracked(prepared) => prepared.finish(y),
            OpsKind::Tracked(prepared) => prepared.finish(operands.map(primitive), y),
        };
        Tensor::<Graph<R, T>, 2>::from_primitive(TensorPrimitive::Float(y)).reshape([rows, columns, outer])
    }

    fn rms_norm(
        x: Tensor<Graph<R, T>, 3>,
        weight: Tensor<Graph<R, T>, 1>,
        epsilon: f64,
        into: FloatDType,
    ) -> Tensor<Graph<R, T>, 3> {
        let (x, weight) = (x.into_primitive().tensor(), weight.into_primitive().tensor());
        let y = rows::norm(x.primitive.clone(), weight.primitive.clone(), epsilon as f32, into.into());
        let parents = [x.node.clone(), weight.node.clone()];
        let back = Backward::<Plain<R, T>, 2>::prepare::<NoCheckpointing>(NormBack, parents);
        let y = match back.compute_bound().stateful() {
            OpsKind::UnTracked(prepared) => prepared.finish(y),
            OpsKind::Tracked(prepared) => prepared.finish((x.primitive, weight.primitive, epsilon as f32), y),
        };
        Tensor::from_primitive(TensorPrimitive::Float(y))
    }

    fn rope(x: Tensor<Graph<R, T>, 4>, placement: &Placement<Graph<R, T>>) -> Tensor<Graph<R, T>, 4> {
        let x = x.into_primitive().tensor();
        let (cos, sin) = (primitive(placement.cos().inner()), primitive(placement.sin().inner()));
        let y = elementwise::rope(x.primitive, cos.clone(), sin.clone(), false);
        let back = Backward::<Plain<R, T>, 1>::prepare::<NoCheckpointing>(RopeBack, [x.node]);
        let y = match back.compute_bound().stateful() {
            OpsKind::UnTracked(prepared) => prepared.finish(y),
            OpsKind::Tracked(prepared) => prepared.finish((cos, sin), y),
        };
        Tensor::from_primitive(TensorPrimitive::Float(y))
    }

    fn attention(
        queries: Tensor<Graph<R, T>, 4>,
        keys: Tensor<Graph<R, T>, 4>,
        values: Tensor<Graph<R, T>, 4>,
        placement: &Placement<Graph<R, T>>,
    ) -> Tensor<Graph<R, T>, 4> {
        if !placement.layout().is_fresh() {
            return Portable::attention(queries, keys, values, placement);
        }
        let [queries, keys, values] = [queries, keys, values].map(|x| x.into_primitive().tensor());
        let parents = [queries.node, keys.node, values.node];
        let sight = placement.sight().into_primitive();
        let inputs = Inputs::new(queries.primitive, keys.primitive, values.primitive, sight);
        let (out, attended) = inputs.forward();
        let back = Backward::<Plain<R, T>, 3>::prepare::<NoCheckpointing>(AttentionBack, parents);
        let out = match back.compute_bound().stateful() {
            OpsKind::UnTracked(prepared) => prepared.finish(out),
            OpsKind::Tracked(prepared) => prepared.finish((inputs, attended), out),
        };
        Tensor::from_primitive(TensorPrimitive::Float(out))
    }

    fn swiglu(gate: Tensor<Graph<R, T>, 3>, up: Tensor<Graph<R, T>, 3>) -> Tensor<Graph<R, T>, 3> {
        let (gate, up) = (gate.into_primitive().tensor(), up.into_primitive().tensor());
        let y = elementwise::swiglu(gate.primitive.clone(), up.primitive.clone());
        let parents = [gate.node.clone(), up.node.clone()];
        let back = Backward::<Plain<R, T>, 2>::prepare::<NoCheckpointing>(SwigluBack, parents);
        let y = match back.compute_bound().stateful() {
            OpsKind::UnTracked(prepared) => prepared.finish(y),
            OpsKind::Tracked(prepared) => prepared.finish((gate.primitive, up.primitive), y),
        };
        Tensor::from_primitive(TensorPrimitive::Float(y))
    }
}

impl<R: CubeRuntime, T: BoolElement> HeadKernels<Graph<R, T>> for Fused {}

impl<R: CubeRuntime, T: BoolElement> OptimizerKernels<Graph<R, T>> for Fused {}

impl<R: CubeRuntime, T: BoolElement> Footprint<Graph<R, T>> for Fused {
    fn kept_values(config: &LlamaConfig, _longest: usize) -> usize {
        // The second sublayer's input, the results of both norms, queries, keys and values before and after rope,
        // attention's output and log-sums, gate, up and their product; and queries and keys before their norms.
        let (heads, keys) = (config.num_attention_heads, config.num_key_value_heads);
        let before_norms = if config.head_norms { (heads + keys) * config.head_dim } else { 0 };
        3 * config.hidden_size
            + before_norms
            + (3 * heads + 3 * keys) * config.head_dim
            + heads
            + 3 * config.intermediate_size
    }
}

/// The gradient of the embedding.
#[derive(Debug)]
struct EmbedBack;

impl<R: CubeRuntime, T: BoolElement> Backward<Plain<R, T>, 1> for EmbedBack {
    type State = (CubeTensor<R>, [CubeTensor<R>; 3]);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<Plain<R, T>>(&ops.node);
        let (weight, occurrences) = ops.state;
        if let [Some(node)] = ops.parents {
            let shape = tensor::<R, T, 2>(weight.clone()).dims();
            let g_weight = primitive(tensor::<R, T, 1>(zeros_in_a_row(&weight)).reshape(shape));
            embedding_vjp(gradient, occurrences, &g_weight);
            grads.register::<Plain<R, T>>(node.id, g_weight);
        }
    }
}

/// The gradients of a projection.
#[derive(Debug)]
struct ProjectBack;

impl<R: CubeRuntime, T: BoolElement> Backward<Plain<R, T>, 2> for ProjectBack {
    type State = [CubeTensor<R>; 2];

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [x_node, weight_node] = ops.parents;
        let gradient = tensor::<R, T, 2>(grads.consume::<Plain<R, T>>(&ops.node));
        let [x, weight] = ops.state.map(tensor::<R, T, 2>);
        let dtype = weight.dtype();
        if let Some(node) = x_node {
            let g_x = product(gradient.clone(), weight, dtype);
            grads.register::<Plain<R, T>>(node.id, primitive(g_x));
        }
        if let Some(node) = weight_node {
            let g_weight = product(gradient.transpose(), x, dtype);
            grads.register::<Plain<R, T>>(node.id, primitive(g_weight));
        }
    }
}

/// The gradient of a norm.
#[derive(Debug)]
struct NormBack;

impl<R: CubeRuntime, T: BoolElement> Backward<Plain<R, T>, 2> for NormBack {
    type State = (CubeTensor<R>, CubeTensor<R>, f32);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [x_node, weight_node] = ops.parents;
        let gradient = grads.consume::<Plain<R, T>>(&ops.node);
        let (x, weight, epsilon) = ops.state;
        for (node, gradient) in
            [x_node, weight_node].into_iter().zip(rows::norm_vjp(x, weight, gradient, epsilon))
        {
            if let Some(node) = node {
                grads.register::<Plain<R, T>>(node.id, gradient);
            }
        }
    }
}

/// The gradient of rope.
#[derive(Debug)]
struct RopeBack;

impl<R: CubeRuntime, T: BoolElement> Backward<Plain<R, T>, 1> for RopeBack {
    type State = (CubeTensor<R>, CubeTensor<R>);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<Plain<R, T>>(&ops.node);
        let (cos, sin) = ops.state;
        if let [Some(node)] = ops.parents {
            grads.register::<Plain<R, T>>(node.id, elementwise::rope(gradient, cos, sin, true));
        }
    }
}

/// The gradient of attention.
#[derive(Debug)]
struct AttentionBack;

impl<R: CubeRuntime, T: BoolElement> Backward<Plain<R, T>, 3> for AttentionBack {
    type State = (Inputs<R>, Attended<R>);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<Plain<R, T>>(&ops.node);
        let (inputs, attended) = ops.state;
        for (node, gradient) in ops.parents.into_iter().zip(inputs.backward(attended, gradient)) {
            if let Some(node) = node {
                grads.register::<Plain<R, T>>(node.id, gradient);
            }
        }
    }
}

/// The gradient of SwiGLU.
#[derive(Debug)]
struct SwigluBack;

impl<R: CubeRuntime, T: BoolElement> Backward<Plain<R, T>, 2> for SwigluBack {
    type State = (CubeTensor<R>, CubeTensor<R>);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<Plain<R, T>>(&ops.node);
        let (gate, up) = ops.state;
        for (node, gradient) in ops.parents.into_iter().zip(elementwise::swiglu_vjp(gate, up, gradient)) {
            if let Some(node) = node {
                grads.register::<Plain<R, T>>(node.id, gradient);
            }
        }
    }
}
