//! One small HTTP GET inside the cluster's network, for probes and lifecycle hooks.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::HTTPGetAction;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use local_network::SocketFactory;

/// Asks once; `Err` says why the answer is not a success (200 to 399). HTTPS endpoints are not supported.
pub(crate) async fn get(
    sockets: &SocketFactory,
    address: SocketAddr,
    action: &HTTPGetAction,
) -> Result<(), String> {
    if action
        .scheme
        .as_deref()
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"))
    {
        return Err(
            "probes over HTTPS are not supported by local workers; use scheme HTTP or tcpSocket"
                .to_string(),
        );
    }
    let stream = sockets
        .tcp_connect(address)
        .await
        .map_err(|error| format!("Get \"http://{address}\": {error}"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let mut request = http::Request::builder()
        .uri(
            action
                .path
                .as_deref()
                .filter(|path| path.starts_with('/'))
                .unwrap_or("/"),
        )
        .header("user-agent", "kube-probe/1.34")
        .header("connection", "close");
    let mut has_host = false;
    for header in action.http_headers.iter().flatten() {
        has_host |= header.name.eq_ignore_ascii_case("host");
        request = request.header(&header.name, &header.value);
    }
    if !has_host {
        request = request.header("host", address.to_string());
    }
    let request = request
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let driver = tokio::spawn(connection);
    let answer = sender.send_request(request).await;
    driver.abort();
    let status = answer
        .map_err(|error| format!("Get \"http://{address}\": {error}"))?
        .status();
    if status.is_success() || status.is_redirection() {
        Ok(())
    } else {
        Err(format!(
            "HTTP probe failed with statuscode: {}",
            status.as_u16()
        ))
    }
}

/// A port given as number or by the name of a container port.
pub(crate) fn port_number(
    port: &IntOrString,
    container: &k8s_openapi::api::core::v1::Container,
) -> Option<u16> {
    match port {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|one| one.name.as_ref() == Some(name))
            .and_then(|one| u16::try_from(one.container_port).ok()),
    }
}
