//! The cases that the options leave.

use clap::Args;

use super::cases;
use super::finding::Strictness;
use super::script::{Case, Level, Needs};
use crate::connect::{UsageError, Version};

/// The options that select cases.
#[derive(Args, Debug)]
pub(super) struct SelectionArguments {
    /// The server echoes messages: check these as well
    #[arg(long, help_heading = "Cases")]
    echo: bool,
    /// Check the recommendations of the RFCs too, close codes among them
    #[arg(long, help_heading = "Cases")]
    strict: bool,
    /// Run these cases alone, by id or section: text, frame.rsv1, 5.5; may be repeated
    #[arg(long = "case", value_name = "ID", help_heading = "Cases")]
    cases: Vec<String>,
    /// List the cases, and do nothing
    #[arg(long, help_heading = "Cases")]
    pub(super) list: bool,
}

impl SelectionArguments {
    pub(super) fn strictness(&self) -> Strictness {
        if self.strict { Strictness::Should } else { Strictness::Must }
    }

    /// The cases, of which there is at least one.
    pub(super) fn select(&self, version: Version) -> Result<Vec<Case>, UsageError> {
        let applicable: Vec<Case> =
            cases::all().into_iter().filter(|case| self.applies(case, version)).collect();
        if let Some(unknown) =
            self.cases.iter().find(|name| !applicable.iter().any(|case| is_named(case, name)))
        {
            return Err(UsageError(format!(
                "--case {unknown}: there is no such case under these options; --list shows them"
            )));
        }
        let is_selected =
            |case: &Case| self.cases.is_empty() || self.cases.iter().any(|name| is_named(case, name));
        Ok(applicable.into_iter().filter(is_selected).collect())
    }

    fn applies(&self, case: &Case, version: Version) -> bool {
        let by_level = case.level == Level::Must || self.strict;
        let by_needs = match case.needs {
            Needs::Any => true,
            Needs::Echo => self.echo,
            Needs::Http1 => version == Version::Http1,
            Needs::Http2 => version == Version::Http2,
            Needs::Http3 => version == Version::Http3,
        };
        by_level && by_needs
    }
}

/// Returns `true` if `name` is the case's id or section, or the start of one of them up to a dot.
fn is_named(case: &Case, name: &str) -> bool {
    let section = case.section.rsplit(' ').next().unwrap_or_default();
    [case.id.as_str(), section, case.section]
        .iter()
        .any(|whole| whole.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
}
