use proptest::prelude::*;

use super::*;

/// The vector that the libraries of the specification share.
const VECTOR_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const VECTOR_ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
const VECTOR_TIMESTAMP: u64 = 1_614_265_330;
const VECTOR_BODY: &[u8] = br#"{"test": 2432232314}"#;
const VECTOR_SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

const TOLERANCE: Duration = Duration::from_secs(300);

fn secret(byte: u8) -> Secret {
    Secret::parse(&format!("whsec_{}", STANDARD.encode([byte; 32]))).unwrap()
}

/// A call as it arrives.
#[derive(Clone)]
struct Arrived {
    id: Option<String>,
    timestamp: Option<String>,
    signature: Option<String>,
    body: Vec<u8>,
}

impl Arrived {
    fn new(id: &str, timestamp: u64, body: &[u8], secrets: &[Secret]) -> Arrived {
        Arrived {
            id: Some(id.to_owned()),
            timestamp: Some(timestamp.to_string()),
            signature: Some(sign(id, timestamp, body, secrets)),
            body: body.to_vec(),
        }
    }

    fn verify(&self, secrets: &[Secret], now: u64) -> Result<u64, VerifyError> {
        let header = |name: &str| match name {
            ID => self.id.as_deref(),
            TIMESTAMP => self.timestamp.as_deref(),
            SIGNATURE => self.signature.as_deref(),
            other => panic!("asked for {other}"),
        };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now);
        verify_at(header, &self.body, secrets, TOLERANCE, now).map(|verified| {
            assert_eq!(Some(verified.id), self.id.as_deref());
            verified.timestamp
        })
    }
}

fn vector() -> Arrived {
    Arrived {
        id: Some(VECTOR_ID.to_owned()),
        timestamp: Some(VECTOR_TIMESTAMP.to_string()),
        signature: Some(VECTOR_SIGNATURE.to_owned()),
        body: VECTOR_BODY.to_vec(),
    }
}

#[test]
fn the_vector_of_the_specification_is_signed_and_verified() {
    let secrets = [Secret::parse(VECTOR_SECRET).unwrap()];
    assert_eq!(sign(VECTOR_ID, VECTOR_TIMESTAMP, VECTOR_BODY, &secrets), VECTOR_SIGNATURE);
    assert_eq!(vector().verify(&secrets, VECTOR_TIMESTAMP), Ok(VECTOR_TIMESTAMP));
    // As the specification shows it: one of several, of several versions.
    let several = format!("v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc= v1a,x {VECTOR_SIGNATURE} v2,y");
    let arrived = Arrived { signature: Some(several), ..vector() };
    assert_eq!(arrived.verify(&secrets, VECTOR_TIMESTAMP), Ok(VECTOR_TIMESTAMP));
}

