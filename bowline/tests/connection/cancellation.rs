//! Any future may be dropped after any number of polls: nothing is lost, repeated or torn, compressed or not.
//! `cancellation_carriers.rs` has the tests that also run over other transports than memory.

use bowline::{Acceptor, Connector, MessageKind, Role};
use bowline_proto::Opcode;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::cancellation_carriers::drop_all_the_time;
use crate::support::frames::{Frame, all_frames, encode_all};
use crate::support::modes::{MODES, Mode};
use crate::support::slow::open_in_memory;
use crate::support::{peer_of, poll_times, settle};

/// On several threads, so that the transport, the application and the connection's task meet at every point.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn everything_dropped_all_the_time_on_four_threads() {
    let (connector, acceptor) = (Connector::new(), Acceptor::new());
    let mut connections = JoinSet::new();
    for seed in 0..6 {
        let mode = MODES[seed % MODES.len()];
        let (near, far) = tokio::io::duplex(64 * 1024);
        let client = mode.adopt(Role::Client, &connector, &acceptor, near);
        let server = mode.adopt(Role::Server, &connector, &acceptor, far);
        connections.spawn(drop_all_the_time(client, server, seed));
    }
    while let Some(connection) = connections.join_next().await {
        connection.unwrap();
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
    let (mut socket, wire, mut codec) = open_in_memory(role, mode, 32);
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
