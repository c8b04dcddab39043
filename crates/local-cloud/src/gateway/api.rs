//! One call of the OpenAPI: read, authenticate, find the action, answer.

use super::authenticate::Incoming as Signed;
use super::refusal::Refusal;
use super::{Answer, Gateway, answer};
use crate::actions::{self, Call};
use bytes::Bytes;
use cloud_api::encoding::parse_form;
use cloud_api::model::Answer as ActionAnswer;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use std::time::Duration;

/// Largest form body: room for 20 volumes of files.
const MAX_BODY_BYTES: usize = 8 * 1024 * 1024;
/// The longest wait for it.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

impl Gateway {
    /// `None` when the answer is to be lost.
    pub(super) async fn api(
        &self,
        request: Request<Incoming>,
        request_id: &str,
    ) -> Result<Option<Answer>, Refusal> {
        let (head, body) = request.into_parts();
        let body = read_body(body).await?;
        let query = read_form(head.uri.query().unwrap_or_default())?;
        let mut parameters = query.clone();
        let content_type = head
            .headers
            .get("content-type")
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        if content_type.starts_with("application/x-www-form-urlencoded") {
            let text = std::str::from_utf8(&body).map_err(|_| {
                Refusal::new(400, "InvalidParameter", "The request's body is not UTF-8.")
            })?;
            parameters.extend(read_form(text)?);
        }
        let signed = Signed {
            method: head.method.as_str(),
            path: head.uri.path(),
            query: &query,
            parameters: &parameters,
            headers: &head.headers,
            body: &body,
        };
        self.authenticator.check(&signed, self.shared.now())?;
        let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let named = |header_name: &str, parameter: &str| {
            let value = if signed.is_v3() {
                header(header_name)
            } else {
                signed.parameter(parameter)
            };
            value
                .map(str::to_owned)
                .filter(|value| !value.is_empty())
                .ok_or_else(|| Refusal::missing(parameter))
        };
        let action = named("x-acs-action", "Action")?;
        check_version(&action, &named("x-acs-version", "Version")?)?;
        let host = header("host").unwrap_or_default().to_owned();
        parameters.retain(|(name, _)| !is_common(name));
        let fault = self.shared.faults.next(&action);
        if let Some(refusal) = fault.as_ref().and_then(super::faults::Fault::refusal) {
            return Err(refusal);
        }
        let call = Call {
            shared: &self.shared,
            tickets: &self.tickets,
            parameters: &parameters,
            host,
        };
        let body = dispatch(&action, &call, request_id).await?;
        if fault.is_some() {
            return Ok(None);
        }
        Ok(Some(answer(StatusCode::OK, body)))
    }
}

async fn read_body(body: Incoming) -> Result<Bytes, Refusal> {
    let unreadable = |why: String| {
        Refusal::new(
            400,
            "InvalidParameter",
            format!("The request's body cannot be read: {why}."),
        )
    };
    let read = Limited::new(body, MAX_BODY_BYTES).collect();
    match tokio::time::timeout(BODY_TIMEOUT, read).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) => Err(unreadable(error.to_string())),
        Err(_) => Err(unreadable(format!(
            "it did not arrive within {} s",
            BODY_TIMEOUT.as_secs()
        ))),
    }
}

fn read_form(text: &str) -> Result<Vec<(String, String)>, Refusal> {
    parse_form(text).map_err(|error| {
        Refusal::new(
            400,
            "InvalidParameter",
            format!("The parameters are unreadable: {error}."),
        )
    })
}

/// The network service's one action shares the endpoint and keeps its own version.
fn check_version(action: &str, version: &str) -> Result<(), Refusal> {
    let known = match action {
        "DescribeVSwitches" => cloud_api::model::vpc::VERSION,
        _ => cloud_api::API_VERSION,
    };
    if version == known {
        return Ok(());
    }
    let message = format!("Version {version} is not known; this is {known}.");
    Err(Refusal::new(400, "InvalidVersion", message))
}

/// Parameters that belong to the call, not to the action.
fn is_common(name: &str) -> bool {
    const COMMON: [&str; 15] = [
        "Action",
        "Version",
        "Format",
        "AccessKeyId",
        "Signature",
        "SignatureMethod",
        "SignatureVersion",
        "SignatureNonce",
        "SignatureType",
        "Timestamp",
        "SecurityToken",
        "OwnerId",
        "OwnerAccount",
        "ResourceOwnerId",
        "ResourceOwnerAccount",
    ];
    COMMON.contains(&name)
}

/// Writes an answer down, with the id of its call.
fn reply<T: ActionAnswer>(mut answer: T, request_id: &str) -> Result<Vec<u8>, Refusal> {
    answer.set_request_id(request_id);
    serde_json::to_vec(&answer)
        .map_err(|error| Refusal::internal(format!("The answer cannot be written: {error}.")))
}

async fn dispatch(action: &str, call: &Call<'_>, id: &str) -> Result<Vec<u8>, Refusal> {
    match action {
        "CreateContainerGroup" => reply(actions::create::create(call, call.read()?).await?, id),
        "DescribeContainerGroups" => reply(actions::describe::describe(call, call.read()?)?, id),
        "DescribeContainerGroupStatus" => reply(actions::status::describe(call, call.read()?)?, id),
        "DescribeContainerGroupEvents" => reply(actions::events::describe(call, call.read()?)?, id),
        "DeleteContainerGroup" => reply(actions::manage::delete(call, call.read()?).await?, id),
        "RestartContainerGroup" => reply(actions::manage::restart(call, call.read()?).await?, id),
        "UpdateContainerGroup" => reply(actions::manage::update(call, call.read()?).await?, id),
        "DescribeContainerLog" => reply(actions::inside::log(call, call.read()?).await?, id),
        "ExecContainerCommand" => reply(actions::inside::exec(call, call.read()?).await?, id),
        "DescribeContainerGroupMetric" => {
            reply(actions::metrics::one(call, call.read()?).await?, id)
        }
        "DescribeMultiContainerGroupMetric" => {
            reply(actions::metrics::many(call, call.read()?).await?, id)
        }
        "DescribeContainerGroupPrice" => reply(actions::price::describe(call, call.read()?)?, id),
        "DescribeRegions" => reply(actions::region::regions(call), id),
        "DescribeAvailableResource" => reply(actions::region::available(call, &call.read()?)?, id),
        "ListUsage" => reply(actions::region::usage(call)?, id),
        "DescribeVSwitches" => reply(actions::vpc::v_switches(call, &call.read()?), id),
        "TagResources" => reply(actions::tags::tag(call, call.read()?).await?, id),
        "UntagResources" => reply(actions::tags::untag(call, call.read()?).await?, id),
        "ListTagResources" => reply(actions::tags::list(call, call.read()?)?, id),
        unknown => {
            let message =
                format!("The action {unknown} is not known here, or not in this version.");
            Err(Refusal::new(404, "InvalidAction.NotFound", message))
        }
    }
}
