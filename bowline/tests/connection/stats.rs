//! `WebSocket::stats` and `Sender::stats`: what is counted, in every way to send and to receive.

use std::time::Duration;

use bowline::{Acceptor, Adoption, CloseCode, ConnectionStats, Limits, MessageKind, Prepared, Role, pair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::frames::{Frame, encode_all};
use crate::support::wire::{Wire, wire};
use crate::support::{open, peer_of, poll_times, settle};

fn sent(stats: ConnectionStats) -> (u64, u64, u64) {
    (stats.messages_sent(), stats.payload_bytes_sent(), stats.bytes_written())
}

fn received(stats: ConnectionStats) -> (u64, u64, u64) {
    (stats.messages_received(), stats.payload_bytes_received(), stats.bytes_read())
}

#[tokio::test(start_paused = true)]
async fn messages_count_in_every_way_to_send() {
    for role in [Role::Client, Role::Server] {
        let (socket, wire) = open(role, Limits::default());
        let sender = socket.sender();
        assert_eq!(sent(socket.stats()), (0, 0, 0));
        socket.send("12345").await.unwrap();
        sender.try_send(&[0; 5]).unwrap();
        socket.send(&Prepared::new("12345")).await.unwrap();
        let batch = sender.batch();
        batch.send("12345").await.unwrap();
        assert_eq!((socket.stats().messages_sent(), socket.stats().pending()), (4, frame_size(role, 5)));
        drop(batch);
        assert_eq!(socket.stats().pending(), 0);
        socket.send(vec![0; 100_000]).await.unwrap();
        socket.send(&Prepared::new(vec![0; 100_000])).await.unwrap();
        let mut writer = socket.writer(MessageKind::Binary).await.unwrap();
        writer.write_all(&[0; 10_000]).await.unwrap();
        writer.flush().await.unwrap();
        assert_eq!(socket.stats().messages_sent(), 6, "the message is not complete");
        assert_eq!(socket.stats().payload_bytes_sent(), 210_020);
        writer.write_all(&[0; 10_000]).await.unwrap();
        writer.finish().await.unwrap();
        // A control frame is no message.
        assert!(poll_times(1, socket.ping()).await.is_none());
        socket.flush().await.unwrap();
        let written = wire.written_len() as u64;
        assert_eq!(sent(socket.stats()), (7, 220_020, written));
        assert_eq!(sent(sender.stats()), sent(socket.stats()));
        assert!(poll_times(1, socket.close(CloseCode::NORMAL, "")).await.is_none());
        assert!(socket.send("refused").await.is_err());
        assert_eq!(socket.stats().messages_sent(), 7);
        assert_eq!(socket.stats().bytes_written(), wire.written_len() as u64);
    }
}

fn frame_size(role: Role, payload: usize) -> usize {
    encode_all(role, &[Frame::binary(vec![0; payload])]).len()
}

#[tokio::test(start_paused = true)]
async fn messages_count_in_every_way_to_receive() {
    for role in [Role::Client, Role::Server] {
        let (mut socket, wire) = open(role, Limits::default());
        let sender = socket.sender();
        let peer = peer_of(role);
        let mut total = 0;
        let mut feed = |frames: &[Frame]| {
            let bytes = encode_all(peer, frames);
            total += bytes.len() as u64;
            wire.feed(&bytes);
            total
        };
        // One message; a batch of three; a message in fragments with a ping between them.
        let read = feed(&[Frame::text("12345")]);
        socket.recv().await.unwrap();
        assert_eq!(received(sender.stats()), (1, 5, read));
        let read = feed(&[Frame::text("1"), Frame::binary("23"), Frame::text("456")]);
        for _ in 0..3 {
            socket.recv().await.unwrap();
        }
        assert_eq!(received(sender.stats()), (4, 11, read));
        let read = feed(&[
            Frame::binary([0; 10]).unfinished(),
            Frame::ping("?"),
            Frame::continuation([0; 10]).unfinished(),
        ]);
        assert!(poll_times(3, socket.recv()).await.is_none());
        assert_eq!(received(sender.stats()), (4, 31, read), "a part of a message");
        let read = feed(&[Frame::continuation("")]);
        assert_eq!(socket.recv().await.unwrap().unwrap().len(), 20);
        assert_eq!(received(sender.stats()), (5, 31, read));
        // Large enough to be read straight into the message.
        let read = feed(&[Frame::binary(vec![0; 600_000]), Frame::text("behind")]);
        assert_eq!(socket.recv().await.unwrap().unwrap().len(), 600_000);
        socket.recv().await.unwrap();
        assert_eq!(received(sender.stats()), (7, 600_037, read));
        // By a reader, out of a batch and in parts.
        let read = feed(&[Frame::text("1"), Frame::text("23"), Frame::text("4")]);
        socket.recv().await.unwrap();
        let mut text = String::new();
        socket.reader().await.unwrap().unwrap().read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "23");
        socket.recv().await.unwrap();
        assert_eq!(received(sender.stats()), (10, 600_041, read));
        // The numbers outlive the connection.
        let read = feed(&[Frame::close(1000, "")]);
        assert_eq!(socket.recv().await.unwrap(), None);
        drop(socket);
        settle().await;
        assert_eq!(received(sender.stats()), (10, 600_041, read));
    }
}

