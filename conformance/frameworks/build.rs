//! Extracts the programs of `bowline/guide/frameworks.md`, each as a module with the name of its heading. So
//! all code of the page is compiled. A program that no test calls is dead code, which fails CI.

use std::path::Path;
use std::{env, fs};

const PAGE: &str = "../../bowline/guide/frameworks.md";

/// The headings of the programs whose frameworks take long to compile: those of the feature `heavy`.
const HEAVY: [&str; 5] = ["actix-web", "GraphQL", "poem", "rocket", "salvo"];

fn main() {
    println!("cargo::rerun-if-changed={PAGE}");
    let page = fs::read_to_string(PAGE).expect("the page exists");
    let folder = env::var("OUT_DIR").expect("cargo sets the variable");
    let mut modules = String::new();
    for (heading, program) in programs(&page) {
        let name = heading.to_lowercase().replace(|character: char| !character.is_ascii_alphanumeric(), "_");
        let path = Path::new(&folder).join(format!("{name}.rs"));
        fs::write(&path, program).expect("cargo's folder is writable");
        if HEAVY.contains(&heading) {
            modules += "#[cfg(feature = \"heavy\")]\n";
        }
        modules += &format!("pub mod {name} {{ include!({path:?}); }}\n");
    }
    fs::write(Path::new(&folder).join("programs.rs"), modules).expect("cargo's folder is writable");
}

/// Returns the Rust programs of a page, each with its heading. A heading has at most one.
fn programs(page: &str) -> impl Iterator<Item = (&str, &str)> {
    // The text before the first such line has no heading.
    let sections = page.split("\n##").skip(1);
    sections.filter_map(|section| {
        let (heading, text) = section.split_once('\n')?;
        let (_, begun) = text.split_once("```rust\n")?;
        let (program, rest) = begun.split_once("```\n")?;
        assert!(!rest.contains("```rust\n"), "{heading} has two programs");
        Some((heading.trim_start_matches('#').trim(), program))
    })
}
