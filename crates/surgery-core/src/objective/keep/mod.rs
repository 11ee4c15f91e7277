//! The keep losses of retain documents. Each has a file with its formula and source. `retain` multiplies the mean over
//! documents of the mean over their predicted tokens.

pub mod hidden;
pub mod kl;
pub mod nll;
