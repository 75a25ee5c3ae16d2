//! Transactions: round trips and refusal of what does not fit.

use super::*;
use nacre_types::PoolId;

fn object(name: &str) -> ObjectId {
    ObjectId::new(PoolId(1), "", name).unwrap()
}

fn sample() -> Transaction {
    let mut t = Transaction::new(PgId::new(PoolId(1), 5));
    t.write(&object("a"), 100, Data::checksummed(100, Bytes::from(vec![1; 5000])));
    t.clone_object(&object("a"), &object("b"));
    t.write(&object("b"), 0, Data::checksummed(0, Bytes::from(vec![2; 4096])));
    t.meta_set("k", "v");
    t.meta_set("l", "w");
    t
}

#[test]
fn what_is_encoded_decodes_to_the_same() {
    let t = sample();
    let back = Transaction::decode(&t.encode_body(), t.payload()).unwrap();
    assert_eq!(back, t);
    assert_eq!(back.writes()[1].bytes, vec![2; 4096]);
}

#[test]
fn append_keeps_meaning() {
    let mut first = Transaction::new(PgId::new(PoolId(1), 5));
    first.create(&object("b"));
    first.append(sample());
    let Op::Clone(two) = &first.ops()[2] else { panic!("{:?}", first.ops()) };
    assert_eq!(first.object(two.from), &object("a"));
    assert_eq!(first.object(two.to), &object("b"));
}

#[test]
fn data_of_the_wrong_length_is_refused() {
    let t = sample();
    let mut payload = t.payload();
    payload.bytes = payload.bytes.slice(1..);
    let error = Transaction::decode(&t.encode_body(), payload).unwrap_err();
    assert!(matches!(error, TransactionError::DataMismatch { .. }), "{error}");
    let mut extra = t.payload();
    extra.crcs.push(1);
    assert!(Transaction::decode(&t.encode_body(), extra).is_err());
}

#[test]
fn wild_indices_and_offsets_are_refused() {
    let op = |op| OpMessage { op: Some(op) };
    let cases = [
        op(Op::Remove(OnObject { object: 1 })),
        op(Op::Truncate(OnSize { object: 0, size: OBJECT_BYTES_MAX + 1 })),
        op(Op::Zero(OnExtent { object: 0, offset: u64::MAX, length: 2 })),
        op(Op::Write(OnExtent { object: 0, offset: 0, length: 1 << 60 })),
        OpMessage { op: None },
    ];
    for case in cases {
        let body = TransactionBody { pg: 1, objects: vec![ObjectName::from(&object("a"))], ops: vec![case] };
        let result = Transaction::decode(&body.encode_to_vec(), Data::default());
        assert!(result.is_err(), "{body:?}");
    }
}
