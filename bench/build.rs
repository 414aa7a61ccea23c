//! Tells the program which compiler has built it.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let compiler = std::env::var_os("RUSTC").expect("cargo names the compiler");
    let output = Command::new(compiler).arg("--version").output().expect("the compiler runs");
    println!("cargo::rustc-env=BENCH_COMPILER={}", String::from_utf8_lossy(&output.stdout).trim());
}
