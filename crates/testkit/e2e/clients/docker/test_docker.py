"""The public API of docker-py on an engine: each part of it is used once and its answer looked at.

TEST_IMAGE is an image with a shell, TEST_REGISTRY a registry without TLS, TEST_LOCKED one that lets only `me` with the
password `secret` in.
"""

import http.client
import io
import os
import tarfile
import threading
import time

import docker
from docker.errors import APIError, BuildError, ContainerError, ImageNotFound, NotFound
from docker.transport.unixconn import UnixHTTPConnection
from docker.types import DeviceRequest, EndpointConfig, Healthcheck, IPAMConfig, IPAMPool, LogConfig, Mount, Ulimit

IMAGE = os.environ["TEST_IMAGE"]
REGISTRY = os.environ["TEST_REGISTRY"]
LOCKED = os.environ["TEST_LOCKED"]
PATIENCE = 30


class Response(http.client.HTTPResponse):
    """A response that reads nothing beyond its head.

    The library takes the bare socket from a response that became a stream. What the reader of the head had read ahead by
    then (the first output, when the client is slow) is lost to it, whatever engine answers.
    """

    def __init__(self, sock, *arguments, **named):
        super().__init__(sock, *arguments, **named)
        self.fp.close()
        self.fp = io.BufferedReader(sock.makefile("rb", buffering=0), 1)


UnixHTTPConnection.response_class = Response
client = docker.from_env(timeout=60)


def refused(kind, call, *arguments, **named):
    try:
        call(*arguments, **named)
    except kind as error:
        return error
    raise AssertionError(f"{call} was not refused")


