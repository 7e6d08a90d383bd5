//! The stores of this crate that need no bucket, held against the suite: a database, and the same behind
//! gRPC.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use isobar_model::Labels;
use isobar_proto::thanos::info::info_server::InfoServer;
use isobar_proto::thanos::store_server::StoreServer;
use isobar_tsdb::db::{Db, DbConfig};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};

use super::acceptance::{Subject, accept, held_in};
use crate::compute::Pool;
use crate::grpc::snappy::SnappyLayer;
use crate::grpc::{Apis, InfoService, RemoteStore, RequestLimits, StoreService};
use crate::local::LocalStore;
use crate::union::Union;

/// The recorded block of real scrapes, and the two replicas; nothing where they are not.
fn blocks(name: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared/contract")
        .join(name);
    let Ok(entries) = std::fs::read_dir(&folder) else {
        eprintln!("skipped: {} not found", folder.display());
        return Vec::new();
    };
    let mut blocks: Vec<_> = entries.map(|it| it.expect("an entry").path()).collect();
    blocks.sort();
    blocks
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let to = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            std::fs::copy(&path, &to).expect("a copy");
        }
    }
}

/// A database of some blocks and what is in it.
fn local(blocks: &[PathBuf]) -> (tempfile::TempDir, Subject) {
    let dir = tempfile::tempdir().expect("a folder");
    for block in blocks {
        copy(block, &dir.path().join(block.file_name().expect("a name")));
    }
    let db = Db::open(DbConfig::new(dir.path())).expect("a database");
    let subject = Subject {
        store: Arc::new(LocalStore::new(Arc::new(db))),
        external: Labels::empty(),
        held: held_in(blocks, &Labels::empty()),
        replica_labels: vec!["prometheus_replica".to_owned(), "job".to_owned()],
        refuses_everything: false,
        exact_times: false,
    };
    (dir, subject)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database() {
    let blocks = blocks("ha");
    if let Some(one) = blocks.get(..1) {
        let (_dir, subject) = local(one);
        accept(&subject).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_several_blocks() {
    let blocks = blocks("ha");
    if !blocks.is_empty() {
        let (_dir, subject) = local(&blocks);
        accept(&subject).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_databases_as_one() {
    let blocks = blocks("ha");
    let (Some(some), Some(others)) = (blocks.get(..3), blocks.get(2..)) else {
        return;
    };
    // One block is in both.
    let ((_dir, first), (_other_dir, second)) = (local(some), local(others));
    let subject = Subject {
        store: Arc::new(Union::of(vec![first.store, second.store])),
        external: Labels::empty(),
        held: held_in(&blocks, &Labels::empty()),
        ..second
    };
    accept(&subject).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_behind_grpc() {
    let blocks = blocks("ha");
    let Some(one) = blocks.get(..1) else { return };
    let (_dir, mut subject) = local(one);
    let pool = Arc::new(Pool::new("test", 1, 100).expect("threads"));
    let served = Arc::clone(&subject.store);
    let store = StoreService::new(Arc::clone(&served), Some(pool), RequestLimits::default());
    let info = InfoService::new("store", served, Apis::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = Server::builder()
        .layer(SnappyLayer)
        .add_service(StoreServer::new(store))
        .add_service(InfoServer::new(info))
        .serve_with_incoming(TcpIncoming::from(listener));
    let server = tokio::spawn(server);
    let endpoint = Endpoint::try_from(format!("http://{address}")).expect("an address");
    let channel = endpoint.connect().await.expect("a connection");
    let remote = RemoteStore::new("test", channel);
    remote.refresh().await.expect("what it holds");
    subject.store = Arc::new(remote);
    accept(&subject).await;
    server.abort();
}
