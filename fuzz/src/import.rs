//! The readers of `surgery import`, compiled here from the command line's sources.
#![allow(dead_code, reason = "the targets do not use everything")]

use std::rc::Rc;

#[path = "../../crates/surgery-cli/src/import/csv.rs"]
pub mod csv;
#[path = "../../crates/surgery-cli/src/import/draft.rs"]
pub mod draft;
#[path = "../../crates/surgery-cli/src/import/place.rs"]
pub mod place;
#[path = "../../crates/surgery-cli/src/import/python.rs"]
pub mod python;
#[path = "../../crates/surgery-cli/src/import/records.rs"]
pub mod records;
#[path = "../../crates/surgery-cli/src/import/table.rs"]
pub mod table;

pub use draft::{Draft, Reason};

/// An empty draft.
pub fn draft() -> Draft {
    Draft::new(draft::About { name: "fuzz", description: "arbitrary bytes", licence: None })
}

/// A position for messages.
pub fn place(file: &str) -> place::Place {
    place::Place::new(&Rc::from(file), place::Unit::Whole, 1)
}
