//! Futures that are dropped after any number of polls, over all transports: nothing is lost, repeated or
//! torn. `http3/tests` includes this file, for HTTP/3.

use std::time::Duration;

use bowline::{CloseCode, ErrorKind, Message, MessageKind, Role, WebSocket};
use bowline_proto::Opcode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::support::frames::{Frame, all_frames, encode_all};
use crate::support::pairs::{CARRIERS, both};
use crate::support::slow::{Codec, cases, open_slow};
use crate::support::wire::Wire;
use crate::support::{peer_of, poll_times};

/// The largest number of polls before a future is dropped. With one byte per call, these polls cover each
/// position of the exchange.
const POLLS: std::ops::Range<usize> = 1..40;

/// A time far longer than any of these tests takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Lets the peer end its direction, and returns all frames that `role` has written in the end.
async fn end(role: Role, mut socket: WebSocket, wire: Wire, codec: &mut Codec) -> Vec<Frame> {
    wire.end();
    let ending = async {
        while let Ok(Some(_)) = socket.recv().await {}
        wire.until(Wire::is_dropped).await;
    };
    timeout(PATIENCE, ending).await.expect("the connection ends");
    codec.decode(all_frames(role, wire.take_written()))
}

/// Lets the peer close the connection, and returns the frames before the answer, and the answer's code.
async fn close(role: Role, socket: WebSocket, wire: Wire, codec: &mut Codec) -> (Vec<Frame>, u16) {
    wire.feed_frame(peer_of(role), &Frame::close(1000, ""));
    let mut sent = end(role, socket, wire, codec).await;
    let code = sent.pop().expect("there is an answer").close_code();
    (sent, code)
}

fn incoming() -> Vec<Frame> {
    vec![
        Frame::text("first"),
        Frame::ping("p"),
        Frame::binary([1, 2, 3]).unfinished(),
        Frame::ping("q"),
        Frame::continuation([4]).unfinished(),
        Frame::continuation([5, 6]),
        Frame::text("").unfinished(),
        Frame::continuation("é€😀"),
        Frame::binary([]),
        Frame::binary([9; 200]),
        Frame::close(1000, "done"),
    ]
}

fn messages() -> Vec<Message> {
    vec!["first".into(), vec![1, 2, 3, 4, 5, 6].into(), "é€😀".into(), Vec::new().into(), vec![9; 200].into()]
}

#[tokio::test]
async fn recv_dropped_after_any_number_of_polls_loses_nothing() {
    for case @ (role, ..) in cases() {
        for polls in POLLS {
            let (mut socket, wire, mut codec) = open_slow(case, 64).await;
            wire.feed(&encode_all(peer_of(role), &codec.encode(incoming())));
            let mut received = Vec::new();
            loop {
                match poll_times(polls, socket.recv()).await {
                    None => {}
                    Some(Ok(Some(message))) => received.push(message),
                    Some(end) => break assert_eq!(end.unwrap(), None),
                }
            }
            assert_eq!(received, messages(), "{case:?}, dropped after {polls} polls");
            let sent = end(role, socket, wire, &mut codec).await;
            assert_eq!(sent, [Frame::pong("p"), Frame::pong("q"), Frame::close(1000, "done")]);
        }
    }
}

#[tokio::test]
async fn recv_and_reader_take_turns_at_any_point() {
    for case @ (role, ..) in cases() {
        for polls in POLLS {
            let (mut socket, wire, mut codec) = open_slow(case, 64).await;
            wire.feed(&encode_all(peer_of(role), &codec.encode(incoming())));
            let mut received: Vec<Message> = Vec::new();
            loop {
                if let Some(message) = poll_times(polls, socket.recv()).await {
                    match message.unwrap() {
                        Some(message) => received.push(message),
                        None => break,
                    }
                }
                let Some(reader) = poll_times(polls, socket.reader()).await else { continue };
                let Some(mut reader) = reader.unwrap() else { break };
                let mut payload = Vec::new();
                loop {
                    let mut piece = [0; 3];
                    match poll_times(polls, reader.read(&mut piece)).await {
                        Some(Ok(0)) => break,
                        Some(Ok(count)) => payload.extend_from_slice(&piece[..count]),
                        Some(Err(error)) => panic!("{error}"),
                        None => {}
                    }
                }
                received.push(match reader.kind() {
                    MessageKind::Text => String::from_utf8(payload).unwrap().into(),
                    MessageKind::Binary => payload.into(),
                });
            }
            assert_eq!(received, messages(), "{case:?}, dropped after {polls} polls");
        }
    }
}

#[tokio::test]
async fn reader_dropped_at_any_point_passes_over_its_message_alone() {
    for case @ (role, ..) in cases() {
        for polls in POLLS {
            let (mut socket, wire, mut codec) = open_slow(case, 64).await;
            let frames = [
                Frame::binary([1; 20]).unfinished(),
                Frame::ping("between"),
                Frame::continuation([2; 20]),
                Frame::text("next"),
            ];
            wire.feed(&encode_all(peer_of(role), &codec.encode(frames.to_vec())));
            let mut reader = socket.reader().await.unwrap().unwrap();
            let mut piece = [0; 7];
            let _ = poll_times(polls, reader.read_exact(&mut piece)).await;
            drop(reader);
            assert_eq!(
                socket.recv().await.unwrap(),
                Some("next".into()),
                "{case:?}, dropped after {polls} polls"
            );
            assert_eq!(wire.next_frame(role).await, Frame::pong("between"));
        }
    }
}

