//! The keep losses: what retain documents are used for. One file each, with its formula and source. `retain` multiplies the
//! mean over documents of the mean over their predicted tokens.

pub mod hidden;
pub mod kl;
pub mod nll;
