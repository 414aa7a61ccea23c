//! The checks at the end.

use anyhow::{Result, bail};

/// What has to hold, and whether it did.
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
