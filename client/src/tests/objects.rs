//! Objects, listings, watches and locks in a cluster where nothing goes wrong.

use super::fake::Fake;
use crate::{ErrorCode, LockRequest, Notice, ObjectRequest, SnapContext};
use nacre_types::{PoolId, SnapId};
use std::time::Duration;

#[test]
fn data_attributes_and_omap() {
    let mut fake = Fake::new(1);
    let cluster = fake.cluster();
    fake.run(async {
        let pool = cluster.pool("rbd").await.unwrap();
        let object = pool.object("o");
        assert_eq!(object.read(0, 10).await.unwrap_err().code, ErrorCode::NotFound);
        object.write(4, "data").await.unwrap();
        assert_eq!(object.read(0, 100).await.unwrap(), "\0\0\0\0data");
        object.append("!").await.unwrap();
        assert_eq!(object.stat().await.unwrap().size, 9);
        object.compare_and_write(4, "data", "DATA").await.unwrap();
        assert_eq!(object.compare_and_write(4, "data", "").await.unwrap_err().code, ErrorCode::Canceled);
        object.set_xattr("k", "v").await.unwrap();
        assert_eq!(object.get_xattr("k").await.unwrap(), "v");
        let pairs: Vec<(String, String)> = (0..250).map(|i| (format!("k{i:03}"), format!("v{i}"))).collect();
        object.omap_set(pairs).await.unwrap();
        let (page, more) = object.omap_page("k009", "k0", 5).await.unwrap();
        assert_eq!((page[0].0.as_ref(), page.len(), more), (&b"k010"[..], 5, true));
        assert_eq!(object.omap("k").await.unwrap().len(), 250);
        let request = ObjectRequest::new().read(4, 2).get_xattr("k").read(6, 2).stat();
        let response = request.run(&object).await.unwrap();
        assert_eq!(
            (response.data(0), response.data(1), response.data(2)),
            ("DA".into(), "v".into(), "TA".into())
        );
        assert_eq!(response.stat(3).unwrap().size, 9);
        let failing = ObjectRequest::new().write_full("gone").create(true);
        let error = failing.run(&object).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::AlreadyExists);
        assert!(error.message.contains("operation 1"), "{error}");
        object.remove().await.unwrap();
        assert_eq!(object.remove().await.unwrap_err().code, ErrorCode::NotFound);
        let error = pool.object("").read(0, 1).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidArgument);
        let error = cluster.pool("nope").await.unwrap_err();
        assert_eq!(error.message, "there is no pool 'nope' (there are: rbd)");
        let reply = cluster.osd_admin(nacre_types::OsdId(1), "status", "{}").await.unwrap();
        assert_eq!(reply.json, "status");
        let error = cluster.command(r#"{"prefix":"nonsense"}"#, "").await.unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidArgument);
    });
    assert!(cluster.waiting().is_empty());
}

#[test]
fn lists_everything_across_a_split() {
    let mut fake = Fake::new(2);
    let cluster = fake.cluster();
    let pool = fake.run(async {
        let pool = cluster.pool("rbd").await.unwrap();
        for i in 0..60 {
            pool.object(format!("o{i}")).create(true).await.unwrap();
            pool.with_namespace("ns").object(format!("n{i}")).create(true).await.unwrap();
        }
        pool
    });
    let (mut cursor, mut all, mut pages) = (Some(Default::default()), Vec::new(), 0);
    while let Some(at) = cursor {
        let (page, next) = fake.run(pool.list_page(at, 3, false)).unwrap();
        all.extend(page.into_iter().filter(|o| o.namespace.is_empty()).map(|object| object.name));
        cursor = next;
        pages += 1;
        if pages == 7 {
            fake.change_map(|step, map| {
                let pool = step.pool_mut(map, PoolId(1)).unwrap();
                (pool.pg_num, pool.pgp_num) = (16, 16);
            });
        }
    }
    all.sort();
    let mut expected: Vec<String> = (0..60).map(|i| format!("o{i}")).collect();
    expected.sort();
    assert_eq!(all, expected);
}

