//! Clients that come back after a loss, and redirects.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bowline::{Acceptor, CloseCode, Connector, ErrorKind, Limits, Reconnecting, Retry};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::support::http::{Head, acceptance, listen, read_head, soon};

const QUICK: Duration = Duration::from_millis(1);

/// Answers one request by hand, and returns it.
async fn answer(listener: &TcpListener, answer: &[u8]) -> Head {
    let (mut stream, _) = listener.accept().await.unwrap();
    let request = read_head(&mut stream).await;
    stream.write_all(answer).await.unwrap();
    stream.shutdown().await.unwrap();
    request
}

/// Returns a client with short pauses, and the list of them.
fn client(address: SocketAddr) -> (Reconnecting, Arc<Mutex<Vec<Retry>>>) {
    let retries = Arc::<Mutex<Vec<Retry>>>::default();
    let noted = Arc::clone(&retries);
    let client = Connector::new()
        .reconnecting(format!("ws://{address}/feed"))
        .backoff(QUICK, 3 * QUICK)
        .on_retry(move |retry| noted.lock().unwrap().push(retry.clone()));
    (client, retries)
}

/// Waits for the first pause, and returns it.
async fn first_retry(client: &mut Reconnecting, retries: &Mutex<Vec<Retry>>) -> Retry {
    soon(async {
        tokio::select! {
            opened = client.connect() => panic!("{opened:?} without a pause"),
            () = async { while retries.lock().unwrap().is_empty() { tokio::task::yield_now().await } } => {}
        }
    })
    .await;
    retries.lock().unwrap()[0].clone()
}

