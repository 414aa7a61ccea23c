//! The dependencies that the page lists are those of this package, and its programs are short.

use toml::{Table, Value};

const PAGE: &str = include_str!("../../../../bowline/guide/frameworks.md");
const MANIFEST: &str = include_str!("../../Cargo.toml");
const BOWLINE: &str = include_str!("../../../../Cargo.toml");

/// Returns the requirement and the features of a dependency.
fn parts(dependency: &Value) -> (Option<&str>, Vec<&str>) {
    let features = dependency.get("features").and_then(Value::as_array);
    let features = features.into_iter().flatten().filter_map(Value::as_str).collect();
    (dependency.as_str().or_else(|| dependency.get("version")?.as_str()), features)
}

#[test]
fn the_dependencies_of_the_page_are_the_tested_ones() {
    let manifest: Table = MANIFEST.parse().unwrap();
    let workspace: Table = BOWLINE.parse().unwrap();
    let bowline = workspace["workspace"]["package"]["version"].as_str().unwrap();
    let blocks = PAGE.split("```toml\n").skip(1).map(|begun| begun.split("```").next().unwrap());
    for (name, dependency) in blocks.flat_map(|block| block.parse::<Table>().unwrap()) {
        let tested = manifest["dependencies"].get(&name).unwrap_or_else(|| panic!("{name} is not tested"));
        let (version, features) = parts(&dependency);
        let (tested_version, tested_features) = parts(tested);
        let tested_version = tested_version.unwrap_or(bowline);
        let version = version.expect("the page names versions");
        assert!(tested_version.starts_with(version), "{name} {version} is tested as {tested_version}");
        // What the page enables is compiled. The tests leave out default features, and `full` of tokio.
        for feature in features.into_iter().filter(|feature| *feature != "full") {
            let is_tested = tested_features.contains(&feature);
            assert!(is_tested || is_default(&name, feature), "{name} is tested without {feature}");
        }
    }
}

/// A reader copies a program at a glance. Imports and blank lines don't count.
#[test]
fn the_programs_of_the_page_are_short() {
    for (program, section) in PAGE.split("```rust\n").skip(1).zip(PAGE.split("```rust\n")) {
        let program = program.split("```").next().unwrap();
        let lines = program.lines().filter(|line| !line.is_empty() && !line.starts_with("use ")).count();
        let heading = section.lines().rfind(|line| line.starts_with("##")).unwrap();
        assert!(lines <= 40, "{heading} has {lines} lines");
    }
}

/// Returns `true` for features of bowline that are enabled by default.
fn is_default(name: &str, feature: &str) -> bool {
    name == "bowline" && ["client", "ring", "server", "tls"].contains(&feature)
}
