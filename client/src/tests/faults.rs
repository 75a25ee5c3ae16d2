//! What happens when messages are lost, doubled, refused or damaged, PGs move, and daemons are gone.

use super::fake::{Fake, Faults};
use crate::{ErrorCode, concurrent};
use nacre_maps::Flag;
use nacre_types::{ObjectId, OsdId, PoolId, Rng};
use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

#[test]
fn every_write_takes_effect_once_whatever_happens() {
    for seed in 0..12 {
        let mut fake = Fake::new(seed);
        let cluster = fake.cluster();
        cluster.set_timeout(None);
        let pool = fake.run(cluster.pool("rbd")).unwrap();
        fake.faults =
            Faults { lose: 60, refuse: 60, double: 60, corrupt: 40, close: 30, remap: 15, latency_ms: 20 };
        let before = fake.mutations;
        let appends = 150_u64;
        let append = |i: u64| {
            let object = pool.object(format!("o{}", i % 5));
            async move {
                object.append(format!("{i:04}")).await?;
                object.read(0, 100).await
            }
        };
        fake.run(concurrent::all(0..appends, 30, append)).unwrap();
        assert_eq!(fake.mutations - before, appends, "seed {seed}");
        fake.faults = Faults::default();
        for o in 0..5 {
            let data = fake.run(pool.object(format!("o{o}")).read(0, 1 << 20)).unwrap();
            let mut found: Vec<u64> =
                data.chunks(4).map(|c| std::str::from_utf8(c).unwrap().parse().unwrap()).collect();
            found.sort();
            assert_eq!(found, (0..appends).filter(|i| i % 5 == o).collect::<Vec<_>>(), "seed {seed}");
        }
        assert!(cluster.waiting().is_empty() && cluster.inflight() == (0, 0));
    }
}

#[test]
fn each_pg_hears_what_it_has_answered_and_no_more() {
    let mut fake = Fake::new(3);
    let cluster = fake.cluster();
    let pool = fake.run(cluster.pool("rbd")).unwrap();
    let pg_of = |fake: &Fake, name: &str| {
        let object = ObjectId::new(PoolId(1), "", name).unwrap();
        fake.map.object_pg(&object).unwrap()
    };
    let names: Vec<String> = (0..40).map(|n| format!("o{n}")).collect();
    let stuck = pg_of(&fake, "o0");
    let (near, far): (Vec<_>, Vec<_>) =
        names[1..].iter().partition::<Vec<&String>, _>(|name| pg_of(&fake, name) == stuck);
    let far_pg = pg_of(&fake, far[0]);
    fake.run(pool.object("o0").write(0, "before")).unwrap();
    let first = fake.taken.last().unwrap().1;
    fake.lose_replies = 1;
    let others = async {
        for name in near.iter().chain([&far[0]]) {
            pool.object(name.as_str()).write(0, "x").await.unwrap();
        }
    };
    let object = pool.object("o0");
    let mut stuck_write = pin!(object.write(0, "twice"));
    let mut others = pin!(others);
    fake.run(std::future::poll_fn(|cx| {
        assert!(stuck_write.as_mut().poll(cx).is_pending());
        others.as_mut().poll(cx)
    }));
    // The lost answer holds back its own PG only.
    let lost = fake.taken.iter().find(|(_, request, _)| request.seq > first.seq).unwrap().1;
    let last = fake.taken.last().unwrap().1;
    assert!(near.len() > 1 && lost.seq < last.seq);
    assert_eq!(fake.answered_below[&(first.client, stuck)], lost.seq);
    assert_eq!(fake.answered_below[&(first.client, far_pg)], last.seq);
    fake.run(stuck_write).unwrap();
    fake.run(pool.object("o0").write(0, "after")).unwrap();
    assert_eq!(fake.answered_below[&(first.client, stuck)], fake.taken.last().unwrap().1.seq);
}

