//! The buckets of the search index: which texts stand together.
//!
//! A bucket has the texts from its first place, a time and an id, up to the first place of the next one. A search
//! reads all matches of a bucket, so a bucket is limited. One that is full gets a neighbour: behind all of its
//! texts, where the new text is newer, as it mostly is; else in its middle, and the texts from there on move.
//! Their terms name the bucket and are written anew. So the limit counts terms as well as texts: moving half of a
//! bucket takes a second or two.

use diesel::OptionalExtension;
use diesel::result::QueryResult;
use diesel::sql_types::{Array, BigInt, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::bucket_prefix;
use super::texts::Indexed;
use crate::row::At;
use crate::statement::Statement;

/// What a bucket holds: at most 8,192 texts, and some 3,000 of ordinary length.
const BUCKET_WEIGHT: i64 = 512 * 1024;

/// What a text weighs besides its terms.
pub(crate) const TEXT_WEIGHT: i32 = 64;

/// The bucket of the first of these texts, which are in order, and how many of them go into it: at least one.
/// What they take is reserved.
pub(crate) async fn place(
    conn: &mut AsyncPgConnection,
    texts: &[Indexed],
) -> QueryResult<(i64, usize)> {
    loop {
        let placed = placed(conn, texts).await?;
        let Some(Some((bucket, mut weight))) = placed.as_slice().first().map(|text| text.bucket)
        else {
            create(conn, texts[0].place()).await?;
            continue;
        };
        let mut count = 0;
        let mut new = 0;
        for (text, place) in texts.iter().zip(&placed) {
            let takes = if place.old == Some(bucket) { 0 } else { i64::from(text.weight()) };
            let is_here = place.bucket.is_some_and(|(other, _)| other == bucket);
            // An empty bucket takes any text.
            if !is_here || (takes > 0 && weight > 0 && weight + takes > BUCKET_WEIGHT) {
                break;
            }
            (weight, new, count) = (weight + takes, new + takes, count + 1);
        }
        if count > 0 {
            const RESERVE: &str = "UPDATE subject_buckets SET weight = weight + ? WHERE bucket = ?";
            if new > 0 {
                let reserve = Statement::<()>::new(RESERVE);
                reserve.bind::<BigInt>(new).bind::<BigInt>(bucket).execute(conn).await?;
            }
            return Ok((bucket, count));
        }
        make_room(conn, bucket, &texts[0]).await?;
    }
}

impl Indexed {
    /// Its place in the order of all texts.
    fn place(&self) -> (At, Uuid) {
        (At(self.at), self.id)
    }
}

/// Where a text goes, and where it was.
struct Placed {
    /// The bucket and its weight; none where all buckets begin behind the text.
    bucket: Option<(i64, i64)>,
    old: Option<i64>,
}

async fn placed(conn: &mut AsyncPgConnection, texts: &[Indexed]) -> QueryResult<Vec<Placed>> {
    const SQL: &str = "SELECT b.bucket, b.weight, s.bucket \
        FROM unnest(?, ?) WITH ORDINALITY AS v (at, id, n) \
        LEFT JOIN subject_search s ON s.subject_id = v.id \
        LEFT JOIN LATERAL (SELECT bucket, weight FROM subject_buckets \
            WHERE (from_at, from_id) <= (v.at, v.id) \
            ORDER BY from_at DESC, from_id DESC LIMIT 1) b ON true ORDER BY v.n";
    type Row = (Option<i64>, Option<i64>, Option<i64>);
    let rows: Vec<Row> =
        Statement::<(Nullable<BigInt>, Nullable<BigInt>, Nullable<BigInt>)>::new(SQL)
            .bind::<Array<Timestamptz>>(texts.iter().map(|text| At(text.at)).collect::<Vec<_>>())
            .bind::<Array<SqlUuid>>(texts.iter().map(|text| text.id).collect::<Vec<_>>())
            .load(conn)
            .await?;
    let placed = |(bucket, weight, old): Row| Placed { bucket: bucket.zip(weight), old };
    Ok(rows.into_iter().map(placed).collect())
}

/// A new bucket without texts.
async fn create(conn: &mut AsyncPgConnection, (at, id): (At, Uuid)) -> QueryResult<i64> {
    const SQL: &str = "INSERT INTO subject_buckets (from_at, from_id, weight) VALUES (?, ?, 0) \
        RETURNING bucket";
    Statement::<BigInt>::new(SQL).bind::<Timestamptz>(at).bind::<SqlUuid>(id).get_result(conn).await
}

/// Makes room for a text in the part of the order that a full bucket has.
async fn make_room(conn: &mut AsyncPgConnection, bucket: i64, text: &Indexed) -> QueryResult<()> {
    const WEIGH: &str = "UPDATE subject_buckets SET weight = (SELECT coalesce(sum(weight), 0) \
        FROM subject_search WHERE bucket = ?) WHERE bucket = ? RETURNING weight";
    const LAST: &str = "SELECT at, subject_id FROM subject_search WHERE bucket = ? \
        ORDER BY at DESC, subject_id DESC LIMIT 1";
    const MIDDLE: &str = "SELECT at, subject_id FROM subject_search WHERE bucket = ? \
        ORDER BY at, subject_id OFFSET (SELECT count(*) / 2 FROM subject_search WHERE bucket = ?) \
        LIMIT 1";
    const MOVE: &str = "UPDATE subject_search SET bucket = ?, words = array_to_tsvector(ARRAY(\
        SELECT CASE WHEN starts_with(word, ?) THEN ? || substr(word, ?) ELSE word END \
        FROM unnest(tsvector_to_array(words)) word)) \
        WHERE bucket = ? AND (at, subject_id) >= (?, ?)";
    type Place = (Timestamptz, SqlUuid);
    let weight: i64 = weigh(conn, WEIGH, bucket).await?;
    // Texts may have left it since it was weighed.
    if weight == 0 || weight + i64::from(text.weight()) <= BUCKET_WEIGHT {
        return Ok(());
    }
    let last: Option<(At, Uuid)> =
        Statement::<Place>::new(LAST).bind::<BigInt>(bucket).get_result(conn).await.optional()?;
    if last.is_none_or(|last| last < text.place()) {
        create(conn, text.place()).await?;
        return Ok(());
    }
    let middle: (At, Uuid) = Statement::<Place>::new(MIDDLE)
        .bind::<BigInt>(bucket)
        .bind::<BigInt>(bucket)
        .get_result(conn)
        .await?;
    let upper = create(conn, middle).await?;
    let (from, to) = (bucket_prefix(bucket), bucket_prefix(upper));
    let behind = i32::try_from(from.len() + 1).unwrap_or(i32::MAX);
    Statement::<()>::new(MOVE)
        .bind::<BigInt>(upper)
        .bind::<Text>(from)
        .bind::<Text>(to)
        .bind::<Integer>(behind)
        .bind::<BigInt>(bucket)
        .bind::<Timestamptz>(middle.0)
        .bind::<SqlUuid>(middle.1)
        .execute(conn)
        .await?;
    weigh(conn, WEIGH, bucket).await?;
    weigh(conn, WEIGH, upper).await?;
    Ok(())
}

async fn weigh(conn: &mut AsyncPgConnection, sql: &'static str, bucket: i64) -> QueryResult<i64> {
    let weigh = Statement::<BigInt>::new(sql);
    weigh.bind::<BigInt>(bucket).bind::<BigInt>(bucket).get_result(conn).await
}
