//! The checks at the end of a run.

use anyhow::{Result, bail};

/// The result of all checks.
#[derive(Default)]
pub struct Verdict {
    failures: usize,
}

impl Verdict {
    pub fn check(&mut self, holds: bool, what: impl std::fmt::Display) {
        println!("{:<6} {what}", if holds { "ok" } else { "FAILED" });
        self.failures += usize::from(!holds);
    }

    pub fn result(self) -> Result<()> {
        match self.failures {
            0 => Ok(()),
            failures => bail!("{failures} checks failed"),
        }
    }
}
