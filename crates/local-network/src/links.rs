//! The few links, addresses, routes and neighbours a cluster needs, as requests to one namespace.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::RawFd,
};

use rtnetlink::{
    packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::{AddressAttribute, AddressMessage, AddressScope},
        link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
        route::{
            RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
            RouteType,
        },
    },
};

use crate::{names, netlink::NetlinkSocket};

/// Where the API server, the metrics server and webhooks listen inside the cluster; also the source address of
/// connections that the cluster's own parts make to pods.
pub const CONTROL_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 10, 0, 1);
/// Each pod's gateway: the router's side of its link.
pub const GATEWAY_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The network of service addresses. The whole of it is local to the router, so an address nobody listens on refuses
/// at once, and a new service needs no change to the kernel's tables.
pub const SERVICE_NETWORK: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 0);
/// The prefix length of [`SERVICE_NETWORK`].
pub const SERVICE_NETWORK_BITS: u8 = 16;

/// The loopback device's index in every namespace.
pub(crate) const LOOPBACK_INDEX: u32 = 1;
/// The index given to a pod's only link.
pub(crate) const POD_LINK_INDEX: u32 = 2;
pub(crate) const POD_LINK: &str = "eth0";

const ROUTE_TABLE_LOCAL: u8 = 255;
const HOST_BITS: u8 = 32;

pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) alias: Option<String>,
}

