//! Messages by a schedule.

use std::time::Duration;

use bowline::WebSocket;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::support::{bench, serve, serve_echo};

#[tokio::test]
async fn each_message_comes_back_and_the_rate_is_held() {
    let url = serve_echo().await;
    let report = bench(&url, &["-d", "1s", "-c", "7", "--rate", "500/s", "--json"]).await.report();
    assert_eq!(report["pace"]["model"], "open");
    assert_eq!(report["connections"]["opened"], 7);
    assert_eq!(report["messages"]["sent"], 500);
    assert_eq!(report["messages"]["received"], 500);
    assert_eq!(report["messages"]["bytes_received"], 8000);
    assert_eq!(report["errors"]["count"], 0, "{}", report["errors"]);
    for times in ["latency", "own_lag"] {
        assert_eq!(report[times]["count"], 500, "{times}");
    }
    for times in ["connect", "tcp", "upgrade"] {
        assert_eq!(report[times]["count"], 7, "{times}");
    }
    assert_eq!(
        report["timeline"]
            .as_array()
            .unwrap()
            .iter()
            .map(|slice| slice["count"].as_u64().unwrap())
            .sum::<u64>(),
        500
    );
}

#[tokio::test]
async fn a_server_that_pauses_shows() {
    // 200 ms of each second: a fifth of all messages are due in a pause, and wait for its end.
    let (pause, paused) = watch::channel(false);
    tokio::spawn(async move {
        let mut seconds = interval(Duration::from_secs(1));
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            seconds.tick().await;
            sleep(Duration::from_millis(400)).await;
            pause.send_replace(true);
            sleep(Duration::from_millis(200)).await;
            pause.send_replace(false);
        }
    });
    let url = serve(move |mut socket: WebSocket| {
        let mut paused = paused.clone();
        async move {
            while let Some(message) = socket.recv().await? {
                paused.wait_for(|paused| !paused).await?;
                socket.send(message).await?;
            }
            Ok(())
        }
    })
    .await;
    let report = bench(&url, &["-d", "2s", "-c", "4", "--rate", "400/s", "--json"]).await.report();
    let latency = &report["latency"];
    assert!(latency["p99"].as_f64().unwrap() >= 150.0, "{latency}");
    // The mean says how many messages were kept waiting: a fifth of them, for 100 ms.
    assert!(latency["mean"].as_f64().unwrap() >= 10.0, "{latency}");
    assert_eq!(report["messages"]["received"], 800);
}

#[tokio::test]
async fn a_server_that_takes_nothing_is_told_apart_from_a_slow_one() {
    let url = serve(|socket: WebSocket| async move {
        // Without reading, until the client closes.
        socket.closed().await;
        Ok(())
    })
    .await;
    let options =
        ["-d", "500ms", "-c", "1", "--rate", "500/s", "--size", "64K", "--grace", "100ms", "--json"];
    let ran = bench(&url, &options).await;
    assert_eq!(ran.status(), 5, "{}", ran.stderr());
    let errors = &ran.json()["errors"]["kinds"];
    let (missing, unsent) = (&errors["missing replies"], &errors["messages that the server did not take"]);
    assert!(missing.as_u64().unwrap() > 0, "{errors}");
    assert_eq!(missing.as_u64().unwrap() + unsent.as_u64().unwrap(), 250, "{errors}");
}
