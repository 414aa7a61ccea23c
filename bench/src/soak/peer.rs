//! A hand-written client, which can misbehave as no library would allow.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use crate::frames::{Kind, copy_masked, encode_header, encode_masked, header};
use crate::handshake;

/// The time limit for an answer on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The longest time until a server notices a dead peer: 20 to 40 s until the ping, 20 s for the answer.
const DEAD: Duration = Duration::from_secs(75);

const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8A;

/// A pseudorandom generator with a seed (splitmix64).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// The counts of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Messages that were echoed, correct and in order.
    pub echoed: u64,
    /// Messages that the server may or may not have received, as their connection was broken on purpose.
    pub in_doubt: u64,
    /// Answered pings of the server.
    pub pings: u64,
}

/// A frame from the server.
struct Frame {
    first: u8,
    payload: Vec<u8>,
}

pub struct Peer {
    stream: TcpStream,
    arrived: Vec<u8>,
    random: Random,
    pub tally: Tally,
}

impl Peer {
    /// Connects from the given address, and performs the opening handshake.
    pub async fn open(source: Ipv4Addr, address: SocketAddr, random: Random) -> Result<Self> {
        let opening = async {
            let socket = TcpSocket::new_v4()?;
            socket.bind((source, 0).into())?;
            let mut stream = socket.connect(address).await?;
            stream.set_nodelay(true)?;
            stream.write_all(handshake::REQUEST).await?;
            let mut arrived = Vec::new();
            loop {
                let count = stream.read_buf(&mut arrived).await?;
                ensure!(count > 0, "the server ended the handshake");
                if let Some(end) = handshake::head_end(&arrived) {
                    ensure!(arrived.starts_with(b"HTTP/1.1 101 "), "the handshake failed");
                    // The buffer is released if nothing follows the response.
                    break Ok((stream, arrived[end..].to_vec()));
                }
            }
        };
        let (stream, arrived) = timeout(PATIENCE, opening).await.context("a handshake took too long")??;
        Ok(Self { stream, arrived, random, tally: Tally::default() })
    }

    /// Sends some messages, and checks that they are echoed.
    pub async fn exchange(&mut self) -> Result<()> {
        let sent = self.send_some().await?;
        let answers = async {
            for (kind, payload) in &sent {
                let frame = self.read_message().await?;
                ensure!(
                    frame.first == 0x80 | if kind.is_text() { 1 } else { 2 },
                    "a reply is of the wrong kind"
                );
                ensure!(frame.payload == *payload, "a reply is not what was sent");
                self.tally.echoed += 1;
                self.tally.in_doubt -= 1;
            }
            Ok(())
        };
        timeout(PATIENCE, answers).await.context("a reply took too long")?
    }

    /// Answers the server for this long.
    pub async fn rest(&mut self, time: Duration) -> Result<()> {
        match timeout(time, self.read_message()).await {
            Err(_) => Ok(()),
            Ok(Ok(_)) => bail!("a message came that nobody had sent"),
            Ok(Err(error)) => Err(error),
        }
    }

    /// Answers the server until the server closes with this code and ends the connection.
    pub async fn wait_for_close(&mut self, code: u16) -> Result<()> {
        let close = self.read_close().await?;
        ensure!(close == code, "the server closed with {close}, not with {code}");
        self.write(CLOSE, &code.to_be_bytes()).await?;
        self.wait_for_end().await
    }

    // ---- the ways to end

    /// Closes in order.
    pub async fn close(mut self) -> Result<Tally> {
        self.write(CLOSE, &1000_u16.to_be_bytes()).await?;
        let code = timeout(PATIENCE, self.read_close()).await.context("a Close frame took too long")??;
        ensure!(code == 1000, "the server answered the Close frame with {code}");
        self.wait_for_end().await?;
        Ok(self.tally)
    }

    /// Disconnects with messages in progress, without a Close frame.
    pub async fn vanish(mut self) -> Result<Tally> {
        self.send_some().await?;
        Ok(self.tally)
    }

