//! `--record`: every message and control frame, in both directions, as lines of JSON.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::connect::UsageError;
use crate::talk::item::Item;
use crate::talk::json_line::{self, Direction};

/// A recording.
///
/// ```text
/// On --a line can't be written--> Off
/// ```
#[derive(Debug, Default)]
pub(in crate::talk) enum Recording {
    /// Nothing is recorded, or not any more.
    #[default]
    Off,
    On(File, PathBuf),
}

impl Recording {
    /// Creates the file.
    pub(in crate::talk) fn create(path: Option<&Path>) -> Result<Self, UsageError> {
        let Some(path) = path else { return Ok(Self::Off) };
        match File::create(path) {
            Ok(file) => Ok(Self::On(file, path.into())),
            Err(error) => Err(UsageError(format!("--record {}: {error}", path.display()))),
        }
    }

    /// Returns whether anything is recorded.
    pub(in crate::talk) fn is_on(&self) -> bool {
        matches!(self, Self::On(..))
    }

    /// Records an item. An error ends the recording, and its text is returned.
    pub(in crate::talk) fn add(
        &mut self,
        item: &Item,
        direction: Direction,
        time: Duration,
    ) -> Result<(), String> {
        let Self::On(file, path) = self else { return Ok(()) };
        let mut line = json_line::encode(item, direction, time);
        line.push('\n');
        let Err(error) = file.write_all(line.as_bytes()) else { return Ok(()) };
        let text = format!("the recording ends here: --record {}: {error}", path.display());
        *self = Self::Off;
        Err(text)
    }
}
