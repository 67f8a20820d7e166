//! The real `docker` command drives an engine: every command outside swarm, plugins and checkpoints.

#[path = "docker/applications.rs"]
mod applications;
#[path = "docker/attaching.rs"]
mod attaching;
#[path = "docker/builds.rs"]
mod builds;
#[path = "docker/commands.rs"]
mod commands;
#[path = "docker/containers.rs"]
mod containers;
#[path = "docker/details.rs"]
mod details;
#[path = "docker/flags.rs"]
mod flags;
#[path = "docker/images.rs"]
mod images;
#[path = "docker/networks.rs"]
mod networks;
#[path = "docker/podman.rs"]
mod podman;
#[path = "docker/pods.rs"]
mod pods;
#[path = "docker/remote.rs"]
mod remote;
#[path = "docker/restarts.rs"]
mod restarts;
#[path = "docker/system.rs"]
mod system;
#[path = "docker/traffic.rs"]
mod traffic;

use pintle_e2e::{Engine, suite_on};
use std::process::ExitCode;
use std::time::Duration;

/// How long anything may take that ought to be there at once.
const SOON: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    suite_on::<Engine>(&[
        ("run tells output, input and exit codes", containers::run_codes),
        ("run gives a terminal of the right size", containers::terminal),
        ("a terminal is left by its keys and joined again", containers::detach),
        ("run --detach, ps, logs, exec, top, port, stop and rm", containers::life),
        ("what exec is told reaches the process", containers::exec),
        ("inspect and ps agree, with formats and filters", containers::look),
        ("files are copied both ways", containers::copy),
        ("pause, unpause, update, rename, wait and kill", containers::change),
        ("limits reach the cgroup", containers::limits),
        ("logs are followed, cut and timed", containers::logs),
        ("health checks change the state", containers::health),
        ("who attaches to old output and new gets each line once", attaching::whole),
        ("what is typed by one client is seen by all", attaching::several),
        ("logs whose writers do not wait", attaching::non_blocking),
        ("diff, commit, export and import", images::changes),
        ("build with stages, arguments, an ignore file and the cache", images::build),
        ("onbuild, shell, stopsignal and healthcheck", builds::inherited),
        ("documents in RUN and COPY", builds::documents),
        ("archives in ADD, links in COPY", builds::archives),
        ("archives are read however they are compressed", builds::compressed),
        ("a cancelled build leaves nothing", builds::cancelled),
        ("tag, history, save, load and rmi", images::archives),
        ("push to and pull from a real registry", images::registry),
        ("steps are taken from an image of --cache-from", images::cache_from),
        ("import from an address", images::import_from_address),
        ("skopeo reads what is saved and pushed", images::skopeo),
        ("podman and buildah read our archives, and we read theirs", podman::archives),
        ("podman and buildah share a registry with us", podman::registry),
        ("containers find each other by name in their networks only", networks::names),
        ("networks are connected and left while containers run", networks::connect),
        ("published ports answer, and end with their container", networks::ports),
        ("datagrams reach published ports over both families", traffic::datagrams),
        ("ranges of ports are published", traffic::ranges),
        ("networks of IPv6", traffic::six),
        ("containers on a macvlan", traffic::macvlan),
        ("volumes outlive containers, anonymous ones do not", networks::volumes),
        ("mounts in all forms", networks::mounts),
        ("events, stats, system df, info and version", system::tell),
        ("prune removes what is labelled and unused", system::prune),
        ("what is not there is refused clearly", system::refusals),
        ("containers survive kill -9 with logs and exit codes", restarts::survive),
        ("a container is paused if it is, whatever was written down", restarts::held),
        ("removals that were cut off are finished as they were meant", restarts::removals),
        ("restart policies are kept over a restart", restarts::policies),
        ("an engine that is told to stops its containers and starts them again", restarts::stops),
        ("every command of the CLI answers", commands::all),
        ("run's flags for namespaces, identity and devices", commands::namespaces),
        ("run's flags for names, streams and life", commands::flags),
        ("what run's flags do", flags::effects),
        ("run's flags for disks and cgroups", flags::disks_and_cgroups),
        ("run's flags for stopping, health and files", flags::lives),
        ("contexts, login and logout", commands::contexts),
        ("links are names and variables", details::links),
        ("connections have names, settings and addresses of their own", details::connections),
        ("files of every container, and images as mounts", details::files),
        ("failures, warnings and details are told as Docker tells them", details::told),
        ("images come from a mirror", details::mirrors),
        ("the API over TCP lets only those with a certificate in", remote::mutual_tls),
        ("containers of pods are seen, joined and copied from", pods::pods),
        ("the Python library for Docker", applications::docker_py),
        ("docker-compose brings up web, redis and postgres", applications::compose),
    ])
}
