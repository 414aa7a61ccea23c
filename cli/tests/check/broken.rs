//! A server by hand, with one fault at a time. `check` has to find each, by the case that is about it.

mod connection;
mod fault;
mod handshake;
mod http2;
mod message;

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use self::connection::Connection;
use self::fault::{FAULTS, Fault};
use crate::support::check;

/// Starts a server with a fault, and returns its address.
async fn serve(fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let crash = Arc::new(Notify::new());
    tokio::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    connections.spawn(answer(accepted.unwrap().0, fault, Arc::clone(&crash)));
                }
                () = crash.notified() => {
                    // No client sees its connection end while the server still listens.
                    drop(listener);
                    return;
                }
            }
        }
    });
    address
}

async fn answer(mut stream: TcpStream, fault: Fault, crash: Arc<Notify>) {
    // An error is the end of the connection.
    let Ok(Some(accepted)) = handshake::answer(&mut stream, fault).await else {
        let _ = stream.shutdown().await;
        return;
    };
    if let Ok(End::Crash) = Connection::new(stream, accepted, fault).run().await {
        crash.notify_one();
        pending::<()>().await;
    }
}

/// The effect of a connection's end on the server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    Connection,
    Crash,
}

#[tokio::test]
async fn the_server_without_a_fault_has_no_finding() {
    let address = serve(Fault::None).await.to_string();
    check(&["--strict", "--echo", &address]).await.expect_right();
}

#[tokio::test]
async fn every_fault_is_found_by_its_case() {
    let mut missed = Vec::new();
    for faults in FAULTS.chunks(8) {
        let mut running = JoinSet::new();
        for (fault, case) in faults {
            running.spawn(async move {
                let address = serve(*fault).await.to_string();
                let outcome = check(&["--strict", "--echo", "--case", case, &address]).await;
                let is_found = outcome.status == 8 && outcome.findings() == [*case];
                (!is_found).then(|| format!("{fault:?}, {case}: {outcome:?}"))
            });
        }
        missed.extend(running.join_all().await.into_iter().flatten());
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

/// The level by default finds what RFCs say with MUST, and nothing else.
#[tokio::test]
async fn recommendations_are_asked_with_strict_alone() {
    for fault in
        [Fault::ClosesWith1000, Fault::EndsWithoutClose, Fault::AcceptsLongLengths, Fault::ChecksTextLate]
    {
        let address = serve(fault).await.to_string();
        let cases = ["--case", "frame", "--case", "text"];
        check(&[&cases[..], &[&address]].concat()).await.expect_right();
        let outcome = check(&[&cases[..], &["--strict", &address]].concat()).await;
        assert_eq!(outcome.status, 8, "{fault:?}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_finding_says_everything_that_a_report_needs() {
    let address = serve(Fault::IgnoresRsv2).await.to_string();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.xml");
    let outcome = check(&["-v", "--junit", file.to_str().unwrap(), "--case", "frame.rsv", &address]).await;
    assert_eq!(outcome.status, 2, "the prefix ends at a dot: {outcome:?}");
    let outcome = check(&["-v", "--junit", file.to_str().unwrap(), "--case", "frame.rsv2", &address]).await;
    let expected = "FAIL  frame.rsv2 (RFC 6455 5.2, MUST): sent: a text frame with RSV2; expected: the \
                    server fails the connection; came: it went on, and answered a ping sent after the fault";
    assert_eq!(outcome.stdout.lines().next(), Some(expected), "{outcome:?}");
    for part in [
        "-> text, RSV2, masked, 5 bytes: \"hello\" [a1 85 37 fa 21 3d",
        "<- Pong, unmasked, 15 bytes: \"after",
    ] {
        assert!(outcome.stdout.contains(part), "{outcome:?}");
    }
    assert!(outcome.stdout.contains("1 case, 1 finding, in "), "{outcome:?}");
    let xml = std::fs::read_to_string(&file).unwrap();
    assert!(xml.contains("failures=\"1\""), "{xml}");
    assert!(
        xml.contains("<failure message=\"expected: the server fails the connection; came: it went on"),
        "{xml}"
    );
    let json = check(&["--json", "--case", "frame.rsv2", &address]).await;
    let value: serde_json::Value = serde_json::from_str(json.stdout.lines().next().unwrap()).unwrap();
    assert_eq!(value["verdict"], "failed");
    assert_eq!(value["observed"], "it went on, and answered a ping sent after the fault");
}
