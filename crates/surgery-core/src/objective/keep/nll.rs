//! The NLL of retain documents (GradDiff, arXiv 2203.12817), minimised by gradient descent. It needs no reference.

use crate::kernels::TokenLoss;
use crate::objective::weighing::Use;

/// The kind of loss of retain documents.
pub fn usage() -> Use {
    Use::Logits(TokenLoss::Nll)
}
