//! LLM Surgery (arXiv 2409.13054): a Llama-family model unlearns some documents (reverse gradient), learns others
//! (gradient descent) and keeps its predictions on retain documents (KL to the reference, the model before the
//! operation).
//!
//! Everything is generic over burn's [`Backend`](burn::tensor::backend::Backend). This crate names no backend, prints
//! nothing and opens no socket: it emits [events](event::Event) and returns values. [`objective`] follows the paper's
//! method section, [`step`] its algorithm box, and [`operation`] performs the whole:
//!
//! ```no_run
#![doc = include_str!("../examples/operate.rs")]
//! ```

pub mod account;
pub mod activations;
mod backward;
pub mod batch;
pub mod checkpoint;
pub mod config;
pub mod data;
pub mod error;
pub mod evaluate;
pub mod evaluation;
pub mod event;
pub mod files;
pub mod folders;
pub mod generate;
pub mod globs;
pub mod inspect;
mod json;
pub mod kernels;
pub mod memory;
pub mod model;
mod normal;
pub mod objective;
pub mod operation;
pub mod optimizer;
pub mod oracle;
pub mod parameters;
pub mod placement;
pub mod platform;
pub mod pretrain;
pub mod recipe;
pub mod reference;
pub mod replay;
pub mod report;
pub mod resume;
pub mod step;
pub mod surgery;
mod tensors;
pub mod text;
pub mod token_nll;
pub mod training;

pub use burn;
pub use error::{Error, Kind, Result};