#[test]
fn what_a_measured_request_took_is_told_with_the_next_to_its_osd() {
    let mut fake = Fake::new(3);
    let cluster = fake.cluster();
    let pool = fake.run(cluster.pool("rbd")).unwrap();
    fake.lose_replies = 1;
    let began = fake.now;
    fake.run(pool.object("o0").write(0, "once")).unwrap();
    let took = fake.now.since(began).as_nanos() as u64;
    let (osd, first, _) = fake.taken[0].clone();
    assert_eq!(fake.times, [], "nothing of the request itself");
    // One to another OSD is not the place to tell it, and what is not measured tells nothing afterwards.
    let names: Vec<String> = (1..60).map(|n| format!("o{n}")).collect();
    for name in &names {
        fake.run(pool.object(name.as_str()).write(0, "x")).unwrap();
    }
    let told: Vec<_> = fake.times.iter().filter(|(of, _)| *of == osd).collect();
    let after = fake.taken.iter().find(|(of, request, _)| *of == osd && request.seq > first.seq);
    assert!(after.is_some() && told[0].1.request == first.seq, "{told:?}");
    let times = told[0].1;
    assert!(times.total_ns.abs_diff(took) < 1_000_000_000 && times.total_ns > 5_000_000_000, "{times:?}");
    assert!(times.queue_ns < 1_000_000_000 && times.retries_ns >= 5_000_000_000, "{times:?}");
    assert!(times.queue_ns + times.retries_ns <= times.total_ns, "{times:?}");
    let told: Vec<u64> = fake.times.iter().map(|(_, times)| times.request).collect();
    let mut once = told.clone();
    once.dedup();
    assert_eq!(told, once, "each is told once");
    for (of, times) in &fake.times {
        assert!(fake.taken.iter().any(|(osd, request, _)| osd == of && request.seq == times.request));
    }
}

#[test]
fn an_answer_that_is_not_kept_is_no_empty_answer() {
    let mut fake = Fake::new(1);
    let cluster = fake.cluster();
    let pool = fake.run(cluster.pool("rbd")).unwrap();
    fake.run(pool.object("o").write(0, "old")).unwrap();
    fake.forgets_data = true;
    let exchange = || crate::ObjectRequest::new().read(0, 9).stat().write(0, "new");
    let response = fake.run(exchange().run(&pool.object("o"))).unwrap();
    assert_eq!(response.data(0), "old");
    // The first answer is lost, the second comes from the log.
    fake.lose_replies = 1;
    let error = fake.run(exchange().run(&pool.object("o"))).unwrap_err();
    assert!(error.message.starts_with("the change took effect"), "{error}");
    fake.lose_replies = 1;
    fake.run(pool.object("o").append("!")).unwrap();
    assert_eq!(fake.run(pool.object("o").read(0, 9)).unwrap(), "new!");
}

#[test]
fn the_same_seed_does_the_same() {
    let run = || {
        let mut fake = Fake::new(9);
        let cluster = fake.cluster();
        cluster.set_timeout(None);
        let pool = fake.run(cluster.pool("rbd")).unwrap();
        fake.faults =
            Faults { lose: 50, refuse: 50, double: 50, corrupt: 50, close: 50, remap: 20, latency_ms: 9 };
        let write = |i: u64| {
            let object = pool.object(format!("o{}", i % 7));
            async move { object.append("x").await }
        };
        fake.run(concurrent::all(0..100, 20, write)).unwrap();
        (fake.now, fake.taken)
    };
    assert!(run() == run());
}

#[test]
fn a_pool_made_a_moment_ago_is_found() {
    let mut fake = Fake::new(1);
    let cluster = fake.cluster();
    fake.run(cluster.osdmap()).unwrap();
    // The news of it is lost.
    fake.faults.lose = 1000;
    fake.change_map(|step, _| {
        let pool = nacre_maps::Pool::new("new", 3, 2, 8, 0, step.epoch);
        step.pools.insert(nacre_types::PoolId(2), Some(pool));
    });
    fake.faults.lose = 0;
    fake.run(cluster.pool("new")).unwrap();
    assert_eq!(fake.run(cluster.pools()).unwrap().len(), 2);
}

