//! Who asks, in which role and why; and the rows that tell of it afterwards.
//!
//! Rows are spread over [`CHAINS`] chains by patient. Each row's hash covers its fields and the hash of the row before, so that
//! changing, removing or moving a row breaks every later hash of its chain.

use chrono::{DateTime, Utc};
use kit::auth::Caller;
use kit::ids::PatientId;
use kit::status::Error as KitError;
use proto::clinic::auth::v1::Role;
use proto::clinic::patients::v1::{AccessAction, AccessPurpose, PatientView};
use sha2::{Digest as _, Sha256};

use crate::error::Error;

/// Chains that rows are spread over. Fixed: a patient's rows stay in one chain.
pub const CHAINS: u8 = 64;

/// The role a caller with several acts in: the first of these that the method allows. Those that need no break-glass reason come
/// first, and a patient who is also staff acts as staff where staff may.
const PRECEDENCE: [Role; 7] = [
    Role::FrontDesk,
    Role::Provider,
    Role::Billing,
    Role::Service,
    Role::Manager,
    Role::Admin,
    Role::Patient,
];

const CONTACT: [&str; 5] = ["phone", "email", "language", "time_zone", "sms_consent"];
const IDENTITY: [&str; 4] = ["mrn", "given_name", "family_name", "birth_date"];
const HISTORY: [&str; 2] = ["merges", "sms_consent_history"];

/// One call that reads or writes patient data.
#[derive(Clone, Debug)]
pub struct Access {
    /// The token's subject.
    pub actor: String,
    /// The role it acts in.
    pub role: Role,
    /// Full name of the method.
    pub method: &'static str,
    /// Why.
    pub purpose: AccessPurpose,
    /// Reason of break-glass access; empty = ordinary access.
    pub break_glass_reason: String,
}

impl Access {
    /// The access of `caller` through `method`, such as `clinic.patients.v1.PatientService/GetPatient`. `purpose` unspecified =
    /// the role's usual one.
    pub fn new(
        caller: &Caller,
        method: &'static str,
        purpose: AccessPurpose,
        break_glass_reason: String,
    ) -> Result<Self, Error> {
        let rule = kit::auth::rule(&format!("/{method}")).ok_or(KitError::RoleRequired)?;
        let role = PRECEDENCE.into_iter().find(|role| caller.is(*role) && rule.allow.contains(role));
        let role = role.ok_or(KitError::RoleRequired)?;
        let purpose = if purpose == AccessPurpose::Unspecified { usual_purpose(role) } else { purpose };
        Ok(Self { actor: caller.subject.clone(), role, method, purpose, break_glass_reason })
    }

    /// Whether the caller acts as the patient it is.
    pub fn is_patient(&self) -> bool {
        self.role == Role::Patient
    }

    /// Refuses a patient who reaches for another's record.
    pub fn reach(&self, patient: PatientId) -> Result<(), Error> {
        let own = !self.is_patient() || self.actor.parse().ok() == Some(patient);
        if own { Ok(()) } else { Err(KitError::not_found(patient).into()) }
    }

    /// Refuses a manager or admin who gave no reason to see patient data.
    pub fn look(&self) -> Result<(), Error> {
        let needs_reason = matches!(self.role, Role::Manager | Role::Admin);
        if needs_reason && self.break_glass_reason.is_empty() {
            Err(Error::BreakGlassRequired)
        } else {
            Ok(())
        }
    }

    /// The view that this caller gets when it asks for `view`.
    pub fn view(&self, view: PatientView) -> Result<PatientView, Error> {
        let service = self.role == Role::Service;
        match view {
            PatientView::Unspecified if service => Ok(PatientView::Contact),
            PatientView::Unspecified => Ok(PatientView::Full),
            PatientView::Full | PatientView::History if service => Err(Error::ViewNotAllowed),
            PatientView::Reference | PatientView::Contact | PatientView::Full | PatientView::History => {
                Ok(view)
            }
        }
    }
}

fn usual_purpose(role: Role) -> AccessPurpose {
    match role {
        Role::Patient => AccessPurpose::PatientRequest,
        Role::FrontDesk => AccessPurpose::Scheduling,
        Role::Provider => AccessPurpose::Care,
        Role::Billing => AccessPurpose::Payment,
        Role::Manager | Role::Admin | Role::Service | Role::Unspecified => AccessPurpose::Operations,
    }
}

