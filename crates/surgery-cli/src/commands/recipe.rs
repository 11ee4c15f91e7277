//! `surgery recipe`: lists and prints the shipped recipes.

use serde_json::json;

use crate::args::RecipeCommand;
use crate::exit::{Failure, Outcome};
use crate::inputs::RECIPES;
use crate::terminal::{print, print_json};

/// Lists or prints recipes.
pub fn run(command: RecipeCommand, as_json: bool) -> Outcome {
    match command {
        RecipeCommand::Ls if as_json => {
            let list: Vec<_> = RECIPES
                .iter()
                .map(|(name, purpose, _)| json!({ "name": name, "purpose": purpose }))
                .collect();
            print_json(&list)
        }
        RecipeCommand::Ls => {
            let lines: Vec<String> =
                RECIPES.iter().map(|(name, purpose, _)| format!("{name:<18} {purpose}")).collect();
            print(&lines.join("\n"))
        }
        RecipeCommand::Show { name } => match RECIPES.iter().find(|(shipped, _, _)| *shipped == name) {
            Some((_, _, text)) if as_json => print_json(&json!({ "name": name, "text": text })),
            Some((_, _, text)) => print(text.trim_end()),
            None => {
                let shipped: Vec<&str> = RECIPES.iter().map(|(name, _, _)| *name).collect();
                Err(Failure::Usage(format!("no recipe `{name}`; shipped are: {}", shipped.join(", "))))
            }
        },
    }
}
