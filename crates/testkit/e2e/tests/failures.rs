//! What goes wrong in pods, and what the cluster says and does about it.

use anyhow::{Context, Result, ensure};
use pintle_e2e::{BUSYBOX, Cluster, suite, until};
use serde_json::Value;
use std::process::ExitCode;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const LATER: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    suite(&[
        ("a killed container comes back", killed),
        ("too much memory is told as such", out_of_memory),
        ("a crash loop slows down", crash_loop),
        ("a pod that fits nowhere says why", unschedulable),
        ("a missing image is told", missing_image),
        ("failing probes restart and take out of service", probes),
        ("a pod ends gracefully", graceful),
    ])
}

fn pod(name: &str, more: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{containers: [{{name: c, image: {BUSYBOX}, {more}}}]}}}}"
    )
}

fn status(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]
}

fn killed(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("killed")?;
    space.ok_with(&["apply", "-f", "-"], &pod("p", "command: [sleep, '987654']"))?;
    space.ok(&["wait", "--for=condition=Ready", "pod/p", "--timeout=60s"])?;
    let pid = sleeper("987654").context("the container's process")?;
    let pid = rustix::process::Pid::from_raw(pid).context("a pid")?;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
    let pod = space.until("the container runs again", &["pod/p"], SOON, |p| {
        status(p)["restartCount"] == 1 && status(p)["state"]["running"].is_object()
    })?;
    let last = &status(&pod)["lastState"]["terminated"];
    ensure!(last["exitCode"] == 137 && last["reason"] == "Error", "{last}");
    Ok(())
}

/// The process of the machine that was started as `sleep SECONDS`.
fn sleeper(seconds: &str) -> Option<i32> {
    let entries = std::fs::read_dir("/proc").ok()?;
    let mut pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    // A process may end while we look.
    pids.find(|pid| {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|c| c == format!("sleep\0{seconds}\0").as_bytes())
    })
}

fn out_of_memory(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("memory")?;
    let eat = "command: [sh, -c, 'x=a; while true; do x=$x$x; done'], resources: {limits: {memory: 16Mi}}";
    space.ok_with(&["apply", "-f", "-"], &pod("p", eat))?;
    let killed = |p: &Value| {
        let state = status(p);
        state["state"]["terminated"]["reason"] == "OOMKilled"
            || state["lastState"]["terminated"]["reason"] == "OOMKilled"
    };
    let pod = space.until("OOMKilled", &["pod/p"], SOON, killed).with_context(|| space.describe())?;
    let codes =
        [&status(&pod)["state"]["terminated"]["exitCode"], &status(&pod)["lastState"]["terminated"]["exitCode"]];
    ensure!(codes.iter().any(|c| **c == 137), "{}", status(&pod));
    Ok(())
}

fn crash_loop(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("crash")?;
    space.ok_with(&["apply", "-f", "-"], &pod("p", "command: [sh, -c, 'echo falling; exit 1']"))?;
    let looping = |p: &Value| status(p)["state"]["waiting"]["reason"] == "CrashLoopBackOff";
    let pod = space.until("CrashLoopBackOff", &["pod/p"], SOON, looping).with_context(|| space.describe())?;
    let message = status(&pod)["state"]["waiting"]["message"].as_str().unwrap_or_default().to_owned();
    ensure!(message.starts_with("back-off ") && message.contains("restarting failed container=c pod=p_"), "{message}");
    // The delays double: 10 s, then 20 s.
    space.until("a longer back-off", &["pod/p"], LATER, |p| {
        let message = status(p)["state"]["waiting"]["message"].as_str().unwrap_or_default();
        looping(p) && message.starts_with("back-off 20s")
    })?;
    ensure!(space.ok(&["logs", "p", "--previous"])?.trim() == "falling");
    let events = space.ok(&["get", "events"])?;
    ensure!(events.contains("BackOff") && events.contains("Back-off restarting failed container"), "{events}");
    Ok(())
}

