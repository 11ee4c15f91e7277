//! The operations of [`surgery_core::kernels`] on the CPU: burn's tensors become contiguous floats here, and back.

use std::sync::Arc;

use burn_ndarray::{NdArray, NdArrayTensor};
use ndarray::{ArcArray, ArrayD, IxDyn};
use surgery_core::burn::backend::Autodiff;
use surgery_core::burn::backend::autodiff::checkpoint::base::Checkpointer;
use surgery_core::burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use surgery_core::burn::backend::autodiff::grads::Gradients;
use surgery_core::burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use surgery_core::burn::tensor::{FloatDType, Tensor, TensorPrimitive};
use surgery_core::config::LlamaConfig;
use surgery_core::kernels::{
    AdamWStep, AttentionWeights, HeadGradient, Kernels, Memory, MlpWeights, Portable, Predictions,
};
use surgery_core::placement::{Layout, Placement};

use crate::adamw;
use crate::attention::{self, Heads};
use crate::buffer::Buffer;
use crate::head::{Head, Held};
use crate::sublayers::{Attended, Attention, Gated, Mlp, Norm, norm, norm_vjp, project};

/// The CPU without a graph.
type Plain = NdArray<f32>;
/// The CPU with burn's autodiff.
type Graph = Autodiff<Plain>;

/// The operations on contiguous floats, on all cores.
#[derive(Debug, Clone, Copy)]
pub struct Fused;

/// A tensor's floats, row by row; shared, not copied.
#[derive(Debug, Clone)]
struct Floats(ArcArray<f32, IxDyn>);

impl Floats {
    fn new(tensor: NdArrayTensor) -> Self {
        let NdArrayTensor::F32(storage) = tensor else { panic!("the CPU computes in f32") };
        let array = storage.into_shared();
        match array.is_standard_layout() {
            true => Self(array),
            false => Self(array.as_standard_layout().into_owned().into_shared()),
        }
    }

    fn of<const D: usize>(tensor: Tensor<Plain, D>) -> Self {
        Self::new(tensor.into_primitive().tensor())
    }

    /// The floats themselves where nobody else holds them, a copy otherwise.
    fn into_vec(self) -> Vec<f32> {
        let length = self.0.len();
        let (values, offset) = self.0.into_owned().into_raw_vec_and_offset();
        match offset {
            Some(start) if start > 0 || values.len() != length => values[start..start + length].to_vec(),
            _ => values,
        }
    }

    /// Working memory, where nobody else holds them.
    fn recycle(self) {
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

fn primitive(values: Vec<f32>, shape: &[usize]) -> NdArrayTensor {
    let array = ArrayD::from_shape_vec(IxDyn(shape), values).expect("as many values as the shape says");
    NdArrayTensor::from(array.into_shared())
}

fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> Tensor<Plain, D> {
    Tensor::from_primitive(TensorPrimitive::Float(primitive(values, &shape)))
}

/// An attention sublayer's weights, and what else it needs.
#[derive(Debug, Clone)]
struct AttentionInputs {
    weights: [Floats; 5],
    epsilon: f32,
    heads: Heads,
    layout: Arc<Layout>,
}

impl AttentionInputs {
    fn new(weights: AttentionWeights<Plain>, layout: &Arc<Layout>) -> Self {
        let AttentionWeights { norm, query, key, value, output, epsilon } = weights;
        let size = layout.head_dim;
        let heads = Heads { queries: query.dims()[0] / size, keys: key.dims()[0] / size, size };
        let weights =
            [Floats::of(norm), Floats::of(query), Floats::of(key), Floats::of(value), Floats::of(output)];
        Self { weights, epsilon: epsilon as f32, heads, layout: layout.clone() }
    }

    fn sublayer(&self) -> Attention<'_> {
        let [norm, query, key, value, output] = &self.weights;
        let norm = Norm { weight: norm, epsilon: self.epsilon };
        Attention { norm, query, key, value, output, heads: self.heads }
    }
}

/// A feed-forward sublayer's weights.
#[derive(Debug, Clone)]
struct MlpInputs {
    weights: [Floats; 4],
    epsilon: f32,
}

impl MlpInputs {
    fn new(weights: MlpWeights<Plain>) -> Self {
        let MlpWeights { norm, gate, up, down, epsilon } = weights;
        let weights = [Floats::of(norm), Floats::of(gate), Floats::of(up), Floats::of(down)];
        Self { weights, epsilon: epsilon as f32 }
    }

    fn sublayer(&self) -> Mlp<'_> {
        let [norm, gate, up, down] = &self.weights;
        Mlp { norm: Norm { weight: norm, epsilon: self.epsilon }, gate, up, down }
    }
}

impl Kernels<Plain> for Fused {
    const ONE_ROW: bool = true;

