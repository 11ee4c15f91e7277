//! Mean activations of the hidden units of the feed-forward networks. The paper's figure of MLP activations shows them
//! before and after the operation: layer × hidden unit, for each set.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use crate::batch::{BATCH_TOKENS, Rows, Window, batches};
use crate::data::Example;
use crate::error::Result;
use crate::evaluate::context;
use crate::kernels::Kernels;
use crate::model::Llama;
use crate::placement::Placement;
use crate::tensors::at_positions;

/// The mean over all predicting positions of `documents` of |silu(gate) · up|, for each hidden unit of each layer:
/// `[layers][intermediate]`.
pub fn mlp_activations<B: Backend, K: Kernels<B>>(
    model: &Llama<B>,
    documents: &[Example],
) -> Result<Vec<Vec<f32>>> {
    let context = context(model.config());
    let windows = Window::of_all(documents, context);
    let mut sums: Vec<Option<Tensor<B, 1>>> = vec![None; model.num_blocks()];
    let mut count = 0;
    for batch in batches(&Window::lengths(&windows), BATCH_TOKENS) {
        let batch: Vec<Window> = batch.into_iter().map(|window| windows[window]).collect();
        let rows = Rows::pack(&batch, K::ONE_ROW);
        count += rows.targets.len();
        let placement = Placement::packed(&rows, model.config(), &model.device())?;
        let mut x = model.embed::<K>(&rows.tokens, [rows.rows, rows.columns]);
        for (index, sum) in sums.iter_mut().enumerate() {
            let (next, inner) = model.block_opened::<K>(index, x, &placement);
            let inner = at_positions(inner, rows.targets.iter().map(|target| target.position));
            let here = inner.abs().sum_dim(0).reshape([-1]);
            *sum = Some(match sum.take() {
                Some(sum) => sum + here,
                None => here,
            });
            x = next;
        }
    }
    let mean = |sum: Option<Tensor<B, 1>>| match sum {
        Some(sum) => {
            let values = sum.div_scalar(count as f64).into_data().convert::<f32>();
            values.to_vec::<f32>().expect("converted to f32")
        }
        None => vec![0.0; model.config().intermediate_size],
    };
    Ok(sums.into_iter().map(mean).collect())
}
