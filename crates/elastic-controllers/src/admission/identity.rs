//! The certificate the webhook shows. On a cluster that issues none, it makes its own authority; where a Secret is mounted,
//! its files are read again and again, so that a rotated certificate is shown without a restart.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::KeyUsagePurpose;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Between two looks at the files.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Certificate, key and the authority that vouches for them, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct AdmissionIdentity {
    /// What goes into `caBundle`.
    pub authority_pem: String,
    /// The serving certificate.
    pub certificate_pem: String,
    /// Its key.
    pub private_key_pem: String,
}

/// The key or certificate could not be made.
#[derive(Debug, thiserror::Error)]
#[error("make a certificate for {names:?}")]
pub struct IdentityError {
    names: Vec<String>,
    #[source]
    source: rcgen::Error,
}

impl AdmissionIdentity {
    /// A fresh authority and a certificate for `names` (DNS names or addresses).
    pub fn generate(names: &[String]) -> Result<Self, IdentityError> {
        Self::try_generate(names).map_err(|source| IdentityError {
            names: names.to_vec(),
            source,
        })
    }

    fn try_generate(names: &[String]) -> Result<Self, rcgen::Error> {
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        authority
            .distinguished_name
            .push(DnType::CommonName, "springtide-webhook-ca");
        let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
        let mut serving = CertificateParams::new(names.to_vec())?;
        serving.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        serving
            .distinguished_name
            .push(DnType::CommonName, "springtide-webhook");
        let key = KeyPair::generate()?;
        let certificate = serving.signed_by(&key, &issuer)?;
        Ok(Self {
            authority_pem: issuer.pem(),
            certificate_pem: certificate.pem(),
            private_key_pem: key.serialize_pem(),
        })
    }
}

/// Where certificate, key and authority lie as PEM, usually a mounted Secret of type `kubernetes.io/tls`.
#[derive(Clone, Debug)]
pub struct IdentityFiles {
    /// `ca.crt`.
    pub authority: PathBuf,
    /// `tls.crt`.
    pub certificate: PathBuf,
    /// `tls.key`.
    pub private_key: PathBuf,
}

impl IdentityFiles {
    /// The files of a mounted Secret of type `kubernetes.io/tls`.
    pub fn in_directory(directory: &Path) -> Self {
        Self {
            authority: directory.join("ca.crt"),
            certificate: directory.join("tls.crt"),
            private_key: directory.join("tls.key"),
        }
    }

    /// Reads all three.
    pub async fn load(&self) -> io::Result<AdmissionIdentity> {
        Ok(AdmissionIdentity {
            authority_pem: tokio::fs::read_to_string(&self.authority).await?,
            certificate_pem: tokio::fs::read_to_string(&self.certificate).await?,
            private_key_pem: tokio::fs::read_to_string(&self.private_key).await?,
        })
    }

    /// Sends every new content until `shutdown`. Files that cannot be read leave the last good content in force.
    pub async fn follow(
        self,
        sender: watch::Sender<AdmissionIdentity>,
        shutdown: CancellationToken,
    ) {
        loop {
            match self.load().await {
                Ok(identity) => {
                    sender.send_if_modified(|known| {
                        let changed = *known != identity;
                        *known = identity;
                        changed
                    });
                }
                Err(error) => tracing::warn!(
                    certificate = %self.certificate.display(), %error,
                    "webhook certificate could not be read again, the last one stays in use"
                ),
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }
}
