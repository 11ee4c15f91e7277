//! The backward pass from hidden states to parameters.
//!
//! The forward pass is divided into parts: the embedding, each block, the last norm. Each part has its own graph of
//! burn's autodiff, with the part's input as a leaf. The backward pass adds the gradients of a part to the sum before
//! it computes those of the next part. With `recompute`, only the parts' inputs are kept, and each part runs again in
//! the backward pass (arXiv 1604.06174). That costs a third more arithmetic in blocks, and memory grows with the inputs
//! alone.

use std::collections::BTreeMap;

use burn::module::AutodiffModule;
use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;

use crate::batch::Rows;
use crate::error::Result;
use crate::kernels::Kernels;
use crate::model::Llama;
use crate::optimizer::{Gradients, collect_gradients};
use crate::parameters::{ParameterKind, ParameterSpec};
use crate::placement::Placement;

/// A forward pass with its stored activations, ready for the backward pass.
pub(crate) struct Pass<'a, B: AutodiffBackend> {
    model: &'a Llama<B>,
    rows: &'a Rows,
    placement: Placement<B>,
    /// The blocks that were run.
    blocks: usize,
    parts: Vec<Part<B>>,
    /// The output of the last part, `[rows, columns, hidden]`.
    output: Tensor<B::InnerBackend, 3>,
}

/// A part of the forward pass: its input (`None` for the embedding), and its output with its graph if that is kept.
struct Part<B: AutodiffBackend> {
    input: Option<Tensor<B, 3>>,
    output: Option<Tensor<B, 3>>,
}

/// Gradients of hidden states, `[rows, columns, hidden]` each.
pub(crate) struct StateGradients<B: AutodiffBackend> {
    /// The gradient of the final states.
    pub(crate) last: Option<Tensor<B::InnerBackend, 3>>,
    /// The gradients of the outputs of blocks, by the block's index.
    pub(crate) blocks: BTreeMap<usize, Tensor<B::InnerBackend, 3>>,
}

impl<'a, B: AutodiffBackend> Pass<'a, B> {
    /// Runs `model` over packed rows: the whole model, or its blocks up to index `last`.
    pub(crate) fn forward<K: Kernels<B> + Kernels<B::InnerBackend>>(
        model: &'a Llama<B>,
        rows: &'a Rows,
        last: Option<usize>,
        recompute: bool,
    ) -> Result<Self> {
        let placement = Placement::packed(rows, model.config(), &model.device())?;
        let blocks = last.map_or(model.num_blocks(), |last| last + 1);
        let parts = if last.is_some() { 1 + blocks } else { 2 + blocks };
        let inference = recompute.then(|| model.valid());
        let inner_placement = match recompute {
            true => Some(Placement::packed(rows, model.config(), &model.device())?),
            false => None,
        };
        let first = first_trained(model);
        let mut kept = Vec::with_capacity(parts);
        let mut x: Option<Tensor<B::InnerBackend, 3>> = None;
        for part in 0..parts {
            let input = x.take().map(|x| Tensor::from_inner(x).set_require_grad(part > first));
            if let (Some(model), Some(placement)) = (&inference, &inner_placement) {
                let inner = input.clone().map(Tensor::inner);
                x = Some(run::<_, K>(model, rows, placement, blocks, part, inner));
                kept.push(Part { input, output: None });
            } else {
                let output = run::<_, K>(model, rows, &placement, blocks, part, input.clone());
                x = Some(output.clone().inner());
                kept.push(Part { input, output: Some(output) });
            }
        }
        let output = x.expect("there is an embedding");
        Ok(Self { model, rows, placement, blocks, parts: kept, output })
    }

    /// The final hidden states, or the output of the last block that was run: `[rows, columns, hidden]`.
    pub(crate) fn output(&self) -> Tensor<B::InnerBackend, 3> {
        self.output.clone()
    }

    /// The output of a block, `[rows, columns, hidden]`.
    pub(crate) fn block_output(&self, block: usize) -> Tensor<B::InnerBackend, 3> {
        // It is the input of the next part.
        match self.parts.get(block + 2) {
            Some(part) => part.input.clone().expect("only the embedding has no input").inner(),
            None => self.output(),
        }
    }

    /// The final hidden states without a graph, `[rows, columns, hidden]`. Runs the blocks that have not run yet.
    pub(crate) fn finish<K: Kernels<B::InnerBackend>>(&self) -> Result<Tensor<B::InnerBackend, 3>> {
        let all = self.model.num_blocks();
        if self.parts.len() == 2 + all {
            return Ok(self.output());
        }
        let model = self.model.valid();
        let placement = Placement::packed(self.rows, model.config(), &model.device())?;
        let mut x = self.output();
        for block in self.blocks..all {
            x = model.block::<K>(block, x, &placement, None);
        }
        Ok(model.norm::<K>(x))
    }

    /// Adds the gradient of every parameter except an untied head to `gradients`.
    pub(crate) fn backward<K: Kernels<B>>(
        self,
        states: StateGradients<B>,
        gradients: &mut Gradients<B::InnerBackend>,
    ) {
        let Self { model, rows, placement, blocks, parts, output } = self;
        drop(output);
        let StateGradients { last, blocks: mut of_blocks } = states;
        let mut gradient = last;
        let first = first_trained(model);
        for (part, Part { input, output }) in parts.into_iter().enumerate().skip(first).rev() {
            if let Some(here) = part.checked_sub(1).and_then(|block| of_blocks.remove(&block)) {
                gradient = Some(match gradient {
                    Some(gradient) => gradient + here,
                    None => here,
                });
            }
            let Some(upstream) = gradient.take() else { continue };
            let output =
                output.unwrap_or_else(|| run::<_, K>(model, rows, &placement, blocks, part, input.clone()));
            // burn differentiates from ones, so `output · upstream` has `upstream` as its gradient with respect to `output`.
            let mut found = (output * Tensor::from_inner(upstream)).backward();
            gradient = input.filter(|_| part > first).and_then(|input| input.grad_remove(&mut found));
            collect_gradients(model, &mut found, gradients);
        }
    }
}

/// The first part with a trained parameter. The parts before it need no gradient.
fn first_trained<B: AutodiffBackend>(model: &Llama<B>) -> usize {
    let part = |spec: &ParameterSpec| match (spec.kind, spec.block) {
        (ParameterKind::Embedding, _) => Some(0),
        (_, Some(block)) => Some(1 + block),
        (ParameterKind::Head, None) => None,
        (_, None) => Some(1 + model.num_blocks()),
    };
    let trained = model.parameters().iter().filter(|spec| spec.trainable);
    trained.filter_map(part).min().unwrap_or(usize::MAX)
}

/// One part of a model's forward pass over packed rows: the embedding, which has no input, a block, or the last norm.
fn run<B: burn::tensor::backend::Backend, K: Kernels<B>>(
    model: &Llama<B>,
    rows: &Rows,
    placement: &Placement<B>,
    blocks: usize,
    part: usize,
    input: Option<Tensor<B, 3>>,
) -> Tensor<B, 3> {
    match (part.checked_sub(1), input) {
        (Some(block), Some(x)) if block < blocks => model.block::<K>(block, x, placement, None),
        (Some(_), Some(x)) => model.norm::<K>(x),
        _ => model.embed::<K>(&rows.tokens, [rows.rows, rows.columns]),
    }
}
