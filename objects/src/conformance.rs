//! What every bucket must do, as checks that panic with the rule that was broken.
//!
//! Each check uses names of its own, so that one bucket serves them all; [`all`] runs them in turn. A bucket that is new
//! is done when it passes. What a bucket says when its service is gone depends on the service and is checked with it.

use crate::{Bucket, BucketError, ObjectMeta, PutOutcome};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::task::JoinSet;

/// Writers of one name at the same time.
const RACERS: u32 = 16;
/// More than any service lists in one answer.
const LISTED_OBJECTS: usize = 1_050;
/// Writes at a time while the listing is prepared.
const WRITERS: usize = 16;
/// Most objects on a page of the paged listing; divides nothing evenly.
const PAGE: usize = 97;

/// Damages the object of that name behind the bucket's back: other bytes under the same checksum.
pub type Rot<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// Runs all checks.
pub async fn all(bucket: Arc<dyn Bucket>, rot: Rot<'_>) {
    round_trip(&*bucket).await;
    ranges(&*bucket).await;
    absence(&*bucket).await;
    existing_objects(&*bucket).await;
    replacement(&*bucket).await;
    wrong_checksum_is_not_stored(&*bucket).await;
    race_of_different_contents(&bucket).await;
    race_of_equal_contents(&bucket).await;
    odd_names(&*bucket).await;
    listing(&bucket).await;
    rot_is_noticed(&*bucket, rot).await;
}

fn pattern(length: usize, seed: u8) -> Bytes {
    (0..length).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed) ^ (at >> 8) as u8).collect()
}

async fn put(bucket: &dyn Bucket, name: &str, data: &Bytes) -> Result<PutOutcome, BucketError> {
    bucket.put_new(name, data.clone(), crc32c::crc32c(data)).await
}

async fn create(bucket: &dyn Bucket, name: &str, data: &Bytes) {
    let outcome = put(bucket, name, data).await.unwrap_or_else(|error| panic!("a new object is stored: {error}"));
    assert_eq!(outcome, PutOutcome::Created, "{name} is new");
}

/// What was stored comes back, with length and checksum, from `get` and from `head`.
pub async fn round_trip(bucket: &dyn Bucket) {
    for (name, length) in [("round/empty", 0), ("round/one", 1), ("round/odd", 65_537), ("round/block", 4 << 20)] {
        let data = pattern(length, 7);
        create(bucket, name, &data).await;
        let (found, meta) = bucket.get(name).await.expect("what was stored can be read");
        assert!(found == data, "{name} comes back as it was stored");
        let known = bucket.head(name).await.expect("what was stored can be looked at");
        for meta in [meta, known] {
            assert_eq!((meta.name.as_str(), meta.size), (name, length as u64));
            assert_eq!(meta.crc32c, Some(crc32c::crc32c(&data)), "the checksum is stored with {name}");
        }
    }
}

/// Ranges are cut at the end; one that starts there is an error.
pub async fn ranges(bucket: &dyn Bucket) {
    let data = pattern(10_000, 9);
    create(bucket, "range", &data).await;
    for range in [0..1, 0..10_000, 17..4_242, 9_999..10_000, 9_000..20_000] {
        let found = bucket.get_range("range", range.clone()).await.expect("a range inside is read");
        let end = range.end.min(10_000) as usize;
        assert!(found == data.slice(range.start as usize..end), "{range:?} has the right bytes");
    }
    let empty = bucket.get_range("range", 5..5).await.expect("a range without bytes is read");
    assert!(empty.is_empty());
    let beyond = bucket.get_range("range", 10_000..10_001).await.expect_err("nothing is behind the end");
    assert!(matches!(beyond, BucketError::Other { .. }), "{beyond:?}");
    assert!(!beyond.is_transient());
}

/// An absent object is `NotFound` wherever one is read, and no error to delete, also twice.
pub async fn absence(bucket: &dyn Bucket) {
    let absent = |error: BucketError| {
        assert!(matches!(&error, BucketError::NotFound { object, .. } if object == "absent/x"), "{error:?}");
        assert!(error.to_string().contains("absent/x") && error.to_string().contains(bucket.url()), "{error}");
    };
    absent(bucket.get("absent/x").await.expect_err("get of an absent object"));
    absent(bucket.head("absent/x").await.expect_err("head of an absent object"));
    absent(bucket.get_range("absent/x", 0..1).await.expect_err("a range of an absent object"));
    bucket.delete("absent/x").await.expect("an absent object is deleted");
    create(bucket, "absent/x", &pattern(10, 1)).await;
    bucket.delete("absent/x").await.expect("an object is deleted");
    absent(bucket.head("absent/x").await.expect_err("head of a deleted object"));
    bucket.delete("absent/x").await.expect("a deleted object is deleted");
    create(bucket, "absent/x", &pattern(11, 1)).await;
}

