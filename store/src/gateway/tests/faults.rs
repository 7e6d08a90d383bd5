//! What is damaged, missing or out of reach: right answers, or a remark that says what is missing.

use object_store::path::Path;

use super::watched::{Fault, Watched};
use super::*;

/// A bucket of the contract, the block that is going to fail, and all that it and the others hold.
fn fixture() -> Option<(Fixture, Arc<Watched>, Ulid)> {
    let fixture = Fixture::contract("ha")?;
    let watched = Watched::new(Arc::clone(&fixture.store));
    let bad = fixture.metas[1].id();
    Some((fixture, watched, bad))
}

fn all() -> SeriesRequest {
    SeriesRequest::new(matchers("__name__=~.+"), TimeRange::ALL)
}

/// Everything of the blocks that do not fail comes, and one remark about the one that does.
fn check_left_out(fixture: &Fixture, gateway: &Gateway, bad: Ulid, remark: &str) {
    let others = SeriesRequest {
        block_matchers: vec![
            Matcher::new(choose::BLOCK_ID, MatchOp::NotEqual, bad.to_string()).unwrap(),
        ],
        ..all()
    };
    let expected = fixture.naive(gateway, &others);
    let (got, remarks) = drain(gateway.series(all())).unwrap();
    let start = format!("fetch series for block {bad}: ");
    assert!(
        remarks.len() == 1 && remarks[0].starts_with(&start),
        "{remarks:?}"
    );
    assert!(remarks[0].contains(remark), "{remarks:?}");
    // Of the bad block some may have come before it failed.
    let whole = fixture.naive(gateway, &all());
    let of = |series: &[SeriesChunks], labels: &Labels| -> Vec<Chunk> {
        let found = series.iter().find(|it| it.labels == *labels);
        found.map(|it| it.chunks.clone()).unwrap_or_default()
    };
    for series in &got {
        assert!(
            series
                .chunks
                .iter()
                .all(|it| of(&whole, &series.labels).contains(it))
        );
    }
    for series in &expected {
        let chunks = of(&got, &series.labels);
        assert!(
            series.chunks.iter().all(|it| chunks.contains(it)),
            "{}",
            series.labels
        );
    }
    let strict = SeriesRequest {
        on_failure: OnFailure::Abort,
        ..all()
    };
    let error = drain(gateway.series(strict)).unwrap_err().to_string();
    assert!(error.starts_with(&start), "{error}");
    check_nothing_is_held(gateway);
}

