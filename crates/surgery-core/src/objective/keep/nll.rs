//! The NLL of retain documents (GradDiff, arXiv 2203.12817): they are trained on again. It needs no reference.

use crate::kernels::TokenLoss;
use crate::objective::weighing::Use;

/// What retain documents are used for.
pub fn usage() -> Use {
    Use::Logits(TokenLoss::Nll)
}
