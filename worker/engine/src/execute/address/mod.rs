//! Addresses that a plain URL may reach, so that a row cannot make a worker attack its own network.
//!
//! Public addresses are allowed. Addresses that are not globally reachable (IANA special-purpose
//! registries, RFC 6890) are denied unless `--allow-address` names them.
//!
//! There are two checks. An IP address in the URL is checked when the request is built, because the
//! client does not resolve it. A host name is checked when the client resolves it to connect. The
//! client connects to exactly the checked addresses, so a later change of the name has no effect.
//! Named participants are chosen by the operator and are not checked.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::error::causes;

/// Denied IPv4 networks, with a description. The first match decides.
pub static DENIED_V4: [(Ipv4Net, &str); 18] = [
    (v4([0, 0, 0, 0], 8), "this host"),
    (v4([10, 0, 0, 0], 8), "private"),
    (v4([100, 64, 0, 0], 10), "shared by a carrier's NAT"),
    (v4([127, 0, 0, 0], 8), "loopback"),
    // These addresses are denied first because instance metadata contains credentials.
    (v4([169, 254, 169, 254], 32), "cloud metadata"),
    (v4([168, 63, 129, 16], 32), "cloud metadata"),
    (v4([169, 254, 0, 0], 16), "link-local"),
    (v4([172, 16, 0, 0], 12), "private"),
    (v4([192, 0, 0, 0], 24), "reserved for protocols"),
    (v4([192, 0, 2, 0], 24), "for documentation"),
    (v4([192, 88, 99, 0], 24), "a 6to4 relay"),
    (v4([192, 168, 0, 0], 16), "private"),
    (v4([198, 18, 0, 0], 15), "for benchmarks"),
    (v4([198, 51, 100, 0], 24), "for documentation"),
    (v4([203, 0, 113, 0], 24), "for documentation"),
    (v4([224, 0, 0, 0], 4), "multicast"),
    (v4([255, 255, 255, 255], 32), "broadcast"),
    (v4([240, 0, 0, 0], 4), "reserved"),
];

/// Denied IPv6 networks, with a description. Of all other addresses, [`GLOBAL_V6`] is allowed.
pub static DENIED_V6: [(Ipv6Net, &str); 16] = [
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 128), "this host"),
    (v6([0, 0, 0, 0, 0, 0, 0, 1], 128), "loopback"),
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 96), "IPv4 in IPv6, of a form that is out of use"),
    (v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48), "a network's own NAT64"),
    (v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64), "discarded"),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32), "Teredo, IPv4 in IPv6"),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), "reserved for protocols"),
    (v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), "for documentation"),
    (v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16), "6to4, IPv4 in IPv6"),
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), "for documentation"),
    (v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128), "cloud metadata"),
    (v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128), "cloud metadata"),
    (v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), "private"),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), "link-local"),
    (v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10), "private"),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), "multicast"),
];

/// The IPv6 range for global unicast. All addresses outside it are reserved.
pub const GLOBAL_V6: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);
/// Prefix of IPv6 addresses that a NAT64 gateway translates to IPv4 (RFC 6052).
const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96);

const fn v4(octets: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]), prefix)
}

const fn v6(parts: [u16; 8], prefix: u8) -> Ipv6Net {
    let [a, b, c, d, e, f, g, h] = parts;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix)
}

/// Addresses that plain URLs of this worker may reach.
#[derive(Debug, Clone, Default)]
pub struct Addresses {
    allowed: Arc<[IpNet]>,
}

impl Addresses {
    /// Allows public addresses and the networks in `allowed`.
    pub fn new(allowed: Vec<IpNet>) -> Addresses {
        Addresses { allowed: allowed.into() }
    }

    /// Checks an address before a call.
    ///
    /// # Errors
    /// [`Denied`] contains the reason.
    pub fn check(&self, address: IpAddr) -> Result<(), Denied> {
        match kind(address) {
            Some(kind) if !self.allows(address) => Err(Denied { name: None, address, kind }),
            _ => Ok(()),
        }
    }

    /// Whether `--allow-address` covers the address, or the IPv4 address that it contains.
    fn allows(&self, address: IpAddr) -> bool {
        let inner = match address {
            IpAddr::V6(address) => inner(address).map(IpAddr::V4),
            IpAddr::V4(_) => None,
        };
        self.allowed
            .iter()
            .any(|network| network.contains(&address) || inner.is_some_and(|inner| network.contains(&inner)))
    }
}

/// Returns the description of an address that is not public.
fn kind(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => kind_v4(address),
        IpAddr::V6(address) => match inner(address) {
            Some(address) => kind_v4(address),
            None => DENIED_V6
                .iter()
                .find(|(network, _)| network.contains(&address))
                .map(|(_, kind)| *kind)
                .or((!GLOBAL_V6.contains(&address)).then_some("reserved")),
        },
    }
}

fn kind_v4(address: Ipv4Addr) -> Option<&'static str> {
    DENIED_V4.iter().find(|(network, _)| network.contains(&address)).map(|(_, kind)| *kind)
}

/// Returns the IPv4 address that a connection to this address reaches. The operating system maps
/// `::ffff:0:0/96`; a NAT64 gateway maps its own prefix.
fn inner(address: Ipv6Addr) -> Option<Ipv4Addr> {
    address.to_ipv4_mapped().or_else(|| {
        let [.., a, b, c, d] = address.octets();
        NAT64.contains(&address).then(|| Ipv4Addr::new(a, b, c, d))
    })
}

/// An address that may not be called. The text names the flag that would allow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    name: Option<String>,
    address: IpAddr,
    kind: &'static str,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Denied { name, address, kind } = self;
        match name {
            Some(name) => write!(f, "not called: {name} resolves to {address}, which is {kind}")?,
            None => write!(f, "not called: {address} is {kind}")?,
        }
        write!(f, "; --allow-address {address} would allow it, and so would a named participant")
    }
}

impl std::error::Error for Denied {}

/// DNS resolver of the client, which omits denied addresses.
#[derive(Debug, Clone)]
pub struct Resolver(pub Addresses);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(find(self.0.clone(), name))
    }
}

async fn find(addresses: Addresses, name: Name) -> Result<Addrs, Box<dyn std::error::Error + Send + Sync>> {
    let mut denied = None;
    let mut allowed = Vec::new();
    // Port 0, because the client sets the port.
    for address in tokio::net::lookup_host((name.as_str(), 0)).await? {
        match addresses.check(address.ip()) {
            Ok(()) => allowed.push(address),
            Err(error) => denied = denied.or(Some(error)),
        }
    }
    match denied {
        Some(denied) if allowed.is_empty() => {
            Err(Denied { name: Some(name.as_str().to_owned()), ..denied }.into())
        }
        _ => Ok(Box::new(allowed.into_iter())),
    }
}

/// Returns the denied address that caused an error of the client.
pub fn denied(error: &reqwest::Error) -> Option<&Denied> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

#[cfg(test)]
mod tests;
