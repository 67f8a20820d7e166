//! `/debug/pprof/profile`: where the server spends its processor time, for `go tool pprof`.
//!
//! Samples name addresses, not functions, and no callers: who looks at it has the program, whose symbols say the rest.
//! Source of the form: `profile.proto` of google/pprof.

use crate::pipeline::Call;
use crate::response::{text, with_type};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{Response, StatusCode, header};
use pintle_client::Body;
use pintle_grpc::Message;
use pintle_linux::profile::{Sampler, Samples};
use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

const DEFAULT_SECONDS: u64 = 30;
const MAX_SECONDS: u64 = 600;
const PERIOD_US: u32 = 10_000;

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
    }
}

/// Samples for as long as is asked, and answers with what was found. Ends early with the client.
pub(crate) async fn answer(call: &Call) -> Response<Body> {
    let asked = call.query.get("seconds").and_then(|text| text.parse().ok()).filter(|seconds| *seconds > 0);
    let seconds = asked.unwrap_or(DEFAULT_SECONDS).min(MAX_SECONDS);
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
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let mut profile = profile(&samples, &maps);
    profile.time_ns = i64::try_from(start.as_nanosecond()).unwrap_or_default();
    profile.duration_ns = i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000_000);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    let packed = gzip.write_all(&profile.encode()).and_then(|()| gzip.finish());
    let Ok(packed) = packed else { return text(StatusCode::INTERNAL_SERVER_ERROR, "the profile can't be packed\n") };
    let mut response = with_type(StatusCode::OK, "application/octet-stream", packed);
    let file = header::HeaderValue::from_static("attachment; filename=\"profile\"");
    response.headers_mut().insert(header::CONTENT_DISPOSITION, file);
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
}

fn profile(samples: &Samples, maps: &str) -> Profile {
    // The first text is empty by definition.
    let mut texts = Texts(vec![String::new()]);
    let mut counts: BTreeMap<u64, i64> = BTreeMap::new();
    for address in &samples.addresses {
        *counts.entry(*address).or_default() += 1;
    }
    let period = i64::from(PERIOD_US) * 1000;
    let mappings: Vec<Mapping> =
        (1..).zip(maps.lines().filter_map(code)).map(|(id, code)| code.mapping(id, &mut texts)).collect();
    let mut profile = Profile { period, mappings, ..Profile::default() };
    for (id, (address, count)) in (1..).zip(counts) {
        let holds = |mapping: &&Mapping| (mapping.start..mapping.limit).contains(&address);
        let mapping = profile.mappings.iter().find(holds).map_or(0, |mapping| mapping.id);
        profile.locations.push(Location { id, mapping, address });
        profile.samples.push(Sample { locations: vec![id], values: vec![count, count * period] });
    }
    let processor_time = ValueType { kind: texts.place("cpu"), unit: texts.place("nanoseconds") };
    profile.sample_types =
        vec![ValueType { kind: texts.place("samples"), unit: texts.place("count") }, processor_time.clone()];
    profile.period_type = Some(processor_time);
    profile.texts = texts.0;
    profile
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
}
