//! The versions of everything that is measured, for the results.

use std::process::Command;

/// The packages behind the libraries under comparison, and those that all of them stand on.
const PACKAGES: &[&str] = &[
    "tokio",
    "hyper",
    "rustls",
    "zlib-rs",
    "fastwebsockets",
    "tokio-websockets",
    "tokio-tungstenite",
    "tungstenite",
    "yawc",
    "sockudo-ws",
    "web-socket",
    "soketto",
    "wtx",
    "ratchet_rs",
    #[cfg(feature = "frameworks")]
    "actix-ws",
    #[cfg(feature = "frameworks")]
    "ntex",
];

/// Returns the versions in one line.
pub fn all() -> String {
    let libraries: Vec<_> =
        PACKAGES.iter().filter_map(|name| Some(format!("{name} {}", locked(name)?))).collect();
    format!("{}. bowline {}; {}.", env!("BENCH_COMPILER"), revision(), libraries.join(", "))
}

/// Returns the version of a package in the lock file, which the build uses.
fn locked(package: &str) -> Option<&'static str> {
    let entry = format!("name = \"{package}\"\nversion = \"");
    let (_, rest) = include_str!("../../Cargo.lock").split_once(&entry)?;
    rest.split('"').next()
}

/// Returns the commit of the working copy, with a mark if there are changes.
fn revision() -> String {
    let mut git = Command::new("git");
    git.args(["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty", "--exclude=*"]);
    match git.output() {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => "of an unknown commit".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_library_has_a_version() {
        for package in PACKAGES {
            assert!(locked(package).is_some_and(|version| version.contains('.')), "{package}");
        }
        assert_eq!(locked("bowline-nothing"), None);
        assert!(all().starts_with("rustc 1."), "{}", all());
    }
}
