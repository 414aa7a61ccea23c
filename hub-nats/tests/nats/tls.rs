//! Servers with TLS.

use crate::server::Server;

#[tokio::test]
async fn a_server_without_tls_is_an_error_if_the_url_asks_for_it() {
    let Some(server) = Server::start("").await.unwrap() else { return };
    let url = format!("tls://127.0.0.1:{}", server.port);
    let error = bowline_hub_nats::connect(&url).await.unwrap_err().to_string();
    assert!(error.contains("does not offer TLS"), "{error}");
}

#[cfg(feature = "tls")]
mod with_tls {
    use std::env::{current_exe, var};
    use std::fs;
    use std::process::Command;

    use bowline_hub_testing::TestResult;
    use bowline_hub_testing::client::{Client, publish};
    use rcgen::{CertificateParams, IsCa, Issuer, KeyPair};
    use tempfile::TempDir;

    use crate::client::hub;
    use crate::server::Server;

    const URL: &str = "BOWLINE_TEST_URL";

    /// A process of its own can trust an authority of its own, and begins without a provider of cryptography.
    #[tokio::test]
    async fn a_server_with_tls_is_used_like_any_other() -> TestResult {
        let folder = TempDir::new()?;
        let path = |name: &str| folder.path().join(name).to_str().expect("the path is text").to_owned();
        let (authority, certificate, key) = (path("authority.pem"), path("certificate.pem"), path("key.pem"));
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer_key = KeyPair::generate()?;
        fs::write(&authority, params.self_signed(&issuer_key)?.pem())?;
        let server_key = KeyPair::generate()?;
        let issuer = Issuer::new(params, issuer_key);
        let signed = CertificateParams::new(["localhost".to_owned()])?.signed_by(&server_key, &issuer)?;
        fs::write(&certificate, signed.pem())?;
        fs::write(&key, server_key.serialize_pem())?;

        let tls = format!("tls {{ cert_file: \"{certificate}\", key_file: \"{key}\" }}");
        let Some(server) = Server::start(&tls).await? else { return Ok(()) };
        let mut child = Command::new(current_exe()?);
        child.args(["--ignored", "--exact", "tls::with_tls::child"]);
        child.env("SSL_CERT_FILE", &authority).env(URL, format!("nats://localhost:{}", server.port));
        let output = child.output()?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        Ok(())
    }

    #[tokio::test]
    #[ignore = "the test above runs this one in a process of its own"]
    async fn child() -> TestResult {
        let Ok(url) = var(URL) else { return Ok(()) };
        let error = bowline_hub_nats::connect(&url).await.unwrap_err().to_string();
        assert!(error.contains("provider of cryptography"), "{error}");
        assert!(rustls::crypto::ring::default_provider().install_default().is_ok());
        let hub = hub(&url).await?;
        let mut client = Client::live(&hub, "chat/a").await?;
        publish(&hub, "chat/a", "1").await?;
        client.expect(&["1"]).await?;
        Ok(())
    }
}
