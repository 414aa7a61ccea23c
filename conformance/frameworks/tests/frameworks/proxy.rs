//! Proxies that serve one connection: HTTP CONNECT and SOCKS 5.

use std::future::Future;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// Starts a proxy. Returns its address, and a future of the host and port that its client asks for.
pub(crate) async fn start_proxy<F>(
    read_target: impl FnOnce(TcpStream) -> F + Send + 'static,
) -> (SocketAddr, oneshot::Receiver<String>)
where
    F: Future<Output = (TcpStream, String)> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, target) = oneshot::channel();
    tokio::spawn(async move {
        let (mut client, asked) = read_target(listener.accept().await.unwrap().0).await;
        let mut server = TcpStream::connect(&asked).await.unwrap();
        sender.send(asked).unwrap();
        copy_bidirectional(&mut client, &mut server).await
    });
    (address, target)
}

/// Accepts an HTTP CONNECT.
pub(crate) async fn http_target(mut client: TcpStream) -> (TcpStream, String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let target = head.strip_prefix("CONNECT ").unwrap().split(' ').next().unwrap();
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    (client, target.to_owned())
}

/// Accepts a CONNECT with a name, without authentication (RFC 1928).
pub(crate) async fn socks_target(mut client: TcpStream) -> (TcpStream, String) {
    let mut greeting = [0; 3];
    client.read_exact(&mut greeting).await.unwrap();
    assert_eq!(greeting, [5, 1, 0]);
    client.write_all(&[5, 0]).await.unwrap();
    let mut request = [0; 5];
    client.read_exact(&mut request).await.unwrap();
    assert_eq!(request[..4], [5, 1, 0, 3]);
    let mut name = vec![0; request[4].into()];
    client.read_exact(&mut name).await.unwrap();
    let port = client.read_u16().await.unwrap();
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
    (client, format!("{}:{port}", String::from_utf8(name).unwrap()))
}
