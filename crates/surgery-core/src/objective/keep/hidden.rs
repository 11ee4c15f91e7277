//! The distance of hidden states from those of the reference, for RMU (arXiv 2403.03218): ‖h_t − h_ref,t‖² / hidden at the
//! output of RMU's block, at the predicted tokens' own positions.

use crate::objective::weighing::{States, Use};

/// The kind of loss of retain documents.
pub fn usage(block: usize) -> Use {
    Use::States { block, target: States::Reference }
}

#[cfg(test)]
mod tests {
    use super::usage;
    use crate::model::At;

    #[test]
    fn it_needs_the_reference_s_states_of_its_block() {
        assert_eq!(usage(3).of_reference(), Some(At::Block(3)));
    }
}
