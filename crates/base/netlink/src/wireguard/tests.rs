//! Every byte of the messages, next to the layout of linux/wireguard.h; what the kernel says is read back.

use super::*;
use crate::wire::{self, Writer};

const KEY: PublicKey = PublicKey([7; 32]);

/// Bytes from pieces: `u16` and `u32` in the machine's order, as netlink has them.
macro_rules! bytes {
    ($($piece:expr),* $(,)?) => {{
        let mut all: Vec<u8> = Vec::new();
        $(all.extend_from_slice($piece.as_ref());)*
        all
    }};
}

fn h(value: u16) -> [u8; 2] {
    value.to_ne_bytes()
}

fn w(value: u32) -> [u8; 4] {
    value.to_ne_bytes()
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().expect("range")).collect()
}

fn set(key: PublicKey, endpoint: &str, allowed: Vec<IpNet>) -> PeerChange {
    let endpoint = Some(endpoint.parse().expect("endpoint"));
    PeerChange::Set(PeerSettings { key, endpoint, keepalive: None, allowed })
}

/// The messages that a change makes, without their netlink and generic headers.
fn messages(name: &str, change: &DeviceChange<'_>) -> Vec<Vec<u8>> {
    let parts = write::split(change.peers);
    let written = parts.iter().enumerate().map(|(at, parts)| {
        let mut writer = Writer::default();
        write::device(&mut writer, name, (at == 0).then_some(change), parts);
        assert!(!writer.too_large && 16 + generic::HEADER + writer.bytes.len() <= MESSAGE_BYTES);
        writer.bytes
    });
    written.collect()
}

#[test]
#[rustfmt::skip]
fn a_device_gets_its_key_and_port() {
    let private_key = PrivateKey([9; 32]);
    let change =
        DeviceChange { private_key: Some(&private_key), port: Some(51820), replace_peers: true, ..Default::default() };
    let wanted = bytes![
        h(14), h(2), b"pintle-wg\0", [0; 2], // WGDEVICE_A_IFNAME, padded
        h(36), h(3), [9; 32],                // WGDEVICE_A_PRIVATE_KEY
        h(6), h(6), h(51820), [0; 2],        // WGDEVICE_A_LISTEN_PORT, padded
        h(8), h(5), w(1),                    // WGDEVICE_A_FLAGS: WGDEVICE_F_REPLACE_PEERS
    ];
    assert_eq!(messages("pintle-wg", &change), [wanted]);
}

#[test]
#[rustfmt::skip]
fn a_peer_of_ipv4_with_addresses_of_both_families() {
    let peers = [set(KEY, "192.168.5.2:51820", nets(&["10.42.2.0/24", "fd00:42:0:2::/64"]))];
    let nested = 0x8000;
    let allowed_v4 = bytes![
        h(28), h(nested),
        h(6), h(1), h(2), [0; 2],         // WGALLOWEDIP_A_FAMILY: AF_INET
        h(8), h(2), [10, 42, 2, 0],       // WGALLOWEDIP_A_IPADDR
        h(5), h(3), [24, 0, 0, 0],        // WGALLOWEDIP_A_CIDR_MASK
    ];
    let allowed_v6 = bytes![
        h(40), h(nested),
        h(6), h(1), h(10), [0; 2],        // AF_INET6
        h(20), h(2), [0xfd, 0, 0, 0x42, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0],
        h(5), h(3), [64, 0, 0, 0],
    ];
    let wanted = bytes![
        h(8), h(2), b"wg0\0",
        h(144), h(nested | 8),            // WGDEVICE_A_PEERS
        h(140), h(nested),
        h(36), h(1), [7; 32],             // WGPEER_A_PUBLIC_KEY
        h(8), h(3), w(2),                 // WGPEER_A_FLAGS: WGPEER_F_REPLACE_ALLOWEDIPS
        h(20), h(4), h(2), [0xca, 0x6c], [192, 168, 5, 2], [0; 8], // WGPEER_A_ENDPOINT: struct sockaddr_in
        h(72), h(nested | 9),             // WGPEER_A_ALLOWEDIPS
        allowed_v4,
        allowed_v6,
    ];
    assert_eq!(messages("wg0", &DeviceChange { peers: &peers, ..Default::default() }), [wanted]);
}

