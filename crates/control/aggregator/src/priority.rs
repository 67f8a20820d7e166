//! Where the built-in groups stand among all groups, as their APIServices say it.
//!
//! Source: the priorities in `pkg/controlplane/apiserver/aggregator.go` and `cmd/kube-apiserver/app/aggregator.go`.

/// The priorities of definitions of custom resources.
pub const CUSTOM: Priority = Priority { group: 1000, version: 100 };

/// `groupPriorityMinimum` and `versionPriority`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Priority {
    pub group: i32,
    pub version: i32,
}

/// Group, its priority, and its versions with theirs.
type Row = (&'static str, i32, &'static [(&'static str, i32)]);

const ROWS: &[Row] = &[
    ("", 18000, &[("v1", 1)]),
    ("apps", 17800, &[("v1", 15)]),
    ("events.k8s.io", 17750, &[("v1", 15), ("v1beta1", 5)]),
    ("authentication.k8s.io", 17700, &[("v1", 15), ("v1beta1", 9), ("v1alpha1", 1)]),
    ("authorization.k8s.io", 17600, &[("v1", 15)]),
    ("autoscaling", 17500, &[("v1", 15), ("v2", 30), ("v2beta1", 9), ("v2beta2", 1)]),
    ("batch", 17400, &[("v1", 15), ("v1beta1", 9), ("v2alpha1", 9)]),
    ("certificates.k8s.io", 17300, &[("v1", 15), ("v1beta1", 9), ("v1alpha1", 1)]),
    ("networking.k8s.io", 17200, &[("v1", 15), ("v1beta1", 9), ("v1alpha1", 1)]),
    ("policy", 17100, &[("v1", 15), ("v1beta1", 9)]),
    ("rbac.authorization.k8s.io", 17000, &[("v1", 15)]),
    ("storage.k8s.io", 16800, &[("v1", 15), ("v1beta1", 9), ("v1alpha1", 1)]),
    ("admissionregistration.k8s.io", 16700, &[("v1", 15), ("v1beta1", 12), ("v1alpha1", 9)]),
    ("apiextensions.k8s.io", 16700, &[("v1", 15)]),
    ("scheduling.k8s.io", 16600, &[("v1", 15), ("v1alpha2", 8), ("v1alpha1", 7)]),
    ("coordination.k8s.io", 16500, &[("v1", 15), ("v1beta1", 13), ("v1alpha2", 12)]),
    ("node.k8s.io", 16300, &[("v1", 15), ("v1beta1", 9), ("v1alpha1", 1)]),
    ("discovery.k8s.io", 16200, &[("v1", 15), ("v1beta1", 12)]),
    ("resource.k8s.io", 16200, &[("v1", 20), ("v1beta2", 15), ("v1beta1", 12), ("v1alpha3", 9)]),
    ("flowcontrol.apiserver.k8s.io", 16100, &[("v1", 21), ("v1beta3", 18)]),
    ("internal.apiserver.k8s.io", 16000, &[("v1alpha1", 9)]),
    ("storagemigration.k8s.io", 15800, &[("v1beta1", 9)]),
];

/// The priority of a built-in version; none for what has no APIService.
pub fn built_in(group: &str, version: &str) -> Option<Priority> {
    let (_, own, versions) = ROWS.iter().find(|row| row.0 == group)?;
    let (_, number) = versions.iter().find(|(name, _)| *name == version)?;
    Some(Priority { group: *own, version: *number })
}

/// The priority of a built-in group, by which discovery is ordered. The group of APIServices itself comes first.
pub fn of_group(group: &str) -> Option<i32> {
    if group == "apiregistration.k8s.io" {
        return Some(i32::MAX);
    }
    ROWS.iter().find(|row| row.0 == group).map(|row| row.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_groups_have_upstreams_numbers() {
        assert_eq!(built_in("", "v1"), Some(Priority { group: 18000, version: 1 }));
        assert_eq!(built_in("autoscaling", "v2"), Some(Priority { group: 17500, version: 30 }));
        assert_eq!(built_in("apps", "v9"), None);
        assert_eq!(built_in("apiregistration.k8s.io", "v1"), None);
        assert_eq!(of_group("apiregistration.k8s.io"), Some(i32::MAX));
    }
}
