"""The public API of docker-py on an engine: each part of it is used once and its answer looked at."""

import io
import os
import tarfile

import docker
from docker.errors import APIError, BuildError, ContainerError, ImageNotFound, NotFound
from docker.types import Healthcheck, LogConfig, Mount, Ulimit

IMAGE = os.environ["TEST_IMAGE"]
client = docker.from_env(timeout=60)


def refused(kind, call, *arguments, **named):
    try:
        call(*arguments, **named)
    except kind as error:
        return error
    raise AssertionError(f"{call} was not refused")


def system():
    assert client.ping()
    assert client.version()["MinAPIVersion"] == "1.24"
    assert client.info()["OSType"] == "linux"
    assert {"Images", "Containers", "Volumes"} <= set(client.df())
    assert client.api.api_version == client.version()["ApiVersion"] or docker.constants.DEFAULT_DOCKER_API_VERSION


def run():
    assert client.containers.run(IMAGE, ["echo", "hello"], remove=True) == b"hello\n"
    error = refused(ContainerError, client.containers.run, IMAGE, ["sh", "-c", "echo bad >&2; exit 3"], remove=True)
    assert error.exit_status == 3 and error.stderr == b"bad\n", error
    refused(ImageNotFound, client.containers.create, "127.0.0.1:1/none")
    error = refused(APIError, client.containers.run, IMAGE, ["none"], remove=True)
    assert error.status_code == 400 or error.status_code == 404, error.status_code


def life():
    made = client.containers.run(
        IMAGE, ["sh", "-c", "echo begun; exec sleep 3600"], detach=True, name="py-life", labels={"py": "life"},
        environment={"A": "b"}, mem_limit="64m", nano_cpus=500_000_000, ulimits=[Ulimit(name="nofile", soft=64, hard=64)],
        log_config=LogConfig(type="json-file", config={"max-size": "1m"}), tmpfs={"/scratch": "size=1m"},
        extra_hosts={"far": "10.1.2.3"}, dns=["10.9.9.9"], restart_policy={"Name": "on-failure", "MaximumRetryCount": 1},
    )
    for line in made.logs(stream=True, follow=True):
        assert line == b"begun\n"
        break
    assert client.containers.get("py-life").id == made.id
    assert [c.id for c in client.containers.list(filters={"label": "py=life"})] == [made.id]
    made.reload()
    assert made.status == "running" and made.attrs["HostConfig"]["Memory"] == 64 << 20
    code, output = made.exec_run(["sh", "-c", "echo $A; echo err >&2; exit 4"], demux=True)
    assert code == 4 and output == (b"b\n", b"err\n"), (code, output)
    assert b"far" in made.exec_run("cat /etc/hosts").output
    stream = made.exec_run("echo streamed", stream=True).output
    assert b"".join(stream) == b"streamed\n"
    socket = made.exec_run("cat", stdin=True, socket=True).output
    socket._sock.sendall(b"through")
    socket._sock.shutdown(1)
    assert b"through" in b"".join(iter(lambda: socket.read(4096), b""))
    assert any("sleep" in process[-1] for process in made.top()["Processes"])
    assert made.stats(stream=False)["memory_stats"]["limit"] == 64 << 20
    assert next(made.stats(stream=True, decode=True))["id"] == made.id
    made.pause()
    made.reload()
    assert made.status == "paused"
    made.unpause()
    made.update(mem_limit="128m", memswap_limit="256m")
    made.rename("py-renamed")
    made.restart(timeout=0)
    made.kill("SIGTERM") if False else made.stop(timeout=0)
    assert made.wait()["StatusCode"] == 137
    made.remove()
    refused(NotFound, client.containers.get, made.id)


def archives_of_files():
    made = client.containers.create(IMAGE, "true")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("file")
        entry.size = 7
        archive.addfile(entry, io.BytesIO(b"content"))
    assert made.put_archive("/tmp", buffer.getvalue())
    bits, stat = made.get_archive("/tmp/file")
    assert stat["name"] == "file" and stat["size"] == 7
    with tarfile.open(fileobj=io.BytesIO(b"".join(bits))) as archive:
        assert archive.extractfile("file").read() == b"content"
    assert {"Path": "/tmp/file", "Kind": 1} in made.diff()
    assert len(b"".join(made.export())) > 100_000
    image = made.commit(repository="py/committed", tag="1", changes="ENV X=y")
    assert "X=y" in client.images.get("py/committed:1").attrs["Config"]["Env"]
    made.remove()
    client.images.remove(image.id, force=True)


