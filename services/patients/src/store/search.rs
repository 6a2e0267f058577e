//! Finding patients, and those who are probably one person.
//!
//! A search by name goes down in ranks: names that have every word asked for, then those that have some only as a beginning, then
//! those a typo or two away, and, when nobody was found by then, those that merely sound alike. Within a rank patients are in
//! order of their [`Place`], which the index knows by slices of all patients: a rank is read slice by slice until a page is full,
//! so that what thousands fit costs no more than what a hundred do.

use std::collections::BTreeSet;
use std::ops::Range;

use chrono::NaiveDate;
use sqlx::PgConnection;
use uuid::Uuid;

use super::sealed;
use crate::domain::{E164, Patient, slips};
use crate::error::Error;
use crate::seal::Keys;

/// Words of a search that are looked at; the rest narrow nothing.
const MAX_WORDS: usize = 8;
/// Conditions the index is asked with: one for each word, the last for all that remain. It passes over what one of them rules out.
const CONDITIONS: usize = 4;
/// Longer words that are spelled out for a beginning at most; where there are more, the index looks for the beginning itself.
const MAX_BEGINNINGS: usize = 64;
/// Letters of a beginning that the index has as a word of its own, at most.
const INDEXED_LETTERS: usize = 3;
/// Slices that the patients are in, by the last byte of the id.
const SLICES: usize = 256;
/// Slices named one by one to the index at most; of more, all that are left are read.
const MAX_NAMED_SLICES: usize = 64;
/// How much more than the slices before promise is read next, so that it mostly is enough.
const SPARE: usize = 2;
/// Words that one may be mistyped for, at most.
const MAX_TYPOS: usize = 24;
/// How alike a word must be to what was asked for to be found when nothing else is, 0 to 1, and how many such words at most.
const LIKENESS: f32 = 0.5;
const MAX_ALIKE: i64 = 24;
/// Shorter words have no typos: one letter would change them beyond recognition.
const MIN_TYPO_LETTERS: usize = 4;
/// How alike the names of one person are at least, 0 to 1.
const SAME_NAME: f32 = 0.4;
/// Patients with the same phone, e-mail or birth date who are compared with a new one.
const MAX_COMPARED: i64 = 200;

/// What a search asks for; `None` and empty = anything. Not printed by `Debug`: it would end in a log.
#[derive(Clone, Default)]
pub struct Criteria {
    /// Names, as [`crate::domain::comparable`] makes them.
    pub name: String,
    /// Exact number.
    pub phone: Option<E164>,
    /// Exact day.
    pub birth_date: Option<NaiveDate>,
    /// Exact MRN.
    pub mrn: String,
}

/// How well a name fits, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Every word is there.
    Exact,
    /// Some are there only as beginnings.
    Beginning,
    /// Some with a typo.
    Typo,
    /// Some merely sound alike.
    Alike,
}

impl Rank {
    const ALL: [Self; 4] = [Self::Exact, Self::Beginning, Self::Typo, Self::Alike];

    /// Its score in thousandths.
    fn score(self) -> i32 {
        match self {
            Self::Exact => 1000,
            Self::Beginning => 900,
            Self::Typo => 700,
            Self::Alike => 500,
        }
    }
}

/// Words that stand for one word of a search, by rank.
struct Word {
    text: String,
    /// `None` = too many to spell out.
    beginnings: Option<Vec<String>>,
    typos: Vec<String>,
    alike: Vec<String>,
}

impl Word {
    fn new(text: &str) -> Self {
        Self { text: text.to_owned(), beginnings: None, typos: vec![], alike: vec![] }
    }

    /// The tsquery of what it is the beginning of, itself included.
    fn begun(&self) -> String {
        if self.text.chars().count() <= INDEXED_LETTERS {
            format!("'^{}'", self.text)
        } else {
            format!("{}:*", lexeme(&self.text))
        }
    }

    /// The tsquery of what fits at `rank` and not better, or only as well as [`Name::above`] rules out; `None` = nothing does.
    fn at(&self, rank: Rank) -> Option<String> {
        match (rank, &self.beginnings) {
            (Rank::Exact, _) => Some(lexeme(&self.text)),
            (Rank::Beginning, None) => Some(self.begun()),
            (Rank::Beginning, Some(words)) => any_of(words),
            (Rank::Typo, _) => any_of(&self.typos),
            (Rank::Alike, _) => any_of(&self.alike),
        }
    }

