//! `--files`: static files beside WebSockets.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::process::{Running, text, within};

/// Sends a request, and returns the whole response.
async fn request(server: &Running, head: &str) -> String {
    request_of(server, "localhost", head).await
}

async fn request_of(server: &Running, host: &str, head: &str) -> String {
    let mut stream = TcpStream::connect(server.authority()).await.unwrap();
    let head = format!("{head} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
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

#[cfg(unix)]
#[tokio::test]
async fn hidden_files_pipes_and_links_out_of_the_folder_are_not_served() {
    let folder = tempfile::tempdir().unwrap();
    let site = folder.path().join("site");
    std::fs::create_dir_all(site.join(".git")).unwrap();
    std::fs::create_dir(site.join("empty")).unwrap();
    std::fs::write(folder.path().join("secret"), "secret").unwrap();
    std::fs::write(site.join("page"), "page").unwrap();
    std::fs::write(site.join(".git/config"), "secret").unwrap();
    std::os::unix::fs::symlink(folder.path().join("secret"), site.join("out")).unwrap();
    std::os::unix::fs::symlink(site.join("page"), site.join("inside")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(site.join("pipe")).status().unwrap().success());
    let server = Running::start(&["--files", site.to_str().unwrap()]).await;
    for path in ["/.git/config", "/%2egit/config", "/out", "/pipe", "/empty/"] {
        let response = request(&server, &format!("GET {path}")).await;
        assert!(response.starts_with("HTTP/1.1 404"), "{path}: {response}");
    }
    assert!(request(&server, "GET /inside").await.ends_with("page"));
}

#[tokio::test]
async fn a_page_whose_name_was_pointed_at_this_machine_reads_nothing() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("page"), "page").unwrap();
    let server = Running::start(&["--files", folder.path().to_str().unwrap()]).await;
    let response = request_of(&server, "evil.example", "GET /page").await;
    assert!(response.starts_with("HTTP/1.1 403"), "{response}");
}

/// Responses that nobody reads stay within the memory for them.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn clients_that_do_not_read_take_bounded_memory() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("large"), vec![0; 48 * 1024 * 1024]).unwrap();
    let server = Running::start(&["--files", folder.path().to_str().unwrap()]).await;
    let (answered, mut answers) = tokio::sync::mpsc::unbounded_channel();
    for _ in 0..16 {
        let (mut stream, answered) =
            (TcpStream::connect(server.authority()).await.unwrap(), answered.clone());
        tokio::spawn(async move {
            stream.write_all(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
            if stream.read_exact(&mut [0; 1]).await.is_ok() {
                answered.send(stream).unwrap();
            }
        });
    }
    // There is room for five responses; the other clients wait.
    let mut idle = Vec::new();
    for _ in 0..3 {
        idle.push(within(answers.recv()).await.unwrap());
    }
    assert!(server.resident() < 700 * 1024 * 1024, "{}", server.resident());
}