#[tokio::test]
async fn send_dropped_after_any_number_of_polls_sends_whole_messages() {
    for case @ (role, ..) in cases() {
        for polls in POLLS {
            let (socket, wire, mut codec) = open_slow(case, 8).await;
            let mut accepted = Vec::new();
            for number in 0..20_u8 {
                let payload = vec![number; usize::from(number) + 1];
                if let Some(sent) = poll_times(polls, socket.send(&payload)).await {
                    sent.unwrap();
                    accepted.push(Frame::binary(&payload));
                }
            }
            assert!(!accepted.is_empty());
            let (sent, _) = close(role, socket, wire, &mut codec).await;
            assert_eq!(sent, accepted, "{case:?}, dropped after {polls} polls");
        }
    }
}

#[tokio::test]
async fn flush_and_ping_dropped_after_any_number_of_polls_change_nothing() {
    for case @ (role, ..) in cases() {
        for polls in POLLS {
            let (socket, wire, mut codec) = open_slow(case, 64).await;
            socket.send("before").await.unwrap();
            assert!(poll_times(polls, socket.ping()).await.is_none(), "nobody answers");
            let _ = poll_times(polls, socket.flush()).await;
            socket.send("after").await.unwrap();
            let (mut sent, _) = close(role, socket, wire, &mut codec).await;
            sent.retain(|frame| frame.opcode != Opcode::Ping);
            assert_eq!(sent, [Frame::text("before"), Frame::text("after")], "{case:?}, {polls} polls");
        }
    }
}

#[tokio::test]
async fn close_dropped_after_any_number_of_polls_can_be_called_again() {
    for case @ (role, ..) in cases() {
        for polls in POLLS {
            let (mut socket, wire, mut codec) = open_slow(case, 8).await;
            socket.send("before").await.unwrap();
            let early = poll_times(polls, socket.close(CloseCode(4000), "first")).await;
            assert!(early.is_none(), "nobody has answered");
            wire.feed_frame(peer_of(role), &Frame::close(4001, "answer"));
            wire.end();
            let answer = socket.close(CloseCode(4002), "second").await.unwrap();
            assert_eq!((answer.code(), answer.reason()), (CloseCode(4001), "answer"));
            assert_eq!(socket.recv().await.unwrap(), None);
            let sent = end(role, socket, wire, &mut codec).await;
            assert_eq!(sent, [Frame::text("before"), Frame::close(4000, "first")], "{case:?}, {polls} polls");
        }
    }
}

#[tokio::test]
async fn writer_dropped_after_any_number_of_polls_sends_a_whole_message_or_closes() {
    for case @ (role, ..) in cases() {
        for polls in POLLS {
            let (socket, wire, mut codec) = open_slow(case, 8).await;
            socket.send("in front").await.unwrap();
            let finished = poll_times(polls, async {
                let mut writer = socket.writer(MessageKind::Text).await.unwrap();
                for _ in 0..3 {
                    writer.write_all(b"piece").await.unwrap();
                    writer.flush().await.unwrap();
                }
                writer.finish().await.unwrap();
            })
            .await;
            let after = socket.send("after").await;
            // Everything is written, whether the connection continues or not.
            let (mut sent, code) = close(role, socket, wire, &mut codec).await;
            assert_eq!(sent.remove(0), Frame::text("in front"));
            if finished.is_some() {
                let payload: Vec<_> = sent.iter().flat_map(|frame| frame.payload.clone()).collect();
                assert_eq!(payload, b"piecepiecepieceafter");
                after.unwrap();
            } else if sent.first().is_some_and(|frame| !frame.fin) {
                assert_eq!(after.unwrap_err().kind(), ErrorKind::Closed);
                assert!(
                    sent.iter().all(|frame| !frame.fin),
                    "a truncated message is not passed off as whole"
                );
                assert_eq!(code, 1011, "{case:?}, {polls} polls");
            } else {
                after.unwrap();
                assert_eq!(sent, [Frame::text("after")], "{case:?}, {polls} polls");
            }
        }
    }
}

/// Sends many messages from the client to the server, while both sides drop their futures all the time.
pub(super) async fn drop_all_the_time(client: WebSocket, mut server: WebSocket, seed: usize) {
    const MESSAGES: u32 = 5000;
    let sender = client.sender();
    let sending = tokio::spawn(async move {
        for number in 0..MESSAGES {
            let text = number.to_string();
            while poll_times(1 + (number as usize + seed) % 3, sender.send(&text)).await.is_none() {}
            if number % 50 == 0 {
                let _ = poll_times(1 + number as usize % 4, sender.ping()).await;
            }
        }
        sender.ping().await.unwrap();
        // It is dropped here, and not before.
        drop(client);
    });
    let receiving = tokio::spawn(async move {
        let mut next = 0;
        while next < MESSAGES {
            if let Some(message) = poll_times(1 + next as usize % 3, server.recv()).await {
                assert_eq!(message.unwrap().unwrap().as_text(), Some(next.to_string().as_str()));
                next += 1;
            }
        }
        // The last ping is answered on the way to the end.
        assert_eq!(server.recv().await.unwrap_err().kind(), ErrorKind::Disconnected);
        server.sender().closed().await;
    });
    timeout(PATIENCE, async {
        sending.await.unwrap();
        receiving.await.unwrap();
    })
    .await
    .expect("nobody hangs");
}

/// On several threads, so that the transport, the application and the connection's task meet at every point.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn everything_dropped_all_the_time_on_four_threads() {
    let mut connections = tokio::task::JoinSet::new();
    for (seed, carrier) in CARRIERS.iter().cycle().take(6).enumerate() {
        let (client, server) = both(*carrier).await;
        connections.spawn(drop_all_the_time(client, server, seed));
    }
    while let Some(connection) = connections.join_next().await {
        connection.unwrap();
    }
}
