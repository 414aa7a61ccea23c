//! Schedules of failures against the presence of a real NATS: see `bowline_hub_testing::presence_chaos`.
//!
//! `BOWLINE_HUB_SEED=<seed> cargo test -p bowline-hub-nats --test nats presence_chaos` replays a schedule.

use std::error::Error;
use std::fs;

use bowline_hub::EngineError;
use bowline_hub_nats::Nats;
use bowline_hub_testing::TestResult;
use bowline_hub_testing::presence_chaos::{Broker, check_schedules, serve};
use bowline_hub_testing::random::seeds;

use crate::server::Server;

impl Broker for Server {
    type Engine = Nats;

    const NODE: &str = "presence_chaos::node";
    const SCHEME: &str = "nats";

    async fn start() -> Result<Option<Self>, Box<dyn Error>> {
        Self::start("").await
    }

    async fn connect(url: &str) -> Result<Nats, EngineError> {
        bowline_hub_nats::connect(url).await
    }

    fn address(&self) -> String {
        self.address()
    }

    fn signal(&self, name: &str) -> TestResult {
        self.signal(name)
    }

    fn kill(&mut self) -> TestResult {
        self.kill()
    }

    fn forget(&mut self) -> TestResult {
        Ok(fs::remove_dir_all(self.store())?)
    }

    async fn restart(&mut self) -> TestResult {
        self.restart().await
    }
}

#[test]
fn everybody_sees_who_is_present_whatever_fails() {
    check_schedules::<Server>(&seeds(0..8));
}

#[test]
#[ignore = "takes ten minutes"]
fn everybody_sees_who_is_present_in_hundreds_of_schedules() {
    check_schedules::<Server>(&seeds(1000..1100));
}

#[tokio::test]
#[ignore = "the schedules run this one in a process of its own"]
async fn node() -> TestResult {
    serve::<Server>().await
}