#[test]
fn a_shut_out_client_is_told_so() {
    let mut fake = Fake::new(1);
    let (one, two) = (fake.cluster(), fake.add_client(|_| {}));
    let pool = fake.run(one.pool("rbd")).unwrap();
    fake.run(two.blocklist_add(one.client_id(), Duration::from_secs(60))).unwrap();
    let error = fake.run(pool.object("o").write(0, "x")).unwrap_err();
    assert_eq!(error.code, ErrorCode::Fenced);
    fake.change_map(|_, _| {});
    fake.pass(Duration::from_secs(1));
    let error = fake.run(pool.object("o").read(0, 1)).unwrap_err();
    assert!(error.message.contains("blocklisted"), "{error}");
}

#[test]
fn a_removed_client_is_told_so_at_once() {
    let mut fake = Fake::new(1);
    fake.mon_refuses = true;
    let cluster = fake.cluster();
    let began = fake.now;
    let error = fake.run(cluster.pool("rbd")).unwrap_err();
    assert_eq!(error.code, ErrorCode::NotPermitted);
    assert!(error.message.contains("not known"), "{error}");
    assert!(fake.now.since(began) < Duration::from_secs(5));
    // Once the cluster knows it, it works.
    fake.mon_refuses = false;
    fake.run(cluster.pool("rbd")).unwrap();
}

#[test]
fn damaged_answers_are_errors_not_panics() {
    use crate::{ClientEffect, ClientEvent};
    use nacre_types::EntityName;
    use nacre_wire::op::{OpResult, OsdOpReply};
    use nacre_wire::{Address, Data, Packet, Peer, SessionId};
    let mut rng = Rng::new(1);
    let mut fake = Fake::new(1);
    let cluster = fake.cluster();
    let pool = fake.run(cluster.pool("rbd")).unwrap();
    let waker = std::task::Waker::noop();
    let mut cx = std::task::Context::from_waker(waker);
    for _ in 0..300 {
        let object = pool.object("o");
        let mut calls: Vec<std::pin::Pin<Box<dyn Future<Output = ()>>>> = vec![
            Box::pin(async { drop(object.read(0, 10).await) }),
            Box::pin(async { drop(object.stat().await) }),
            Box::pin(async { drop(object.omap("").await) }),
            Box::pin(async { drop(object.list_snaps().await) }),
            Box::pin(async { drop(pool.list_page(Default::default(), 10, true).await) }),
        ];
        let call = &mut calls[rng.below(5) as usize];
        assert!(call.as_mut().poll(&mut cx).is_pending());
        cluster.step(fake.now, ClientEvent::Wake);
        for effect in cluster.take_effects() {
            let ClientEffect::Send { to: Address::Osd { id, .. }, packet } = effect else { continue };
            let mut result = || OpResult {
                code: rng.below(30) as i32,
                length: rng.next_u64() >> rng.below(64),
                offset: rng.next_u64() >> rng.below(64),
                answer: vec![rng.below(256) as u8; rng.below(20) as usize].into(),
            };
            let results = vec![result(), result()];
            let reply = OsdOpReply { results, ..OsdOpReply::default() };
            let data =
                Data { bytes: vec![0; rng.below(30) as usize].into(), crcs: vec![7; rng.below(3) as usize] };
            let packet = Packet::new(packet.epoch, reply).request(packet.request).with(data);
            let from = Peer { session: SessionId(77), entity: EntityName::Osd(id) };
            cluster.step(fake.now, ClientEvent::Received { from, packet });
        }
        let _either = call.as_mut().poll(&mut cx);
        drop(calls);
        cluster.step(fake.now, ClientEvent::Wake);
        cluster.check();
    }
}

