//! The modes, and the closed model.

use std::sync::Arc;

use bowline::rustls::ServerConfig;
use bowline::rustls::pki_types::PrivateKeyDer;
use bowline::{Prepared, Server, WebSocket};
use tokio::net::TcpListener;
use tokio::sync::broadcast;

use crate::support::{bench, echo, serve, serve_echo};

#[tokio::test]
async fn the_closed_model_keeps_messages_in_flight() {
    let url = serve_echo().await;
    let report = bench(&url, &["-d", "500ms", "-c", "3", "--in-flight", "16", "--json"]).await.report();
    assert_eq!(report["pace"]["model"], "closed");
    assert_eq!(report["errors"]["count"], 0, "{}", report["errors"]);
    let messages = &report["messages"];
    assert_eq!(messages["sent"], messages["received"]);
    assert!(messages["received"].as_u64().unwrap() > 48, "{messages}");
}

/// Serves a broadcast. With `echo`, the message also goes back to the connection that has sent it.
async fn serve_broadcast(echo: bool) -> String {
    let (sender, _) = broadcast::channel::<(u64, Arc<Prepared>)>(1024);
    let next = Arc::new(std::sync::atomic::AtomicU64::new(0));
    serve(move |mut socket: WebSocket| {
        let (sender, mut receiver) = (sender.clone(), sender.subscribe());
        let own = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        async move {
            loop {
                tokio::select! {
                    message = socket.recv() => match message? {
                        Some(message) => {
                            let _ = sender.send((own, Arc::new(Prepared::new(message))));
                        }
                        None => return Ok(()),
                    },
                    Ok((from, message)) = receiver.recv() => {
                        if echo || from != own {
                            socket.send(&*message).await?;
                        }
                    }
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_broadcast_reaches_everybody() {
    for (echo, receivers) in [(true, 8), (false, 7)] {
        let url = serve_broadcast(echo).await;
        let options = ["--mode", "broadcast", "-d", "500ms", "-c", "8", "--rate", "40/s", "--json"];
        let report = bench(&url, &options).await.report();
        assert_eq!(report["messages"]["sent"], 20);
        assert_eq!(report["messages"]["received"], 20 * receivers);
        assert_eq!(report["latency"]["count"], 20 * receivers);
        assert_eq!(report["errors"]["count"], 0, "{}", report["errors"]);
    }
}

#[tokio::test]
async fn a_broadcast_that_misses_somebody_shows() {
    // An echo reaches one of four.
    let url = serve_echo().await;
    let options =
        ["--mode", "broadcast", "-d", "500ms", "-c", "4", "--rate", "40/s", "--grace", "0s", "--json"];
    let report = bench(&url, &options).await.report();
    assert_eq!(report["messages"]["received"], 20);
    assert_eq!(report["errors"]["kinds"]["missing messages"], 60, "{}", report["errors"]);
}

#[tokio::test]
async fn handshakes_are_measured_in_both_models() {
    let url = serve_echo().await;
    let open = bench(&url, &["--mode", "connect", "-d", "500ms", "--rate", "60/s", "--json"]).await.report();
    assert_eq!(open["messages"]["sent"], 30);
    assert_eq!(open["latency"]["count"], 30);
    assert_eq!(open["upgrade"]["count"], 30);
    assert_eq!(open["errors"]["count"], 0, "{}", open["errors"]);
    let options = ["--mode", "connect", "-d", "300ms", "-c", "2", "--in-flight", "1", "--json"];
    let closed = bench(&url, &options).await.report();
    assert!(closed["latency"]["count"].as_u64().unwrap() >= 2);
    assert_eq!(closed["errors"]["count"], 0, "{}", closed["errors"]);
}

#[tokio::test]
async fn handshakes_that_find_no_room_wait_and_count_from_their_due_time() {
    // More than one connection at a time can do.
    let url = serve_echo().await;
    let options =
        ["--mode", "connect", "-d", "300ms", "-c", "1", "--rate", "1m/s", "--grace", "100ms", "--json"];
    let report = bench(&url, &options).await.report();
    let opened = report["messages"]["received"].as_u64().unwrap();
    let late = report["errors"]["kinds"]["handshakes that were too late to begin"].as_u64().unwrap();
    let missing = report["errors"]["kinds"]["missing replies"].as_u64().unwrap_or(0);
    assert_eq!(opened + late + missing, 300_000, "{}", report["errors"]);
    // The last one that was opened was due near the start.
    assert!(report["latency"]["max"].as_f64().unwrap() >= 200.0, "{}", report["latency"]);
    assert_eq!(report["own_lag"]["count"].as_u64().unwrap(), 1, "the others wait for the server");
}

#[tokio::test]
async fn idle_connections_are_held_and_losses_reported() {
    let url = serve_echo().await;
    let report = bench(&url, &["--mode", "idle", "-d", "300ms", "-c", "100", "--json"]).await.report();
    assert_eq!(report["connections"]["opened"], 100);
    assert_eq!(report["errors"]["count"], 0, "{}", report["errors"]);
    // The server ends each connection after a ping.
    let url = serve(|socket: WebSocket| async move {
        socket.ping().await?;
        Ok(())
    })
    .await;
    let report =
        bench(&url, &["--mode", "idle", "-d", "300ms", "-c", "5", "--ramp", "0s", "--json"]).await.json();
    assert_eq!(report["errors"]["kinds"]["closed by the server with 1000"], 5, "{}", report["errors"]);
}

#[tokio::test]
async fn idle_connections_count_what_the_server_sends() {
    let url = serve(|mut socket: WebSocket| async move {
        let mut ticks = tokio::time::interval(std::time::Duration::from_millis(20));
        loop {
            tokio::select! {
                _ = ticks.tick() => socket.send("news").await?,
                message = socket.recv() => if message?.is_none() {
                    return Ok(());
                },
            }
        }
    })
    .await;
    let report = bench(&url, &["--mode", "idle", "-d", "300ms", "-c", "2", "--json"]).await.report();
    assert!(report["messages"]["received"].as_u64().unwrap() > 2, "{}", report["messages"]);
    assert_eq!(report["errors"]["count"], 0, "{}", report["errors"]);
}

#[tokio::test]
async fn connections_come_from_the_addresses_that_were_named() {
    let (seen, mut sources) = tokio::sync::mpsc::unbounded_channel();
    let url = serve(move |mut socket: WebSocket| {
        let _ = seen.send(socket.peer_addr().unwrap().ip().to_string());
        async move {
            while socket.recv().await?.is_some() {}
            Ok(())
        }
    })
    .await;
    let options = ["--mode", "idle", "-d", "100ms", "-c", "4", "--source", "127.0.0.2-127.0.0.3", "--json"];
    bench(&url, &options).await.report();
    let mut used = std::collections::BTreeSet::new();
    while let Ok(source) = sources.try_recv() {
        used.insert(source);
    }
    assert_eq!(used.into_iter().collect::<Vec<_>>(), ["127.0.0.2", "127.0.0.3"]);
}

#[tokio::test]
async fn replies_are_told_apart_by_a_pattern() {
    let url = serve(|mut socket: WebSocket| async move {
        socket.send("welcome").await?;
        while let Some(message) = socket.recv().await? {
            let id = message.as_text().unwrap().trim_start_matches("ask ").to_owned();
            socket.send("news").await?;
            socket.send(format!("answer {id}")).await?;
        }
        Ok(())
    })
    .await;
    let options = [
        "-d",
        "200ms",
        "-c",
        "2",
        "--rate",
        "100/s",
        "--message",
        "ask {{id}}",
        "--match",
        "^answer ([0-9]+)",
        "--json",
    ];
    let report = bench(&url, &options).await.report();
    assert_eq!(report["messages"]["received"], 20);
    assert!(report["messages"]["ignored"].as_u64().unwrap() >= 20, "{}", report["errors"]);
    assert_eq!(report["errors"]["count"], 0, "{}", report["errors"]);
}

#[tokio::test]
async fn connections_begin_with_a_message_of_their_own() {
    let url = serve(|mut socket: WebSocket| async move {
        // The connection that tries the server sends nothing.
        if socket.recv().await? != Some("subscribe".into()) {
            return Ok(());
        }
        while let Some(message) = socket.recv().await? {
            socket.send(message).await?;
        }
        Ok(())
    })
    .await;
    let options = ["-d", "200ms", "-c", "3", "--rate", "100/s", "--first", "subscribe", "--json"];
    let report = bench(&url, &options).await.report();
    assert_eq!(report["messages"]["received"], 20);
    assert_eq!(report["errors"]["count"], 0, "{}", report["errors"]);
}

#[tokio::test]
async fn each_version_of_http_has_its_steps() {
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let config = ServerConfig::builder_with_provider(bowline::crypto_provider().unwrap())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![key.cert.der().clone()],
            PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap(),
        )
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("wss://{}", listener.local_addr().unwrap());
    let server = Server::new().tls(Arc::new(config)).http2();
    tokio::spawn(async move { server.serve(listener, echo).await });
    for version in ["1.1", "2"] {
        let options = ["-k", "-d", "200ms", "-c", "3", "--rate", "100/s", "--http", version, "--json"];
        let report = bench(&url, &options).await.report();
        for step in ["tcp", "tls", "upgrade", "connect"] {
            assert_eq!(report[step]["count"], 3, "{step}");
        }
        let step = |name: &str| report[name]["min"].as_f64().unwrap();
        assert!(step("tls") > 0.0 && step("connect") > step("tls"));
        assert_eq!(report["messages"]["received"], 20);
    }
}
