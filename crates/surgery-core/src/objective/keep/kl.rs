//! KL(reference ‖ model) of each predicted token (the paper, section 3.2): 0 at the first step.

use crate::kernels::{Distribution, TokenLoss};
use crate::objective::weighing::Use;

/// What retain documents are used for.
pub fn usage() -> Use {
    let reference = Distribution { of_reference: true, shift: 0.0, is_entropy_counted: false };
    Use::Logits(TokenLoss::Distribution(reference))
}
