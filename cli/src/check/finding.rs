//! The result of a case.

/// The requirements that are asked of a server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Strictness {
    /// The absolute ones: MUST.
    Must,
    /// The recommendations as well: SHOULD.
    Should,
}

/// A fault of a server.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub(crate) expected: String,
    pub(crate) observed: String,
}

impl Finding {
    pub(crate) fn new(expected: impl Into<String>, observed: impl Into<String>) -> Self {
        Self { expected: expected.into(), observed: observed.into() }
    }
}

/// The reason why a case has not passed.
#[derive(Clone, Debug)]
pub(crate) enum Miss {
    Fault(Finding),
    /// The case does not apply to this server, for this reason.
    Inapplicable(String),
}

impl From<Finding> for Miss {
    fn from(finding: Finding) -> Self {
        Self::Fault(finding)
    }
}

/// The verdict on a case.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    Passed,
    Failed(Finding),
    /// The case does not apply to this server, for this reason.
    Skipped(String),
}

impl From<Result<(), Miss>> for Verdict {
    fn from(result: Result<(), Miss>) -> Self {
        match result {
            Ok(()) => Self::Passed,
            Err(Miss::Fault(finding)) => Self::Failed(finding),
            Err(Miss::Inapplicable(why)) => Self::Skipped(why),
        }
    }
}
