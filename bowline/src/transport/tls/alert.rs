//! The alerts by which a peer gives up a TLS handshake (RFC 8446 6), in words.

use std::error::Error as StdError;

use rustls::{AlertDescription, Error as TlsError};

use crate::error::find_cause;

/// Appends what the peer's alert means to `text`, if `error` was caused by an alert.
pub(crate) fn with_alert(text: &str, error: &(dyn StdError + 'static)) -> String {
    match find_cause(error) {
        Some(TlsError::AlertReceived(alert)) => format!("{text}: {}", meaning(*alert)),
        _ => text.to_owned(),
    }
}

fn meaning(alert: AlertDescription) -> &'static str {
    use AlertDescription as Alert;
    match alert {
        Alert::UnknownCA => "the peer does not trust the authority that issued our certificate",
        Alert::CertificateExpired => "the peer finds that our certificate has expired or is not valid yet",
        Alert::CertificateRevoked => "the peer finds that our certificate was revoked",
        Alert::BadCertificate | Alert::CertificateUnknown => {
            "the peer does not accept our certificate: its name, its chain or its use may be wrong"
        }
        Alert::UnsupportedCertificate => "the peer does not support certificates of our kind",
        Alert::CertificateRequired | Alert::NoCertificate => "the peer demands a certificate of ours",
        Alert::AccessDenied => "the peer trusts our certificate, and denies access",
        Alert::UnrecognisedName => "the peer does not know the server name that was asked for (SNI)",
        Alert::ProtocolVersion => "the peer speaks none of our versions of TLS",
        Alert::HandshakeFailure | Alert::InsufficientSecurity => {
            "the peer accepts none of our cipher suites, groups and signature schemes"
        }
        Alert::NoApplicationProtocol => "the peer speaks none of the protocols that were offered (ALPN)",
        Alert::DecryptError => "the peer could not verify a signature, or the handshake itself",
        Alert::UserCanceled => "the peer canceled the handshake",
        Alert::InternalError => "the peer had an internal error",
        _ => "the peer gave up",
    }
}