/// Law 16: "exists" is success only if length and checksum agree.
pub async fn existing_objects(bucket: &dyn Bucket) {
    let data = pattern(1_000, 3);
    create(bucket, "existing", &data).await;
    let again = put(bucket, "existing", &data).await.expect("the same content is stored again");
    assert_eq!(again, PutOutcome::Existed);
    for other in [pattern(1_000, 4), pattern(999, 3), Bytes::new()] {
        let error = put(bucket, "existing", &other).await.expect_err("other content is a conflict");
        let BucketError::Conflict { existing_size, existing_crc32c, .. } = error else { panic!("{error:?}") };
        assert_eq!((existing_size, existing_crc32c), (1_000, crc32c::crc32c(&data)));
    }
    let (found, _) = bucket.get("existing").await.expect("the first content is there");
    assert!(found == data, "a conflict changes nothing");
}

/// `put_replace` replaces.
pub async fn replacement(bucket: &dyn Bucket) {
    for seed in [1, 2] {
        let data = pattern(100, seed);
        bucket.put_replace("replaced", data.clone()).await.expect("an object is replaced");
        let (found, meta) = bucket.get("replaced").await.expect("the replaced object is read");
        assert!(found == data && meta.crc32c == Some(crc32c::crc32c(&data)), "the last content is there");
    }
}

/// Data is never stored under a checksum that it does not have.
pub async fn wrong_checksum_is_not_stored(bucket: &dyn Bucket) {
    let error = bucket.put_new("wrong", pattern(10, 1), 0x1234).await.expect_err("the checksum is wrong");
    assert!(matches!(error, BucketError::Corrupt { expected: 0x1234, .. }), "{error:?}");
    assert!(matches!(bucket.head("wrong").await, Err(BucketError::NotFound { .. })), "nothing was stored");
}

async fn race(
    bucket: &Arc<dyn Bucket>,
    name: &'static str,
    seed: impl Fn(u32) -> u8,
) -> Vec<(u8, Result<PutOutcome, BucketError>)> {
    let mut racers = JoinSet::new();
    for racer in 0..RACERS {
        let (bucket, seed) = (bucket.clone(), seed(racer));
        racers.spawn(async move { (seed, put(&*bucket, name, &pattern(50_000, seed)).await) });
    }
    racers.join_all().await
}

/// Of many writers of one name with different contents exactly one creates it, and its content stays.
pub async fn race_of_different_contents(bucket: &Arc<dyn Bucket>) {
    let ends = race(bucket, "race/different", |racer| racer as u8).await;
    let mut winners = Vec::new();
    for (seed, end) in ends {
        match end {
            Ok(PutOutcome::Created) => winners.push(seed),
            Err(BucketError::Conflict { .. }) => {}
            other => panic!("a racer ended with {other:?}"),
        }
    }
    assert_eq!(winners.len(), 1, "exactly one writer creates: {winners:?}");
    let (found, _) = bucket.get("race/different").await.expect("the winner's object is read");
    assert!(found == pattern(50_000, winners[0]), "the winner's content is there");
}

/// Of many writers of one name with one content exactly one creates it, and all succeed.
pub async fn race_of_equal_contents(bucket: &Arc<dyn Bucket>) {
    let ends = race(bucket, "race/equal", |_| 5).await;
    let outcomes: Vec<PutOutcome> =
        ends.into_iter().map(|(_, end)| end.unwrap_or_else(|error| panic!("a racer failed: {error}"))).collect();
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == PutOutcome::Created).count(), 1, "{outcomes:?}");
}

/// Names that paths, URLs or XML give trouble; in byte order.
const ODD_NAMES: [&str; 18] = [
    "odd/\u{1}\u{7f}",
    "odd/ space",
    "odd/%25",
    "odd/&<>\"'",
    "odd/+plus",
    "odd/,;=@$!*()",
    "odd/..",
    "odd/...x",
    "odd/.hidden",
    "odd//",
    "odd//double",
    "odd/?query",
    "odd/a",
    "odd/a/",
    "odd/a/b",
    "odd/a=",
    "odd/caf\u{e9}",
    "odd/\u{6d77}\u{1f30a}",
];

