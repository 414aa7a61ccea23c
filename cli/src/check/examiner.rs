//! Runs one case: the opening handshake, the steps, and the judgement on what the server does.

mod answer;
mod expectation;

use std::time::{Duration, Instant};

use super::finding::{Finding, Miss, Strictness, Verdict};
use super::script::{Answer, Case, Expectation, STILL, Step};
use super::wire::frame::{encoded, ping};
use super::wire::head::{Edit, Pace, RequestHead, ResponseHead};
use super::wire::opening::{NoResponse, Opened, open, open_sibling};
use super::wire::session::Session;
use super::wire::transcript::Transcript;
use crate::connect::{ConnectError, Dialer, Version};

/// The time for a server that may be slow, as a multiple of the time for a reaction.
const PATIENCE: u32 = 5;

/// The server, and the options that all cases share.
pub(crate) struct Examiner {
    pub(crate) dialer: Dialer,
    pub(crate) version: Version,
    /// The time in which the server has to do what a step expects.
    pub(crate) wait: Duration,
    pub(crate) strictness: Strictness,
}

/// A case that has been run.
pub(crate) struct Outcome {
    pub(crate) verdict: Verdict,
    pub(crate) transcript: Transcript,
    pub(crate) duration: Duration,
}

/// A case after its opening handshake.
enum Begun {
    Open(Box<Session>),
    /// The case has ended with the handshake.
    Ended(Verdict, Transcript),
}

impl Examiner {
    /// Runs a case.
    pub(crate) async fn examine(&self, case: &Case) -> Outcome {
        let began = Instant::now();
        let (verdict, transcript) = match self.begin(case).await {
            Begun::Ended(verdict, transcript) => (verdict, transcript),
            Begun::Open(mut session) => {
                let result = self.run(case, &mut session).await;
                (result.into(), session.into_transcript())
            }
        };
        // RFC 6455 10: whatever was sent, the next client is served.
        let verdict = match (verdict, case.runs_alone()) {
            (Verdict::Passed, true) => self.still_serves().await.into(),
            (verdict, _) => verdict,
        };
        Outcome { verdict, transcript, duration: began.elapsed() }
    }

    /// Performs a correct opening handshake, before and after cases. The server may be slow here: it starts,
    /// or is still busy with a flood.
    pub(crate) async fn open(&self) -> Result<Opened, ConnectError> {
        open(&self.dialer, &self.request(), Pace::AtOnce, self.version, self.wait * PATIENCE).await
    }

    /// A correct request, with a key of its own.
    fn request(&self) -> RequestHead {
        RequestHead::new(&self.dialer.request())
    }

    async fn begin(&self, case: &Case) -> Begun {
        let mut request = self.request();
        if let Answer::Compressed = case.opening.answer {
            request.apply(&Edit::Set("Sec-WebSocket-Extensions", answer::compression_offer()));
        }
        case.opening.edits.iter().for_each(|edit| request.apply(edit));
        let opened = open(&self.dialer, &request, case.opening.pace, self.version, self.wait).await;
        match opened {
            Err(error) => {
                let finding = Finding::new("a connection", error.to_string());
                Begun::Ended(Verdict::Failed(finding), Transcript::new())
            }
            Ok(Opened::Accepted(mut session, head)) => {
                match self.accepted(case, &request, &mut session, &head) {
                    Ok(()) => Begun::Open(session),
                    Err(miss) => Begun::Ended(Err(miss).into(), session.into_transcript()),
                }
            }
            Ok(Opened::Refused(head, _, transcript)) => {
                let refused = self.refused(case, &head).map_err(Miss::from);
                Begun::Ended(refused.into(), transcript)
            }
            Ok(Opened::Nothing(why, transcript)) => {
                let nothing = nothing(case, &why).map_err(Miss::from);
                Begun::Ended(nothing.into(), transcript)
            }
        }
    }

