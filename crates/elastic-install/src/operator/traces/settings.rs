//! OpenTelemetry's own variables, as far as they are followed; what is set and cannot be followed is refused by name.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Uri};
use percent_encoding::percent_decode_str;

use super::super::settings::Texts;

const SERVICE: &str = "springtide";
const TRACES_PATH: &str = "/v1/traces";

/// Where traces go.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) endpoint: Uri,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// What every span is from.
    pub(super) resource: Vec<(String, String)>,
}

/// None when no collector is named or exporting is switched off; an error names the variable and never shows a header.
pub(super) fn read(environment: &Texts, instance: &str) -> Result<Option<Settings>, String> {
    // An empty variable counts as unset, says the specification.
    let get = |name: &str| {
        let value = environment.get(name).map(|value| value.trim());
        value.filter(|value| !value.is_empty())
    };
    let is = |name, wanted| get(name).is_some_and(|value| value.eq_ignore_ascii_case(wanted));
    if is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
        return Ok(None);
    }
    let own = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", ""];
    let general = ["OTEL_EXPORTER_OTLP_ENDPOINT", TRACES_PATH];
    let named = [own, general]
        .into_iter()
        .find_map(|[name, path]| Some((name, get(name)?, path)));
    let Some((name, value, path)) = named else {
        return Ok(None);
    };
    let endpoint = endpoint(value, path)
        .ok_or_else(|| format!("{name} is not a URL such as http://collector:4318"))?;
    let either = |names: [&'static str; 2]| names.into_iter().find_map(|n| Some((n, get(n)?)));
    let protocol = either([
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        "OTEL_EXPORTER_OTLP_PROTOCOL",
    ]);
    if let Some((name, value)) = protocol.filter(|(_, value)| !value.starts_with("http/")) {
        return Err(format!(
            "{name} is {value:?}, but traces go by http/json only; give it that value and the endpoint the \
             collector's port for HTTP, commonly 4318"
        ));
    }
    let headers = either([
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
        "OTEL_EXPORTER_OTLP_HEADERS",
    ]);
    let headers = headers.map_or(Ok(Vec::new()), |(name, value)| headers_of(name, value))?;
    let attributes = get("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    let mut resource = pairs("OTEL_RESOURCE_ATTRIBUTES", attributes)?;
    if let Some(service) = get("OTEL_SERVICE_NAME") {
        resource.retain(|(key, _)| key != "service.name");
        resource.push(("service.name".to_owned(), service.to_owned()));
    }
    for (key, value) in [
        ("service.name", SERVICE),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", instance),
    ] {
        if !resource.iter().any(|(known, _)| known == key) {
            resource.push((key.to_owned(), value.to_owned()));
        }
    }
    Ok(Some(Settings {
        endpoint,
        headers,
        resource,
    }))
}

fn endpoint(value: &str, path: &str) -> Option<Uri> {
    let value = match path {
        "" => value.to_owned(),
        path => value.trim_end_matches('/').to_owned() + path,
    };
    let uri = Uri::from_maybe_shared(Bytes::from(value)).ok()?;
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    let has_host = uri.host().is_some_and(|host| !host.is_empty());
    (is_http && has_host).then_some(uri)
}

fn headers_of(name: &str, value: &str) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let header = |(key, value): (String, String)| {
        let key = HeaderName::try_from(key).ok()?;
        let mut value = HeaderValue::try_from(value).ok()?;
        value.set_sensitive(true);
        Some((key, value))
    };
    let headers = pairs(name, value)?.into_iter().map(header);
    headers
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| format!("{name} holds something that is no HTTP header"))
}

