//! Which of the offered protocols a session is carried by, and the answer that accepts it.

use http::header::{CONNECTION, HeaderName, HeaderValue, UPGRADE};
use http::{HeaderMap, Response, StatusCode};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::remote_command::CommandVersion;

const WEB_SOCKET_KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const WEB_SOCKET_PROTOCOL: HeaderName = HeaderName::from_static("sec-websocket-protocol");
const WEB_SOCKET_ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED_PROTOCOLS: HeaderName =
    HeaderName::from_static("x-accepted-stream-protocol-versions");
const SPDY: &str = "SPDY/3.1";
const PORT_FORWARD: &str = "portforward.k8s.io";
/// SPDY frames in the binary messages of a WebSocket.
const TUNNEL_PORT_FORWARD: [&str; 2] = ["SPDY/3.1+portforward.k8s.io", "v2.portforward.k8s.io"];
/// Channels of ports, which client libraries use.
const CHANNEL_PORT_FORWARD: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];

/// What the connection becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    WebSocket,
    Spdy,
}

/// How a command's streams are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CommandProtocol {
    pub carrier: Carrier,
    pub version: CommandVersion,
}

/// How forwarded connections are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PortForwardProtocol {
    /// SPDY streams on the connection itself.
    Spdy,
    /// SPDY streams inside a WebSocket.
    Tunnel,
    /// Two channels of a WebSocket for each port of the query.
    Channels,
}

/// The headers that accept an upgrade.
#[derive(Debug)]
pub(crate) struct Acceptance {
    headers: HeaderMap,
}

/// Why an upgrade is refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    status: StatusCode,
    message: String,
    accepted: &'static [&'static str],
}

/// The offer of a request.
enum Offer {
    WebSocket { key: String, protocols: Vec<String> },
    Spdy { protocols: Vec<String> },
}

/// Chooses for exec and attach.
pub(crate) fn command(headers: &HeaderMap) -> Result<(CommandProtocol, Acceptance), Refusal> {
    use CommandVersion::{V1, V2, V3, V4, V5};
    const OVER_SPDY: [CommandVersion; 4] = [V4, V3, V2, V1];
    const OVER_WEB_SOCKET: [CommandVersion; 5] = [V5, V4, V3, V2, V1];
    let choose = |versions: &[CommandVersion], protocols: &[String]| {
        let mut offered = protocols.iter();
        let known = |name: &String| versions.iter().find(|one| one.name() == name).copied();
        if protocols.is_empty() {
            Some(V1)
        } else {
            offered.find_map(known)
        }
    };
    match offer(headers)? {
        Offer::Spdy { protocols } => {
            let version = choose(&OVER_SPDY, &protocols).ok_or_else(|| {
                Refusal::no_common(
                    &protocols,
                    &[
                        "v4.channel.k8s.io",
                        "v3.channel.k8s.io",
                        "v2.channel.k8s.io",
                        "channel.k8s.io",
                    ],
                )
            })?;
            let carrier = Carrier::Spdy;
            let name = (!protocols.is_empty()).then(|| version.name());
            Ok((CommandProtocol { carrier, version }, Acceptance::spdy(name)))
        }
        Offer::WebSocket { key, protocols } => {
            // The newest, whatever the order: Python names v4 last, JavaScript v5 first.
            let offered = |one: &&CommandVersion| protocols.iter().any(|name| name == one.name());
            let newest = OVER_WEB_SOCKET.iter().find(offered).copied();
            let version = match newest {
                None if protocols.is_empty() => V1,
                None => {
                    return Err(Refusal::no_common(
                        &protocols,
                        &[
                            "v5.channel.k8s.io",
                            "v4.channel.k8s.io",
                            "v3.channel.k8s.io",
                            "v2.channel.k8s.io",
                            "channel.k8s.io",
                        ],
                    ));
                }
                Some(version) => version,
            };
            let carrier = Carrier::WebSocket;
            let name = (!protocols.is_empty()).then(|| version.name());
            Ok((
                CommandProtocol { carrier, version },
                Acceptance::web_socket(&key, name),
            ))
        }
    }
}