/// Tasks that are given up take a moment to end.
fn check_nothing_is_held(gateway: &Gateway) {
    for _ in 0..500 {
        if gateway.inner.budget.held() == 0 {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("{} bytes are held", gateway.inner.budget.held());
}

fn check_whole(fixture: &Fixture, gateway: &Gateway) {
    let (got, remarks) = drain(gateway.series(all())).unwrap();
    assert_eq!(got, fixture.naive(gateway, &all()));
    assert_eq!(remarks, Vec::<String>::new());
}

#[test]
fn a_file_that_is_missing() {
    for (file, what) in [("chunks/000001", "chunks/000001"), ("index", "index")] {
        let Some((fixture, watched, bad)) = fixture() else {
            return;
        };
        let gateway = fixture.gateway_over(fixture.config(), watched.clone());
        let path = crate::block::paths::file(bad, file);
        let (missing, named) = (path.clone(), format!("{bad}/{what}"));
        watched.fail(move |at, _| {
            if *at == missing {
                Fault::NotFound
            } else {
                Fault::None
            }
        });
        check_left_out(
            &fixture,
            &gateway,
            bad,
            &format!("{named}: there is no such object"),
        );
        // It is tried again by the next request.
        watched.fail(|_, _| Fault::None);
        check_whole(&fixture, &gateway);
    }
}

#[test]
fn a_bucket_that_is_out_of_reach_and_answers_that_are_cut() {
    for cut in [false, true] {
        let Some((fixture, watched, bad)) = fixture() else {
            return;
        };
        let gateway = fixture.gateway_over(fixture.config(), watched.clone());
        let prefix = Path::from(bad.to_string());
        watched.fail(move |at, _| match (at.prefix_matches(&prefix), cut) {
            (false, _) => Fault::None,
            (true, false) => Fault::Unavailable,
            (true, true) => Fault::Cut,
        });
        let text = if cut {
            "bytes instead of"
        } else {
            "503 slow down"
        };
        check_left_out(&fixture, &gateway, bad, text);
        watched.fail(|_, _| Fault::None);
        check_whole(&fixture, &gateway);
    }
}

/// Whatever byte of a block is another, answers are right or say what is missing, and where.
#[test]
fn damage() {
    let Some((fixture, _, bad)) = fixture() else {
        return;
    };
    let mut left_out = 0;
    let mut right = 0;
    for file in ["index", "chunks/000001"] {
        let path = crate::block::paths::file(bad, file);
        let size = block_on(fixture.store.head(&path)).unwrap().size;
        for step in 0..40 {
            let at = size * step / 40 + step;
            let watched = Watched::new(Arc::clone(&fixture.store));
            let data_dir = tempfile::tempdir().unwrap();
            let mut config = GatewayConfig::new(data_dir.path());
            config.way = [Way::Extents, Way::Postings][step as usize % 2];
            let gateway = fixture.gateway_over(config, watched.clone());
            let damaged = path.clone();
            watched.fail(move |path, _| {
                if *path == damaged {
                    Fault::Flip(at)
                } else {
                    Fault::None
                }
            });
            let (got, remarks) = drain(gateway.series(all())).unwrap();
            if remarks.is_empty() {
                assert_eq!(got, fixture.naive(&gateway, &all()), "byte {at} of {file}");
                right += 1;
                continue;
            }
            left_out += 1;
            let place = format!("corrupt {bad}/{file}");
            assert!(
                remarks[0].contains(&place),
                "byte {at} of {file}: {remarks:?}"
            );
            let placed = [" at ", "header", "table of contents"];
            assert!(
                placed.iter().any(|it| remarks[0].contains(it)),
                "{at} of {file}: {remarks:?}"
            );
            check_left_out(&fixture, &gateway, bad, "left out: ");
        }
    }
    println!("{left_out} times left out, {right} times right");
    assert!(left_out > 40);
}

#[test]
fn a_block_that_comes_back_is_read_again() {
    let Some((fixture, watched, bad)) = fixture() else {
        return;
    };
    let gateway = fixture.gateway_over(fixture.config(), watched.clone());
    let index = crate::block::paths::index(bad);
    watched.fail(move |path, _| {
        if *path == index {
            Fault::Flip(100)
        } else {
            Fault::None
        }
    });
    check_left_out(&fixture, &gateway, bad, "corrupt");
    watched.fail(|_, _| Fault::None);
    assert!(gateway.blocks().iter().any(|it| it.quarantined().is_some()));
    let blocks = gateway.blocks();
    let block = blocks.iter().find(|it| it.id == bad).unwrap();
    block.release();
    check_whole(&fixture, &gateway);
}

#[test]
fn a_damaged_card_is_made_again() {
    let Some((fixture, watched, bad)) = fixture() else {
        return;
    };
    let gateway = fixture.gateway_over(fixture.config(), watched.clone());
    check_whole(&fixture, &gateway);
    let card = gateway.inner.card_path(bad);
    let whole = std::fs::read(&card).unwrap();
    std::fs::write(&card, &whole[..whole.len() / 2]).unwrap();
    let gateway = fixture.gateway_over(fixture.config(), watched.clone());
    check_whole(&fixture, &gateway);
    assert_eq!(std::fs::read(&card).unwrap(), whole);
    // In the bucket it is found, too.
    let in_bucket = block::bucket_card(bad);
    block_on(fixture.store.put(&in_bucket, whole.clone().into())).unwrap();
    std::fs::remove_file(&card).unwrap();
    let index = crate::block::paths::index(bad);
    watched.fail(move |path, range| {
        let tail = *path == index && range.start == 0;
        if tail {
            Fault::Unavailable
        } else {
            Fault::None
        }
    });
    let gateway = fixture.gateway_over(fixture.config(), watched);
    let by_card = SeriesRequest {
        skip_chunks: true,
        ..all()
    };
    let (_, _remarks) = drain(gateway.series(by_card)).unwrap();
    assert_eq!(std::fs::read(&card).unwrap(), whole);
}

#[test]
fn a_request_that_is_too_large_fails_alone() {
    let Some(fixture) = Fixture::contract("ha") else {
        return;
    };
    let mut config = fixture.config();
    config.request_bytes = 600 << 10;
    let gateway = fixture.gateway(config);
    let error = drain(gateway.series(all())).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, StoreError::LimitExceeded(_)), "{text}");
    let expected = "the memory of one request to the store gateway is limited to 600.0 KiB: ";
    assert!(text.starts_with(expected), "{text}");
    let small = SeriesRequest {
        matchers: matchers("__name__=up"),
        ..all()
    };
    let (got, _) = drain(gateway.series(small.clone())).unwrap();
    assert_eq!(got, fixture.naive(&gateway, &small));
    check_nothing_is_held(&gateway);

    let mut config = fixture.config();
    config.limits.touched_series = 5;
    let gateway = fixture.gateway(config);
    let error = drain(gateway.series(all())).unwrap_err().to_string();
    assert!(
        error.starts_with("exceeded series limit: limit 5 violated (got "),
        "{error}"
    );
    assert!(gateway.blocks().iter().all(|it| it.quarantined().is_none()));
}

#[test]
fn a_caller_that_leaves_stops_everything() {
    let Some((fixture, watched, _)) = fixture() else {
        return;
    };
    let gateway = fixture.gateway_over(fixture.config(), watched);
    let mut series = gateway.series(all());
    assert!(block_on(series.next()).is_some());
    drop(series);
    check_nothing_is_held(&gateway);
}