#[test]
fn overlapping_operations_keep_their_order() {
    for seed in 0..12 {
        let mut fake = Fake::new(seed);
        let cluster = fake.cluster();
        cluster.set_timeout(None);
        let pool = fake.run(cluster.pool("rbd")).unwrap();
        fake.faults = Faults { lose: 100, refuse: 200, close: 50, latency_ms: 50, ..Faults::default() };
        let mut rng = Rng::new(seed);
        let model = RefCell::new([0_u8; 64]);
        // All are started in order, none waits for another's end.
        let operations = (0..200_u64).map(|i| {
            let (start, length) = (rng.below(60), rng.range(1, 5));
            (i, rng.chance(1, 3), start, length)
        });
        let run = |(i, read, start, length): (u64, bool, u64, u64)| {
            let object = pool.object("o");
            let range = start as usize..(start + length) as usize;
            let byte = i as u8 + 1;
            let expected = model.borrow()[range.clone()].to_vec();
            if !read {
                model.borrow_mut()[range].fill(byte);
            }
            async move {
                if read {
                    let mut found = match object.read(start, length).await {
                        Ok(found) => found.to_vec(),
                        Err(error) if error.code == ErrorCode::NotFound => Vec::new(),
                        Err(error) => return Err(error),
                    };
                    found.resize(length as usize, 0);
                    assert_eq!(found, expected, "seed {seed} operation {i}");
                    Ok(())
                } else {
                    object.write(start, vec![byte; length as usize]).await
                }
            }
        };
        fake.run(concurrent::all(operations, 1000, run)).unwrap();
        assert!(!fake.taken.is_empty());
    }
}

#[test]
fn what_is_on_the_wire_is_bounded() {
    let mut fake = Fake::new(1);
    let cluster = fake.add_client(|config| {
        config.inflight_ops_max = 4;
        config.inflight_bytes_max = 100;
    });
    let pool = fake.run(cluster.pool("rbd")).unwrap();
    let write = |i: u64| {
        let (object, cluster) = (pool.object(format!("o{i}")), cluster.clone());
        async move {
            let result = object.write(0, vec![1; 40]).await;
            let (ops, bytes) = cluster.inflight();
            assert!(ops <= 4 && bytes <= 100, "{ops} {bytes}");
            result
        }
    };
    fake.run(concurrent::all(0..100, 100, write)).unwrap();
    fake.run(pool.object("big").write(0, vec![1; 1000])).unwrap();
    assert_eq!(cluster.inflight(), (0, 0));
}

