//! Each command of the CLI outside swarm, plugins and checkpoints, and each flag of `docker run`, at least once: what
//! the CLI lists itself and no line here names is a failure.

use crate::images::registry_on;
use anyhow::{Context, Result, ensure};
use pintle_e2e::{BUSYBOX, Engine};
use std::collections::BTreeSet;

/// Groups of commands that the engine refuses, or that ask a server for signatures.
const OTHER_GROUPS: [&str; 11] =
    ["checkpoint", "plugin", "trust", "config", "node", "secret", "service", "stack", "swarm", "buildx", "compose"];

/// Commands of the CLI, and lines of a shell that show what they do. They run in this order and build on each other.
/// `$image` is the image for tests, `$registry` a registry, `$now` the time when all began.
const COMMANDS: &[(&str, &str)] = &[
    (
        "build",
        "printf 'FROM $image\\nRUN echo built > /made\\n' | sed s,.image,$image, > Own; docker build -q -t cmd/built -f Own . | grep ^sha256:",
    ),
    ("builder build", "docker builder build -t cmd/built -f Own . | grep 'Using cache'"),
    (
        "image build",
        "docker image build --rm=false --memory 64m -t cmd/built -f Own . | grep 'Successfully tagged cmd/built:latest'",
    ),
    ("builder prune", "docker builder prune --force | grep 'Total'"),
    ("create", "docker create --name cmd-made cmd/built cat /made | grep -E '^[0-9a-f]{64}$'"),
    (
        "container create",
        "docker container create --name cmd-sleeps --label cmd=yes -p 127.0.0.1:18061:80 $image sh -c 'trap \"exit 3\" TERM; echo begun; while :; do sleep 0.1; done'",
    ),
    ("start", "test \"$(docker start -a cmd-made)\" = built"),
    ("container start", "test \"$(docker container start cmd-sleeps)\" = cmd-sleeps"),
    ("attach", "docker start cmd-made > /dev/null; (docker attach --no-stdin cmd-made || true) | grep -c . || true"),
    (
        "container attach",
        "docker run -d --name cmd-says -i $image sh > /dev/null; printf 'echo said\\nexit\\n' | docker container attach cmd-says | grep said; docker rm -f cmd-says",
    ),
    ("ps", "docker ps --filter name=cmd-sleeps --format '{{.Names}} {{.Status}}' | grep 'cmd-sleeps Up'"),
    ("container ls", "docker container ls --all --quiet --no-trunc --latest --size | grep -E '^[0-9a-f]{64}$'"),
    ("exec", "test \"$(docker exec cmd-sleeps echo in)\" = in"),
    (
        "container exec",
        "test \"$(docker container exec --privileged -u 5 -w /tmp -e A=b cmd-sleeps sh -c 'echo $A $(id -u) $(pwd)')\" = 'b 5 /tmp'",
    ),
    ("top", "docker top cmd-sleeps -o pid,comm | grep COMMAND"),
    ("container top", "docker container top cmd-sleeps | grep 'trap'"),
    ("port", "test \"$(docker port cmd-sleeps)\" = '80/tcp -> 127.0.0.1:18061'"),
    ("container port", "test \"$(docker container port cmd-sleeps 80/tcp)\" = 127.0.0.1:18061"),
    ("logs", "docker logs cmd-made | grep built"),
    ("container logs", "docker container logs --details --timestamps --tail 1 cmd-sleeps | grep 'Z  *begun'"),
    ("stats", "docker stats --no-stream --format '{{.Name}} {{.PIDs}}' cmd-sleeps | grep 'cmd-sleeps'"),
    ("container stats", "docker container stats --no-stream --no-trunc cmd-sleeps | grep cmd-sleeps"),
    (
        "cp",
        "echo copied > file; docker cp -q file cmd-sleeps:/tmp/; docker cp cmd-sleeps:/tmp/. new; test \"$(cat new/file)\" = copied",
    ),
    (
        "container cp",
        "docker container cp --archive cmd-sleeps:/tmp/file - | tar xO | grep copied; tar c file | docker container cp - cmd-sleeps:/tmp",
    ),
    ("diff", "docker diff cmd-sleeps | grep 'A /tmp/file'"),
    ("container diff", "docker container diff cmd-sleeps | grep 'C /tmp'"),
    ("inspect", "test \"$(docker inspect --type container --size -f '{{.SizeRw}}' cmd-sleeps)\" -gt 0"),
    ("container inspect", "docker container inspect cmd-sleeps | grep '\"Running\": true'"),
    ("pause", "docker pause cmd-sleeps"),
    ("unpause", "docker ps | grep '(Paused)'; docker unpause cmd-sleeps"),
    ("container pause", "docker container pause cmd-sleeps"),
    ("container unpause", "docker container unpause cmd-sleeps"),
    (
        "update",
        "docker update --memory 64m --memory-swap 128m --cpu-shares 512 --pids-limit 30 cmd-sleeps; test \"$(docker inspect -f '{{.HostConfig.PidsLimit}}' cmd-sleeps)\" = 30",
    ),
    (
        "container update",
        "docker container update --restart unless-stopped cmd-sleeps; docker update --restart no cmd-sleeps",
    ),
    ("rename", "docker rename cmd-sleeps cmd-renamed; ! docker inspect cmd-sleeps"),
    ("container rename", "docker container rename cmd-renamed cmd-sleeps"),
    ("commit", "docker commit -a me -m why -p cmd-sleeps cmd/committed | grep ^sha256:"),
    (
        "container commit",
        "docker container commit -c 'CMD [\"cat\",\"/tmp/file\"]' cmd-sleeps cmd/committed; test \"$(docker run --rm cmd/committed)\" = copied",
    ),
    ("export", "docker export cmd-made | tar t | grep made"),
    ("container export", "docker container export -o root.tar cmd-made"),
    ("import", "docker import -m why root.tar cmd/flat:1 | grep ^sha256:"),
    (
        "image import",
        "docker image import -c 'ENV A=b' - cmd/flat:2 < root.tar; test \"$(docker run --rm cmd/flat:2 sh -c 'cat /made; echo $A')\" = \"$(printf 'built\\nb')\"",
    ),
    ("restart", "docker restart -s KILL cmd-sleeps"),
    ("container restart", "docker container restart -t 1 cmd-sleeps"),
    ("kill", "docker kill -s TERM cmd-sleeps; docker wait cmd-sleeps; docker start cmd-sleeps"),
    (
        "container kill",
        "docker container kill cmd-sleeps; test \"$(docker inspect -f '{{.State.ExitCode}}' cmd-sleeps)\" = 137; docker start cmd-sleeps",
    ),
    ("stop", "docker stop -t 20 cmd-sleeps; docker start cmd-sleeps"),
    (
        "wait",
        "(docker wait cmd-sleeps > waited) & docker container stop -s KILL cmd-sleeps; wait $!; test \"$(cat waited)\" = 137",
    ),
    ("container stop", "docker start cmd-sleeps; docker container stop -t 0 cmd-sleeps"),
    ("container wait", "test \"$(docker container wait cmd-made cmd-sleeps)\" = \"$(printf '0\\n137')\""),
    ("run", "docker run --rm --name cmd-run $image true"),
    ("container run", "docker container run --rm $image true"),
    ("rm", "docker rm -v cmd-made"),
    ("container rm", "docker container rm --force cmd-sleeps"),
    (
        "container prune",
        "docker create --label cmd=prune $image; docker container prune --force --filter label=cmd=prune | grep 'Deleted Containers:'",
    ),
    ("images", "docker images --digests --no-trunc cmd/flat | grep -c sha256: | grep 2"),
    (
        "image ls",
        "docker image ls -q --filter reference=cmd/flat:1 | grep -E '^[0-9a-f]{12}$'; docker image ls --tree > /dev/null",
    ),
    ("tag", "docker tag cmd/built cmd/tagged:1"),
    ("image tag", "docker image tag cmd/built $registry/cmd/built:1"),
    ("history", "docker history --no-trunc --format '{{.CreatedBy}}' cmd/built | grep 'echo built'"),
    ("image history", "docker image history -q cmd/built"),
    (
        "image inspect",
        "docker image inspect -f '{{.Os}}/{{.Architecture}} {{len .RootFS.Layers}}' cmd/built | grep -E '^linux/[a-z0-9]+ 2$'",
    ),
    ("save", "docker save cmd/tagged:1 | tar t | grep manifest.json"),
    ("image save", "docker image save -o saved.tar cmd/tagged:1"),
    ("rmi", "docker rmi --no-prune cmd/tagged:1 | grep 'Untagged: cmd/tagged:1'"),
    ("load", "docker load -q -i saved.tar | grep 'Loaded image: cmd/tagged:1'"),
    ("image load", "docker image load < saved.tar"),
    ("push", "docker push -q $registry/cmd/built:1"),
    ("image push", "docker image push --all-tags $registry/cmd/built | grep 'Layer already exists'"),
    ("manifest create", "docker manifest create --insecure $registry/cmd/built:list $registry/cmd/built:1"),
    ("manifest annotate", "docker manifest annotate --arch arm64 $registry/cmd/built:list $registry/cmd/built:1"),
    ("manifest inspect", "docker manifest inspect --insecure $registry/cmd/built:list | grep arm64"),
    ("manifest push", "docker manifest push --insecure $registry/cmd/built:list | grep ^sha256:"),
    (
        "manifest rm",
        "docker manifest create --insecure $registry/cmd/built:other $registry/cmd/built:1; docker manifest rm $registry/cmd/built:other",
    ),
    ("image rm", "docker image rm -f $registry/cmd/built:1 cmd/tagged:1"),
    ("pull", "docker pull -q $registry/cmd/built:1"),
    (
        "image pull",
        "docker rmi -f $registry/cmd/built:1; many=$registry/cmd/many; for tag in a b; do docker tag cmd/built $many:$tag; done; docker push -q -a $many; docker rmi $many:a $many:b; docker image pull -a $many > told; test $(grep -c '^[ab]: Pulling from ' told) = 2; test \"$(grep ^Status: told)\" = \"Status: Downloaded newer image for $many\"; docker rmi $many:a $many:b",
    ),
    ("image prune", "docker image prune --force --filter label=cmd=none | grep 'Total reclaimed space'"),
    ("search", "! docker search 127.0.0.1:1/nothing 2> told; grep -i 'error response from daemon' told"),
    (
        "network create",
        "docker network create -d bridge --subnet 10.97.3.0/24 --gateway 10.97.3.1 --label cmd=net -o com.docker.network.bridge.enable_icc=true cmd-net",
    ),
    (
        "network connect",
        "docker run -d --name cmd-joins $image sleep 3600; docker network connect --ip 10.97.3.9 --alias other cmd-net cmd-joins",
    ),
    (
        "network inspect",
        "docker network inspect -v -f '{{range .Containers}}{{.IPv4Address}}{{end}}' cmd-net | grep 10.97.3.9/24",
    ),
    ("network disconnect", "docker network disconnect -f cmd-net cmd-joins; docker rm -f cmd-joins"),
    (
        "network ls",
        "docker network ls --no-trunc --filter label=cmd=net --format '{{.Name}} {{.Driver}} {{.Scope}}' | grep 'cmd-net bridge local'",
    ),
    ("network rm", "docker network rm cmd-net"),
    (
        "network prune",
        "docker network create --label cmd=prune cmd-unused; docker network prune -f --filter label=cmd=prune | grep cmd-unused",
    ),
    (
        "volume create",
        "docker volume create -d local -o type=tmpfs -o device=tmpfs -o o=size=1m --label cmd=volume cmd-volume; docker run --rm -v cmd-volume:/v $image df -k /v | grep ' 1024 '",
    ),
    ("volume inspect", "docker volume inspect -f '{{.Options.type}} {{.Driver}}' cmd-volume | grep 'tmpfs local'"),
    ("volume ls", "test \"$(docker volume ls -q --filter label=cmd=volume)\" = cmd-volume"),
    (
        "volume update",
        "! docker volume update --availability drain cmd-volume 2> told; grep -i 'cluster volume\\|swarm' told",
    ),
    ("volume rm", "docker volume rm cmd-volume"),
    (
        "volume prune",
        "docker volume create --label cmd=prune cmd-unused; docker volume prune --all -f --filter label=cmd=prune | grep cmd-unused",
    ),
    ("info", "docker info -f '{{.OSType}} {{.ServerVersion}} {{.Driver}}' | grep '^linux [0-9.]* overlay2$'"),
    ("system info", "docker system info | grep 'Storage Driver: overlay2'"),
    (
        "version",
        "docker version -f '{{.Server.Version}} {{.Server.APIVersion}} {{.Client.APIVersion}}'; docker version | grep -A 3 'Server: pintle' | grep 'Version:'",
    ),
    // The last 256 events are kept, as with Docker: what is asked for has just happened.
    (
        "events",
        "docker volume create cmd-told; docker volume rm cmd-told; timeout 20 docker events --since $now --until $(($(date +%s) + 1)) --filter volume=cmd-told --format '{{.Action}}' | grep destroy",
    ),
    (
        "system events",
        "docker tag cmd/built cmd/told; docker rmi cmd/told; timeout 20 docker system events --since $now --until $(($(date +%s) + 1)) --filter event=tag --format json | grep cmd/told",
    ),
    ("system df", "docker system df -v --format '{{json .Containers}}'; docker system df | grep 'Local Volumes'"),
    (
        "system prune",
        "docker create --label cmd=prune $image; docker system prune --force --filter label=cmd=prune | grep 'Deleted Containers'",
    ),
    ("login", "docker login -u me -p secret $registry 2>&1 | grep 'Login Succeeded'"),
    ("logout", "docker logout $registry"),
    ("context create", "docker context create cmd --docker host=unix:///nowhere --description told"),
    ("context ls", "DOCKER_HOST= docker context ls | grep 'cmd .*told'"),
    ("context inspect", "docker context inspect -f '{{.Endpoints.docker.Host}}' cmd | grep unix:///nowhere"),
    ("context update", "docker context update cmd --docker host=$DOCKER_HOST"),
    (
        "context use",
        "DOCKER_HOST= docker context use cmd; test -n \"$(env -u DOCKER_HOST docker info -f '{{.ID}}{{.Name}}')\"",
    ),
    ("context show", "test \"$(env -u DOCKER_HOST docker context show)\" = cmd"),
    ("context export", "docker context export cmd cmd.context"),
    ("context import", "docker context import again cmd.context"),
    ("context rm", "DOCKER_HOST= docker context use default; docker context rm cmd again"),
];

