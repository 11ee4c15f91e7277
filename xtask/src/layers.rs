//! Which modules of a crate import which: its top-level modules must not import in a circle.

use std::collections::{BTreeMap, BTreeSet};

/// The top-level modules that each one imports.
type Imports = BTreeMap<String, BTreeSet<String>>;

/// The circles of a crate's modules, from the paths within `src` and the texts of its files.
pub(crate) fn circles(name: &str, files: &[(String, String)]) -> Vec<String> {
    let imports = imports(files);
    let circle = |module: &String| {
        let path = path_back(module, &imports)?;
        // Each circle is reported at its first module.
        (path.iter().min() == Some(module)).then(|| {
            format!(
                "crates/{name}: modules import in a circle: {} → {module}; move what they share",
                path.join(" → ")
            )
        })
    };
    imports.keys().filter_map(circle).collect()
}

fn imports(files: &[(String, String)]) -> Imports {
    let mut imports = Imports::new();
    for (path, text) in files {
        let module = path.split('/').next().unwrap_or_default().trim_end_matches(".rs");
        if matches!(module, "lib" | "main") {
            continue;
        }
        // Tests may use everything.
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        let names = code.flat_map(|line| line.split("crate::").skip(1));
        let names = names.map(|rest| rest.split(|c: char| !(c.is_alphanumeric() || c == '_')).next());
        let names = names.flatten().filter(|name| *name != module).map(str::to_owned);
        imports.entry(module.to_owned()).or_default().extend(names);
    }
    imports
}

/// The shortest way from a module over its imports back to it.
fn path_back(module: &String, imports: &Imports) -> Option<Vec<String>> {
    let mut seen = BTreeSet::new();
    let mut paths = vec![vec![module.clone()]];
    while !paths.is_empty() {
        let mut longer = Vec::new();
        for path in paths {
            for next in imports.get(path.last()?).into_iter().flatten() {
                if next == module {
                    return Some(path);
                }
                if seen.insert(next.clone()) {
                    longer.push([path.as_slice(), std::slice::from_ref(next)].concat());
                }
            }
        }
        paths = longer;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(texts: &[(&str, &str)]) -> Vec<(String, String)> {
        texts.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn a_circle_is_found_and_a_line_is_none() {
        let line = files(&[("a.rs", "use crate::b::X;"), ("b/mod.rs", "use crate::c;"), ("c.rs", "")]);
        assert_eq!(circles("x", &line), Vec::<String>::new());
        let circle =
            files(&[("a.rs", "use crate::b;"), ("b/d.rs", "crate::c::f()"), ("c.rs", "use crate::a;")]);
        assert_eq!(circles("x", &circle).len(), 1, "{:?}", circles("x", &circle));
        let tests = files(&[("a.rs", "use crate::b;"), ("b.rs", "#[cfg(test)]\nuse crate::a;")]);
        assert!(circles("x", &tests).is_empty());
    }
}
