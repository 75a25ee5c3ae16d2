//! Images on the fake cluster: against a plain vector, through faults, with two openings, and cut short half-way.

use super::layout::{data_prefix, header_name};
use super::*;
use crate::tests::fake::{Fake, Faults};
use crate::{Cluster, concurrent};
use bytes::Bytes;
use nacre_types::Rng;
use std::collections::BTreeMap;
use std::time::Duration;

const KB: u64 = 1024;

async fn pool(cluster: &Cluster) -> Pool {
    cluster.pool("rbd").await.unwrap()
}

fn options(size: u64) -> CreateOptions {
    CreateOptions { size, order: 12 }
}

/// Runs the image's background while `work` goes on.
async fn followed<T>(image: &Image, work: impl Future<Output = T>) -> T {
    let mut follow = std::pin::pin!(image.follow());
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(|cx| {
        let _never = follow.as_mut().poll(cx);
        work.as_mut().poll(cx)
    })
    .await
}

#[test]
fn names_and_sizes() {
    let mut fake = Fake::new(1);
    let cluster = fake.cluster();
    fake.run(async {
        let pool = pool(&cluster).await;
        assert!(pool.images().await.unwrap().is_empty());
        for bad in ["", "a/b", "a@b", "a\n", &"x".repeat(256)] {
            let error = pool.create_image(bad, options(1)).await.unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidArgument, "{bad}");
        }
        for (size, order, code) in [
            (1 << 63, 22, ErrorCode::TooLarge),
            (1, 11, ErrorCode::InvalidArgument),
            (1, 25, ErrorCode::InvalidArgument),
        ] {
            let error = pool.create_image("a", CreateOptions { size, order }).await.unwrap_err();
            assert_eq!(error.code, code);
        }
        let error = pool.open_image("a", OpenOptions::default()).await.unwrap_err();
        assert_eq!(error.message, "there is no image 'a' in pool 'rbd'");
        pool.create_image("empty", CreateOptions::new(0)).await.unwrap();
        pool.create_image("odd ü", options(12_345)).await.unwrap();
        pool.create_image("huge", CreateOptions::new(IMAGE_BYTES_MAX)).await.unwrap();
        let error = pool.create_image("huge", options(1)).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::AlreadyExists);
        assert_eq!(pool.images().await.unwrap(), ["empty", "huge", "odd ü"]);
        let huge = pool.open_image("huge", OpenOptions::default()).await.unwrap();
        assert_eq!(huge.read(IMAGE_BYTES_MAX - 5, 5).await.unwrap(), vec![0; 5]);
        huge.write(IMAGE_BYTES_MAX - 5, "there").await.unwrap();
        assert_eq!(huge.read(IMAGE_BYTES_MAX - 6, 6).await.unwrap(), "\0there");
        assert_eq!(huge.write(IMAGE_BYTES_MAX - 4, "there").await.unwrap_err().code, ErrorCode::OutOfRange);
        assert_eq!(huge.read(u64::MAX, 2).await.unwrap_err().code, ErrorCode::OutOfRange);
        pool.remove_image("huge").await.unwrap();
        let empty = pool.open_image("empty", OpenOptions::default()).await.unwrap();
        assert_eq!(empty.read(0, 0).await.unwrap(), "");
        assert_eq!(empty.write(0, "x").await.unwrap_err().code, ErrorCode::OutOfRange);
        empty.resize(1).await.unwrap();
        empty.write(0, "x").await.unwrap();
        pool.rename_image("empty", "full").await.unwrap();
        let error = pool.rename_image("full", "odd ü").await.unwrap_err();
        assert_eq!(error.code, ErrorCode::AlreadyExists);
        let info = pool.image_info("full").await.unwrap();
        assert_eq!((info.name.as_str(), info.size, info.objects), ("full", 1, 1));
        pool.remove_image("full").await.unwrap();
        pool.remove_image("odd ü").await.unwrap();
        assert!(pool.images().await.unwrap().is_empty());
    });
    assert_eq!(fake.head_names().len(), 1, "only the directory is left: {:?}", fake.head_names());
}