    /// The tsquery of what fits at `rank` or better.
    fn until(&self, rank: Rank) -> String {
        let parts = Rank::ALL.into_iter().filter(|better| *better <= rank).filter_map(|r| match r {
            // As a beginning it includes itself.
            Rank::Exact if rank > Rank::Exact => None,
            Rank::Beginning => Some(self.begun()),
            _ => self.at(r),
        });
        format!("({})", parts.collect::<Vec<_>>().join(" | "))
    }
}

/// A word, quoted for a tsquery. Words have no quotes and no backslashes: they are letters and digits.
fn lexeme(word: &str) -> String {
    format!("'{word}'")
}

fn any_of(words: &[String]) -> Option<String> {
    let words: Vec<_> = words.iter().map(|word| lexeme(word)).collect();
    (!words.is_empty()).then(|| format!("({})", words.join(" | ")))
}

/// What a name must fit: each of `all`, and not all of `above` together; tsqueries.
#[derive(Default)]
struct Name {
    all: [Option<String>; CONDITIONS],
    above: Option<String>,
}

impl Name {
    /// Names whose words fit at `rank`, some not better; `None` = there are none.
    fn at(words: &[Word], rank: Rank) -> Option<Self> {
        let until = |rank: Rank| words.iter().map(move |word| word.until(rank));
        let better = Rank::ALL.into_iter().rev().find(|better| *better < rank);
        let above = better.map(|better| until(better).collect::<Vec<_>>().join(" & "));
        // Of a single word only what is new at this rank is looked up: with the usual words among them the index would be passed by.
        let mut fits: Vec<_> = match words {
            [word] => vec![word.at(rank)?],
            _ if words.iter().any(|word| word.at(rank).is_some()) => until(rank).collect(),
            _ => return None,
        };
        let mut all = [const { None }; CONDITIONS];
        let rest = fits.split_off(fits.len().min(CONDITIONS - 1));
        all[CONDITIONS - 1] = (!rest.is_empty()).then(|| rest.join(" & "));
        for (place, fit) in all.iter_mut().zip(fits) {
            *place = Some(fit);
        }
        Some(Self { all, above })
    }
}

/// Patients who fit, with their scores in thousandths, best first, then by [`Place`].
pub async fn search(
    tx: &mut PgConnection,
    keys: &Keys,
    criteria: &Criteria,
    after: Option<(i32, Uuid)>,
    limit: i64,
) -> Result<Vec<(Uuid, i32)>, Error> {
    let mut words: Vec<&str> = criteria.name.split(' ').filter(|word| !word.is_empty()).collect();
    words.sort_unstable();
    words.dedup();
    let mut words: Vec<_> = words.into_iter().take(MAX_WORDS).map(Word::new).collect();
    let among = among(tx, keys, criteria).await?;
    if words.is_empty() {
        let start = after.map(|(_, id)| Place::of(id));
        let ids = page(tx, &Name::default(), among.as_deref(), start, limit as usize).await?;
        return Ok(ids.into_iter().map(|id| (id, Rank::Exact.score())).collect());
    }
    let (mut found, mut read) = (vec![], Rank::Exact);
    for rank in Rank::ALL {
        if after.is_some_and(|(score, _)| score < rank.score()) {
            continue;
        }
        let better = !found.is_empty() || after.is_some_and(|(score, _)| score > rank.score());
        if found.len() as i64 == limit || (rank == Rank::Alike && better) {
            break;
        }
        if rank > Rank::Exact && read == Rank::Exact {
            near_words(tx, &mut words).await?;
            read = Rank::Typo;
        }
        if rank == Rank::Alike {
            words_alike(tx, &mut words).await?;
        }
        let Some(name) = Name::at(&words, rank) else { continue };
        let start = after.filter(|(score, _)| *score == rank.score()).map(|(_, id)| Place::of(id));
        let ids = page(tx, &name, among.as_deref(), start, limit as usize - found.len()).await?;
        found.extend(ids.into_iter().map(|id| (id, rank.score())));
    }
    Ok(found)
}

/// Looks up what each word may be the beginning of, and what it may be mistyped for.
async fn near_words(tx: &mut PgConnection, words: &mut [Word]) -> sqlx::Result<()> {
    for word in words {
        let end = format!("{}\u{10FFFF}", word.text);
        let mut beginnings = sqlx::query_scalar!(
            "select word from patients.name_word where word > $1 and word < $2 limit $3",
            word.text,
            end,
            MAX_BEGINNINGS as i64 + 1
        )
        .fetch_all(&mut *tx)
        .await?;
        beginnings.retain(|longer| longer.starts_with(&word.text));
        word.beginnings = (beginnings.len() <= MAX_BEGINNINGS).then_some(beginnings);
        if word.text.chars().count() < MIN_TYPO_LETTERS {
            continue;
        }
        let near = sqlx::query_scalar!(
            "select word from patients.name_word where near && patients.near($1)",
            word.text
        )
        .fetch_all(&mut *tx)
        .await?;
        let others = near.into_iter().filter(|other| !other.starts_with(&word.text));
        let mut typos: Vec<_> =
            others.filter_map(|other| Some((slips(&word.text, &other)?, other))).collect();
        typos.sort_unstable();
        word.typos = typos.into_iter().take(MAX_TYPOS).map(|(_, other)| other).collect();
    }
    Ok(())
}