/// `key=value,…`, values percent-encoded where they must be.
fn pairs(name: &str, text: &str) -> Result<Vec<(String, String)>, String> {
    let pair = |text: &str| {
        let (key, value) = text.split_once('=')?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        Some((key.trim().to_owned(), value.into_owned()))
    };
    let texts = text.split(',').filter(|text| !text.trim().is_empty());
    texts
        .map(pair)
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| format!("{name} is not key=value, several of them with commas"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_from(variables: &[(&str, &str)]) -> Result<Option<Settings>, String> {
        let texts = variables.iter();
        let texts = texts.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        read(&texts.collect(), "replica-1")
    }

    fn url(variables: &[(&str, &str)]) -> String {
        read_from(variables).unwrap().unwrap().endpoint.to_string()
    }

    const AT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");

    #[test]
    fn without_an_endpoint_or_switched_off_nothing_is_exported() {
        for variables in [
            &[][..],
            &[
                ("OTEL_SERVICE_NAME", "x"),
                ("OTEL_EXPORTER_OTLP_HEADERS", "a=b"),
            ],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")],
            &[AT, ("OTEL_SDK_DISABLED", "True")],
            &[AT, ("OTEL_TRACES_EXPORTER", "none")],
        ] {
            assert!(read_from(variables).unwrap().is_none(), "{variables:?}");
        }
    }

    #[test]
    fn the_general_endpoint_gets_the_path_and_the_own_one_is_taken_as_it_is() {
        assert_eq!(url(&[AT]), "http://collector:4318/v1/traces");
        let below = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c/otlp/");
        assert_eq!(url(&[below]), "https://c/otlp/v1/traces");
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t:1/in");
        assert_eq!(url(&[AT, own]), "http://t:1/in");
    }

    #[test]
    fn headers_are_decoded_and_the_service_has_a_name() {
        let headers = (
            "OTEL_EXPORTER_OTLP_HEADERS",
            "authorization=Bearer%20abc, x-team = shop",
        );
        let attributes = (
            "OTEL_RESOURCE_ATTRIBUTES",
            "k8s.cluster.name=c-1,service.name=other",
        );
        let settings = read_from(&[AT, headers, attributes]).unwrap().unwrap();
        let found = settings.headers.iter();
        let found: Vec<_> = found
            .map(|(k, v)| (k.as_str(), v.to_str().unwrap()))
            .collect();
        assert_eq!(found, [("authorization", "Bearer abc"), ("x-team", "shop")]);
        let value = |settings: &Settings, key: &str| {
            let found = settings.resource.iter().find(|(known, _)| known == key);
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        assert_eq!(value(&settings, "service.name"), "other");
        assert_eq!(value(&settings, "k8s.cluster.name"), "c-1");
        assert_eq!(value(&settings, "service.instance.id"), "replica-1");
        let name = ("OTEL_SERVICE_NAME", "mine");
        let named = read_from(&[AT, attributes, name]).unwrap().unwrap();
        assert_eq!(value(&named, "service.name"), "mine");
        let plain = read_from(&[AT]).unwrap().unwrap();
        assert_eq!(value(&plain, "service.name"), "springtide");
    }

    #[test]
    fn what_cannot_be_followed_is_refused_by_its_name_and_without_secrets() {
        let refused = |variables: &[(&str, &str)]| read_from(variables).unwrap_err();
        for bad in ["collector:4318", "ftp://c", "/v1/traces", "http://"] {
            let told = refused(&[("OTEL_EXPORTER_OTLP_ENDPOINT", bad)]);
            assert!(
                told.starts_with("OTEL_EXPORTER_OTLP_ENDPOINT is not"),
                "{bad}: {told}"
            );
        }
        let told = refused(&[AT, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]);
        assert!(told.contains("4318"), "{told}");
        for bad in ["Bearer secret", "bad key=secret", "a=%0asecret"] {
            let told = refused(&[AT, ("OTEL_EXPORTER_OTLP_HEADERS", bad)]);
            assert!(told.starts_with("OTEL_EXPORTER_OTLP_HEADERS"), "{told}");
            assert!(!told.contains("secret"), "{told}");
        }
    }
}
