//! The cluster's own authority and the certificates of its parts, as an installer would make them.

use std::path::{Path, PathBuf};

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

/// Who somebody is: name and group.
pub(crate) struct Person {
    /// Of the files.
    pub file: &'static str,
    name: &'static str,
    group: Option<&'static str>,
}

pub(crate) const ADMIN: Person = Person {
    file: "admin",
    name: "kubernetes-admin",
    group: Some("system:masters"),
};
pub(crate) const CONTROLLER_MANAGER: Person = Person {
    file: "controller-manager",
    name: "system:kube-controller-manager",
    group: None,
};
pub(crate) const SCHEDULER: Person = Person {
    file: "scheduler",
    name: "system:kube-scheduler",
    group: None,
};
/// The API server when it calls kubelets: not an administrator, so that kubelets really ask what it may do.
pub(crate) const KUBELET_CLIENT: Person = Person {
    file: "kubelet-client",
    name: "kube-apiserver-kubelet-client",
    group: None,
};
/// The API server when it hands requests on to aggregated ones.
pub(crate) const FRONT_PROXY: Person = Person {
    file: "front-proxy-client",
    name: "front-proxy-client",
    group: None,
};

/// Files in one folder.
pub(crate) struct Certificates {
    folder: PathBuf,
    authority_pem: String,
}

impl Certificates {
    /// Makes all of them, for an API server at `addresses`.
    pub(crate) fn make(folder: &Path, addresses: &[String]) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder).context("create the folder of certificates")?;
        let authority = authority("kubernetes")?;
        let made = Self {
            folder: folder.to_owned(),
            authority_pem: authority.pem(),
        };
        made.write("ca.crt", &authority.pem())?;
        made.write("ca.key", &authority.key().serialize_pem())?;
        for person in [ADMIN, CONTROLLER_MANAGER, SCHEDULER, KUBELET_CLIENT] {
            made.issue_for(&person, &authority)?;
        }
        let front = self::authority("front-proxy")?;
        made.write("front-proxy-ca.crt", &front.pem())?;
        made.issue_for(&FRONT_PROXY, &front)?;
        let names = [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "localhost",
        ];
        let names = names
            .map(str::to_owned)
            .into_iter()
            .chain(addresses.iter().cloned());
        let mut serving = CertificateParams::new(names.collect::<Vec<_>>())?;
        serving.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        serving
            .distinguished_name
            .push(DnType::CommonName, "kube-apiserver");
        made.issue("apiserver", serving, &authority)?;
        let accounts = KeyPair::generate()?;
        made.write("service-accounts.key", &accounts.serialize_pem())?;
        made.write("service-accounts.pub", &accounts.public_key_pem())?;
        Ok(made)
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    /// A kubeconfig for somebody.
    pub(crate) fn kubeconfig(&self, person: &Person, server: &str) -> anyhow::Result<PathBuf> {
        let Person { file, .. } = person;
        let place = |name: &str| self.path(name).display().to_string();
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: upstream\n\
             clusters:\n- name: upstream\n  cluster:\n    server: {server}\n    certificate-authority: {}\n\
             users:\n- name: {file}\n  user:\n    client-certificate: {}\n    client-key: {}\n\
             contexts:\n- name: upstream\n  context: {{cluster: upstream, user: {file}}}\n",
            place("ca.crt"),
            place(&format!("{file}.crt")),
            place(&format!("{file}.key")),
        );
        self.write(&format!("{file}.kubeconfig"), &text)?;
        Ok(self.path(&format!("{file}.kubeconfig")))
    }

    /// The authority of servers and clients.
    pub(crate) fn authority_pem(&self) -> &str {
        &self.authority_pem
    }

    fn issue_for(
        &self,
        person: &Person,
        issuer: &CertifiedIssuer<'_, KeyPair>,
    ) -> anyhow::Result<()> {
        let mut parameters = CertificateParams::new(Vec::new())?;
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        parameters
            .distinguished_name
            .push(DnType::CommonName, person.name);
        if let Some(group) = person.group {
            parameters
                .distinguished_name
                .push(DnType::OrganizationName, group);
        }
        self.issue(person.file, parameters, issuer)
    }

    fn issue(
        &self,
        file: &str,
        parameters: CertificateParams,
        issuer: &CertifiedIssuer<'_, KeyPair>,
    ) -> anyhow::Result<()> {
        let key = KeyPair::generate()?;
        let certificate = parameters.signed_by(&key, issuer)?;
        self.write(&format!("{file}.crt"), &certificate.pem())?;
        self.write(&format!("{file}.key"), &key.serialize_pem())
    }

    fn write(&self, file: &str, text: &str) -> anyhow::Result<()> {
        let path = self.path(file);
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }
}

fn authority(name: &str) -> anyhow::Result<CertifiedIssuer<'static, KeyPair>> {
    let mut parameters = CertificateParams::new(Vec::new())?;
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    parameters.distinguished_name.push(DnType::CommonName, name);
    Ok(CertifiedIssuer::self_signed(
        parameters,
        KeyPair::generate()?,
    )?)
}