#[test]
fn snapshots_of_objects() {
    let mut fake = Fake::new(3);
    let cluster = fake.cluster();
    fake.run(async {
        let pool = cluster.pool("rbd").await.unwrap();
        pool.object("o").write_full("one").await.unwrap();
        let snap = pool.create_snap().await.unwrap();
        let context = SnapContext { seq: snap.0, snaps: vec![snap.0] };
        let writing = pool.with_snap_context(context);
        writing.object("o").write_full("two").await.unwrap();
        assert_eq!(pool.object("o").read(0, 9).await.unwrap(), "two");
        assert_eq!(pool.at_snap(snap).object("o").read(0, 9).await.unwrap(), "one");
        assert_eq!(writing.object("o").list_snaps().await.unwrap().clones.len(), 1);
        let error = pool.at_snap(snap).object("o").write(0, "x").await.unwrap_err();
        assert_eq!(error.code, ErrorCode::ReadOnly);
        pool.remove_snap(snap).await.unwrap();
        assert!(cluster.osdmap().await.unwrap().pool(PoolId(1)).unwrap().snap_is_removed(SnapId(snap.0)));
    });
}

#[test]
fn watchers_are_told_and_survive_a_new_primary() {
    let mut fake = Fake::new(4);
    let (one, two) = (fake.cluster(), fake.add_client(|_| {}));
    let (watch, object) = fake.run(async {
        let watched = one.pool("rbd").await.unwrap().object("w");
        watched.create(true).await.unwrap();
        let watch = watched.watch().await.unwrap();
        (watch, two.pool("rbd").await.unwrap().object("w"))
    });
    let told = |fake: &mut Fake| {
        let telling = async { object.notify("hello", Duration::from_secs(3)).await.map(Some) };
        let hearing = async {
            loop {
                if let Notice::Notified { notify_id, payload } = watch.next().await {
                    watch.ack(notify_id, [&b"re: "[..], &payload].concat());
                    return Ok(None);
                }
            }
        };
        let both: Vec<std::pin::Pin<Box<dyn Future<Output = crate::Result<Option<_>>>>>> =
            vec![Box::pin(telling), Box::pin(hearing)];
        let replies = fake.run(crate::concurrent::all(both, 2, |future| future)).unwrap();
        replies.into_iter().flatten().next().unwrap()
    };
    let reply = told(&mut fake);
    assert_eq!((reply.acks.len(), reply.missed.len()), (1, 0));
    assert_eq!(reply.acks[0].reply, "re: hello");
    for _ in 0..20 {
        fake.remap();
    }
    fake.pass(Duration::from_secs(1));
    assert_eq!(fake.run(watch.next()), Notice::Reconnected);
    assert_eq!(told(&mut fake).acks.len(), 1);
    fake.pass(Duration::from_secs(100));
    assert_eq!(told(&mut fake).acks.len(), 1, "it was renewed all the time");
    fake.run(object.remove()).unwrap();
    fake.pass(Duration::from_secs(1));
    while let Some(notice) = watch.try_next() {
        if let Notice::Ended(error) = notice {
            assert_eq!(error.code, ErrorCode::NotFound);
            return;
        }
    }
    panic!("the watcher was not told that the object is gone");
}

#[test]
fn a_lease_is_kept_and_fences_when_taken_away() {
    let mut fake = Fake::new(5);
    let (one, two) = (fake.cluster(), fake.add_client(|_| {}));
    let duration = Some(Duration::from_secs(10));
    let request = LockRequest { duration, ..LockRequest::exclusive("l", "c") };
    let (lease, object, other) = fake.run(async {
        let object = one.pool("rbd").await.unwrap().object("o");
        let lease = object.lease(request.clone()).await.unwrap();
        (lease, object, two.pool("rbd").await.unwrap().object("o"))
    });
    fake.pass(Duration::from_secs(100));
    lease.check().unwrap();
    assert_eq!(fake.run(other.lock(&request)).unwrap_err().code, ErrorCode::Busy);
    let leased = object.pool().under_lease(&lease).object("o");
    fake.run(leased.write(0, "mine")).unwrap();
    fake.run(async {
        let holder = other.lock_holders("l").await.unwrap().remove(0);
        other.break_lock("l", nacre_types::ClientId(holder.client), &holder.cookie).await.unwrap();
        other.lock(&request).await.unwrap();
    });
    fake.pass(Duration::from_secs(10));
    assert_eq!(lease.check().unwrap_err().code, ErrorCode::Fenced);
    let error = fake.run(leased.write(0, "late")).unwrap_err();
    assert_eq!(error.code, ErrorCode::Fenced);
    drop(lease);
    fake.pass(Duration::from_secs(1));
    assert_eq!(
        fake.run(other.lock_holders("l")).unwrap().len(),
        1,
        "giving back another's lock does nothing"
    );
}