/// An image as a vector.
#[derive(Clone, Default)]
struct Model {
    data: Vec<u8>,
    snapshots: BTreeMap<String, Vec<u8>>,
}

async fn check(image: &Image, model: &Model, text: &str) {
    assert_eq!(image.size(), model.data.len() as u64, "{text}");
    let found = image.read(0, image.size()).await.unwrap();
    assert!(
        found == model.data,
        "{text}: first difference at {:?}",
        found.iter().zip(&model.data).position(|(a, b)| a != b)
    );
    let mut at = 0;
    for extent in image.extents(0, image.size()).await.unwrap() {
        assert_eq!(extent.offset, at, "{text}");
        at += extent.length;
        let zero = model.data[extent.offset as usize..at as usize].iter().all(|&b| b == 0);
        assert!(extent.allocated || zero, "{text}: what is not stored is zero");
    }
    assert_eq!(at, image.size(), "{text}");
}

async fn random_step(image: &Image, model: &mut Model, rng: &mut Rng, text: &str) {
    let size = model.data.len() as u64;
    let offset = rng.below(size + 1);
    let length = match rng.below(3) {
        0 => rng.below(size - offset + 1),
        1 => rng.below(5000).min(size - offset),
        _ => (rng.below(3) * 4096).min(size - offset),
    };
    let offset = if rng.chance(1, 3) { offset / 4096 * 4096 } else { offset };
    let range = offset as usize..(offset + length) as usize;
    match rng.below(14) {
        0..=4 => {
            let byte = rng.below(256) as u8;
            image.write(offset, vec![byte; length as usize]).await.unwrap();
            model.data[range].fill(byte);
        }
        5 | 6 => {
            image.discard(offset, length).await.unwrap();
            model.data[range].fill(0);
        }
        7 => {
            image.write_zeroes(offset, length).await.unwrap();
            model.data[range].fill(0);
        }
        8 | 9 => assert_eq!(image.read(offset, length).await.unwrap(), model.data[range], "{text}"),
        10 => {
            let size = rng.below(60 * KB);
            image.resize(size).await.unwrap();
            model.data.resize(size as usize, 0);
        }
        11 => {
            let name = format!("s{}", rng.below(4));
            let result = image.create_snapshot(&name).await;
            if model.snapshots.contains_key(&name) {
                assert_eq!(result.unwrap_err().code, ErrorCode::AlreadyExists, "{text}");
            } else {
                result.unwrap();
                model.snapshots.insert(name, model.data.clone());
            }
        }
        12 => {
            let name = format!("s{}", rng.below(4));
            let result = image.remove_snapshot(&name).await;
            match model.snapshots.remove(&name) {
                Some(_) => result.unwrap(),
                None => assert_eq!(result.unwrap_err().code, ErrorCode::NotFound, "{text}"),
            }
        }
        _ => {
            let name = format!("s{}", rng.below(4));
            let result = image.rollback(&name).await;
            match model.snapshots.get(&name) {
                Some(data) => {
                    result.unwrap();
                    model.data = data.clone();
                }
                None => assert_eq!(result.unwrap_err().code, ErrorCode::NotFound, "{text}"),
            }
        }
    }
}

fn random(seed: u64, steps: usize, faults: Faults) {
    let mut fake = Fake::new(seed);
    let cluster = fake.cluster();
    cluster.set_timeout(None);
    let mut rng = Rng::new(seed);
    let mut model = Model { data: vec![0; 40_000], ..Model::default() };
    let image = fake.run(async {
        let pool = pool(&cluster).await;
        pool.create_image("i", options(40_000)).await.unwrap();
        pool.open_image("i", OpenOptions::exclusive()).await.unwrap()
    });
    fake.faults = faults;
    for step in 0..steps {
        let text = format!("seed {seed} step {step}");
        fake.run(random_step(&image, &mut model, &mut rng, &text));
        if step % 5 == 0 {
            fake.run(check(&image, &model, &text));
        }
        if step % 20 == 0 {
            for (name, data) in model.snapshots.clone() {
                fake.run(async {
                    let old = image.pool().open_image("i", OpenOptions::at(&name)).await.unwrap();
                    let old_model = Model { data, ..Model::default() };
                    check(&old, &old_model, &format!("{text} snapshot {name}")).await;
                });
            }
        }
    }
    fake.faults = Faults::default();
    fake.run(async {
        let pool = pool(&cluster).await;
        for name in model.snapshots.keys() {
            image.remove_snapshot(name).await.unwrap();
        }
        image.close().await.unwrap();
        pool.remove_image("i").await.unwrap();
    });
    assert_eq!(fake.head_names().iter().filter(|name| name.starts_with("header")).count(), 0);
}

