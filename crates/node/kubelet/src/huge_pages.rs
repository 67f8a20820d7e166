//! Huge pages: how many the machine has, what resources and cgroups call them, and which of them volumes are made of.
//!
//! Source: `pkg/apis/core/v1/helper` (names), `pkg/volume/emptydir` (media).

use crate::reference::{init_containers, spec};
use crate::resources::limit;
use pintle_types::k8s::api::core::v1::{Container, Pod, ResourceRequirements};
use pintle_types::quantity::Quantity;
use std::collections::BTreeSet;
use std::path::Path;

const PREFIX: &str = "hugepages-";
/// A volume of huge pages, of the size that its pod asks for.
const MEDIUM: &str = "HugePages";
/// Each is 1024 times the one before.
const UNITS: [(&str, &str); 4] = [("", "B"), ("Ki", "KB"), ("Mi", "MB"), ("Gi", "GB")];

/// The huge pages of one size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HugePages {
    pub page_bytes: u64,
    pub count: u64,
}

impl HugePages {
    /// What the kernel has in a folder such as `/sys/kernel/mm/hugepages`, small ones first. None where the kernel has
    /// no huge pages.
    pub fn read(folder: &Path) -> Vec<Self> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let size = |entry: std::fs::DirEntry| {
            let kibibytes: u64 =
                entry.file_name().to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            let count = std::fs::read_to_string(entry.path().join("nr_hugepages")).ok()?.trim().parse().ok()?;
            Some(Self { page_bytes: kibibytes.checked_mul(1024)?, count })
        };
        let mut sizes: Vec<Self> = entries.filter_map(size).collect();
        sizes.sort_by_key(|pages| pages.page_bytes);
        sizes
    }

    /// All of them together.
    pub fn bytes(&self) -> u64 {
        self.page_bytes.saturating_mul(self.count)
    }

    /// What the node calls the resource: `hugepages-2Mi`.
    pub fn resource(&self) -> String {
        let (number, unit) = in_units(self.page_bytes);
        format!("{PREFIX}{number}{}", UNITS[unit].0)
    }
}

/// The largest unit that a number of bytes is a whole multiple of.
fn in_units(mut number: u64) -> (u64, usize) {
    let mut unit = 0;
    while unit + 1 < UNITS.len() && number >= 1024 && number.is_multiple_of(1024) {
        number /= 1024;
        unit += 1;
    }
    (number, unit)
}

/// What cgroups call pages of this size: `2MB`.
fn in_cgroups(page_bytes: u64) -> String {
    let (number, unit) = in_units(page_bytes);
    format!("{number}{}", UNITS[unit].1)
}

/// Bytes of a page of `2Mi`.
fn page_bytes(size: &str) -> Option<u64> {
    let size = size.parse::<Quantity>().ok()?;
    u64::try_from(size.units()).ok().filter(|bytes| *bytes > 0)
}

fn names(resources: Option<&ResourceRequirements>) -> impl Iterator<Item = &String> {
    let lists = resources.into_iter().flat_map(|r| [r.requests.as_ref(), r.limits.as_ref()]);
    lists.flatten().flat_map(|list| list.keys()).filter(|name| name.starts_with(PREFIX))
}

/// The kinds of huge pages that a pod asks for.
pub fn asked(pod: &Pod) -> BTreeSet<String> {
    let containers = init_containers(pod).iter().chain(&spec(pod).containers).map(|c| c.resources.as_ref());
    containers.chain([spec(pod).resources.as_ref()]).flat_map(names).cloned().collect()
}

/// The limits for the cgroup of a container or of a whole pod: bytes by size, in the words of cgroups. `amount` says
/// what there is of a resource.
fn limits(names: impl Iterator<Item = String>, amount: impl Fn(&str) -> Option<Quantity>) -> Vec<(String, u64)> {
    let limit = |name: String| {
        let size = in_cgroups(page_bytes(name.strip_prefix(PREFIX)?)?);
        Some((size, u64::try_from(amount(&name)?.units()).ok()?))
    };
    names.filter_map(limit).collect()
}

/// What a container may have: what its pod has as a whole where it says nothing itself.
pub fn of_container(pod: &Pod, container: &Container) -> Vec<(String, u64)> {
    let amount =
        |name: &str| limit(container.resources.as_ref(), name).or_else(|| limit(spec(pod).resources.as_ref(), name));
    limits(asked(pod).into_iter(), amount)
}

/// What all containers of a pod may have together.
pub fn of_pod(pod: &Pod, total: impl Fn(&str) -> Option<Quantity>) -> Vec<(String, u64)> {
    limits(asked(pod).into_iter(), total)
}

/// The same for a machine with these pages: of those that nobody asked for there are none, and no limits for others.
pub fn on_machine(limits: &[(String, u64)], machine: &[HugePages]) -> Vec<(String, u64)> {
    let limit = |pages: &HugePages| {
        let size = in_cgroups(pages.page_bytes);
        let bytes = limits.iter().find(|(name, _)| *name == size).map_or(0, |(_, bytes)| *bytes);
        (size, bytes)
    };
    machine.iter().map(limit).collect()
}