/// Chooses for port-forward.
pub(crate) fn port_forward(
    headers: &HeaderMap,
) -> Result<(PortForwardProtocol, Acceptance), Refusal> {
    match offer(headers)? {
        Offer::Spdy { protocols } => {
            if !protocols.is_empty() && !protocols.iter().any(|name| name == PORT_FORWARD) {
                return Err(Refusal::no_common(&protocols, &[PORT_FORWARD]));
            }
            let name = (!protocols.is_empty()).then_some(PORT_FORWARD);
            Ok((PortForwardProtocol::Spdy, Acceptance::spdy(name)))
        }
        Offer::WebSocket { key, protocols } => {
            let find = |known: [&'static str; 2]| {
                known
                    .into_iter()
                    .find(|one| protocols.iter().any(|name| name == one))
            };
            if let Some(name) = find(TUNNEL_PORT_FORWARD) {
                let acceptance = Acceptance::web_socket(&key, Some(name));
                return Ok((PortForwardProtocol::Tunnel, acceptance));
            }
            let name = find(CHANNEL_PORT_FORWARD);
            if name.is_none() && !protocols.is_empty() {
                return Err(Refusal::no_common(
                    &protocols,
                    &[
                        "SPDY/3.1+portforward.k8s.io",
                        "v5.channel.k8s.io",
                        "v4.channel.k8s.io",
                    ],
                ));
            }
            let acceptance = Acceptance::web_socket(&key, name);
            Ok((PortForwardProtocol::Channels, acceptance))
        }
    }
}

fn offer(headers: &HeaderMap) -> Result<Offer, Refusal> {
    let list = |name: HeaderName| -> Vec<String> {
        let values = headers.get_all(name).into_iter();
        let texts = values.filter_map(|value| value.to_str().ok());
        let names = texts.flat_map(|text| text.split(','));
        let names = names.map(|name| name.trim().to_string());
        names.filter(|name| !name.is_empty()).collect()
    };
    let upgrades = list(UPGRADE);
    let wants = |protocol: &str| {
        upgrades
            .iter()
            .any(|one| one.eq_ignore_ascii_case(protocol))
    };
    if wants("websocket") {
        return match list(WEB_SOCKET_KEY).pop() {
            Some(key) => Ok(Offer::WebSocket {
                key,
                protocols: list(WEB_SOCKET_PROTOCOL),
            }),
            None => Err(Refusal {
                status: StatusCode::BAD_REQUEST,
                message: "header Sec-WebSocket-Key: missing from the upgrade".to_string(),
                accepted: &[],
            }),
        };
    }
    if wants(SPDY) {
        let protocols = list(STREAM_PROTOCOL);
        return Ok(Offer::Spdy { protocols });
    }
    Err(Refusal {
        status: StatusCode::BAD_REQUEST,
        message: "Upgrade request required: header Upgrade names neither websocket nor SPDY/3.1"
            .to_string(),
        accepted: &[],
    })
}

impl Refusal {
    fn no_common(offered: &[String], accepted: &'static [&'static str]) -> Self {
        Self {
            status: StatusCode::FORBIDDEN,
            message: format!(
                "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]",
                offered.join(" "),
                accepted.join(" ")
            ),
            accepted,
        }
    }

    /// The answer with a body of the caller's making.
    pub(crate) fn response<B>(
        self,
        body: impl FnOnce(StatusCode, &str) -> Response<B>,
    ) -> Response<B> {
        let mut response = body(self.status, &self.message);
        for name in self.accepted {
            response
                .headers_mut()
                .append(ACCEPTED_PROTOCOLS, HeaderValue::from_static(name));
        }
        response
    }
}

impl Acceptance {
    fn new(upgrade: &'static str) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static(upgrade));
        Self { headers }
    }

    fn spdy(protocol: Option<&'static str>) -> Self {
        let mut acceptance = Self::new(SPDY);
        if let Some(protocol) = protocol {
            let value = HeaderValue::from_static(protocol);
            acceptance.headers.insert(STREAM_PROTOCOL, value);
        }
        acceptance
    }