def until(what, found):
    """Asks again and again, for things that take their time."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if found():
            return
        threading.Event().wait(0.05)
    raise AssertionError(f"not in {PATIENCE} seconds: {what}")


def archive(**files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    buffer.seek(0)
    return buffer


def system():
    assert client.ping()
    version = client.version()
    assert version["MinAPIVersion"] == "1.24" and version["Os"] == "linux", version
    info = client.info()
    assert info["OSType"] == "linux" and info["NCPU"] > 0, info
    assert {"Images", "Containers", "Volumes", "BuildCache", "LayersSize"} <= set(client.df())
    for old in ("1.24", "1.40", "1.44", "auto"):
        one = docker.DockerClient(base_url=os.environ["DOCKER_HOST"], version=old)
        assert one.ping() and one.containers.list() is not None
        one.close()
    error = refused(APIError, docker.APIClient(base_url=os.environ["DOCKER_HOST"], version="1.99").version)
    assert "client version 1.99 is too new" in error.explanation, error


def run():
    assert client.containers.run(IMAGE, ["echo", "hello"], remove=True) == b"hello\n"
    lines = client.containers.run(IMAGE, "seq 3", remove=True, stream=True)
    assert list(lines) == [b"1\n", b"2\n", b"3\n"]
    script = ["sh", "-c", "echo out; echo err >&2"]
    assert client.containers.run(IMAGE, script, remove=True, stdout=False, stderr=True) == b"err\n"
    error = refused(ContainerError, client.containers.run, IMAGE, ["sh", "-c", "echo bad >&2; exit 3"], remove=True)
    assert error.exit_status == 3 and error.stderr == b"bad\n", error
    refused(ImageNotFound, client.containers.create, "127.0.0.1:1/none")
    error = refused(APIError, client.containers.run, IMAGE, ["none"], remove=True)
    assert error.status_code == 400 and "executable file not found" in error.explanation, error
    gpus = {"device_requests": [DeviceRequest(count=-1, capabilities=[["gpu"]])]}
    error = refused(APIError, client.containers.run, IMAGE, "true", remove=True, **gpus)
    assert "could not select device driver" in error.explanation, error


def settings():
    """What `containers.run` can be told reaches the process."""
    seen = client.containers.run(
        IMAGE, ["sh", "-c", "hostname; id -u; pwd; echo $A; cat /etc/hosts /etc/resolv.conf; ulimit -n; ls /dev/null2"],
        remove=True, hostname="told", user="65534", working_dir="/tmp", environment=["A=b"],
        extra_hosts={"far": "10.1.2.3"}, dns=["10.9.9.9"], dns_search=["example.test"], dns_opt=["ndots:3"],
        ulimits=[Ulimit(name="nofile", soft=64, hard=64)], devices=["/dev/null:/dev/null2:rw"],
    ).decode()
    for part in ("told", "65534", "/tmp\n", "b\n", "10.1.2.3\tfar", "10.9.9.9", "example.test", "ndots:3", "64\n", "null2"):
        assert part in seen, (part, seen)
    made = client.containers.create(
        IMAGE, "sleep 3600", cap_add=["NET_ADMIN"], cap_drop=["MKNOD"], mem_limit="64m", memswap_limit="64m",
        mem_reservation="32m", nano_cpus=500_000_000, cpu_shares=512, cpuset_cpus="0", pids_limit=40, shm_size="8m",
        read_only=True, tmpfs={"/scratch": "size=1m"}, sysctls={"net.ipv4.ip_forward": "0"}, init=True, privileged=False,
        security_opt=["no-new-privileges"], group_add=["100"], ipc_mode="private", pid_mode="", uts_mode="",
        oom_score_adj=100, stop_signal="SIGINT", entrypoint=["/bin/sh", "-c"], domainname="test", tty=True,
        log_config=LogConfig(type=LogConfig.types.JSON, config={"max-size": "1m", "max-file": "2"}),
        restart_policy={"Name": "on-failure", "MaximumRetryCount": 1}, labels=["plain"], platform="linux",
        cgroup_parent="", mac_address="02:42:ac:11:00:99", ports={"53/udp": None}, volumes={"py-settings": {"bind": "/v", "mode": "ro"}},
    )
    attrs = made.attrs
    host = attrs["HostConfig"]
    expected = {
        "CapAdd": ["NET_ADMIN"], "CapDrop": ["MKNOD"], "Memory": 64 << 20, "MemoryReservation": 32 << 20,
        "NanoCpus": 500_000_000, "CpuShares": 512, "CpusetCpus": "0", "PidsLimit": 40, "ShmSize": 8 << 20,
        "ReadonlyRootfs": True, "Tmpfs": {"/scratch": "size=1m"}, "Init": True, "OomScoreAdj": 100,
        "GroupAdd": ["100"], "SecurityOpt": ["no-new-privileges"], "IpcMode": "private",
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 1}, "Binds": ["py-settings:/v:ro"],
    }
    for key, value in expected.items():
        assert host[key] == value, (key, host[key])
    config = attrs["Config"]
    assert (config["StopSignal"], config["Domainname"], config["Tty"]) == ("SIGINT", "test", True)
    assert config["Labels"] == {"plain": ""} and config["Entrypoint"] == ["/bin/sh", "-c"]
    made.remove(v=True)
    client.volumes.get("py-settings").remove()


def life():
    made = client.containers.run(
        IMAGE, ["sh", "-c", "echo begun; exec sleep 3600"], detach=True, name="py-life", labels={"py": "life"},
        environment={"A": "b"}, mem_limit="64m", memswap_limit="64m",
    )
    assert made.short_id == made.id[:12] and made.image.tags and made.name == "py-life" and made.labels == {"py": "life"}
    for line in made.logs(stream=True, follow=True):
        assert line == b"begun\n"
        break
    assert client.containers.get("py-life").id == made.id
    assert [c.id for c in client.containers.list(filters={"label": "py=life"})] == [made.id]
    assert made.id in [c.id for c in client.containers.list(all=True, sparse=True)]
    assert [c.id for c in client.containers.list(all=True, limit=1, filters={"name": "py-life"})] == [made.id]
    made.reload()
    assert made.status == "running" and made.health == "unknown" and made.ports == {}
    assert any("sleep" in process[-1] for process in made.top()["Processes"])
    assert made.top(ps_args="-o pid,comm")["Titles"] == ["PID", "COMMAND"]
    made.pause()
    made.reload()
    assert made.status == "paused"
    made.unpause()
    made.update(mem_limit="128m", memswap_limit="256m", restart_policy={"Name": "no"})
    made.rename("py-renamed")
    made.reload()
    assert made.name == "py-renamed" and made.attrs["HostConfig"]["Memory"] == 128 << 20
    made.restart(timeout=0)
    made.stop(timeout=0)
    assert made.wait()["StatusCode"] == 137
    made.start()
    made.kill("SIGKILL")
    assert made.wait(condition="not-running", timeout=PATIENCE)["StatusCode"] == 137
    assert refused(APIError, made.kill).status_code == 409
    made.remove()
    refused(NotFound, client.containers.get, made.id)
    gone = client.containers.run(IMAGE, "sleep 3600", detach=True, auto_remove=True)
    waiter = threading.Thread(target=gone.wait, kwargs={"condition": "removed"})
    waiter.start()
    gone.kill()
    waiter.join(PATIENCE)
    assert not waiter.is_alive()


def logs():
    script = "echo one; echo wrong >&2; echo two; echo three"
    made = client.containers.run(IMAGE, ["sh", "-c", script], detach=True)
    made.wait()
    assert made.logs(stderr=False) == b"one\ntwo\nthree\n"
    assert made.logs(stdout=False) == b"wrong\n"
    assert made.logs(stderr=False, tail=1) == b"three\n"
    stamp, text = made.logs(timestamps=True, stderr=False).splitlines()[0].split(b" ", 1)
    assert text == b"one" and stamp.endswith(b"Z")
    assert made.logs(since=int(time.time()) + 100) == b"" and made.logs(until=1) == b""
    assert made.attach(stream=False, logs=True, stdout=True, stderr=False) == b"one\ntwo\nthree\n"
    assert made.attach(stream=False, logs=True, stdout=True, stderr=True, demux=True) == (b"one\ntwo\nthree\n", b"wrong\n")
    made.remove()


def executions():
    made = client.containers.run(IMAGE, "sleep 3600", detach=True, environment={"A": "b"})
    code, output = made.exec_run(["sh", "-c", "echo $A; echo err >&2; exit 4"], demux=True)
    assert code == 4 and output == (b"b\n", b"err\n"), (code, output)
    assert made.exec_run("id -u", user="65534").output == b"65534\n"
    assert made.exec_run(["sh", "-c", "echo $B; pwd"], environment={"B": "c"}, workdir="/tmp").output == b"c\n/tmp\n"
    assert b"".join(made.exec_run("echo streamed", stream=True).output) == b"streamed\n"
    assert made.exec_run("tty", tty=True).output.startswith(b"/dev/pts/")
    assert made.exec_run("sleep 3600", detach=True).exit_code is None
    assert made.exec_run("cat /proc/1/status", privileged=True).exit_code == 0
    socket = made.exec_run("cat", stdin=True, socket=True).output
    socket._sock.sendall(b"through")
    socket._sock.shutdown(1)
    assert b"through" in b"".join(iter(lambda: socket.read(4096), b""))
    api = client.api
    created = api.exec_create(made.id, "sh -c 'exit 5'", stdin=False)
    assert api.exec_inspect(created)["Running"] is False and api.exec_inspect(created)["ExitCode"] is None
    api.exec_start(created)
    assert api.exec_inspect(created)["ExitCode"] == 5
    shell = api.exec_create(made.id, "cat", stdin=True, tty=True)
    stream = api.exec_start(shell, tty=True, socket=True)
    api.exec_resize(shell, height=30, width=90)
    stream._sock.close()
    refused(NotFound, api.exec_inspect, "none")
    made.remove(force=True)
    assert refused(APIError, made.exec_run, "true").status_code == 404


def statistics():
    made = client.containers.run(IMAGE, "sleep 3600", detach=True, mem_limit="64m")
    stats = made.stats(stream=False)
    assert stats["memory_stats"]["limit"] == 64 << 20 and stats["pids_stats"]["current"] == 1, stats
    assert "eth0" in stats["networks"]
    stream = made.stats(stream=True, decode=True)
    assert [next(stream)["id"], next(stream)["id"]] == [made.id] * 2
    stream.close()
    assert client.api.stats(made.id, stream=False, one_shot=True)["id"] == made.id
    made.remove(force=True)


def attach():
    made = client.containers.create(IMAGE, "cat", stdin_open=True, tty=False)
    socket = made.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    made.start()
    socket._sock.sendall(b"typed\n")
    assert b"typed" in socket.read(64)
    socket.close()
    made.remove(force=True)
    made = client.containers.create(IMAGE, ["sh", "-c", "echo early; echo late >&2"])
    stream = made.attach(stream=True, demux=True)
    made.start()
    assert sorted(stream, key=str) == [(None, b"late\n"), (b"early\n", None)]
    made.remove(force=True)
    made = client.containers.create(IMAGE, "sh", tty=True, stdin_open=True)
    socket = made.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    made.start()
    made.resize(50, 120)
    socket._sock.sendall(b"stty size; exit 7\n")
    seen = b"".join(iter(lambda: socket.read(4096), b""))
    assert b"50 120" in seen, seen
    assert made.wait()["StatusCode"] == 7
    made.remove()


def health():
    test = Healthcheck(test=["CMD-SHELL", "test -e /tmp/well"], interval=100_000_000, timeout=5_000_000_000, retries=2)
    made = client.containers.run(IMAGE, "sleep 3600", detach=True, healthcheck=test)

    def is_now(wanted):
        made.reload()
        return made.health == wanted

    until("it is unhealthy", lambda: is_now("unhealthy"))
    made.exec_run("touch /tmp/well")
    until("it is healthy", lambda: is_now("healthy"))
    log = made.attrs["State"]["Health"]["Log"]
    assert log[-1]["ExitCode"] == 0 and len(log) <= 5, log
    assert made.id in [c.id for c in client.containers.list(filters={"health": "healthy"})]
    made.remove(force=True)


def files():
    made = client.containers.create(IMAGE, "true")
    assert made.put_archive("/tmp", archive(file=b"content").getvalue())
    bits, stat = made.get_archive("/tmp/file")
    assert stat["name"] == "file" and stat["size"] == 7
    with tarfile.open(fileobj=io.BytesIO(b"".join(bits))) as tar:
        assert tar.extractfile("file").read() == b"content"
    bits, stat = made.get_archive("/tmp/.", chunk_size=512, encode_stream=True)
    with tarfile.open(fileobj=io.BytesIO(b"".join(bits))) as tar:
        assert tar.getnames() == [".", "./file"], tar.getnames()
    refused(NotFound, made.get_archive, "/none")
    refused(NotFound, made.put_archive, "/none", b"")
    assert {"Path": "/tmp/file", "Kind": 1} in made.diff()
    assert len(b"".join(made.export())) > 100_000
    image = made.commit(repository="py/committed", tag="1", changes="ENV X=y", message="why", author="who")
    assert "X=y" in client.images.get("py/committed:1").attrs["Config"]["Env"]
    assert image.attrs["Author"] == "who" and image.attrs["Comment"] == "why"
    made.remove()
    client.images.remove(image.id, force=True)


def images():
    dockerfile = f"FROM {IMAGE} AS first\nARG WORD\nLABEL py=built\nRUN echo $WORD > /word\nCMD cat /word\nFROM first\nRUN true\n"
    options = {
        "tag": "py/built", "buildargs": {"WORD": "w"}, "rm": True, "forcerm": True, "labels": {"more": "yes"},
        "target": "first", "nocache": True, "pull": False, "shmsize": 1 << 20, "network_mode": "none",
        "container_limits": {"memory": 64 << 20}, "extra_hosts": {"far": "10.1.2.3"},
    }
    built, log = client.images.build(fileobj=io.BytesIO(dockerfile.encode()), **options)
    log = list(log)
    assert any("Successfully built" in line.get("stream", "") for line in log)
    assert built.labels == {"py": "built", "more": "yes"} and built.short_id.startswith("sha256:")
    assert client.containers.run("py/built", remove=True) == b"w\n"
    context = archive(**{"Own": f"FROM {IMAGE}\nCOPY data /data\n".encode(), "data": b"in the context"})
    copied, _ = client.images.build(fileobj=context, custom_context=True, dockerfile="Own", rm=True, tag="py/copied")
    assert client.containers.run("py/copied", "cat /data", remove=True) == b"in the context"
    failing = io.BytesIO(f"FROM {IMAGE}\nRUN exit 9\n".encode())
    error = refused(BuildError, client.images.build, fileobj=failing, rm=True, forcerm=True)
    assert "returned a non-zero code: 9" in error.msg, error.msg
    assert built.tag("py/other", "2") and len(built.history()) >= 3
    built.reload()
    assert sorted(built.tags) == ["py/built:latest", "py/other:2"]
    saved = b"".join(built.save(named="py/built:latest"))
    client.images.remove("py/other:2")
    client.images.remove("py/built", noprune=False)
    refused(ImageNotFound, client.images.get, "py/built")
    loaded = client.images.load(saved)
    assert loaded[0].id == built.id and loaded[0].tags == ["py/built:latest"], (loaded, loaded[0].tags)
    assert [i.id for i in client.images.list(name="py/built")] == [built.id]
    assert built.id in [i.id for i in client.images.list(filters={"label": "py=built"})]
    assert client.images.list(all=True)
    flat = io.BytesIO(b"".join(client.containers.create("py/built", "true", name="py-flat").export()))
    client.containers.get("py-flat").remove()
    assert "sha256:" in client.api.import_image_from_data(flat.getvalue(), repository="py/flat", tag="1")
    for name in ("py/flat:1", "py/built", "py/copied"):
        client.images.remove(name, force=True)
    assert "SpaceReclaimed" in client.images.prune(filters={"label": ["py=none"]})
    assert "SpaceReclaimed" in client.images.prune_builds()


def registries():
    name = f"{REGISTRY}/py/carried"
    dockerfile = f"FROM {IMAGE}\nRUN echo far > /far\n".encode()
    built, _ = client.images.build(fileobj=io.BytesIO(dockerfile), tag=f"{name}:1", rm=True)
    lines = list(client.images.push(name, tag="1", stream=True, decode=True))
    pushed = [line["aux"] for line in lines if "aux" in line]
    assert pushed and pushed[0]["Digest"].startswith("sha256:"), lines
    client.images.remove(f"{name}:1")
    pulled = client.images.pull(name, tag="1")
    assert pulled.id == built.id and client.containers.run(pulled, "cat /far", remove=True) == b"far\n"
    data = client.images.get_registry_data(f"{name}:1")
    assert data.id == pushed[0]["Digest"] and data.has_platform("linux/amd64") != data.has_platform("linux/arm64")
    assert data.pull().id == built.id
    assert any("Pull complete" in line.get("status", "") or "exists" in line.get("status", "") or "up to date" in line.get("status", "")
               for line in client.api.pull(name, tag="1", stream=True, decode=True))
    client.images.build(fileobj=io.BytesIO(dockerfile + b"RUN true\n"), tag=f"{name}:2", rm=True)
    client.images.push(name, tag="2")
    assert len(client.images.pull(name, all_tags=True)) == 2
    refused(NotFound, client.images.pull, f"{REGISTRY}/py/none", tag="1")
    # Registries of today have no index to search; to ask the one of Docker Hub is to wait for a name server.
    error = refused(APIError, client.images.search, f"{REGISTRY}/none")
    assert "Unexpected status code 404" in error.explanation, error
    refused(APIError, client.images.pull, "127.0.0.1:1/none", tag="1")
    locked = f"{LOCKED}/py/locked"
    built.tag(locked, "1")
    assert "error" in list(client.images.push(locked, tag="1", stream=True, decode=True))[-1]
    assert refused(APIError, client.login, "me", password="wrong", registry=LOCKED).status_code in (401, 500)
    assert client.login("me", password="secret", registry=LOCKED)["Status"] == "Login Succeeded"
    assert "error" not in client.images.push(locked, tag="1")
    client.images.remove(f"{locked}:1")
    assert client.images.pull(locked, tag="1", auth_config={"username": "me", "password": "secret"}).id == built.id
    for image in (f"{locked}:1", f"{name}:1", f"{name}:2"):
        client.images.remove(image, force=True)


def networks():
    pool = IPAMPool(subnet="10.98.7.0/24", gateway="10.98.7.1", iprange="10.98.7.128/25")
    network = client.networks.create(
        "py-net", driver="bridge", ipam=IPAMConfig(pool_configs=[pool]), labels={"py": "net"}, internal=False,
        attachable=True, options={"com.docker.network.driver.mtu": "1400"}, check_duplicate=True,
    )
    assert network.attrs["IPAM"]["Config"][0]["Subnet"] == "10.98.7.0/24" and network.attrs["Labels"] == {"py": "net"}
    assert [n.id for n in client.networks.list(names=["py-net"])] == [network.id]
    assert [n.id for n in client.networks.list(ids=[network.id], greedy=True)] == [network.id]
    assert [n.id for n in client.networks.list(filters={"label": "py=net", "driver": "bridge"})] == [network.id]
    assert client.networks.get(network.id, verbose=True).name == "py-net"
    assert refused(APIError, client.networks.create, "py-net").status_code == 409
    first = client.containers.run(
        IMAGE, "sleep 3600", detach=True, name="py-first", network="py-net", ports={"80/tcp": ("127.0.0.1", 18070)},
        networking_config={"py-net": EndpointConfig(client.api._version, aliases=["one"], ipv4_address="10.98.7.200")},
    )
    assert client.containers.run(IMAGE, "nslookup py-first", network="py-net", remove=True)
    assert client.containers.run(IMAGE, "nslookup one", network="py-net", remove=True)
    second = client.containers.run(IMAGE, "sleep 3600", detach=True)
    network.connect(second, aliases=["second"], ipv4_address="10.98.7.177")
    network.reload()
    assert {c.id for c in network.containers} == {first.id, second.id}
    assert first.exec_run("nslookup second").exit_code == 0
    second.reload()
    assert second.attrs["NetworkSettings"]["Networks"]["py-net"]["IPAddress"] == "10.98.7.177"
    network.disconnect(second)
    network.disconnect(first, force=True)
    network.connect(first)
    first.reload()
    assert first.ports["80/tcp"] == [{"HostIp": "127.0.0.1", "HostPort": "18070"}], first.ports
    assert refused(APIError, network.remove).status_code == 403
    for container in (first, second):
        container.remove(force=True, v=True)
    network.remove()
    refused(NotFound, client.networks.get, "py-net")
    client.networks.create("py-unused", labels={"py": "unused"})
    assert client.networks.prune(filters={"label": ["py=unused"]})["NetworksDeleted"] == ["py-unused"]


def volumes():
    volume = client.volumes.create("py-volume", driver="local", labels={"py": "volume"}, driver_opts={})
    assert volume.attrs["Driver"] == "local" and volume.attrs["Labels"] == {"py": "volume"}
    mounts = [
        Mount("/data", "py-volume", labels={"never": "used"}), Mount("/read", "py-volume", read_only=True),
        Mount("/scratch", None, type="tmpfs", tmpfs_size="1m", tmpfs_mode=0o700),
        Mount("/bound", "/etc/hostname", type="bind", propagation="rprivate"),
    ]
    holder = client.containers.create(IMAGE, ["sh", "-c", "echo kept > /data/file && cat /read/file"], mounts=mounts)
    holder.start()
    assert holder.wait()["StatusCode"] == 0 and holder.logs() == b"kept\n"
    assert client.containers.run(IMAGE, "cat /data/file", volumes_from=[holder.id], remove=True) == b"kept\n"
    assert client.containers.run(IMAGE, "cat /v/file", volumes=["py-volume:/v:ro"], remove=True) == b"kept\n"
    assert volume.id in [v.id for v in client.volumes.list(filters={"label": "py=volume"})]
    used = [v for v in client.df()["Volumes"] if v["Name"] == "py-volume"]
    assert used and used[0]["UsageData"]["RefCount"] == 1 and used[0]["UsageData"]["Size"] > 0, used
    assert refused(APIError, volume.remove).status_code == 409
    holder.remove(v=True)
    assert client.volumes.get("py-volume").name == "py-volume"
    assert client.volumes.prune(filters={"label": ["py=volume"], "all": ["true"]})["VolumesDeleted"] == ["py-volume"]
    refused(NotFound, client.volumes.get, "py-volume")
    client.volumes.create("py-volume").remove(force=True)


def events():
    made = client.containers.create(IMAGE, "true", labels={"py": "events"})
    begun = int(time.time()) - 1
    stream = client.events(decode=True, since=begun - 10, filters={"container": made.id})
    assert next(stream)["Action"] == "create"
    made.start()
    made.wait()
    made.remove()
    seen = []
    for event in stream:
        seen.append(event["Action"])
        if event["Action"] == "destroy":
            break
    stream.close()
    assert seen == ["attach", "start", "die", "destroy"] or seen == ["start", "die", "destroy"], seen
    past = list(client.events(decode=True, since=begun, until=int(time.time()) + 1, filters={"label": "py=events", "type": "container"}))
    assert [e["Action"] for e in past][-1] == "destroy" and past[0]["Actor"]["Attributes"]["py"] == "events"


def pruning():
    ended = client.containers.run(IMAGE, "true", detach=True, labels={"py": "prune"})
    ended.wait()
    pruned = client.containers.prune(filters={"label": "py=prune"})
    assert pruned["ContainersDeleted"] == [ended.id] and pruned["SpaceReclaimed"] >= 0


def absent():
    """Swarm and plugins answer that they are not there."""
    assert refused(APIError, client.services.list).status_code == 503
    assert refused(APIError, client.nodes.list).status_code == 503
    assert refused(APIError, client.secrets.list).status_code == 503
    assert refused(APIError, client.configs.list).status_code == 503
    refused(APIError, client.swarm.init)
    assert client.plugins.list() == []
    refused(APIError, client.plugins.install, "none")


PARTS = (
    system, run, settings, life, logs, executions, statistics, attach, health, files, images, registries, networks,
    volumes, events, pruning, absent,
)
for part in PARTS:
    part()
    print(part.__name__, "passed", flush=True)