#[cfg(feature = "deflate")]
#[tokio::test]
async fn payloads_count_without_compression() {
    use bowline::{Compression, Connector, DeflateParameters};

    let (client, server) = tokio::io::duplex(64 * 1024);
    let adoption = || Adoption::new().compression(DeflateParameters::default());
    let compression = Compression::ContextTakeover;
    let client = Connector::new().compression(compression).adopt(client, adoption()).unwrap();
    let mut server = Acceptor::new().compression(compression).adopt(server, adoption()).unwrap();
    for _ in 0..3 {
        client.send("a".repeat(300_000)).await.unwrap();
        assert_eq!(server.recv().await.unwrap().unwrap().len(), 300_000);
    }
    let (sent, received) = (sent(client.stats()), received(server.stats()));
    assert_eq!(sent, received);
    assert_eq!((sent.0, sent.1), (3, 900_000));
    assert!(sent.2 < 5_000, "{} bytes are few after compression", sent.2);
}

/// The bytes that a client sent right behind its request count as read.
#[tokio::test(start_paused = true)]
async fn leftover_bytes_count() {
    let (stream, _wire) = wire();
    let leftover = encode_all(Role::Client, &[Frame::text("12345")]);
    let size = leftover.len() as u64;
    let mut socket = Acceptor::new().adopt(stream, Adoption::new().leftover(leftover)).unwrap();
    socket.recv().await.unwrap();
    assert_eq!(received(socket.stats()), (1, 5, size));
}

#[tokio::test(start_paused = true)]
async fn the_keepalive_shows_the_round_trip_time() {
    let (socket, wire) = open(Role::Server, Limits::default());
    assert_eq!(socket.stats().round_trip(), None);
    for millis in [30, 45] {
        let ping = wire.next_frame(Role::Server).await;
        tokio::time::sleep(Duration::from_millis(millis)).await;
        // An earlier pong, or one that nobody asked for, is no answer.
        wire.feed_frame(Role::Client, &Frame::pong("unasked"));
        wire.feed_frame(Role::Client, &Frame::pong(ping.payload));
        wire.until(Wire::is_idle).await;
        settle().await;
        assert_eq!(socket.stats().round_trip(), Some(Duration::from_millis(millis)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_ping_shows_the_round_trip_time() {
    let (client, server) = pair();
    let round_trip = client.ping().await.unwrap();
    // A paused clock stands still, which is rounded up.
    assert_eq!(round_trip, Duration::ZERO);
    assert_eq!(client.stats().round_trip(), Some(Duration::from_micros(1)));
    assert_eq!(server.stats().round_trip(), None);
}
