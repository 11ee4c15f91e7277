//! From the gradient of the final hidden states to that of every parameter.
//!
//! Either burn's autodiff holds what every block computed until its turn comes, or only the blocks' inputs are
//! kept and each block is run once more on the way back (arXiv 1604.06174): a fifth more arithmetic, for memory
//! that grows with the inputs alone.

use burn::module::AutodiffModule;
use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;

use crate::batch::Rows;
use crate::error::Result;
use crate::kernels::Kernels;
use crate::model::Llama;
use crate::optimizer::{Gradients, add_gradient, collect_gradients};
use crate::parameters::ParameterKind;
use crate::placement::Placement;

/// A forward pass that can be followed back.
pub(crate) struct Pass<'a, B: AutodiffBackend> {
    model: &'a Llama<B>,
    rows: &'a Rows,
    placement: Placement<B>,
    tape: Tape<B>,
}

enum Tape<B: AutodiffBackend> {
    /// The final hidden states, with the graph behind them.
    Graph(Tensor<B, 3>),
    /// The input of each block and of the last norm.
    Inputs(Vec<Tensor<B::InnerBackend, 3>>),
}

impl<'a, B: AutodiffBackend> Pass<'a, B> {
    /// Runs `model` over packed rows; gives the final hidden states, `[rows, columns, hidden]`.
    pub(crate) fn forward<K: Kernels<B> + Kernels<B::InnerBackend>>(
        model: &'a Llama<B>,
        rows: &'a Rows,
        recompute: bool,
    ) -> Result<(Tensor<B::InnerBackend, 3>, Self)> {
        let placement = Placement::packed(rows, model.config(), &model.device())?;
        let (hidden, tape) = if recompute {
            let model = model.valid();
            let placement = Placement::packed(rows, model.config(), &model.device())?;
            let mut inputs = vec![model.embed::<K>(&rows.tokens, [rows.rows, rows.columns])];
            for index in 0..model.num_blocks() {
                let x = inputs[index].clone();
                inputs.push(model.block::<K>(index, x, &placement, None));
            }
            (model.norm::<K>(inputs[model.num_blocks()].clone()), Tape::Inputs(inputs))
        } else {
            let mut x = model.embed::<K>(&rows.tokens, [rows.rows, rows.columns]);
            for index in 0..model.num_blocks() {
                x = model.block::<K>(index, x, &placement, None);
            }
            let hidden = model.norm::<K>(x);
            (hidden.clone().inner(), Tape::Graph(hidden))
        };
        Ok((hidden, Self { model, rows, placement, tape }))
    }

    /// The gradient of every parameter that is trained but the head's own, from that of the final hidden states.
    pub(crate) fn backward<K: Kernels<B>>(
        self,
        gradient: Tensor<B::InnerBackend, 3>,
    ) -> Gradients<B::InnerBackend> {
        let Self { model, rows, placement, tape } = self;
        let parameters = model.parameters();
        let mut gradients = Gradients::new();
        if !parameters.trains(|spec| spec.kind != ParameterKind::Head) {
            return gradients;
        }
        match tape {
            Tape::Graph(hidden) => {
                let found = follow(hidden, gradient);
                collect_gradients(model, &[], &found, &mut gradients);
            }
            Tape::Inputs(mut inputs) => {
                // Every part by itself: its input is a leaf, and only its own parameters are found.
                let mut back = |gradient, forward: &dyn Fn(Tensor<B, 3>) -> Tensor<B, 3>| {
                    let x = Tensor::from_inner(inputs.pop().expect("an input for each part")).require_grad();
                    let mut found = follow(forward(x.clone()), gradient);
                    let next = x.grad_remove(&mut found).expect("its input reaches every part's output");
                    collect_gradients(model, &[], &found, &mut gradients);
                    next
                };
                let mut gradient = back(gradient, &|x| model.norm::<K>(x));
                let trains_embedding = parameters.trains(|spec| spec.kind == ParameterKind::Embedding);
                // Nothing before the first block that is trained has a gradient.
                let first =
                    parameters.iter().filter(|spec| spec.trainable).filter_map(|spec| spec.block).min();
                let first = if trains_embedding { 0 } else { first.unwrap_or(model.num_blocks()) };
                for index in (first..model.num_blocks()).rev() {
                    gradient = back(gradient, &|x| model.block::<K>(index, x, &placement, None));
                }
                if trains_embedding {
                    let embedded = model.embed::<K>(&rows.tokens, [rows.rows, rows.columns]);
                    let found = follow(embedded, gradient);
                    collect_gradients(model, &[], &found, &mut gradients);
                }
            }
        }
        gradients
    }

    /// The same with the gradient of the head added, whose matrix may be the embedding's too.
    pub(crate) fn backward_with_head<K: Kernels<B>>(
        self,
        hidden: Tensor<B::InnerBackend, 3>,
        head: Tensor<B::InnerBackend, 2>,
    ) -> Gradients<B::InnerBackend> {
        let spec = self.model.parameters().head();
        let mut gradients = self.backward::<K>(hidden);
        if spec.trainable {
            add_gradient(&mut gradients, &spec.name, head.reshape([-1]));
        }
        gradients
    }
}

/// Everything before `y`, differentiated: burn goes back from ones, so `y · gradient` has this gradient with respect to
/// `y`.
fn follow<B: AutodiffBackend>(y: Tensor<B, 3>, gradient: Tensor<B::InnerBackend, 3>) -> B::Gradients {
    (y * Tensor::from_inner(gradient)).backward()
}