/// Whether a volume's medium is huge pages.
pub fn is_medium(medium: &str) -> bool {
    medium.strip_prefix(MEDIUM).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// Bytes of a page for a volume of this medium, or why the pod can't have it.
pub fn page_bytes_of_volume(medium: &str, pod: &Pod) -> Result<u64, String> {
    let size = |text: &str| page_bytes(text).ok_or_else(|| format!("{text:?} is not a size of huge pages"));
    let asked: Vec<u64> = asked(pod).iter().filter_map(|name| page_bytes(name.strip_prefix(PREFIX)?)).collect();
    let wanted = medium.strip_prefix(MEDIUM).and_then(|rest| rest.strip_prefix('-')).map(size).transpose()?;
    let found = match (wanted, asked.as_slice()) {
        (Some(wanted), _) => asked.iter().find(|size| **size == wanted),
        (None, [] | [_]) => asked.first(),
        (None, _) => {
            return Err(format!("medium: {medium} can't be used if container requests multiple huge page sizes"));
        }
    };
    found.copied().ok_or_else(|| {
        format!("medium {medium}: hugePages storage requested, but there is no resource request for huge pages")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::pods::pod;
    use serde_json::{Value, json};

    const TWO_MEBIBYTES: HugePages = HugePages { page_bytes: 2 << 20, count: 8 };
    const GIBIBYTE: HugePages = HugePages { page_bytes: 1 << 30, count: 0 };

    fn container(limits: Value) -> Value {
        json!({"name": "c", "resources": {"limits": limits}})
    }

    #[test]
    fn the_kernels_pages_are_read_and_named() {
        let dir = crate::fake::temporary_directory();
        for (name, count) in [("hugepages-1048576kB", "0\n"), ("hugepages-2048kB", "8\n"), ("else", "1\n")] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            std::fs::write(dir.path().join(name).join("nr_hugepages"), count).unwrap();
        }
        assert_eq!(HugePages::read(dir.path()), [TWO_MEBIBYTES, GIBIBYTE]);
        assert_eq!(HugePages::read(&dir.path().join("none")), []);
        assert_eq!((TWO_MEBIBYTES.bytes(), GIBIBYTE.bytes()), (16 << 20, 0));
        for (bytes, resource, in_kernel) in [
            (64 << 10, "hugepages-64Ki", "64KB"),
            (2 << 20, "hugepages-2Mi", "2MB"),
            (512 << 20, "hugepages-512Mi", "512MB"),
            (16 << 30, "hugepages-16Gi", "16GB"),
        ] {
            assert_eq!(HugePages { page_bytes: bytes, count: 1 }.resource(), resource);
            assert_eq!(in_cgroups(bytes), in_kernel);
        }
    }

    #[test]
    fn containers_and_pods_have_limits_for_all_sizes_of_the_machine() {
        let machine = [TWO_MEBIBYTES, GIBIBYTE];
        let asked = pod(json!({
            "initContainers": [container(json!({"hugepages-2Mi": "12Mi"}))],
            "containers": [container(json!({"hugepages-2048Ki": "4Mi", "hugepages-32Mi": "32Mi"})), container(json!({}))],
        }));
        let of = |at: usize| on_machine(&of_container(&asked, &spec(&asked).containers[at]), &machine);
        let limits = |bytes: u64| vec![("2MB".to_owned(), bytes), ("1GB".to_owned(), 0)];
        assert_eq!((of(0), of(1)), (limits(4 << 20), limits(0)));
        let whole = pod(json!({"resources": {"limits": {"hugepages-2Mi": "8Mi"}}, "containers": [
            container(json!({"hugepages-2Mi": "2Mi"})), container(json!({}))]}));
        let of = |at: usize| on_machine(&of_container(&whole, &spec(&whole).containers[at]), &machine);
        assert_eq!((of(0), of(1)), (limits(2 << 20), limits(8 << 20)));
    }

    fn check_medium(medium: &str, containers: &[Value], expected: Result<u64, &str>) {
        let pod = pod(json!({"containers": containers}));
        let got = page_bytes_of_volume(medium, &pod);
        assert_eq!(got.as_ref().map_err(String::as_str), expected.as_ref().map_err(|e| *e), "{medium} {containers:?}");
    }

    #[test]
    fn a_volume_has_pages_of_a_size_that_its_pod_asks_for() {
        let small = || container(json!({"hugepages-2Mi": "4Mi"}));
        let large = || container(json!({"hugepages-1Gi": "1Gi"}));
        let none = || container(json!({"memory": "1Gi"}));
        check_medium("HugePages", &[none(), small(), small()], Ok(2 << 20));
        check_medium("HugePages-1Gi", &[small(), large()], Ok(1 << 30));
        check_medium("HugePages-2048Ki", &[small(), large()], Ok(2 << 20));
        let several = "medium: HugePages can't be used if container requests multiple huge page sizes";
        check_medium("HugePages", &[small(), large()], Err(several));
        let missing = |medium: &str| {
            format!("medium {medium}: hugePages storage requested, but there is no resource request for huge pages")
        };
        check_medium("HugePages", &[none()], Err(&missing("HugePages")));
        check_medium("HugePages-1Gi", &[small()], Err(&missing("HugePages-1Gi")));
        check_medium("HugePages-x", &[small()], Err("\"x\" is not a size of huge pages"));
        for (medium, is) in [("HugePages", true), ("HugePages-2Mi", true), ("HugePagesX", false), ("Memory", false)] {
            assert_eq!(is_medium(medium), is, "{medium}");
        }
    }
}
