//! Which addresses an upstream may turn out to have.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Which addresses an upstream may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Addresses of the public internet only: whatever its name resolves to, the inside of the
    /// operator's network stays out of reach.
    Public,
    /// Any but metadata services, multicast and the unspecified address: the operator has declared it local.
    Local,
}

impl Reach {
    /// Whether a connection to the address is allowed.
    #[must_use]
    pub fn allows(self, address: IpAddr) -> bool {
        let address = match address {
            IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
            IpAddr::V4(_) => address,
        };
        match (self, address) {
            (_, IpAddr::V4(v4)) if never_v4(v4) => false,
            (_, IpAddr::V6(v6)) if v6.is_unspecified() || v6.is_multicast() || is_link_local(v6) => false,
            (Self::Local, _) => true,
            (Self::Public, IpAddr::V4(v4)) => !is_inside_v4(v4),
            (Self::Public, IpAddr::V6(v6)) => !is_inside_v6(v6),
        }
    }
}

/// Link-local holds the clouds' metadata services.
fn never_v4(address: Ipv4Addr) -> bool {
    address.is_unspecified() || address.is_multicast() || address.is_broadcast() || address.is_link_local()
}

fn is_inside_v4(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    let shared = first == 100 && (64..128).contains(&second);
    let this_network = first == 0;
    let benchmarking = first == 198 && (second == 18 || second == 19);
    address.is_private()
        || address.is_loopback()
        || address.is_documentation()
        || shared
        || this_network
        || benchmarking
        || first >= 240
}

fn is_inside_v6(address: Ipv6Addr) -> bool {
    let unique_local = address.segments()[0] & 0xfe00 == 0xfc00;
    // Addresses that carry an IPv4 address inside: 6to4 and NAT64.
    let carries_v4 = address.segments()[0] == 0x2002 || address.segments()[..2] == [0x64, 0xff9b];
    address.is_loopback() || unique_local || carries_v4
}

fn is_link_local(address: Ipv6Addr) -> bool {
    address.segments()[0] & 0xffc0 == 0xfe80
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(address: &str, public: bool, local: bool) {
        let address: IpAddr = address.parse().unwrap();
        assert_eq!((Reach::Public.allows(address), Reach::Local.allows(address)), (public, local), "{address}");
    }

    #[test]
    fn the_inside_is_out_of_reach_unless_declared() {
        check("8.8.8.8", true, true);
        check("2606:4700::1111", true, true);
        for inside in
            ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "::1", "fd00::1", "::ffff:10.0.0.1"]
        {
            check(inside, false, true);
        }
        for never in [
            "169.254.169.254",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "fe80::1",
            "ff02::1",
            "::",
            "::ffff:169.254.169.254",
        ] {
            check(never, false, false);
        }
    }
}
