use proptest::prelude::*;
use secrecy::ExposeSecret;

use arrakis_core::record::retention::Ages;

use super::*;

/// What a value is that must not be told.
const HIDDEN: &str = "ark_hidden";

fn load(file: &str, env: &[(&str, &str)]) -> (Config, Vec<ConfigProblem>) {
    let home = tempfile::TempDir::new().unwrap();
    std::fs::write(home.path().join("config.toml"), file).unwrap();
    let env = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
    Config::load(home.path(), &env)
}

/// The only problem: its line or variable, what is wrong, and what happens instead.
fn only(problems: &[ConfigProblem]) -> (String, &str, &str) {
    let [problem] = problems else { panic!("one problem: {problems:#?}") };
    assert!(!problem.to_string().contains("hidden"), "{problem}");
    let place = match &problem.place {
        Place::File { line, .. } => line.map_or("file".to_owned(), |line| line.to_string()),
        Place::Variable(name) => (*name).to_owned(),
    };
    (place, &problem.wrong, &problem.instead)
}

/// The receivers that have a key: destination, URL and key.
fn keyed(config: &Config) -> Vec<(&str, &str, &str)> {
    config
        .receivers
        .keyed
        .iter()
        .map(|(destination, receiver)| {
            (&**destination, receiver.url.expose_secret(), receiver.key.expose_secret())
        })
        .collect()
}

#[test]
fn the_environment_comes_before_the_file_and_the_file_before_the_default() {
    let file = "url = \"http://file/\"\ntimeout_ms = 5\n[logs]\nkeep = 2\n";
    let env = [("CLAUDE_HOOK_API_URL", "http://user:secret@original/x"), ("ARRAKIS_DEBUG", "1")];
    let (config, problems) = load(file, &env);
    assert_eq!(problems, []);
    assert_eq!(config.receivers.current, "http://original/x", "and credentials are taken out");
    assert!(config.debug && config.receivers.is_chosen);
    assert_eq!(config.timeout, Duration::from_millis(5));
    assert_eq!((config.logs.keep, config.logs.max_bytes), (2, 10_000_000));
    let (config, _) = load("", &[]);
    assert_eq!(config.receivers.current, DEFAULT_URL);
    assert!(!config.receivers.is_chosen && config.enabled);
}

/// A file in which every setting has a value that is not its default, a line each.
const FULL: &str = r#"url = "http://a/"
api_key = "k1"
allow_plain_http = ["a"]
enabled = false
debug = true
delivery = "direct"
timeout_ms = 1
retry_attempts = 2
retry_delay_ms = 3
listen = "[::1]:4"
trusted_proxies = ["10.0.0.1"]
redact.enabled = false
redact.rules = [{ name = "n", pattern = 'p[0-9]', literals = ["p"] }]
transcripts.enabled = false
transcripts.thinking = false
transcripts.folders = ["/f"]
spool.max_files = 5
spool.max_bytes = 6
logs.max_bytes = 7
logs.keep = 8
retention.events = "9d"
retention.conversations = "10d"
retention.workspaces."w".events = "11d"
destinations."http://b/".api_key = "k2"
"#;

/// All settings, each as a line.
fn lines(config: &Config) -> Vec<String> {
    let keyed = keyed(config).into_iter();
    let keyed: Vec<_> = keyed.map(|(url, _, key)| format!("{key} for {url}")).collect();
    let Config { receivers, spool, logs, redact, transcripts, retention, .. } = config;
    let own = retention.workspaces.get("w").map(|ages| ages.events);
    vec![
        format!("url {}", receivers.current),
        format!("key {:?}", keyed.iter().find(|key| key.starts_with("k1"))),
        format!("plain {:?}", receivers.plain_http_hosts),
        format!("enabled {}", config.enabled),
        format!("debug {}", config.debug),
        format!("delivery {:?}", config.delivery),
        format!("timeout {:?}", config.timeout),
        format!("attempts {}", config.retry_attempts),
        format!("delay {:?}", config.retry_delay),
        format!("listen {}", config.listen),
        format!("proxies {:?}", config.trusted_proxies),
        format!("redact {}", redact.enabled),
        format!("rules {:?}", redact.rules),
        format!("transcripts {}", transcripts.enabled),
        format!("thinking {}", transcripts.thinking),
        format!("folders {:?}", transcripts.folders),
        format!("files {}", spool.max_files),
        format!("bytes {}", spool.max_bytes),
        format!("log bytes {}", logs.max_bytes),
        format!("keep {}", logs.keep),
        format!("events {:?}", retention.default.events),
        format!("conversations {:?}", retention.default.conversations),
        format!("own {own:?}"),
        format!("others {:?}", keyed.iter().find(|key| key.starts_with("k2"))),
    ]
}

