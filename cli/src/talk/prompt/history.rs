//! The history of the prompt: a file for each host and port, which nobody else may read.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use rustyline::DefaultEditor;

/// The file of the history, unless the user has no home.
pub(super) struct HistoryFile(Option<PathBuf>);

impl HistoryFile {
    pub(super) fn new(host: &str, port: u16) -> Self {
        Self(directory().map(|directory| directory.join(name(host, port))))
    }

    /// Loads the history.
    pub(super) fn load(&self, editor: &mut DefaultEditor) {
        if let Some(path) = &self.0 {
            // There is none yet, or it can't be read: the prompt works without.
            let _ = editor.load_history(path);
        }
    }

    /// Adds a line, and saves it at once: the process may end while a line is edited.
    pub(super) fn add(&self, editor: &mut DefaultEditor, line: &str) {
        if line.is_empty() || !matches!(editor.add_history_entry(line), Ok(true)) {
            return;
        }
        if let Some(path) = &self.0 {
            // A prompt without a history is better than none.
            if let Some(directory) = path.parent() {
                let _ = create(directory);
            }
            // Creates the file for the user alone (mode 0600).
            let _ = editor.append_history(path);
        }
    }
}

/// `$XDG_STATE_HOME/bowline/history`, or its default below the home directory.
fn directory() -> Option<PathBuf> {
    let state = match env::var_os("XDG_STATE_HOME").map(PathBuf::from) {
        // The specification ignores relative paths.
        Some(path) if path.is_absolute() => path,
        _ => env::home_dir().filter(|home| home.is_absolute())?.join(".local/state"),
    };
    Some(state.join("bowline/history"))
}

#[cfg(unix)]
fn create(directory: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

#[cfg(not(unix))]
fn create(directory: &Path) -> std::io::Result<()> {
    fs::create_dir_all(directory)
}

/// A name that is a file's on all systems.
fn name(host: &str, port: u16) -> String {
    let allowed = |byte: char| byte.is_ascii_alphanumeric() || "-.".contains(byte);
    let host: String = host.chars().map(|byte| if allowed(byte) { byte } else { '_' }).collect();
    format!("{}_{port}", host.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_names_of_files_are_harmless() {
        assert_eq!(super::name("Example.com", 443), "example.com_443");
        assert_eq!(super::name("[::1]", 80), "___1__80");
        assert_eq!(super::name("../x", 80), ".._x_80");
    }
}
