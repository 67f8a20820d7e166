//! `/debug/pprof/`: where the server spends its processor time (`profile`) and who holds its memory (`heap`), for
//! `go tool pprof`.
//!
//! Samples name addresses, not functions, those of processor time no callers either: who looks at it has the program,
//! whose symbols say the rest. Source of the form: `profile.proto` of google/pprof.

use crate::pipeline::Call;
use crate::response::{text, with_type};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{Response, StatusCode, header};
use pintle_client::Body;
use pintle_grpc::Message;
use pintle_linux::heap_profile::{self, HeapSamples};
use pintle_linux::profile::{Sampler, Samples};
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::time::Duration;

const DEFAULT_SECONDS: u64 = 30;
const MAX_SECONDS: u64 = 600;
const PERIOD_US: u32 = 10_000;
/// Bytes between two samples of a heap that was not sampled from the start; few enough to see what grows slowly.
const HEAP_RATE: usize = 16 << 10;

pintle_grpc::messages! {
    /// Both are texts of the table.
    ValueType { 1 kind: i64, 2 unit: i64, }
    Sample { 1 locations: Vec<u64>, 2 values: Vec<i64>, }
    Mapping { 1 id: u64, 2 start: u64, 3 limit: u64, 4 offset: u64, 5 file: i64, }
    Location { 1 id: u64, 2 mapping: u64, 3 address: u64, }
    Profile {
        1 sample_types: Vec<ValueType>,
        2 samples: Vec<Sample>,
        3 mappings: Vec<Mapping>,
        4 locations: Vec<Location>,
        6 texts: Vec<String>,
        9 time_ns: i64,
        10 duration_ns: i64,
        11 period_type: Option<ValueType>,
        12 period: i64,
        // A text of the table, as those of the types.
        14 shown_type: i64,
    }
}

/// Samples for as long as is asked, and answers with what was found. Ends early with the client.
pub(crate) async fn answer(call: &Call) -> Response<Body> {
    let seconds = seconds(call).unwrap_or(DEFAULT_SECONDS);
    let start = call.server.clock.now();
    let sampler = match Sampler::start(PERIOD_US) {
        Ok(sampler) => sampler,
        Err(error) => {
            let why = format!("Could not enable CPU profiling: {error}\n");
            return text(StatusCode::INTERNAL_SERVER_ERROR, why);
        }
    };
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let samples = sampler.stop();
    let mut profile = profile(&samples, &maps());
    profile.time_ns = i64::try_from(start.as_nanosecond()).unwrap_or_default();
    profile.duration_ns = i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000_000);
    packed(&profile, "profile")
}

/// What is allocated: since the start, if the server was told to sample from there on; otherwise in as many seconds as
/// are asked, and of that in use at their end.
pub(crate) async fn heap(call: &Call, name: &'static str) -> Response<Body> {
    let start = call.server.clock.now();
    let samples = match (heap_profile::samples(), seconds(call)) {
        (Some(samples), None) => samples,
        (None, None) => {
            let why = "not supported: samples of the heap since the start, without --heap-profile-rate; what is \
                       allocated from now on can be asked for with `seconds`\n";
            return text(StatusCode::NOT_IMPLEMENTED, why);
        }
        (_, Some(seconds)) => match sample_heap(seconds).await {
            Some(samples) => samples,
            None => {
                let why = "Could not enable heap profiling: samples are being taken already\n";
                return text(StatusCode::INTERNAL_SERVER_ERROR, why);
            }
        },
    };
    let mut profile = heap_of(&samples, &maps(), name);
    profile.time_ns = i64::try_from(start.as_nanosecond()).unwrap_or_default();
    packed(&profile, name)
}

/// Samples of what is allocated in that time; nothing while others are taken.
async fn sample_heap(seconds: u64) -> Option<HeapSamples> {
    /// Ends with the one who asked.
    struct Sampling;
    impl Drop for Sampling {
        fn drop(&mut self) {
            heap_profile::stop();
        }
    }
    let _sampling = heap_profile::start(HEAP_RATE).then_some(Sampling)?;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    heap_profile::samples()
}

