//! An open connection of the server.

use std::io;

use bowline::proto::{CloseCode, CloseFrame, DeflateParameters, MessageKind, mask};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::End;
use super::fault::Fault;
use super::handshake::Accepted;
use super::message::OpenMessage;

const CHUNK: usize = 16 << 10;

pub(super) struct Connection<S> {
    stream: S,
    /// Bytes that were read and not looked at.
    buf: Vec<u8>,
    deflate: Option<DeflateParameters>,
    message: Option<OpenMessage>,
    /// An echo that waits for the next one.
    held: Option<(MessageKind, Vec<u8>)>,
    fault: Fault,
}

/// The header of a frame.
struct Header {
    fin: bool,
    reserved: u8,
    opcode: u8,
    key: Option<[u8; 4]>,
    length: u64,
}

/// The reason why the connection is not read any further.
enum Stop {
    /// Fail the connection with this code.
    Fail(u16),
    /// The connection has ended by this error.
    Io(io::Error),
    /// Everything was said.
    Done(End),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<u16> for Stop {
    fn from(code: u16) -> Self {
        Self::Fail(code)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(super) fn new(stream: S, accepted: Accepted, fault: Fault) -> Self {
        let Accepted { deflate, leftover } = accepted;
        Self { stream, buf: leftover, deflate, message: None, held: None, fault }
    }

    /// Answers until the end. A crash keeps the stream open, until the server has gone.
    pub(super) async fn run(&mut self) -> io::Result<End> {
        loop {
            match self.step().await {
                Ok(()) => {}
                Err(Stop::Done(End::Crash)) => return Ok(End::Crash),
                Err(Stop::Io(error)) => return Err(error),
                Err(Stop::Done(end)) => return self.end().await.map(|()| end),
                Err(Stop::Fail(code)) => {
                    let code = if self.fault == Fault::ClosesWith1000 { 1000 } else { code };
                    if self.fault != Fault::EndsWithoutClose {
                        self.send(8, &code.to_be_bytes()).await?;
                    }
                    return self.end().await.map(|()| End::Connection);
                }
            }
        }
    }

    /// Shuts down, and reads until the client has done so, too: a reset would overtake the Close frame.
    async fn end(&mut self) -> io::Result<()> {
        self.stream.shutdown().await?;
        let mut buf = vec![0; CHUNK];
        while self.stream.read(&mut buf).await? > 0 {}
        Ok(())
    }

    async fn step(&mut self) -> Result<(), Stop> {
        let header = self.read_header().await?;
        self.check(&header)?;
        match header.opcode {
            0..=2 => self.data(header).await,
            3..=7 | 11.. => {
                self.payload(&header).await?;
                Ok(())
            }
            _ => {
                let payload = self.payload(&header).await?;
                self.control(header.opcode, payload).await
            }
        }
    }

    async fn read_header(&mut self) -> Result<Header, Stop> {
        self.fill(2).await?;
        let start = self.take(2);
        let length: u64 = match start[1] & 0x7f {
            126 => {
                self.fill(2).await?;
                u64::from(u16::from_be_bytes(self.take(2).try_into().unwrap()))
            }
            127 => {
                self.fill(8).await?;
                u64::from_be_bytes(self.take(8).try_into().unwrap())
            }
            length => u64::from(length),
        };
        let is_minimal = match start[1] & 0x7f {
            126 => length > 125,
            127 => length > 65_535,
            _ => true,
        };
        if !is_minimal && self.fault != Fault::AcceptsLongLengths {
            return Err(Stop::Fail(1002));
        }
        let mut length = length;
        if length >> 63 == 1 {
            if self.fault != Fault::IgnoresMsb {
                return Err(Stop::Fail(1002));
            }
            length = u64::from(u16::MAX);
        }
        if length >> 62 == 1 && self.fault == Fault::CrashesByLength {
            return Err(Stop::Done(End::Crash));
        }
        let key = if start[1] & 0x80 == 0 {
            None
        } else {
            self.fill(4).await?;
            Some(self.take(4).try_into().unwrap())
        };
        let (fin, reserved, opcode) = (start[0] & 0x80 != 0, start[0] >> 4 & 7, start[0] & 0x0f);
        Ok(Header { fin, reserved, opcode, key, length })
    }

    fn check(&self, header: &Header) -> Result<(), Stop> {
        let Header { fin, reserved, opcode, key, length } = header;
        let is_control = opcode & 8 != 0;
        let may_have_rsv1 = self.deflate.is_some() && matches!(opcode, 1 | 2);
        let is_violation = [
            (key.is_none(), Fault::AcceptsUnmasked),
            (
                reserved & 4 != 0 && !may_have_rsv1,
                if *opcode == 0 { Fault::AcceptsRsv1OnContinuation } else { Fault::IgnoresRsv1 },
            ),
            (reserved & 2 != 0, Fault::IgnoresRsv2),
            (reserved & 1 != 0, Fault::IgnoresRsv3),
            (matches!(opcode, 3..=7), Fault::IgnoresUnknownOpcode),
            (matches!(opcode, 11..), Fault::IgnoresUnknownControl),
            (is_control && *length > 125, Fault::AcceptsLongPing),
            (is_control && !fin, Fault::AcceptsFragmentedPing),
            (*opcode == 9 && self.message.is_some() && self.fault == Fault::RejectsPingInside, Fault::None),
            (*opcode == 10 && self.fault == Fault::RejectsPong, Fault::None),
            (*opcode == 0 && self.message.is_none(), Fault::AcceptsContinuationFirst),
            (matches!(opcode, 1 | 2) && self.message.is_some(), Fault::AcceptsMessageInside),
        ];
        let is_wrong = |(is_violation, pardoned): &(bool, Fault)| {
            *is_violation && (self.fault == Fault::None || *pardoned != self.fault)
        };
        if is_violation.iter().any(is_wrong) { Err(Stop::Fail(1002)) } else { Ok(()) }
    }

    async fn data(&mut self, header: Header) -> Result<(), Stop> {
        let fault = self.fault;
        let kind = if header.opcode == 1 { MessageKind::Text } else { MessageKind::Binary };
        let begun = || OpenMessage::new(kind, header.reserved & 4 != 0);
        let mut message = match self.message.take() {
            Some(message) if header.opcode == 0 => message,
            _ => begun(),
        };
        message.begin_frame(header.length)?;
        if message.frames() > 1000 && fault == Fault::CrashesByFragments {
            return Err(Stop::Done(End::Crash));
        }
        let mut left = header.length;
        while left > 0 {
            let size = usize::try_from(left).unwrap().min(CHUNK);
            if self.buf.is_empty() {
                self.fill(1).await?;
            }
            let mut piece = self.take(size.min(self.buf.len()));
            if let Some(key) = header.key {
                mask(&mut piece, key, header.length - left);
            }
            message.push(&piece, fault)?;
            left -= piece.len() as u64;
        }
        if !header.fin {
            message.end_frame(fault)?;
            self.message = Some(message);
            return Ok(());
        }
        if fault == Fault::ForgetsFragments && message.frames() > 1 {
            message = OpenMessage::new(message.kind, false);
        }
        let (kind, payload) = (message.kind, message.end(self.deflate, fault)?);
        self.echo(kind, payload).await
    }

    async fn echo(&mut self, kind: MessageKind, mut payload: Vec<u8>) -> Result<(), Stop> {
        let mut opcode = if kind == MessageKind::Text { 1 } else { 2 };
        match self.fault {
            Fault::TruncatesEcho => payload.truncate(65_535),
            Fault::EchoesBinaryAsText => opcode = 1,
            Fault::DropsEmpty if payload.is_empty() => return Ok(()),
            Fault::DropsRestOfRead => self.buf.clear(),
            Fault::Reorders => match self.held.take() {
                None => {
                    self.held = Some((kind, payload));
                    return Ok(());
                }
                Some((_, earlier)) => {
                    self.send(opcode, &payload).await?;
                    payload = earlier;
                }
            },
            _ => {}
        }
        self.send(opcode, &payload).await?;
        Ok(())
    }

    async fn control(&mut self, opcode: u8, payload: Vec<u8>) -> Result<(), Stop> {
        match (opcode, self.fault) {
            (9, Fault::NoPong) | (8, Fault::NoCloseAnswer) | (10, _) => Ok(()),
            (9, Fault::EmptyPong) => Ok(self.send(10, &[]).await?),
            (9, Fault::AcceptsLongPing) => Ok(self.send(10, &payload[..payload.len().min(125)]).await?),
            (9, _) => Ok(self.send(10, &payload).await?),
            _ => self.close(&payload).await,
        }
    }

    async fn close(&mut self, payload: &[u8]) -> Result<(), Stop> {
        let answer = match (payload, self.fault) {
            ([], _) => Vec::new(),
            ([_], Fault::EchoesOneByte) => payload.to_vec(),
            ([_], _) => return Err(Stop::Fail(1002)),
            ([high, low, reason @ ..], fault) => {
                let code = u16::from_be_bytes([*high, *low]);
                let is_allowed = CloseFrame::new(CloseCode(code), "").is_ok() && code != 1005;
                let is_rejected = fault == Fault::RejectsCode3000 && code == 3000;
                if (!is_allowed && fault != Fault::EchoesAnyCode) || is_rejected {
                    return Err(Stop::Fail(1002));
                }
                if std::str::from_utf8(reason).is_err() && fault != Fault::EchoesReason {
                    return Err(Stop::Fail(1007));
                }
                match fault {
                    Fault::EchoesReason => payload.to_vec(),
                    Fault::AnswersWith1000 => 1000_u16.to_be_bytes().to_vec(),
                    _ => code.to_be_bytes().to_vec(),
                }
            }
        };
        if self.fault == Fault::GoesOnAfterClose {
            // It answers what follows first.
            let header = self.read_header().await?;
            let following = self.payload(&header).await?;
            self.send(10, &following).await?;
        }
        self.send(8, &answer).await?;
        if self.fault == Fault::DataAfterClose {
            self.send(1, b"one more thing").await?;
        }
        if self.fault == Fault::KeepsConnection {
            return Ok(());
        }
        Err(Stop::Done(End::Connection))
    }

    async fn send(&mut self, opcode: u8, payload: &[u8]) -> io::Result<()> {
        let mask_bit = if self.fault == Fault::MasksFrames { 0x80 } else { 0 };
        let mut bytes = vec![0x80 | opcode];
        let length = payload.len() as u64;
        match length {
            0..126 => bytes.push(mask_bit | length.to_le_bytes()[0]),
            126..65_536 => {
                bytes.push(mask_bit | 0x7e);
                bytes.extend_from_slice(&length.to_be_bytes()[6..]);
            }
            65_536.. => {
                bytes.push(mask_bit | 0x7f);
                bytes.extend_from_slice(&length.to_be_bytes());
            }
        }
        if mask_bit != 0 {
            bytes.extend_from_slice(&[0; 4]);
        }
        bytes.extend_from_slice(payload);
        self.stream.write_all(&bytes).await
    }

    async fn payload(&mut self, header: &Header) -> Result<Vec<u8>, Stop> {
        let size = usize::try_from(header.length).unwrap();
        self.fill(size).await?;
        let mut payload = self.take(size);
        if let Some(key) = header.key {
            mask(&mut payload, key, 0);
        }
        Ok(payload)
    }

    /// Reads until this many bytes are here.
    async fn fill(&mut self, size: usize) -> io::Result<()> {
        while self.buf.len() < size {
            if self.stream.read_buf(&mut self.buf).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    fn take(&mut self, size: usize) -> Vec<u8> {
        self.buf.drain(..size).collect()
    }
}