#[tokio::test]
async fn a_client_comes_back_until_the_server_does() {
    let (listener, address) = listen().await;
    let (mut client, retries) = client(address);
    let serving = async {
        answer(&listener, b"HTTP/1.1 503 Service Unavailable\r\n\r\n").await;
        answer(&listener, b"HTTP/1.1 429 Too Many Requests\r\n\r\n").await;
        answer(&listener, b"").await;
        let (stream, _) = listener.accept().await.unwrap();
        Acceptor::new().accept_stream(stream).await.unwrap().0
    };
    let (opened, mut server) = soon(async { tokio::join!(client.connect(), serving) }).await;
    let (mut socket, _) = opened.unwrap();
    socket.send("subscribe").await.unwrap();
    assert_eq!(server.recv().await.unwrap().unwrap(), "subscribe".into());

    // The connection is lost without a Close frame.
    drop(server);
    socket.recv().await.unwrap_err();
    let serving = async {
        let (stream, _) = listener.accept().await.unwrap();
        Acceptor::new().accept_stream(stream).await.unwrap().0
    };
    let (opened, server) = soon(async { tokio::join!(client.connect(), serving) }).await;
    opened.unwrap().0.send("again").await.unwrap();
    drop(server);

    let retries = retries.lock().unwrap();
    let statuses: Vec<_> = retries
        .iter()
        .map(|retry| retry.error().and_then(|error| error.response()).map(|it| it.status().as_u16()))
        .collect();
    assert_eq!(statuses, [Some(503), Some(429), None, None]);
    assert!(retries[2].error().is_some() && retries[3].error().is_none());
    assert_eq!(retries.iter().map(Retry::failures).take(3).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(retries.iter().all(|retry| retry.pause() <= 3 * QUICK), "{retries:?}");
}

#[tokio::test]
async fn a_client_may_dial_by_itself() {
    let (listener, address) = listen().await;
    let retries = Arc::<Mutex<Vec<String>>>::default();
    let noted = Arc::clone(&retries);
    let mut dialled = 0;
    let mut client = Connector::new()
        .limits(Limits::default().handshake_timeout(Duration::from_millis(200)))
        .reconnecting("ws://name.invalid/feed")
        .backoff(QUICK, 3 * QUICK)
        .on_retry(move |retry| noted.lock().unwrap().push(retry.to_string()))
        .dial(move || {
            dialled += 1;
            async move {
                match dialled {
                    1 => Err(std::io::Error::other("no route today")),
                    2 => std::future::pending().await,
                    _ => TcpStream::connect(address).await,
                }
            }
        });
    for _ in 0..2 {
        let serving = async {
            let (stream, _) = listener.accept().await.unwrap();
            Acceptor::new().accept_stream(stream).await.unwrap()
        };
        let (opened, (server, head)) = soon(async { tokio::join!(client.connect(), serving) }).await;
        opened.unwrap().0.send("hello").await.unwrap();
        assert_eq!(head.headers["host"], "name.invalid");
        drop(server);
    }
    let retries = retries.lock().unwrap();
    assert!(
        retries[0].contains("Reconnecting::dial") && retries[0].contains("no route today"),
        "{retries:?}"
    );
    assert!(retries[1].contains("Limits::handshake_timeout"), "{retries:?}");
    assert_eq!(retries.len(), 3, "{retries:?}");
}

#[tokio::test]
async fn a_refusal_ends_the_attempts() {
    for status in ["401 Unauthorized", "404 Not Found", "301 Moved Permanently"] {
        let (listener, address) = listen().await;
        let (mut client, retries) = client(address);
        let response = format!("HTTP/1.1 {status}\r\n\r\n");
        let serving = answer(&listener, response.as_bytes());
        let (opened, _) = soon(async { tokio::join!(client.connect(), serving) }).await;
        let error = opened.unwrap_err();
        assert_eq!(error.response().unwrap().status().as_str(), &status[..3]);
        assert!(retries.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn attempts_have_a_limit() {
    let (listener, address) = listen().await;
    drop(listener);
    let (client, retries) = client(address);
    let mut client = client.attempts(3);
    let error = soon(client.connect()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    let failures = || retries.lock().unwrap().iter().map(Retry::failures).collect::<Vec<_>>();
    assert_eq!(failures(), [1, 2]);
    // Another call tries once more.
    soon(client.connect()).await.unwrap_err();
    assert_eq!(failures(), [1, 2]);
}

/// The end of a connection that lasted is no failure, and takes away none of the attempts.
#[tokio::test]
async fn a_connection_that_lasted_leaves_all_attempts() {
    let (listener, address) = listen().await;
    let (client, retries) = client(address);
    let mut client = client.attempts(2);
    let serving = async {
        let (stream, _) = listener.accept().await.unwrap();
        Acceptor::new().accept_stream(stream).await.unwrap()
    };
    let (opened, _) = soon(async { tokio::join!(client.connect(), serving) }).await;
    let opened_at = Instant::now();
    while opened_at.elapsed() <= 3 * QUICK {
        tokio::task::yield_now().await;
    }
    drop((opened, listener));
    soon(client.connect()).await.unwrap_err();
    assert_eq!(retries.lock().unwrap().iter().map(Retry::failures).collect::<Vec<_>>(), [0, 1]);
}

/// An application that calls again and again, whatever happens, spares the server as well.
#[tokio::test]
async fn calls_after_a_refusal_or_a_dropped_attempt_wait_too() {
    let day = Duration::from_secs(86_400);
    for cancels in [false, true] {
        let (listener, address) = listen().await;
        let (client, retries) = client(address);
        let mut client = client.backoff(day, day);
        if cancels {
            soon(async {
                tokio::select! {
                    opened = client.connect() => panic!("{opened:?} without a response"),
                    accepted = listener.accept() => accepted.unwrap(),
                }
            })
            .await;
        } else {
            let refusing = answer(&listener, b"HTTP/1.1 403 Forbidden\r\n\r\n");
            soon(async { tokio::join!(client.connect(), refusing).0.unwrap_err() }).await;
        }
        assert!(crate::support::poll_times(3, client.connect()).await.is_none());
        assert!(crate::support::poll_times(3, listener.accept()).await.is_none());
        // The refusal was returned, and so needs no report.
        let failures: Vec<_> = retries.lock().unwrap().iter().map(Retry::failures).collect();
        assert_eq!(failures, if cancels { vec![1] } else { vec![] });
    }
}

#[tokio::test]
async fn invalid_settings_are_named() {
    let zero = Duration::ZERO;
    let client = || Connector::new().reconnecting("ws://127.0.0.1:9");
    for (mut client, setting) in [
        (client().backoff(zero, QUICK), "Reconnecting::backoff"),
        (client().backoff(2 * QUICK, QUICK), "Reconnecting::backoff"),
        (client().backoff(Duration::MAX, Duration::MAX), "Reconnecting::backoff"),
        (client().attempts(0), "Reconnecting::attempts"),
        (Connector::new().reconnecting("ftp://127.0.0.1"), "ftp"),
    ] {
        let error = soon(client.connect()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(setting), "{error}");
    }
}

#[tokio::test]
async fn the_servers_wishes_are_respected() {
    // RFC 9110 10.2.3: seconds, or a date, of which one in the past asks for nothing.
    for (value, least, most) in [
        ("7", 7, 8),
        ("Fri, 01 Jan 2100 00:00:00 GMT", 3600, 3601),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0, 1),
        ("soon", 0, 1),
        ("+7", 0, 1),
        ("99999999999999999999", 3600, 3601),
        ("4294967296", 3600, 3601),
    ] {
        let (listener, address) = listen().await;
        let (mut client, retries) = client(address);
        let response = format!("HTTP/1.1 503 Service Unavailable\r\nRetry-After: {value}\r\n\r\n");
        let serving = tokio::spawn(async move { answer(&listener, response.as_bytes()).await });
        let pause = first_retry(&mut client, &retries).await.pause();
        assert!((least..=most).contains(&pause.as_secs()), "{value}: {pause:?}");
        serving.await.unwrap();
    }
    // The codes of a server that restarts or is overloaded (IANA registry of close codes).
    for (code, is_restart) in [
        (CloseCode::SERVICE_RESTART, true),
        (CloseCode::TRY_AGAIN_LATER, true),
        (CloseCode::GOING_AWAY, false),
    ] {
        let (listener, address) = listen().await;
        let (mut client, retries) = client(address);
        let serving = async {
            let (stream, _) = listener.accept().await.unwrap();
            Acceptor::new().accept_stream(stream).await.unwrap().0
        };
        let (opened, server) = soon(async { tokio::join!(client.connect(), serving) }).await;
        let (mut socket, _) = opened.unwrap();
        let closing = async { server.close(code, "later").await };
        let (_, _) = soon(async { tokio::join!(closing, socket.recv()) }).await;
        drop((socket, listener));
        let retry = first_retry(&mut client, &retries).await;
        assert_eq!(retry.close_frame().unwrap().code(), code);
        assert_eq!((5..=30).contains(&retry.pause().as_secs()), is_restart, "{retry}");
    }
}

/// A dropped attempt does not shorten the pause.
#[tokio::test]
async fn a_pause_goes_on_after_its_future_was_dropped() {
    let (listener, address) = listen().await;
    let (mut client, retries) = client(address);
    let serving = answer(&listener, b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 3600\r\n\r\n");
    tokio::join!(first_retry(&mut client, &retries), serving);
    for _ in 0..3 {
        assert!(crate::support::poll_times(3, client.connect()).await.is_none());
    }
    assert_eq!(retries.lock().unwrap().len(), 1);
    // Nobody has connected again.
    assert!(crate::support::poll_times(3, listener.accept()).await.is_none());
}

/// Serves a redirect and then a WebSocket, and returns the request of the latter.
async fn redirect(listener: TcpListener, location: String) -> Option<Head> {
    let response = format!("HTTP/1.1 307 Temporary Redirect\r\nLocation: {location}\r\n\r\n");
    answer(&listener, response.as_bytes()).await;
    let (mut stream, _): (TcpStream, _) = listener.accept().await.ok()?;
    let request = read_head(&mut stream).await;
    stream.write_all(acceptance(&request).text().as_bytes()).await.unwrap();
    Some(request)
}

#[tokio::test]
async fn redirects_to_the_same_host_are_followed_if_asked_for() {
    for (location, target) in [
        ("/new?a=1", "/new?a=1"),
        ("sibling", "/old/sibling"),
        ("?b=2", "/old/feed?b=2"),
        ("ws://{address}/there#part", "/there"),
        ("http://{address}", "/"),
        ("//{address}/slashes", "/slashes"),
        ("WS://{address}/case", "/case"),
        // RFC 3986 4.2: a URL in a query makes the reference no absolute one.
        ("/login?next=ws://elsewhere/", "/login?next=ws://elsewhere/"),
        ("login?next=a:b", "/old/login?next=a:b"),
        // RFC 3986 5.2.2: an empty path is that of the request.
        ("", "/old/feed"),
        ("#part", "/old/feed"),
        // RFC 3986 5.2.4: dot segments are removed.
        ("../up", "/up"),
        ("./here/./x/..", "/old/here/"),
        ("/a/../../b?c=/../d", "/b?c=/../d"),
        ("ws://{address}/a/../b", "/b"),
        ("..", "/"),
    ] {
        let (listener, address) = listen().await;
        let location = location.replace("{address}", &address.to_string());
        let connector = Connector::new().header("authorization", "Bearer 1").redirects(1);
        let serving = redirect(listener, location);
        let connecting = connector.connect(format!("ws://{address}/old/feed"));
        let (opened, request) = soon(async { tokio::join!(connecting, serving) }).await;
        opened.unwrap();
        let request = request.unwrap();
        assert_eq!(request.text().lines().next().unwrap(), format!("GET {target} HTTP/1.1"));
        assert!(request.text().to_lowercase().contains("authorization: bearer 1"));
    }
}

#[tokio::test]
async fn other_redirects_are_returned() {
    for (location, redirects) in [
        ("/new", 0),
        ("ws://localhost:{port}/", 5),
        ("ws://127.0.0.1:1/", 5),
        ("wss://127.0.0.1:1/", 5),
        ("ftp://{address}/", 5),
        ("ws://{address}@evil/", 5),
        ("/ space", 5),
        ("//", 5),
        ("///{address}/", 5),
        ("/\\\\evil/", 5),
        // RFC 3986 4.2: a first segment with a colon is a scheme.
        ("ws:/new", 5),
        ("mailto:admin@{address}", 5),
    ] {
        let (listener, address) = listen().await;
        let location = location
            .replace("{address}", &address.to_string())
            .replace("{port}", &address.port().to_string());
        let serving = tokio::spawn(redirect(listener, location.clone()));
        let connector = Connector::new().redirects(redirects);
        let error = soon(connector.connect(format!("ws://{address}/old"))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Handshake, "{location}: {error}");
        assert_eq!(error.response().unwrap().status(), 307);
        serving.abort();
    }
    // The number of redirects is limited.
    let (listener, address) = listen().await;
    let serving = tokio::spawn(async move {
        for _ in 0..3 {
            answer(&listener, b"HTTP/1.1 308 Permanent Redirect\r\nLocation: /old\r\n\r\n").await;
        }
        listener
    });
    let error = soon(Connector::new().redirects(2).connect(format!("ws://{address}/old"))).await.unwrap_err();
    assert_eq!(error.response().unwrap().status(), 308);
    let listener = soon(serving).await.unwrap();
    assert!(crate::support::poll_times(3, listener.accept()).await.is_none());
}

/// All redirects together have the time of one handshake, however many there may be.
#[tokio::test]
async fn a_circle_of_redirects_ends_in_time() {
    let (listener, address) = listen().await;
    let serving = tokio::spawn(async move {
        loop {
            answer(&listener, b"HTTP/1.1 308 Permanent Redirect\r\nLocation: ?\r\nContent-Length: 0\r\n\r\n")
                .await;
        }
    });
    let limits = Limits::default().handshake_timeout(Duration::from_millis(200));
    let connector = Connector::new().redirects(u32::MAX).limits(limits);
    let error = soon(connector.connect(format!("ws://{address}/"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    serving.abort();

    let (listener, address) = listen().await;
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 308 Permanent Redirect\r\nLocation: /").await;
        while stream.write_all(&[b'a'; 10_000]).await.is_ok() {}
    });
    let error = soon(Connector::new().redirects(9).connect(format!("ws://{address}/"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit, "{error}");
    serving.await.unwrap();
}
