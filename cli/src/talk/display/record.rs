//! `--record`: every message and control frame, in both directions, as lines of JSON.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::connect::UsageError;
use crate::talk::item::Item;
use crate::talk::json_line::{self, Direction};

/// A recording. An earlier recording in the file is kept until a connection is open.
///
/// ```text
/// Ready --a connection is open--> On --a line can't be written--> Failed
/// ```
#[derive(Debug, Default)]
pub(in crate::talk) enum Recording {
    /// Nothing is to be recorded.
    #[default]
    Off,
    /// The file can be written.
    Ready(File, PathBuf),
    On(File, PathBuf),
    Failed,
}

impl Recording {
    /// Opens the file, or creates it.
    pub(in crate::talk) fn open(path: Option<&Path>) -> Result<Self, UsageError> {
        let Some(path) = path else { return Ok(Self::Off) };
        match File::options().append(true).create(true).open(path) {
            Ok(file) => Ok(Self::Ready(file, path.into())),
            Err(error) => Err(UsageError(format!("--record {}: {error}", path.display()))),
        }
    }

    /// Begins to record, unless the recording has begun already. Returns the text of an error, which ends the
    /// recording.
    pub(in crate::talk) fn begin(&mut self) -> Result<(), String> {
        match std::mem::replace(self, Self::Failed) {
            Self::Ready(file, path) => {
                truncate(&file).map_err(|error| failure(&path, &error))?;
                *self = Self::On(file, path);
            }
            other => *self = other,
        }
        Ok(())
    }

    /// Returns whether there is anything to record to.
    pub(in crate::talk) fn is_on(&self) -> bool {
        matches!(self, Self::Ready(..) | Self::On(..))
    }

    /// Returns whether an error has ended the recording.
    pub(in crate::talk) fn has_failed(&self) -> bool {
        matches!(self, Self::Failed)
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
        let text = failure(path, &error);
        *self = Self::Failed;
        Err(text)
    }
}

/// Empties a file. Pipes and devices have nothing to empty.
fn truncate(file: &File) -> io::Result<()> {
    if file.metadata()?.is_file() { file.set_len(0) } else { Ok(()) }
}

fn failure(path: &Path, error: &io::Error) -> String {
    format!("the recording ends here: --record {}: {error}", path.display())
}
