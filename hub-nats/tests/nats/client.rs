//! Hubs over a real NATS.

use std::error::Error;

use bowline_hub::{Hub, HubBuilder};
use bowline_hub_nats::Nats;
use bowline_hub_testing::client::builder_with_loss;

pub(crate) async fn builder(url: &str) -> Result<HubBuilder<Nats>, Box<dyn Error>> {
    Ok(builder_with_loss(bowline_hub_nats::connect(url).await?))
}

pub(crate) async fn hub(url: &str) -> Result<Hub, Box<dyn Error>> {
    Ok(builder(url).await?.build()?)
}
