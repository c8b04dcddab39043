//! The least a RAM user must be allowed for the add-on, as a policy, and how it is given.

use cloud_api::model::ram::{
    AttachPolicyToUserRequest, CreatePolicyRequest, CreatePolicyVersionRequest,
};
use cloud_api::{EciClient, EciError};
use serde_json::{Value, json};

use crate::names::ADDON;

/// Actions of container instances that the virtual node uses.
const ECI_ACTIONS: [&str; 10] = [
    "eci:CreateContainerGroup",
    "eci:DeleteContainerGroup",
    "eci:UpdateContainerGroup",
    "eci:DescribeContainerGroups",
    "eci:DescribeContainerGroupStatus",
    "eci:DescribeContainerGroupEvents",
    "eci:DescribeContainerLog",
    "eci:ExecContainerCommand",
    "eci:DescribeContainerGroupMetric",
    "eci:DescribeMultiContainerGroupMetric",
];
const EXISTS: &str = "EntityAlreadyExists.Policy";
const ATTACHED: &str = "EntityAlreadyExists.User.Policy";

/// The policy could not be given.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// Making it.
    #[error("make RAM policy {0}")]
    Policy(String, #[source] EciError),
    /// Giving it to the user.
    #[error("attach RAM policy {policy} to user {user}")]
    Attach {
        /// The policy.
        policy: String,
        /// The user.
        user: String,
        /// Why not.
        #[source]
        source: EciError,
    },
}

/// Name of the add-on's policy.
pub fn policy_name() -> String {
    format!("ack-one-registered-cluster-policy-{ADDON}")
}

/// The policy itself.
pub fn policy() -> Value {
    json!({
        "Version": "1",
        "Statement": [
            {"Effect": "Allow", "Action": ECI_ACTIONS, "Resource": "*"},
            {"Effect": "Allow", "Action": ["vpc:DescribeVSwitches"], "Resource": "*"}
        ]
    })
}

/// Makes the policy, or its next version when it exists, and gives it to `user`. Doing it again changes nothing.
pub async fn grant(ram: &EciClient, user: &str) -> Result<(), GrantError> {
    let name = policy_name();
    let document = policy().to_string();
    let create = CreatePolicyRequest {
        policy_name: name.clone(),
        policy_document: document.clone(),
        description: Some("made by springtide ram-user grant".to_owned()),
    };
    match ram.call(&create).await {
        Ok(_) => {}
        Err(error) if error.code() == EXISTS => {
            let version = CreatePolicyVersionRequest {
                policy_name: name.clone(),
                policy_document: document,
                set_as_default: true,
                rotate_strategy: Some("DeleteOldestNonDefaultVersionWhenLimitExceeded".to_owned()),
            };
            let made = ram.call(&version).await;
            made.map_err(|error| GrantError::Policy(name.clone(), error))?;
        }
        Err(error) => return Err(GrantError::Policy(name, error)),
    }
    let attach = AttachPolicyToUserRequest {
        policy_type: "Custom".to_owned(),
        policy_name: name.clone(),
        user_name: user.to_owned(),
    };
    match ram.call(&attach).await {
        Ok(_) => Ok(()),
        Err(error) if error.code() == ATTACHED => Ok(()),
        Err(source) => Err(GrantError::Attach {
            policy: name,
            user: user.to_owned(),
            source,
        }),
    }
}
