use std::{cell::RefCell, collections::BTreeSet};

use clap::CommandFactory as _;

use super::{variable::Variable, *};

fn read(assignments: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    Config::from_lookup(&|name| {
        assignments
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| (*value).to_owned())
    })
}

fn complaint(name: &str, value: &str) -> String {
    let errors = read(&[(name, value)]).expect_err(value);
    assert_eq!(errors.0.len(), 1, "{errors}");
    errors.to_string()
}

fn all_names() -> BTreeSet<&'static str> {
    let variables = var::GROUPS.iter().flat_map(|group| group.variables);
    variables.map(|variable| variable.name).collect()
}

#[test]
fn an_empty_environment_gives_the_defaults() {
    let config = read(&[]).unwrap();
    assert_eq!(
        (config.server.host.as_str(), config.server.port),
        ("127.0.0.1", 8000)
    );
    assert_eq!(config.server.workers, None);
    assert_eq!(config.server.max_body_bytes, 1 << 20);
    assert_eq!(config.conversations.max_reply_bytes, 32 << 20);
    assert_eq!(config.conversations.resident_history_bytes, 512 << 20);
    assert_eq!(config.conversations.system_prompt, None);
    assert_eq!(
        config.openrouter.base_url.as_str(),
        "https://openrouter.ai/api/v1"
    );
    assert_eq!(config.openrouter.total_timeout.as_secs(), 600);
    let origins = ["http://localhost:3000", "http://127.0.0.1:3000"].map(str::to_owned);
    assert_eq!(
        config.server.allowed_origins,
        AllowedOrigins::Only(origins.to_vec())
    );
}

#[test]
fn a_blank_value_is_an_unset_one() {
    let names = all_names();
    let blank: Vec<_> = names.iter().map(|name| (*name, " \t")).collect();
    let config = read(&blank).unwrap();
    assert_eq!(config.mode(), Mode::Demo);
    assert_eq!(config.server.port, 8000);
}

#[test]
fn every_variable_that_is_read_is_in_the_table() {
    let asked = RefCell::new(BTreeSet::new());
    let lookup = |name: &str| {
        asked.borrow_mut().insert(name.to_owned());
        None
    };
    Config::from_lookup(&lookup).unwrap();
    let asked = asked.into_inner();
    for name in &all_names() {
        assert!(asked.contains(*name), "{name} is never read");
    }
}

#[test]
fn the_example_file_shows_the_table() {
    let example = include_str!("../../.env.example");
    let (_, example) = example.split_once("\n\n").unwrap();
    let mut table = String::new();
    for group in var::GROUPS {
        table += &format!("# --- {} ---\n\n", group.title);
        for Variable {
            name,
            default,
            help,
        } in group.variables
        {
            let comment = if default.is_empty() { "" } else { "#" };
            table += &format!("# {help}\n{comment}{name}={default}\n");
        }
        table += "\n";
    }
    assert_eq!(example.trim_end(), table.trim_end());
}

#[test]
fn help_lists_every_variable() {
    let help = Cli::command().render_help().to_string();
    let first_words: BTreeSet<_> = help
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    for name in all_names() {
        assert!(first_words.contains(name), "{name}\n{help}");
    }
    Cli::command().debug_assert();
}

#[test]
fn the_example_file_uncommented_is_still_the_demo() {
    let example = include_str!("../../.env.example").replace("\n#", "\n");
    let example: String = example
        .lines()
        .filter(|line| line.contains('=') && !line.starts_with(' '))
        .map(|line| format!("{line}\n"))
        .collect();
    let example = dotenv::parse(&example).unwrap();
    assert_eq!(example.len(), all_names().len());
    let lookup = |wanted: &str| {
        let mut assignments = example.iter();
        let found = assignments.find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.clone())
    };
    assert_eq!(Config::from_lookup(&lookup).unwrap().mode(), Mode::Demo);
}

#[test]
fn who_answers_depends_on_the_keys() {
    type Case<'a> = (&'a [(&'a str, &'a str)], Mode, ChatProvider);
    let cases: [Case<'_>; 5] = [
        (&[], Mode::Demo, ChatProvider::Embedded),
        (
            &[("OPENROUTER_API_KEY", "sk-or-1")],
            Mode::Live,
            ChatProvider::OpenRouter,
        ),
        (
            &[("OPENROUTER_BASE_URL", "http://localhost:11434/v1/")],
            Mode::Live,
            ChatProvider::OpenRouter,
        ),
        (
            &[
                ("SUPABASE_URL", "https://ref.supabase.co"),
                ("SUPABASE_SERVICE_ROLE_KEY", "x"),
            ],
            Mode::Live,
            ChatProvider::NotConfigured {
                variable: "OPENROUTER_API_KEY",
            },
        ),
        (
            &[("ELEVENLABS_API_KEY", "x")],
            Mode::Live,
            ChatProvider::NotConfigured {
                variable: "OPENROUTER_API_KEY",
            },
        ),
    ];
    for (assignments, mode, provider) in cases {
        let config = read(assignments).unwrap();
        assert_eq!(config.mode(), mode, "{assignments:?}");
        assert_eq!(config.chat_provider(), provider, "{assignments:?}");
    }
}