#[test]
#[rustfmt::skip]
fn a_peer_of_ipv6_with_keepalive() {
    let endpoint = Some("[fd05::2]:51821".parse().expect("endpoint"));
    let peers = [PeerChange::Set(PeerSettings { key: KEY, endpoint, keepalive: Some(25), allowed: Vec::new() })];
    let wanted = bytes![
        h(8), h(2), b"wg0\0",
        h(92), h(0x8000 | 8),
        h(88), h(0x8000),
        h(36), h(1), [7; 32],
        h(8), h(3), w(2),
        h(32), h(4), h(10), [0xca, 0x6d], [0; 4], // struct sockaddr_in6: family, port, flow
        [0xfd, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2], [0; 4],
        h(6), h(5), h(25), [0; 2],                // WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL
    ];
    assert_eq!(messages("wg0", &DeviceChange { peers: &peers, ..Default::default() }), [wanted]);
}

#[test]
#[rustfmt::skip]
fn a_peer_is_taken_away_by_its_key() {
    let wanted = bytes![
        h(8), h(2), b"wg0\0",
        h(52), h(0x8000 | 8),
        h(48), h(0x8000),
        h(36), h(1), [7; 32],
        h(8), h(3), w(1), // WGPEER_F_REMOVE_ME
    ];
    let peers = [PeerChange::Remove(KEY)];
    assert_eq!(messages("wg0", &DeviceChange { peers: &peers, ..Default::default() }), [wanted]);
}

/// What the kernel would know after these messages: it keeps what parts without flags leave alone.
fn applied(messages: &[Vec<u8>]) -> Device {
    let mut device = Device::default();
    for message in messages {
        let mut part = Device::default();
        read::device(&mut part, message).expect("readable");
        device.name = part.name;
        for peer in part.peers {
            match device.peers.iter_mut().find(|known| known.key == peer.key) {
                Some(known) => known.allowed.extend(peer.allowed),
                None => device.peers.push(peer),
            }
        }
    }
    device
}

#[test]
fn many_peers_go_in_several_messages() {
    let peers: Vec<PeerChange> = (0..100_u8)
        .map(|n| set(PublicKey([n; 32]), "[fd05::2]:51820", nets(&[&format!("10.42.{n}.0/24"), "fd00:42::/64"])))
        .collect();
    let change = DeviceChange { port: Some(1), replace_peers: true, peers: &peers, ..Default::default() };
    let messages = messages("wg0", &change);
    assert!((4..8).contains(&messages.len()), "{}", messages.len());
    for (at, message) in messages.iter().enumerate() {
        let has = |kind| wire::attribute(message, kind).is_some();
        assert_eq!((has(number::DEVICE_FLAGS), has(number::DEVICE_PORT)), (at == 0, at == 0), "message {at}");
    }
    let device = applied(&messages);
    assert_eq!(device.peers.len(), peers.len());
    assert!(device.peers.iter().all(|peer| peer.allowed.len() == 2 && peer.endpoint.is_some()));
}

#[test]
fn the_addresses_of_one_peer_go_in_several_messages() {
    let allowed: Vec<IpNet> = (0..1000_u32).map(|n| IpNet::from(std::net::IpAddr::from(n.to_be_bytes()))).collect();
    let peers = [set(KEY, "10.0.0.1:1", allowed.clone()), PeerChange::Remove(PublicKey([8; 32]))];
    let messages = messages("wg0", &DeviceChange { peers: &peers, ..Default::default() });
    assert!((8..14).contains(&messages.len()), "{}", messages.len());
    for (at, message) in messages.iter().enumerate() {
        let peers = wire::attribute(message, number::DEVICE_PEERS).expect("peers");
        let (_, first) = wire::attributes(peers).next().expect("one");
        // A second flag of replacement would take the addresses of the first message away again.
        assert_eq!(wire::attribute(first, number::PEER_FLAGS).is_some(), at == 0, "message {at}");
        assert_eq!(wire::attribute(first, number::PEER_ENDPOINT).is_some(), at == 0, "message {at}");
    }
    let device = applied(&messages);
    assert_eq!(device.peers.len(), 2);
    assert_eq!(device.peers[0].allowed, allowed);
}

