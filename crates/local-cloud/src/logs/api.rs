//! Which call a request is: the project in its host, the rest in method, path and parameter `type`.

use super::LogService;
use super::access::Request;
use super::refusal::Refused;
use super::server::Reply;
use crate::gateway::keys::Caller;
use bytes::Bytes;
use cloud_api::encoding::parse_form;
use cloud_api::log::model::{COMPLETE, GetLogsRequest, LogsAnswer};
use http::request::Parts;
use serde_json::{Value, json};
use std::net::IpAddr;

/// The project a host names: its first label, unless the whole is an address, or the endpoint itself.
fn project_of(host: &str, region: &str) -> String {
    let bare = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let label = bare.split('.').next().unwrap_or_default();
    let is_region = label == region
        || label
            .strip_prefix(region)
            .is_some_and(|rest| rest.starts_with('-'));
    let is_address = bare.parse::<IpAddr>().is_ok() || bare.starts_with('[');
    match is_address || is_region || !bare.contains('.') {
        true => String::new(),
        false => label.to_owned(),
    }
}

/// One call: who asks, and about which project.
struct Call<'a> {
    service: &'a LogService,
    caller: Caller,
    project: String,
    request: Request<'a>,
}

impl LogService {
    /// Carries out one request.
    pub(super) async fn call(&self, head: &Parts, body: Bytes) -> Result<Reply, Refused> {
        let query = parse_form(head.uri.query().unwrap_or_default())
            .map_err(|error| Refused::parameter(format!("the query cannot be read: {error}")))?;
        let headers = head.headers.iter().map(|(name, value)| {
            (
                name.as_str().to_owned(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            )
        });
        let request = Request {
            method: head.method.as_str(),
            path: head.uri.path(),
            query,
            headers: headers.collect(),
            body: &body,
        };
        let host = request.header("host").unwrap_or_default();
        if host.is_empty() {
            return Err(Refused::new(400, "InvalidHost", "header Host is missing"));
        }
        let call = Call {
            service: self,
            caller: self.authenticate(&request)?,
            project: project_of(host, &self.shared.config.region),
            request,
        };
        call.carry_out().await
    }
}

impl Call<'_> {
    async fn carry_out(&self) -> Result<Reply, Refused> {
        let path: Vec<&str> = self.request.path.trim_matches('/').split('/').collect();
        match path.as_slice() {
            [""] => self.project_call().await,
            _ if self.project.is_empty() => Err(Refused::new(
                400,
                "InvalidHost",
                "the host must name the project: <project>.<endpoint>",
            )),
            ["logstores"] => self.logstores_call().await,
            ["logstores", name] => self.logstore_call(name).await,
            ["logstores", name, rest @ ..] => self.part_call(name, rest).await,
            _ => Err(self.unknown()),
        }
    }

    fn unknown(&self) -> Refused {
        let message = format!(
            "there is nothing at {} {}",
            self.request.method, self.request.path
        );
        Refused::new(404, "ParameterInvalid", message)
    }

    fn allowed(&self, action: &str) -> Result<(), Refused> {
        let resource = match self.project.as_str() {
            "" => "project/*".to_owned(),
            project => format!("project/{project}"),
        };
        self.service.authorize(&self.caller, action, &resource)
    }

    fn allowed_on(&self, action: &str, logstore: &str) -> Result<(), Refused> {
        let resource = format!("project/{}/logstore/{logstore}", self.project);
        self.service.authorize(&self.caller, action, &resource)
    }

    async fn project_call(&self) -> Result<Reply, Refused> {
        let (service, project, body) = (self.service, self.project.as_str(), self.request.body);
        let parameter = |name: &str| self.request.parameter(name);
        match (self.request.method, project) {
            ("POST", _) => {
                self.allowed("CreateProject")?;
                service.create_project(project, body).await
            }
            ("GET", "") => {
                self.allowed("ListProject")?;
                let part = parameter("projectName").unwrap_or_default();
                service.list_projects(part, parameter("offset"), parameter("size"))
            }
            ("GET", _) => {
                self.allowed("GetProject")?;
                service.get_project(project)
            }
            ("PUT", _) => {
                self.allowed("UpdateProject")?;
                service.update_project(project, body).await
            }
            ("DELETE", _) => {
                self.allowed("DeleteProject")?;
                service.delete_project(project).await
            }
            _ => Err(self.unknown()),
        }
    }

    async fn logstores_call(&self) -> Result<Reply, Refused> {
        let parameter = |name: &str| self.request.parameter(name);
        match self.request.method {
            "GET" => {
                self.allowed_on("ListLogStores", "*")?;
                let part = parameter("logstoreName").unwrap_or_default();
                let (offset, size) = (parameter("offset"), parameter("size"));
                self.service
                    .list_logstores(&self.project, part, offset, size)
            }
            "POST" => {
                self.allowed_on("CreateLogStore", "*")?;
                self.service
                    .create_logstore(&self.project, self.request.body)
                    .await
            }
            _ => Err(self.unknown()),
        }
    }

    async fn logstore_call(&self, name: &str) -> Result<Reply, Refused> {
        let (service, project) = (self.service, self.project.as_str());
        match (self.request.method, self.request.parameter("type")) {
            ("GET", Some("log")) => self.old_logs(name).await,
            ("GET", Some("histogram")) => self.histograms(name).await,
            ("GET", None) => {
                self.allowed_on("GetLogStore", name)?;
                service.get_logstore(project, name)
            }
            ("GET", Some(other)) => Err(Refused::parameter(format!(
                "type must be log or histogram, not {other:?}"
            ))),
            ("POST", _) => self.put_logs(name).await,
            ("PUT", _) => {
                self.allowed_on("UpdateLogStore", name)?;
                service
                    .update_logstore(project, name, self.request.body)
                    .await
            }
            ("DELETE", _) => {
                self.allowed_on("DeleteLogStore", name)?;
                service.delete_logstore(project, name).await
            }
            _ => Err(self.unknown()),
        }
    }