fn unschedulable(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("unschedulable")?;
    space.ok_with(&["apply", "-f", "-"], &pod("p", "resources: {requests: {cpu: '1000'}}"))?;
    let pod = space.until("the pod says why", &["pod/p"], SOON, |p| {
        p["status"]["conditions"].to_string().contains("Insufficient cpu")
    })?;
    let condition = &pod["status"]["conditions"][0];
    ensure!(condition["reason"] == "Unschedulable" && condition["status"] == "False", "{condition}");
    until("an event tells too", SOON, || {
        let events = space.ok(&["get", "events"])?;
        Ok((events.contains("FailedScheduling") && events.contains("0/1 nodes are available: 1 Insufficient cpu"))
            .then_some(()))
    })
}

fn missing_image(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("image")?;
    space.ok(&["run", "p", "--image=nowhere.invalid/none:1"])?;
    space.until("an image error", &["pod/p"], SOON, |p| {
        matches!(status(p)["state"]["waiting"]["reason"].as_str(), Some("ErrImagePull" | "ImagePullBackOff"))
    })?;
    space.ok(&["run", "never", "--image=nowhere.invalid/none:1", "--image-pull-policy=Never"])?;
    space.until("ErrImageNeverPull", &["pod/never"], SOON, |p| {
        status(p)["state"]["waiting"]["reason"] == "ErrImageNeverPull"
    })?;
    Ok(())
}

fn probes(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("probes")?;
    let flaky = "command: [sh, -c, 'touch /tmp/ok; sleep 3600'], \
        livenessProbe: {exec: {command: [test, '!', -e, /tmp/dead]}, periodSeconds: 1, failureThreshold: 1}, \
        readinessProbe: {exec: {command: [test, -e, /tmp/ok]}, periodSeconds: 1, failureThreshold: 1}, terminationMessagePath: /dev/termination-log";
    space.ok_with(&["apply", "-f", "-"], &pod("p", flaky))?;
    let check = || -> Result<()> {
        space.ok(&["wait", "--for=condition=Ready", "pod/p", "--timeout=60s"])?;
        space.ok(&["exec", "p", "--", "rm", "/tmp/ok"])?;
        space.ok(&["wait", "--for=condition=Ready=false", "pod/p", "--timeout=60s"])?;
        space.ok(&["exec", "p", "--", "touch", "/tmp/ok"])?;
        space.ok(&["wait", "--for=condition=Ready", "pod/p", "--timeout=60s"])?;
        space.ok(&["patch", "pod", "p", "-p", r#"{"metadata":{"annotations":{"seen":"yes"}}}"#])?;
        space.ok(&["exec", "p", "--", "touch", "/tmp/dead"])?;
        space.until("a restart by the liveness probe", &["pod/p"], LATER, |p| status(p)["restartCount"] == 1)?;
        let events = space.ok(&["get", "events"])?;
        ensure!(events.contains("Unhealthy") && events.contains("Liveness probe failed"), "{events}");
        ensure!(events.contains("failed liveness probe, will be restarted"), "{events}");
        Ok(())
    };
    check().with_context(|| space.describe())
}

fn graceful(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("graceful")?;
    let polite = "command: [sh, -c, 'trap \"echo goodbye; exit 0\" TERM; echo hello; while true; do sleep 0.1; done']";
    space.ok_with(&["apply", "-f", "-"], &pod("p", polite))?;
    space.ok(&["wait", "--for=condition=Ready", "pod/p", "--timeout=60s"])?;
    let following = space.spawn(&["logs", "-f", "p"])?;
    following.expect("hello", SOON)?;
    let start = std::time::Instant::now();
    space.ok(&["delete", "pod", "p", "--timeout=60s"])?;
    ensure!(start.elapsed() < Duration::from_secs(20), "took {:?}: the signal was not heard", start.elapsed());
    following.expect("goodbye", SOON)?;
    Ok(())
}