    fn project(x: Tensor<Plain, 3>, weight: Tensor<Plain, 2>) -> Tensor<Plain, 3> {
        let [rows, columns, _] = x.dims();
        let shape = weight.dims();
        let y = project(&Floats::of(x), &Floats::of(weight), shape);
        tensor(y.into_vec(), [rows, columns, shape[0]])
    }

    fn rms_norm(
        x: Tensor<Plain, 3>,
        weight: Tensor<Plain, 1>,
        epsilon: f64,
        _: FloatDType,
    ) -> Tensor<Plain, 3> {
        let shape = x.dims();
        let y = norm(&Floats::of(x), Norm { weight: &Floats::of(weight), epsilon: epsilon as f32 });
        tensor(y.into_vec(), shape)
    }

    fn attention_sublayer(
        x: Tensor<Plain, 3>,
        weights: AttentionWeights<Plain>,
        placement: &Placement<Plain>,
        memory: Option<&mut Memory<Plain>>,
    ) -> Tensor<Plain, 3> {
        if memory.is_some() {
            return composed_attention(x, weights, placement, memory);
        }
        let shape = x.dims();
        let inputs = AttentionInputs::new(weights, placement.layout());
        let x = Floats::of(x);
        let (y, _) = inputs.sublayer().forward(&x, placement.layout());
        x.recycle();
        tensor(y.into_vec(), shape)
    }

    fn mlp_sublayer(x: Tensor<Plain, 3>, weights: MlpWeights<Plain>) -> Tensor<Plain, 3> {
        let shape = x.dims();
        let x = Floats::of(x);
        let (y, _) = MlpInputs::new(weights).sublayer().forward(&x, false);
        x.recycle();
        tensor(y.into_vec(), shape)
    }

    fn logits(hidden: Tensor<Plain, 2>, head: Tensor<Plain, 2>) -> Tensor<Plain, 2> {
        let ([count, _], shape) = (hidden.dims(), head.dims());
        let y = project(&Floats::of(hidden), &Floats::of(head), shape);
        tensor(y.into_vec(), [count, shape[0]])
    }

    fn nll(hidden: Tensor<Plain, 2>, head: Tensor<Plain, 2>, targets: &[u32]) -> Tensor<Plain, 1> {
        let [vocab, size] = head.dims();
        let head = Floats::of(head);
        let head = Head { matrix: &head, vocab, size };
        tensor(head.losses(&Floats::of(hidden), Held::Tokens(targets)), [targets.len()])
    }

    fn kl(
        hidden: Tensor<Plain, 2>,
        head: Tensor<Plain, 2>,
        reference_hidden: Tensor<Plain, 2>,
        reference_head: Tensor<Plain, 2>,
    ) -> Tensor<Plain, 1> {
        let ([vocab, size], [count, _]) = (head.dims(), hidden.dims());
        let head = Floats::of(head);
        let head = Head { matrix: &head, vocab, size };
        let (was, head_was) = (Floats::of(reference_hidden), Floats::of(reference_head));
        tensor(head.losses(&Floats::of(hidden), Held::Reference(&was, &head_was)), [count])
    }

    fn head_gradient(
        hidden: Tensor<Plain, 2>,
        head: Tensor<Plain, 2>,
        predictions: &Predictions<Plain>,
    ) -> HeadGradient<Plain> {
        let (shape, [vocab, size]) = (hidden.dims(), head.dims());
        let (hidden, matrix) = (Floats::of(hidden), Floats::of(head));
        let head = Head { matrix: &matrix, vocab, size };
        let (mut g_hidden, mut g_matrix) = (Buffer::zeros(hidden.len()), vec![0.0; matrix.len()]);
        let Predictions { nll_positions, nll_tokens, nll_coefficients, .. } = predictions;
        let held = Held::Tokens(nll_tokens);
        let nll = head.gradient(&hidden, nll_positions, held, nll_coefficients, &mut g_hidden, &mut g_matrix);
        let mut kl = Vec::new();
        if !predictions.kl_positions.is_empty() {
            let (was, head_was) = predictions.reference.clone().expect("a divergence is from a reference");
            let (was, head_was) = (Floats::of(was), Floats::of(head_was));
            let Predictions { kl_positions, kl_coefficients, .. } = predictions;
            let held = Held::Reference(&was, &head_was);
            kl = head.gradient(&hidden, kl_positions, held, kl_coefficients, &mut g_hidden, &mut g_matrix);
        }
        let (hidden, head) = (tensor(g_hidden.into_vec(), shape), tensor(g_matrix, [vocab, size]));
        HeadGradient { nll, kl, hidden, head }
    }