    /// Resets the connection in the middle of a frame.
    pub async fn reset(mut self) -> Result<Tally> {
        let mut frame = Vec::new();
        encode_header(0x82, 1000, Some([1, 2, 3, 4]), &mut frame);
        frame.resize(100, 0);
        self.stream.write_all(&frame).await?;
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))?;
        Ok(self.tally)
    }

    /// Falls silent, and answers no ping. The server has to end the connection.
    pub async fn fall_silent(mut self) -> Result<Tally> {
        let ended = async {
            let mut scratch = [0; 512];
            while self.stream.read(&mut scratch).await.is_ok_and(|count| count > 0) {}
        };
        timeout(DEAD, ended).await.context("the server holds a connection to a silent peer")?;
        Ok(self.tally)
    }

    /// Sends without reading until the transport is full, and then stalls. The server has to end the
    /// connection.
    pub async fn stall(mut self) -> Result<Tally> {
        let payload = vec![7; 64 * 1024];
        let mut frame = Vec::new();
        encode_masked(Kind::Binary, &payload, 0, &mut frame);
        let filling = async {
            loop {
                self.tally.in_doubt += 1;
                if self.stream.write_all(&frame).await.is_err() {
                    return;
                }
            }
        };
        timeout(Duration::from_secs(3), filling).await.err().context("a stalled connection ended at once")?;
        let ended = async {
            // A peer that reads would not stall, so the end is detected through the socket's error.
            while self.stream.take_error().is_ok_and(|error| error.is_none()) {
                let ready = timeout(Duration::from_secs(1), self.stream.ready(Interest::ERROR)).await;
                if ready.is_ok_and(|ready| ready.is_ok_and(|ready| ready.is_error())) {
                    break;
                }
                sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(DEAD, ended).await.context("the server holds a connection to a stalled peer")?;
        Ok(self.tally)
    }

    /// Violates the protocol. The server has to close with the right code, and to end the connection.
    pub async fn misbehave(mut self) -> Result<Tally> {
        let violations: [(&[u8], u16); 10] = [
            // An unmasked frame; a reserved bit; unknown opcodes.
            (&[0x82, 0x01, 0x00], 1002),
            (&[0xC2, 0x80, 0, 0, 0, 0], 1002),
            (&[0x83, 0x80, 0, 0, 0, 0], 1002),
            (&[0x8B, 0x80, 0, 0, 0, 0], 1002),
            // A fragmented ping; a length in too many bytes; a continuation of no message.
            (&[0x09, 0x80, 0, 0, 0, 0], 1002),
            (&[0x82, 0xFE, 0, 5, 0, 0, 0, 0, 1, 2, 3, 4, 5], 1002),
            (&[0x80, 0x80, 0, 0, 0, 0], 1002),
            // Half a close code; a forbidden code; text that is not UTF-8.
            (&[0x88, 0x81, 0, 0, 0, 0, 3], 1002),
            (&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xED], 1002),
            (&[0x81, 0x81, 0, 0, 0, 0, 0xFF], 1007),
        ];
        let (violation, expected) = violations[self.random.below(violations.len() as u64) as usize];
        self.stream.write_all(violation).await?;
        let code = timeout(PATIENCE, self.read_close()).await.context("a violation has no consequence")??;
        ensure!(code == expected, "the server answered {violation:x?} with {code}");
        self.wait_for_end().await?;
        Ok(self.tally)
    }

    // ---- frames

    async fn send_some(&mut self) -> Result<Vec<(Kind, Vec<u8>)>> {
        let mut out = Vec::new();
        let mut sent = Vec::new();
        for _ in 0..=self.random.below(4) {
            let kind = if self.random.below(2) == 0 { Kind::Text } else { Kind::Binary };
            // Most messages are small, a few are large.
            let most = [32, 200, 2000, 20_000][(self.random.below(16) as usize).saturating_sub(12)];
            let size = self.random.below(most) as usize;
            let mut payload = Vec::with_capacity(size + 8);
            while payload.len() < size {
                payload.extend_from_slice(&self.random.next().to_le_bytes());
            }
            payload.truncate(size);
            if kind.is_text() {
                payload.iter_mut().for_each(|byte| *byte = b' ' + *byte % 64);
            }
            encode_masked(kind, &payload, self.random.next() as u32 as usize, &mut out);
            sent.push((kind, payload));
        }
        self.tally.in_doubt += sent.len() as u64;
        timeout(PATIENCE, self.stream.write_all(&out)).await.context("the server takes nothing")??;
        Ok(sent)
    }

    async fn write(&mut self, first: u8, payload: &[u8]) -> Result<()> {
        let mut frame = Vec::new();
        encode_header(first, payload.len(), Some([0; 4]), &mut frame);
        frame.extend_from_slice(payload);
        timeout(PATIENCE, self.stream.write_all(&frame)).await.context("the server takes nothing")??;
        Ok(())
    }

    /// Receives the next message, and answers pings before it. Dropping the future loses nothing.
    async fn read_message(&mut self) -> Result<Frame> {
        loop {
            let frame = self.read_frame().await?;
            match frame.first {
                PING => {
                    // A pong is smaller than a socket's buffer, so that the write isn't dropped halfway.
                    self.write(PONG, &frame.payload).await?;
                    self.tally.pings += 1;
                }
                CLOSE => bail!("the server closed the connection: {:?}", frame.payload),
                _ => return Ok(frame),
            }
        }
    }

    /// Returns the code of the server's Close frame.
    async fn read_close(&mut self) -> Result<u16> {
        loop {
            let frame = self.read_frame().await?;
            match frame.first {
                PING => self.write(PONG, &frame.payload).await?,
                CLOSE => {
                    let code = frame.payload.first_chunk().context("the server closed without a code")?;
                    return Ok(u16::from_be_bytes(*code));
                }
                _ => bail!("a message came that nobody had sent"),
            }
        }
    }

    async fn read_frame(&mut self) -> Result<Frame> {
        loop {
            if let Some(header) = header(&self.arrived) {
                let size = header.size + header.len as usize;
                if self.arrived.len() >= size {
                    let mut payload = Vec::new();
                    copy_masked(&self.arrived[header.size..size], header.key, &mut payload);
                    self.arrived.drain(..size);
                    if self.arrived.is_empty() {
                        self.arrived = Vec::new();
                    }
                    return Ok(Frame { first: header.first, payload });
                }
            }
            self.stream.readable().await?;
            let count = self.stream.read_buf(&mut self.arrived).await?;
            ensure!(count > 0, "the server ended the connection without a Close frame");
        }
    }

    async fn wait_for_end(&mut self) -> Result<()> {
        let ended = timeout(PATIENCE, self.stream.read_u8()).await.context("the connection does not end")?;
        let error = ended.err().context("something is behind the Close frame")?;
        ensure!(error.kind() == io::ErrorKind::UnexpectedEof, "the connection ended with {error}");
        Ok(())
    }
}
