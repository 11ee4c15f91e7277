//! The operations without a graph.

use surgery_core::burn::tensor::{FloatDType, Tensor};
use surgery_core::kernels::{
    AdamWStep, AttentionWeights, Distribution, Footprint, HeadGradient, HeadKernels, Memory, MlpWeights,
    ModelKernels, OptimizerKernels, Predictions, TokenLoss,
};
use surgery_core::placement::Placement;

use super::{AttentionInputs, Floats, Fused, MlpInputs, Plain, attention_weights, mlp_weights, tensor};
use crate::adamw;
use crate::attention::{self, Heads};
use crate::buffer::Buffer;
use crate::head::{Head, Predicted};
use crate::sublayers::{Norm, norm, project};

impl ModelKernels<Plain> for Fused {
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
        let epsilon = weights.epsilon;
        let weights = attention_weights(weights).map(|weight| weight.map(Floats::new));
        let inputs = AttentionInputs::new(weights, epsilon, placement.layout());
        let x = Floats::of(x);
        let (y, _) = inputs.sublayer().forward(&x, placement.layout());
        x.recycle();
        tensor(y.into_vec(), shape)
    }

    fn mlp_sublayer(x: Tensor<Plain, 3>, weights: MlpWeights<Plain>) -> Tensor<Plain, 3> {
        let shape = x.dims();
        let x = Floats::of(x);
        let epsilon = weights.epsilon;
        let inputs = MlpInputs::new(mlp_weights(weights).map(|weight| weight.map(Floats::new)), epsilon);
        let (y, _) = inputs.sublayer().forward(&x, false);
        x.recycle();
        tensor(y.into_vec(), shape)
    }
}

impl HeadKernels<Plain> for Fused {
    fn logits(hidden: Tensor<Plain, 2>, head: Tensor<Plain, 2>) -> Tensor<Plain, 2> {
        let ([count, _], shape) = (hidden.dims(), head.dims());
        let y = project(&Floats::of(hidden), &Floats::of(head), shape);
        tensor(y.into_vec(), [count, shape[0]])
    }

    fn nll(hidden: Tensor<Plain, 2>, head: Tensor<Plain, 2>, targets: &[u32]) -> Tensor<Plain, 1> {
        let [vocab, size] = head.dims();
        let head = Floats::of(head);
        let head = Head { matrix: &head, vocab, size };
        let predicted = Predicted {
            loss: TokenLoss::Nll,
            tokens: targets,
            coefficients: &[],
            is_nll_wanted: false,
            reference: None,
        };
        tensor(head.losses(&Floats::of(hidden), predicted), [targets.len()])
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
        let (states, matrix) = (Floats::of(reference_hidden), Floats::of(reference_head));
        let reference = Distribution { of_reference: true, shift: 0.0, is_entropy_counted: false };
        let predicted = Predicted {
            loss: TokenLoss::Distribution(reference),
            tokens: &[],
            coefficients: &[],
            is_nll_wanted: false,
            reference: Some((&states, &matrix)),
        };
        tensor(head.losses(&Floats::of(hidden), predicted), [count])
    }

    fn head_gradient(
        hidden: Tensor<Plain, 2>,
        head: Tensor<Plain, 2>,
        predictions: &[Predictions<Plain>],
    ) -> HeadGradient<Plain> {
        let (shape, [vocab, size]) = (hidden.dims(), head.dims());
        let (hidden, matrix) = (Floats::of(hidden), Floats::of(head));
        let head = Head { matrix: &matrix, vocab, size };
        let (mut g_hidden, mut g_matrix) = (Buffer::zeros(hidden.len()), vec![0.0; matrix.len()]);
        let losses = predictions.iter().map(|predictions| {
            let reference = predictions.reference.clone();
            let reference = reference.map(|(states, head)| (Floats::of(states), Floats::of(head)));
            let predicted = Predicted {
                loss: predictions.loss,
                tokens: &predictions.tokens,
                coefficients: &predictions.coefficients,
                is_nll_wanted: predictions.is_nll_wanted,
                reference: reference.as_ref().map(|(states, head)| (&states[..], &head[..])),
            };
            head.gradient(&hidden, &predictions.positions, predicted, &mut g_hidden, &mut g_matrix)
        });
        let losses = losses.collect();
        let (hidden, head) = (tensor(g_hidden.into_vec(), shape), tensor(g_matrix, [vocab, size]));
        HeadGradient { losses, hidden, head }
    }
}

impl OptimizerKernels<Plain> for Fused {
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

impl Footprint<Plain> for Fused {}

/// Appends the keys or values of new tokens, `[texts, count, heads, size]`, to those in the cache,
/// `[past, texts, heads, size]`.
fn grow(past: Option<Tensor<Plain, 4>>, new: Tensor<Plain, 4>) -> Tensor<Plain, 4> {
    let [texts, _, heads, size] = new.dims();
    let new = Floats::of(new.swap_dims(0, 1));
    let mut all = past.map_or_else(Vec::new, |past| Floats::of(past).into_vec());
    if all.capacity() - all.len() < new.len() {
        // Grow by an eighth. Doubling would leave up to half of the memory unused.
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
    /// As [`Fused`], except for the composed operation.
    #[derive(Debug, Clone, Copy)]
    struct Parts;
    impl ModelKernels<Plain> for Parts {
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
