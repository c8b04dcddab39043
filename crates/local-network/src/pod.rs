//! Attaching one pod: its namespace, its pair of devices, its address and routes. Blocking; each function changes the
//! namespace of the thread it runs on.
//!
//! The alias of the router-side device is written last. It marks the attachment as complete: whatever has none was
//! interrupted half-way and is done again from the start.

use std::{fs::File, io, net::Ipv4Addr, os::fd::AsRawFd};

use rtnetlink::packet_route::address::AddressScope;

use crate::{NetworkError, PodReach, links, names, netlink::NetlinkSocket, netns};

pub(crate) struct Attachment<'a> {
    pub(crate) router: &'a File,
    pub(crate) cluster_id: &'a str,
    pub(crate) name: &'a str,
}

impl Attachment<'_> {
    /// Attaches, or finds the same attachment complete.
    pub(crate) fn attach(&self, ip: Ipv4Addr, reach: PodReach) -> Result<(), NetworkError> {
        let failed = |source| NetworkError::io("attaching", self.name, source);
        netns::enter(self.router).map_err(failed)?;
        let mut router = NetlinkSocket::open().map_err(failed)?;
        if let Some(existing) = self.complete_address(&mut router)? {
            if existing == ip {
                return Ok(());
            }
            return Err(NetworkError::AttachedElsewhere {
                name: self.name.to_owned(),
                existing,
                wanted: ip,
            });
        }
        self.remove(&mut router)?;
        self.build(&mut router, ip, reach).map_err(|error| {
            if let Err(cleanup) = self.remove(&mut router) {
                tracing::warn!(name = self.name, error = %cleanup, "half-made attachment could not be removed");
            }
            match error.raw_os_error() {
                Some(nix::libc::EEXIST) => NetworkError::AddressInUse { name: self.name.to_owned(), address: ip },
                _ => failed(error),
            }
        })
    }

    /// Detaches; nothing there is fine.
    pub(crate) fn detach(&self) -> Result<(), NetworkError> {
        let failed = |source| NetworkError::io("detaching", self.name, source);
        netns::enter(self.router).map_err(failed)?;
        self.remove(&mut NetlinkSocket::open().map_err(failed)?)
    }

    fn namespace(&self) -> String {
        names::pod_namespace(self.cluster_id, self.name)
    }

    /// The attachment's address when it is complete: link, alias and namespace.
    fn complete_address(
        &self,
        router: &mut NetlinkSocket,
    ) -> Result<Option<Ipv4Addr>, NetworkError> {
        let failed = |source| NetworkError::io("looking for the attachment", self.name, source);
        let link = links::find_link(router, &names::router_link(self.name)).map_err(failed)?;
        let Some((name, ip)) = link
            .and_then(|link| link.alias)
            .and_then(|alias| names::parse_alias(&alias))
        else {
            return Ok(None);
        };
        let namespace = netns::open(&self.namespace()).map_err(failed)?;
        Ok((name == self.name && namespace.is_some()).then_some(ip))
    }

    fn remove(&self, router: &mut NetlinkSocket) -> Result<(), NetworkError> {
        let failed = |source| NetworkError::io("removing the attachment", self.name, source);
        if let Some(link) =
            links::find_link(router, &names::router_link(self.name)).map_err(failed)?
        {
            links::remove_link(router, link.index).map_err(failed)?;
        }
        netns::remove(&self.namespace()).map_err(failed)
    }

    fn build(&self, router: &mut NetlinkSocket, ip: Ipv4Addr, reach: PodReach) -> io::Result<()> {
        let namespace = netns::enter_new()?;
        set_pod_parameters()?;
        let mut pod = NetlinkSocket::open()?;

        let router_link = names::router_link(self.name);
        links::add_pair(router, &router_link, ip, namespace.as_raw_fd())?;
        let link = links::find_link(router, &router_link)?.ok_or(io::ErrorKind::NotFound)?;

        links::set_up(&mut pod, links::LOOPBACK_INDEX)?;
        links::set_up(&mut pod, links::POD_LINK_INDEX)?;
        links::add_address(&mut pod, links::POD_LINK_INDEX, ip, AddressScope::Universe)?;
        links::add_neighbour(
            &mut pod,
            links::POD_LINK_INDEX,
            links::GATEWAY_ADDRESS,
            names::ROUTER_HARDWARE_ADDRESS,
        )?;
        links::add_gateway_routes(&mut pod, links::POD_LINK_INDEX)?;
        if reach == PodReach::WithoutServices {
            links::refuse_network(
                &mut pod,
                links::SERVICE_NETWORK,
                links::SERVICE_NETWORK_BITS,
            )?;
        }

        links::add_neighbour(router, link.index, ip, names::pod_hardware_address(ip))?;
        links::add_pod_route(router, link.index, ip)?;
        netns::keep_as(&self.namespace())?;
        links::set_alias(router, link.index, names::alias(self.name, ip))
    }
}

fn set_pod_parameters() -> io::Result<()> {
    // The cluster is IPv4 only; a link-local IPv6 address would only cost duplicate detection and noise.
    netns::set_parameter("ipv6/conf/default/disable_ipv6", "1")?;
    // As the usual container runtimes do: a port below 1024 or a ping needs no capability inside a pod's own namespace.
    netns::set_parameter("ipv4/ip_unprivileged_port_start", "0")?;
    netns::set_parameter("ipv4/ping_group_range", "0 2147483647")
}