#[test]
fn a_wrong_setting_alone_falls_back_and_leaves_all_others() {
    let (full, problems) = load(FULL, &[]);
    assert_eq!(problems, []);
    let (full, default) = (lines(&full), lines(&load("", &[]).0));
    assert_eq!(FULL.lines().count(), full.len());
    assert!(full.iter().zip(&default).all(|(full, default)| full != default), "{full:#?}");
    let wrong_values =
        ["[[\"ark_hidden\"]]", "{ ark_hidden = 1 }", "1979-05-27", "-1", "1.5", "\"\""];
    for (n, line) in FULL.lines().enumerate() {
        let name = line.split_once(" =").unwrap().0;
        for wrong in wrong_values {
            let mut file: Vec<_> = FULL.lines().map(str::to_owned).collect();
            file[n] = format!("{name} = {wrong}");
            let file = file.join("\n");
            let (config, problems) = load(&file, &[]);
            assert!(!problems.is_empty(), "{name} = {wrong}");
            for problem in &problems {
                let told = problem.to_string();
                assert!(told.contains(&format!("line {}: ", n + 1)), "{told}");
                let setting = name.rsplit('.').next().unwrap();
                assert!(told.contains(setting) || told.contains("destinations"), "{told}");
                assert!(!told.contains("hidden"), "{told}");
            }
            // Where delivery is held, transcripts are not read, as here anyway.
            let different: Vec<_> =
                (0..full.len()).filter(|&at| lines(&config)[at] != full[at]).collect();
            let expected = match name {
                // Its key is not used for another URL.
                "url" => vec![0, 1],
                // The strict form is the one that stands there.
                "transcripts.enabled" | "transcripts.thinking" => vec![],
                _ => vec![n],
            };
            assert_eq!(different, expected, "{name} = {wrong}: {problems:#?}");
            assert_eq!(
                config.hold.is_some(),
                matches!(name, "enabled" | "redact.enabled"),
                "{name} = {wrong}: {problems:#?}"
            );
        }
    }
}

