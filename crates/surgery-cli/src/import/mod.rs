//! From other people's data to a data folder: one file for each format.
//!
//! A format reads its files and hands every text and question to a [`Draft`], which leaves out and counts what
//! cannot be used; `write` makes the data folder of it. Nothing is drawn by chance: order and halves follow the input.

pub mod authors;
mod csv;
mod draft;
pub mod muse;
mod place;
mod python;
mod records;
pub mod rwku;
mod table;
pub mod tofu;
mod write;

pub use draft::{Draft, Reason};
pub use write::write;
