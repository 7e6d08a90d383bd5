//! Random blocks and matchers: extents, lists of series and the index itself agree.

use isobar_tsdb::block::{BlockMeta, BlockWriter};
use isobar_tsdb::chunks::XorAppender;
use proptest::prelude::*;

use super::*;

const NAMES: [&str; 5] = ["A", "__name__", "job", "le", "pod"];
const VALUES: [&str; 6] = ["a", "ab", "b", "ba", "c", "é"];

/// For each series the places of its values, one more than there are for none; and its chunks' times.
type Drawn = Vec<(Vec<usize>, Vec<u8>)>;

fn block_of(drawn: &Drawn, dir: &Path) -> Option<PathBuf> {
    let mut series: BTreeMap<Labels, Vec<Chunk>> = BTreeMap::new();
    for (values, times) in drawn {
        let pairs = NAMES.iter().zip(values);
        let pairs = pairs.filter_map(|(name, at)| Some((*name, *VALUES.get(*at)?)));
        let labels = Labels::from_pairs(pairs);
        let mut times = times.clone();
        times.sort();
        times.dedup();
        let chunks = times.iter().filter_map(|time| {
            let mut appender = XorAppender::new();
            let from = i64::from(*time) * 10;
            (from..from + 10).for_each(|time| appender.append(time, time as f64));
            appender.into_chunk()
        });
        if !labels.is_empty() {
            series.insert(labels, chunks.collect());
        }
    }
    let texts = series
        .keys()
        .flat_map(Labels::iter)
        .flat_map(|(name, value)| [name, value]);
    let symbols: BTreeSet<&str> = texts.collect();
    let meta = BlockMeta::new(Ulid::from_parts(1, 1), 0, 3000);
    let mut writer = BlockWriter::create(dir, meta, symbols.into_iter().map(Ok)).unwrap();
    for (labels, chunks) in &series {
        writer.add(labels, chunks).unwrap();
    }
    let meta = writer.finish().unwrap()?;
    Some(dir.join(meta.ulid.to_string()))
}

fn matcher() -> impl Strategy<Value = Matcher> {
    let values = prop_oneof![
        prop::sample::select(vec!["", "a", "ab", "b", "é", "x"]).prop_map(|it| (true, it)),
        prop::sample::select(vec![
            "", ".*", ".+", "a|b", "a|", "a.*", "(a|b)b?", "[^a]", "x", "x|a", ".*b"
        ])
        .prop_map(|it| (false, it)),
    ];
    let names = prop::sample::select(vec!["A", "__name__", "job", "le", "pod", "none"]);
    (names, values, any::<bool>()).prop_map(|(name, (text, value), not)| {
        let op = match (text, not) {
            (true, false) => MatchOp::Equal,
            (true, true) => MatchOp::NotEqual,
            (false, false) => MatchOp::Regexp,
            (false, true) => MatchOp::NotRegexp,
        };
        Matcher::new(name, op, value).unwrap()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn all_ways_lead_to_the_same_series(
        drawn in prop::collection::vec(
            (prop::collection::vec(0usize..9, 5), prop::collection::vec(0u8..200, 1..6)),
            1..300,
        ),
        requests in prop::collection::vec(
            (prop::collection::vec(matcher(), 0..4), 0i64..2500, 0i64..1000),
            20,
        ),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let Some(block) = block_of(&drawn, dir.path()) else {
            return Ok(());
        };
        let fixture = Fixture::of(vec![block]);
        let gateways = [Way::Extents, Way::Postings, Way::Cheapest].map(|way| {
            fixture.gateway(GatewayConfig { way, ..fixture.config() })
        });
        for (matchers, from, len) in requests {
            // What is remembered of a selection holds for another range, too.
            for range in [TimeRange::new(from, from + len), TimeRange::new(0, 3000)] {
                let request = SeriesRequest::new(matchers.clone(), range);
                let expected = fixture.naive(&gateways[0], &request);
                for gateway in &gateways {
                    let (got, remarks) = drain(gateway.series(request.clone())).unwrap();
                    prop_assert_eq!(&got, &expected, "{:?}", &request);
                    prop_assert_eq!(remarks, Vec::<String>::new());
                }
            }
        }
    }
}