fn seconds(call: &Call) -> Option<u64> {
    let asked = call.query.get("seconds").and_then(|text| text.parse().ok()).filter(|seconds| *seconds > 0);
    asked.map(|seconds: u64| seconds.min(MAX_SECONDS))
}

fn maps() -> String {
    std::fs::read_to_string("/proc/self/maps").unwrap_or_default()
}

fn packed(profile: &Profile, name: &str) -> Response<Body> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    let packed = gzip.write_all(&profile.encode()).and_then(|()| gzip.finish());
    let Ok(packed) = packed else { return text(StatusCode::INTERNAL_SERVER_ERROR, "the profile can't be packed\n") };
    let mut response = with_type(StatusCode::OK, "application/octet-stream", packed);
    if let Ok(file) = header::HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")) {
        response.headers_mut().insert(header::CONTENT_DISPOSITION, file);
    }
    response
}

/// Texts, each once, by their places.
struct Texts(Vec<String>);

impl Texts {
    fn place(&mut self, text: &str) -> i64 {
        let place = self.0.iter().position(|known| known == text).unwrap_or_else(|| {
            self.0.push(text.to_owned());
            self.0.len() - 1
        });
        place as i64
    }

    fn kind(&mut self, kind: &str, unit: &str) -> ValueType {
        ValueType { kind: self.place(kind), unit: self.place(unit) }
    }
}

fn profile(samples: &Samples, maps: &str) -> Profile {
    let mut counts: BTreeMap<u64, i64> = BTreeMap::new();
    for address in &samples.addresses {
        *counts.entry(*address).or_default() += 1;
    }
    let period = i64::from(PERIOD_US) * 1000;
    let counts = counts.into_iter().map(|(address, count)| (vec![address], vec![count, count * period]));
    let (mut profile, mut texts) = found(counts, maps);
    let processor_time = texts.kind("cpu", "nanoseconds");
    profile.sample_types = vec![texts.kind("samples", "count"), processor_time.clone()];
    (profile.period_type, profile.period) = (Some(processor_time), period);
    Profile { texts: texts.0, ..profile }
}

/// A profile of the heap; `name` says what of it is shown first.
fn heap_of(samples: &HeapSamples, maps: &str, name: &str) -> Profile {
    let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let places = samples.places.iter().map(|place| {
        let (all, used) = (place.allocated(samples.rate), place.in_use(samples.rate));
        // What is returned to comes after the call.
        let calls: Vec<u64> = place.callers.iter().map(|address| address.saturating_sub(1)).collect();
        (calls, [all.0, all.1, used.0, used.1].map(number).to_vec())
    });
    let (mut profile, mut texts) = found(places, maps);
    let all = [("alloc_objects", "count"), ("alloc_space", "bytes")];
    let used = [("inuse_objects", "count"), ("inuse_space", "bytes")];
    profile.sample_types = all.into_iter().chain(used).map(|(kind, unit)| texts.kind(kind, unit)).collect();
    profile.period_type = Some(texts.kind("space", "bytes"));
    profile.period = number(samples.rate as u64);
    profile.shown_type = texts.place(if name == "allocs" { "alloc_space" } else { "inuse_space" });
    Profile { texts: texts.0, ..profile }
}

/// Samples with the places that they name, innermost first, and what is mapped there.
fn found(samples: impl Iterator<Item = (Vec<u64>, Vec<i64>)>, maps: &str) -> (Profile, Texts) {
    // The first text is empty by definition.
    let mut texts = Texts(vec![String::new()]);
    let mappings: Vec<Mapping> =
        (1..).zip(maps.lines().filter_map(code)).map(|(id, code)| code.mapping(id, &mut texts)).collect();
    let mut profile = Profile { mappings, ..Profile::default() };
    let mut known: HashMap<u64, u64> = HashMap::new();
    for (addresses, values) in samples {
        let locations = addresses.into_iter().map(|address| {
            *known.entry(address).or_insert_with(|| {
                let holds = |mapping: &&Mapping| (mapping.start..mapping.limit).contains(&address);
                let mapping = profile.mappings.iter().find(holds).map_or(0, |mapping| mapping.id);
                let id = profile.locations.len() as u64 + 1;
                profile.locations.push(Location { id, mapping, address });
                id
            })
        });
        let locations = locations.collect();
        profile.samples.push(Sample { locations, values });
    }
    (profile, texts)
}