    fn squared_norm(x: Tensor<Plain, 1>) -> Tensor<Plain, 1> {
        tensor(vec![adamw::squares(&Floats::of(x))], [1])
    }

    fn adamw(
        value: Tensor<Plain, 1>,
        first: Tensor<Plain, 1>,
        second: Tensor<Plain, 1>,
        gradient: Tensor<Plain, 1>,
        step: &AdamWStep,
    ) -> (Tensor<Plain, 1>, Tensor<Plain, 1>, Tensor<Plain, 1>) {
        let gradient = Floats::of(gradient);
        let [mut p, mut m, mut v] = [value, first, second].map(|tensor| Floats::of(tensor).into_vec());
        adamw::update(&mut p, &mut m, &mut v, &gradient, step);
        gradient.recycle();
        let shape = [p.len()];
        (tensor(p, shape), tensor(m, shape), tensor(v, shape))
    }
}

/// Adds the keys or values of new tokens of some texts, `[texts, count, heads, size]`, to those that there are,
/// `[past, texts, heads, size]`.
fn grow(past: Option<Tensor<Plain, 4>>, new: Tensor<Plain, 4>) -> Tensor<Plain, 4> {
    let [texts, _, heads, size] = new.dims();
    let new = Floats::of(new.swap_dims(0, 1));
    let mut all = past.map_or_else(Vec::new, |past| Floats::of(past).into_vec());
    if all.capacity() - all.len() < new.len() {
        // An eighth at a time: of twice as much, half would never be filled.
        all.reserve_exact(new.len().max(all.len() / 8));
    }
    all.extend_from_slice(&new);
    let length = all.len() / (texts * heads * size);
    tensor(all, [length, texts, heads, size])
}

/// The portable composition of [`Fused`]'s own operations.
fn composed_attention(
    x: Tensor<Plain, 3>,
    weights: AttentionWeights<Plain>,
    placement: &Placement<Plain>,
    memory: Option<&mut Memory<Plain>>,
) -> Tensor<Plain, 3> {
    /// As [`Fused`], but for what it composes.
    #[derive(Debug, Clone, Copy)]
    struct Parts;
    impl Kernels<Plain> for Parts {
        fn project(x: Tensor<Plain, 3>, weight: Tensor<Plain, 2>) -> Tensor<Plain, 3> {
            Fused::project(x, weight)
        }

        fn rms_norm(
            x: Tensor<Plain, 3>,
            weight: Tensor<Plain, 1>,
            epsilon: f64,
            into: FloatDType,
        ) -> Tensor<Plain, 3> {
            Fused::rms_norm(x, weight, epsilon, into)
        }

        fn remembering_attention(
            queries: Tensor<Plain, 4>,
            keys: Tensor<Plain, 4>,
            values: Tensor<Plain, 4>,
            _: &Placement<Plain>,
            memory: &mut Memory<Plain>,
        ) -> Tensor<Plain, 4> {
            let (shape, kv_heads) = (queries.dims(), keys.dims()[2]);
            let heads = Heads { queries: shape[2], keys: kv_heads, size: shape[3] };
            let (past_keys, past_values) = memory.take().unzip();
            let (keys, values) = (grow(past_keys, keys), grow(past_values, values));
            *memory = Some((keys.clone(), values.clone()));
            let (keys, values) = (Floats::of(keys), Floats::of(values));
            let out = match shape[1] {
                1 => attention::next(&Floats::of(queries), &keys, &values, heads),
                _ => {
                    let scaled = queries.mul_scalar((heads.size as f64).powf(-0.5));
                    attention::last(&Floats::of(scaled), &keys, &values, shape[0], heads)
                }
            };
            tensor(out.into_vec(), shape)
        }
    }
    Parts::attention_sublayer(x, weights, placement, memory)
}

impl Kernels<Graph> for Fused {
    const ONE_ROW: bool = true;
    const RESERVE: f64 = 1.0 / crate::buffer::RESERVE as f64;

    fn kept_values(config: &LlamaConfig, _longest: usize) -> usize {
        // The input of the second sublayer, queries, keys and values, attention's output and log-sums, gate and up.
        let (heads, keys) = (config.num_attention_heads, config.num_key_value_heads);
        config.hidden_size + 2 * (heads + keys) * config.head_dim + heads + 2 * config.intermediate_size
    }

    fn work_values(config: &LlamaConfig) -> usize {
        // The gradients of the sublayer's output and input, of attention's output, and of queries, keys and values.
        let (heads, keys) = (config.num_attention_heads, config.num_key_value_heads);
        2 * config.hidden_size + 2 * (heads + keys) * config.head_dim
    }

    fn project(x: Tensor<Graph, 3>, weight: Tensor<Graph, 2>) -> Tensor<Graph, 3> {
        Portable::project(x, weight)
    }

