//! What is counted is shown, in the order and form that Prometheus reads.

use super::*;

#[test]
fn families_are_shown_in_the_order_of_their_names() {
    let registry = Registry::default();
    let total = registry.counters("b_total", "B's.", &["x", "y"]);
    total.with(&["2", "a\"b\\c\n"]).add(3);
    total.with(&["1"]).inc();
    registry.gauge("a", "A.").set(2.5);
    registry.counters("never_total", "Nothing yet.", &["z"]);
    let expected = "# HELP a A.\n# TYPE a gauge\na 2.5\n\
         # HELP b_total B's.\n# TYPE b_total counter\n\
         b_total{x=\"1\",y=\"\"} 1\nb_total{x=\"2\",y=\"a\\\"b\\\\c\\n\"} 3\n";
    assert_eq!(registry.render(), expected);
}

#[test]
fn histograms_add_up() {
    let registry = Registry::default();
    let histogram = registry.histogram("h", "H.", &[0.1, 1.0]);
    for value in [0.05, 0.1, 0.5, 7.0] {
        histogram.observe(value);
    }
    let expected = "# HELP h H.\n# TYPE h histogram\nh_bucket{le=\"0.1\"} 2\nh_bucket{le=\"1\"} 3\n\
         h_bucket{le=\"+Inf\"} 4\nh_sum 7.65\nh_count 4\n";
    assert_eq!(registry.render(), expected);
    assert_eq!(histogram.count(), 4);
}

#[test]
fn too_many_series_become_one() {
    let registry = Registry::default();
    let family = registry.counters("n_total", "N.", &["n"]);
    for n in 0..MAX_SERIES + 10 {
        family.with(&[&n.to_string()]).inc();
    }
    assert_eq!(family.series().len(), MAX_SERIES + 1);
    assert_eq!(family.with(&["overflow"]).get(), 10);
}

#[test]
fn series_are_forgotten() {
    let registry = Registry::default();
    let family = registry.gauges("g", "G.", &["name"]);
    family.with(&["a"]).inc();
    family.with(&["b"]).inc();
    family.retain(|values| &*values[0] != "a");
    assert_eq!(registry.render(), "# HELP g G.\n# TYPE g gauge\ng{name=\"b\"} 1\n");
}

#[test]
fn the_process_tells_of_itself() {
    let registry = Registry::default();
    registry.on_scrape(process);
    let text = registry.render();
    for name in ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_max_fds"] {
        assert!(text.contains(&format!("\n{name} ")), "{name}: {text}");
    }
}
