//! Connects sandboxes by the distribution's CNI plugins, in network namespaces of their own.

use pintle_network::{Bandwidth, CniConfig, CniNetwork, CniSandbox, Error, HostPort, Protocol};
use pintle_test_netns::Space;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

const PLUGINS: &str = "/usr/lib/cni";

fn network(folder: &Path, list: &str) -> CniNetwork {
    let configurations = folder.join("net.d");
    std::fs::create_dir_all(&configurations).expect("a folder");
    if !list.is_empty() {
        std::fs::write(configurations.join("10-test.conflist"), list.replace("FOLDER", &folder.to_string_lossy()))
            .expect("written");
    }
    let config = CniConfig { configurations, plugins: vec![PLUGINS.into()], state_dir: folder.join("state") };
    CniNetwork::open(config).expect("open")
}

const LIST: &str = r#"{"cniVersion": "1.0.0", "name": "test", "plugins": [
    {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
     "ipam": {"type": "host-local", "dataDir": "FOLDER/leases", "ranges": [[{"subnet": "10.99.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
    {"type": "bandwidth", "capabilities": {"bandwidth": true}}
]}"#;

fn sandbox(id: &str, space: &Space) -> CniSandbox {
    CniSandbox {
        id: id.into(),
        namespace: space.path.clone(),
        arguments: vec![("IgnoreUnknown".into(), "1".into()), ("K8S_POD_NAME".into(), id.into())],
        bandwidth: Bandwidth { receive: Some(1_000_000), send: None },
        ..CniSandbox::default()
    }
}

#[test]
fn plugins_connect_and_release() {
    let folder = tempfile::tempdir().expect("a folder");
    let host = Space::new(folder.path(), "host");
    let (one, two) = (Space::new(folder.path(), "one"), Space::new(folder.path(), "two"));
    let network = network(folder.path(), LIST);
    network.status().expect("all plugins are there");
    let address =
        |id: &str, space: &Space| -> IpAddr { host.inside(|| network.setup(&sandbox(id, space))).expect("set up")[0] };
    let (first, second) = (address("one", &one), address("two", &two));
    assert!(first != second && first.to_string().starts_with("10.99.0."), "{first} {second}");
    assert_eq!(address("one", &one), first, "asked again, it answers the same");
    let listener = two.inside(|| TcpListener::bind((second, 0))).expect("bind");
    let port = listener.local_addr().expect("address").port();
    let called = one.inside(|| TcpStream::connect_timeout(&SocketAddr::new(second, port), Duration::from_secs(5)));
    assert_eq!(called.expect("it is reached").local_addr().expect("address").ip(), first);
    assert!(host.run("tc qdisc show").contains("tbf"), "the second plugin was told the bandwidth");

    host.inside(|| network.teardown("one", &one.path)).expect("released");
    host.inside(|| network.teardown("one", &one.path)).expect("again");
    assert!(!one.run("ip -br link").contains("eth0"));
    // The sandbox has gone, and its namespace with it.
    drop(two);
    host.inside(|| network.retain(&[])).expect("released");
    let leases = std::fs::read_dir(folder.path().join("leases/test")).expect("leases");
    let left: Vec<String> = leases.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    assert!(!left.iter().any(|name| name.starts_with("10.99.")), "{left:?}");
}

#[test]
fn what_fails_is_told_and_undone() {
    let folder = tempfile::tempdir().expect("a folder");
    let host = Space::new(folder.path(), "host");
    let one = Space::new(folder.path(), "one");
    let none = network(folder.path(), "");
    assert!(none.status().expect_err("no configuration").to_string().starts_with("cni config uninitialized"));
    let full = LIST.replace("10.99.0.0/24", "10.99.0.0/30").replace("\"bandwidth\", ", "\"nowhere\", ");
    let network = network(folder.path(), &full);
    assert_eq!(
        network.status().expect_err("missing").to_string(),
        "failed to find plugin \"nowhere\" in path [\"/usr/lib/cni\"]"
    );
    host.inside(|| network.setup(&sandbox("one", &one))).expect_err("the second plugin is missing");
    let small = LIST.replace("10.99.0.0/24", "10.99.0.0/31");
    std::fs::write(
        folder.path().join("net.d/10-test.conflist"),
        small.replace("FOLDER", &folder.path().to_string_lossy()),
    )
    .expect("written");
    let error = host.inside(|| network.setup(&sandbox("one", &one))).expect_err("refused");
    assert!(matches!(&error, Error::Plugin { kind, command, .. } if kind == "bridge" && command == "ADD"), "{error}");
    assert!(error.to_string().starts_with("plugin type=\"bridge\" failed (add): "), "{error}");
    assert!(!one.run("ip -br link").contains("eth0"), "nothing is left inside");
    let unused = HostPort { protocol: Protocol::Tcp, host_ip: None, host_port: 1, sandbox_port: 1 };
    let bad = CniSandbox { id: "../x".into(), host_ports: vec![unused], ..CniSandbox::default() };
    assert!(matches!(network.setup(&bad), Err(Error::BadSandboxId { .. })));
}
