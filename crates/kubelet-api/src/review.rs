//! The cluster asked through its API: TokenReview and SubjectAccessReview.

use std::collections::BTreeMap;

use async_trait::async_trait;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};

use crate::access::{Attributes, ReviewError, Reviewer, User};

/// Asks an API server, as whom it trusts to ask (`system:auth-delegator`).
pub struct ClusterReviewer {
    client: Client,
}

impl ClusterReviewer {
    /// Asks with this client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }
}

fn failed(attempted: &'static str) -> impl FnOnce(kube::Error) -> ReviewError {
    move |error| ReviewError {
        attempted,
        source: Box::new(error),
    }
}

#[async_trait]
impl Reviewer for ClusterReviewer {
    async fn authenticate(&self, token: &str) -> Result<Option<User>, ReviewError> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_string()),
                ..TokenReviewSpec::default()
            },
            ..TokenReview::default()
        };
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let answer = reviews
            .create(&PostParams::default(), &review)
            .await
            .map_err(failed("review a token (needs create on tokenreviews)"))?;
        let status = answer.status.unwrap_or_default();
        let user = status.user.filter(|_| status.authenticated == Some(true));
        Ok(user.map(|user| User {
            name: user.username.unwrap_or_default(),
            uid: user.uid.unwrap_or_default(),
            groups: user.groups.unwrap_or_default(),
            extra: user.extra.unwrap_or_default().into_iter().collect(),
        }))
    }

    async fn authorize(&self, user: &User, wanted: &Attributes) -> Result<bool, ReviewError> {
        let extra: BTreeMap<String, Vec<String>> = user.extra.iter().cloned().collect();
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(user.name.clone()),
                uid: (!user.uid.is_empty()).then(|| user.uid.clone()),
                groups: Some(user.groups.clone()),
                extra: (!extra.is_empty()).then_some(extra),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(wanted.verb.to_string()),
                    version: Some("v1".to_string()),
                    resource: Some("nodes".to_string()),
                    subresource: Some(wanted.subresource.to_string()),
                    name: Some(wanted.node.clone()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let answer = reviews
            .create(&PostParams::default(), &review)
            .await
            .map_err(failed(
                "review a right (needs create on subjectaccessreviews)",
            ))?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }
}
