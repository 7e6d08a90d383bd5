//! How often a bucket is asked.

use std::time::Duration;

use super::watched::Watched;
use super::*;

#[test]
fn a_cold_series_takes_four_round_trips() {
    let Some(fixture) = Fixture::contract("promql/data") else {
        return;
    };
    let watched = Watched::slow(
        Arc::clone(&fixture.store),
        Duration::from_millis(20),
        u64::MAX,
    );
    for selector in ["__name__=up", "__name__=~node_cpu.*,mode=idle", ""] {
        let data_dir = tempfile::tempdir().unwrap();
        let config = GatewayConfig::new(data_dir.path());
        let gateway = fixture.gateway_over(config, watched.clone());
        watched.forget();
        let request = SeriesRequest::new(matchers(selector), TimeRange::ALL);
        let mut series = gateway.series(request.clone());
        assert!(block_on(series.next()).is_some());
        {
            let seen = watched.seen.lock();
            println!("{selector}: {seen:?} to the first series");
            assert!(seen.waves <= 4, "{selector}: {seen:?}");
        }
        drop(series);
        let (got, _) = drain(gateway.series(request.clone())).unwrap();
        assert!(!got.is_empty());
        watched.forget();
        let (again, _) = drain(gateway.series(request)).unwrap();
        assert_eq!(again, got);
        assert_eq!(watched.seen.lock().requests, 0);
    }
}

#[test]
fn a_start_with_known_cards_reads_nothing() {
    let Some(fixture) = Fixture::contract("life") else {
        return;
    };
    let watched = Watched::slow(
        Arc::clone(&fixture.store),
        Duration::from_millis(50),
        u64::MAX,
    );
    let gateway = fixture.gateway_over(fixture.config(), watched.clone());
    let request = SeriesRequest::new(matchers("__name__=up"), TimeRange::ALL);
    let (first, _) = drain(gateway.series(request.clone())).unwrap();
    watched.forget();
    let gateway = fixture.gateway_over(fixture.config(), watched.clone());
    assert_eq!(watched.seen.lock().requests, 0);
    let (again, _) = drain(gateway.series(request)).unwrap();
    assert_eq!(again, first);
    let seen = watched.seen.lock();
    assert!(seen.waves <= 3, "{seen:?}");
}

#[test]
fn many_sets_take_no_more_round_trips_than_one() {
    let Some(fixture) = Fixture::contract("life") else {
        return;
    };
    let wait = Duration::from_millis(100);
    let watched = Watched::slow(Arc::clone(&fixture.store), wait, u64::MAX);
    let gateway = fixture.gateway_over(fixture.config(), watched.clone());
    let request = SeriesRequest::new(matchers("__name__=up"), TimeRange::ALL);
    let (got, _) = drain(gateway.series(request.clone())).unwrap();
    assert_eq!(got, fixture.naive(&gateway, &request));
    assert!(watched.seen.lock().waves <= 4);
}

#[test]
fn cards_are_published_and_those_of_others_removed() {
    let Some(fixture) = Fixture::contract("ha") else {
        return;
    };
    let gateway = fixture.gateway(fixture.config());
    let request = SeriesRequest::new(matchers("__name__=up"), TimeRange::ALL);
    drain(gateway.series(request.clone())).unwrap();
    let publish = || fixture.runtime.block_on(gateway.publish_cards()).unwrap();
    assert_eq!((publish(), publish()), (fixture.metas.len(), 0));
    for meta in &fixture.metas {
        let in_bucket = block_on(fixture.store.get(&block::bucket_card(meta.id()))).unwrap();
        let in_bucket = block_on(in_bucket.bytes()).unwrap();
        let here = std::fs::read(gateway.inner.card_path(meta.id())).unwrap();
        assert_eq!(in_bucket, here);
    }
    assert_eq!(gateway.remove_other_cards().unwrap(), 0);
    gateway.set_blocks(&fixture.known()[1..]);
    assert_eq!(gateway.remove_other_cards().unwrap(), 1);
    assert!(!gateway.inner.card_path(fixture.metas[0].id()).exists());
}

/// Series are found without the places of metrics, too; these are added while others read the card as it was.
#[test]
fn cards_that_lack_extents_are_of_use_and_completed() {
    for folder in ["ha", "life"] {
        let Some(fixture) = Fixture::contract(folder) else {
            return;
        };
        let all = SeriesRequest::new(Vec::new(), TimeRange::ALL);
        let gateway = fixture.gateway(fixture.config());
        drain(gateway.series(all)).unwrap();
        let paths: Vec<_> = fixture.metas.iter().map(|it| it.id()).collect();
        let paths: Vec<_> = paths
            .iter()
            .map(|id| gateway.inner.card_path(*id))
            .collect();
        let read = || -> Vec<Vec<u8>> {
            let read = |path| std::fs::read(path).unwrap_or_default();
            paths.iter().map(read).collect()
        };
        let whole = read();
        for (path, card) in paths.iter().zip(&whole).filter(|it| !it.1.is_empty()) {
            std::fs::write(path, crate::card::without_extents(card)).unwrap();
        }
        let mut config = fixture.config();
        for way in [Way::Postings, Way::Extents, Way::Cheapest] {
            config.way = way;
            let gateway = fixture.gateway(config.clone());
            let check = || {
                for selector in [
                    "__name__=up",
                    "__name__=~.*_total",
                    "job=~.+",
                    "job!=x,__name__!=",
                ] {
                    let request = SeriesRequest::new(matchers(selector), TimeRange::ALL);
                    let (got, remarks) = drain(gateway.series(request.clone())).unwrap();
                    assert_eq!(got, fixture.naive(&gateway, &request), "{selector}");
                    assert_eq!(remarks, Vec::<String>::new());
                }
            };
            check();
            if way == Way::Cheapest {
                let completed = fixture.runtime.block_on(gateway.complete_cards()).unwrap();
                assert!(completed > 1);
                assert_eq!(read(), whole);
                check();
                let again = fixture.runtime.block_on(gateway.complete_cards());
                assert_eq!(again.unwrap(), 0);
            }
        }
    }
}