/// Looks up what sounds like each word, by trigrams.
async fn words_alike(tx: &mut PgConnection, words: &mut [Word]) -> sqlx::Result<()> {
    let threshold = LIKENESS.to_string();
    sqlx::query!("select set_config('pg_trgm.word_similarity_threshold', $1, true)", threshold)
        .fetch_one(&mut *tx)
        .await?;
    for word in words.iter_mut().filter(|word| word.text.chars().count() >= MIN_TYPO_LETTERS) {
        word.alike = sqlx::query_scalar!(
            "select word from patients.name_word where word operator(extensions.%>) $1
             order by extensions.word_similarity($1, word) desc, word limit $2",
            word.text,
            MAX_ALIKE
        )
        .fetch_all(&mut *tx)
        .await?;
    }
    Ok(())
}

/// Patients who fit all that must fit exactly; `None` = nothing must. What a merged patient is found by finds its survivor.
///
/// Looked up first, for within the search itself the planner would walk through all patients in order of their ids.
async fn among(tx: &mut PgConnection, keys: &Keys, criteria: &Criteria) -> Result<Option<Vec<Uuid>>, Error> {
    let mut among: Option<BTreeSet<Uuid>> = None;
    let mut narrow = |ids: Vec<Uuid>| {
        let ids = BTreeSet::from_iter(ids);
        among = Some(among.take().map_or(ids.clone(), |among| &among & &ids));
    };
    if !criteria.mrn.is_empty() {
        let ids = sqlx::query_scalar!(
            r#"select coalesce(merged_into, id) as "id!" from patients.patient where mrn_hash = $1"#,
            sealed::mrn_hash(keys, &criteria.mrn)
        );
        narrow(ids.fetch_all(&mut *tx).await?);
    }
    if let Some(phone) = &criteria.phone {
        let ids = sqlx::query_scalar!(
            r#"select coalesce(p.merged_into, p.id) as "id!" from patients.contact c
               join patients.patient p on p.id = c.patient_id where c.phone_hash = $1"#,
            sealed::phone_hash(keys, phone)
        );
        narrow(ids.fetch_all(&mut *tx).await?);
    }
    if let Some(day) = criteria.birth_date {
        let ids = sqlx::query_scalar!(
            r#"select coalesce(merged_into, id) as "id!" from patients.patient where birth_date = $1"#,
            day
        );
        narrow(ids.fetch_all(&mut *tx).await?);
    }
    Ok(among.map(Vec::from_iter))
}

/// The next patients who fit `name` and are among those given, if any are.
///
/// Among all patients the first slice tells how many more to read at once: in two or three steps the page is full, or all are read
/// because they are few.
async fn page(
    tx: &mut PgConnection,
    name: &Name,
    among: Option<&[Uuid]>,
    after: Option<Place>,
    limit: usize,
) -> sqlx::Result<Vec<Uuid>> {
    let first = after.map_or(0, |after| usize::from(after.slice));
    let (mut slices, mut found, mut fit) = (first..first + 1, vec![], 0);
    if among.is_some() {
        slices.end = SLICES;
    }
    while !slices.is_empty() {
        let more = fitting(tx, name, among, &slices).await?;
        fit += more.len();
        let places = more.into_iter().map(Place::of).filter(|place| {
            slices.contains(&usize::from(place.slice)) && after.is_none_or(|after| *place > after)
        });
        found.extend(places);
        if found.len() >= limit {
            break;
        }
        let (read, missing) = (slices.end - first, limit - found.len());
        let promising = (missing * SPARE * read).div_ceil(fit.max(1));
        let next = if promising > MAX_NAMED_SLICES { SLICES } else { slices.end + promising };
        slices = slices.end..next.min(SLICES);
    }
    found.sort_unstable();
    found.truncate(limit);
    Ok(found.into_iter().map(|place| place.id).collect())
}

/// Where a patient stands among those who fit equally well: by the slice, then by id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    slice: u8,
    id: Uuid,
}

impl Place {
    fn of(id: Uuid) -> Self {
        let [.., slice] = *id.as_bytes();
        Self { slice, id }
    }
}

