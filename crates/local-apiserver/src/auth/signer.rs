//! What each of the cluster's signers puts its name to. Pure but for the authority's key.

use super::pki::Pki;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DnType, DnValue, ExtendedKeyUsagePurpose,
    KeyUsagePurpose, SanType, SerialNumber,
};
use std::time::{Duration, SystemTime};

const NODES: &str = "system:nodes";
const NODE_PREFIX: &str = "system:node:";
const LONGEST: Duration = Duration::from_secs(365 * 86_400);
/// Clocks differ a little.
const BACKDATED: Duration = Duration::from_secs(300);

/// A signer of the cluster itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signer {
    /// `kubernetes.io/kubelet-serving`
    KubeletServing,
    /// `kubernetes.io/kube-apiserver-client-kubelet`
    KubeletClient,
    /// `kubernetes.io/kube-apiserver-client`
    Client,
}

impl Signer {
    /// By its name; others sign elsewhere.
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "kubernetes.io/kubelet-serving" => Some(Self::KubeletServing),
            "kubernetes.io/kube-apiserver-client-kubelet" => Some(Self::KubeletClient),
            "kubernetes.io/kube-apiserver-client" => Some(Self::Client),
            _ => None,
        }
    }

    fn purpose(self) -> (&'static str, ExtendedKeyUsagePurpose) {
        match self {
            Self::KubeletServing => ("server auth", ExtendedKeyUsagePurpose::ServerAuth),
            Self::KubeletClient | Self::Client => {
                ("client auth", ExtendedKeyUsagePurpose::ClientAuth)
            }
        }
    }

    /// The sentence says what is wrong with a request.
    fn check(self, params: &CertificateParams, usages: &[&str]) -> Result<(), String> {
        let (wanted, _) = self.purpose();
        let allowed = ["digital signature", "key encipherment", wanted];
        if let Some(other) = usages.iter().find(|usage| !allowed.contains(usage)) {
            return Err(format!("usage {other:?} is not permitted"));
        }
        if !usages.contains(&wanted) {
            return Err(format!("usage {wanted:?} is required"));
        }
        if self == Self::Client {
            return Ok(());
        }
        let text = |kind: DnType| match params.distinguished_name.get(&kind) {
            Some(DnValue::Utf8String(text)) => text.clone(),
            Some(DnValue::PrintableString(text)) => text.as_str().to_owned(),
            _ => String::new(),
        };
        if text(DnType::OrganizationName) != NODES {
            return Err(format!("subject organization is not {NODES}"));
        }
        if !text(DnType::CommonName).starts_with(NODE_PREFIX) {
            return Err(format!(
                "subject common name does not begin with {NODE_PREFIX}"
            ));
        }
        let names = &params.subject_alt_names;
        let servers = |name: &SanType| matches!(name, SanType::DnsName(_) | SanType::IpAddress(_));
        match self {
            Self::KubeletServing if names.is_empty() => {
                Err("DNS or IP subjectAltName is required".to_owned())
            }
            Self::KubeletServing if !names.iter().all(servers) => {
                Err("email and URI subjectAltNames are not allowed".to_owned())
            }
            Self::KubeletClient if !names.is_empty() => {
                Err("subjectAltNames are not allowed".to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// The certificate as PEM. Signed is what was checked, not what was sent: everything else in the request is left out.
pub fn sign(
    pki: &Pki,
    signer: Signer,
    request_pem: &str,
    usages: &[&str],
    seconds: Option<i64>,
) -> Result<String, String> {
    let request = CertificateSigningRequestParams::from_pem(request_pem)
        .map_err(|error| format!("the request cannot be read: {error}"))?;
    signer.check(&request.params, usages)?;
    let wanted = seconds.and_then(|seconds| u64::try_from(seconds).ok());
    let life = wanted.map_or(LONGEST, Duration::from_secs).min(LONGEST);
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.distinguished_name = request.params.distinguished_name.clone();
    params.subject_alt_names = request.params.subject_alt_names.clone();
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + life).into();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    if usages.contains(&"key encipherment") {
        params.key_usages.push(KeyUsagePurpose::KeyEncipherment);
    }
    params.extended_key_usages = vec![signer.purpose().1];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(SerialNumber::from_slice(&pki.serial()?));
    pki.sign_request(CertificateSigningRequestParams {
        params,
        public_key: request.public_key,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::KeyPair;

    fn request(organization: &str, name: &str, alternatives: &[&str]) -> String {
        let alternatives: Vec<String> = alternatives.iter().map(|one| (*one).to_owned()).collect();
        let mut params = CertificateParams::new(alternatives).unwrap();
        let subject = &mut params.distinguished_name;
        subject.push(DnType::OrganizationName, organization);
        subject.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        params.serialize_request(&key).unwrap().pem().unwrap()
    }

    /// A request, its usages, and what is said to it.
    type Case<'a> = (Signer, String, &'a [&'a str], Result<(), &'a str>);

    #[test]
    fn each_signer_signs_what_it_may_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let pki = Pki::open(directory.path()).unwrap();
        let node = |alternatives: &[&str]| request(NODES, "system:node:n-1", alternatives);
        let serving = ["digital signature", "server auth"];
        let client = ["digital signature", "client auth"];
        let kubelet = Signer::KubeletServing;
        let cases: Vec<Case<'_>> = vec![
            (kubelet, node(&["n-1", "10.0.0.1"]), &serving, Ok(())),
            (
                kubelet,
                node(&[]),
                &serving,
                Err("subjectAltName is required"),
            ),
            (kubelet, node(&["n-1"]), &client, Err("not permitted")),
            (
                kubelet,
                node(&["n-1"]),
                &["digital signature"],
                Err("is required"),
            ),
            (
                kubelet,
                request("system:masters", "system:node:n", &["n"]),
                &serving,
                Err("organization"),
            ),
            (
                kubelet,
                request(NODES, "me", &["n"]),
                &serving,
                Err("common name"),
            ),
            (Signer::KubeletClient, node(&[]), &client, Ok(())),
            (
                Signer::KubeletClient,
                node(&["n-1"]),
                &client,
                Err("not allowed"),
            ),
            (
                Signer::Client,
                request("team", "jane", &[]),
                &client,
                Ok(()),
            ),
            (
                Signer::Client,
                "nothing".to_owned(),
                &client,
                Err("cannot be read"),
            ),
        ];
        for (signer, pem, usages, expected) in cases {
            let found = sign(&pki, signer, &pem, usages, Some(600));
            match expected {
                Ok(()) => assert!(found.unwrap().starts_with("-----BEGIN CERTIFICATE-----")),
                Err(words) => assert!(found.clone().unwrap_err().contains(words), "{found:?}"),
            }
        }
    }
}
