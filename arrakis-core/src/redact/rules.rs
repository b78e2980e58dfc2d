//! The default rules.
//!
//! A pattern replaces its first group, or all of itself. It must not match a quote or a backslash
//! that belongs to the JSON around it: values end before either, and an escape is matched whole or
//! not at all.

/// A rule: where one of the literals stands (in any case), the pattern is searched for.
pub(super) struct DefaultRule {
    pub(super) name: &'static str,
    pub(super) literals: &'static [&'static str],
    pub(super) pattern: &'static str,
}

const fn rule(
    name: &'static str,
    literals: &'static [&'static str],
    pattern: &'static str,
) -> DefaultRule {
    DefaultRule { name, literals, pattern }
}

/// The names that a secret is assigned to, without what may stand before them (`DB_PASSWORD`).
macro_rules! secret_names {
    () => {
        r"(?:password|passwd|passphrase|pwd|secret|secret[_-]?(?:access[_-]?)?key|api[_-]?key|api[_-]?token|access[_-]?key|access[_-]?token|auth[_-]?token|refresh[_-]?token|session[_-]?token|id[_-]?token|bearer[_-]?token|client[_-]?secret|private[_-]?key|encryption[_-]?key|signing[_-]?key)"
    };
}

const NAME_LITERALS: &[&str] = &[
    "passw",
    "passphrase",
    "pwd",
    "secret",
    "api_key",
    "api-key",
    "apikey",
    "api_token",
    "api-token",
    "apitoken",
    "access_key",
    "access-key",
    "accesskey",
    "access_token",
    "access-token",
    "accesstoken",
    "auth_token",
    "auth-token",
    "authtoken",
    "refresh_token",
    "refresh-token",
    "refreshtoken",
    "session_token",
    "session-token",
    "sessiontoken",
    "id_token",
    "id-token",
    "idtoken",
    "bearer_token",
    "bearer-token",
    "bearertoken",
    "private_key",
    "private-key",
    "privatekey",
    "encryption_key",
    "encryption-key",
    "encryptionkey",
    "signing_key",
    "signing-key",
    "signingkey",
];

/// Applied in this order: what an issuer's own format tells comes before what a name tells.
pub(super) const DEFAULT_RULES: &[DefaultRule] = &[
    rule(
        "private-key",
        &["private key-----"],
        r"(?-u)-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----(?:[A-Za-z0-9+/=:,.\x20\t\r\n-]|\\+[nrt])*?-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----",
    ),
    rule(
        "private-key",
        &["private key-----"],
        r"(?-u)-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----(?:[A-Za-z0-9+/=\x20\t\r\n]|\\+[nrt])*",
    ),
    rule("anthropic-key", &["sk-ant-"], r"(?-u)\bsk-ant-[A-Za-z0-9_-]{16,}"),
    rule("openai-key", &["sk-"], r"(?-u)\bsk-(?:proj-|svcacct-|admin-|None-)?[A-Za-z0-9_-]{20,}"),
    rule("arrakis-key", &["ark_"], r"(?-u)\bark_[0-9a-f]{8}_[0-9a-f]{64}\b"),
    rule(
        "github-token",
        &["ghp_", "gho_", "ghu_", "ghs_", "ghr_"],
        r"(?-u)\bgh[pousr]_[A-Za-z0-9]{30,}",
    ),
    rule("github-token", &["github_pat_"], r"(?-u)\bgithub_pat_[A-Za-z0-9_]{30,}"),
    rule("gitlab-token", &["glpat-"], r"(?-u)\bglpat-[A-Za-z0-9_.-]{20,}"),
    rule("aws-key-id", &["akia", "asia"], r"(?-u)\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    rule("google-key", &["aiza"], r"(?-u)\bAIza[A-Za-z0-9_-]{35}"),
    rule("google-token", &["ya29."], r"(?-u)\bya29\.[A-Za-z0-9_-]{20,}"),
    rule(
        "slack-token",
        &["xoxa-", "xoxb-", "xoxe-", "xoxo-", "xoxp-", "xoxr-", "xoxs-", "xapp-"],
        r"(?-u)\b(?:xox[abeoprs]|xapp)-[A-Za-z0-9-]{10,}",
    ),
    rule(
        "slack-webhook",
        &["hooks.slack.com/"],
        r"(?-u)hooks\.slack\.com/(?:services|workflows|triggers)/([A-Za-z0-9/_-]{10,})",
    ),
    rule(
        "stripe-key",
        &["sk_live_", "rk_live_", "sk_test_", "rk_test_", "whsec_"],
        r"(?-u)\b(?:[sr]k_(?:live|test)|whsec)_[A-Za-z0-9]{16,}",
    ),
    rule("npm-token", &["npm_"], r"(?-u)\bnpm_[A-Za-z0-9]{36}\b"),
    rule("pypi-token", &["pypi-"], r"(?-u)\bpypi-[A-Za-z0-9_-]{50,}"),
    rule("huggingface-token", &["hf_"], r"(?-u)\bhf_[A-Za-z0-9]{30,}"),
    rule("sendgrid-key", &["sg."], r"(?-u)\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"),
    rule(
        "digitalocean-token",
        &["dop_v1_", "doo_v1_", "dor_v1_"],
        r"(?-u)\bdo[opr]_v1_[a-f0-9]{64}",
    ),
    rule("jwt", &["eyj"], r"(?-u)\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"),
    rule(
        "authorization",
        &["authorization"],
        r#"(?i-u)authorization\\*["']?\s*[:=]\s*\\*["']?(?:bearer|basic|token|digest)\s+([A-Za-z0-9._~+/=-]{6,})"#,
    ),
    rule("bearer", &["bearer "], r"(?i-u)\bbearer\x20+([A-Za-z0-9._~+/=-]{20,})"),
    rule(
        "url-password",
        &["://"],
        r#"(?i-u)\b[a-z][a-z0-9+.-]{1,20}://[^\s:/@"'\\]{0,64}:([^\s/@"'\\$\[{<][^\s/@"'\\]{0,255})@"#,
    ),
    // "password":"…" as the JSON around it has it: the whole string, escapes included.
    rule(
        "password",
        NAME_LITERALS,
        concat!(r#"(?i-u)"#, secret_names!(), r#""\s*:\s*"((?:[^"\\\x00-\x1f]|\\.)+)""#),
    ),
    // \"password\":\"…\" inside a string.
    rule(
        "password",
        NAME_LITERALS,
        concat!(r#"(?i-u)"#, secret_names!(), r#"\\+["']\s*:\s*\\+["']([^"'\\]+)"#),
    ),
    // password=…, PASSWORD: '…', --password …= and their like, inside a string or in plain text.
    rule(
        "password",
        NAME_LITERALS,
        concat!(
            r#"(?i-u)"#,
            secret_names!(),
            r#"\s{0,3}(?:=>|:=|=|:)\s{0,3}(?:\\*["'])?([^\s"'\\,;:&<>{}()\[\]$|=][^\s"'\\,;&<>{}()\[\]|]{3,})"#
        ),
    ),
    // GITHUB_TOKEN=…: a name that ends in token is one too common to be followed by a colon.
    rule(
        "token",
        &["token="],
        r#"(?i-u)token=(?:\\*["'])?([^\s"'\\,;:&<>{}()\[\]$|=][^\s"'\\,;&<>{}()\[\]|]{7,})"#,
    ),
];
