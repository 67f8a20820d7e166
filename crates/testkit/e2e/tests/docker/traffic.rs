//! Packets of containers: datagrams and ranges of published ports, networks of IPv6, macvlan.

use crate::SOON;
use crate::networks::{WEB, page};
use anyhow::{Result, ensure};
use pintle_e2e::{BUSYBOX, Engine, Spawned, until};

/// Answers datagrams on ports with the port and what it was sent.
const ECHO: &str = r#"
import selectors, socket, sys
every = selectors.DefaultSelector()
for port in sys.argv[1:]:
    for family, any in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        one = socket.socket(family, socket.SOCK_DGRAM)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind((any, int(port)))
        every.register(one, selectors.EVENT_READ, port)
print("ready", flush=True)
while True:
    for key, _ in every.select():
        data, client = key.fileobj.recvfrom(65535)
        key.fileobj.sendto(key.data.encode() + b" " + data, client)
"#;

/// Sends each address a datagram and a long one; takes answers from that address only.
const ASK: &str = r#"
import socket, sys
for target in sys.argv[1:]:
    host, port = target.rsplit(":", 1)
    one = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    one.settimeout(10)
    try:
        one.connect((host, int(port)))
        one.send(target.encode())
        print(one.recv(65535).decode())
        one.send(b"x" * 9000)
        assert len(one.recv(65535).split(b" ")[1]) == 9000
    except ConnectionRefusedError:
        print("refused", target)
"#;

/// A server for datagrams in the network of a running container.
fn echo_in(engine: &Engine, container: &str, ports: &[&str]) -> Result<Spawned> {
    let process = engine.ok(&["inspect", "-f", "{{.State.Pid}}", container])?;
    let mut command = engine.command("nsenter");
    command.args(["-t", &process, "--net", "python3", "-c", ECHO]).args(ports);
    let server = engine.start_program(command)?;
    server.expect("ready", SOON)?;
    Ok(server)
}

/// What answers from the host come back, a line each.
fn ask(engine: &Engine, targets: &[&str]) -> Result<String> {
    Ok(engine.host.run(&[&["python3", "-c", ASK][..], targets].concat())?.ok()?.trim_end().to_owned())
}

/// Gives the host addresses of IPv6: one more than the kernel would answer from.
fn with_six(engine: &Engine) -> Result<()> {
    for address in ["fd77::2/64", "fd77::3/64"] {
        engine.host.run(&["ip", "-6", "address", "replace", address, "dev", "eth0", "nodad"])?.ok()?;
    }
    Ok(())
}

/// Datagrams reach containers by every address that they are published on, over both families.
pub fn datagrams(engine: &Engine) -> Result<()> {
    with_six(engine)?;
    engine.run_detached(
        &["--name", "e2e-udp", "-p", "15300:53/udp", "-p", "[::1]:15301:53/udp", "-p", "127.0.0.1:15302:53/udp"],
        &["sleep", "3600"],
    )?;
    let server = echo_in(engine, "e2e-udp", &["53"])?;
    let host = format!("{}:15300", engine.host.address);
    let open =
        ["127.0.0.1:15300", &host, "::1:15300", "fd77::2:15300", "fd77::3:15300", "::1:15301", "127.0.0.1:15302"];
    let expected = open.map(|target| format!("53 {target}")).join("\n");
    let answers = ask(engine, &open)?;
    ensure!(answers == expected, "{answers}");
    let closed = ["fd77::2:15301", "127.0.0.1:15301", "::1:15302"];
    ensure!(ask(engine, &closed)? == closed.map(|target| format!("refused {target}")).join("\n"));
    drop(server);
    engine.ok(&["rm", "-f", "e2e-udp"])?;
    ensure!(ask(engine, &["::1:15300"])? == "refused ::1:15300", "the port outlived its container");
    Ok(())
}

