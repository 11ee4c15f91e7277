//! The distance of hidden states from the reference's, with RMU (arXiv 2403.03218): ‖h_t − h_ref,t‖² / hidden at the output
//! of RMU's block, at the predicted tokens' own positions.

use crate::objective::weighing::{States, Use};

/// What retain documents are used for.
pub fn usage(block: usize) -> Use {
    Use::States { block, target: States::Reference }
}
