//! The echo servers over TLS, with a self-signed certificate.

use std::sync::Arc;

use anyhow::{Result, bail};
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::accept::each;
use super::echo::{Side, bowline, floor};
use super::library::Library;

pub async fn serve(library: Library, listener: TcpListener) -> Result<()> {
    let config = config()?;
    match library {
        Library::Bowline => Ok(bowline::echo(bowline::server().tls(config), listener).await?),
        Library::Floor => {
            let acceptor = TlsAcceptor::from(config);
            each(listener, move |stream| {
                let accepting = acceptor.accept(stream);
                async move { floor::echo(Side::Server, Box::pin(accepting).await?).await }
            })
            .await
        }
        #[allow(unreachable_patterns, reason = "there may be no other libraries")]
        other => bail!("{other:?} is not served over TLS"),
    }
}

pub fn config() -> Result<Arc<ServerConfig>> {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key.into())?;
    Ok(Arc::new(config))
}
