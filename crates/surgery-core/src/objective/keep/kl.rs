//! KL(reference ‖ model) of each predicted token (the paper, section 3.2): 0 at the first step.

use crate::kernels::{Distribution, TokenLoss};
use crate::objective::weighing::Use;

/// The kind of loss of retain documents.
pub fn usage() -> Use {
    let reference = Distribution { of_reference: true, shift: 0.0, is_entropy_counted: false };
    Use::Logits(TokenLoss::Distribution(reference))
}

#[cfg(test)]
mod tests {
    use super::usage;
    use crate::model::At;

    #[test]
    fn it_needs_the_reference_s_final_states() {
        assert_eq!(usage().of_reference(), Some(At::Final));
    }
}
