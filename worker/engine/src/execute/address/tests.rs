use proptest::prelude::*;
use reqwest::Url;
use url::Host;

use super::*;

/// Returns the reason for a denial before connecting. Host names are checked later, when they
/// resolve.
fn before_connecting(addresses: &Addresses, url: &str) -> Option<String> {
    let url = Url::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
    let address = match url.host().unwrap() {
        Host::Ipv4(address) => IpAddr::V4(address),
        Host::Ipv6(address) => IpAddr::V6(address),
        Host::Domain(_) => return None,
    };
    addresses.check(address).err().map(|denied| denied.kind.to_owned())
}

/// Spellings that are known to have bypassed similar deny lists.
#[test]
fn no_spelling_of_an_internal_address_passes() {
    let nowhere = Addresses::default();
    for (url, kind) in [
        // Loopback in every spelling that a URL parser accepts.
        ("http://127.0.0.1/", "loopback"),
        ("http://127.0.0.1:8080/x?y", "loopback"),
        ("http://127.1/", "loopback"),
        ("http://127.0.1/", "loopback"),
        ("http://127.255.255.254/", "loopback"),
        ("http://2130706433/", "loopback"),
        ("http://017700000001/", "loopback"),
        ("http://0177.0.0.1/", "loopback"),
        ("http://0177.0.0.01/", "loopback"),
        ("http://0x7f000001/", "loopback"),
        ("http://0x7f.0.0.1/", "loopback"),
        ("http://0X7F.1/", "loopback"),
        ("http://0x7f.0x0.0x0.0x1/", "loopback"),
        ("http://127.0.0.1./", "loopback"),
        ("http://%31%32%37.0.0.1/", "loopback"),
        ("http://１２７.０.０.１/", "loopback"),
        ("http://①②⑦.⓪.⓪.①/", "loopback"),
        ("http://127。0。0。1/", "loopback"),
        ("http://user:password@127.0.0.1/", "loopback"),
        ("http://public.example@127.0.0.1/", "loopback"),
        ("http://127.0.0.1\\@public.example/", "loopback"),
        ("http:\\\\127.0.0.1\\", "loopback"),
        ("http:127.0.0.1", "loopback"),
        ("http://[::1]/", "loopback"),
        ("http://[0:0:0:0:0:0:0:1]/", "loopback"),
        ("http://[0000::0001]:80/", "loopback"),
        // This host.
        ("http://0/", "this host"),
        ("http://0.0.0.0/", "this host"),
        ("http://0.1.2.3/", "this host"),
        ("http://0x0/", "this host"),
        ("http://[::]/", "this host"),
        // Private, shared, link-local and metadata addresses.
        ("http://10.0.0.1/", "private"),
        ("http://10.255.255.255/", "private"),
        ("http://167772161/", "private"),
        ("http://012.1/", "private"),
        ("http://172.16.0.1/", "private"),
        ("http://172.31.255.255/", "private"),
        ("http://192.168.0.1/", "private"),
        ("http://0xc0a80001/", "private"),
        ("http://100.64.0.1/", "shared by a carrier's NAT"),
        ("http://100.127.255.255/", "shared by a carrier's NAT"),
        ("http://100.100.100.200/latest/meta-data/", "shared by a carrier's NAT"),
        ("http://169.254.169.254/latest/meta-data/", "cloud metadata"),
        ("http://2852039166/", "cloud metadata"),
        ("http://0xa9fea9fe/", "cloud metadata"),
        ("http://0xa9.0xfe.0xa9.0xfe/", "cloud metadata"),
        ("http://0251.0376.0251.0376/", "cloud metadata"),
        ("http://169.254.43518/", "cloud metadata"),
        ("http://168.63.129.16/", "cloud metadata"),
        ("http://[fd00:ec2::254]/", "cloud metadata"),
        ("http://[fd20:ce::254]/", "cloud metadata"),
        ("http://169.254.170.2/", "link-local"),
        ("http://[fe80::1]/", "link-local"),
        ("http://[febf::1]/", "link-local"),
        ("http://[fc00::1]/", "private"),
        ("http://[fd12:3456:789a::1]/", "private"),
        ("http://[fec0::1]/", "private"),
        // Addresses that belong to no single host.
        ("http://224.0.0.1/", "multicast"),
        ("http://239.255.255.255/", "multicast"),
        ("http://[ff02::1]/", "multicast"),
        ("http://255.255.255.255/", "broadcast"),
        ("http://4294967295/", "broadcast"),
        ("http://240.0.0.1/", "reserved"),
        ("http://[4000::1]/", "reserved"),
        ("http://[5f00::1]/", "reserved"),
        ("http://[100::1]/", "discarded"),
        ("http://192.0.0.192/", "reserved for protocols"),
        ("http://192.0.2.1/", "for documentation"),
        ("http://198.51.100.1/", "for documentation"),
        ("http://203.0.113.1/", "for documentation"),
        ("http://[2001:db8::1]/", "for documentation"),
        ("http://[3fff::1]/", "for documentation"),
        ("http://198.18.0.1/", "for benchmarks"),
        ("http://198.19.255.255/", "for benchmarks"),
        ("http://192.88.99.1/", "a 6to4 relay"),
        ("http://[2001:2::1]/", "reserved for protocols"),
        // IPv4 in IPv6.
        ("http://[::ffff:127.0.0.1]/", "loopback"),
        ("http://[::ffff:7f00:1]/", "loopback"),
        ("http://[0:0:0:0:0:ffff:7f00:1]/", "loopback"),
        ("http://[::FFFF:a9fe:a9fe]/", "cloud metadata"),
        ("http://[::ffff:10.0.0.1]/", "private"),
        ("http://[::ffff:0:0]/", "this host"),
        ("http://[::127.0.0.1]/", "IPv4 in IPv6, of a form that is out of use"),
        ("http://[::7f00:1]/", "IPv4 in IPv6, of a form that is out of use"),
        ("http://[::2]/", "IPv4 in IPv6, of a form that is out of use"),
        ("http://[::ffff:0:127.0.0.1]/", "reserved"),
        ("http://[64:ff9b::127.0.0.1]/", "loopback"),
        ("http://[64:ff9b::a9fe:a9fe]/", "cloud metadata"),
        ("http://[64:ff9b::10.1.2.3]/", "private"),
        ("http://[64:ff9b:1::10.1.2.3]/", "a network's own NAT64"),
        ("http://[64:ff9b:1::8.8.8.8]/", "a network's own NAT64"),
        ("http://[2002:7f00:1::]/", "6to4, IPv4 in IPv6"),
        ("http://[2002:a9fe:a9fe::]/", "6to4, IPv4 in IPv6"),
        ("http://[2001:0:7f00:1::]/", "Teredo, IPv4 in IPv6"),
        ("http://[2001:0:4136:e378:8000:63bf:80ff:fffe]/", "Teredo, IPv4 in IPv6"),
    ] {
        assert_eq!(before_connecting(&nowhere, url).as_deref(), Some(kind), "{url}");
        let https = url.replacen("http:", "https:", 1);
        assert_eq!(before_connecting(&nowhere, &https).as_deref(), Some(kind), "{https}");
    }
}

