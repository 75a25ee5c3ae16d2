//! A real monitor on a real store, asked by a real client over a real messenger; killed and asked again.

use crate::clock::Clock;
use crate::driver::*;
use crate::kv::MonStore;
use crate::messenger::{Messenger, MessengerConfig};
use crate::tls::{ClusterCa, Credentials, MonAddress, Validity};
use nacre_mon::{Bootstrap, Mon, MonConfig};
use nacre_types::EntityName;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

const FSID: &str = "5d0c6a2e-0000-4000-8000-000000000001";
const LIMIT: Duration = Duration::from_secs(20);

fn credentials(ca: &ClusterCa, entity: &str, monitors: Vec<MonAddress>) -> Credentials {
    let entity: EntityName = entity.parse().unwrap();
    let (cert_pem, key_pem) = ca.issue(&entity, Validity::default()).unwrap();
    Credentials {
        fsid: FSID.into(),
        entity,
        monitors,
        ca_pem: ca.certificate_pem().into(),
        cert_pem,
        key_pem,
    }
}

/// Runs the monitor in `dir` on `listen` while `work` does its work.
async fn with_monitor(ca: &ClusterCa, dir: &Path, listen: SocketAddr, work: impl AsyncFnOnce(Credentials)) {
    let monitors = vec![MonAddress { name: "a".into(), address: listen.to_string() }];
    let messenger =
        Messenger::bind(MessengerConfig::new(credentials(ca, "mon.a", monitors.clone()), Some(listen)))
            .unwrap();
    let mut store = MonStore::open(dir).unwrap();
    let clock = Clock::start();
    let records = store.scan_all().unwrap();
    let mut mon = Mon::open(MonConfig::new("a", FSID, 7), records, clock.now()).unwrap();
    let (done, finished) = tokio::sync::oneshot::channel();
    let shutdown = async {
        finished.await.unwrap();
    };
    let parts = MonParts { clock, messenger: &messenger, store: &mut store };
    let work = async {
        work(credentials(ca, "client.admin", monitors)).await;
        done.send(()).unwrap();
    };
    let (ended, ()) = tokio::join!(run_mon(&mut mon, parts, shutdown), work);
    assert!(!ended.failed, "{ended:?}");
    messenger.shutdown().await;
}

/// A hang ends as a failure.
async fn within_limit(test: impl Future<Output = ()>) {
    tokio::time::timeout(3 * LIMIT, test).await.expect("the test hangs");
}

#[test]
fn a_monitor_answers_and_remembers() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let ca = ClusterCa::create(FSID).unwrap();
    let listen: SocketAddr = {
        // A free port, known before the first monmap is made.
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap()
    };
    let everything = BTreeMap::from([("mon".to_string(), "allow *".to_string())]);
    let bootstrap = Bootstrap {
        fsid: FSID.into(),
        mons: BTreeMap::from([("a".into(), listen.to_string())]),
        entities: BTreeMap::from([("client.admin".parse().unwrap(), everything)]),
        ca_key_pem: ca.key_pem().into(),
        ca_cert_pem: ca.certificate_pem().into(),
        created_ms: 1_700_000_000_000,
        failure_domain: "osd".into(),
        settings: BTreeMap::new(),
    };
    let writes = Mon::bootstrap_writes("a", &bootstrap).unwrap();
    let mut store = MonStore::create(&path).unwrap();
    store.write(writes.into_iter().map(|write| (write.key, write.value)), true).unwrap();
    drop(store);
    // Two lives of the monitor, each with a runtime of its own, as a process has.
    let first = async |credentials| {
        let connection = connect(credentials, LIMIT).await.unwrap();
        let cluster = connection.cluster();
        let reply = cluster.command(r#"{"prefix": "fsid"}"#, "").await.unwrap();
        assert!(reply.json.contains(FSID), "{reply:?}");
        cluster.command(r#"{"prefix": "osd set", "key": "noout"}"#, "").await.unwrap();
        connection.shutdown().await;
    };
    block_on(within_limit(with_monitor(&ca, &path, listen, first))).unwrap();
    let second = async |credentials| {
        let connection = connect(credentials, LIMIT).await.unwrap();
        let reply = connection.cluster().command(r#"{"prefix": "osd dump"}"#, "").await.unwrap();
        assert!(reply.json.contains("noout"), "{reply:?}");
        let map = connection.cluster().osdmap().await.unwrap();
        assert!(map.epoch().0 >= 2);
        connection.shutdown().await;
    };
    block_on(within_limit(with_monitor(&ca, &path, listen, second))).unwrap();
}

#[test]
fn without_a_monitor_a_command_fails_in_time() {
    let ca = ClusterCa::create(FSID).unwrap();
    let nobody = vec![MonAddress { name: "a".into(), address: "127.0.0.1:1".into() }];
    let test = async {
        let connection =
            connect(credentials(&ca, "client.admin", nobody), Duration::from_millis(500)).await.unwrap();
        let error = connection.cluster().command(r#"{"prefix": "fsid"}"#, "").await.unwrap_err();
        assert!(!error.to_string().is_empty());
        connection.shutdown().await;
    };
    block_on(within_limit(test)).unwrap();
}
