//! Which requests of nodes are approved without a person, and whom the API server is asked about for that.
//!
//! As upstream: kubelets' client certificates, for whoever may create `certificatesigningrequests/nodeclient`, or
//! `/selfnodeclient` for the kubelet itself. Beyond upstream, which leaves these to others: the certificates that
//! kubelets serve with (`/selfnodeserving`, for the node's own name and for addresses that nobody else has), and those
//! of the service proxy on nodes (`/nodeproxyclient`). Source: `pkg/controller/certificates/approver` of Kubernetes.

use super::plan::{NODE, Signer};
use pintle_pki::CertificateRequest;
use pintle_types::k8s::api::certificates::v1::CertificateSigningRequest;
use serde_json::{Value, json};
use std::net::IpAddr;

/// The user that service proxies are.
const PROXY: &str = "system:kube-proxy";

/// What a request was recognized as: the right that is needed for it, and what its approval says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Recognized {
    pub(super) subresource: &'static str,
    pub(super) message: &'static str,
}

const SELF_NODE_CLIENT: Recognized = Recognized {
    subresource: "selfnodeclient",
    message: "Auto approving self kubelet client certificate after SubjectAccessReview.",
};
const NODE_CLIENT: Recognized = Recognized {
    subresource: "nodeclient",
    message: "Auto approving kubelet client certificate after SubjectAccessReview.",
};
const NODE_SERVING: Recognized = Recognized {
    subresource: "selfnodeserving",
    message: "Auto approving self kubelet serving certificate after SubjectAccessReview.",
};
const PROXY_CLIENT: Recognized = Recognized {
    subresource: "nodeproxyclient",
    message: "Auto approving service proxy client certificate after SubjectAccessReview.",
};

/// What the request may be approved as, the narrower right first. `taken` tells whether an address is another's than
/// that node's.
pub(super) fn recognized(
    signer: Signer,
    asking: &str,
    request: &CertificateRequest,
    usages: &[String],
    taken: impl Fn(&str, IpAddr) -> bool,
) -> Vec<Recognized> {
    if signer.check(request, usages).is_err() {
        return Vec::new();
    }
    let name = &request.subject.common_name;
    match signer {
        Signer::KubeletClient if name == asking => vec![SELF_NODE_CLIENT, NODE_CLIENT],
        Signer::KubeletClient => vec![NODE_CLIENT],
        Signer::KubeletServing if name == asking => {
            let node = name.strip_prefix(NODE).unwrap_or_default();
            let own = request.dns_names.iter().all(|dns| dns == node);
            let free = !request.addresses.iter().any(|address| taken(node, *address));
            if own && free { vec![NODE_SERVING] } else { Vec::new() }
        }
        Signer::Client if name == PROXY && asking.starts_with(NODE) => {
            let named = !request.dns_names.is_empty() || !request.addresses.is_empty();
            if request.subject.organizations.is_empty() && !named { vec![PROXY_CLIENT] } else { Vec::new() }
        }
        _ => Vec::new(),
    }
}

/// Whether nobody has said yes or no yet.
pub(super) fn awaits_approval(request: &CertificateSigningRequest) -> bool {
    !["Approved", "Denied", "Failed"].iter().any(|condition| super::plan::has(request, condition))
}

/// The question whether who made the request may create this subresource of requests.
pub(super) fn review(request: &CertificateSigningRequest, subresource: &str) -> Value {
    let spec = &request.spec;
    json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": spec.username,
            "uid": spec.uid,
            "groups": spec.groups,
            "extra": spec.extra,
            "resourceAttributes": {
                "group": "certificates.k8s.io",
                "resource": "certificatesigningrequests",
                "verb": "create",
                "subresource": subresource,
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pintle_pki::KeyAndRequest;

    fn check(signer: Signer, asking: &str, subject: (&str, Option<&str>), names: &[&str], expected: &[Recognized]) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let asked = KeyAndRequest::new(subject.0, subject.1, &names).unwrap();
        let request = CertificateRequest::from_pem(&asked.request_pem).unwrap();
        let purpose = if signer == Signer::KubeletServing { "server auth" } else { "client auth" };
        let usages = ["digital signature".to_owned(), purpose.to_owned()];
        let taken = |node: &str, address: IpAddr| node != "b" && address == IpAddr::from([10, 0, 0, 2]);
        assert_eq!(recognized(signer, asking, &request, &usages, taken), expected, "{asking} {subject:?} {names:?}");
    }

    #[test]
    fn what_nodes_need_is_recognized() {
        let node = ("system:node:a", Some("system:nodes"));
        check(Signer::KubeletClient, "system:bootstrap:abcdef", node, &[], &[NODE_CLIENT]);
        check(Signer::KubeletClient, "system:node:a", node, &[], &[SELF_NODE_CLIENT, NODE_CLIENT]);
        check(Signer::KubeletClient, "system:node:a", ("ann", Some("devs")), &[], &[]);
        check(Signer::KubeletServing, "system:node:a", node, &["a", "10.0.0.1"], &[NODE_SERVING]);
        check(Signer::Client, "system:node:a", (PROXY, None), &[], &[PROXY_CLIENT]);
    }

    #[test]
    fn nothing_of_others_is() {
        let node = ("system:node:a", Some("system:nodes"));
        check(Signer::KubeletServing, "system:node:b", node, &["a"], &[]);
        check(Signer::KubeletServing, "system:node:a", node, &["kubernetes.default.svc"], &[]);
        check(Signer::KubeletServing, "system:node:a", node, &["a", "10.0.0.2"], &[]);
        check(Signer::Client, "system:bootstrap:abcdef", (PROXY, None), &[], &[]);
        check(Signer::Client, "system:node:a", (PROXY, Some("system:nodes")), &[], &[]);
        check(Signer::Client, "system:node:a", ("ann", None), &[], &[]);
    }
}
