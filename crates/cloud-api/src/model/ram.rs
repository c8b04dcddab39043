//! The actions of the access service (product `Ram`) that give a user exactly the rights the virtual node needs.

use super::{Action, wire};

/// The version of the access service's interface.
pub const VERSION: &str = "2015-05-01";
/// Where the access service listens; it has one endpoint for all regions.
pub const ENDPOINT: &str = "https://ram.aliyuncs.com";

wire! {
    /// Makes a policy of the account.
    pub struct CreatePolicyRequest {
        /// Its name.
        pub policy_name: String,
        /// The policy's JSON.
        pub policy_document: String,
        /// For people.
        pub description: Option<String>,
    }

    /// Makes a new version of a policy and puts it in force.
    pub struct CreatePolicyVersionRequest {
        /// The policy's name.
        pub policy_name: String,
        /// The policy's JSON.
        pub policy_document: String,
        /// Whether it is in force at once.
        pub set_as_default: bool,
        /// `DeleteOldestNonDefaultVersionWhenLimitExceeded` makes room for it.
        pub rotate_strategy: Option<String>,
    }

    /// Gives a user a policy.
    pub struct AttachPolicyToUserRequest {
        /// `Custom` or `System`.
        pub policy_type: String,
        /// The policy's name.
        pub policy_name: String,
        /// The user's name.
        pub user_name: String,
    }

    /// The answers' part that matters.
    pub struct RamResponse {
        /// Names the call in the service's logs.
        pub request_id: String,
    }
}

macro_rules! ram_action {
    ($request:ident, $name:literal) => {
        impl Action for $request {
            const NAME: &'static str = $name;
            const VERSION: &'static str = VERSION;
            // Names are given by us, so a repetition is told apart by `EntityAlreadyExists`.
            const REPEATABLE: bool = true;
            type Response = RamResponse;
        }
    };
}

ram_action!(CreatePolicyRequest, "CreatePolicy");
ram_action!(CreatePolicyVersionRequest, "CreatePolicyVersion");
ram_action!(AttachPolicyToUserRequest, "AttachPolicyToUser");
