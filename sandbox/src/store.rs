//! Everything the providers remember, in memory, behind a journal of JSON lines.
//!
//! One line holds all objects one request changed, so a process killed half-way through a write loses the whole
//! request and never a part of it. Opening rewrites the journal to the last state of each object.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::Path,
};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::{
    payments::objects::{
        Charge, Customer, Dispute, Event, PaymentIntent, PaymentMethod, Refund, SetupIntent,
    },
    sms::{inbound, message::Message},
};

const JOURNAL: &str = "sandbox.jsonl";
/// Hexadecimal digits of an id that count up, so that ids of one kind sort by age.
const SEQUENCE_DIGITS: usize = 10;

/// One remembered thing. The tag is the `object` field of the payment protocol's answers.
#[derive(Clone, Serialize, Deserialize)]
#[serde(tag = "object", rename_all = "snake_case")]
pub(crate) enum Object {
    Customer(Customer),
    PaymentMethod(PaymentMethod),
    PaymentIntent(Box<PaymentIntent>),
    SetupIntent(SetupIntent),
    Charge(Box<Charge>),
    Refund(Refund),
    Dispute(Dispute),
    Event(Event),
    Replay(Replay),
    Message(Box<Message>),
}

/// The answer kept under an idempotency key.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Replay {
    /// `idem_` and the caller's key.
    pub(crate) id: String,
    /// The path it was used for.
    #[serde(default)]
    pub(crate) path: String,
    /// Hash of method, path and parameters.
    pub(crate) fingerprint: String,
    pub(crate) status: u16,
    pub(crate) body: serde_json::Value,
    /// Seconds since 1970.
    pub(crate) created: i64,
}

/// A kind of object: how to find it among the others.
pub(crate) trait Kind: Clone + 'static {
    /// What its ids begin with.
    const PREFIX: &'static str;
    fn id(&self) -> &str;
    fn wrap(self) -> Object;
    fn of(object: &Object) -> Option<&Self>;
}

macro_rules! kinds {
    ($($kind:ident $prefix:literal $($boxed:ident)?;)*) => {
        $(impl Kind for $kind {
            const PREFIX: &'static str = $prefix;
            fn id(&self) -> &str {
                &self.id
            }
            fn wrap(self) -> Object {
                Object::$kind($($boxed::new)?(self))
            }
            fn of(object: &Object) -> Option<&Self> {
                if let Object::$kind(it) = object { Some(it) } else { None }
            }
        })*

        fn id_of(object: &Object) -> &str {
            match object { $(Object::$kind(it) => it.id(),)* }
        }
    };
}

kinds! {
    Customer "cus_";
    PaymentMethod "pm_";
    PaymentIntent "pi_" Box;
    SetupIntent "seti_";
    Charge "ch_" Box;
    Refund "re_";
    Dispute "dp_";
    Event "evt_";
    Replay "idem_";
    Message "SM" Box;
}

/// Objects by id, the changes not yet written, and what time alone will change: open authorizations by the moment they lapse,
/// refunds by the moment their bank answers; and the phones that want no texts.
#[derive(Default)]
pub(crate) struct Store {
    objects: BTreeMap<String, Object>,
    holds: BTreeSet<(i64, String)>,
    refunds: BTreeSet<(i64, String)>,
    opted_out: BTreeSet<String>,
    unwritten: Vec<Object>,
    sequence: u64,
    journal: Option<File>,
}

