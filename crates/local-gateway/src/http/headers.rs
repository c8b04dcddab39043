//! What a proxy changes in a message's head: fields that concern one connection only go, the client's address is noted.

use std::net::IpAddr;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Uri, Version,
    header::{CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE},
    request,
    uri::PathAndQuery,
};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Makes a client's request fit for the next connection. True when the client asks to leave HTTP (an upgrade).
pub(crate) fn prepare_request(parts: &mut request::Parts, client: IpAddr) -> bool {
    let upgrade = wants_upgrade(&parts.headers);
    let protocol = parts.headers.get(UPGRADE).cloned();
    if parts.uri.authority().is_some() {
        // The absolute form is for the proxy; the endpoint gets the path, and the host where it looks for it.
        let host = parts
            .uri
            .authority()
            .and_then(|host| HeaderValue::from_str(host.as_str()).ok());
        host.and_then(|host| parts.headers.insert(http::header::HOST, host));
        let path = parts
            .uri
            .path_and_query()
            .cloned()
            .unwrap_or(PathAndQuery::from_static("/"));
        parts.uri = Uri::from(path);
    }
    strip(&mut parts.headers);
    parts.headers.remove(PROXY_AUTHORIZATION);
    parts.version = Version::HTTP_11;
    if let Some(protocol) = protocol.filter(|_| upgrade) {
        parts
            .headers
            .insert(CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(UPGRADE, protocol);
    }
    note_client(&mut parts.headers, client);
    upgrade
}

/// Makes an endpoint's answer fit for the client's connection.
pub(crate) fn prepare_answer(headers: &mut HeaderMap, switching: bool) {
    let protocol = headers.get(UPGRADE).cloned().filter(|_| switching);
    strip(headers);
    headers.remove(PROXY_AUTHENTICATE);
    if let Some(protocol) = protocol {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol);
    }
}

/// Requests whose repetition does no harm (RFC 9110, section 9.2.2).
pub(crate) fn is_idempotent(method: &Method) -> bool {
    method.is_safe() || matches!(*method, Method::PUT | Method::DELETE)
}

fn wants_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE)
        && connection_options(headers).any(|option| option.eq_ignore_ascii_case("upgrade"))
}

fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

fn strip(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = connection_options(headers)
            .filter_map(|option| option.parse().ok())
            .collect();
        named
            .into_iter()
            .for_each(|name| drop(headers.remove(name)));
        headers.remove(CONNECTION);
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, TE, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
}

fn note_client(headers: &mut HeaderMap, client: IpAddr) {
    let before: Vec<&str> = headers
        .get_all(FORWARDED_FOR)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    let chain = if before.is_empty() {
        client.to_string()
    } else {
        format!("{}, {client}", before.join(", "))
    };
    if let Ok(chain) = HeaderValue::from_str(&chain) {
        headers.insert(FORWARDED_FOR, chain);
    }
    headers
        .entry(FORWARDED_PROTO)
        .or_insert(HeaderValue::from_static("http"));
    if let Some(host) = headers.get(http::header::HOST).cloned() {
        headers.entry(FORWARDED_HOST).or_insert(host);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn prepared(request: request::Builder) -> (request::Parts, bool) {
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        let upgrade = prepare_request(&mut parts, IpAddr::from([127, 0, 0, 1]));
        (parts, upgrade)
    }

    #[test]
    fn fields_of_one_connection_do_not_pass() {
        let request = Request::get("/x")
            .header("connection", "close, X-Private")
            .header("x-private", "1")
            .header("keep-alive", "timeout=5")
            .header("te", "trailers")
            .header("transfer-encoding", "chunked")
            .header("accept", "*/*");
        let (parts, upgrade) = prepared(request);
        let mut names: Vec<_> = parts.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["accept", "x-forwarded-for", "x-forwarded-proto"]);
        assert!(!upgrade);
    }

    #[test]
    fn the_client_is_added_to_those_before_it() {
        let request = Request::get("/")
            .header("host", "shop")
            .header("x-forwarded-for", "192.0.2.1");
        let (parts, _) = prepared(request.header("x-forwarded-for", "192.0.2.2"));
        assert_eq!(
            parts.headers["x-forwarded-for"],
            "192.0.2.1, 192.0.2.2, 127.0.0.1"
        );
        assert_eq!(parts.headers.get_all("x-forwarded-for").iter().count(), 1);
        assert_eq!(parts.headers["x-forwarded-host"], "shop");
    }

    #[test]
    fn an_upgrade_keeps_its_protocol_and_an_absolute_target_becomes_a_path() {
        let request =
            Request::get("http://shop.example/ws?x=1").header("connection", "keep-alive, Upgrade");
        let (parts, upgrade) = prepared(request.header("upgrade", "websocket"));
        assert!(upgrade);
        assert_eq!(parts.uri, "/ws?x=1");
        assert_eq!(parts.headers["host"], "shop.example");
        assert_eq!(parts.headers["upgrade"], "websocket");
        assert_eq!(parts.headers["connection"], "upgrade");
    }

    #[test]
    fn only_harmless_methods_are_repeated() {
        let repeated: Vec<_> = [
            "GET", "HEAD", "OPTIONS", "PUT", "DELETE", "POST", "PATCH", "CONNECT",
        ]
        .into_iter()
        .filter(|method| is_idempotent(&method.parse().unwrap()))
        .collect();
        assert_eq!(repeated, ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"]);
    }
}