/// The patient fields that a view shows, as the log names them. A reference shows no patient data.
pub fn fields_of(view: PatientView) -> Vec<&'static str> {
    match view {
        PatientView::Unspecified | PatientView::Reference => vec![],
        PatientView::Contact => CONTACT.to_vec(),
        PatientView::Full => [&IDENTITY[..], &CONTACT].concat(),
        PatientView::History => [&IDENTITY[..], &CONTACT, &HISTORY].concat(),
    }
}

/// What one call did with the data of some patients.
#[derive(Clone, Debug)]
pub struct Look {
    /// What was done.
    pub action: AccessAction,
    /// To which fields.
    pub fields: Vec<&'static str>,
    /// Whose.
    pub patients: Vec<PatientId>,
}

impl Look {
    /// One patient's fields were shown.
    pub fn read(patient: PatientId, fields: Vec<&'static str>) -> Self {
        Self { action: AccessAction::Read, fields, patients: vec![patient] }
    }
}

/// One row of the log.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its chain.
    pub chain: i16,
    /// Its place there, from 1 without gaps.
    pub sequence: i64,
    /// Whose data.
    pub patient: PatientId,
    /// When, in microseconds.
    pub access_time: DateTime<Utc>,
    /// Who.
    pub actor: String,
    /// In which role.
    pub actor_role: Role,
    /// What was done.
    pub action: AccessAction,
    /// By which call.
    pub method: String,
    /// To which fields.
    pub fields: Vec<String>,
    /// Why.
    pub purpose: AccessPurpose,
    /// Break-glass reason.
    pub break_glass_reason: String,
    /// W3C trace id, 32 hexadecimal digits; empty = not traced.
    pub trace_id: String,
    /// `hash` of the row before.
    pub previous_hash: Vec<u8>,
    /// See [`Entry::hash`].
    pub hash: Vec<u8>,
}

impl Entry {
    /// SHA-256 over the previous hash and all other fields, each preceded by its length in bytes (8, big-endian). Numbers are
    /// big-endian, the time is microseconds since 1970, enums are their names in the contract, lists are preceded by their count.
    pub fn hash(&self) -> Vec<u8> {
        let mut sha = Sha256::new();
        let mut put = |bytes: &[u8]| {
            sha.update((bytes.len() as u64).to_be_bytes());
            sha.update(bytes);
        };
        put(&self.previous_hash);
        put(&self.chain.to_be_bytes());
        put(&self.sequence.to_be_bytes());
        put(self.patient.uuid().as_bytes());
        put(&self.access_time.timestamp_micros().to_be_bytes());
        put(self.actor.as_bytes());
        put(self.actor_role.as_str_name().as_bytes());
        put(self.action.as_str_name().as_bytes());
        put(self.method.as_bytes());
        put(&(self.fields.len() as u64).to_be_bytes());
        self.fields.iter().for_each(|field| put(field.as_bytes()));
        put(self.purpose.as_str_name().as_bytes());
        put(self.break_glass_reason.as_bytes());
        put(self.trace_id.as_bytes());
        sha.finalize().to_vec()
    }
}

/// Where the log is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("row {sequence} of chain {chain} {what}")]
pub struct Broken {
    /// The chain.
    pub chain: i16,
    /// The row's place in it.
    pub sequence: i64,
    /// What is wrong with it, in words.
    pub what: &'static str,
}

/// A chain as far as it was followed.
#[derive(Clone, Debug)]
pub struct Chain {
    number: i16,
    sequence: i64,
    hash: Vec<u8>,
}

impl Chain {
    /// The beginning of a chain.
    pub fn new(number: i16) -> Self {
        Self { number, sequence: 0, hash: vec![0; <Sha256 as sha2::Digest>::output_size()] }
    }

    /// Goes on to `next`, or says why that is not the row that was written after the one before.
    pub fn follow(&mut self, next: &Entry) -> Result<(), Broken> {
        let expected = self.sequence + 1;
        if next.sequence != expected {
            return Err(self.broken(expected, "is missing"));
        }
        if next.hash() != next.hash || chain_of(next.patient) != self.number {
            return Err(self.broken(expected, "is not as it was written"));
        }
        if next.previous_hash != self.hash {
            return Err(self.broken(expected, "does not follow the row before it"));
        }
        self.sequence = expected;
        self.hash.clone_from(&next.hash);
        Ok(())
    }

