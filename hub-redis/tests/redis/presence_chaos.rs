//! Schedules of failures against the presence of a real Redis: see `bowline_hub_testing::presence_chaos`.
//!
//! `BOWLINE_HUB_SEED=<seed> cargo test -p bowline-hub-redis --test redis presence_chaos` replays a schedule.

use std::error::Error;

use bowline_hub::EngineError;
use bowline_hub_redis::Redis;
use bowline_hub_testing::TestResult;
use bowline_hub_testing::presence_chaos::{Broker, check_schedules, serve};
use bowline_hub_testing::random::seeds;

use crate::support::server::{DURABLE, Server};

impl Broker for Server {
    type Engine = Redis;

    const NODE: &str = "presence_chaos::node";
    const SCHEME: &str = "redis";

    async fn start() -> Result<Option<Self>, Box<dyn Error>> {
        Self::start(DURABLE).await
    }

    async fn connect(url: &str) -> Result<Redis, EngineError> {
        bowline_hub_redis::connect(url).await
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
        self.forget()
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
fn everybody_sees_who_is_present_in_a_hundred_schedules() {
    check_schedules::<Server>(&seeds(1000..1100));
}

#[tokio::test]
#[ignore = "the schedules run this one in a process of its own"]
async fn node() -> TestResult {
    serve::<Server>().await
}
