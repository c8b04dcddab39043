//! The administrator's kubeconfig.

use serde_json::json;

/// What a client needs to reach the API server as administrator.
pub struct Access<'a> {
    pub server: &'a str,
    pub ca_pem: &'a str,
    pub certificate_pem: &'a str,
    pub key_pem: &'a str,
}

/// The file's text (YAML).
pub fn text(access: &Access<'_>) -> anyhow::Result<String> {
    // `ByteString` writes base64, which is what the `-data` fields hold.
    let data = |pem: &str| serde_json::to_value(k8s_openapi::ByteString(pem.as_bytes().to_vec()));
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "springtide",
        "clusters": [{"name": "springtide", "cluster": {"server": access.server, "certificate-authority-data": data(access.ca_pem)?}}],
        "users": [{"name": "springtide-admin", "user": {
            "client-certificate-data": data(access.certificate_pem)?,
            "client-key-data": data(access.key_pem)?,
        }}],
        "contexts": [{"name": "springtide", "context": {"cluster": "springtide", "user": "springtide-admin"}}],
    });
    Ok(serde_yaml::to_string(&config)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kube_reads_what_we_write() {
        let access = Access {
            server: "https://127.0.0.1:6443",
            ca_pem: "ca",
            certificate_pem: "cert",
            key_pem: "key",
        };
        let config = kube::config::Kubeconfig::from_yaml(&text(&access).unwrap()).unwrap();
        assert_eq!(config.current_context.as_deref(), Some("springtide"));
        let cluster = config.clusters[0].cluster.clone().unwrap();
        assert_eq!(cluster.server.as_deref(), Some("https://127.0.0.1:6443"));
        assert_eq!(cluster.certificate_authority_data.as_deref(), Some("Y2E="));
    }
}