/// The commands that a group of the CLI lists, whole: `container ls`.
fn listed(engine: &Engine, group: &str) -> Result<Vec<String>> {
    let words: Vec<&str> = group.split_whitespace().chain(["--help"]).collect();
    let help = engine.ok(&words)?;
    let mut inside = false;
    let mut found = Vec::new();
    for line in help.lines() {
        if !line.starts_with(' ') {
            inside = line.ends_with("Commands:");
        } else if let Some(name) = line.split_whitespace().next().filter(|_| inside) {
            found.push(format!("{group} {}", name.trim_end_matches('*')).trim().to_owned());
        }
    }
    Ok(found)
}

/// All commands that have no commands below them.
fn leaves(engine: &Engine) -> Result<BTreeSet<String>> {
    let mut leaves = BTreeSet::new();
    for command in listed(engine, "")?.into_iter().filter(|c| !OTHER_GROUPS.contains(&c.as_str())) {
        match listed(engine, &command)? {
            below if below.is_empty() => drop(leaves.insert(command)),
            below => leaves.extend(below),
        }
    }
    // An older name of `system dial-stdio`'s kind is not listed; what is listed twice is one.
    Ok(leaves)
}

pub fn all(engine: &Engine) -> Result<()> {
    let tried: BTreeSet<String> = COMMANDS.iter().map(|(command, _)| (*command).to_owned()).collect();
    let known = leaves(engine)?;
    ensure!(known.len() > 80, "the CLI lists only {known:?}");
    let missing: Vec<_> = known.difference(&tried).collect();
    ensure!(missing.is_empty(), "commands of the CLI that nothing here tries: {missing:?}");
    let port = 5005;
    let _registry = registry_on(engine, port)?;
    let folder = engine.path("commands");
    std::fs::create_dir_all(&folder)?;
    let now = engine.ok(&["info", "-f", "{{.SystemTime}}"])?;
    for (command, lines) in COMMANDS {
        let script = format!(
            "cd {}; export DOCKER_CONFIG=$PWD/config image={BUSYBOX} registry=127.0.0.1:{port} now={now}; {lines}",
            folder.display()
        );
        engine.shell(&script).with_context(|| format!("docker {command}"))?;
    }
    engine.shell("docker ps -aq --filter label=cmd | xargs -r docker rm -f; docker rmi -f cmd/built cmd/committed cmd/flat:1 cmd/flat:2")?;
    Ok(())
}

