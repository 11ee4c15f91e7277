//! The NLL of retain documents (GradDiff, arXiv 2203.12817), minimised by gradient descent. It needs no reference.

use crate::kernels::TokenLoss;
use crate::objective::weighing::Use;

/// The kind of loss of retain documents.
pub fn usage() -> Use {
    Use::Logits(TokenLoss::Nll)
}

#[cfg(test)]
mod tests {
    use super::usage;
    use crate::objective::weighing::Use;

    #[test]
    fn it_is_the_nll_and_needs_no_reference() {
        assert_eq!(usage(), Use::NLL);
        assert_eq!(usage().of_reference(), None);
    }
}