    fn accepted(
        &self,
        case: &Case,
        request: &RequestHead,
        session: &mut Session,
        head: &ResponseHead,
    ) -> Result<(), Miss> {
        let check = || answer::check_accepted(request, head, self.version);
        match case.opening.answer {
            Answer::Opened | Answer::Anything => Ok(()),
            Answer::Valid | Answer::ValidOrRefused => Ok(check()?),
            Answer::Plain | Answer::PlainOrRefused => {
                check()?;
                Ok(answer::check_plain(head)?)
            }
            Answer::Rejected { statuses, .. } => {
                let observed = format!("it was accepted with the status {}", head.status);
                Err(Finding::new(refusal(statuses), observed).into())
            }
            Answer::Compressed => match answer::agreed_compression(head)? {
                Some(inflater) => {
                    session.allow_compression(inflater);
                    Ok(check()?)
                }
                None => Err(Miss::Inapplicable("the server declines compression".into())),
            },
        }
    }

    fn refused(&self, case: &Case, head: &ResponseHead) -> Result<(), Finding> {
        match case.opening.answer {
            Answer::Rejected { statuses, header } => {
                answer::check_rejected(head, (statuses, header), self.strictness)
            }
            Answer::Anything | Answer::ValidOrRefused | Answer::PlainOrRefused => Ok(()),
            Answer::Opened | Answer::Valid | Answer::Plain | Answer::Compressed => Err(Finding::new(
                "the handshake succeeds",
                format!("it was refused with the status {}", head.status),
            )),
        }
    }

    async fn run(&self, case: &Case, session: &mut Session) -> Result<(), Miss> {
        for step in &case.steps {
            match step {
                Step::Write(bytes) => session.write(bytes).await,
                Step::WriteSlowly(bytes) => session.write_slowly(bytes).await,
                Step::Repeat { bytes, times } => session.write_repeatedly(bytes, *times).await,
                Step::EndOfStream => session.end_stream().await,
                Step::Reset => session.reset(),
                Step::Expect(Expectation::SiblingOpens) => self.sibling_opens(session).await?,
                Step::Expect(expectation) => {
                    expectation::check(session, expectation, self.strictness).await?;
                }
            }
        }
        Ok(())
    }

    async fn sibling_opens(&self, session: &Session) -> Result<(), Miss> {
        let expected = "another stream of the connection opens";
        let Some(below) = session.below() else { return Ok(()) };
        let opened = open_sibling(below, &self.request(), self.wait).await;
        self.answers_pings(expected, Ok(opened)).await
    }

    async fn still_serves(&self) -> Result<(), Miss> {
        self.answers_pings("the server survives, and serves the next client", self.open().await).await
    }

    /// Checks that a WebSocket has opened, and answers a ping or is closed by the application.
    async fn answers_pings(&self, expected: &str, opened: Result<Opened, ConnectError>) -> Result<(), Miss> {
        let failed = |observed: String| Err(Finding::new(expected, observed).into());
        let mut session = match opened {
            Ok(Opened::Accepted(session, _)) => session,
            Ok(Opened::Refused(head, ..)) => return failed(format!("the status {}", head.status)),
            Ok(Opened::Nothing(why, _)) => return failed(why.to_string()),
            Err(error) => return failed(error.to_string()),
        };
        session.write(&encoded([ping(STILL)])).await;
        match expectation::check(&mut session, &Expectation::Alive, self.strictness).await {
            Err(Miss::Fault(finding)) => failed(finding.observed),
            Ok(()) | Err(Miss::Inapplicable(_)) => Ok(()),
        }
    }
}

fn nothing(case: &Case, why: &NoResponse) -> Result<(), Finding> {
    match (case.opening.answer, why) {
        // The end of the connection is a refusal, though not one that names the version.
        (Answer::Anything, _)
        | (
            Answer::ValidOrRefused | Answer::PlainOrRefused | Answer::Rejected { header: None, .. },
            NoResponse::Ended(_),
        ) => Ok(()),
        (Answer::Rejected { statuses, .. }, why) => Err(Finding::new(refusal(statuses), why.to_string())),
        (_, why) => Err(Finding::new("the handshake succeeds", why.to_string())),
    }
}

fn refusal(statuses: &[u16]) -> String {
    if statuses.is_empty() {
        return "a refusal".into();
    }
    format!("a refusal, such as the status {}", answer::listed(statuses))
}