#[test]
#[rustfmt::skip]
fn a_description_in_two_messages_is_read() {
    let first = bytes![
        h(8), h(1), w(5),                           // WGDEVICE_A_IFINDEX
        h(8), h(2), b"wg0\0",
        h(36), h(3), [1; 32],                       // the private key, which is left alone
        h(36), h(4), [2; 32],                       // WGDEVICE_A_PUBLIC_KEY
        h(6), h(6), h(51820), [0; 2],
        h(8), h(7), w(0),                           // WGDEVICE_A_FWMARK
        h(156), h(0x8000 | 8),
        h(152), h(0x8000),
        h(36), h(1), [7; 32],
        h(20), h(6), 1_700_000_000_u64.to_ne_bytes(), 5_u64.to_ne_bytes(), // WGPEER_A_LAST_HANDSHAKE_TIME
        h(6), h(5), h(0), [0; 2],
        h(12), h(8), 200_u64.to_ne_bytes(),         // WGPEER_A_TX_BYTES
        h(12), h(7), 100_u64.to_ne_bytes(),         // WGPEER_A_RX_BYTES
        h(8), h(10), w(1),                          // WGPEER_A_PROTOCOL_VERSION
        h(20), h(4), h(2), [0xca, 0x6c], [192, 168, 5, 2], [0; 8],
        h(32), h(0x8000 | 9),
        h(28), h(0x8000), h(6), h(1), h(2), [0; 2], h(8), h(2), [10, 42, 2, 0], h(5), h(3), [24, 0, 0, 0],
    ];
    let second = bytes![
        h(76), h(0x8000 | 8),
        h(72), h(0x8000),
        h(36), h(1), [7; 32],
        h(32), h(0x8000 | 9),
        h(28), h(0x8000), h(6), h(1), h(2), [0; 2], h(8), h(2), [10, 42, 3, 0], h(5), h(3), [24, 0, 0, 0],
    ];
    let mut device = Device::default();
    for message in [&first, &second] {
        read::device(&mut device, message).expect("readable");
    }
    let peer = Peer {
        key: KEY,
        endpoint: Some("192.168.5.2:51820".parse().expect("endpoint")),
        keepalive: 0,
        last_handshake: Some(Duration::new(1_700_000_000, 5)),
        received_bytes: 100,
        sent_bytes: 200,
        allowed: nets(&["10.42.2.0/24", "10.42.3.0/24"]),
    };
    let wanted =
        Device { index: 5, name: "wg0".into(), key: Some(PublicKey([2; 32])), port: 51820, peers: vec![peer] };
    assert_eq!(device, wanted);
    // Whatever is cut off, nothing is read beyond the end.
    for end in 0..first.len() {
        let _either = read::device(&mut Device::default(), &first[..end]);
    }
}

#[test]
fn wrong_lengths_of_what_a_peer_has_are_noticed() {
    for attribute in [
        bytes![h(35), h(1), [7; 31], [0]],
        bytes![h(36), h(1), [7; 32], h(8), h(4), h(2), h(1)],
        bytes![h(36), h(1), [7; 32], h(12), h(6), [1; 8]],
        bytes![h(36), h(1), [7; 32], h(8), h(8), w(1)],
    ] {
        let length = u16::try_from(attribute.len()).expect("short");
        let message = bytes![h(length + 8), h(0x8000 | 8), h(length + 4), h(0x8000), attribute];
        assert_eq!(read::device(&mut Device::default(), &message), None, "{message:?}");
    }
}

#[test]
fn keys_are_texts_as_wg_has_them() {
    let text = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";
    let key: PublicKey = text.parse().expect("a key");
    assert_eq!((key.to_string().as_str(), key.0[..2].to_vec()), (text, vec![0x1c, 0x88]));
    for bad in ["", "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8yk==", "no key", &format!("{text}{text}")] {
        assert_eq!(bad.parse::<PublicKey>(), Err(BadKey), "{bad}");
    }
    assert!(!format!("{:?}", PrivateKey([9; 32])).contains('9'), "a private key is never shown");
}