def images():
    dockerfile = f"FROM {IMAGE}\nARG WORD\nRUN echo $WORD > /word\nCMD cat /word\n".encode()
    built, log = client.images.build(fileobj=io.BytesIO(dockerfile), tag="py/built", buildargs={"WORD": "w"}, rm=True)
    assert any("Successfully built" in line.get("stream", "") for line in log)
    assert client.containers.run("py/built", remove=True) == b"w\n"
    refused(BuildError, client.images.build, fileobj=io.BytesIO(f"FROM {IMAGE}\nRUN exit 1\n".encode()), rm=True)
    assert built.tag("py/other", "2") and len(built.history()) >= 3
    saved = b"".join(built.save(named=True))
    client.images.remove("py/other:2")
    client.images.remove("py/built")
    refused(ImageNotFound, client.images.get, "py/built")
    loaded = client.images.load(saved)
    assert loaded[0].id == built.id, (loaded, built.id)
    assert "py/built:latest" in [tag for image in client.images.list(name="py/built") for tag in image.tags] or loaded
    client.images.remove(built.id, force=True)
    refused(APIError, client.images.pull, "127.0.0.1:1/none", tag="1")
    client.images.prune(filters={"label": "py=none"})


def networks_and_volumes():
    pool = docker.types.IPAMPool(subnet="10.98.7.0/24", gateway="10.98.7.1")
    network = client.networks.create("py-net", ipam=docker.types.IPAMConfig(pool_configs=[pool]), labels={"py": "net"})
    volume = client.volumes.create("py-volume", labels={"py": "volume"})
    first = client.containers.run(
        IMAGE, "sleep 3600", detach=True, name="py-first", network="py-net", ports={"80/tcp": ("127.0.0.1", 18070)},
        mounts=[Mount("/data", "py-volume")], volumes_from=[],
        healthcheck=Healthcheck(test=["CMD", "true"], interval=100_000_000),
    )
    assert client.containers.run(IMAGE, "nslookup py-first", network="py-net", remove=True)
    second = client.containers.run(IMAGE, "sleep 3600", detach=True)
    network.connect(second, aliases=["second"], ipv4_address="10.98.7.77")
    network.reload()
    assert {c.id for c in network.containers} == {first.id, second.id}
    assert first.exec_run("nslookup second").exit_code == 0
    network.disconnect(second)
    first.reload()
    assert first.ports["80/tcp"] == [{"HostIp": "127.0.0.1", "HostPort": "18070"}], first.ports
    assert volume.id in [v.id for v in client.volumes.list(filters={"label": "py=volume"})]
    assert refused(APIError, volume.remove).status_code == 409
    for container in (first, second):
        container.remove(force=True, v=True)
    volume.remove()
    network.remove()
    refused(NotFound, client.networks.get, "py-net")
    refused(NotFound, client.volumes.get, "py-volume")


def events():
    made = client.containers.create(IMAGE, "true", labels={"py": "events"})
    stream = client.events(decode=True, since=0, filters={"container": made.id})
    assert next(stream)["Action"] == "create"
    made.remove()
    assert next(stream)["Action"] == "destroy"
    stream.close()


def attach():
    made = client.containers.create(IMAGE, "cat", stdin_open=True, tty=False)
    socket = made.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    made.start()
    socket._sock.sendall(b"typed\n")
    assert b"typed" in socket.read(64)
    socket.close()
    made.remove(force=True)
    api = client.api.create_container(IMAGE, "sh", tty=True, stdin_open=True)
    client.api.start(api)
    client.api.resize(api, 50, 120)
    client.api.remove_container(api, force=True)


for part in (system, run, life, archives_of_files, images, networks_and_volumes, events, attach):
    part()
    print(part.__name__, "passed")