/// Odd names are stored, found and listed as they are, also when one is a directory of another.
pub async fn odd_names(bucket: &dyn Bucket) {
    for (seed, name) in ODD_NAMES.into_iter().enumerate() {
        create(bucket, name, &pattern(20, seed as u8)).await;
    }
    for (seed, name) in ODD_NAMES.into_iter().enumerate() {
        let (found, _) = bucket.get(name).await.unwrap_or_else(|error| panic!("{name} is read: {error}"));
        assert!(found == pattern(20, seed as u8), "{name} has its own content");
    }
    let page = bucket.list("odd/", None, 100).await.expect("odd names are listed");
    let names: Vec<&str> = page.objects.iter().map(|object| object.name.as_str()).collect();
    assert_eq!(names, ODD_NAMES);
    assert!(!page.more);
    for name in ODD_NAMES {
        bucket.delete(name).await.unwrap_or_else(|error| panic!("{name} is deleted: {error}"));
    }
    let page = bucket.list("odd/", None, 100).await.expect("an empty prefix is listed");
    assert!(page.objects.is_empty(), "{:?}", page.objects);
}

/// Listings are in byte order, whole, and the same in any number of pages.
pub async fn listing(bucket: &Arc<dyn Bucket>) {
    let names: BTreeSet<String> = (0..LISTED_OBJECTS)
        .map(|number| match number % 3 {
            0 => format!("list/chunks/0/{}/{number}_0_1", number % 7),
            1 => format!("list/chunks/{}/x-{number}", number % 5),
            _ => format!("list/chunks-{number:04}"),
        })
        .collect();
    let mut waiting = names.iter().cloned();
    let mut writers = JoinSet::new();
    loop {
        while writers.len() < WRITERS
            && let Some(name) = waiting.next()
        {
            let bucket = bucket.clone();
            writers.spawn(async move { create(&*bucket, &name, &pattern(name.len(), 0)).await });
        }
        match writers.join_next().await {
            Some(written) => written.expect("a writer finishes"),
            None => break,
        }
    }
    create(&**bucket, "list", &pattern(1, 1)).await;
    create(&**bucket, "lisu", &pattern(1, 1)).await;

    let whole = bucket.list("list/", None, LISTED_OBJECTS + 10).await.expect("all is listed");
    assert!(!whole.more, "nothing is behind the end");
    let found: Vec<&str> = whole.objects.iter().map(|object| object.name.as_str()).collect();
    assert!(found.iter().copied().eq(names.iter().map(String::as_str)), "byte order, whole, nothing of other prefixes");
    assert!(whole.objects.iter().all(|object| object.size == object.name.len() as u64), "sizes are listed");

    let exact = bucket.list("list/", None, LISTED_OBJECTS).await.expect("exactly all is listed");
    assert!(!exact.more && exact.objects.len() == LISTED_OBJECTS, "a full last page is the last");
    let mut paged: Vec<ObjectMeta> = Vec::new();
    loop {
        let after = paged.last().map(|object| object.name.clone());
        let page = bucket.list("list/", after.as_deref(), PAGE).await.expect("a page is listed");
        assert!(page.objects.len() == PAGE || !page.more, "a page with more behind it is full");
        paged.extend(page.objects);
        if !page.more {
            break;
        }
    }
    assert!(paged == whole.objects, "pages give the same as one listing");

    let inner = bucket.list("list/chunks/0/3", Some("list/chunks/0/3/1"), 1000).await.expect("a part of a name is a prefix");
    let expected = names.iter().filter(|name| name.starts_with("list/chunks/0/3") && name.as_str() > "list/chunks/0/3/1");
    assert!(inner.objects.iter().map(|object| &object.name).eq(expected), "prefix and start agree");
    let behind = bucket.list("list/", Some("list/z"), 10).await.expect("a listing behind the end");
    assert!(behind.objects.is_empty() && !behind.more);
    let none = bucket.list("list/", None, 0).await.expect("a listing of nothing");
    assert!(none.objects.is_empty() && !none.more);
}

/// Law 16: content that is not what was stored is never handed out.
pub async fn rot_is_noticed(bucket: &dyn Bucket, rot: Rot<'_>) {
    let data = pattern(5_000, 8);
    create(bucket, "rotten", &data).await;
    rot("rotten");
    let error = bucket.get("rotten").await.expect_err("a damaged object is not handed out");
    let BucketError::Corrupt { expected, found, .. } = &error else { panic!("{error:?}") };
    assert_eq!(*expected, crc32c::crc32c(&data));
    assert_ne!(expected, found);
    assert!(!error.is_transient());
}
