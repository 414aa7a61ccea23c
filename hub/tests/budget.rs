//! The memory of a subscription.

#[path = "../../bowline/tests/support/allocations.rs"]
#[allow(dead_code, reason = "the other functions are for the budgets of bowline")]
mod allocations;

use std::time::Duration;

use bowline::pair;
use bowline_hub::{Hub, Memory, Rule};

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;

/// Returns the bytes of a subscription, for so many members in so many topics each.
async fn bytes_per_subscription(members: usize, topics: usize) -> isize {
    let rule = Rule::new().history(100, Duration::from_secs(300));
    let hub = Hub::builder(Memory::new()).workers(1).rule("", rule).build().unwrap();
    let mut joined = Vec::new();
    for _ in 0..members {
        let (client, server) = pair();
        let member = hub.join(server.sender()).unwrap();
        joined.push((client, server, member));
    }
    // The first message on a connection, and the topics themselves, are not counted.
    for topic in 0..topics {
        let _start = joined[0].2.subscribe(&format!("topic/{topic}"), None).await.unwrap();
    }
    let before = allocations::held();
    for (_, _, member) in &joined[1..] {
        for topic in 0..topics {
            let _start = member.subscribe(&format!("topic/{topic}"), None).await.unwrap();
        }
    }
    let subscriptions = (members - 1) * topics;
    assert_eq!(hub.stats().subscriptions, u64::try_from(members * topics).unwrap());
    (allocations::held() - before) / isize::try_from(subscriptions).unwrap()
}

#[tokio::test]
async fn a_subscription_takes_few_bytes() {
    let bytes = bytes_per_subscription(200, 100).await;
    println!("{bytes} bytes");
    assert!(bytes <= 24, "a subscription takes {bytes} bytes");
}
