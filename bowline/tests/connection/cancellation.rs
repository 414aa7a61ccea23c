//! Any future may be dropped after any number of polls: nothing is lost, repeated or torn, compressed or not.

use bowline::{Acceptor, CloseCode, Connector, ErrorKind, Limits, Message, MessageKind, Role, WebSocket};
use bowline_proto::Opcode;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::frames::{Frame, all_frames, encode_all};
use crate::support::modes::{Codec, MODES, Mode};
use crate::support::pairs::{CARRIERS_IN_MEMORY, Carrier};
use crate::support::wire::{Wire, wire};
use crate::support::{arrive, open_over, peer_of, poll_times, settle};

/// The largest number of polls before a future is dropped. With one byte per call, these polls cover each
/// position of the exchange.
const POLLS: std::ops::Range<usize> = 1..40;

/// Lists all modes in memory, and HTTP/2, for both roles.
fn cases() -> impl Iterator<Item = (Role, Mode, Carrier)> {
    let modes = MODES.iter().map(|mode| (*mode, Carrier::Memory));
    let carriers = CARRIERS_IN_MEMORY[1..].iter().map(|carrier| (Mode::Plain, *carrier));
    let cases = modes.chain(carriers);
    cases.flat_map(|(mode, carrier)| [(Role::Client, mode, carrier), (Role::Server, mode, carrier)])
}

fn open(role: Role, mode: Mode, write_buffer: usize) -> (WebSocket, Wire, Codec) {
    let (stream, wire) = wire();
    let limits = Limits::default().write_buffer(write_buffer);
    let connector = Connector::new().limits(limits.clone());
    let socket = mode.adopt(role, &connector, &Acceptor::new().limits(limits), stream);
    (socket, wire, Codec::new(mode))
}

/// Opens a slow connection: one byte per call, and every other call returns `Pending`.
async fn open_slow(case: (Role, Mode, Carrier), write_buffer: usize) -> (WebSocket, Wire, Codec) {
    let (role, mode, carrier) = case;
    let (socket, wire, codec) = if carrier == Carrier::Memory {
        open(role, mode, write_buffer)
    } else {
        let (socket, wire) = open_over(carrier, role, Limits::default().write_buffer(write_buffer)).await;
        (socket, wire, Codec::new(mode))
    };
    wire.set_chunk(1);
    wire.set_hesitating();
    (socket, wire, codec)
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
            wire.end();
            wire.until(Wire::is_dropped).await;
            let sent = codec.decode(all_frames(role, wire.take_written()));
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
            socket.flush().await.unwrap();
            arrive(&wire).await;
            let sent = codec.decode(all_frames(role, wire.take_written()));
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
            socket.flush().await.unwrap();
            arrive(&wire).await;
            let mut sent = codec.decode(all_frames(role, wire.take_written()));
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
            let sent = codec.decode(all_frames(role, wire.take_written()));
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
            let _ = socket.flush().await;
            arrive(&wire).await;
            let mut sent = codec.decode(all_frames(role, wire.take_written()));
            assert_eq!(sent.remove(0), Frame::text("in front"));
            let fragments: Vec<_> = sent.iter().filter(|frame| frame.opcode != Opcode::Close).collect();
            if finished.is_some() {
                let payload: Vec<_> = fragments.iter().flat_map(|frame| frame.payload.clone()).collect();
                assert_eq!(payload, b"piecepiecepieceafter");
                after.unwrap();
            } else if fragments.first().is_some_and(|frame| !frame.fin) {
                assert_eq!(after.unwrap_err().kind(), ErrorKind::Closed);
                assert!(
                    fragments.iter().all(|frame| !frame.fin),
                    "a truncated message is not passed off as whole"
                );
                assert_eq!(sent.last().unwrap().close_code(), 1011, "{case:?}, {polls} polls");
            } else {
                after.unwrap();
                assert_eq!(sent, [Frame::text("after")], "{case:?}, {polls} polls");
            }
        }
    }
}

/// On several threads, so that the transport, the application and the connection's task meet at every point.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn everything_dropped_all_the_time_on_four_threads() {
    const MESSAGES: u32 = 5000;
    let (connector, acceptor) = (Connector::new(), Acceptor::new());
    let connections = (0..6).map(|seed| {
        let mode = MODES[seed % MODES.len()];
        let (near, far) = tokio::io::duplex(64 * 1024);
        let client = mode.adopt(Role::Client, &connector, &acceptor, near);
        let mut server = mode.adopt(Role::Server, &connector, &acceptor, far);
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
        async move {
            sending.await.unwrap();
            receiving.await.unwrap();
        }
    });
    for connection in connections.collect::<Vec<_>>() {
        tokio::time::timeout(std::time::Duration::from_secs(60), connection).await.expect("nobody hangs");
    }
}