/// Creates the pair of linked devices: the router's side here, the pod's side in the namespace behind `pod`.
pub(crate) fn add_pair(
    socket: &mut NetlinkSocket,
    router_link: &str,
    ip: Ipv4Addr,
    pod: RawFd,
) -> io::Result<()> {
    // Not up yet: the kernel refuses to open a side whose other side does not exist.
    let mut peer = LinkMessage::default();
    peer.header.index = POD_LINK_INDEX;
    peer.attributes = vec![
        LinkAttribute::IfName(POD_LINK.to_owned()),
        LinkAttribute::Address(names::pod_hardware_address(ip).to_vec()),
        LinkAttribute::NetNsFd(pod),
    ];
    let mut link = link_up(0);
    link.attributes = vec![
        LinkAttribute::IfName(router_link.to_owned()),
        LinkAttribute::Address(names::ROUTER_HARDWARE_ADDRESS.to_vec()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ];
    socket.change(
        RouteNetlinkMessage::NewLink(link),
        NLM_F_CREATE | NLM_F_EXCL,
    )
}

pub(crate) fn set_up(socket: &mut NetlinkSocket, index: u32) -> io::Result<()> {
    socket.change(RouteNetlinkMessage::SetLink(link_up(index)), 0)
}

pub(crate) fn set_alias(socket: &mut NetlinkSocket, index: u32, alias: String) -> io::Result<()> {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.attributes = vec![LinkAttribute::IfAlias(alias)];
    socket.change(RouteNetlinkMessage::SetLink(link), 0)
}

/// Removes a link, and with it the other side, its routes and neighbours. A link that is gone already is fine.
pub(crate) fn remove_link(socket: &mut NetlinkSocket, index: u32) -> io::Result<()> {
    let mut link = LinkMessage::default();
    link.header.index = index;
    ignoring(
        nix::libc::ENODEV,
        socket.change(RouteNetlinkMessage::DelLink(link), 0),
    )
}

pub(crate) fn find_link(socket: &mut NetlinkSocket, name: &str) -> io::Result<Option<Link>> {
    let mut request = LinkMessage::default();
    request.attributes = vec![LinkAttribute::IfName(name.to_owned())];
    match socket.get(RouteNetlinkMessage::GetLink(request)) {
        Ok(answers) => Ok(answers.into_iter().find_map(into_link)),
        Err(error) if error.raw_os_error() == Some(nix::libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(crate) fn all_links(socket: &mut NetlinkSocket) -> io::Result<Vec<Link>> {
    let answers = socket.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    Ok(answers.into_iter().filter_map(into_link).collect())
}

/// Gives a device one address; having it already is fine.
pub(crate) fn add_address(
    socket: &mut NetlinkSocket,
    index: u32,
    ip: Ipv4Addr,
    scope: AddressScope,
) -> io::Result<()> {
    let message = RouteNetlinkMessage::NewAddress(address(index, ip, scope));
    socket.change(message, NLM_F_CREATE | NLM_F_REPLACE)
}

pub(crate) fn remove_address(
    socket: &mut NetlinkSocket,
    index: u32,
    ip: Ipv4Addr,
) -> io::Result<()> {
    let message = RouteNetlinkMessage::DelAddress(address(index, ip, AddressScope::Universe));
    ignoring(nix::libc::EADDRNOTAVAIL, socket.change(message, 0))
}

/// Makes a whole network local: every address in it can be listened on.
pub(crate) fn add_local_network(
    socket: &mut NetlinkSocket,
    network: Ipv4Addr,
    bits: u8,
) -> io::Result<()> {
    let mut message = route(Some((network, bits)), LOOPBACK_INDEX, RouteScope::Host);
    message.header.table = ROUTE_TABLE_LOCAL;
    message.header.kind = RouteType::Local;
    socket.change(
        RouteNetlinkMessage::NewRoute(message),
        NLM_F_CREATE | NLM_F_REPLACE,
    )
}

/// The router's way to a pod. Fails when another pod has the address.
pub(crate) fn add_pod_route(
    socket: &mut NetlinkSocket,
    index: u32,
    ip: Ipv4Addr,
) -> io::Result<()> {
    let mut message = route(Some((ip, HOST_BITS)), index, RouteScope::Link);
    message
        .attributes
        .push(RouteAttribute::PrefSource(RouteAddress::Inet(
            CONTROL_ADDRESS,
        )));
    socket.change(
        RouteNetlinkMessage::NewRoute(message),
        NLM_F_CREATE | NLM_F_EXCL,
    )
}

/// The pod's way out: the gateway on its link, and everything else behind the gateway.
pub(crate) fn add_gateway_routes(socket: &mut NetlinkSocket, index: u32) -> io::Result<()> {
    let to_gateway = route(Some((GATEWAY_ADDRESS, HOST_BITS)), index, RouteScope::Link);
    socket.change(
        RouteNetlinkMessage::NewRoute(to_gateway),
        NLM_F_CREATE | NLM_F_REPLACE,
    )?;
    let mut default = route(None, index, RouteScope::Universe);
    default
        .attributes
        .push(RouteAttribute::Gateway(RouteAddress::Inet(GATEWAY_ADDRESS)));
    socket.change(
        RouteNetlinkMessage::NewRoute(default),
        NLM_F_CREATE | NLM_F_REPLACE,
    )
}

/// Refuses a network inside this namespace, whatever other routes lead there.
pub(crate) fn refuse_network(
    socket: &mut NetlinkSocket,
    network: Ipv4Addr,
    bits: u8,
) -> io::Result<()> {
    let mut message = route(Some((network, bits)), LOOPBACK_INDEX, RouteScope::Universe);
    message.header.kind = RouteType::Unreachable;
    // The kernel takes no device for a route that leads nowhere.
    message
        .attributes
        .retain(|attribute| !matches!(attribute, RouteAttribute::Oif(_)));
    socket.change(
        RouteNetlinkMessage::NewRoute(message),
        NLM_F_CREATE | NLM_F_REPLACE,
    )
}

/// Fixes the hardware address behind an IP address. Permanent entries need no ARP exchange before the first packet and
/// do not count against the kernel's neighbour table limit, which all namespaces share.
pub(crate) fn add_neighbour(
    socket: &mut NetlinkSocket,
    index: u32,
    ip: Ipv4Addr,
    hardware_address: [u8; 6],
) -> io::Result<()> {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![
        NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)),
        NeighbourAttribute::LinkLayerAddress(hardware_address.to_vec()),
    ];
    socket.change(
        RouteNetlinkMessage::NewNeighbour(message),
        NLM_F_CREATE | NLM_F_REPLACE,
    )
}

fn link_up(index: u32) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    link
}

fn address(index: u32, ip: Ipv4Addr, scope: AddressScope) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = HOST_BITS;
    message.header.index = index;
    message.header.scope = scope;
    message.attributes = vec![
        AddressAttribute::Local(IpAddr::V4(ip)),
        AddressAttribute::Address(IpAddr::V4(ip)),
    ];
    message
}

fn route(destination: Option<(Ipv4Addr, u8)>, index: u32, scope: RouteScope) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = scope;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![RouteAttribute::Oif(index)];
    if let Some((network, bits)) = destination {
        message.header.destination_prefix_length = bits;
        message
            .attributes
            .push(RouteAttribute::Destination(RouteAddress::Inet(network)));
    }
    message
}

fn into_link(answer: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(link) = answer else {
        return None;
    };
    let alias = link
        .attributes
        .into_iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfAlias(alias) => Some(alias),
            _ => None,
        });
    Some(Link {
        index: link.header.index,
        alias,
    })
}

fn ignoring(code: i32, result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(code) => Ok(()),
        other => other,
    }
}