#[test]
fn public_addresses_and_names_pass() {
    for url in [
        "http://1.1.1.1/",
        "http://8.8.8.8:8080/x",
        "https://9.255.255.255/",
        "https://11.0.0.0/",
        "http://100.63.255.255/",
        "http://100.128.0.0/",
        "http://126.255.255.255/",
        "http://128.0.0.1/",
        "http://168.63.129.15/",
        "http://169.253.255.255/",
        "http://169.255.0.0/",
        "http://172.15.255.255/",
        "http://172.32.0.0/",
        "http://192.0.1.0/",
        "http://192.167.255.255/",
        "http://192.169.0.0/",
        "http://198.17.255.255/",
        "http://198.20.0.0/",
        "http://223.255.255.255/",
        "http://[2606:4700:4700::1111]/",
        "http://[2a00:1450::1]/",
        "http://[2001:200::1]/",
        "http://[::ffff:8.8.8.8]/",
        "http://[64:ff9b::8.8.8.8]/",
        // Host names are checked by the resolver.
        "https://pay.example/charge",
        "http://localhost/",
        "http://127.0.0.1.nip.example/",
    ] {
        assert_eq!(before_connecting(&Addresses::default(), url), None, "{url}");
    }
}

#[test]
fn what_is_named_is_allowed_again_and_nothing_else() {
    let allowed = ["127.0.0.0/8", "10.1.2.3/32", "fd00::/8", "2002:7f00::/32"];
    let some = Addresses::new(allowed.iter().map(|network| network.parse().unwrap()).collect());
    for url in [
        "http://127.0.0.1/",
        "http://2130706433/",
        "http://[::ffff:127.0.0.1]/",
        "http://[64:ff9b::10.1.2.3]/",
        "http://10.1.2.3/",
        "http://[fd00:ec2::254]/",
        "http://[2002:7f00:1::]/",
        "http://8.8.8.8/",
    ] {
        assert_eq!(before_connecting(&some, url), None, "{url}");
    }
    for url in [
        "http://10.1.2.4/",
        "http://[::1]/",
        "http://[::127.0.0.1]/",
        "http://[fc00::1]/",
        "http://[2002:a00:1::]/",
        "http://169.254.169.254/",
    ] {
        assert!(before_connecting(&some, url).is_some(), "{url}");
    }
}

