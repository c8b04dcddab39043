//! The certificate the webhook shows. On a cluster that issues none, it makes its own authority.

use rcgen::KeyUsagePurpose;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};

/// Certificate, key and the authority that vouches for them, as PEM.
#[derive(Clone)]
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