/// A range of addresses with instructions.
struct Code<'a> {
    start: u64,
    limit: u64,
    offset: u64,
    file: &'a str,
}

impl Code<'_> {
    fn mapping(&self, id: u64, texts: &mut Texts) -> Mapping {
        Mapping { id, start: self.start, limit: self.limit, offset: self.offset, file: texts.place(self.file) }
    }
}

/// One line of `/proc/self/maps` (proc(5)), when instructions can be run there.
fn code(line: &str) -> Option<Code<'_>> {
    let mut words = line.split_ascii_whitespace();
    let (start, limit) = words.next()?.split_once('-')?;
    words.next().filter(|permissions| permissions.contains('x'))?;
    let offset = words.next()?;
    let hex = |text| u64::from_str_radix(text, 16).ok();
    Some(Code { start: hex(start)?, limit: hex(limit)?, offset: hex(offset)?, file: words.nth(2).unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_counted_by_address_within_what_is_mapped() {
        let maps = "1000-2000 r--p 00000000 08:01 7   /bin/pintle\n\
                    2000-4000 r-xp 00001000 08:01 7   /bin/pintle\n\
                    7000-8000 r-xp 00000000 00:00 0   [vdso]\n";
        let samples = Samples { addresses: vec![0x2010, 0x7001, 0x2010, 0x9000], lost: 0 };
        let profile = profile(&samples, maps);
        let name = |place: i64| profile.texts[usize::try_from(place).expect("a place")].as_str();
        let files: Vec<_> = profile.mappings.iter().map(|m| (m.id, m.start, m.limit, m.offset, name(m.file))).collect();
        assert_eq!(files, [(1, 0x2000, 0x4000, 0x1000, "/bin/pintle"), (2, 0x7000, 0x8000, 0, "[vdso]")]);
        let places: Vec<_> = profile.locations.iter().map(|l| (l.id, l.mapping, l.address)).collect();
        assert_eq!(places, [(1, 1, 0x2010), (2, 2, 0x7001), (3, 0, 0x9000)]);
        let values: Vec<_> = profile.samples.iter().map(|s| (s.locations.as_slice(), s.values.as_slice())).collect();
        assert_eq!(values[0], (&[1][..], &[2, 20_000_000][..]));
        let types: Vec<_> = profile.sample_types.iter().map(|t| (name(t.kind), name(t.unit))).collect();
        assert_eq!(types, [("samples", "count"), ("cpu", "nanoseconds")]);
        assert_eq!(profile.texts[0], "");
    }

    #[test]
    fn what_is_held_is_told_with_the_calls_that_led_to_it() {
        let place = |callers: &[u64], frees| pintle_linux::heap_profile::Place {
            callers: callers.into(),
            allocations: 4,
            allocated_bytes: 400,
            frees,
            freed_bytes: frees * 100,
        };
        let samples = HeapSamples { rate: 1, places: vec![place(&[0x2011, 0x3001], 1), place(&[0x2021, 0x3001], 4)] };
        let profile = heap_of(&samples, "2000-4000 r-xp 00001000 08:01 7   /bin/pintle\n", "heap");
        let places: Vec<_> = profile.locations.iter().map(|l| (l.id, l.mapping, l.address)).collect();
        assert_eq!(places, [(1, 1, 0x2010), (2, 1, 0x3000), (3, 1, 0x2020)]);
        let found: Vec<_> = profile.samples.iter().map(|s| (s.locations.as_slice(), s.values.as_slice())).collect();
        assert_eq!(found, [(&[1, 2][..], &[4, 400, 3, 300][..]), (&[3, 2][..], &[4, 400, 0, 0][..])]);
        assert_eq!(profile.texts[usize::try_from(profile.shown_type).expect("a place")], "inuse_space");
        assert_eq!(profile.sample_types.len(), 4);
    }
}
