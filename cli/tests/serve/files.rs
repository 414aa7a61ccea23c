//! `--files`: static files beside WebSockets.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::process::{Running, text, within};

/// Sends a request, and returns the whole response.
async fn request(server: &Running, head: &str) -> String {
    let mut stream = TcpStream::connect(server.authority()).await.unwrap();
    let head = format!("{head} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut response = Vec::new();
    within(stream.read_to_end(&mut response)).await.unwrap();
    String::from_utf8_lossy(&response).into_owned()
}

#[tokio::test]
async fn files_and_websockets_share_a_port() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("index.html"), "<p>page</p>").unwrap();
    std::fs::write(folder.path().join("app.js"), "1").unwrap();
    let server = Running::start(&["--files", folder.path().to_str().unwrap()]).await;

    let page = request(&server, "GET /").await;
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    assert!(page.contains("content-type: text/html") && page.ends_with("<p>page</p>"), "{page}");
    assert!(request(&server, "GET /app.js").await.contains("javascript"));
    assert!(request(&server, "GET /missing").await.starts_with("HTTP/1.1 404"));
    assert!(request(&server, "POST /").await.starts_with("HTTP/1.1 405"));

    let mut socket = server.connect().await;
    socket.send("hello").await.unwrap();
    assert_eq!(text(&mut socket).await, "hello");
}

#[tokio::test]
async fn nothing_outside_of_the_folder_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let subfolder = folder.path().join("served");
    std::fs::create_dir(&subfolder).unwrap();
    std::fs::write(folder.path().join("secret"), "secret").unwrap();
    let server = Running::start(&["--files", subfolder.to_str().unwrap()]).await;
    for path in ["/../secret", "/%2e%2e/secret", "/..%2fsecret", "//secret", "/x/../../secret"] {
        let response = request(&server, &format!("GET {path}")).await;
        assert!(!response.contains("\r\n\r\nsecret"), "{path}: {response}");
    }
}
