//! Keys and certificates of a cluster: one authority, what it signs, and the key of service-account tokens.
//!
//! What clients keep (authority, admin certificate and token, token key) is kept in the data directory, readable by its owner only.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SerialNumber,
    date_time_ymd,
};
use ring::rand::{SecureRandom, SystemRandom};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Why keys cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file operation failed.
    #[error("cannot {action} {path}")]
    File {
        /// What was attempted.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A certificate could not be made or read.
    #[error("cannot {action} the certificate of {subject}")]
    Certificate {
        /// What was attempted.
        action: &'static str,
        /// Whose.
        subject: String,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// A key could not be made or read.
    #[error("cannot {action} the key {name}")]
    Key {
        /// What was attempted.
        action: &'static str,
        /// Which.
        name: String,
    },
}

/// A certificate and its key, both PEM.
#[derive(Clone)]
pub struct Pair {
    /// The certificate.
    pub certificate_pem: String,
    /// The private key.
    pub key_pem: String,
}

/// The keys of a cluster.
pub struct Pki {
    issuer: Issuer<'static, KeyPair>,
    /// The authority's certificate.
    pub ca_pem: String,
    /// `system:masters` for people.
    pub admin: Pair,
    /// Static token of the same.
    pub admin_token: String,
    /// With what the server calls kubelets.
    pub kubelet_client: Pair,
    /// With what the server calls aggregated servers.
    pub front_proxy: Pair,
    /// PKCS#8 of the token key.
    pub token_key: Vec<u8>,
}

fn certificate_error(action: &'static str, subject: &str) -> impl FnOnce(rcgen::Error) -> PkiError {
    move |source| PkiError::Certificate {
        action,
        subject: subject.to_string(),
        source,
    }
}

fn params(common_name: &str, organizations: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    for organization in organizations {
        name.push(DnType::OrganizationName, *organization);
    }
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2120, 1, 1);
    params
}

