//! From a request line to what is asked for. Pure, so that every odd path is a table row in the tests.

use crate::backend::{AttachRequest, ExecRequest, LogOptions};
use jiff::Timestamp;
use percent_encoding::percent_decode_str;

/// A pod or container named in a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub namespace: String,
    pub pod: String,
    pub container: String,
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Route {
    Health,
    Configuration,
    Pods,
    RunningPods,
    OwnMetrics,
    /// Series of one node only when its name is given.
    ResourceMetrics(Option<String>),
    CadvisorMetrics(Option<String>),
    StatsSummary,
    Logs(Target, LogOptions),
    Exec(Target, ExecRequest),
    Attach(Target, AttachRequest),
    PortForward(Target, Vec<u16>),
}

impl Route {
    /// For counting.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Health => "healthz",
            Self::Configuration => "configz",
            Self::Pods => "pods",
            Self::RunningPods => "runningpods",
            Self::OwnMetrics => "metrics",
            Self::ResourceMetrics(_) => "metrics/resource",
            Self::CadvisorMetrics(_) => "metrics/cadvisor",
            Self::StatsSummary => "stats",
            Self::Logs(..) => "containerLogs",
            Self::Exec(..) => "exec",
            Self::Attach(..) => "attach",
            Self::PortForward(..) => "portForward",
        }
    }
}

/// Parses a path and query. `Err` is the sentence of a 400 or 404 answer.
pub(crate) fn parse(path: &str, query: &str) -> Result<Route, RouteError> {
    let segments: Vec<String> = path
        .split('/')
        .filter(|segment| !segment.is_empty())
        .map(decode)
        .collect();
    let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
    let query = Query::parse(query);
    match parts.as_slice() {
        ["healthz"] => Ok(Route::Health),
        ["configz"] => Ok(Route::Configuration),
        ["pods"] => Ok(Route::Pods),
        ["runningpods"] => Ok(Route::RunningPods),
        ["metrics"] => Ok(Route::OwnMetrics),
        ["metrics", "resource"] => Ok(Route::ResourceMetrics(query.first("nodeName"))),
        ["metrics", "cadvisor"] => Ok(Route::CadvisorMetrics(query.first("nodeName"))),
        ["stats", "summary"] => Ok(Route::StatsSummary),
        ["containerLogs", namespace, pod, container] => Ok(Route::Logs(
            target(namespace, pod, container),
            log_options(&query)?,
        )),
        ["exec", namespace, pod, container] | ["exec", namespace, pod, _, container] => Ok(
            Route::Exec(target(namespace, pod, container), exec_request(&query)?),
        ),
        ["attach", namespace, pod, container] | ["attach", namespace, pod, _, container] => {
            Ok(Route::Attach(
                target(namespace, pod, container),
                AttachRequest {
                    stdin: query.flag(&["stdin", "input"]),
                    stdout: query.flag(&["stdout", "output"]),
                    stderr: query.flag(&["stderr", "error"]),
                    tty: query.flag(&["tty"]),
                },
            ))
        }
        ["portForward", namespace, pod] | ["portForward", namespace, pod, _] => Ok(
            Route::PortForward(target(namespace, pod, ""), ports(&query)?),
        ),
        _ => Err(RouteError::NotFound),
    }
}

/// Why a request line cannot be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RouteError {
    NotFound,
    Bad(String),
}

fn target(namespace: &str, pod: &str, container: &str) -> Target {
    Target {
        namespace: namespace.to_string(),
        pod: pod.to_string(),
        container: container.to_string(),
    }
}

fn exec_request(query: &Query) -> Result<ExecRequest, RouteError> {
    let command = query.all("command");
    if command.is_empty() {
        return Err(RouteError::Bad(
            "parameter command: give at least the program to run".to_string(),
        ));
    }
    Ok(ExecRequest {
        command,
        stdin: query.flag(&["stdin", "input"]),
        stdout: query.flag(&["stdout", "output"]),
        stderr: query.flag(&["stderr", "error"]),
        tty: query.flag(&["tty"]),
    })
}

fn log_options(query: &Query) -> Result<LogOptions, RouteError> {
    let options = LogOptions {
        follow: query.flag(&["follow"]),
        previous: query.flag(&["previous"]),
        timestamps: query.flag(&["timestamps"]),
        tail_lines: query.number("tailLines")?,
        since_seconds: query.number("sinceSeconds")?,
        since_time: query.time("sinceTime")?,
        limit_bytes: query.number("limitBytes")?,
    };
    let bad = |text: &str| Err(RouteError::Bad(text.to_string()));
    match &options {
        LogOptions {
            since_seconds: Some(..1),
            ..
        } => bad("parameter sinceSeconds: must be greater than 0"),
        LogOptions {
            limit_bytes: Some(0),
            ..
        } => bad("parameter limitBytes: must be greater than 0"),
        LogOptions {
            since_seconds: Some(_),
            since_time: Some(_),
            ..
        } => bad("parameters sinceSeconds and sinceTime: at most one of them may be given"),
        _ => Ok(options),
    }
}

