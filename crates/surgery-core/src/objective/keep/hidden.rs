//! The distance of hidden states from those of the reference, for RMU (arXiv 2403.03218): ‖h_t − h_ref,t‖² / hidden at the
//! output of RMU's block, at the predicted tokens' own positions.

use crate::objective::weighing::{States, Use};

/// The kind of loss of retain documents.
pub fn usage(block: usize) -> Use {
    Use::States { block, target: States::Reference }
}