#[test]
fn images_agree_with_a_vector() {
    for seed in 0..25 {
        random(seed, 120, Faults::default());
    }
}

#[test]
fn images_agree_with_a_vector_through_faults() {
    let faults = Faults { lose: 15, refuse: 30, double: 30, corrupt: 10, close: 5, remap: 3, latency_ms: 3 };
    for seed in 100..108 {
        random(seed, 60, faults);
    }
}

#[test]
fn zeroing_nothing_writes_nothing() {
    let mut fake = Fake::new(1);
    let cluster = fake.cluster();
    let image = fake.run(async {
        let pool = pool(&cluster).await;
        pool.create_image("i", CreateOptions::new(1 << 40)).await.unwrap();
        pool.open_image("i", OpenOptions::default()).await.unwrap()
    });
    let before = fake.mutations;
    fake.run(async {
        image.write_zeroes(5000, 1 << 30).await.unwrap();
        image.discard(0, 1 << 30).await.unwrap();
        image.flush().await.unwrap();
    });
    assert_eq!(fake.mutations, before);
    fake.run(async {
        image.write(6 << 20, "x").await.unwrap();
        let extents = image.extents(0, 1 << 30).await.unwrap();
        let stored: Vec<_> = extents.iter().filter(|e| e.allocated).collect();
        assert_eq!(stored.len(), 1);
        assert!(stored[0].offset >= 4 << 20 && stored[0].offset + stored[0].length > 6 << 20);
        let segments = image.read_segments(0, 9 << 20).await.unwrap();
        let zeroes = segments.iter().map(|s| if let Segment::Zero(n) = s { *n } else { 0 }).sum::<u64>();
        assert!(zeroes >= 6 << 20, "{zeroes}");
        image.discard(4 << 20, 4 << 20).await.unwrap();
    });
    assert!(fake.head_names().iter().all(|name| !name.starts_with(&data_prefix(image.id()))));
}

#[test]
fn many_writes_at_once_and_a_flush_that_waits_for_them() {
    let mut fake = Fake::new(3);
    fake.faults.latency_ms = 30;
    let cluster = fake.cluster();
    fake.run(async {
        let pool = pool(&cluster).await;
        pool.create_image("i", options(1 << 20)).await.unwrap();
        let image = pool.open_image("i", OpenOptions::exclusive()).await.unwrap();
        let done = Cell::new(0);
        let writes = (0..100_u64).map(Some).chain([None]);
        let work = |write: Option<u64>| {
            let (image, done) = (image.clone(), &done);
            async move {
                match write {
                    Some(at) => {
                        image.write(at * 5000, vec![at as u8; 5000]).await?;
                        done.set(done.get() + 1);
                    }
                    None => {
                        image.flush().await?;
                        assert_eq!(done.get(), 100);
                    }
                }
                Ok::<(), OpError>(())
            }
        };
        concurrent::all(writes, 200, work).await.unwrap();
        for at in 0..100 {
            assert_eq!(image.read(at * 5000, 5000).await.unwrap(), vec![at as u8; 5000]);
        }
    });
}