#[test]
fn what_differs_from_what_was_signed_is_refused() {
    let secrets = [Secret::parse(VECTOR_SECRET).unwrap()];
    let id = Arrived { id: Some(format!("{VECTOR_ID}x")), ..vector() };
    let time = Arrived { timestamp: Some((VECTOR_TIMESTAMP + 1).to_string()), ..vector() };
    let zero = Arrived { timestamp: Some(format!("0{VECTOR_TIMESTAMP}")), ..vector() };
    let body = Arrived { body: br#"{"test": 2432232315}"#.to_vec(), ..vector() };
    let longer = Arrived { body: [VECTOR_BODY, b" "].concat(), ..vector() };
    let empty = Arrived { body: Vec::new(), ..vector() };
    let version = Arrived { signature: Some(VECTOR_SIGNATURE.replace("v1,", "v2,")), ..vector() };
    let bare = Arrived { signature: Some(VECTOR_SIGNATURE.replace("v1,", "")), ..vector() };
    let cut = Arrived { signature: Some("v1,g0hM9SsE+OTPJTGt".to_owned()), ..vector() };
    let none = Arrived { signature: Some(String::new()), ..vector() };
    for arrived in [id, time, zero, body, longer, empty, version, bare, cut, none] {
        assert_eq!(arrived.verify(&secrets, VECTOR_TIMESTAMP), Err(VerifyError::Signature));
    }
    assert_eq!(
        vector().verify(&[secret(1)], VECTOR_TIMESTAMP),
        Err(VerifyError::Signature),
        "a wrong secret"
    );
    assert_eq!(vector().verify(&[], VECTOR_TIMESTAMP), Err(VerifyError::NoSecrets));
}

#[test]
fn an_old_call_and_one_of_the_future_are_refused() {
    let secrets = [Secret::parse(VECTOR_SECRET).unwrap()];
    for (now, expected) in [
        (VECTOR_TIMESTAMP + 300, Ok(VECTOR_TIMESTAMP)),
        (VECTOR_TIMESTAMP - 300, Ok(VECTOR_TIMESTAMP)),
        (VECTOR_TIMESTAMP + 301, Err(VerifyError::TooOld { seconds: 301, tolerance_seconds: 300 })),
        (VECTOR_TIMESTAMP - 301, Err(VerifyError::TooNew { seconds: 301, tolerance_seconds: 300 })),
    ] {
        assert_eq!(vector().verify(&secrets, now), expected);
    }
    for bad in ["", "now", "-1", "+1614265330", "1614265330.0", "99999999999999999999"] {
        let arrived = Arrived { timestamp: Some(bad.to_owned()), ..vector() };
        assert_eq!(arrived.verify(&secrets, VECTOR_TIMESTAMP), Err(VerifyError::Timestamp), "{bad:?}");
    }
}

#[test]
fn each_header_is_needed() {
    let secrets = [Secret::parse(VECTOR_SECRET).unwrap()];
    for (arrived, missing) in [
        (Arrived { id: None, ..vector() }, ID),
        (Arrived { timestamp: None, ..vector() }, TIMESTAMP),
        (Arrived { signature: None, ..vector() }, SIGNATURE),
    ] {
        assert_eq!(arrived.verify(&secrets, VECTOR_TIMESTAMP), Err(VerifyError::Missing(missing)));
    }
}

#[test]
fn a_secret_is_replaced_without_a_call_that_is_refused() {
    let (old, new) = (secret(1), secret(2));
    let by = |secrets: &[Secret]| Arrived::new("a/b/action", 1000, b"{}", secrets);
    let (both, only_old, only_new) =
        (by(&[new.clone(), old.clone()]), by(std::slice::from_ref(&old)), by(std::slice::from_ref(&new)));
    assert_eq!(both.signature.as_ref().unwrap().split(' ').count(), 2);
    // First the participant knows both, then the workers sign with both, or with the new one alone;
    // or the other way round.
    for arrived in [&both, &only_old, &only_new] {
        assert_eq!(arrived.verify(&[old.clone(), new.clone()], 1000), Ok(1000));
    }
    for known in [&old, &new] {
        assert_eq!(both.verify(std::slice::from_ref(known), 1000), Ok(1000));
    }
    assert_eq!(only_old.verify(&[new], 1000), Err(VerifyError::Signature));
    assert_eq!(only_new.verify(&[old], 1000), Err(VerifyError::Signature));
}

/// Else `a` `1.b` and `a.1` `b` would be signed alike.
#[test]
fn no_part_of_a_call_is_taken_for_another() {
    let secrets = [secret(1)];
    let signed = Arrived::new("a", 1000, br#"x.1000.{"evil":1}"#, &secrets);
    let forged =
        Arrived { id: Some("a.1000.x".to_owned()), body: br#"{"evil":1}"#.to_vec(), ..signed.clone() };
    assert_eq!(forged.verify(&secrets, 1000), Err(VerifyError::Id));
    assert_eq!(Arrived { id: Some(String::new()), ..signed }.verify(&secrets, 1000), Err(VerifyError::Id));
}

#[test]
fn a_secret_is_checked_and_never_shown() {
    assert_eq!(Secret::parse("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), Err(BadSecret::Prefix));
    assert_eq!(Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS"), Err(BadSecret::Base64));
    assert_eq!(Secret::parse("whsec_!"), Err(BadSecret::Base64));
    for (length, allowed) in [(0, false), (23, false), (24, true), (64, true), (65, false)] {
        let text = format!("whsec_{}", STANDARD.encode(vec![7; length]));
        assert_eq!(Secret::parse(&text).is_ok(), allowed, "{length}");
    }
    let secret = Secret::parse(VECTOR_SECRET).unwrap();
    assert_eq!(format!("{secret:?} {secret:#?}"), "Secret(…) Secret(…)");
    for bad in ["whsec_c2hvcnQ=", "c2hvcnQ="] {
        assert!(!Secret::parse(bad).unwrap_err().to_string().contains("c2hv"));
    }
}

proptest! {
    #[test]
    fn whatever_arrives_is_judged_and_only_what_was_signed_is_genuine(
        id in "[A-Za-z0-9/~]{1,20}", body in any::<Vec<u8>>(), at in 0_usize..1000, bit in 0_u8..8, noise in ".{0,40}",
    ) {
        let secrets = [secret(1)];
        let genuine = Arrived::new(&id, 1000, &body, &secrets);
        prop_assert_eq!(genuine.verify(&secrets, 1000), Ok(1000));
        if !body.is_empty() {
            let mut changed = genuine.clone();
            let at = at % body.len();
            changed.body[at] ^= 1 << bit;
            prop_assert_eq!(changed.verify(&secrets, 1000), Err(VerifyError::Signature));
        }
        for arrived in [
            Arrived { id: Some(noise.clone()), ..genuine.clone() },
            Arrived { timestamp: Some(noise.clone()), ..genuine.clone() },
            Arrived { signature: Some(noise.clone()), ..genuine.clone() },
        ] {
            prop_assert!(arrived.verify(&secrets, 1000).is_err() || noise == id);
        }
    }
}