/// Ranges are led port by port, or to the first free one for a single port.
pub fn ranges(engine: &Engine) -> Result<()> {
    engine.run_detached(&["--name", "e2e-first", "--hostname", "first", "-p", "18100-18101:80"], &WEB)?;
    engine.run_detached(&["--name", "e2e-second", "--hostname", "second", "-p", "18100-18101:80"], &WEB)?;
    for (port, name) in [(18100, "first"), (18101, "second")] {
        ensure!(page(engine, None, &format!("http://127.0.0.1:{port}/"))? == name);
        let told = engine.ok(&["port", &format!("e2e-{name}"), "80"])?;
        ensure!(told == format!("0.0.0.0:{port}\n[::]:{port}"), "{told}");
    }
    let full = engine.refused(&["run", "--rm", "-p", "18100-18101:80", BUSYBOX, "true"])?;
    ensure!(full.contains("Bind for 0.0.0.0:18100 failed: port is already allocated"), "{full}");
    let several = ["--name", "e2e-several", "-p", "19000-19002:9000-9002/udp", "-p", "18102-18103:80-81"];
    engine.run_detached(&several, &["sleep", "3600"])?;
    let server = echo_in(engine, "e2e-several", &["9000", "9001", "9002"])?;
    let targets = ["127.0.0.1:19000", "127.0.0.1:19001", "::1:19002"];
    ensure!(ask(engine, &targets)? == "9000 127.0.0.1:19000\n9001 127.0.0.1:19001\n9002 ::1:19002");
    drop(server);
    let told = engine.ok(&["ps", "--filter", "name=e2e-several", "--format", "{{.Ports}}"])?;
    for part in ["0.0.0.0:18103->81/tcp", "[::]:19000->9000/udp", "[::]:19002->9002/udp"] {
        ensure!(told.contains(part), "{part}: {told}");
    }
    let uneven = engine.refused(&["run", "--rm", "-p", "19010-19013:9000-9002/udp", BUSYBOX, "true"])?;
    ensure!(uneven.contains("invalid ranges specified for container and host Ports"), "{uneven}");
    engine.ok(&["rm", "-f", "e2e-first", "e2e-second", "e2e-several"])?;
    Ok(())
}

/// Networks of both families and of IPv6 alone: names, addresses, what is reached and what is not.
pub fn six(engine: &Engine) -> Result<()> {
    with_six(engine)?;
    engine.ok(&["network", "create", "--ipv6", "--subnet", "fd00:5::/64", "--subnet", "10.99.5.0/24", "e2e-both"])?;
    engine.ok(&["network", "create", "--ipv4=false", "--ipv6", "--subnet", "fd00:6::/64", "e2e-six"])?;
    for (network, name, six, port) in
        [("e2e-both", "e2e-both-web", "fd00:5::77", "18110"), ("e2e-six", "e2e-six-web", "fd00:6::77", "18111")]
    {
        let (page_port, datagram_port) = (format!("{port}:80"), format!("{port}:53/udp"));
        let published = ["--network", network, "--ip6", six, "-p", &page_port, "-p", &datagram_port];
        engine.run_detached(&[&["--name", name, "--hostname", name][..], &published].concat(), &WEB)?;
        let friend = format!("{name}-friend");
        engine.run_detached(&["--name", &friend, "--network", network], &["sleep", "3600"])?;
        for url in [format!("http://{name}/"), format!("http://[{six}]/")] {
            ensure!(page(engine, Some(&friend), &url)? == name, "{url}");
        }
        let inside = |lines: &str| engine.ok(&["exec", &friend, "sh", "-c", lines]);
        let found = inside(&format!("nslookup -type=aaaa {name}"))?;
        ensure!(found.contains(&format!("Address: {six}")), "{found}");
        let sent = inside(&format!("busybox ping6 -c 1 -w 10 {name}"))?;
        ensure!(sent.contains(&format!("({six})")) && sent.contains("1 packets received"), "{sent}");
        ensure!(inside("cat /etc/hosts")?.contains("fd00:"), "its own address is not among its hosts");
        for host in ["[::1]", "[fd77::2]", "[fd77::3]"] {
            ensure!(page(engine, None, &format!("http://{host}:{port}/"))? == name, "{host}");
        }
        let _server = echo_in(engine, name, &["53"])?;
        let targets = ["::1", "fd77::2", "fd77::3"].map(|host| format!("{host}:{port}"));
        let answers = ask(engine, &targets.each_ref().map(String::as_str))?;
        ensure!(answers == targets.map(|target| format!("53 {target}")).join("\n"), "{answers}");
    }
    let address =
        "{{range .NetworkSettings.Networks}}{{.IPAddress}}|{{.GlobalIPv6Address}}/{{.GlobalIPv6PrefixLen}}{{end}}";
    ensure!(engine.ok(&["inspect", "-f", address, "e2e-six-web"])? == "|fd00:6::77/64");
    let kind = |name: &str| {
        engine.ok(&["exec", "e2e-six-web-friend", "sh", "-c", &format!("nslookup -type=a {name} || true")])
    };
    ensure!(!kind("e2e-six-web")?.contains("Address: 10."), "a name has an address of a family that its network lacks");
    let other = ["exec", "e2e-six-web-friend", "timeout", "2", "busybox", "ping6", "-c", "1", "fd00:5::77"];
    ensure!(engine.code(&other)? != 0, "networks are not apart");
    engine.ok(&["rm", "-f", "e2e-both-web", "e2e-both-web-friend", "e2e-six-web", "e2e-six-web-friend"])?;
    engine.ok(&["network", "rm", "e2e-both", "e2e-six"])?;
    Ok(())
}