    /// Ends the chain where its end was noted: place and hash of its last row.
    pub fn end(&self, noted: Option<(i64, &[u8])>) -> Result<(), Broken> {
        match noted {
            Some((sequence, hash)) if sequence == self.sequence && hash == self.hash => Ok(()),
            Some((sequence, _)) if sequence > self.sequence => {
                Err(self.broken(self.sequence + 1, "is missing"))
            }
            _ => Err(self.broken(self.sequence, "is not the end that was noted")),
        }
    }

    fn broken(&self, sequence: i64, what: &'static str) -> Broken {
        Broken { chain: self.number, sequence, what }
    }
}

/// The chain that a patient's rows are in. The last byte of an assigned id is random.
pub fn chain_of(patient: PatientId) -> i16 {
    i16::from(patient.uuid().as_bytes()[15] % CHAINS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &str = "clinic.patients.v1.PatientService/GetPatient";

    fn access(roles: &[Role], subject: &str) -> Access {
        let caller = Caller { subject: subject.to_owned(), roles: roles.to_vec() };
        Access::new(&caller, GET, AccessPurpose::Unspecified, String::new()).expect("allowed")
    }

    #[test]
    fn a_patient_reaches_itself_alone_and_other_roles_anyone() {
        let (own, other) = (PatientId::new(), PatientId::new());
        let patient = access(&[Role::Patient], &own.to_string());
        assert!(patient.reach(own).is_ok() && patient.reach(other).is_err());
        assert!(access(&[Role::Patient, Role::FrontDesk], &own.to_string()).reach(other).is_ok());
        assert!(access(&[Role::Patient], "nobody").reach(other).is_err());
    }

    #[test]
    fn a_role_that_the_method_does_not_allow_widens_nothing() {
        let caller =
            Caller { subject: PatientId::new().to_string(), roles: vec![Role::Billing, Role::Patient] };
        let method = "clinic.patients.v1.PatientService/UpdatePatient";
        let access =
            Access::new(&caller, method, AccessPurpose::Unspecified, String::new()).expect("allowed");
        assert!(access.is_patient() && access.reach(PatientId::new()).is_err());
    }

    #[test]
    fn managers_break_glass_and_the_desk_does_not() {
        assert!(access(&[Role::Manager], "m").look().is_err());
        assert!(access(&[Role::Manager, Role::FrontDesk], "m").look().is_ok());
        let opened =
            Access { break_glass_reason: "complaint of 9 March".to_owned(), ..access(&[Role::Admin], "a") };
        assert!(opened.look().is_ok());
    }

    #[test]
    fn services_see_contact_and_no_more() {
        let service = access(&[Role::Service], "notify");
        assert_eq!(service.view(PatientView::Unspecified).ok(), Some(PatientView::Contact));
        assert!(service.view(PatientView::Full).is_err());
        assert_eq!(
            access(&[Role::FrontDesk], "d").view(PatientView::Unspecified).ok(),
            Some(PatientView::Full)
        );
    }

    #[test]
    fn every_field_of_a_row_is_under_its_hash() {
        let row = Entry {
            chain: 1,
            sequence: 2,
            patient: PatientId::new(),
            access_time: DateTime::UNIX_EPOCH,
            actor: "desk".to_owned(),
            actor_role: Role::FrontDesk,
            action: AccessAction::Read,
            method: GET.to_owned(),
            fields: vec!["phone".to_owned(), "email".to_owned()],
            purpose: AccessPurpose::Scheduling,
            break_glass_reason: String::new(),
            trace_id: String::new(),
            previous_hash: vec![0; 32],
            hash: vec![],
        };
        let changes: [fn(&mut Entry); 13] = [
            |e| e.chain += 1,
            |e| e.sequence += 1,
            |e| e.patient = PatientId::new(),
            |e| e.access_time += chrono::TimeDelta::microseconds(1),
            |e| e.actor.push('x'),
            |e| e.actor_role = Role::Admin,
            |e| e.action = AccessAction::Export,
            |e| e.method.push('x'),
            |e| e.fields = vec!["phoneemail".to_owned()],
            |e| e.purpose = AccessPurpose::Care,
            |e| e.break_glass_reason.push('x'),
            |e| e.trace_id.push('0'),
            |e| e.previous_hash[0] = 1,
        ];
        for (i, change) in changes.iter().enumerate() {
            let mut changed = row.clone();
            change(&mut changed);
            assert_ne!(changed.hash(), row.hash(), "change {i}");
        }
    }
}
