//! The webhook's certificate: kept in a Secret that all replicas share, renewed long before it ends.
//!
//! The authority lives ten years, the serving certificate ninety days; so `caBundle` stays the same while certificates
//! change, and a replica that reads the Secret a little later than another is trusted all the same.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use elastic_controllers::{
    AdmissionConfig, AdmissionIdentity, WebhookAddress, follow_routing, run_admission, run_burst,
};
use jiff::{SignedDuration, Timestamp, Zoned};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SigningKey,
};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use x509_parser::pem::parse_x509_pem;

use crate::names::{METRICS, NAMESPACE, WEBHOOK, WEBHOOK_SECRET};

const SERVING_DAYS: i64 = 90;
/// With this left, a new certificate is made.
const RENEW_DAYS: i64 = 30;
const AUTHORITY_DAYS: i64 = 3650;
/// Certificates hold from a little earlier, for clocks that lag.
const EARLIER: SignedDuration = SignedDuration::from_hours(24);
const HOUR: i64 = 3600;
/// Between looks at the Secret.
const LOOK: Duration = Duration::from_secs(30);
/// After a failed look.
const RETRY: Duration = Duration::from_secs(2);

const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const AUTHORITY: &str = "ca.crt";
const AUTHORITY_KEY: &str = "ca.key";

/// Where the webhook listens, and how the API server finds it.
pub struct WebhookServing {
    /// Bound before.
    pub listener: std::net::TcpListener,
    /// Through the Service inside a cluster, by URL outside.
    pub address: WebhookAddress,
}

/// The certificate could not be made or kept.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// Making it.
    #[error("make the webhook's certificate")]
    Make(#[from] rcgen::Error),
    /// Keeping it.
    #[error("keep the webhook's certificate in Secret {NAMESPACE}/{WEBHOOK_SECRET}")]
    Secret(#[source] Box<kube::Error>),
    /// The socket.
    #[error("share the webhook's listener")]
    Listener(#[source] std::io::Error),
}

/// What the Secret holds.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Keys {
    pub(super) certificate: String,
    pub(super) key: String,
    pub(super) authority: String,
    authority_key: String,
}

/// Serves reviews until `shutdown`, with a fresh certificate whenever there is one. The registration is kept as the
/// certificate and the rules of `eci-profile` want it.
pub(super) async fn serve(client: Client, serving: WebhookServing, shutdown: CancellationToken) {
    let names = names(&serving.address);
    let running = TaskTracker::new();
    let mut current = None;
    loop {
        let looked = look(&client, &serving, &names, &mut current, &running, &shutdown);
        let pause = match looked.await {
            Ok(()) => LOOK,
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%error, cause, "webhook is not in order, trying again");
                RETRY
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = tokio::time::sleep(pause) => {}
        }
    }
    running.close();
    running.wait().await;
}

async fn look(
    client: &Client,
    serving: &WebhookServing,
    names: &[String],
    current: &mut Option<watch::Sender<AdmissionIdentity>>,
    running: &TaskTracker,
    shutdown: &CancellationToken,
) -> Result<(), WebhookError> {
    let keys = keys(client, names, Timestamp::now()).await?;
    let identity = AdmissionIdentity {
        authority_pem: keys.authority,
        certificate_pem: keys.certificate,
        private_key_pem: keys.key,
    };
    if let Some(shown) = current {
        shown.send_if_modified(|known| {
            let changed = *known != identity;
            if changed {
                tracing::info!("webhook shows its new certificate");
                *known = identity;
            }
            changed
        });
        return Ok(());
    }
    let listener = serving
        .listener
        .try_clone()
        .and_then(TcpListener::from_std)
        .map_err(WebhookError::Listener)?;
    let (shown, identity) = watch::channel(identity);
    let config = AdmissionConfig {
        listener,
        address: serving.address.clone(),
        identity,
    };
    let (view, following) = follow_routing(client.clone(), BTreeMap::new(), shutdown.clone());
    running.spawn(following);
    // Every replica may let waiting pods on to virtual nodes: the patch says from which version it was made.
    running.spawn(run_burst(client.clone(), view.clone(), shutdown.clone()));
    let admitting = run_admission(client.clone(), config, view, shutdown.clone());
    running.spawn(async move {
        if let Err(error) = admitting.await {
            tracing::error!(%error, "webhook cannot be served");
        }
    });
    *current = Some(shown);
    Ok(())
}

