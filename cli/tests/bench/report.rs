//! The report, the conditions, and the status of the process.

use bowline::http::request::Parts;
use bowline::http::{Response, StatusCode};
use bowline::{Acceptor, CloseCode, Rejection, Server, WebSocket};
use tokio::net::TcpListener;

use crate::support::{Ran, bench, serve, serve_echo, start};

#[tokio::test]
async fn the_text_has_the_percentiles() {
    let url = serve_echo().await;
    let ran = bench(&url, &["-d", "300ms", "-c", "2"]).await;
    assert_eq!(ran.status(), 0, "{}", ran.stderr());
    let text = ran.stdout();
    for part in ["open model", "p50", "p99.99", "latency", "upgrade", "own lag", "errors    0"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!text.contains('\x1b'), "no colours in a pipe: {text}");
    assert_eq!(ran.stderr(), "", "no status line without a terminal");
}

#[tokio::test]
async fn a_condition_decides_the_status() {
    let url = serve_echo().await;
    let run = ["-d", "200ms", "-c", "2", "--rate", "100/s", "--fail-if"];
    let ran = bench(&url, &[&run[..], &["errors>0", "--fail-if", "p50>10s"]].concat()).await;
    assert_eq!(ran.status(), 0, "{}", ran.stderr());
    let ran = bench(&url, &[&run[..], &["p99.9>1ns", "--fail-if", "rate<1m/s"]].concat()).await;
    assert_eq!(ran.status(), 8);
    assert!(ran.stderr().starts_with("bowline: --fail-if p99.9>1ns: it is "), "{}", ran.stderr());
    assert!(ran.stderr().contains("--fail-if rate<1m/s"), "{}", ran.stderr());
}

#[tokio::test]
async fn the_page_is_one_file_with_diagrams() {
    let url = serve_echo().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.html");
    let path = file.to_str().unwrap();
    let ran =
        bench(&url, &["-d", "300ms", "-c", "2", "--rate", "100/s", "--html", path, "--fail-if", "p50>1ns"])
            .await;
    assert_eq!(ran.status(), 8, "{}", ran.stderr());
    let page = std::fs::read_to_string(&file).unwrap();
    assert_eq!(page.matches("<svg").count(), 2);
    for part in [&url, "p99.99", "latency", "--fail-if p50&gt;1ns: it is "] {
        assert!(page.contains(part), "{part} in {page}");
    }
    for elsewhere in ["<script", "src=", "href=", "@import", "NaN", "inf"] {
        assert!(!page.contains(elsewhere), "{elsewhere} in {page}");
    }
    // The run does not begin if its report can't be written.
    let ran = bench(&url, &["-d", "1h", "--html", folder.path().to_str().unwrap()]).await;
    assert_eq!(ran.status(), 2);
    assert!(ran.stderr().starts_with("bowline: --html "), "{}", ran.stderr());
}