/// Patients who fit in these slices, and, when these are too many to name, perhaps in others; in no order. They are gathered before
/// any is answered, for else the planner might walk through all patients until it has met enough.
async fn fitting(
    tx: &mut PgConnection,
    name: &Name,
    among: Option<&[Uuid]>,
    slices: &Range<usize>,
) -> sqlx::Result<Vec<Uuid>> {
    let Name { all, above } = name;
    // With a slice the index is asked for all at once: it starts from what is rarest, and the slice mostly is.
    let sliced = (slices.len() <= MAX_NAMED_SLICES && among.is_none()).then(|| {
        let slices: Vec<_> = slices.clone().map(|slice| format!("'#{slice:x}'")).collect();
        let slices = format!("({})", slices.join(" | "));
        all.iter().flatten().cloned().chain([slices]).collect::<Vec<_>>().join(" & ")
    });
    let [first, second, third, rest] = if sliced.is_some() { &Default::default() } else { all };
    sqlx::query_scalar!(
        r#"with fits as materialized (
               select id from patients.patient
               where merged_into is null
                 and ($1::text is null or words @@ $1::text::tsquery)
                 and ($2::text is null or words @@ $2::text::tsquery)
                 and ($3::text is null or words @@ $3::text::tsquery)
                 and ($4::text is null or words @@ $4::text::tsquery)
                 and ($5::text is null or not words @@ $5::text::tsquery)
                 and ($6::uuid[] is null or id = any($6))
                 and ($7::text is null or words @@ $7::text::tsquery)
           )
           select id as "id!" from fits"#,
        first.as_deref(),
        second.as_deref(),
        third.as_deref(),
        rest.as_deref(),
        above.as_deref(),
        among,
        sliced
    )
    .fetch_all(tx)
    .await
}

/// Notes the words of a name, so that typos find them.
pub(super) async fn know_words(tx: &mut PgConnection, name: &str) -> sqlx::Result<()> {
    let mut words: Vec<String> = name.split(' ').filter(|w| !w.is_empty()).map(str::to_owned).collect();
    // In one order, so that two registrations cannot wait for each other.
    words.sort_unstable();
    sqlx::query!(
        "insert into patients.name_word (word, near)
         select word, patients.near(word) from unnest($1::text[]) as given (word)
         where not exists (select from patients.name_word known where known.word = given.word)
         on conflict do nothing",
        &words
    )
    .execute(tx)
    .await
    .map(drop)
}

/// In what two patients agree.
#[derive(Clone, Copy, Debug)]
pub struct SamePerson {
    /// How alike their names are, 0 to 1.
    pub likeness: f32,
    /// Whether that is alike enough for one person.
    pub name: bool,
    /// Birth date.
    pub birth_date: bool,
    /// Phone.
    pub phone: bool,
    /// E-mail address.
    pub email: bool,
}

/// Other patients who share phone or e-mail address, or birth date and much of the name. What a merged patient shares, its survivor
/// does.
pub async fn duplicates(
    conn: &mut PgConnection,
    keys: &Keys,
    patient: &Patient,
) -> Result<Vec<(Uuid, SamePerson)>, Error> {
    let sealed = sealed::Sealed::new(keys, patient.id, &patient.identity.mrn, &patient.contact)?;
    let rows = sqlx::query!(
        r#"with found as (
               (select id from patients.patient
                where birth_date = $2 and extensions.similarity(search_name, $3) >= $6 limit $7)
               union (select patient_id from patients.contact where phone_hash = $4 limit $7)
               union (select patient_id from patients.contact where email_hash = $5 limit $7)
           )
           select coalesce(p.merged_into, p.id) as "id!",
                  max(extensions.similarity(p.search_name, $3)) as "likeness!",
                  bool_or(p.birth_date = $2) as "birth_date!",
                  coalesce(bool_or(c.phone_hash = $4), false) as "phone!",
                  coalesce(bool_or(c.email_hash = $5), false) as "email!"
           from found
           join patients.patient p on p.id = found.id
           join patients.contact c on c.patient_id = p.id
           where coalesce(p.merged_into, p.id) <> $1
           group by 1"#,
        patient.id.uuid(),
        patient.identity.birth_date,
        patient.identity.search_name(),
        sealed.phone_hash,
        sealed.email_hash,
        SAME_NAME,
        MAX_COMPARED,
    )
    .fetch_all(conn)
    .await?;
    let same = rows.into_iter().map(|row| {
        let same = SamePerson {
            likeness: row.likeness,
            name: row.likeness >= SAME_NAME,
            birth_date: row.birth_date,
            phone: row.phone,
            email: row.email,
        };
        (row.id, same)
    });
    Ok(same.collect())
}