/// One step of an application that drops any future at any time.
#[derive(Clone, Debug)]
enum Step {
    Recv,
    Read(usize),
    Send(u8),
    TrySend(u8),
    Ping,
    Flush,
    Write(u8),
    /// More of the peer's bytes arrive.
    Arrive(usize),
    /// The transport accepts more.
    Room(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Recv),
        1 => (1..300_usize).prop_map(Step::Read),
        3 => any::<u8>().prop_map(Step::Send),
        1 => any::<u8>().prop_map(Step::TrySend),
        1 => Just(Step::Ping),
        1 => Just(Step::Flush),
        1 => any::<u8>().prop_map(Step::Write),
        3 => (1..100_usize).prop_map(Step::Arrive),
        3 => (0..100_usize).prop_map(Step::Room),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn anything_dropped_at_any_time_loses_nothing(
        steps in proptest::collection::vec((step(), 1..6_usize), 1..60),
        server in any::<bool>(),
        mode in prop::sample::select(MODES),
        chunk in 1..50_usize,
        hesitates in any::<bool>(),
    ) {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().start_paused(true).build().unwrap();
        let role = if server { Role::Server } else { Role::Client };
        runtime.block_on(play(&steps, role, mode, chunk, hesitates));
    }
}

async fn play(steps: &[(Step, usize)], role: Role, mode: Mode, chunk: usize, hesitates: bool) {
    let (mut socket, wire, mut codec) = open(role, mode, 32);
    wire.set_chunk(chunk);
    wire.set_room(0);
    if hesitates {
        wire.set_hesitating();
    }
    let mut coming = Vec::new();
    let mut expected = std::collections::VecDeque::new();
    for number in 0..60_u8 {
        let payload = vec![number; usize::from(number) * 3];
        let frames = [
            Frame::binary(&payload[..payload.len() / 2]).unfinished(),
            Frame::ping([number]),
            Frame::continuation(&payload[payload.len() / 2..]),
        ];
        coming.extend(encode_all(peer_of(role), &codec.encode(frames.to_vec())));
        expected.push_back(payload);
    }
    let mut coming = coming.into_iter();
    let mut accepted: Vec<Vec<u8>> = Vec::new();
    let mut unfinished = false;
    for (step, polls) in steps {
        match step {
            Step::Recv => {
                if let Some(message) = poll_times(*polls, socket.recv()).await {
                    let payload = message.unwrap().unwrap().into_bytes();
                    assert_eq!(payload, expected.pop_front().unwrap());
                }
            }
            Step::Read(count) => {
                if let Some(reader) = poll_times(*polls, socket.reader()).await {
                    let mut reader = reader.unwrap().unwrap();
                    let mut piece = vec![0; *count];
                    let read = poll_times(*polls, reader.read(&mut piece)).await.map_or(0, Result::unwrap);
                    assert!(expected.pop_front().unwrap().starts_with(&piece[..read]));
                }
            }
            Step::Send(byte) => {
                let payload = vec![*byte; usize::from(*byte)];
                match poll_times(*polls, socket.send(&payload)).await {
                    Some(Ok(())) => accepted.push(payload),
                    Some(Err(_)) => assert!(unfinished),
                    None => {}
                }
            }
            Step::TrySend(byte) => {
                if socket.try_send([*byte].as_slice()).is_ok() {
                    accepted.push(vec![*byte]);
                }
            }
            Step::Ping => {
                let _ = poll_times(*polls, socket.ping()).await;
            }
            Step::Flush => {
                let _ = poll_times(*polls, socket.flush()).await;
            }
            Step::Write(byte) => {
                let payload = vec![*byte; usize::from(*byte)];
                if let Some(Ok(mut writer)) = poll_times(*polls, socket.writer(MessageKind::Binary)).await {
                    let _ = poll_times(*polls, writer.write_all(&payload)).await;
                    let _ = poll_times(*polls, writer.flush()).await;
                    drop(writer);
                    unfinished = socket.sender().is_closed();
                }
            }
            Step::Arrive(count) => wire.feed(&coming.by_ref().take(*count).collect::<Vec<_>>()),
            Step::Room(room) => wire.set_room(*room),
        }
        if unfinished {
            break;
        }
    }
    wire.set_room(usize::MAX);
    let _ = socket.flush().await;
    // Pongs may still follow.
    let mut written = 0;
    while wire.written_len() > written {
        written = wire.written_len();
        settle().await;
    }
    let sent = codec.decode(all_frames(role, wire.take_written()));
    let whole = sent.iter().filter(|frame| frame.opcode == Opcode::Binary && frame.fin);
    assert_eq!(whole.map(|frame| frame.payload.clone()).collect::<Vec<_>>(), accepted);
    let closes = sent.iter().filter(|frame| frame.opcode == Opcode::Close).count();
    assert_eq!(closes, usize::from(unfinished));
}
