//! How strongly the hidden units of the feed-forward networks answer to texts: what the paper shows of a model before
//! and after (its figure of MLP activations, layer × hidden unit, set by set).

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use crate::batch::{BATCH_TOKENS, Rows, batches};
use crate::error::Result;
use crate::evaluate::context;
use crate::kernels::Kernels;
use crate::model::Llama;
use crate::placement::Placement;
use crate::tensors::at_positions;

/// The mean over all predicting positions of `texts` of |silu(gate) · up|, for each hidden unit of each layer:
/// `[layers][intermediate]`.
pub fn mlp_activations<B: Backend, K: Kernels<B>>(
    model: &Llama<B>,
    texts: &[Vec<u32>],
) -> Result<Vec<Vec<f32>>> {
    let context = context(model.config());
    let lengths: Vec<usize> = texts.iter().map(Vec::len).collect();
    let mut sums: Vec<Option<Tensor<B, 1>>> = vec![None; model.num_blocks()];
    let mut count = 0;
    for batch in batches(&lengths, BATCH_TOKENS) {
        let batch: Vec<&[u32]> = batch.into_iter().map(|text| texts[text].as_slice()).collect();
        let rows = Rows::pack(&batch, context, K::ONE_ROW);
        if rows.targets.is_empty() {
            continue;
        }
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