fn ports(query: &Query) -> Result<Vec<u16>, RouteError> {
    let mut ports = Vec::new();
    for text in query.all("port").into_iter().chain(query.all("ports")) {
        for one in text.split(',') {
            let port = one.parse::<u16>().ok().filter(|port| *port > 0);
            ports.push(port.ok_or_else(|| {
                RouteError::Bad(format!("parameter ports: {one:?} is not a port number"))
            })?);
        }
    }
    Ok(ports)
}

fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

struct Query(Vec<(String, String)>);

impl Query {
    fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(&value.replace('+', " ")))
        });
        Self(pairs.collect())
    }

    fn first(&self, name: &str) -> Option<String> {
        self.0
            .iter()
            .find(|(key, value)| key == name && !value.is_empty())
            .map(|(_, value)| value.clone())
    }

    fn all(&self, name: &str) -> Vec<String> {
        self.0
            .iter()
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.clone())
            .collect()
    }

    fn flag(&self, names: &[&str]) -> bool {
        self.0
            .iter()
            .any(|(key, value)| names.contains(&key.as_str()) && (value == "true" || value == "1"))
    }

    fn time(&self, name: &str) -> Result<Option<Timestamp>, RouteError> {
        self.first(name)
            .map(|text| {
                text.parse().map_err(|_| {
                    RouteError::Bad(format!(
                        "parameter {name}: {text:?} is not an RFC 3339 time"
                    ))
                })
            })
            .transpose()
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, RouteError> {
        self.first(name)
            .map(|text| {
                text.parse().map_err(|_| {
                    RouteError::Bad(format!("parameter {name}: {text:?} is not a valid number"))
                })
            })
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exec_takes_upstreams_and_the_api_servers_parameter_names() {
        for query in [
            "command=sh&command=-c&command=a%20b&input=1&output=1&tty=1",
            "command=sh&command=-c&command=a+b&stdin=true&stdout=true&tty=true",
        ] {
            let Ok(Route::Exec(target, request)) = parse("/exec/shop/web-1/main", query) else {
                panic!("not an exec: {query}");
            };
            assert_eq!(target, super::target("shop", "web-1", "main"));
            assert_eq!(request.command, ["sh", "-c", "a b"]);
            assert!(request.stdin && request.stdout && request.tty && !request.stderr);
        }
    }

    #[test]
    fn exec_without_a_command_names_the_parameter() {
        assert!(
            matches!(parse("/exec/a/b/c", ""), Err(RouteError::Bad(text)) if text.contains("command"))
        );
    }

    #[test]
    fn logs_read_every_option_and_refuse_text_for_a_number() {
        let route = parse(
            "/containerLogs/a/b/c",
            "follow=true&previous=true&timestamps=true&tailLines=5&limitBytes=7&sinceTime=2026-01-01T08:00:00%2B08:00",
        );
        let Ok(Route::Logs(_, options)) = route else {
            panic!("{route:?}");
        };
        assert_eq!(options.tail_lines, Some(5));
        assert_eq!(options.since_time, "2026-01-01T00:00:00Z".parse().ok());
        assert!(options.follow && options.previous && options.timestamps);
        for (query, named) in [
            ("tailLines=x", "tailLines"),
            ("tailLines=-1", "tailLines"),
            ("sinceSeconds=0", "sinceSeconds"),
            ("limitBytes=0", "limitBytes"),
            ("sinceTime=yesterday", "sinceTime"),
            (
                "sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z",
                "at most one",
            ),
        ] {
            let parsed = parse("/containerLogs/a/b/c", query);
            let named = matches!(&parsed, Err(RouteError::Bad(text)) if text.contains(named));
            assert!(named, "{query}: {parsed:?}");
        }
    }

    #[test]
    fn unknown_paths_are_not_found_and_a_uid_in_the_path_is_skipped() {
        assert_eq!(parse("/run/a/b/c", ""), Err(RouteError::NotFound));
        assert!(
            matches!(parse("/exec/a/b/1234-uid/c", "command=ls"), Ok(Route::Exec(target, _)) if target.container == "c")
        );
    }

    #[test]
    fn port_forward_reads_lists_and_refuses_port_zero() {
        assert_eq!(
            parse("/portForward/a/b", "ports=80&ports=443,90"),
            Ok(Route::PortForward(target("a", "b", ""), vec![80, 443, 90]))
        );
        assert!(matches!(
            parse("/portForward/a/b", "port=0"),
            Err(RouteError::Bad(_))
        ));
    }

    proptest::proptest! {
        #[test]
        fn no_request_panics_and_what_is_understood_needs_a_right(
            path in "(/(exec|run|attach|portForward|containerLogs|metrics|stats|[a-z%0-9/.-]{0,8})){0,6}",
            query in "((command|tty|tailLines|since|sinceTime|previous|follow|[a-z%]{0,4})=[a-zA-Z0-9%+:.-]{0,12}&?){0,5}",
        ) {
            if let Ok(route) = parse(&path, &query) {
                proptest::prop_assert!(!route.kind().is_empty(), "{path}?{query}");
            }
        }
    }
}