impl Store {
    /// Reads the journal in `dir` (made when missing), or starts empty and in memory.
    pub(crate) fn open(dir: Option<&Path>) -> anyhow::Result<Self> {
        let mut store = Self::default();
        let Some(dir) = dir else { return Ok(store) };
        fs::create_dir_all(dir)?;
        let path = dir.join(JOURNAL);
        let unreadable = || format!("the journal {} cannot be read", path.display());
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(unreadable),
        };
        // Text after the last line feed is a write the process did not live to finish.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for line in whole.lines() {
            for object in serde_json::from_str::<Vec<Object>>(line).with_context(unreadable)? {
                store.remember(object);
            }
        }
        let fresh = dir.join(format!("{JOURNAL}.new"));
        let mut file = io::BufWriter::new(File::create(&fresh)?);
        for object in store.objects.values() {
            writeln!(file, "{}", serde_json::to_string(&[object])?)?;
        }
        file.into_inner()?.sync_all()?;
        fs::rename(&fresh, &path)?;
        store.journal = Some(OpenOptions::new().append(true).open(&path)?);
        Ok(store)
    }

    /// A new id: `prefix`, then `digits` hexadecimal digits, younger ones sorting after older ones.
    pub(crate) fn new_id(&mut self, prefix: &str, digits: usize) -> String {
        self.sequence += 1;
        let random = format!("{:032x}", rand::random::<u128>());
        format!("{prefix}{:0SEQUENCE_DIGITS$x}{}", self.sequence, &random[..digits - SEQUENCE_DIGITS])
    }

    pub(crate) fn get<K: Kind>(&self, id: &str) -> Option<&K> {
        self.objects.get(id).and_then(K::of)
    }

    pub(crate) fn object(&self, id: &str) -> Option<&Object> {
        self.objects.get(id)
    }

    /// All objects of a kind, oldest first.
    pub(crate) fn all<K: Kind>(&self) -> impl DoubleEndedIterator<Item = &K> {
        let after = format!("{}\u{7f}", K::PREFIX);
        self.objects.range(K::PREFIX.to_owned()..after).filter_map(|(_, object)| K::of(object))
    }

    /// Remembers the new state of an object; `commit` makes it last.
    pub(crate) fn put<K: Kind>(&mut self, object: &K) {
        let object = object.clone().wrap();
        self.unwritten.push(object.clone());
        self.remember(object);
    }

    /// Writes everything put since the last commit as one line.
    pub(crate) fn commit(&mut self) -> io::Result<()> {
        let changed = std::mem::take(&mut self.unwritten);
        if let (Some(journal), false) = (&mut self.journal, changed.is_empty()) {
            let mut line = serde_json::to_vec(&changed)?;
            line.push(b'\n');
            journal.write_all(&line)?;
        }
        Ok(())
    }

    /// The intents whose authorization has lapsed at `now`.
    pub(crate) fn lapsed(&self, now: i64) -> Vec<String> {
        due(&self.holds, now)
    }

    /// The refunds whose bank has answered by `now`.
    pub(crate) fn answered(&self, now: i64) -> Vec<String> {
        due(&self.refunds, now)
    }

    /// Whether a phone's last word to the carrier was STOP.
    pub(crate) fn has_opted_out(&self, phone: &str) -> bool {
        self.opted_out.contains(phone)
    }

    fn remember(&mut self, object: Object) {
        if let Some(text) = Message::of(&object).filter(|message| message.is_inbound()) {
            match inbound::opts_out(text.body()) {
                Some(true) => drop(self.opted_out.insert(text.phone().to_owned())),
                Some(false) => drop(self.opted_out.remove(text.phone())),
                None => {}
            }
        }
        let id = id_of(&object).to_owned();
        let digits =
            id.trim_start_matches("SM").rsplit('_').next().and_then(|tail| tail.get(..SEQUENCE_DIGITS));
        if let Some(sequence) = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok())
            && !matches!(object, Object::Replay(_))
        {
            self.sequence = self.sequence.max(sequence);
        }
        if let Some(hold) = self.get::<Charge>(&id).and_then(Charge::hold) {
            self.holds.remove(&hold);
        }
        if let Some(hold) = Charge::of(&object).and_then(Charge::hold) {
            self.holds.insert(hold);
        }
        let awaited = |refund: &Refund| Some((refund.answered()?, refund.id.clone()));
        if let Some(refund) = self.get::<Refund>(&id).and_then(awaited) {
            self.refunds.remove(&refund);
        }
        self.refunds.extend(Refund::of(&object).and_then(awaited));
        self.objects.insert(id, object);
    }
}

fn due(queue: &BTreeSet<(i64, String)>, now: i64) -> Vec<String> {
    queue.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| id.clone()).collect()
}
