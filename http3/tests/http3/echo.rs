//! Conversations between our client and our server.

use bowline::{CloseCode, Message, Server};

use crate::support::serve_echo;

#[tokio::test]
async fn messages_of_all_sizes_come_back_and_the_close_is_clean() {
    let running = serve_echo(Server::new()).await;
    let connection = running.connect().await;
    let (mut socket, response) = connection.connect("/chat?room=1").await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(socket.peer_addr(), Some(running.address));
    socket.send("hello").await.unwrap();
    assert_eq!(socket.recv().await.unwrap(), Some(Message::from("hello")));
    for size in [0, 1, 125, 126, 1000, 16_370, 16_400, 65_535, 65_536, 70_000, 300_000, 1024 * 1024] {
        let message: Vec<u8> = (0..251).cycle().take(size).collect();
        socket.send(&message[..]).await.unwrap();
        assert_eq!(socket.recv().await.unwrap(), Some(Message::from(message)), "{size} bytes");
    }
    let answer = socket.close(CloseCode::NORMAL, "done").await.unwrap();
    assert_eq!(answer.code(), CloseCode::NORMAL);
    assert!(socket.recv().await.unwrap().is_none());
    assert!(!connection.is_closed());
}

#[tokio::test]
async fn many_websockets_share_one_connection() {
    let running = serve_echo(Server::new()).await;
    let connection = running.connect().await;
    let mut sockets = Vec::new();
    for index in 0..50 {
        let (socket, _) = connection.connect(format!("/{index}")).await.unwrap();
        sockets.push(socket);
    }
    for (index, socket) in sockets.iter().enumerate() {
        socket.send(format!("message {index}")).await.unwrap();
    }
    for (index, socket) in sockets.iter_mut().enumerate() {
        assert_eq!(socket.recv().await.unwrap(), Some(Message::from(format!("message {index}"))));
    }
}