/// What the certificate has to be valid for. The metrics APIs show the same one.
pub(super) fn names(address: &WebhookAddress) -> Vec<String> {
    match address {
        WebhookAddress::Service {
            namespace, name, ..
        } => vec![
            format!("{name}.{namespace}.svc"),
            format!("{name}.{namespace}.svc.cluster.local"),
            format!("{METRICS}.{namespace}.svc"),
        ],
        WebhookAddress::Url(url) => {
            let authority = url.split("://").last().unwrap_or_default();
            let authority = authority.split('/').next().unwrap_or_default();
            let host = match authority.parse::<SocketAddr>() {
                Ok(address) => address.ip().to_string(),
                Err(_) => authority.split(':').next().unwrap_or_default().to_owned(),
            };
            vec![host]
        }
    }
}

/// The Secret's keys, made or renewed when that is due.
pub(super) async fn keys(
    client: &Client,
    names: &[String],
    now: Timestamp,
) -> Result<Keys, WebhookError> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
    let failed = |error| WebhookError::Secret(Box::new(error));
    let existing = secrets.get_opt(WEBHOOK_SECRET).await.map_err(failed)?;
    let held = existing.as_ref().and_then(read);
    let next = match (renewed(held.as_ref(), names, now)?, held) {
        (Some(next), _) => next,
        (None, Some(held)) => return Ok(held),
        (None, None) => return Err(rcgen::Error::CouldNotParseCertificate.into()),
    };
    let text = |text: &str| ByteString(text.as_bytes().to_vec());
    let data = BTreeMap::from([
        (CERTIFICATE.to_owned(), text(&next.certificate)),
        (KEY.to_owned(), text(&next.key)),
        (AUTHORITY.to_owned(), text(&next.authority)),
        (AUTHORITY_KEY.to_owned(), text(&next.authority_key)),
    ]);
    let parameters = PostParams::default();
    let written = match existing {
        Some(mut secret) => {
            secret.data = Some(data);
            secrets.replace(WEBHOOK_SECRET, &parameters, &secret).await
        }
        None => {
            let mut secret = Secret {
                data: Some(data),
                ..Secret::default()
            };
            secret.metadata.name = Some(WEBHOOK_SECRET.to_owned());
            secret
                .labels_mut()
                .insert("app.kubernetes.io/name".into(), crate::names::ADDON.into());
            secrets.create(&parameters, &secret).await
        }
    };
    // When another replica was faster, the next look brings its keys.
    written.map(|_| next).map_err(failed)
}

fn read(secret: &Secret) -> Option<Keys> {
    let data = secret.data.as_ref()?;
    let text = |key: &str| String::from_utf8(data.get(key)?.0.clone()).ok();
    Some(Keys {
        certificate: text(CERTIFICATE)?,
        key: text(KEY)?,
        authority: text(AUTHORITY)?,
        authority_key: text(AUTHORITY_KEY)?,
    })
}

/// New keys when there are none, when they end soon, or when they are for other names; none when all is well. Pure but
/// for the randomness of keys.
fn renewed(
    held: Option<&Keys>,
    names: &[String],
    now: Timestamp,
) -> Result<Option<Keys>, rcgen::Error> {
    let soon = now.as_second() + RENEW_DAYS * 24 * HOUR;
    let lasts = |pem: &str| facts(pem).is_some_and(|(ends, _)| ends > soon);
    if let Some(held) = held {
        let serves = facts(&held.certificate)
            .is_some_and(|(ends, has)| ends > soon && names.iter().all(|name| has.contains(name)));
        if serves {
            return Ok(None);
        }
        // The authority must outlive what it signs.
        let outlives = now.as_second() + (SERVING_DAYS + RENEW_DAYS) * 24 * HOUR;
        let authority_lasts = facts(&held.authority).is_some_and(|(ends, _)| ends > outlives);
        if authority_lasts && let Ok(key) = KeyPair::from_pem(&held.authority_key) {
            let issuer = Issuer::from_ca_cert_pem(&held.authority, key)?;
            let (certificate, key) = serving(names, &issuer, now)?;
            return Ok(Some(Keys {
                certificate,
                key,
                ..held.clone()
            }));
        }
    }
    let issuer = CertifiedIssuer::self_signed(authority(now)?, KeyPair::generate()?)?;
    let (certificate, key) = serving(names, &issuer, now)?;
    // Replicas that have not read the Secret yet show certificates of the authority before.
    let before = held.map(|held| held.authority.as_str());
    let before = before.filter(|pem| !lasts(pem)).unwrap_or_default();
    Ok(Some(Keys {
        certificate,
        key,
        authority: format!("{}{before}", issuer.pem()),
        authority_key: issuer.key().serialize_pem(),
    }))
}