#[test]
fn other_openings_follow() {
    let mut fake = Fake::new(1);
    let (one, two) = (fake.cluster(), fake.add_client(|_| {}));
    fake.run(async {
        let pool_one = pool(&one).await;
        pool_one.create_image("i", options(8192)).await.unwrap();
        let a = pool_one.open_image("i", OpenOptions::default()).await.unwrap();
        let b = pool(&two).await.open_image("i", OpenOptions::default()).await.unwrap();
        b.write(0, "before").await.unwrap();
        let started = one.now();
        followed(&b, async {
            a.resize(20_000).await.unwrap();
            a.create_snapshot("s").await.unwrap();
        })
        .await;
        assert!(one.now().since(started) < Duration::from_secs(1), "the other opening has answered");
        assert_eq!((b.size(), b.snapshots().len()), (20_000, 1));
        b.write(0, "after!").await.unwrap();
        let old = pool_one.open_image("i", OpenOptions::at("s")).await.unwrap();
        assert_eq!(old.read(0, 6).await.unwrap(), "before");
        assert_eq!(old.write(0, "x").await.unwrap_err().code, ErrorCode::ReadOnly);
        assert_eq!(old.size(), 20_000);
        // Not followed in the background: seen at the next operation.
        a.create_snapshot("t").await.unwrap();
        b.write(0, "third!").await.unwrap();
        let old = pool_one.open_image("i", OpenOptions::at("t")).await.unwrap();
        assert_eq!(old.read(0, 6).await.unwrap(), "after!");
        let error = pool_one.remove_image("i").await.unwrap_err();
        assert_eq!(error.code, ErrorCode::NotEmpty);
        a.remove_snapshot("s").await.unwrap();
        a.remove_snapshot("t").await.unwrap();
        pool_one.remove_image("i").await.unwrap();
        b.pool().cluster().sleep(Duration::from_secs(1)).await;
        let error = b.write(0, "x").await.unwrap_err();
        assert_eq!(error.message, "image 'i' was removed");
    });
}

#[test]
fn one_owner_at_a_time() {
    let mut fake = Fake::new(1);
    let (one, two) = (fake.cluster(), fake.add_client(|_| {}));
    let (a, pool_two) = fake.run(async {
        let pool_one = pool(&one).await;
        pool_one.create_image("i", options(8192)).await.unwrap();
        let a = pool_one.open_image("i", OpenOptions::exclusive()).await.unwrap();
        let error = pool_one.open_image("i", OpenOptions::exclusive()).await.unwrap_err();
        assert!(error.message.contains("in this client already"), "{error}");
        a.write(0, "a").await.unwrap();
        (a, pool(&two).await)
    });
    let error = fake.run(pool_two.open_image("i", OpenOptions::exclusive())).unwrap_err();
    assert_eq!(error.code, ErrorCode::Busy);
    assert!(error.message.contains("client.c0"), "{error}");
    assert_eq!(fake.run(pool_two.remove_image("i")).unwrap_err().code, ErrorCode::Busy);
    // A reader does not ask.
    let reader = fake.run(pool_two.open_image("i", OpenOptions::read_only())).unwrap();
    assert_eq!(fake.run(reader.read(0, 1)).unwrap(), "a");
    let take_over = OpenOptions { take_over: true, ..OpenOptions::exclusive() };
    let b = fake.run(pool_two.open_image("i", take_over)).unwrap();
    fake.run(b.write(0, "b")).unwrap();
    let error = fake.run(a.write(0, "late")).unwrap_err();
    assert_eq!(error.code, ErrorCode::Fenced);
    assert_eq!(fake.run(reader.read(0, 4)).unwrap(), "b\0\0\0");
    // Given back in order: the next need not wait.
    fake.run(b.close()).unwrap();
    let three = fake.add_client(|_| {});
    fake.run(async {
        let pool = pool(&three).await;
        let c = pool.open_image("i", OpenOptions::exclusive()).await.unwrap();
        drop(c);
        three.sleep(Duration::from_millis(100)).await;
        pool.open_image("i", OpenOptions::exclusive()).await.unwrap();
    });
}