#[tokio::test]
async fn wrong_options_are_wrong_usage() {
    for options in [
        &["--fail-if", "p98>1ms"][..],
        &["--rate", "0/s"],
        &["-c", "0"],
        &["-d", "0s"],
        &["--threads", "0"],
        &["-c", "100000000"],
        &["--message", "{{name}}"],
        &["--mode", "broadcast", "--size", "1"],
        &["--mode", "idle", "--rate", "1/s"],
        &["--source", "127.0.0.9-127.0.0.1"],
        &["--match", "("],
        &["--in-flight", "1", "--rate", "1/s"],
    ] {
        let ran = bench("ws://127.0.0.1:1/", options).await;
        assert_eq!(ran.status(), 2, "{options:?}: {}", ran.stderr());
        assert!(
            ran.stderr().contains(options[0].trim_start_matches('-')) || options[0].len() == 2,
            "{}",
            ran.stderr()
        );
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_not_reached() {
    // A port that was free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let ran = bench(&format!("ws://{address}"), &[]).await;
    assert_eq!(ran.status(), 3);
    assert!(ran.stderr().starts_with("bowline: connecting to 127.0.0.1:"), "{}", ran.stderr());
}

#[tokio::test]
async fn a_handshake_that_is_refused_is_said() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let server = Server::new().on_request(|_: Parts| async {
        let mut response = Response::new("no \x1b[31mtoken".to_owned());
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        Err::<Parts, _>(Rejection::from(response))
    });
    tokio::spawn(async move { server.serve(listener, |_: WebSocket| async { Ok(()) }).await });
    let ran = bench(&url, &[]).await;
    assert_eq!(ran.status(), 4);
    assert!(ran.stderr().contains("401"), "{}", ran.stderr());
    assert!(ran.stderr().ends_with("\nno [31mtoken\n"), "{:?}", ran.stderr());
}

#[tokio::test]
async fn lost_connections_are_counted_by_kind() {
    let url = serve(|mut socket: WebSocket| async move {
        if socket.recv().await?.is_some() {
            socket.close(CloseCode::TRY_AGAIN_LATER, "").await?;
        }
        Ok(())
    })
    .await;
    assert_losses(&url, "closed by the server with 1013").await;
}

#[tokio::test]
async fn connections_that_are_dropped_are_counted() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut socket, _) = Acceptor::new().accept_stream(stream).await.unwrap();
                // Without a Close frame.
                let _ = socket.recv().await;
            });
        }
    });
    assert_losses(&url, "connection lost").await;
}

#[tokio::test]
async fn messages_that_are_no_replies_are_errors() {
    let url = serve(|mut socket: WebSocket| async move {
        while let Some(message) = socket.recv().await? {
            socket.send(message.clone()).await?;
            // Twice, and one without a number.
            socket.send(message).await?;
            socket.send("news").await?;
        }
        Ok(())
    })
    .await;
    let report = bench(&url, &["-d", "200ms", "-c", "2", "--rate", "100/s", "--json"]).await.report();
    assert_eq!(report["messages"]["received"], 20);
    // The last ones may come after the end.
    assert!(report["errors"]["kinds"]["unexpected messages"].as_u64().unwrap() >= 38, "{}", report["errors"]);
    assert!(report["warnings"].to_string().contains("--match"), "{}", report["warnings"]);
}

async fn assert_losses(url: &str, kind: &str) {
    let options = ["-d", "1s", "-c", "3", "--grace", "0s", "--json"];
    let ran = bench(url, &options).await;
    assert_eq!(ran.status(), 5, "{}", ran.stderr());
    let report = ran.json();
    assert_eq!(report["errors"]["kinds"][kind], 3, "{}", report["errors"]);
    assert!(report["duration_s"].as_f64().unwrap() < 1.0, "without connections, a run ends");
}

#[cfg(unix)]
#[tokio::test]
async fn an_interrupted_run_reports_what_it_has_measured() {
    use std::time::Duration;

    use rustix::process::{Pid, Signal, kill_process};

    let (first, mut arrived) = tokio::sync::mpsc::unbounded_channel();
    let url = serve(move |mut socket: WebSocket| {
        let first = first.clone();
        async move {
            while let Some(message) = socket.recv().await? {
                socket.send(message).await?;
                let _ = first.send(());
            }
            Ok(())
        }
    })
    .await;
    let child = start(&url, &["-d", "1h", "-c", "2", "--rate", "200/s", "--json"]);
    let process = Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
    for _ in 0..20 {
        tokio::time::timeout(Duration::from_secs(10), arrived.recv()).await.unwrap();
    }
    kill_process(process, Signal::INT).unwrap();
    let ran = Ran::of(child).await;
    assert_eq!(ran.status(), 130, "{}", ran.stderr());
    let report = ran.json();
    assert_eq!(report["interrupted"], true);
    assert!(report["messages"]["received"].as_u64().unwrap() >= 20, "{}", report["errors"]);
    assert_eq!(report["errors"]["count"], 0, "{}", report["errors"]);
}