fn authority(now: Timestamp) -> Result<CertificateParams, rcgen::Error> {
    let mut parameters = CertificateParams::new(Vec::new())?;
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    parameters
        .distinguished_name
        .push(DnType::CommonName, "vk-webhook-ca");
    valid(&mut parameters, now, AUTHORITY_DAYS);
    Ok(parameters)
}

fn serving(
    names: &[String],
    issuer: &Issuer<'_, impl SigningKey>,
    now: Timestamp,
) -> Result<(String, String), rcgen::Error> {
    let mut parameters = CertificateParams::new(names.to_vec())?;
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    parameters
        .distinguished_name
        .push(DnType::CommonName, WEBHOOK);
    valid(&mut parameters, now, SERVING_DAYS);
    let key = KeyPair::generate()?;
    let certificate = parameters.signed_by(&key, issuer)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// Whole days, because that is what the certificate library takes.
fn valid(parameters: &mut CertificateParams, now: Timestamp, days: i64) {
    let from = now.checked_sub(EARLIER).unwrap_or(now);
    let until = now
        .checked_add(SignedDuration::from_hours(24 * days))
        .unwrap_or(Timestamp::MAX);
    let date = |at: Timestamp| {
        let at: Zoned = at.to_zoned(jiff::tz::TimeZone::UTC);
        rcgen::date_time_ymd(
            i32::from(at.year()),
            at.month().unsigned_abs(),
            at.day().unsigned_abs(),
        )
    };
    parameters.not_before = date(from);
    parameters.not_after = date(until);
}

/// When the first certificate of a PEM text ends, and the names it is for.
fn facts(pem: &str) -> Option<(i64, Vec<String>)> {
    use x509_parser::extensions::GeneralName;
    let (_, pem) = parse_x509_pem(pem.as_bytes()).ok()?;
    let certificate = pem.parse_x509().ok()?;
    let ends = certificate.validity().not_after.timestamp();
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let names = alternative
        .map(|extension| extension.value.general_names.as_slice())
        .unwrap_or_default();
    let names = names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => address(bytes),
        _ => None,
    });
    Some((ends, names.collect()))
}

fn address(bytes: &[u8]) -> Option<String> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(std::net::IpAddr::from(four).to_string());
    }
    let sixteen = <[u8; 16]>::try_from(bytes).ok()?;
    Some(std::net::IpAddr::from(sixteen).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * HOUR;

    fn names() -> Vec<String> {
        vec![
            "vk-webhook.kube-system.svc".to_owned(),
            "127.0.0.1".to_owned(),
        ]
    }

    fn at(days: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + days * DAY).unwrap()
    }

    #[test]
    fn a_certificate_is_renewed_thirty_days_before_its_end_under_the_same_authority() {
        let first = renewed(None, &names(), at(0)).unwrap().unwrap();
        assert!(renewed(Some(&first), &names(), at(58)).unwrap().is_none());
        let second = renewed(Some(&first), &names(), at(61)).unwrap().unwrap();
        assert_eq!(second.authority, first.authority);
        assert_ne!(second.certificate, first.certificate);
        let (ends, _) = facts(&second.certificate).unwrap();
        assert!(ends >= at(150).as_second(), "{ends}");
    }

    #[test]
    fn other_names_and_an_ending_authority_bring_new_keys() {
        let first = renewed(None, &names(), at(0)).unwrap().unwrap();
        let moved = vec!["webhook.example".to_owned()];
        let other = renewed(Some(&first), &moved, at(1)).unwrap().unwrap();
        assert_eq!(facts(&other.certificate).unwrap().1, moved);
        let last = renewed(Some(&first), &names(), at(3640)).unwrap().unwrap();
        assert_ne!(last.authority_key, first.authority_key);
        assert!(
            last.authority.ends_with(&first.authority),
            "replicas that lag are still trusted"
        );
    }

    #[test]
    fn the_certificate_is_for_where_the_api_server_calls() {
        let names = |url: &str| super::names(&WebhookAddress::Url(url.to_owned()));
        assert_eq!(names("https://127.0.0.1:9443/x"), ["127.0.0.1"]);
        assert_eq!(names("https://hook.example:9443"), ["hook.example"]);
        assert_eq!(names("https://[::1]:9443"), ["::1"]);
    }
}
