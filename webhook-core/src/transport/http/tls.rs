//! TLS settings that touch nothing process-wide.

use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;

use super::BuildTransportError;

/// TLS 1.2 and 1.3 by ring, with the roots of Mozilla and `extra`.
#[cfg(feature = "tls-ring")]
pub(super) fn default_config(extra: Vec<CertificateDer<'static>>) -> Result<ClientConfig, BuildTransportError> {
    use std::sync::Arc;

    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
    for certificate in extra {
        roots.add(certificate)?;
    }
    // The provider is named: a plain builder takes the process's, which is the host's to choose.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// There is no provider to make them of.
#[cfg(not(feature = "tls-ring"))]
pub(super) fn default_config(_extra: Vec<CertificateDer<'static>>) -> Result<ClientConfig, BuildTransportError> {
    Err(BuildTransportError::NoTls)
}
