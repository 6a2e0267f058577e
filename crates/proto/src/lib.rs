//! The contract: messages, clients and servers generated from `proto/`, as modules named for its packages, and the
//! descriptors that reflection and the role rules are read from. Nothing here is written by hand.

/// Everything under `proto/clinic`, error details and all they import, with comments and options, as an encoded
/// `google.protobuf.FileDescriptorSet`.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// One module of generated code, which is documented in the contract and follows no lint of ours.
macro_rules! package {
    ($(#[$doc:meta])* $module:ident, $name:literal) => {
        $(#[$doc])*
        #[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used, rustdoc::all)]
        pub mod $module {
            tonic::include_proto!($name);
        }
    };
}

/// The suite's own packages.
pub mod clinic {
    /// Who may call what.
    pub mod auth {
        package!(
            /// Roles and the rule each method carries.
            v1,
            "clinic.auth.v1"
        );
    }
    /// Clinics, rooms, providers, service types; calendars; free slots.
    pub mod scheduling {
        package!(
            /// Version 1.
            v1,
            "clinic.scheduling.v1"
        );
    }
    /// Holds, bookings, visits, the waitlist.
    pub mod appointments {
        package!(
            /// Version 1.
            v1,
            "clinic.appointments.v1"
        );
    }
    /// Identity, contact, consent, intake.
    pub mod patients {
        package!(
            /// Version 1.
            v1,
            "clinic.patients.v1"
        );
    }
    /// Co-pays, fees, the ledger.
    pub mod billing {
        package!(
            /// Version 1.
            v1,
            "clinic.billing.v1"
        );
    }
    /// Reminders and messages.
    pub mod notify {
        package!(
            /// Version 1.
            v1,
            "clinic.notify.v1"
        );
    }
}

/// Common types published by Google, vendored under `proto/google`.
pub mod google {
    package!(
        /// Dates, times of day, intervals, money.
        r#type,
        "google.r#type"
    );
}

#[cfg(test)]
mod tests {
    use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor};

    use super::*;

    fn pool() -> DescriptorPool {
        DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap()
    }

    fn methods(pool: &DescriptorPool) -> Vec<MethodDescriptor> {
        let ours = pool.services().filter(|s| s.package_name().starts_with("clinic."));
        ours.flat_map(|s| s.methods().collect::<Vec<_>>()).collect()
    }

    fn rule(method: &MethodDescriptor) -> Option<clinic::auth::v1::Rule> {
        let extension = method.parent_pool().get_extension_by_name("clinic.auth.v1.rule").unwrap();
        let options: DynamicMessage = method.options();
        let set = options.has_extension(&extension);
        set.then(|| options.get_extension(&extension).as_message().unwrap().transcode_to().unwrap())
    }

    #[test]
    fn every_method_says_who_may_call_it() {
        let pool = pool();
        let methods = methods(&pool);
        assert!(!methods.is_empty());
        for method in methods {
            let name = method.full_name();
            let rule = rule(&method).unwrap_or_else(|| panic!("{name} has no rule"));
            assert!(rule.anyone == rule.allow.is_empty(), "{name} allows either roles or anyone");
            assert!(rule.allow().all(|r| r != clinic::auth::v1::Role::Unspecified), "{name} allows no role");
        }
    }

    #[test]
    fn an_admin_may_call_whatever_any_person_may() {
        use clinic::auth::v1::Role;
        let pool = pool();
        for method in methods(&pool) {
            let roles: Vec<Role> =
                rule(&method).into_iter().flat_map(|r| r.allow().collect::<Vec<_>>()).collect();
            let person = roles.iter().any(|r| *r != Role::Service);
            assert_eq!(person, roles.contains(&Role::Admin), "{}", method.full_name());
        }
    }

    #[test]
    fn every_event_names_its_aggregate_and_version_first() {
        let pool = pool();
        let events: Vec<_> = pool
            .all_messages()
            .filter(|m| m.parent_file().name().ends_with("/events.proto") && m.parent_message().is_none())
            .filter(|m| m.full_name() != "clinic.appointments.v1.AppointmentFacts")
            .collect();
        assert!(!events.is_empty());
        for event in events {
            let field = |number| event.get_field(number).map(|f| f.name().to_owned()).unwrap_or_default();
            assert!(field(1).ends_with("_id"), "{} begins with {}", event.full_name(), field(1));
            assert_eq!(field(2), "version", "{}", event.full_name());
        }
    }

    #[test]
    fn every_changing_call_takes_a_request_id() {
        const READS: [&str; 7] = ["Get", "List", "Search", "Explain", "Watch", "Preview", "Export"];
        let pool = pool();
        for method in methods(&pool) {
            let reads =
                READS.iter().any(|verb| method.name().starts_with(verb)) || method.name() == "CheckSlot";
            let takes_id = method.input().get_field_by_name("request_id").is_some();
            assert!(reads || takes_id, "{} takes no request_id", method.full_name());
        }
    }
}