    fn web_socket(key: &str, protocol: Option<&'static str>) -> Self {
        let mut acceptance = Self::new("websocket");
        if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
            acceptance.headers.insert(WEB_SOCKET_ACCEPT, accept);
        }
        if let Some(protocol) = protocol {
            let value = HeaderValue::from_static(protocol);
            acceptance.headers.insert(WEB_SOCKET_PROTOCOL, value);
        }
        acceptance
    }

    /// The `101` answer.
    pub(crate) fn response<B: Default>(self) -> Response<B> {
        let mut response = Response::new(B::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *response.headers_mut() = self.headers;
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    const WEB_SOCKET: [(&str, &str); 2] = [("upgrade", "websocket"), ("sec-websocket-key", "AAAA")];

    fn web_socket(protocols: &'static str) -> HeaderMap {
        let mut headers = headers(&WEB_SOCKET);
        headers.append(WEB_SOCKET_PROTOCOL, HeaderValue::from_static(protocols));
        headers
    }

    #[test]
    fn the_newest_common_version_is_chosen_over_a_web_socket() {
        for (offered, version) in [
            ("v4.channel.k8s.io, v5.channel.k8s.io", CommandVersion::V5),
            ("v4.channel.k8s.io", CommandVersion::V4),
            ("base64.channel.k8s.io,channel.k8s.io", CommandVersion::V1),
        ] {
            let (chosen, acceptance) = command(&web_socket(offered)).unwrap();
            assert_eq!(
                (chosen.carrier, chosen.version),
                (Carrier::WebSocket, version)
            );
            assert_eq!(acceptance.headers[WEB_SOCKET_PROTOCOL], version.name());
        }
        let (chosen, acceptance) = command(&headers(&WEB_SOCKET)).unwrap();
        assert_eq!(chosen.version, CommandVersion::V1);
        assert!(!acceptance.headers.contains_key(WEB_SOCKET_PROTOCOL));
    }

    #[test]
    fn spdy_takes_the_clients_first_choice_that_is_known() {
        let offered = headers(&[
            ("upgrade", "SPDY/3.1"),
            ("x-stream-protocol-version", "v9.channel.k8s.io"),
            ("x-stream-protocol-version", "v3.channel.k8s.io"),
            ("x-stream-protocol-version", "v4.channel.k8s.io"),
        ]);
        let (chosen, acceptance) = command(&offered).unwrap();
        assert_eq!(
            (chosen.carrier, chosen.version),
            (Carrier::Spdy, CommandVersion::V3)
        );
        assert_eq!(acceptance.headers[STREAM_PROTOCOL], "v3.channel.k8s.io");
        let (chosen, _) = command(&headers(&[("upgrade", "spdy/3.1")])).unwrap();
        assert_eq!(chosen.version, CommandVersion::V1);
    }

    #[test]
    fn nothing_in_common_is_forbidden_and_names_what_is_accepted() {
        let offered = headers(&[("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", "v9")]);
        let refusal = port_forward(&offered).unwrap_err();
        let response = refusal.response(|status, _| {
            let mut response = Response::new(());
            *response.status_mut() = status;
            response
        });
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        assert_eq!(response.headers()[ACCEPTED_PROTOCOLS], PORT_FORWARD);
        assert!(command(&web_socket("nonsense")).is_err());
        assert_eq!(
            command(&HeaderMap::new()).unwrap_err().status,
            StatusCode::BAD_REQUEST
        );
    }

    #[test]
    fn port_forward_knows_streams_tunnels_and_channels() {
        let spdy = headers(&[
            ("upgrade", "SPDY/3.1"),
            ("x-stream-protocol-version", "portforward.k8s.io"),
        ]);
        let chosen = |headers: &HeaderMap| port_forward(headers).unwrap().0;
        assert_eq!(chosen(&spdy), PortForwardProtocol::Spdy);
        assert_eq!(
            chosen(&web_socket("SPDY/3.1+portforward.k8s.io")),
            PortForwardProtocol::Tunnel
        );
        assert_eq!(
            chosen(&web_socket("v5.channel.k8s.io,v4.channel.k8s.io")),
            PortForwardProtocol::Channels
        );
    }
}
