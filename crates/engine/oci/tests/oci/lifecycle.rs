//! The life of a container (runtime.md): states, operations, what is refused when.

use crate::bundle::Bundle;
use serde_json::json;

#[test]
fn a_container_goes_through_its_states_and_leaves_nothing() {
    let mut bundle = Bundle::new(&["sleep", "1000"]);
    bundle.config["annotations"] = json!({ "who": "test" });
    assert_eq!(bundle.create().code, 0);
    let state = bundle.state();
    assert_eq!((state["status"].as_str(), state["annotations"]["who"].as_str()), (Some("created"), Some("test")));
    assert!(state["pid"].as_i64().unwrap() > 0 && state["bundle"].as_str().unwrap().starts_with('/'));
    assert_eq!(bundle.on("start", &[]).code, 0);
    assert_eq!(bundle.state()["status"], "running");
    let again = bundle.on("start", &[]);
    assert!(again.code == 1 && again.stderr.contains("already running"), "{again:?}");
    let delete = bundle.on("delete", &[]);
    assert!(delete.code == 1 && delete.stderr.contains("that is not stopped: running"), "{delete:?}");
    assert_eq!(bundle.on("kill", &["KILL"]).code, 0);
    bundle.wait();
    assert_eq!(bundle.state()["status"], "stopped");
    let kill = bundle.on("kill", &["TERM"]);
    assert!(kill.code == 1 && kill.stderr.contains("container not running"), "{kill:?}");
    assert_eq!(bundle.on("delete", &[]).code, 0);
    let gone = bundle.on("state", &[]);
    assert!(gone.code == 1 && gone.stderr.contains("container does not exist"), "{gone:?}");
}

#[test]
fn an_id_is_taken_once_and_errors_go_to_the_log() {
    let bundle = Bundle::new(&["sleep", "1000"]);
    assert_eq!(bundle.create().code, 0);
    let again = bundle.create();
    let line: serde_json::Value = serde_json::from_str(again.stderr.lines().last().unwrap()).unwrap();
    assert_eq!((again.code, line["level"].as_str()), (1, Some("error")));
    assert_eq!(line["msg"], "container with given ID already exists");
    assert_eq!(bundle.state()["status"], "created");
}

#[test]
fn a_program_that_is_not_there_fails_the_creation_and_leaves_nothing() {
    let bundle = Bundle::new(&["nope"]);
    let done = bundle.create();
    assert!(done.code == 1 && done.stderr.contains("executable file not found in $PATH"), "{done:?}");
    assert!(bundle.on("state", &[]).stderr.contains("does not exist"));
}

#[test]
fn exit_codes_and_output_are_the_programs() {
    let bundle = Bundle::new(&["sh", "-c", "echo out; echo err >&2; exit 7"]);
    let done = bundle.run_container();
    assert_eq!((done.code, done.stdout.as_str(), done.stderr.as_str()), (7, "out\n", "err\n"));
}

#[test]
fn processes_are_executed_in_a_running_container() {
    let mut bundle = Bundle::new(&["sleep", "1000"]);
    bundle.config["process"]["env"] = json!(["PATH=/bin", "COLOUR=blue"]);
    assert_eq!(bundle.create().code, 0);
    assert_eq!(bundle.on("start", &[]).code, 0);
    let done = bundle.on("exec", &["sh", "-c", "echo $COLOUR $(cat /proc/1/cmdline | head -c 5); exit 5"]);
    assert_eq!((done.code, done.stdout.as_str()), (5, "blue sleep\n"), "{done:?}");
    let done = bundle.on("exec", &["nope"]);
    assert!(done.code == 255 && done.stderr.contains("executable file not found in $PATH"), "{done:?}");
    let as_user = bundle.run(&[
        "exec",
        "--user",
        "5:6",
        "--cwd",
        "/tmp",
        "--env",
        "A=b",
        &bundle.id,
        "sh",
        "-c",
        "id; pwd; echo $A",
    ]);
    assert_eq!(as_user.stdout, "uid=5 gid=6\n/tmp\nb\n", "{as_user:?}");
    let listed: Vec<i32> = serde_json::from_str(&bundle.run(&["ps", "--format", "json", &bundle.id]).stdout).unwrap();
    assert_eq!(listed.len(), 1);
}

#[test]
fn a_paused_container_is_told_and_goes_on() {
    let bundle = Bundle::new(&["sleep", "1000"]);
    assert_eq!(bundle.create().code, 0);
    bundle.on("start", &[]);
    assert_eq!(bundle.on("pause", &[]).code, 0);
    assert_eq!(bundle.state()["status"], "paused");
    assert!(bundle.on("exec", &["true"]).stderr.contains("paused container"));
    assert_eq!(bundle.on("resume", &[]).code, 0);
    assert_eq!(bundle.on("exec", &["true"]).code, 0);
}

#[test]
fn limits_are_set_and_changed_and_use_is_told() {
    let mut bundle = Bundle::new(&["sleep", "1000"]);
    bundle.config["linux"]["resources"]["memory"] = json!({ "limit": 32 << 20 });
    assert_eq!(bundle.create().code, 0);
    bundle.on("start", &[]);
    let script = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max";
    assert_eq!(bundle.on("exec", &["sh", "-c", script]).stdout, "33554432\n");
    assert_eq!(bundle.run(&["update", "--memory", "67108864", "--pids-limit", "9", &bundle.id]).code, 0);
    assert_eq!(bundle.on("exec", &["sh", "-c", script]).stdout, "67108864\n");
    let event: serde_json::Value =
        serde_json::from_str(&bundle.run(&["events", "--stats", &bundle.id]).stdout).unwrap();
    assert_eq!(event["data"]["memory"]["usage"]["limit"], 64 << 20);
    assert_eq!(event["data"]["pids"]["current"], 1);
}

#[test]
fn hooks_run_in_their_order_with_the_state() {
    let mut bundle = Bundle::new(&["true"]);
    let (log, config) = (bundle.path("hooks"), &mut bundle.config);
    let hook = |name: &str| {
        let script = format!("read s; echo {name} $(echo $s | grep -o '\"status\":\"[a-z]*\"') >> {log}");
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"] }])
    };
    config["hooks"] = json!({
        "prestart": hook("prestart"), "createRuntime": hook("createRuntime"),
        "createContainer": hook("createContainer"), "poststart": hook("poststart"), "poststop": hook("poststop"),
    });
    let done = bundle.run_container();
    assert_eq!(done.code, 0, "{done:?}");
    let said = std::fs::read_to_string(&log).unwrap();
    let expected = "prestart \"status\":\"creating\"\ncreateRuntime \"status\":\"creating\"\n\
                    createContainer \"status\":\"creating\"\npoststart \"status\":\"running\"\n\
                    poststop \"status\":\"stopped\"\n";
    assert_eq!(said, expected);
}

#[test]
fn a_hook_that_fails_ends_the_creation() {
    let mut bundle = Bundle::new(&["true"]);
    bundle.config["hooks"] =
        json!({ "createRuntime": [{ "path": "/bin/sh", "args": ["sh", "-c", "echo no >&2; exit 4"] }] });
    let done = bundle.create();
    assert!(done.code == 1 && done.stderr.contains("createRuntime hook #0") && done.stderr.contains("no"), "{done:?}");
    assert!(bundle.on("state", &[]).stderr.contains("does not exist"));
}