#[test]
fn a_dead_cluster_gives_an_error_that_names_what_is_missing() {
    let mut fake = Fake::new(1);
    fake.mon_answers = false;
    let cluster = fake.cluster();
    let error = fake.run(cluster.pool("rbd")).unwrap_err();
    assert_eq!(error.code, ErrorCode::TimedOut);
    assert_eq!(
        error.message,
        "getting an osdmap gave up after 30 s: no monitor answers (mon.a at 10.0.0.9:1)"
    );
    // Whoever made the connections may know why.
    let unreachable = |rejected| crate::ClientEvent::MonitorsUnreachable {
        reason: "mon.a: our certificate expired".into(),
        rejected,
    };
    cluster.step(fake.now, unreachable(false));
    let error = fake.run(cluster.pool("rbd")).unwrap_err();
    assert!(error.message.ends_with("no monitor can be used: mon.a: our certificate expired"), "{error}");
    assert_eq!(error.code, ErrorCode::TimedOut);
    // And that there is no use in waiting.
    let (clone, began) = (cluster.clone(), fake.now);
    let error = fake.run(async {
        let mut asked = pin!(clone.pool("rbd"));
        std::future::poll_fn(|cx| {
            assert!(asked.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        cluster.step(began, unreachable(true));
        asked.await.unwrap_err()
    });
    assert_eq!(error.code, ErrorCode::NotPermitted);
    assert!(error.message.ends_with("expired") && fake.now.since(began) < Duration::from_secs(2), "{error}");
    fake.mon_answers = true;
    let pool = fake.run(cluster.pool("rbd")).unwrap().with_timeout(Some(Duration::from_secs(2)));
    let error = fake.run(cluster.command(r#"{"prefix":"no quorum"}"#, "")).unwrap_err();
    assert!(error.message.ends_with("1 of 3 monitors: no quorum"), "{error}");
    fake.faults.refuse = 1000;
    let error = fake.run(pool.object("o").read(0, 1)).unwrap_err();
    assert!(error.message.ends_with("gave up after 2 s: PG 1.0 is peering: waits for osd.2"), "{error}");
    fake.faults = Faults { lose: 1000, ..Faults::default() };
    let error = fake.run(pool.object("o").read(0, 1)).unwrap_err();
    assert!(
        error.message.contains("primary of PG 1.") && error.message.ends_with("does not answer"),
        "{error}"
    );
    fake.faults = Faults::default();
    fake.change_map(|step, map| {
        for id in 0..3 {
            step.osd_mut(map, OsdId(id)).unwrap().up = false;
        }
    });
    let error = fake.run(pool.object("o").read(0, 1)).unwrap_err();
    assert!(error.message.ends_with("none of its OSDs is up (down: osd.0, osd.1, osd.2)"), "{error}");
    fake.change_map(|step, map| step.flags = Some(map.flags().with(Flag::Pause)));
    fake.pass(Duration::from_millis(100));
    let error = fake.run(pool.object("o").read(0, 1)).unwrap_err();
    assert!(error.message.contains("flag pause"), "{error}");
    assert!(cluster.waiting().is_empty());
}

#[test]
fn waits_for_a_primary_and_goes_on() {
    let mut fake = Fake::new(1);
    let cluster = fake.cluster();
    cluster.set_timeout(None);
    let pool = fake.run(cluster.pool("rbd")).unwrap();
    fake.change_map(|step, map| {
        for id in 0..3 {
            step.osd_mut(map, OsdId(id)).unwrap().up = false;
        }
    });
    fake.pass(Duration::from_secs(1));
    let object = pool.object("o");
    let mut write = Box::pin(object.write(0, "x"));
    let waker = std::task::Waker::noop();
    assert!(write.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_pending());
    fake.pass(Duration::from_secs(120));
    assert_eq!(fake.taken.len(), 0);
    assert!(cluster.waiting()[0].needs.to_string().contains("is down"));
    fake.change_map(|step, map| {
        for id in 0..3 {
            let osd = step.osd_mut(map, OsdId(id)).unwrap();
            (osd.up, osd.instance) = (true, 8);
        }
    });
    fake.run(write).unwrap();
    assert_eq!(fake.taken.len(), 1);
}

#[test]
fn a_dropped_future_frees_its_place() {
    let mut fake = Fake::new(1);
    let cluster = fake.add_client(|config| config.inflight_ops_max = 1);
    let pool = fake.run(cluster.pool("rbd")).unwrap();
    let (object, other) = (pool.object("o"), pool.object("o"));
    let waker = std::task::Waker::noop();
    let mut cx = std::task::Context::from_waker(waker);
    fake.faults.lose = 1000;
    let mut first = Box::pin(object.write(0, "first"));
    assert!(first.as_mut().poll(&mut cx).is_pending());
    fake.pass(Duration::from_secs(1));
    let mut second = Box::pin(other.write(0, "second"));
    assert!(second.as_mut().poll(&mut cx).is_pending());
    fake.pass(Duration::from_secs(1));
    fake.faults.lose = 0;
    drop(first);
    fake.run(second).unwrap();
    assert_eq!(fake.run(object.read(0, 9)).unwrap(), "second");
    assert_eq!(fake.taken.iter().filter(|(_, _, object)| object.name == "o").count(), 2);
}

#[test]
fn a_pool_that_goes_away_is_an_error() {
    let mut fake = Fake::new(1);
    let cluster = fake.cluster();
    let pool = fake.run(cluster.pool("rbd")).unwrap();
    fake.change_map(|step, _| {
        step.pools.insert(nacre_types::PoolId(1), None);
    });
    fake.pass(Duration::from_secs(1));
    let error = fake.run(pool.object("o").read(0, 1)).unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (ErrorCode::NotFound, "pool 1 does not exist any more"));
}
