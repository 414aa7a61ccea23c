//! Extracts the programs of `bowline/guide/deploying.md`, so that the suites run what the page says.

use std::path::Path;
use std::{env, fs};

const PAGE: &str = "../bowline/guide/deploying.md";

fn main() {
    println!("cargo::rerun-if-changed={PAGE}");
    let page = fs::read_to_string(PAGE).expect("the page exists");
    let folder = env::var("OUT_DIR").expect("cargo sets the variable");
    for (name, program) in programs(&page) {
        fs::write(Path::new(&folder).join(name), program).expect("cargo's folder is writable");
    }
}

/// Returns the Rust programs of a page, and a file name for each: the heading before it.
fn programs(page: &str) -> impl Iterator<Item = (String, &str)> {
    // The text before the first such line has no heading.
    let sections = page.split("\n##").skip(1);
    sections.filter_map(|section| {
        let (heading, text) = section.split_once('\n')?;
        let (_, begun) = text.split_once("```rust,no_run\n")?;
        let (program, _) = begun.split_once("```\n")?;
        let name = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "_");
        Some((format!("{name}.rs"), program))
    })
}
