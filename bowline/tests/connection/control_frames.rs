//! Control frames in the hands of the application: payloads of pings.

use std::time::Duration;

use bowline::{ErrorKind, Limits, Role, pair};
use tokio::time::{Instant, sleep_until};

use crate::support::frames::Frame;
use crate::support::{open, peer_of, poll_times, settle};

const ROLES: [Role; 2] = [Role::Client, Role::Server];

#[tokio::test(start_paused = true)]
async fn a_ping_has_the_payload_of_its_caller_and_waits_for_that_pong() {
    for role in ROLES {
        for payload in ["", "a", "probe 17", &"p".repeat(125)] {
            let (socket, wire) = open(role, Limits::default());
            let start = Instant::now();
            let answer = async {
                assert_eq!(wire.next_frame(role).await, Frame::ping(payload));
                wire.feed_frame(peer_of(role), &Frame::pong("unsolicited"));
                wire.feed_frame(peer_of(role), &Frame::pong("8 bytes!"));
                sleep_until(start + Duration::from_millis(50)).await;
                wire.feed_frame(peer_of(role), &Frame::pong(payload));
            };
            let (round_trip, ()) = tokio::join!(socket.ping().payload(payload), answer);
            assert_eq!(round_trip.unwrap(), Duration::from_millis(50), "{payload:?}");
        }
    }
    let (client, _server) = pair();
    client.ping().payload([1, 2, 3]).await.unwrap();
    client.sender().ping().payload(vec![0; 125]).await.unwrap();
}

#[tokio::test]
async fn a_pong_settles_the_pings_before_its_own_whatever_their_payloads() {
    for role in ROLES {
        let (socket, wire) = open(role, Limits::default());
        let sender = socket.sender();
        let pings = [Some("one"), None, Some("two"), Some("three")].map(|payload| {
            let sender = sender.clone();
            tokio::spawn(async move {
                match payload {
                    Some(payload) => sender.ping().payload(payload).await,
                    None => sender.ping().await,
                }
            })
        });
        settle().await;
        assert_eq!(wire.take_frames(role).len(), 4);
        // RFC 6455 5.5.3: a peer may answer only the most recent ping.
        wire.feed_frame(peer_of(role), &Frame::pong("two"));
        settle().await;
        assert_eq!([0, 1, 2, 3].map(|number| pings[number].is_finished()), [true, true, true, false]);
        wire.feed_frame(peer_of(role), &Frame::pong("three"));
        for ping in pings {
            ping.await.unwrap().unwrap();
        }
    }
}

#[tokio::test]
async fn a_payload_that_may_not_be_sent_sends_nothing() {
    for role in ROLES {
        let (socket, wire) = open(role, Limits::default());
        let error = socket.ping().payload([0; 126]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(error.to_string(), "a control frame carries at most 125 bytes, not 126");
        let first = tokio::spawn({
            let sender = socket.sender();
            async move { sender.ping().payload("same").await }
        });
        assert_eq!(wire.next_frame(role).await, Frame::ping("same"));
        let error = socket.ping().payload("same").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("Ping::payload"), "{error}");
        assert!(wire.take_written().is_empty());

        // A payload may be used again after its pong, and after its ping was given up.
        wire.feed_frame(peer_of(role), &Frame::pong("same"));
        first.await.unwrap().unwrap();
        for _ in 0..3 {
            assert!(poll_times(3, socket.ping().payload("same")).await.is_none());
            assert_eq!(wire.next_frame(role).await, Frame::ping("same"));
        }
    }
}