#[test]
fn a_denied_call_says_what_was_found_and_which_flag_would_allow_it() {
    let denied = Addresses::default().check("10.1.2.3".parse().unwrap()).unwrap_err();
    assert_eq!(
        denied.to_string(),
        "not called: 10.1.2.3 is private; --allow-address 10.1.2.3 would allow it, and so would a named participant"
    );
    let named = Denied { name: Some("db.internal".to_owned()), ..denied };
    assert_eq!(
        named.to_string(),
        "not called: db.internal resolves to 10.1.2.3, which is private; --allow-address 10.1.2.3 would allow it, and so would a named participant"
    );
}

#[tokio::test]
async fn a_name_that_resolves_to_internal_addresses_alone_is_denied_and_an_allowed_one_is_found() {
    let resolve = async |allowed: &[&str], name: &str| {
        let allowed = allowed.iter().map(|network| network.parse().unwrap()).collect();
        let resolver = Resolver(Addresses::new(allowed));
        let found = resolver.resolve(name.parse().unwrap()).await;
        found.map(|found| found.map(|address| address.ip()).collect::<Vec<_>>())
    };
    // A host name that a resolver parses as an address is also checked.
    for name in ["localhost", "127.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254"] {
        let error = resolve(&["192.0.2.1/32"], name).await.unwrap_err();
        let denied = error.downcast_ref::<Denied>().unwrap_or_else(|| panic!("{name}: {error}"));
        assert_eq!(denied.name.as_deref(), Some(name));
    }
    let found = resolve(&["127.0.0.0/8", "::1/128"], "localhost").await.unwrap();
    assert!(!found.is_empty() && found.iter().all(IpAddr::is_loopback), "{found:?}");
    // If one of the addresses is allowed, only that address is called.
    let found = resolve(&["127.0.0.0/8"], "localhost").await.unwrap();
    assert!(!found.is_empty() && found.iter().all(IpAddr::is_ipv4), "{found:?}");
    assert!(resolve(&[], "8.8.8.8").await.is_ok());
}

/// The client wraps the resolver's error in its own error and in that of its connector.
#[tokio::test]
async fn a_denied_name_is_found_in_the_clients_error() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client =
        reqwest::Client::builder().dns_resolver(Resolver(Addresses::default())).no_proxy().build().unwrap();
    for url in ["http://localhost:9/", "https://localhost:9/"] {
        let error = client.get(url).send().await.unwrap_err();
        assert!(error.is_connect(), "it was not sent: {error:?}");
        assert_eq!(denied(&error).map(|denied| denied.kind), Some("loopback"), "{error:?}");
    }
    let error = client.get("http://127.0.0.1:1/").send().await.unwrap_err();
    assert_eq!(denied(&error), None, "the client asks nobody about an address: it is looked at before");
}

/// The ranges as the standard library defines them.
fn is_special(address: Ipv4Addr) -> bool {
    let [a, b, ..] = address.octets();
    address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_broadcast()
        || address.is_documentation()
        || address.is_multicast()
        || address.is_unspecified()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 198 && (18..20).contains(&b))
}

proptest! {
    #[test]
    fn every_special_address_is_denied_in_every_form(octets in prop_oneof![
        any::<[u8; 4]>(),
        (prop::sample::select(vec![0_u8, 10, 100, 127, 169, 172, 192, 198, 203, 224, 240, 255]), any::<[u8; 3]>())
            .prop_map(|(a, [b, c, d])| [a, b, c, d]),
    ]) {
        let nowhere = Addresses::default();
        let address = Ipv4Addr::from(octets);
        let denied = nowhere.check(IpAddr::V4(address)).is_err();
        prop_assert!(denied || !is_special(address), "{address}");
        let number = u32::from(address);
        for host in [
            number.to_string(),
            format!("{number:#x}"),
            format!("0{number:o}"),
            format!("{}.{}", octets[0], number & 0x00ff_ffff),
            format!("{:#x}.{:#o}.{}", octets[0], octets[1], number & 0xffff).replace("0o", "0"),
            format!("[::ffff:{address}]"),
            format!("[64:ff9b::{address}]"),
        ] {
            let url = format!("http://{host}/");
            prop_assert_eq!(before_connecting(&nowhere, &url).is_some(), denied, "{}", url);
        }
    }
}