#[test]
fn every_setting_of_the_file_is_in_the_documentation_with_what_a_wrong_one_does() {
    let docs = include_str!("../../../docs/configuration.md");
    let table = docs.lines().skip_while(|line| !line.starts_with("| `config.toml` |"));
    let rows: Vec<_> = table.take_while(|line| line.starts_with('|')).skip(2).collect();
    for row in &rows {
        assert_eq!(row.trim_matches('|').split('|').count(), 5, "{row}");
    }
    let documented =
        rows.iter().map(|row| row.trim_matches('|').split('|').next().unwrap()).collect::<String>();
    let names = NAMES.iter().chain(TRANSCRIPTS_NAMES).chain(SPOOL_NAMES).chain(LOGS_NAMES);
    for name in names.chain(retention::NAMES) {
        assert!(documented.contains(name), "{name}");
    }
    let variables: Vec<_> =
        drainer_variables().filter(|name| name.starts_with("ARRAKIS")).collect();
    assert!(variables.len() > 10);
    for name in variables {
        assert!(docs.contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn a_wrong_value_is_told_with_its_place_and_what_is_used_instead() {
    let (config, problems) = load("debug = true\ntimeout_ms = \"ark_hidden\"\n", &[]);
    let told =
        ("2".to_owned(), "timeout_ms must be a whole number from 1 to 600000", "10000 is used");
    assert_eq!(only(&problems), told);
    assert!(config.debug && config.hold.is_none());
    assert_eq!(config.timeout, Duration::from_secs(10));

    let env = [("CLAUDE_HOOK_TIMEOUT", "ark_hidden")];
    let (config, problems) = load("timeout_ms = 7", &env);
    let (place, _, instead) = only(&problems);
    assert_eq!((&*place, instead), ("CLAUDE_HOOK_TIMEOUT", "7 is used"));
    assert_eq!(config.timeout, Duration::from_millis(7));

    let (config, problems) = load("timeout_ms = \"ark_hidden\"", &[("ARRAKIS_TIMEOUT", "9")]);
    assert_eq!(only(&problems).2, "9 is used");
    assert_eq!(config.timeout, Duration::from_millis(9));
    for (setting, wrong) in [
        ("retry_attempts = 0", "retry_attempts must be a whole number from 1 to 10"),
        ("retry_attempts = 0xb", "retry_attempts must be a whole number from 1 to 10"),
        ("delivery = \"later\"", "delivery must be \"spool\" or \"direct\""),
        ("logs = 5", "logs must be a table"),
        ("retention = 5", "retention must be a table"),
        (
            "retention.events = \"0d\"",
            "retention.events must be \"off\", or a number of days from \"1d\" to \"36500d\"",
        ),
        ("logs.keep = -1", "logs.keep must be a whole number from 0 to 10000"),
        ("trusted_proxies = [\"x\"]", "entry 1 of trusted_proxies must be an IP address"),
    ] {
        let (config, problems) = load(setting, &[]);
        assert_eq!(only(&problems).1, wrong);
        assert!(config.hold.is_none(), "{setting}");
    }
}

#[test]
fn a_name_that_is_no_setting_is_told_with_the_one_that_may_be_meant() {
    let (config, problems) = load("\ntiemout_ms = 3\n[logs]\nkep = 1\nnonsense = 2\n", &[]);
    let told: Vec<_> = problems.iter().map(|problem| (&problem.place, &*problem.wrong)).collect();
    let wrong = [
        "\"logs.kep\" is not a setting (is logs.keep meant?)",
        "\"logs.nonsense\" is not a setting",
        "\"tiemout_ms\" is not a setting (is timeout_ms meant?)",
    ];
    assert_eq!(told.iter().map(|(_, wrong)| *wrong).collect::<Vec<_>>(), wrong);
    assert!(matches!(told[0].0, Place::File { line: Some(4), .. }), "{told:?}");
    assert!(config.hold.is_none());
}

#[test]
fn a_privacy_setting_that_cannot_be_read_takes_its_strict_form() {
    for (file, enabled, thinking) in [
        ("", true, true),
        ("[transcripts]\nenabled = \"no\"", false, true),
        ("[transcripts]\nthinking = 0", true, false),
        ("[transcripts]\nenabeld = false", false, true),
        ("[transcripts]\nthinkin = false", true, false),
        ("[transcripts]\nnonsense = false", true, true),
        ("transcripts = false", false, false),
        ("[transcript]\nenabled = false", false, false),
        ("[transcripts]\nenabled = true\nEnabled = false", false, true),
    ] {
        let (config, problems) = load(file, &[]);
        let Transcripts { enabled: is_enabled, thinking: is_thinking, .. } = config.transcripts;
        assert_eq!((is_enabled, is_thinking), (enabled, thinking), "{file}: {problems:#?}");
        assert_eq!(problems.is_empty(), file.is_empty(), "{file}");
        assert!(config.hold.is_none(), "{file}");
    }
    for (name, value, enabled, thinking) in [
        ("ARRAKIS_TRANSCRIPTS", "perhaps", false, true),
        ("ARRAKIS_TRANSCRIPTS_THINKING", "perhaps", true, false),
        ("ARRAKIS_TRANSCRIPTS_THINKING", "off", true, false),
    ] {
        let (config, _) = load("[transcripts]\nenabled = true\nthinking = true", &[(name, value)]);
        let Transcripts { enabled: is_enabled, thinking: is_thinking, .. } = config.transcripts;
        assert_eq!((is_enabled, is_thinking), (enabled, thinking), "{name}={value}");
    }
    // A folder that is none would let everything in.
    let file = "[transcripts]\nfolders = [\"\", \"relative\", \"~/x\", 7, \"/shared\"]";
    let (config, problems) = load(file, &[]);
    assert_eq!(config.transcripts.folders, [PathBuf::from("/shared")]);
    assert_eq!(problems.len(), 4);
}

#[test]
fn what_cannot_be_read_of_the_retention_keeps_everything_that_it_may_be_about() {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let kept = |ages: &Ages| {
        let days = |age: Option<Duration>| age.map(|age| age.as_secs() / DAY.as_secs());
        (days(ages.events), days(ages.conversations))
    };
    let own = "[retention.workspaces.w]\n";
    for (file, expected, expected_own) in [
        ("", (Some(365), None), None),
        ("[retention]\nevents = \"30d\"", (Some(30), None), None),
        ("[retention]\nevents = \"off\"\nconversations = \"7d\"", (None, Some(7)), None),
        (&format!("{own}conversations = \"9d\""), (Some(365), None), Some((Some(365), Some(9)))),
        (&format!("{own}events = \"off\""), (Some(365), None), Some((None, None))),
        ("[retention]\nevents = \"5y\"", (None, None), None),
        ("[retention]\nevents = 30", (None, None), None),
        ("[retention]\nevents = \"36501d\"", (None, None), None),
        ("[retention]\nevent = \"900d\"", (None, None), None),
        ("[retention]\nconversations = \"x\"", (Some(365), None), None),
        ("retention = \"off\"", (None, None), None),
        ("[retentoin]\nevents = \"900d\"", (None, None), None),
        ("[retention.workspace.w]\nevents = \"900d\"", (None, None), None),
        ("[retention]\nworkspaces = [\"w\"]", (None, None), None),
        ("[retention]\nworkspaces.w = \"900d\"", (Some(365), None), Some((None, None))),
        (&format!("{own}events = \"900\""), (Some(365), None), Some((None, None))),
        (&format!("{own}event = \"900d\""), (Some(365), None), Some((None, None))),
    ] {
        let (config, problems) = load(file, &[]);
        let RetentionPolicy { default, workspaces } = &config.retention;
        assert_eq!(kept(default), expected, "{file}: {problems:#?}");
        assert_eq!(workspaces.get("w").map(kept), expected_own, "{file}: {problems:#?}");
        assert!(config.hold.is_none(), "{file}");
    }
    let many: String =
        (0..1001).map(|n| format!("[retention.workspaces.w{n}]\nevents = \"1d\"\n")).collect();
    assert_eq!(load(&many, &[]).0.retention, RetentionPolicy::default());
}

#[test]
fn what_hides_whether_something_may_leave_holds_delivery() {
    let rule = "[[redact.rules]]\nname = \"n\"\n";
    for (file, line, redacts) in [
        ("x = ", "1", true),
        ("debug = true\napi_key = ark_hidden\n", "2", true),
        ("enabled = \"false\"", "1", true),
        ("enabeld = false", "1", true),
        ("redact = false", "1", true),
        ("[redact]\nenabled = \"off\"", "2", true),
        ("[redact]\nnonsense = 1", "2", true),
        ("[redcat]\nenabled = true", "1", true),
        ("[redact]\nrules = \"ark_hidden\"", "2", true),
        ("[redact]\nrules = [1]", "2", true),
        (rule, "1", true),
        (&format!("{rule}pattern = 5"), "3", true),
        (&format!("{rule}pattern = '('"), "1", true),
        (&format!("{rule}pattern = 'p'\nliteral = ['x']"), "4", true),
        (&format!("{rule}pattern = 'p'\nliterals = ['x', 5]"), "4", true),
        (&format!("{rule}pattern = 'p'\nliterals = ['']"), "4", true),
        (&format!("{rule}pattern = '{}'", "x".repeat(5000)), "3", true),
        (&format!("{rule}pattern = 'p'\n").repeat(201), "601", true),
    ] {
        let (config, problems) = load(file, &[]);
        let hold = config.hold.as_ref().unwrap_or_else(|| panic!("{file}: {problems:#?}"));
        let Place::File { line: Some(found), .. } = hold.place else { panic!("{hold}") };
        assert_eq!(found.to_string(), line, "{file}");
        assert!(hold.to_string().ends_with("delivery is held until it is corrected"), "{hold}");
        assert!(problems.iter().all(|problem| !problem.to_string().contains("hidden")));
        assert_eq!(config.redact.enabled, redacts, "{file}");
        assert!(config.enabled, "{file}: it is captured");
        assert!(!config.transcripts.enabled, "{file}: transcripts can wait");
    }
    // One that does not work leaves the others as they are.
    let (config, problems) =
        load(&format!("{rule}pattern = '('\n{rule}pattern = 'p'\n{rule}pattern = '['"), &[]);
    assert_eq!(problems.iter().filter(|problem| problem.holds).count(), 2, "{problems:#?}");
    assert_eq!(config.redact.rules.len(), 3);
    // Where nothing is to be redacted, no rule matters.
    let (config, problems) = load(
        &format!(
            "redact.enabled = false\n{}",
            rule.replace("[[redact.rules]]", "redact.rules = [{}]\n#")
        ),
        &[],
    );
    assert!(config.hold.is_none() && !problems.is_empty(), "{problems:#?}");

    let (config, problems) = load("", &[("CLAUDE_HOOK_ENABLED", "perhaps")]);
    assert_eq!(only(&problems).0, "CLAUDE_HOOK_ENABLED");
    assert!(config.enabled && config.hold.unwrap().is_in_environment());
    let (config, _) = load("enabled = \"?\"", &[("CLAUDE_HOOK_ENABLED", "0")]);
    assert!(!config.enabled && config.hold.is_none(), "the environment says it");
}

#[test]
fn a_file_that_cannot_be_read_holds_delivery() {
    let home = tempfile::TempDir::new().unwrap();
    let path = home.path().join("config.toml");
    let hold = || {
        let (config, problems) = Config::load(home.path(), &|_| None);
        assert_eq!(config.receivers.current, DEFAULT_URL);
        let hold = config.hold.map(|hold| hold.to_string()).unwrap_or_default();
        assert_eq!(problems.len(), 1);
        assert!(hold.starts_with(&path.display().to_string()), "{hold}");
        hold
    };
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(hold().contains("not a regular file"));
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, " ".repeat(2 << 20)).unwrap();
    assert!(hold().contains("more than 1 MiB"));
    std::fs::write(&path, b"debug = true # \xff").unwrap();
    assert!(hold().contains("UTF-8"));
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(hold().contains("not a regular file"));
    std::fs::remove_dir(&path).unwrap();
    let (config, problems) = Config::load(&home.path().join("x/y"), &|_| None);
    assert!(config.hold.is_none() && problems.is_empty(), "no file is no fault");
}

#[test]
fn a_key_goes_to_the_url_beside_which_it_stands() {
    let file = "url = \"http://file/\"\napi_key = \"kf\"\n[destinations.\"http://other/\"]\napi_key = \"ko\"";
    let (of_file, of_other) =
        (("http://file/", "http://file/", "kf"), ("http://other/", "http://other/", "ko"));
    let (config, problems) = load(file, &[]);
    assert_eq!((keyed(&config), problems), (vec![of_file, of_other], vec![]));

    // The environment names another URL: the key of the file stays with its own.
    for variable in ["ARRAKIS_URL", "CLAUDE_HOOK_API_URL"] {
        let (config, problems) = load(file, &[(variable, "http://evil/")]);
        assert_eq!(config.receivers.current, "http://evil/");
        assert_eq!((keyed(&config), problems), (vec![of_file, of_other], vec![]));
        assert!(config.receivers.find("http://evil/").is_none());
    }
    let (config, _) = load("api_key = \"kf\"", &[("ARRAKIS_URL", "http://evil/")]);
    assert_eq!(keyed(&config), [(DEFAULT_URL, DEFAULT_URL, "kf")]);
    let (config, problems) =
        load("url = \"ftp://x\"\napi_key = \"kf\"", &[("ARRAKIS_URL", "http://evil/")]);
    assert_eq!((keyed(&config), problems.len()), (vec![], 1));
    let (config, problems) = load("url = \"ftp://x\"\napi_key = \"kf\"", &[]);
    assert_eq!((keyed(&config), config.receivers.current.as_str()), (vec![], DEFAULT_URL));
    let instead = format!("events go to {DEFAULT_URL}, and a key beside it is not used");
    assert_eq!(only(&problems).2, instead);

    // With a key of its own it is a receiver beside the others.
    let both = [("ARRAKIS_URL", "http://env/"), ("ARRAKIS_API_KEY", "ke")];
    let of_env = ("http://env/", "http://env/", "ke");
    let (config, problems) = load(file, &both);
    assert_eq!((keyed(&config), problems), (vec![of_env, of_file, of_other], vec![]));
    // One that is the file's has the file's.
    let (config, _) = load(file, &[("ARRAKIS_URL", "http://file")]);
    assert!(config.receivers.find(&config.receivers.current).is_some());

    // A key belongs to the URL of the same prefix.
    let mixed = [("ARRAKIS_URL", "http://evil/"), ("CLAUDE_HOOK_API_KEY", HIDDEN)];
    let (config, problems) = load(file, &mixed);
    assert_eq!(keyed(&config), [of_file, of_other]);
    assert_eq!(only(&problems).0, "CLAUDE_HOOK_API_KEY");

    // Alone it is for the default URL, where the file names no receiver.
    let alone = [("ARRAKIS_API_KEY", HIDDEN)];
    let (config, problems) = load("debug = true", &alone);
    assert_eq!((keyed(&config), problems), (vec![(DEFAULT_URL, DEFAULT_URL, HIDDEN)], vec![]));
    for file in ["url = \"http://file/\"", "api_key = \"kf\"", "url = 5"] {
        let (config, problems) = load(file, &alone);
        assert!(keyed(&config).iter().all(|(_, _, key)| *key != HIDDEN), "{file}");
        assert!(problems.iter().any(|p| p.place == Place::Variable("ARRAKIS_API_KEY")), "{file}");
    }
}

#[test]
fn what_was_captured_for_the_default_url_follows_the_file_and_not_the_environment() {
    let env = [("ARRAKIS_URL", "http://env/"), ("ARRAKIS_API_KEY", "ke")];
    let (config, _) = load("url = \"http://file/\"\napi_key = \"kf\"", &env);
    let found = config.receivers.find(DEFAULT_URL).unwrap();
    assert_eq!(found.key.expose_secret(), "kf");
    let (config, _) = load("", &env);
    assert!(config.receivers.find(DEFAULT_URL).is_none());
}

#[test]
fn queries_credentials_and_fragments_stay_out_of_destinations() {
    let file =
        format!("url = \"http://{HIDDEN}:{HIDDEN}@h/p?t={HIDDEN}#{HIDDEN}\"\napi_key = \"k\"");
    let (config, problems) = load(&file, &[]);
    assert_eq!(problems, []);
    assert_eq!(keyed(&config), [("http://h/p", &*format!("http://h/p?t={HIDDEN}"), "k")]);
    assert_eq!(config.receivers.current, "http://h/p");
    assert!(!format!("{config:?}").contains(HIDDEN), "{config:?}");
    let more = format!("{file}\n[destinations.\"http://h/p?t=other\"]\napi_key = \"k\"");
    let (config, problems) = load(&more, &[]);
    assert_eq!(keyed(&config).len(), 1);
    assert!(only(&problems).1.contains("in its query alone"), "{problems:?}");
}

#[test]
fn hosts_of_plain_http_are_written_as_urls_write_them() {
    let file = r#"allow_plain_http = ["Box.Local", "10.1", "::1", "[fe80::1]", "h:80", "http://x", "a/b", ""]"#;
    let (config, problems) = load(file, &[]);
    assert_eq!(config.receivers.plain_http_hosts, ["box.local", "10.0.0.1", "[::1]", "[fe80::1]"]);
    assert_eq!(problems.len(), 4, "{problems:#?}");
}

#[test]
fn a_key_that_fits_into_no_header_is_told() {
    for key in ["", "with space", "wi\u{e4}de", "line\\nbreak"] {
        let (config, problems) = load(&format!("api_key = \"{key}\""), &[]);
        assert_eq!(keyed(&config), []);
        assert!(only(&problems).1.starts_with("api_key must be"), "{problems:?}");
    }
    let (config, problems) = load(&format!("api_key = \"{}\"", "x".repeat(5000)), &[]);
    assert_eq!((keyed(&config), problems.len()), (vec![], 1));
    let many: String = (0..101)
        .map(|n| format!("[destinations.\"http://h{n:03}/\"]\napi_key = \"k\"\n"))
        .collect();
    let (config, problems) = load(&many, &[]);
    assert_eq!((keyed(&config).len(), problems.len()), (100, 1));
    let long = format!("url = \"http://h/{}\"", "x".repeat(9000));
    assert_eq!(
        only(&load(&long, &[]).1).1,
        "url must be an http or https URL of at most 8192 bytes"
    );
}

#[test]
fn keys_do_not_show() {
    let file = "api_key = \"ark_hidden\"\n[destinations.\"http://b/\"]\napi_key = \"ark_hidden\"\n";
    let (config, problems) =
        load(file, &[("ARRAKIS_URL", "http://c/"), ("ARRAKIS_API_KEY", HIDDEN)]);
    assert_eq!(problems, []);
    assert_eq!(keyed(&config).len(), 3);
    assert!(!format!("{config:?}").contains("hidden"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever becomes of a file, it is read, and no value of it is told.
    #[test]
    fn no_file_stops_a_hook_or_tells_a_value(
        at in 0..FULL.len(),
        length in 0..40usize,
        text in "[ -~\\n]{0,12}",
    ) {
        let full = FULL.replace("\"k1\"", "\"ark_hidden\"").replace("\"http://a/\"", "\"http://a/?q=ark_hidden\"");
        let end = full.floor_char_boundary(at + length);
        let mut file = full.clone();
        file.replace_range(full.floor_char_boundary(at)..end.max(at), &text);
        let (config, problems) = load(&file, &[]);
        let told = format!("{problems:?} {config:?}");
        // A piece of a value may have become a name.
        let is_name = problems.iter().any(|problem| problem.wrong.contains("is not a setting"));
        prop_assert!(is_name || !told.contains("ark_hidden"), "{}", told);
    }
}
