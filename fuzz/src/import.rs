//! The readers of other people's data, which are the command line's own and so are compiled here by their path.
#![allow(dead_code, reason = "what the formats need beyond what is fuzzed")]

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

/// A draft of nothing in particular.
pub fn draft() -> Draft {
    Draft::new(draft::About { name: "fuzz", description: "arbitrary bytes", licence: None })
}

/// The places that messages name.
pub fn place(file: &str) -> place::Place {
    place::Place::new(&Rc::from(file), place::Unit::Whole, 1)
}
