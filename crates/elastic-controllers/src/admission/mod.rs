//! The admission webhook that sends pods to virtual nodes: an ordinary `AdmissionReview` server over HTTPS.
//!
//! The API server's selectors decide which pods are sent here, `elastic-core::routing` decides what happens to them. When
//! the webhook is away, pods are admitted unchanged (failure policy Ignore) and the burst controller repairs what can be
//! repaired. Requests that are not reviews, or are too large, are refused.

mod identity;
mod registration;
mod review;
mod server;

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::desk::Desk;
use crate::routing::RoutingView;
pub use identity::{AdmissionIdentity, IdentityError, IdentityFiles};
pub use registration::{
    RegistrationError, WebhookAddress, register_admission, webhook_configuration,
};
pub use server::AdmissionError;

/// Path for pods that carry the label themselves.
const POD_PATH: &str = "/mutate/pod-label";
/// Path for pods whose namespace carries the label.
const NAMESPACE_PATH: &str = "/mutate/namespace-label";
/// Path for pods that carry the annotation `burst-resource`.
const BURST_PATH: &str = "/mutate/burst-resource";
/// Path for pods that fit a rule of the profile.
const SELECTOR_PATH: &str = "/mutate/selector";
/// Path for pods in namespaces that have policies.
const POLICY_PATH: &str = "/mutate/policy";

/// Wait after the registration failed.
const RETRY: Duration = Duration::from_secs(1);
/// The registration is put right again after this, when somebody changed or deleted it.
const AGAIN: Duration = Duration::from_secs(60);

/// What the webhook is run with.
pub struct AdmissionConfig {
    /// Takes the API server's connections.
    pub listener: TcpListener,
    /// How the API server reaches the listener.
    pub address: WebhookAddress,
    /// Certificate, key and authority; a new one is shown to new connections and registered at once.
    pub identity: watch::Receiver<AdmissionIdentity>,
}

/// Serves reviews and keeps the registration as the profile and the certificate want it, until `shutdown`.
pub async fn run_admission(
    client: Client,
    config: AdmissionConfig,
    view: RoutingView,
    shutdown: CancellationToken,
) -> Result<(), AdmissionError> {
    let registering = keep_registered(
        &client,
        &config.address,
        config.identity.clone(),
        &view,
        &shutdown,
    );
    let desk = Desk::new(client.clone(), view.policies().clone());
    let serving = server::serve(
        config.listener,
        config.identity,
        (view.clone(), Arc::new(desk)),
        shutdown.clone(),
    );
    let (outcome, ()) = tokio::join!(
        async {
            let outcome = serving.await;
            if outcome.is_err() {
                shutdown.cancel();
            }
            outcome
        },
        registering
    );
    outcome
}

async fn keep_registered(
    client: &Client,
    address: &WebhookAddress,
    mut identity: watch::Receiver<AdmissionIdentity>,
    view: &RoutingView,
    shutdown: &CancellationToken,
) {
    let mut changes = view.changes();
    let mut policies = view.policies().changes();
    loop {
        let authority_pem = identity.borrow_and_update().authority_pem.clone();
        let profile = changes.borrow_and_update().clone();
        policies.mark_unchanged();
        let places = view.policies().namespaces();
        let registering =
            registration::register(client, address, &authority_pem, &profile, &places);
        let wait = match registering.await {
            Ok(()) => AGAIN,
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%error, cause, "the admission webhook is not registered, trying again");
                RETRY
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
            Ok(()) = identity.changed() => {}
            Ok(()) = changes.changed() => {}
            Ok(()) = policies.changed() => {}
        }
    }
}
