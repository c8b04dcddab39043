//! One call of the OpenAPI: read, authenticate, find the action, answer.

use super::authenticate::Incoming as Signed;
use super::keys::Caller;
use super::refusal::{AccessDenied, Refusal};
use super::{Answer, Gateway, answer};
use crate::actions::{self, Call};
use crate::ram;
use bytes::Bytes;
use cloud_api::encoding::parse_form;
use cloud_api::model::{
    Action, Answer as ActionAnswer, DescribeContainerGroupsRequest, DescribeContainerGroupsResponse,
};
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
        self.read_call(&head, &body, request_id).await
    }

    /// Who asks for what; then does it.
    pub(super) async fn read_call(
        &self,
        head: &http::request::Parts,
        body: &Bytes,
        request_id: &str,
    ) -> Result<Option<Answer>, Refusal> {
        let query = read_form(head.uri.query().unwrap_or_default())?;
        let mut parameters = query.clone();
        let content_type = head
            .headers
            .get("content-type")
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        if content_type.starts_with("application/x-www-form-urlencoded") {
            let text = std::str::from_utf8(body).map_err(|_| {
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
            body,
        };
        let caller = self.authenticator.check(&signed, &self.shared)?;
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
        self.throttle.take(&action, self.shared.now())?;
        let host = header("host").unwrap_or_default().to_owned();
        parameters.retain(|(name, _)| !is_common(name));
        if let Err(refusal) = self.authorize(&caller, &action, &parameters) {
            // The list of somebody who may see nothing is empty.
            if action == DescribeContainerGroupsRequest::NAME {
                let nothing = DescribeContainerGroupsResponse::default();
                return Ok(Some(answer(StatusCode::OK, reply(nothing, request_id)?)));
            }
            return Err(refusal);
        }
        let call = Call {
            shared: &self.shared,
            tickets: &self.tickets,
            parameters: &parameters,
            host,
        };
        self.carry_out(&action, &call, request_id).await
    }

    /// Does what was asked for, or what a fault makes of it.
    async fn carry_out(
        &self,
        action: &str,
        call: &Call<'_>,
        request_id: &str,
    ) -> Result<Option<Answer>, Refusal> {
        let faults = self.shared.faults_of(action);
        if !faults.delay.is_zero() {
            tokio::select! {
                () = self.shared.shutdown.cancelled() => {}
                () = tokio::time::sleep(faults.delay) => {}
            }
        }
        if let Some(refusal) = faults.refusal {
            return Err(refusal);
        }
        let body = dispatch(action, call, request_id).await?;
        if faults.lose_answer {
            return Ok(None);
        }
        Ok(Some(answer(StatusCode::OK, body)))
    }
}

impl Gateway {
    /// Whether the caller's policies allow this.
    fn authorize(
        &self,
        caller: &Caller,
        action: &str,
        parameters: &[(String, String)],
    ) -> Result<(), Refusal> {
        let Caller::User(user) = caller else {
            return Ok(());
        };
        let parameter = |name: &str| {
            let found = parameters.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| value.clone())
        };
        let resource = ram::resource(&self.shared.config.region, action, parameter);
        let action = ram::qualified(action);
        let state = self.shared.state();
        let record = state.resources.users.get(user);
        if record.is_some_and(|record| ram::allows(&record.policies, &action, &resource)) {
            return Ok(());
        }
        Err(Refusal::forbidden(AccessDenied {
            user: user.clone(),
            action,
            resource,
        }))
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
    use actions::{create, describe, events, inside, manage, metrics, price, region, status, tags};
    match action {
        "CreateContainerGroup" => reply(create::create(call, call.read()?).await?, id),
        "DescribeContainerGroups" => reply(describe::describe(call, call.read()?)?, id),
        "DescribeContainerGroupStatus" => reply(status::describe(call, call.read()?)?, id),
        "DescribeContainerGroupEvents" => reply(events::describe(call, call.read()?)?, id),
        "DeleteContainerGroup" => reply(manage::delete(call, call.read()?).await?, id),
        "DeleteContainerGroups" => reply(manage::delete_many(call, call.read()?).await?, id),
        "RestartContainerGroup" => reply(manage::restart(call, call.read()?).await?, id),
        "UpdateContainerGroup" => reply(manage::update(call, call.read()?).await?, id),
        "ResizeContainerGroupVolume" => reply(manage::resize_volume(call, &call.read()?)?, id),
        "ResizeContainerGroupEphemeralStorage" => {
            reply(manage::resize_storage(call, &call.read()?)?, id)
        }
        "DescribeContainerLog" => reply(inside::log(call, call.read()?).await?, id),
        "ExecContainerCommand" => reply(inside::exec(call, call.read()?).await?, id),
        "DescribeContainerGroupMetric" => reply(metrics::one(call, call.read()?).await?, id),
        "DescribeMultiContainerGroupMetric" => reply(metrics::many(call, call.read()?).await?, id),
        "DescribeContainerGroupPrice" => reply(price::describe(call, call.read()?)?, id),
        "DescribeRegions" => reply(region::regions(call, &call.read()?)?, id),
        "DescribeAvailableResource" => reply(region::available(call, &call.read()?)?, id),
        "ListUsage" => reply(region::usage(call)?, id),
        "TagResources" => reply(tags::tag(call, call.read()?).await?, id),
        "UntagResources" => reply(tags::untag(call, call.read()?).await?, id),
        "ListTagResources" => reply(tags::list(call, call.read()?)?, id),
        other => dispatch_rest(other, call, id).await,
    }
}

/// What is not about groups.
async fn dispatch_rest(action: &str, call: &Call<'_>, id: &str) -> Result<Vec<u8>, Refusal> {
    use actions::{commits, data_caches, image_caches, operations, virtual_nodes};
    match action {
        "CreateImageCache" => reply(image_caches::create(call, call.read()?).await?, id),
        "UpdateImageCache" => reply(image_caches::update(call, call.read()?).await?, id),
        "DescribeImageCaches" => reply(image_caches::describe(call, &call.read()?)?, id),
        "DeleteImageCache" => reply(image_caches::delete(call, call.read()?).await?, id),
        "CreateDataCache" => reply(data_caches::create(call, call.read()?).await?, id),
        "CopyDataCache" => reply(data_caches::copy(call, call.read()?).await?, id),
        "UpdateDataCache" => reply(data_caches::update(call, call.read()?).await?, id),
        "DescribeDataCaches" => reply(data_caches::describe(call, &call.read()?)?, id),
        "DeleteDataCache" => reply(data_caches::delete(call, call.read()?).await?, id),
        "CommitContainer" => reply(commits::create(call, call.read()?).await?, id),
        "DescribeCommitContainerTask" => reply(commits::describe(call, &call.read()?)?, id),
        "CreateInstanceOpsTask" => reply(operations::create(call, call.read()?).await?, id),
        "DescribeInstanceOpsRecords" => reply(operations::describe(call, &call.read()?)?, id),
        "DescribeVSwitches" => reply(actions::vpc::v_switches(call, &call.read()?), id),
        "CreateVirtualNode" => reply(virtual_nodes::create(call, call.read()?).await?, id),
        "UpdateVirtualNode" => reply(virtual_nodes::update(call, call.read()?).await?, id),
        "DescribeVirtualNodes" => reply(virtual_nodes::describe(call, &call.read()?)?, id),
        "DeleteVirtualNode" => reply(virtual_nodes::delete(call, call.read()?).await?, id),
        unknown => {
            let message =
                format!("The action {unknown} is not known here, or not in this version.");
            Err(Refusal::new(404, "InvalidAction.NotFound", message))
        }
    }
}
