use super::*;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A participants file in a temporary directory, with the files that it names.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let place = Place(tempfile::tempdir().unwrap());
        place.write("secret", &format!("{SECRET}\n"));
        place.write("empty", "");
        place
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.path().join(name), text).unwrap();
    }

    fn read(&self, text: &str) -> Result<Registry, String> {
        self.write("participants.toml", text);
        let variable = |name: &str| (name == "STOCK_SECRET").then(|| SECRET.to_owned());
        let file = self.0.path().join("participants.toml");
        Registry::read(&file, variable, &[], Connections::few()).map_err(|error| {
            assert!(matches!(error, crate::Error::Usage(_)), "{error}");
            let said = error.to_string();
            assert!(said.starts_with(&format!("{}: ", file.display())), "it names the file: {said}");
            assert!(!said.contains("MfKQ9r8GKYqr"), "it shows the secret: {said}");
            said[file.display().to_string().len() + 2..].replace(&format!("{}/", self.0.path().display()), "")
        })
    }
}

#[test]
fn participants_are_read_with_their_secrets_and_limits() {
    let named = Place::new()
        .read(
            r#"
            [participant.stock]
            url = "https://stock.internal:8443/api/"
            secret_files = ["secret"]
            secret_env = ["STOCK_SECRET"]
            limit = 16

            [participant."pay.eu"]
            url = "http://10.0.0.7"
            "#,
        )
        .unwrap();
    assert_eq!((named.len(), named.is_empty()), (2, false));
    let behind_http = |name: &str| match named.get(name) {
        Some(Service::Http(service)) => service,
        other => panic!("{other:?}"),
    };
    let stock = behind_http("stock");
    assert_eq!((stock.base(), stock.secrets().len()), ("https://stock.internal:8443/api", 2));
    let pay = behind_http("pay.eu");
    assert_eq!((pay.base(), pay.secrets().len()), ("http://10.0.0.7", 0));
    assert!(named.get("nobody").is_none());
    assert_eq!(named.limits().collect::<Vec<_>>(), [("participant:stock".to_owned(), 16)]);
    let shown = format!("{named:?} {named:#?}");
    assert!(
        shown.contains("Secret(…)") && !shown.contains("whsec_") && !shown.contains("49, 242"),
        "{shown}"
    );
    assert!(Place::new().read("").unwrap().is_empty(), "nobody is a configuration as well");
}

#[test]
fn a_bad_file_is_refused_with_what_was_found_and_what_is_allowed() {
    let place = Place::new();
    let with = |lines: &str| format!("[participant.stock]\nurl = \"https://stock\"\n{lines}\n");
    for (text, says) in [
        ("[participant.stock]".to_owned(), "missing field `url`"),
        ("x = 1".to_owned(), "unknown field `x`, expected `participant`"),
        ("[[participant]]".to_owned(), "expected a map"),
        ("[participant.stock]\nurl = 5".to_owned(), "line 2: invalid type: integer `5`, expected a string"),
        (with("port = 80"), "line 3: unknown field `port`, expected one of `url`, `secret_files`"),
        (with(&format!("secret = \"{SECRET}\"")), "line 3: unknown field `secret`"),
        (with(&format!("secret_env = \"{SECRET}\"")), "line 3: this file contains a secret"),
        (
            with(&format!("secret_env = [\"{SECRET}\"]")),
            "participant \"stock\": secret_env: found what may be a secret; allowed: the names of variables",
        ),
        (
            with(&format!("secret_files = [\"{SECRET}\"]")),
            "participant \"stock\": secret_files: this file contains a secret",
        ),
        (with("secret_env = [\"NOWHERE\"]"), "participant \"stock\": secret_env: NOWHERE is not set"),
        (with("secret_files = [\"nowhere\"]"), "participant \"stock\": secret_files: nowhere: No such file"),
        (
            with("secret_files = [\"empty\"]"),
            "participant \"stock\": secret_files: empty: it does not start with whsec_",
        ),
        (with("secret_env = [\"bmV3c2VjcmV0\"]"), "secret_env: found what may be a secret"),
        (with("secret_env = \"bmV3c2VjcmV0\""), "line 3: found a string; allowed: a sequence"),
        (
            with(&format!("secret_env = [{}]", "\"S\", ".repeat(17))),
            "secret_files and secret_env: found 17 secrets; allowed: up to 16",
        ),
        (
            with(
                "client_cert_file = \"empty\"\nclient_key_file = \"\"\"-----BEGIN PRIVATE KEY-----\nbmV3\"\"\"",
            ),
            "client_key_file: this file contains a secret",
        ),
        (with("limit = 0"), "participant \"stock\": limit: allowed: 1 to 65,536"),
        (with("limit = -1"), "line 3: invalid value"),
        (with("ca_file = \"nowhere\""), "participant \"stock\": ca_file: nowhere: No such file"),
        (with("ca_file = \"empty\""), "participant \"stock\": ca_file: empty: no certificates in PEM"),
        (
            with("client_cert_file = \"empty\""),
            "participant \"stock\": client_cert_file and client_key_file: found one",
        ),
        (
            with("client_cert_file = \"empty\"\nclient_key_file = \"empty\""),
            "participant \"stock\": client_cert_file and client_key_file: no PEM certificate with its key",
        ),
        (
            "[participant.Stock]\nurl = \"https://stock\"".to_owned(),
            "participant \"Stock\": a bad name; allowed: ",
        ),
        (
            "[participant.8080]\nurl = \"https://stock\"".to_owned(),
            "participant \"8080\": a bad name; allowed: ",
        ),
        (
            "[participant.\"a..b\"]\nurl = \"https://stock\"".to_owned(),
            "participant \"a..b\": a bad name; allowed: ",
        ),
        (
            "[participant.a]\nurl = \"stock:80\"".to_owned(),
            "participant \"a\": url: neither http nor https; allowed: ",
        ),
        ("[participant.a]\nurl = \"/api\"".to_owned(), "participant \"a\": url: relative URL without a base"),
        (
            "[participant.a]\nurl = \"ftp://stock\"".to_owned(),
            "participant \"a\": url: neither http nor https",
        ),
        (
            "[participant.a]\nurl = \"https://u:p@stock\"".to_owned(),
            "participant \"a\": url: it contains a user",
        ),
        ("[participant.a]\nurl = \"https://stock?x\"".to_owned(), "participant \"a\": url: it has a query"),
        (
            "[participant.a]\nurl = \"https://stock#x\"".to_owned(),
            "participant \"a\": url: it has a query or a fragment",
        ),
    ] {
        let said = place.read(&text).err().unwrap_or_else(|| panic!("taken: {text}"));
        assert!(said.contains(says), "{text}\nsaid:     {said}\nexpected: {says}");
        assert!(!said.contains("bmV3"), "{said}");
    }
    let nowhere = Registry::read(Path::new("/nowhere/participants.toml"), |_| None, &[], Connections::few())
        .unwrap_err();
    assert!(nowhere.to_string().starts_with("/nowhere/participants.toml: No such file"), "{nowhere}");
}

#[test]
fn a_base_url_ends_without_a_slash() {
    for (text, expected) in [
        ("https://stock", "https://stock"),
        ("https://stock/", "https://stock"),
        ("https://stock:443/a/b//", "https://stock/a/b"),
        ("http://[::1]:8080/a/../b", "http://[::1]:8080/b"),
    ] {
        assert_eq!(base(text).as_deref(), Ok(expected), "{text}");
    }
}