fn authority_params() -> CertificateParams {
    let mut params = params("kubernetes", &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params
}

fn new_key(name: &str) -> Result<KeyPair, PkiError> {
    KeyPair::generate().map_err(|_| PkiError::Key {
        action: "make",
        name: name.to_string(),
    })
}

impl Pki {
    /// Reads what is in `directory`, makes what is missing.
    pub fn open(directory: &Path) -> Result<Self, PkiError> {
        fs::create_dir_all(directory).map_err(|source| PkiError::File {
            action: "create",
            path: directory.to_path_buf(),
            source,
        })?;
        let (issuer, ca_pem) = authority(directory)?;
        let token = kept(directory, "admin.token", || {
            random_token().map(|text| text.into_bytes())
        })?;
        let token_key = kept(directory, "service-account.key", token_key)?;
        let admin = kept_pair(directory, "admin", || {
            sign_client(&issuer, "kubernetes-admin", &[super::MASTERS])
        })?;
        let kubelet_client =
            sign_client(&issuer, "kube-apiserver-kubelet-client", &[super::MASTERS])?;
        let front_proxy = sign_client(&issuer, "front-proxy-client", &[])?;
        Ok(Self {
            issuer,
            ca_pem,
            admin,
            admin_token: String::from_utf8_lossy(&token).trim().to_string(),
            kubelet_client,
            front_proxy,
            token_key,
        })
    }

    /// A certificate for a TLS server.
    pub fn issue_serving(
        &self,
        names: &[String],
        addresses: &[std::net::IpAddr],
    ) -> Result<Pair, PkiError> {
        let subject = names.first().map_or("server", String::as_str);
        let mut all: Vec<String> = names.to_vec();
        all.extend(addresses.iter().map(|address| address.to_string()));
        let mut params = params(subject, &[]);
        params.subject_alt_names = CertificateParams::new(all)
            .map_err(certificate_error("describe", subject))?
            .subject_alt_names;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        sign(&self.issuer, params, subject)
    }

    /// A serial number that no other certificate has.
    pub fn serial(&self) -> Result<[u8; 16], String> {
        let mut serial = [0u8; 16];
        fill_random(&mut serial).map_err(|error| error.to_string())?;
        serial[0] &= 0x7f;
        Ok(serial)
    }

    /// The certificate for a request whose content has been checked.
    pub fn sign_request(&self, request: CertificateSigningRequestParams) -> Result<String, String> {
        let certificate = request.signed_by(&self.issuer);
        let certificate =
            certificate.map_err(|error| format!("the certificate cannot be signed: {error}"))?;
        Ok(certificate.pem())
    }

    /// A certificate for a TLS client.
    pub fn issue_client(
        &self,
        common_name: &str,
        organizations: &[&str],
    ) -> Result<Pair, PkiError> {
        sign_client(&self.issuer, common_name, organizations)
    }
}

fn authority(directory: &Path) -> Result<(Issuer<'static, KeyPair>, String), PkiError> {
    let pair = kept_pair(directory, "ca", || {
        let key = new_key("ca")?;
        let certificate = authority_params()
            .self_signed(&key)
            .map_err(certificate_error("sign", "kubernetes"))?;
        Ok(Pair {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        })
    })?;
    let key = KeyPair::from_pem(&pair.key_pem).map_err(certificate_error("read", "kubernetes"))?;
    let issuer = Issuer::from_ca_cert_pem(&pair.certificate_pem, key)
        .map_err(certificate_error("read", "kubernetes"))?;
    Ok((issuer, pair.certificate_pem))
}

fn sign_client(
    issuer: &Issuer<'_, KeyPair>,
    common_name: &str,
    organizations: &[&str],
) -> Result<Pair, PkiError> {
    let mut params = params(common_name, organizations);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    sign(issuer, params, common_name)
}

fn sign(
    issuer: &Issuer<'_, KeyPair>,
    mut params: CertificateParams,
    subject: &str,
) -> Result<Pair, PkiError> {
    let key = new_key(subject)?;
    let mut serial = [0u8; 16];
    fill_random(&mut serial)?;
    serial[0] &= 0x7f;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.use_authority_key_identifier_extension = true;
    let certificate = params
        .signed_by(&key, issuer)
        .map_err(certificate_error("sign", subject))?;
    Ok(Pair {
        certificate_pem: certificate.pem(),
        key_pem: key.serialize_pem(),
    })
}

fn fill_random(bytes: &mut [u8]) -> Result<(), PkiError> {
    SystemRandom::new().fill(bytes).map_err(|_| PkiError::Key {
        action: "make random bytes for",
        name: "certificates".into(),
    })
}

fn random_token() -> Result<String, PkiError> {
    let mut bytes = [0u8; 24];
    fill_random(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn token_key() -> Result<Vec<u8>, PkiError> {
    let algorithm = &ring::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
    ring::signature::EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new())
        .map(|document| document.as_ref().to_vec())
        .map_err(|_| PkiError::Key {
            action: "make",
            name: "service-account".into(),
        })
}

fn kept_pair(
    directory: &Path,
    name: &str,
    make: impl FnOnce() -> Result<Pair, PkiError>,
) -> Result<Pair, PkiError> {
    let (certificate, key) = (
        directory.join(format!("{name}.crt")),
        directory.join(format!("{name}.key")),
    );
    if certificate.exists() && key.exists() {
        let text = |path: &Path| {
            fs::read_to_string(path).map_err(|source| PkiError::File {
                action: "read",
                path: path.to_path_buf(),
                source,
            })
        };
        return Ok(Pair {
            certificate_pem: text(&certificate)?,
            key_pem: text(&key)?,
        });
    }
    let pair = make()?;
    // The key first: a certificate without its key would be taken for a whole pair never.
    write_secret(&key, pair.key_pem.as_bytes())?;
    write_secret(&certificate, pair.certificate_pem.as_bytes())?;
    Ok(pair)
}

fn kept(
    directory: &Path,
    name: &str,
    make: impl FnOnce() -> Result<Vec<u8>, PkiError>,
) -> Result<Vec<u8>, PkiError> {
    let path = directory.join(name);
    if path.exists() {
        return fs::read(&path).map_err(|source| PkiError::File {
            action: "read",
            path,
            source,
        });
    }
    let bytes = make()?;
    write_secret(&path, &bytes)?;
    Ok(bytes)
}

/// Written beside and renamed, so that a crash leaves the old file or the new one.
fn write_secret(path: &Path, bytes: &[u8]) -> Result<(), PkiError> {
    let failed = |source| PkiError::File {
        action: "write",
        path: path.to_path_buf(),
        source,
    };
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&beside)
        .map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    fs::rename(&beside, path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_second_start_finds_the_same_authority_and_token() {
        let directory = tempfile::tempdir().unwrap();
        let first = Pki::open(directory.path()).unwrap();
        let second = Pki::open(directory.path()).unwrap();
        assert_eq!(first.ca_pem, second.ca_pem);
        assert_eq!(first.admin_token, second.admin_token);
        assert_eq!(first.admin.certificate_pem, second.admin.certificate_pem);
        for entry in fs::read_dir(directory.path()).unwrap() {
            let mode = entry.unwrap().metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0);
        }
    }
}
