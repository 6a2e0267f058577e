//! Amounts: whole minor units and a currency, never a float.

use std::fmt;
use std::str::FromStr;

/// The smallest card payment, in minor units, as the provider documents it for US dollars.
pub const SMALLEST: i64 = 50;
/// The largest card payment, in minor units: eight digits at the provider.
pub const LARGEST: i64 = 99_999_999;

/// Minor units in a unit of every currency that is accepted.
const MINOR_PER_UNIT: i64 = 100;
/// Billionths of a unit in a minor unit.
const NANOS_PER_MINOR: i32 = 10_000_000;
/// ISO 4217 currencies without two decimals, which the provider counts otherwise.
const NOT_IN_HUNDREDTHS: [&str; 21] = [
    "BHD", "BIF", "CLP", "DJF", "GNF", "IQD", "JOD", "JPY", "KMF", "KRW", "KWD", "LYD", "OMR", "PYG", "RWF",
    "TND", "UGX", "VND", "VUV", "XAF", "XOF",
];

/// An ISO 4217 currency counted in hundredths.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Currency([u8; 3]);

impl Currency {
    /// Its code, such as `USD`.
    pub fn code(&self) -> &str {
        std::str::from_utf8(&self.0).expect("three ASCII letters")
    }
}

impl FromStr for Currency {
    type Err = String;

    fn from_str(code: &str) -> Result<Self, String> {
        let bytes: Result<[u8; 3], _> = code.as_bytes().try_into();
        match bytes {
            Ok(bytes) if bytes.iter().all(u8::is_ascii_uppercase) && !NOT_IN_HUNDREDTHS.contains(&code) => {
                Ok(Self(bytes))
            }
            _ => {
                Err("a currency is an ISO 4217 code in capitals whose minor unit is a hundredth, such as USD"
                    .into())
            }
        }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// The card payment that units, nanos and code of a `google.type.Money` spell, in minor units; or what is wrong with it.
pub fn parse(code: &str, units: i64, nanos: i32, currency: Currency) -> Result<i64, String> {
    parse_from(SMALLEST, code, units, nanos, currency)
}

/// As [`parse`], for money given back, of which a cent is enough.
pub fn parse_refund(code: &str, units: i64, nanos: i32, currency: Currency) -> Result<i64, String> {
    parse_from(1, code, units, nanos, currency)
}

fn parse_from(least: i64, code: &str, units: i64, nanos: i32, currency: Currency) -> Result<i64, String> {
    if code != currency.code() {
        return Err(format!("must be in {currency}"));
    }
    if !(-999_999_999..=999_999_999).contains(&nanos) || units.signum() * i64::from(nanos.signum()) < 0 {
        return Err("must have units and nanos of one sign, and nanos below one unit".into());
    }
    if nanos % NANOS_PER_MINOR != 0 {
        return Err("must be whole cents".into());
    }
    let minor =
        units.checked_mul(MINOR_PER_UNIT).and_then(|m| m.checked_add(i64::from(nanos / NANOS_PER_MINOR)));
    match minor {
        Some(minor) if (least..=LARGEST).contains(&minor) => Ok(minor),
        _ => Err(format!("must be {} to {}, which cards can be charged", text(least), text(LARGEST))),
    }
}

/// Units and nanos of an amount, as `google.type.Money` has them.
pub fn parts(minor: i64) -> (i64, i32) {
    (minor / MINOR_PER_UNIT, (minor % MINOR_PER_UNIT) as i32 * NANOS_PER_MINOR)
}

/// An amount for people, such as 25.00.
pub fn text(minor: i64) -> String {
    format!("{}.{:02}", minor / MINOR_PER_UNIT, minor % MINOR_PER_UNIT)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn usd() -> Currency {
        "USD".parse().expect("a currency")
    }

    proptest! {
        #[test]
        fn every_chargeable_amount_survives_the_wire(minor in SMALLEST..=LARGEST) {
            let (units, nanos) = parts(minor);
            prop_assert_eq!(parse("USD", units, nanos, usd()), Ok(minor));
        }

        #[test]
        fn no_amount_makes_the_parser_panic_or_leave_its_bounds(units: i64, nanos: i32) {
            if let Ok(minor) = parse("USD", units, nanos, usd()) {
                prop_assert!((SMALLEST..=LARGEST).contains(&minor));
            }
        }
    }

    #[test]
    fn amounts_that_are_no_card_payment_are_refused() {
        let bad = [
            ("EUR", 25, 0),
            ("usd", 25, 0),
            ("", 25, 0),
            ("USD", 0, 0),
            ("USD", 0, 490_000_000),
            ("USD", -25, 0),
            ("USD", 25, -10_000_000),
            ("USD", 25, 5_000_000),
            ("USD", 25, 1_000_000_000),
            ("USD", 1_000_000, 0),
            ("USD", i64::MAX, 0),
            ("USD", i64::MIN, i32::MIN),
        ];
        for (code, units, nanos) in bad {
            assert!(parse(code, units, nanos, usd()).is_err(), "{code} {units} {nanos}");
        }
    }

    #[test]
    fn a_debt_of_the_clinic_is_below_zero_in_both_parts() {
        assert_eq!(parts(-175), (-1, -750_000_000));
    }

    #[test]
    fn currencies_without_hundredths_are_refused() {
        assert!(
            ["JPY", "KWD", "usd", "US", "USDX", "U$D"].iter().all(|code| code.parse::<Currency>().is_err())
        );
    }
}