/// What is given to `docker run --rm` besides the image, what runs, and what it prints.
type Flag = (&'static str, &'static str, &'static str);

const NAMESPACES: &[Flag] = &[
    ("--pid host", "test $(ls -d /proc/[0-9]* | wc -l) -gt 5 && echo many", "many"),
    ("", "echo $$", "1"),
    ("--init", "cat /proc/1/comm | grep -c sh || echo init", "0\ninit"),
    ("--ipc none", "test -e /dev/shm || echo none", "none"),
    ("--ipc private --shm-size 4m", "df -k /dev/shm | tail -n 1 | awk '{print $2}' || df -k /dev/shm", "4096"),
    ("--ipc host", "readlink /proc/self/ns/ipc | grep -c ipc", "1"),
    ("--uts host", "test \"$(hostname)\" = \"$(cat /proc/sys/kernel/hostname)\" && echo same", "same"),
    ("--userns host", "cat /proc/self/uid_map | grep -c 4294967295", "1"),
    ("--cgroupns private", "grep -c ':/$' /proc/self/cgroup | grep -v '^0$' > /dev/null && echo own", "own"),
    ("--cgroupns host", "grep -v ':/$' /proc/self/cgroup | grep -q . && echo host", "host"),
    ("--network none", "ls /sys/class/net", "lo"),
    ("--network host", "ls /sys/class/net | grep -c outside", "1"),
    ("--privileged", "grep CapEff /proc/self/status | grep -c ffffff", "1"),
    ("--cap-drop ALL", "grep CapEff /proc/self/status | grep -c 0000000000000000", "1"),
    ("--cap-drop ALL --cap-add NET_ADMIN", "grep CapEff /proc/self/status | grep -c 0000000000001000", "1"),
    ("--security-opt no-new-privileges", "grep NoNewPrivs /proc/self/status | tr -d '\\t'", "NoNewPrivs:1"),
    ("--security-opt seccomp=unconfined", "grep Seccomp: /proc/self/status | tr -d '\\t'", "Seccomp:0"),
    ("--user 5:6 --group-add 7", "id -u; id -g; id -G", "5\n6\n6 7"),
    ("--hostname named --domainname example.test", "hostname; cat /proc/sys/kernel/domainname", "named\nexample.test"),
    ("--sysctl net.ipv4.ip_default_ttl=99", "cat /proc/sys/net/ipv4/ip_default_ttl", "99"),
    ("--device /dev/null:/dev/other:r", "cat /dev/other; ls /dev/other", "/dev/other"),
    ("--device-cgroup-rule 'c 1:7 rwm'", "echo well", "well"),
    ("--read-only --tmpfs /t:size=1m", "touch /x 2> /dev/null || echo no; touch /t/x && echo yes", "no\nyes"),
    ("--ulimit nofile=77:77 --ulimit core=0", "ulimit -n; ulimit -c", "77\n0"),
    ("--oom-score-adj 77", "cat /proc/self/oom_score_adj", "77"),
    ("--mac-address 02:42:0a:00:00:77", "cat /sys/class/net/eth0/address", "02:42:0a:00:00:77"),
    ("--annotation a=b --runtime runc --platform linux", "echo well", "well"),
    ("--isolation default --volume-driver local -v /x", "echo well", "well"),
];

const FLAGS: &[Flag] = &[
    ("--env A=b --env-file ENV", "echo $A $C", "b d"),
    ("--entrypoint /bin/echo", "words -n", "words -n"),
    ("--workdir /made/for/it", "pwd", "/made/for/it"),
    ("--add-host far:10.1.2.3 --add-host gate:host-gateway", "grep -c 'far\\|gate' /etc/hosts", "2"),
    (
        "--dns 10.9.9.9 --dns-search example.test --dns-option ndots:3",
        "cat /etc/resolv.conf | grep -v \"^#\\|^$\" | sort",
        "nameserver 10.9.9.9\noptions ndots:3\nsearch example.test",
    ),
    ("--memory 64m --memory-swap 64m --memory-reservation 32m --memory-swappiness 10", "echo well", "well"),
    (
        "--cpus 0.5 --cpuset-cpus 0 --cpu-shares 512 --pids-limit 30 --cpuset-mems 0",
        "grep Cpus_allowed_list /proc/self/status | tr -d '\\t'",
        "Cpus_allowed_list:0",
    ),
    ("--cpu-period 100000 --cpu-quota 50000 --blkio-weight 0", "echo well", "well"),
    ("--expose 99 --publish-all --publish 127.0.0.1::98", "echo well", "well"),
    ("--label a=b --label-file ENV --stop-signal INT --stop-timeout 3 --restart no", "echo well", "well"),
    (
        "--health-cmd true --health-interval 1s --health-timeout 1s --health-retries 1 --health-start-period 1s --health-start-interval 1s",
        "echo well",
        "well",
    ),
    ("--no-healthcheck --pull never --quiet --name flag-named --cidfile CID", "echo well", "well"),
    (
        "--log-driver json-file --log-opt max-size=1m --attach stdout --sig-proxy=false --disable-content-trust",
        "echo well",
        "well",
    ),
    ("--detach-keys ctrl-x,y --interactive", "echo well", "well"),
    (
        "--volume VOLUME:/v:ro --mount type=tmpfs,dst=/t,tmpfs-mode=700",
        "touch /v/x 2> /dev/null || stat -c %a /t",
        "700",
    ),
    ("--mount type=volume,src=VOLUME,dst=/v,readonly,volume-nocopy", "touch /v/x 2> /dev/null || echo no", "no"),
    (
        "--mount type=bind,src=/etc/hostname,dst=/bound,readonly,bind-propagation=rslave",
        "test -s /bound && echo there",
        "there",
    ),
    ("--volumes-from flag-other:ro", "cat /shared/file", "shared"),
    (
        "--network container:flag-other --pid container:flag-other --ipc container:flag-other",
        "cat /proc/1/cmdline | tr '\\0' ' '",
        "sleep 3600",
    ),
    ("--link flag-other:linked", "grep -c linked /etc/hosts", "1"),
    (
        "--network flag-net --network-alias called --ip 10.97.4.9",
        "ip -o -4 addr show dev eth0 | grep -c 10.97.4.9; nslookup called | grep -c 10.97.4.9",
        "1\n1",
    ),
];

/// Flags that are for Windows, for daemons with further settings, or that other lines try.
const OTHER_FLAGS: [&str; 24] = [
    "--help",
    "--rm",
    "--detach",
    "--tty",
    "--gpus",
    "--cpu-count",
    "--cpu-percent",
    "--io-maxbandwidth",
    "--io-maxiops",
    "--cpu-rt-period",
    "--cpu-rt-runtime",
    "--kernel-memory",
    "--storage-opt",
    "--use-api-socket",
    "--link-local-ip",
    "--ip6",
    "--oom-kill-disable",
    "--cgroup-parent",
    "--blkio-weight-device",
    "--device-read-bps",
    "--device-read-iops",
    "--device-write-bps",
    "--device-write-iops",
    "--uts",
];

fn try_flags(engine: &Engine, flags: &[Flag], prepared: &str) -> Result<()> {
    for (flags, script, expected) in flags {
        let words = if flags.contains("--entrypoint") {
            (*script).to_owned()
        } else {
            format!("sh -c '{}'", script.replace('\'', "'\\''"))
        };
        let seen = engine.shell(&format!("{prepared}docker run --rm {flags} {BUSYBOX} {words}"));
        let seen = seen.with_context(|| format!("docker run {flags}"))?;
        ensure!(seen == *expected, "docker run {flags} … {script}:\n{seen}\ninstead of\n{expected}");
    }
    Ok(())
}

pub fn namespaces(engine: &Engine) -> Result<()> {
    try_flags(engine, NAMESPACES, "")?;
    let refused = |flags: &str| engine.shell(&format!("! docker run --rm {flags} {BUSYBOX} true 2>&1"));
    let mut wrong = Vec::new();
    for (flags, words) in [
        ("--gpus all", "could not select device driver"),
        ("--pid container:none", "No such container"),
        ("--network none-such", "network none-such not found"),
        ("--runtime other", "unknown or invalid runtime name: other"),
        ("--cap-add NONE", "unknown capability"),
        ("--security-opt none=1", "nvalid"),
        ("--device /dev/none-such", "no such file or directory"),
        ("--sysctl kernel.none=1", "kernel.none"),
        ("--isolation hyperv", "solation"),
        ("--ipc container:none", "No such container"),
        ("--storage-opt size=1G", "storage"),
        ("--restart always", "onflicting options"),
        ("-m 1m", "Minimum memory limit"),
        ("--pull never --platform windows", "does not provide the specified platform (windows"),
    ] {
        match refused(flags) {
            Ok(said) if said.contains(words) => {}
            Ok(said) => wrong.push(format!("docker run {flags}: {said}")),
            Err(error) => wrong.push(format!("docker run {flags} was not refused: {error:#}")),
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

pub fn flags(engine: &Engine) -> Result<()> {
    let help = engine.ok(&["run", "--help"])?;
    let known =
        help.lines().filter_map(|l| l.split("--").nth(1)?.split_whitespace().next().filter(|_| l.starts_with(' ')));
    let given: Vec<&str> = NAMESPACES.iter().chain(FLAGS).flat_map(|(flags, ..)| flags.split_whitespace()).collect();
    let tried = |flag: &str| given.iter().any(|g| g.split('=').next() == Some(flag)) || OTHER_FLAGS.contains(&flag);
    let missing: Vec<String> = known.map(|name| format!("--{name}")).filter(|flag| !tried(flag)).collect();
    ensure!(missing.is_empty(), "flags of docker run that nothing here tries: {missing:?}");
    let folder = engine.path("flags");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("ENV"), "C=d\n")?;
    engine.run_detached(
        &["--name", "flag-other", "--ipc", "shareable", "-v", "/shared"],
        &["sh", "-c", "echo shared > /shared/file; exec sleep 3600"],
    )?;
    engine.ok(&["network", "create", "--subnet", "10.97.4.0/24", "flag-net"])?;
    let prepared = format!("cd {}; rm -f CID; ", folder.display());
    try_flags(engine, FLAGS, &prepared)?;
    engine.shell("docker rm -fv flag-other; docker network rm flag-net; docker volume rm VOLUME")?;
    Ok(())
}

pub fn contexts(engine: &Engine) -> Result<()> {
    let _registry = crate::images::locked_registry_on(engine, 5006)?;
    let registry = "127.0.0.1:5006";
    let script = format!(
        "export DOCKER_CONFIG=$PWD/own-config; ! echo wrong | docker login -u me --password-stdin {registry} 2> told
         grep -i 'unauthorized' told
         docker tag {BUSYBOX} {registry}/locked; ! docker push {registry}/locked 2> told; grep 'no basic auth credentials' told
         echo secret | docker login -u me --password-stdin {registry} 2> /dev/null | grep 'Login Succeeded'
         docker push -q {registry}/locked; docker rmi {registry}/locked > /dev/null; docker pull -q {registry}/locked
         printf 'FROM {registry}/locked\\nRUN true\\n' | docker build --pull -q -
         docker rmi -f {registry}/locked > /dev/null; docker logout {registry} | grep 'Removing login credentials'
         ! docker pull {registry}/locked 2> told; cat told"
    );
    let told = engine.shell(&script)?;
    ensure!(told.contains("no basic auth credentials"), "{told}");
    Ok(())
}
