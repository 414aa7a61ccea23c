//! Servers that parse each message as a JSON document, and send back the document.

use std::error::Error;

use anyhow::{Result, bail};
use bowline::{Message, WebSocket};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use super::echo::bowline::server;
use super::library::Library;

/// The document of [`Kind::Document`](crate::frames::Kind::Document).
#[derive(Debug, Deserialize, Serialize)]
struct Document {
    number: u32,
    records: Vec<Record>,
    note: String,
}

#[derive(Debug, Deserialize, Serialize)]
struct Record {
    id: u32,
    user: String,
    price: u32,
    active: bool,
    tags: Vec<String>,
}

/// The floor is bowline, too, but with `serde_json` called by hand.
pub async fn serve(library: Library, listener: TcpListener) -> Result<()> {
    match library {
        Library::Floor => drop(server().serve(listener, echo_by_hand).await?),
        Library::Bowline => drop(server().serve(listener, echo).await?),
        other => bail!("{other:?} does not parse JSON"),
    }
    Ok(())
}

async fn echo(mut socket: WebSocket) -> Result<(), Box<dyn Error + Send + Sync>> {
    while let Some(document) = socket.recv_json::<Document>().await? {
        socket.send_json(&document).await?;
    }
    Ok(())
}

async fn echo_by_hand(mut socket: WebSocket) -> Result<(), Box<dyn Error + Send + Sync>> {
    while let Some(message) = socket.recv().await? {
        let document: Document = match &message {
            Message::Text(text) => serde_json::from_str(text)?,
            Message::Binary(bytes) => serde_json::from_slice(bytes)?,
        };
        socket.send(serde_json::to_string(&document)?).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::{Kind, payload};

    #[test]
    fn a_document_has_its_size_and_survives() {
        for size in [256, 1024, 16 * 1024] {
            for number in 0..20 {
                let text = payload(Kind::Document, size, number);
                assert_eq!(text.len(), size);
                let document: Document = serde_json::from_slice(&text).unwrap();
                assert!(!document.records.is_empty());
                assert_eq!(serde_json::to_vec(&document).unwrap(), text);
            }
        }
    }
}