/// Containers of a macvlan are hosts of the network that their parent is in, and have names among themselves.
pub fn macvlan(engine: &Engine) -> Result<()> {
    let create = |parent: &str| {
        let link = format!("parent={parent}");
        let range = ["--subnet", "192.168.77.0/24", "--gateway", "192.168.77.1", "--ip-range", "192.168.77.128/25"];
        engine.docker(&[&["network", "create", "-d", "macvlan", "-o", &link][..], &range, &["e2e-macvlan"]].concat())
    };
    let missing = create("none-such")?.failed()?;
    ensure!(missing.contains("invalid subinterface vlan name none-such"), "{missing}");
    create("outside")?.ok()?;
    engine.run_detached(&["--name", "e2e-mac-web", "--hostname", "mac", "--network", "e2e-macvlan"], &WEB)?;
    let fixed = ["--name", "e2e-mac-friend", "--network", "e2e-macvlan", "--ip", "192.168.77.200"];
    engine.run_detached(&[&fixed[..], &["--mac-address", "02:42:c0:a8:4d:77"]].concat(), &["sleep", "3600"])?;
    let address = "{{(index .NetworkSettings.Networks \"e2e-macvlan\").IPAddress}}";
    let web = engine.ok(&["inspect", "-f", address, "e2e-mac-web"])?;
    ensure!(web.starts_with("192.168.77.") && web != "192.168.77.200", "{web}");
    for name in ["e2e-mac-web", &web] {
        ensure!(page(engine, Some("e2e-mac-friend"), &format!("http://{name}/"))? == "mac");
    }
    // The machine itself is on that network by another link than the parent.
    ensure!(page(engine, None, &format!("http://{web}/"))? == "mac");
    let link = engine.ok(&["exec", "e2e-mac-friend", "sh", "-c", "cat /sys/class/net/eth0/address; ip route"])?;
    ensure!(link.starts_with("02:42:c0:a8:4d:77\n") && link.contains("default via 192.168.77.1 dev eth0"), "{link}");
    engine.ok(&["network", "disconnect", "e2e-macvlan", "e2e-mac-friend"])?;
    ensure!(!engine.ok(&["exec", "e2e-mac-friend", "ip", "-o", "link"])?.contains("eth0"));
    engine.ok(&["rm", "-f", "e2e-mac-web", "e2e-mac-friend"])?;
    engine.ok(&["network", "rm", "e2e-macvlan"])?;
    until("the containers' links go", SOON, || {
        let links = engine.host.run(&["ip", "-d", "link"])?.ok()?;
        Ok((!links.contains("macvlan")).then_some(()))
    })
}
