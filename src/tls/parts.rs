use std::{io, sync::Arc, time::Duration};

use rustls::{
    CertificateError, ClientConfig, Error, RootCertStore,
    client::WebPkiServerVerifier,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};

/// What a client's side of TLS is made from: PEM texts.
#[derive(Clone, Default)]
pub(crate) struct TlsParts {
    /// Certificates of CAs to trust instead of the system's.
    pub(crate) ca: Option<Vec<u8>>,
    /// Our certificate with its chain, and its key.
    pub(crate) client: Option<(Vec<u8>, Vec<u8>)>,
    /// The name to ask for and to find in the certificate, instead of the configured host.
    pub(crate) server_name: Option<String>,
}

impl TlsParts {
    /// A configuration without ALPN.
    ///
    /// # Errors
    ///
    /// What is wrong with the parts, in words.
    pub(crate) fn config(&self) -> Result<ClientConfig, String> {
        let roots = match &self.ca {
            Some(pem) => own_roots(pem)?,
            None => system_roots()?,
        };
        let provider = Arc::new(ring::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .map_err(|error| format!("the trusted certificates cannot be used: {error}"))?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_webpki_verifier(verifier);
        match &self.client {
            None => Ok(builder.with_no_client_auth()),
            Some((certificate, key)) => {
                let chain = certificates(certificate, "the client certificate")?;
                let key = PrivateKeyDer::from_pem_slice(key)
                    .map_err(|error| format!("the client certificate's key: {}", pem(&error)))?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| format!("client certificate and key: {error}"))
            }
        }
    }

    /// The name that was given.
    ///
    /// # Errors
    ///
    /// That no certificate can be for it, in words.
    pub(crate) fn name(&self) -> Result<Option<ServerName<'static>>, String> {
        let name = self.server_name.as_ref().map(|name| {
            ServerName::try_from(name.clone())
                .map_err(|_| format!("{name:?} is no name that a certificate can be for"))
        });
        name.transpose()
    }
}

/// What a failure on a connection with TLS means, and what to do.
pub(crate) fn explain(error: &io::Error) -> String {
    let source = error.get_ref().and_then(|e| e.downcast_ref::<Error>());
    match source {
        Some(error) => explain_tls(error),
        None if matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::ConnectionAborted
        ) =>
        {
            format!(
                "the server closed the connection during the TLS handshake ({error}): it may speak no TLS on this port, or want a client certificate (`Tls::client_certificate`)"
            )
        }
        None => format!("the TLS handshake failed: {error}"),
    }
}

fn explain_tls(error: &Error) -> String {
    match error {
        Error::InvalidMessage(_) => {
            "the port does not speak TLS: switch TLS off, or give the port that speaks it"
                .to_owned()
        }
        Error::InvalidCertificate(error) => explain_certificate(error),
        Error::AlertReceived(alert) => format!(
            "the server refused our side of TLS with the alert {alert:?}: it wants a client certificate that it trusts (`Tls::client_certificate`), or another version of TLS"
        ),
        Error::NoApplicationProtocol => "the server speaks TLS but not HTTP/2".to_owned(),
        other => format!("the TLS handshake failed: {other}"),
    }
}

fn explain_certificate(error: &CertificateError) -> String {
    match error {
        // The second: a CA of the same name that was made anew.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "the server's certificate is signed by nobody that is trusted here: give the certificate of its CA (`Tls::ca`)"
                .to_owned()
        }
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => {
            let presented: Vec<&str> = presented.iter().map(|name| bare(name)).collect();
            let names = if presented.is_empty() {
                "no name at all".to_owned()
            } else {
                presented.join(", ")
            };
            format!(
                "the server's certificate is for {names}, not for {}: give the server by a name that its certificate has, or name it (`Tls::server_name`)",
                expected.to_str()
            )
        }
        CertificateError::ExpiredContext { time, not_after } => {
            let ago = time.as_secs().saturating_sub(not_after.as_secs());
            format!(
                "the server's certificate expired {} ago: it needs a new one (or this machine's clock is wrong)",
                roughly(ago)
            )
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            let ahead = not_before.as_secs().saturating_sub(time.as_secs());
            format!(
                "the server's certificate is valid only in {}: this machine's clock is wrong, or the server's certificate",
                roughly(ahead)
            )
        }
        other => format!("the server's certificate is not accepted: {other}"),
    }
}

/// `DnsName("nacos.local")` as it is meant.
fn bare(name: &str) -> &str {
    let inner = name
        .split_once('(')
        .and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(name).trim_matches('"')
}

fn roughly(seconds: u64) -> String {
    const DAY: u64 = 86_400;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..DAY => format!("{} h", seconds / 3_600),
        _ => format!("{} days", Duration::from_secs(seconds).as_secs() / DAY),
    }
}

fn own_roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem, "the CA")? {
        roots
            .add(certificate)
            .map_err(|error| format!("the CA has a certificate that cannot be used: {error}"))?;
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let why = found.errors.first().map(|error| format!(" ({error})"));
        return Err(format!(
            "this system has no trusted certificates{}: install them, or give your own CA (`Tls::ca`)",
            why.unwrap_or_default()
        ));
    }
    Ok(roots)
}

fn certificates(text: &[u8], whose: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>();
    match read {
        Ok(certificates) if certificates.is_empty() => Err(format!(
            "{whose}: no certificate in it; expected PEM, which begins with -----BEGIN CERTIFICATE-----"
        )),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(format!("{whose}: {}", pem(&error))),
    }
}

fn pem(error: &rustls::pki_types::pem::Error) -> String {
    format!("not readable as PEM ({error})")
}