#[test]
fn a_bad_value_is_one_sentence_that_names_its_variable() {
    assert_eq!(
        complaint("PORT", "65536"),
        "PORT must be a whole number from 0 to 65535, and is \"65536\""
    );
    for (name, value) in [
        ("PORT", "http"),
        ("PORT", "-1"),
        ("WS_PING_SECS", "0"),
        ("WORKERS", "1.5"),
        ("OPEN_ADMIN", "maybe"),
        ("TIMESTAMPS", "local"),
        ("LOG_FORMAT", "xml"),
        ("LOG_LEVEL", "verbose"),
        ("LOG_LEVEL", "idol_actors=loud"),
        ("HOST", "http://localhost"),
        ("HOST", "a b"),
        ("OPENROUTER_BASE_URL", "localhost:11434"),
        ("OPENROUTER_BASE_URL", "ftp://host/v1"),
        ("OPENROUTER_BASE_URL", "http://host/v1?key=1"),
        ("ALLOWED_ORIGINS", "https://a.example/path"),
        ("ALLOWED_ORIGINS", "a.example"),
        ("X_TITLE", "two\nlines"),
        ("SUPABASE_STORAGE_BUCKET", "a/b"),
        ("SUPABASE_STORAGE_BUCKET", ".."),
        ("SUPABASE_TIMEOUT_SECS", "0"),
    ] {
        let text = complaint(name, value);
        assert!(text.starts_with(&format!("{name} must be ")), "{text}");
        assert!(!text.contains('\n'), "{text}");
    }
}

#[test]
fn supabase_needs_both_its_url_and_its_key() {
    let (url, key) = ("SUPABASE_URL", "SUPABASE_SERVICE_ROLE_KEY");
    assert_eq!(
        complaint(url, "https://ref.supabase.co"),
        "SUPABASE_SERVICE_ROLE_KEY must be set, since SUPABASE_URL is"
    );
    assert_eq!(
        complaint(key, "sb_secret_hush"),
        "SUPABASE_URL must be set, since SUPABASE_SERVICE_ROLE_KEY is"
    );
    assert!(read(&[]).unwrap().supabase.is_none());
    let config = read(&[(url, "https://ref.supabase.co/"), (key, "sb_secret_hush")]).unwrap();
    assert!(!format!("{config:?}").contains("hush"));
    let supabase = config.supabase.unwrap();
    assert_eq!(supabase.url.as_str(), "https://ref.supabase.co");
    assert_eq!(supabase.bucket, "conversations");
    assert_eq!(supabase.timeout.as_secs(), 30);
    let errors = read(&[(url, "ref.supabase.co"), (key, "sb secret")]).unwrap_err();
    assert_eq!(errors.0.len(), 2, "{errors}");
}

#[test]
fn all_mistakes_are_told_at_once() {
    let errors = read(&[("PORT", "x"), ("LOG_FORMAT", "y"), ("WORKERS", "z")]).unwrap_err();
    assert_eq!(errors.to_string().lines().count(), 3);
}

#[test]
fn keys_are_shown_nowhere() {
    let config = read(&[("OPENROUTER_API_KEY", "sk-secret\n")]).unwrap();
    assert!(!format!("{config:?}").contains("secret"));
    let errors = read(&[
        ("OPENROUTER_API_KEY", "sk secret"),
        ("OPENROUTER_BASE_URL", "http://u:secret@h"),
    ]);
    let errors = errors.unwrap_err();
    assert_eq!(errors.0.len(), 2);
    assert!(
        !format!("{errors} {errors:?}").contains("secret"),
        "{errors}"
    );
}

#[test]
fn values_are_brought_to_one_form() {
    let config = read(&[
        ("HOST", "[::1]"),
        ("OPEN_ADMIN", "YES"),
        ("TIMESTAMPS", "Naive"),
        ("LOG_LEVEL", "INFO,idol_actors=debug"),
        ("OPENROUTER_BASE_URL", " http://localhost:11434/v1// "),
        (
            "ALLOWED_ORIGINS",
            "https://Idol.example:443/, capacitor://localhost ,null,",
        ),
    ])
    .unwrap();
    assert_eq!(config.server.host, "::1");
    assert!(config.server.open_admin);
    assert_eq!(config.server.timestamps, Timestamps::Naive);
    assert_eq!(
        config.openrouter.base_url.as_str(),
        "http://localhost:11434/v1"
    );
    let origins = ["https://idol.example", "capacitor://localhost", "null"].map(str::to_owned);
    assert_eq!(
        config.server.allowed_origins,
        AllowedOrigins::Only(origins.to_vec())
    );
    let any = read(&[("ALLOWED_ORIGINS", "https://a.example,*")]).unwrap();
    assert_eq!(any.server.allowed_origins, AllowedOrigins::Any);
}

#[test]
fn a_flag_speaks_for_its_variable() {
    use clap::Parser as _;

    let cli = Cli::parse_from(["idol-router", "healthcheck", "--port", "9000"]);
    assert_eq!(cli.command, Some(Command::Healthcheck));
    assert_eq!(cli.flag("PORT"), Some("9000"));
    assert_eq!(cli.flag("HOST"), None);
}

#[test]
fn a_missing_env_file_is_none_and_an_unreadable_one_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(".env");
    assert!(read_dotenv(&path).unwrap().is_empty());
    fs::write(&path, "PORT=1\nPORT=2\nSYSTEM_PROMPT=You are Luna\n").unwrap();
    let values = read_dotenv(&path).unwrap();
    assert_eq!(values["PORT"], "2");
    assert_eq!(values["SYSTEM_PROMPT"], "You are Luna");
    fs::write(&path, b"A=\xff").unwrap();
    assert!(matches!(
        read_dotenv(&path),
        Err(ConfigError::DotenvUnreadable(_))
    ));
    fs::write(&path, "PORT=1\noops\n").unwrap();
    let text = read_dotenv(&path).unwrap_err().to_string();
    assert_eq!(text, ".env, line 2: expected NAME=value");
}
