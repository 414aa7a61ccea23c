//! The public surface of the crates, with all features: one item a line, so that every addition is a
//! decision. `bowline` has a second one, in browsers, whose items have to be those of the first.
//!
//! `check` compares it with the listings that are checked in; `write` makes them anew.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;
use std::process::{Command, ExitCode};

/// A crate for a target, and its listing.
struct Surface {
    name: &'static str,
    /// `None` for that of the machine.
    target: Option<&'static str>,
    path: &'static str,
}

const SURFACES: [Surface; 7] = [
    NATIVE,
    BROWSER,
    of("bowline-proto", "docs/public-surface/bowline-proto.txt"),
    of("bowline-http3", "docs/public-surface/bowline-http3.txt"),
    of("bowline-hub", "docs/public-surface/bowline-hub.txt"),
    of("bowline-hub-nats", "docs/public-surface/bowline-hub-nats.txt"),
    of("bowline-hub-redis", "docs/public-surface/bowline-hub-redis.txt"),
];

const NATIVE: Surface = of("bowline", "docs/public-surface/bowline.txt");

const BROWSER: Surface = Surface {
    name: "bowline",
    target: Some("wasm32-unknown-unknown"),
    path: "docs/public-surface/bowline-browser.txt",
};

/// Returns the surface of a crate for this machine.
const fn of(name: &'static str, path: &'static str) -> Surface {
    Surface { name, target: None, path }
}

/// The items that only the library for browsers has.
const BROWSER_ONLY: [&str; 2] =
    ["pub bowline::Limits::unread: usize", "pub fn bowline::Limits::unread(self, usize) -> Self"];

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let write = match std::env::args().nth(1).as_deref() {
        Some("check") => false,
        Some("write") => true,
        _ => return Err("usage: public-surface check|write, in the root of the checkout".into()),
    };
    let mut same = true;
    for surface in SURFACES {
        let listing = list(&surface)?;
        if write {
            std::fs::write(surface.path, listing)?;
        } else {
            same &= compare(&std::fs::read_to_string(surface.path)?, &listing, surface.path);
        }
    }
    if !same {
        eprintln!("the public surface has changed: if that is meant, run");
        eprintln!("    cargo run --manifest-path .ci/public-surface/Cargo.toml -- write");
    }
    let agree = agree(&std::fs::read_to_string(NATIVE.path)?, &std::fs::read_to_string(BROWSER.path)?);
    Ok(if same && agree { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn list(surface: &Surface) -> Result<String, Box<dyn Error>> {
    let Surface { name, target, .. } = *surface;
    let folder = Path::new("target").join("public-surface");
    let done = Command::new("cargo")
        .args(["rustdoc", "--quiet", "--locked", "--all-features", "--package", name, "--lib"])
        .args(target.iter().flat_map(|target| ["--target", target]))
        .args(["--", "-Zunstable-options", "--output-format", "json", "--cap-lints", "allow"])
        .env("CARGO_TARGET_DIR", &folder)
        // The output is unstable: a stable compiler gives it only so.
        .env("RUSTC_BOOTSTRAP", "1")
        .status()?;
    if !done.success() {
        return Err(format!("rustdoc failed on {name}").into());
    }
    let json = folder.join(target.unwrap_or_default()).join("doc");
    let file = json.join(format!("{}.json", name.replace('-', "_")));
    let surface = public_api::Builder::from_rustdoc_json(file)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .build()
        .map_err(|error| format!("{error}; the version of public-api has to fit the compiler"))?;
    let lines = surface.items().map(|item| format!("{item}\n"));
    // The guide exists in the documentation only.
    Ok(lines.filter(|line| !line.starts_with("pub mod bowline::guide")).collect())
}

/// Says which items of the library for browsers the native one does not have, or has in another form.
fn agree(native: &str, browser: &str) -> bool {
    let native: BTreeSet<_> = native.lines().collect();
    let other = |line: &&str| !native.contains(line) && !BROWSER_ONLY.contains(line);
    let others: Vec<_> = browser.lines().filter(other).collect();
    if !others.is_empty() {
        println!("{} has items that {} does not have:", BROWSER.path, NATIVE.path);
        others.iter().for_each(|line| println!("+{line}"));
    }
    others.is_empty()
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
