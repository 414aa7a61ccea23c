//! A relay between the two sides of a transport, which resets the transport or closes one half of it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::plan::{Fault, FaultKind, Side};

/// Listens for one client, and relays its bytes to a server. This future runs in a task.
pub async fn listen(
    target: SocketAddr,
    fault: Fault,
) -> io::Result<(SocketAddr, impl Future<Output = ()> + Send + 'static)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let relay = async move {
        let Ok((mut client, _)) = listener.accept().await else { return };
        drop(listener);
        let Ok(mut server) = TcpStream::connect(target).await else { return };
        if relay(&mut client, &mut server, fault).await.is_err() {
            for stream in [&client, &server] {
                // Closing these streams then resets them.
                let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
            }
        }
    };
    Ok((address, relay))
}

/// Relays until both directions have ended. Returns an error if both streams are to be reset.
pub async fn relay<A, B>(client: &mut A, server: &mut B, fault: Fault) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let carried = AtomicU64::new(0);
    let (from_client, to_client) = tokio::io::split(client);
    let (from_server, to_server) = tokio::io::split(server);
    tokio::try_join!(
        carry(Side::Client, from_client, to_server, fault, &carried),
        carry(Side::Server, from_server, to_client, fault, &carried),
    )?;
    Ok(())
}

/// Relays the bytes that `side` writes.
async fn carry(
    side: Side,
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    fault: Fault,
    carried: &AtomicU64,
) -> io::Result<()> {
    let mut buffer = vec![0; 4096];
    let mut is_open = true;
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return if is_open { to.shutdown().await } else { Ok(()) };
        }
        let is_due = carried.fetch_add(count as u64, Ordering::Relaxed) + count as u64 >= fault.after;
        match fault.kind {
            FaultKind::Reset if is_due => return Err(io::ErrorKind::ConnectionReset.into()),
            FaultKind::HalfClose(half) if half == side && is_due && is_open => {
                is_open = false;
                // Later bytes are discarded, so that their sender isn't held up.
                to.shutdown().await?;
            }
            _ => {}
        }
        if is_open {
            to.write_all(&buffer[..count]).await?;
        }
    }
}
