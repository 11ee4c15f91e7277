//! Conversion of published datasets into a data folder: one file for each format.
//!
//! A format reads its files and passes every text and question to a [`Draft`], which leaves out and counts unusable
//! entries. `write` writes the data folder. Nothing is random: order and splits follow the input.

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
