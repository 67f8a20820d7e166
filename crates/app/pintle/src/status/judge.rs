//! What is wrong with a machine, and what to do about it, from what was found.

use crate::cluster::Cluster;
use pintle_cli::status::{Expiring, Node, Report, Role};

/// In the order in which they should be looked at.
pub(super) fn problems(report: &Report, cluster: &Cluster) -> Vec<String> {
    if report.role == Role::None {
        return vec![format!(
            "no cluster or node is set up in {}: make a cluster with `pintle init`, join one with `pintle join`, or try \
             one in this terminal with `pintle up`",
            report.data_dir.display()
        )];
    }
    let mut problems = Vec::new();
    process(report, cluster, &mut problems);
    server(report, &mut problems);
    node(report, &mut problems);
    problems.extend(report.expiring_certificates.iter().map(certificate));
    problems
}

fn process(report: &Report, cluster: &Cluster, problems: &mut Vec<String>) {
    let role = report.role.name();
    match &report.process {
        None => problems.push(format!(
            "the {role} does not run: start it with `pintle {role} --data-dir {}`; what it said last is in {}",
            report.data_dir.display(),
            cluster.data("pintle.log").display()
        )),
        Some(process) if !process.socket_answers => problems.push(format!(
            "process {} does not answer on {}: it may still be starting",
            process.pid,
            cluster.settings.docker_socket().display()
        )),
        Some(_) => {}
    }
}

fn server(report: &Report, problems: &mut Vec<String>) {
    let Some(server) = &report.api_server else { return };
    if let Some(why) = &server.error {
        problems.push(format!("the API server at {} does not answer: {why}", server.url));
    } else if !server.failed_checks.is_empty() {
        problems.push(format!("the API server is not ready: {} failed", server.failed_checks.join(", ")));
    }
    if report.datastore.as_ref().is_some_and(|store| store.healthy == Some(false)) {
        problems.push("the datastore does not answer the API server".to_owned());
    }
}

fn node(report: &Report, problems: &mut Vec<String>) {
    let answered = report.api_server.as_ref().is_some_and(|server| server.error.is_none());
    match &report.node {
        None if answered => {
            problems.push("the cluster does not know this node: it has not registered, or was deleted".to_owned())
        }
        None => {}
        Some(node) => problems.extend(conditions(node)),
    }
}

fn conditions(node: &Node) -> Vec<String> {
    if !node.conditions.iter().any(|condition| condition.kind == "Ready") {
        return vec![format!("node {} has not said whether it is Ready", node.name)];
    }
    let unwell = node.conditions.iter().filter(|condition| !condition.is_well());
    unwell.map(|found| format!("node {}: {} is {}: {}", node.name, found.kind, found.status, found.message)).collect()
}

fn certificate(found: &Expiring) -> String {
    let verb = if found.residual_seconds <= 0 { "ran out" } else { "runs out" };
    match found.name.ends_with("ca") {
        true => format!("the authority {} {verb} at {}: all that it signed goes with it", found.name, found.expires),
        false => format!("certificate {} {verb} at {}: run `pintle certs renew {0}`", found.name, found.expires),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pintle_cli::Settings;
    use pintle_cli::status::{ApiServer, Condition, Datastore, Process};

    fn judged(report: &Report) -> Vec<String> {
        let settings =
            Settings { node_ip: Some("10.1.1.1".parse().unwrap()), data_dir: Some("/d".into()), ..Settings::default() };
        problems(report, &Cluster::new(settings).unwrap())
    }

    fn well() -> Report {
        let ready = Condition {
            kind: "Ready".into(),
            status: "True".into(),
            reason: "KubeletReady".into(),
            message: "m".into(),
        };
        Report {
            data_dir: "/d".into(),
            role: Role::Server,
            process: Some(Process { role: Role::Server, pid: 7, seconds: 1, socket_answers: true }),
            api_server: Some(ApiServer { url: "u".into(), ready: true, ..ApiServer::default() }),
            datastore: Some(Datastore { kind: "embedded", place: "p".into(), bytes: None, healthy: Some(true) }),
            node: Some(Node { name: "n".into(), ready: true, schedulable: true, conditions: vec![ready] }),
            ..Report::default()
        }
    }

    #[test]
    fn a_machine_that_is_well_has_no_problems() {
        assert_eq!(judged(&well()), Vec::<String>::new());
    }

    #[test]
    fn each_problem_says_what_to_do() {
        let one = |change: fn(&mut Report)| {
            let mut report = well();
            change(&mut report);
            judged(&report).join("\n")
        };
        assert!(one(|r| r.role = Role::None).contains("`pintle init`"));
        assert!(
            one(|r| r.process = None)
                .starts_with("the server does not run: start it with `pintle server --data-dir /d`")
        );
        assert!(one(|r| r.node = None).contains("does not know this node"));
        assert!(one(|r| r.datastore.as_mut().unwrap().healthy = Some(false)).contains("datastore"));
        assert!(one(|r| r.api_server.as_mut().unwrap().failed_checks = vec!["etcd".into()]).contains("etcd failed"));
        let unknown = one(|r| r.node.as_mut().unwrap().conditions[0].status = "Unknown".into());
        assert_eq!(unknown, "node n: Ready is Unknown: m");
        let old = |name: &str, residual_seconds| Expiring { name: name.into(), expires: "E".into(), residual_seconds };
        let mut report = well();
        report.expiring_certificates = vec![old("apiserver", -1), old("ca", 60)];
        assert_eq!(
            judged(&report),
            [
                "certificate apiserver ran out at E: run `pintle certs renew apiserver`",
                "the authority ca runs out at E: all that it signed goes with it",
            ]
        );
    }

    #[test]
    fn a_server_that_is_away_says_nothing_of_its_node() {
        let mut report = well();
        report.node = None;
        report.api_server.as_mut().unwrap().error = Some("refused".into());
        assert_eq!(judged(&report), ["the API server at u does not answer: refused"]);
    }
}