    fn rms_norm(
        x: Tensor<Graph, 3>,
        weight: Tensor<Graph, 1>,
        epsilon: f64,
        into: FloatDType,
    ) -> Tensor<Graph, 3> {
        let y = <Fused as Kernels<Plain>>::rms_norm(x.clone().inner(), weight.clone().inner(), epsilon, into);
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
        let AttentionWeights { norm, query, key, value, output, epsilon } = weights;
        let inputs = AttentionInputs::new(
            AttentionWeights {
                norm: norm.clone().inner(),
                query: query.clone().inner(),
                key: key.clone().inner(),
                value: value.clone().inner(),
                output: output.clone().inner(),
                epsilon,
            },
            placement.layout(),
        );
        let x = x.into_primitive().tensor();
        let floats = Floats::new(x.primitive);
        let (y, attended) = inputs.sublayer().forward(&floats, placement.layout());
        let y = primitive(y.into_vec(), &shape);
        let parents = [
            x.node,
            norm.into_primitive().tensor().node,
            query.into_primitive().tensor().node,
            key.into_primitive().tensor().node,
            value.into_primitive().tensor().node,
            output.into_primitive().tensor().node,
        ];
        let y = match AttentionBack.prepare::<NoCheckpointing>(parents).compute_bound().stateful() {
            OpsKind::UnTracked(prepared) => prepared.finish(y),
            OpsKind::Tracked(prepared) => prepared.finish((floats, inputs, attended, shape), y),
        };
        Tensor::from_primitive(TensorPrimitive::Float(y))
    }

    fn mlp_sublayer(x: Tensor<Graph, 3>, weights: MlpWeights<Graph>) -> Tensor<Graph, 3> {
        let shape = x.dims();
        let MlpWeights { norm, gate, up, down, epsilon } = weights;
        let inputs = MlpInputs::new(MlpWeights {
            norm: norm.clone().inner(),
            gate: gate.clone().inner(),
            up: up.clone().inner(),
            down: down.clone().inner(),
            epsilon,
        });
        let x = x.into_primitive().tensor();
        let floats = Floats::new(x.primitive);
        let (y, gated) = inputs.sublayer().forward(&floats, true);
        let gated = gated.expect("asked to be kept");
        let y = primitive(y.into_vec(), &shape);
        let parents = [
            x.node,
            norm.into_primitive().tensor().node,
            gate.into_primitive().tensor().node,
            up.into_primitive().tensor().node,
            down.into_primitive().tensor().node,
        ];
        let y = match MlpBack.prepare::<NoCheckpointing>(parents).compute_bound().stateful() {
            OpsKind::UnTracked(prepared) => prepared.finish(y),
            OpsKind::Tracked(prepared) => prepared.finish((floats, inputs, gated, shape), y),
        };
        Tensor::from_primitive(TensorPrimitive::Float(y))
    }
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

impl Backward<Plain, 6> for AttentionBack {
    type State = (Floats, AttentionInputs, Attended, [usize; 3]);

    fn backward(self, ops: Ops<Self::State, 6>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [x_node, nodes @ ..] = ops.parents;
        let gy = Floats::new(grads.consume::<Plain>(&ops.node));
        let (x, inputs, attended, shape) = ops.state;
        let (gx, weights) = inputs.sublayer().backward(&x, attended, &gy, &inputs.layout);
        x.recycle();
        gy.recycle();
        if let Some(node) = x_node {
            grads.register::<Plain>(node.id, primitive(gx.into_vec(), &shape));
        }
        for ((node, gradient), weight) in nodes.into_iter().zip(weights).zip(&inputs.weights) {
            if let Some(node) = node {
                grads.register::<Plain>(node.id, primitive(gradient, weight.0.shape()));
            }
        }
    }
}

/// The gradient of a feed-forward sublayer.
#[derive(Debug)]
struct MlpBack;

impl Backward<Plain, 5> for MlpBack {
    type State = (Floats, MlpInputs, Gated, [usize; 3]);

    fn backward(self, ops: Ops<Self::State, 5>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [x_node, nodes @ ..] = ops.parents;
        let gy = Floats::new(grads.consume::<Plain>(&ops.node));
        let (x, inputs, gated, shape) = ops.state;
        let (gx, weights) = inputs.sublayer().backward(&x, gated, &gy);
        x.recycle();
        gy.recycle();
        if let Some(node) = x_node {
            grads.register::<Plain>(node.id, primitive(gx.into_vec(), &shape));
        }
        for ((node, gradient), weight) in nodes.into_iter().zip(weights).zip(&inputs.weights) {
            if let Some(node) = node {
                grads.register::<Plain>(node.id, primitive(gradient, weight.0.shape()));
            }
        }
    }
}