    async fn part_call(&self, name: &str, rest: &[&str]) -> Result<Reply, Refused> {
        let (service, project, body) = (self.service, self.project.as_str(), self.request.body);
        match (self.request.method, rest) {
            ("POST", ["logs"]) => self.new_logs(name).await,
            ("POST", ["shards", "lb" | "route"]) => self.put_logs(name).await,
            ("GET", ["shards"]) => {
                self.allowed_on("ListShards", name)?;
                service.list_shards(project, name)
            }
            ("GET", ["shards", shard]) => {
                self.allowed_on("GetCursorOrData", name)?;
                service.shard(project, name, shard, &self.request).await
            }
            ("GET", ["index"]) => {
                self.allowed_on("GetIndex", name)?;
                service.get_index(project, name)
            }
            ("POST", ["index"]) => {
                self.allowed_on("CreateIndex", name)?;
                service.put_index(project, name, body, true).await
            }
            ("PUT", ["index"]) => {
                self.allowed_on("UpdateIndex", name)?;
                service.put_index(project, name, body, false).await
            }
            ("DELETE", ["index"]) => {
                self.allowed_on("DeleteIndex", name)?;
                service.delete_index(project, name).await
            }
            _ => Err(self.unknown()),
        }
    }

    async fn put_logs(&self, name: &str) -> Result<Reply, Refused> {
        self.allowed_on("PostLogStoreLogs", name)?;
        self.service
            .put_logs(&self.project, name, &self.request)
            .await
    }

    /// The newer form: everything in the body.
    async fn new_logs(&self, name: &str) -> Result<Reply, Refused> {
        self.allowed_on("GetLogStoreLogs", name)?;
        let request: GetLogsRequest =
            serde_json::from_slice(self.request.body).map_err(|error| {
                Refused::new(
                    400,
                    "PostBodyInvalid",
                    format!("the body cannot be read: {error}"),
                )
            })?;
        let answer = self.service.get_logs(&self.project, name, request).await?;
        Ok(Reply::json(&json!(answer)))
    }

    /// The older form: parameters, and a bare array with its facts in headers.
    async fn old_logs(&self, name: &str) -> Result<Reply, Refused> {
        self.allowed_on("GetLogStoreLogs", name)?;
        let text = |name: &str| self.request.parameter(name).unwrap_or_default().to_owned();
        let request = GetLogsRequest {
            from: self.number("from")?.unwrap_or_default(),
            to: self.number("to")?.unwrap_or_default(),
            query: text("query"),
            topic: text("topic"),
            line: self.number("line")?,
            offset: self.number("offset")?,
            reverse: text("reverse").eq_ignore_ascii_case("true"),
            ..GetLogsRequest::default()
        };
        let LogsAnswer { meta, data } = self.service.get_logs(&self.project, name, request).await?;
        Ok(Reply::json(&json!(data))
            .header("x-log-progress", &meta.progress)
            .header("x-log-count", meta.count)
            .header("x-log-processed-rows", meta.processed_rows)
            .header("x-log-elapsed-millisecond", meta.elapsed_millisecond)
            .header("x-log-has-sql", meta.has_sql)
            .header("x-log-where-query", &meta.where_query)
            .header("x-log-agg-query", &meta.agg_query))
    }

    async fn histograms(&self, name: &str) -> Result<Reply, Refused> {
        self.allowed_on("GetLogStoreHistogram", name)?;
        let text = |name: &str| self.request.parameter(name).unwrap_or_default();
        let missing = |name: &str| Refused::parameter(format!("parameter {name} is missing"));
        let from = self.number("from")?.ok_or_else(|| missing("from"))?;
        let to = self.number("to")?.ok_or_else(|| missing("to"))?;
        let asked = self.service.histograms(
            &self.project,
            name,
            text("query"),
            text("topic"),
            (from, to),
        );
        let histograms = asked.await?;
        let incomplete = histograms.iter().find(|one| one.progress != COMPLETE);
        let progress = incomplete.map_or(COMPLETE, |one| one.progress.as_str());
        let count: i64 = histograms.iter().map(|one| one.count).sum();
        Ok(
            Reply::json(&Value::from_iter(histograms.iter().map(|one| json!(one))))
                .header("x-log-progress", progress)
                .header("x-log-count", count),
        )
    }

    fn number(&self, name: &str) -> Result<Option<i64>, Refused> {
        match self.request.parameter(name) {
            None | Some("") => Ok(None),
            Some(text) => text
                .parse()
                .map(Some)
                .map_err(|_| Refused::parameter(format!("{name} must be a number, not {text:?}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_project_is_the_first_label_of_the_host() {
        let of = |host: &str| project_of(host, "cn-hangzhou");
        for host in [
            "chat.127.0.0.1",
            "chat.127.0.0.1:8080",
            "chat.localhost:1",
            "chat.cn-hangzhou.log.aliyuncs.com",
        ] {
            assert_eq!(of(host), "chat", "{host}");
        }
        for host in [
            "127.0.0.1:80",
            "localhost",
            "[::1]:80",
            "cn-hangzhou.log.aliyuncs.com",
            "cn-hangzhou-intranet.log.aliyuncs.com",
        ] {
            assert_eq!(of(host), "", "{host}");
        }
    }
}
