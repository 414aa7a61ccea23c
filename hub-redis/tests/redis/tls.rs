//! URLs that begin with `rediss://`.

#[cfg(not(feature = "tls"))]
#[tokio::test]
async fn without_the_feature_an_error_names_it() {
    let error = bowline_hub_redis::connect("rediss://127.0.0.1:1").await.unwrap_err().to_string();
    assert!(error.contains("feature `tls`"), "{error}");
}

#[cfg(feature = "tls")]
mod with_tls {
    use std::env::{current_exe, var};
    use std::fs;
    use std::process::Command;

    use bowline_hub_testing::TestResult;
    use bowline_hub_testing::client::{Client, builder_with_loss, publish};
    use bowline_hub_testing::process::free_port;
    use rcgen::{CertificateParams, IsCa, Issuer, KeyPair};
    use tempfile::TempDir;

    use crate::support::server::{Server, VOLATILE};

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

        let port = free_port().to_string();
        let tls = ["--tls-port", &port, "--tls-cert-file", &certificate, "--tls-key-file", &key];
        let clients = ["--tls-ca-cert-file", &authority, "--tls-auth-clients", "no"];
        let Some(_server) = Server::start(&[VOLATILE, &tls[..], &clients[..]].concat()).await? else {
            return Ok(());
        };
        let mut child = Command::new(current_exe()?);
        child.args(["--ignored", "--exact", "tls::with_tls::child"]);
        child.env("SSL_CERT_FILE", &authority).env(URL, format!("rediss://localhost:{port}"));
        let output = child.output()?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        Ok(())
    }

    #[tokio::test]
    #[ignore = "the test above runs this one in a process of its own"]
    async fn child() -> TestResult {
        let Ok(url) = var(URL) else { return Ok(()) };
        let error = bowline_hub_redis::connect(&url).await.unwrap_err().to_string();
        assert!(error.contains("provider of cryptography"), "{error}");
        assert!(rustls::crypto::ring::default_provider().install_default().is_ok());
        let hub = builder_with_loss(bowline_hub_redis::connect(&url).await?).build()?;
        let mut client = Client::live(&hub, "chat/a").await?;
        publish(&hub, "chat/a", "1").await?;
        client.expect(&["1"]).await?;
        Ok(())
    }
}
