//! The public surface of both crates, with all features: one item a line, so that every addition is a
//! decision.
//!
//! `check` compares it with the listings that are checked in; `write` makes them anew.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;
use std::process::{Command, ExitCode};

/// Each crate, and its listing.
const CRATES: [(&str, &str); 2] = [
    ("bowline", "docs/public-surface/bowline.txt"),
    ("bowline-proto", "docs/public-surface/bowline-proto.txt"),
];

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let write = match std::env::args().nth(1).as_deref() {
        Some("check") => false,
        Some("write") => true,
        _ => return Err("usage: public-surface check|write, in the root of the checkout".into()),
    };
    let mut same = true;
    for (name, path) in CRATES {
        let listing = list(name)?;
        if write {
            std::fs::write(path, listing)?;
        } else {
            same &= compare(&std::fs::read_to_string(path)?, &listing, path);
        }
    }
    if !same {
        eprintln!("the public surface has changed: if that is meant, run");
        eprintln!("    cargo run --manifest-path .ci/public-surface/Cargo.toml -- write");
    }
    Ok(if same { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn list(name: &str) -> Result<String, Box<dyn Error>> {
    let target = Path::new("target").join("public-surface");
    let done = Command::new("cargo")
        .args(["rustdoc", "--quiet", "--locked", "--all-features", "--package", name, "--lib"])
        .args(["--", "-Zunstable-options", "--output-format", "json", "--cap-lints", "allow"])
        .env("CARGO_TARGET_DIR", &target)
        // The output is unstable: a stable compiler gives it only so.
        .env("RUSTC_BOOTSTRAP", "1")
        .status()?;
    if !done.success() {
        return Err(format!("rustdoc failed on {name}").into());
    }
    let json = target.join("doc").join(format!("{}.json", name.replace('-', "_")));
    let surface = public_api::Builder::from_rustdoc_json(json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .build()
        .map_err(|error| format!("{error}; the version of public-api has to fit the compiler"))?;
    let lines = surface.items().map(|item| format!("{item}\n"));
    // The guide exists in the documentation only.
    Ok(lines.filter(|line| !line.starts_with("pub mod bowline::guide")).collect())
}

/// Says what is there in one of the two only.
fn compare(before: &str, now: &str, path: &str) -> bool {
    let (before, now): (BTreeSet<_>, BTreeSet<_>) = (before.lines().collect(), now.lines().collect());
    if before == now {
        return true;
    }
    println!("{path}:");
    before.difference(&now).for_each(|line| println!("-{line}"));
    now.difference(&before).for_each(|line| println!("+{line}"));
    false
}
