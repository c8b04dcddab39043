//! Service-account tokens: ES256 JSON web tokens, bound to their account and optionally to a pod.

use super::User;
use crate::store::Store;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use jiff::Timestamp;
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};

/// `iss` and the default audience.
pub const ISSUER: &str = "https://kubernetes.default.svc";

/// Signs and checks tokens.
pub struct Tokens {
    key: EcdsaKeyPair,
    key_id: String,
    random: SystemRandom,
}

/// What a token is bound to besides the account.
pub struct Bound {
    /// `pod`, `secret`, `node`
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// What a token is about.
pub struct Subject<'a> {
    /// Namespace of the account.
    pub namespace: &'a str,
    /// Name of the account.
    pub name: &'a str,
    /// Uid of the account.
    pub uid: &'a str,
    /// Further bindings.
    pub bound: Vec<Bound>,
}

/// A checked token.
pub struct Checked {
    /// Who.
    pub user: User,
    /// Those of the wanted audiences that the token is for.
    pub audiences: Vec<String>,
}

impl Tokens {
    /// With the key of the data directory; `None` when it is no P-256 key.
    pub fn new(pkcs8: &[u8]) -> Option<Self> {
        let random = SystemRandom::new();
        let algorithm = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
        let key = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8, &random).ok()?;
        let digest = ring::digest::digest(&ring::digest::SHA256, key.public_key().as_ref());
        let key_id = BASE64.encode(digest.as_ref());
        Some(Self {
            key,
            key_id,
            random,
        })
    }

    /// The public key as a JSON web key set.
    pub fn key_set(&self) -> Value {
        // An uncompressed point: 04, x, y.
        let point = self.key.public_key().as_ref();
        let (x, y) = point[1..].split_at(32);
        json!({"keys": [{
            "use": "sig", "kty": "EC", "kid": self.key_id, "crv": "P-256", "alg": "ES256",
            "x": BASE64.encode(x), "y": BASE64.encode(y),
        }]})
    }

    /// A new token.
    pub fn issue(
        &self,
        subject: &Subject<'_>,
        audiences: &[String],
        now: Timestamp,
        seconds: i64,
    ) -> Option<String> {
        let issued = now.as_second();
        let mut kubernetes = json!({
            "namespace": subject.namespace,
            "serviceaccount": {"name": subject.name, "uid": subject.uid},
        });
        for bound in &subject.bound {
            kubernetes[bound.kind] = json!({"name": bound.name, "uid": bound.uid});
        }
        let claims = json!({
            "aud": audiences, "exp": issued + seconds, "iat": issued, "nbf": issued,
            "iss": ISSUER, "jti": uuid::Uuid::new_v4().to_string(),
            "sub": format!("system:serviceaccount:{}:{}", subject.namespace, subject.name),
            "kubernetes.io": kubernetes,
        });
        let header = json!({"alg": "ES256", "kid": self.key_id});
        let signed = format!(
            "{}.{}",
            BASE64.encode(header.to_string()),
            BASE64.encode(claims.to_string())
        );
        let signature = self.key.sign(&self.random, signed.as_bytes()).ok()?;
        Some(format!("{signed}.{}", BASE64.encode(signature.as_ref())))
    }

    /// Checks signature, times, audience and that everything the token is bound to still lives.
    pub fn check(
        &self,
        token: &str,
        wanted: &[String],
        store: &Store,
        now: Timestamp,
    ) -> Option<Checked> {
        let (signed, signature) = token.rsplit_once('.')?;
        let signature = BASE64.decode(signature).ok()?;
        let key = signature::UnparsedPublicKey::new(
            &signature::ECDSA_P256_SHA256_FIXED,
            self.key.public_key().as_ref(),
        );
        key.verify(signed.as_bytes(), &signature).ok()?;
        let (_, claims) = signed.split_once('.')?;
        let claims: Value = serde_json::from_slice(&BASE64.decode(claims).ok()?).ok()?;
        if claims["iss"] != ISSUER
            || claims["exp"].as_i64()? <= now.as_second()
            || claims["nbf"].as_i64()? > now.as_second() + 60
        {
            return None;
        }
        let audiences: Vec<String> = claims["aud"]
            .as_array()?
            .iter()
            .filter_map(Value::as_str)
            .filter(|one| wanted.iter().any(|wanted| wanted == one))
            .map(str::to_string)
            .collect();
        if audiences.is_empty() {
            return None;
        }
        let user = user_of(&claims, store)?;
        Some(Checked { user, audiences })
    }
}

fn alive(store: &Store, resource: &str, key: &str, uid: &str) -> bool {
    store
        .get(resource, key)
        .is_some_and(|object| object.tree["metadata"]["uid"] == uid)
}

fn user_of(claims: &Value, store: &Store) -> Option<User> {
    let about = &claims["kubernetes.io"];
    let namespace = about["namespace"].as_str()?;
    let account = &about["serviceaccount"];
    let (name, uid) = (account["name"].as_str()?, account["uid"].as_str()?);
    if !alive(
        store,
        "serviceaccounts",
        &format!("{namespace}/{name}"),
        uid,
    ) {
        return None;
    }
    let mut extra = vec![(
        "authentication.kubernetes.io/credential-id".to_string(),
        vec![format!(
            "JTI={}",
            claims["jti"].as_str().unwrap_or_default()
        )],
    )];
    if let (Some(pod), Some(uid)) = (about["pod"]["name"].as_str(), about["pod"]["uid"].as_str()) {
        if !alive(store, "pods", &format!("{namespace}/{pod}"), uid) {
            return None;
        }
        extra.push((
            "authentication.kubernetes.io/pod-name".into(),
            vec![pod.to_string()],
        ));
        extra.push((
            "authentication.kubernetes.io/pod-uid".into(),
            vec![uid.to_string()],
        ));
    }
    if let (Some(node), Some(uid)) = (
        about["node"]["name"].as_str(),
        about["node"]["uid"].as_str(),
    ) {
        extra.push((
            "authentication.kubernetes.io/node-name".into(),
            vec![node.to_string()],
        ));
        extra.push((
            "authentication.kubernetes.io/node-uid".into(),
            vec![uid.to_string()],
        ));
    }
    Some(
        User {
            name: format!("system:serviceaccount:{namespace}:{name}"),
            uid: uid.to_string(),
            groups: account_groups(namespace),
            extra,
        }
        .authenticated(),
    )
}

/// Groups every service account of a namespace is in.
pub fn account_groups(namespace: &str) -> Vec<String> {
    vec![
        "system:serviceaccounts".to_string(),
        format!("system:serviceaccounts:{namespace}"),
    ]
}
