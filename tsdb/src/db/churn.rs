//! Series that come and go for ever: what the head keeps of them does not grow.

use isobar_model::{Clock, Labels, Tenant};

use super::{Db, DbConfig};
use crate::head::BLOCK_RANGE_MS;
use crate::head::incoming::IncomingSeries;

struct Series {
    text: String,
    time_ms: i64,
}

impl IncomingSeries for Series {
    fn encoded_labels(&self) -> &[u8] {
        self.text.as_bytes()
    }

    fn labels(&self) -> Result<Labels, String> {
        let pairs = self.text.split(',').filter_map(|pair| pair.split_once('='));
        Ok(Labels::from_pairs(pairs))
    }

    fn samples(&self, mut each: impl FnMut(i64, f64)) {
        each(self.time_ms, 1.0);
        // A late one.
        each(self.time_ms - 60_000, 2.0);
    }
}

#[test]
fn a_head_does_not_grow_with_series_that_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = DbConfig::new(dir.path());
    config.clock = Clock::manual(1 << 45);
    config.sync = super::Sync::Interval(std::time::Duration::from_secs(1));
    let db = Db::open(config).unwrap();
    let tenant = Tenant::default();
    let mut rooms: Vec<Vec<usize>> = Vec::new();
    for round in 0..40_i64 {
        for quarter in 0..4 {
            let time_ms = (round * 4 + quarter) * BLOCK_RANGE_MS / 4 + 120_000;
            let series = (0..300).map(|i| Series {
                text: format!("__name__=m{i},label_{round}={i},pod={round}-{i}"),
                time_ms,
            });
            let series: Vec<Series> = series.collect();
            let append = db.append(&tenant, &series).unwrap();
            assert_eq!(append.appended, 600);
            db.maintain().unwrap();
        }
        rooms.push(db.head.rooms());
        assert!(db.head_stats(None).series <= 900);
    }
    let most = |of: &[Vec<usize>], at: usize| of.iter().map(|it| it[at]).max();
    for at in 0..rooms[0].len() {
        let (early, late) = (most(&rooms[5..20], at), most(&rooms[20..], at));
        // Shards are filled by chance, so a few more slots are no growth.
        assert!(
            late <= early.map(|it| it + it / 5),
            "{at}: {early:?} {late:?} of {rooms:?}"
        );
    }
}
