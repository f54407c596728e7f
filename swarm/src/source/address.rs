//! Pure: which addresses a connection may be made to.
//!
//! Judged is the address that is really connected to, not the name that led there. What an
//! operator configured as an address literal is trusted before it comes here.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// What kind of place an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressClass {
    /// Anybody's: the internet.
    Global,
    /// RFC 1918, RFC 6598 (carrier-grade NAT) and RFC 4193 (unique local).
    Private,
    Loopback,
    LinkLocal,
    /// The address at which clouds hand out credentials.
    Metadata,
    /// Unspecified, multicast, broadcast, reserved: nothing can be served there.
    Unusable,
}

/// How far connections are trusted to go; each includes the ones before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trust {
    Global,
    Private,
    Loopback,
}

/// AWS answers here over IPv6 (and on 169.254.169.254 like everybody else).
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
const METADATA_V4: [Ipv4Addr; 2] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(100, 100, 100, 200),
];

/// Whether a connection to `address` may be made with `trust`; if not, for what it is.
pub(super) fn judge(address: IpAddr, trust: Trust) -> Result<(), AddressClass> {
    let class = AddressClass::of(address);
    let holds = match class {
        AddressClass::Global => true,
        AddressClass::Private => Trust::Private <= trust,
        AddressClass::Loopback => Trust::Loopback <= trust,
        AddressClass::LinkLocal | AddressClass::Metadata | AddressClass::Unusable => false,
    };
    if holds { Ok(()) } else { Err(class) }
}

// === impl AddressClass ===

impl AddressClass {
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::of_v4(address),
            IpAddr::V6(address) => match embedded(address) {
                Some(inner) => Self::of_v4(inner),
                None => Self::of_v6(address),
            },
        }
    }

    fn of_v4(address: Ipv4Addr) -> Self {
        let [first, second, third, _] = address.octets();
        if METADATA_V4.contains(&address) {
            return Self::Metadata;
        }
        match (first, second, third) {
            (0 | 224..=255, _, _) | (192, 0, 0) => Self::Unusable,
            (127, _, _) => Self::Loopback,
            (169, 254, _) => Self::LinkLocal,
            (10, _, _)
            | (172, 16..=31, _)
            | (192, 168, _)
            | (100, 64..=127, _)
            | (198, 18..=19, _) => Self::Private,
            _ => Self::Global,
        }
    }

    fn of_v6(address: Ipv6Addr) -> Self {
        let first = address.segments()[0];
        if address == METADATA_V6 {
            return Self::Metadata;
        }
        if address.is_loopback() {
            return Self::Loopback;
        }
        match first {
            0xfe80..=0xfebf => Self::LinkLocal,
            // fec0::/10, site local, is deprecated (RFC 3879) and was private.
            0xfc00..=0xfdff | 0xfec0..=0xfeff => Self::Private,
            0xff00..=0xffff | 0x0000 => Self::Unusable,
            _ => Self::Global,
        }
    }
}

impl fmt::Display for AddressClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Global => "a global address",
            Self::Private => "a private address",
            Self::Loopback => "a loopback address",
            Self::LinkLocal => "a link-local address",
            Self::Metadata => "a cloud metadata address",
            Self::Unusable => "an unusable address",
        })
    }
}

/// The IPv4 address that an IPv6 address stands for: mapped and compatible (RFC 4291), NAT64
/// (RFC 6052) and 6to4 (RFC 3056).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    let from = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        Some(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            from(high, low)
        }
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0, high, low] => from(high, low),
        [0x2002, high, low, ..] => from(high, low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::*;

    #[track_caller]
    fn check(addresses: &[&str], expect: AddressClass) {
        for address in addresses {
            assert_eq!(
                AddressClass::of(address.parse().unwrap()),
                expect,
                "{address}"
            );
        }
    }

    #[test]
    fn every_address_has_its_class() {
        check(
            &[
                "1.1.1.1",
                "172.32.0.1",
                "2606:4700::1111",
                "64:ff9b::1.1.1.1",
            ],
            AddressClass::Global,
        );
        check(
            &[
                "10.0.0.1",
                "172.16.0.1",
                "192.168.9.9",
                "100.64.0.1",
                "fc00::1",
                "fdab::1",
            ],
            AddressClass::Private,
        );
        check(
            &["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"],
            AddressClass::Loopback,
        );
        check(
            &["169.254.0.1", "fe80::1", "::ffff:169.254.1.1"],
            AddressClass::LinkLocal,
        );
        check(
            &["169.254.169.254", "fd00:ec2::254", "::ffff:169.254.169.254"],
            AddressClass::Metadata,
        );
        check(
            &[
                "64:ff9b::169.254.169.254",
                "2002:a9fe:a9fe::1",
                "100.100.100.200",
            ],
            AddressClass::Metadata,
        );
        check(
            &[
                "0.0.0.0",
                "::",
                "224.0.0.1",
                "255.255.255.255",
                "ff02::1",
                "0.1.2.3",
            ],
            AddressClass::Unusable,
        );
        check(
            &["::10.0.0.1", "::ffff:10.0.0.1", "2002:a00:1::"],
            AddressClass::Private,
        );
    }

    #[test]
    fn trust_goes_as_far_as_it_says() {
        let judged = |address: &str, trust| judge(address.parse().unwrap(), trust).is_ok();
        assert!(judged("1.1.1.1", Trust::Global));
        assert!(!judged("10.0.0.1", Trust::Global));
        assert!(judged("10.0.0.1", Trust::Private));
        assert!(!judged("127.0.0.1", Trust::Private));
        assert!(judged("127.0.0.1", Trust::Loopback));
        assert!(!judged("169.254.169.254", Trust::Loopback));
        assert!(!judged("fe80::1", Trust::Loopback));
        assert!(!judged("0.0.0.0", Trust::Loopback));
    }

    proptest! {
        #[test]
        fn an_embedded_address_is_judged_as_itself(bits in any::<u32>()) {
            let inner = Ipv4Addr::from_bits(bits);
            let expect = AddressClass::of(IpAddr::V4(inner));
            prop_assert_eq!(AddressClass::of(IpAddr::V6(inner.to_ipv6_mapped())), expect);
            let [high, low] = [(bits >> 16) as u16, bits as u16];
            let sixth = Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1);
            prop_assert_eq!(AddressClass::of(IpAddr::V6(sixth)), expect);
        }
    }
}