#[test]
fn a_full_cluster_still_gives_room_back() {
    let mut fake = Fake::new(1);
    let cluster = fake.cluster();
    let pool = fake.run(cluster.pool("rbd")).unwrap();
    fake.run(pool.create_image("i", CreateOptions::new(64 << 20))).unwrap();
    let image = fake.run(pool.open_image("i", OpenOptions::default())).unwrap();
    fake.run(image.write(0, vec![1; 4096])).unwrap();
    fake.run(image.create_snapshot("s")).unwrap();
    fake.full = true;
    assert_eq!(fake.run(image.write(8 << 20, vec![1; 4096])).unwrap_err().code, ErrorCode::NoSpace);
    assert_eq!(
        fake.run(pool.create_image("j", CreateOptions::new(64 << 20))).unwrap_err().code,
        ErrorCode::NoSpace
    );
    fake.run(image.discard(0, 4096)).unwrap();
    fake.run(image.remove_snapshot("s")).unwrap();
    fake.run(image.resize(4 << 20)).unwrap();
    fake.run(image.close()).unwrap();
    fake.run(pool.remove_image("i")).unwrap();
    assert!(fake.run(pool.images()).unwrap().is_empty());
}

#[test]
fn a_dead_owner_is_waited_for_and_shut_out() {
    let mut fake = Fake::new(1);
    let (one, two) = (fake.cluster(), fake.add_client(|_| {}));
    let a = fake.run(async {
        let pool = pool(&one).await;
        pool.create_image("i", options(8192)).await.unwrap();
        pool.open_image("i", OpenOptions::exclusive()).await.unwrap()
    });
    // The first client's process stops: nothing drives it any more.
    let stopped = fake.clients.remove(0);
    fake.clients.insert(0, fake.clients[0].clone());
    let wait = OpenOptions { wait: Duration::from_secs(60), ..OpenOptions::exclusive() };
    fake.run(async {
        let b = pool(&two).await.open_image("i", wait).await.unwrap();
        b.write(0, "b").await.unwrap();
        assert_eq!(two.blocklist().await.unwrap().len(), 1, "the dead one was shut out");
    });
    drop((a, stopped));
}

#[test]
fn steps_cut_short_leave_nothing_in_the_way() {
    let mut fake = Fake::new(1);
    let cluster = fake.cluster();
    let pool = fake.run(pool(&cluster));
    // However far a creation gets, the name can be used afterwards.
    for cut in 0..40 {
        let waker = std::task::Waker::noop();
        let mut cx = std::task::Context::from_waker(waker);
        let mut create = Box::pin(pool.create_image("c", options(9000)));
        for _ in 0..cut {
            if create.as_mut().poll(&mut cx).is_ready() {
                break;
            }
            fake.pass(Duration::from_micros(60));
        }
        drop(create);
        fake.run(async {
            match pool.create_image("c", options(9000)).await {
                Err(error) if error.code == ErrorCode::AlreadyExists => {}
                result => drop(result.unwrap()),
            }
            let image = pool.open_image("c", OpenOptions::exclusive()).await.unwrap();
            image.write(0, vec![1; 9000]).await.unwrap();
            image.close().await.unwrap();
        });
        let mut remove = Box::pin(pool.remove_image("c"));
        for _ in 0..cut {
            if remove.as_mut().poll(&mut cx).is_ready() {
                break;
            }
            fake.pass(Duration::from_micros(60));
        }
        drop(remove);
        fake.run(async {
            match pool.remove_image("c").await {
                Err(error) if error.code == ErrorCode::NotFound => {}
                result => result.unwrap(),
            }
            assert!(pool.images().await.unwrap().is_empty(), "cut {cut}");
        });
        let left: Vec<_> = fake.head_names().into_iter().filter(|n| n.starts_with("data.")).collect();
        assert!(left.is_empty(), "cut {cut}: {left:?}");
    }
    // A name that leads nowhere is repaired by whoever meets it.
    fake.run(async {
        pool.create_image("x", options(1)).await.unwrap();
        let id = pool.image_info("x").await.unwrap().id;
        pool.object(header_name(&id)).remove().await.unwrap();
        let error = pool.open_image("x", OpenOptions::default()).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::NotFound);
        assert!(pool.images().await.unwrap().is_empty());
        let object = pool.object("image_directory");
        object.omap_set([("name.y", Bytes::from_static(b"0123"))]).await.unwrap();
        pool.create_image("y", options(1)).await.unwrap();
        assert_eq!(pool.images().await.unwrap(), ["y"]);
    });
}
