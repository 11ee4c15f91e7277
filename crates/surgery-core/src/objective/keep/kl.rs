//! KL(reference ‖ model) of each predicted token (the paper, section 3.2): 0 at the first step.

use crate::kernels::{Distribution, TokenLoss};
use crate::objective::weighing::Use;

/// The kind of loss of retain documents.
pub fn usage() -> Use {
    let reference = Distribution { of_reference: true, shift: 0.0, is_entropy_counted: false };
    Use::Logits(TokenLoss::Distribution(reference))
}
