//! Secrets of no one issuer: keys in files, requests, command lines, and values that a name tells.

use std::ops::Range;

use super::{Rule, find, token};
use crate::session::redact::scan::{Rank, Scan};
use crate::session::redact::shape::{ALNUM, Lit, Run, URL64};
use crate::session::redact::{block, command, http, inner, named};

/// Which rules here tell a secret by its own form.
pub(super) fn rank(name: &str) -> Rank {
    match name {
        "password" | "token" | "secret" | "api-key" | "key" | "authorization" | "cookie" => {
            Rank::Named
        }
        "bearer" | "url-password" => Rank::Owned,
        _ => Rank::Issued,
    }
}

fn pem(scan: &mut Scan<'_>, hit: Range<usize>) {
    block::key_block(scan, hit);
}

pub(super) const RULES: &[Rule] = &[
    find(
        "private-key",
        &["-----BEGIN"],
        pem,
        [
            "-----BEGIN RSA PRIVATE KEY-----\n|MIIEpAIBAAKCAQEA7bqAbC0123|\n-----END RSA PRIVATE KEY-----",
            "-----BEGIN OPENSSH PRIVATE KEY-----\n|b3BlbnNzaC1rZXktdjEAAAAA|",
        ],
        [
            "a file between -----BEGIN PRIVATE KEY----- and -----END PRIVATE KEY----- is a key",
            "-----BEGIN CERTIFICATE-----\nMIIDdzCCAl+gAwIBAgIEAgAAuTANBgkqhkiG9w0BAQUFADBaMQswCQ\n-----END CERTIFICATE-----",
        ],
    ),
    find(
        "private-key",
        &["-----END"],
        block::key_block_end,
        [
            "|MIIEpAIBAAKCAQEA7bqAbC0123x|\n-----END PRIVATE KEY-----",
            "|b3BlbnNzaC1rZXktdjEAAAAAz9|\n|k2hlbnNzaC1rZXktdjEAAAAAz9|\n-----END OPENSSH PRIVATE KEY-----",
        ],
        [
            "it ends with -----END PRIVATE KEY-----",
            "AAAAB3NzaC1yc2EAAAADAQABAAABgQ9\n-----END PUBLIC KEY-----",
        ],
    ),
    find(
        "private-key",
        &["Private-Lines:", "Private-MAC:"],
        block::putty_lines,
        [
            "Private-Lines: 1\n|AAAAgQCq9hbnNzaC1rZXktdjEAAAAAz9k2|",
            "Private-MAC: |84f2a9c71b0d3e5f6a7b8c9d0e1f2a3b4c5d6e7f|",
        ],
        ["Private-Lines: 14 is a line of such a file", "the field Private-MAC: has 40 digits"],
    ),
    find(
        "private-key",
        &["LS0tLS1CRUdJTi"],
        block::encoded_block,
        [
            "client-key-data: |LS0tLS1CRUdJTiBSU0EgUFJJVkFURSBLRVktLS0tLQpNSUlFcEFJQkFBS0NBUUVB|",
            "\"|LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0tCk1JSUV2UUlCQURBTkJna3Foa2lH|\"",
        ],
        [
            "certificate-authority-data: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk1JSURkekNDQWwrZ0F3SUJBZ0lFQWdBQXVU",
            "LS0tLS1CRUdJTi",
        ],
    ),
    find(
        "jwk",
        &["\"d\"", "\"d\\", "\"k\"", "\"k\\"],
        inner::jwk,
        [
            r#"{"kty":"EC","crv":"P-256","d":"|870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE|"}"#,
            r#"{"kty":"OKP","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","d":"|nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A|"}"#,
        ],
        [
            r#"{"kty":"EC","x":"870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE"}"#,
            r#"{"d":"M12 2h20","fill":"none"}"#,
        ],
    ),
    find(
        "jwt",
        &["eyJ"],
        inner::jwt,
        [
            "|eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9|",
            "id=|eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJpc3MiOiJodHRwczovL2V4YW1wbGUub3JnIn0.c2lnbmF0dXJlLW9mLXRva2Vu|",
        ],
        ["eyJhbGciOiJIUzI1NiJ9", "eyJ.eyJ.x"],
    ),
    find(
        "telegram-token",
        &[":AA"],
        inner::telegram,
        [
            "bot |123456789:AA8TPQxjq4i9DoV8gz4FkQ1okTBGzvAmwuf|",
            "api.telegram.org/bot|110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw9|/getMe",
        ],
        ["12:AAB", "aa:bb:cc:AA:dd:ee"],
    ),
    find(
        "terraform-token",
        &[".atlasv1."],
        inner::terraform,
        [
            "|NqVwYS81VP7Hb1.atlasv1.DX8pPd5khxE3pyIgKpaUnArl63XykWZeiNNCiia3anXn9k3ksu9mI4ROnl89Sm995y|",
            "token = \"|tbxAk7jqevt0ML.atlasv1.aMRTvetw0tESulEETldq8b8Vw2zbJYAxyL1aCcTlN99mhWp708DwGw5HqXDgLVXZx3|\"",
        ],
        ["x.atlasv1.y", "the prefix .atlasv1. marks a token"],
    ),
    find(
        "maxmind-key",
        &["_mmk"],
        inner::maxmind,
        [
            "|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|",
            "license: |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|",
        ],
        ["my_mmk", "a name that ends in _mmk"],
    ),
    find(
        "azure-client-secret",
        &["0Q~", "1Q~", "2Q~", "3Q~", "4Q~", "5Q~", "6Q~", "7Q~", "8Q~", "9Q~"],
        inner::azure_secret,
        [
            "|abc8Q~dT4kLmN7pRsUvWx2YzA5bC9eF3gHjKq6rS|",
            "value=|Zy78Q~xWvUt3SrQp0OnMlKj6IhGfEdCb9AzYx2Wv|",
        ],
        ["8Q~", "press Q~ to leave"],
    ),
    // The first part of a bot's token is the base64 of a number, so it begins with one of these.
    token(
        "discord-token",
        &[
            "MTA", "MTE", "MTI", "MTM", "MTQ", "MTU", "MTY", "MTc", "MTg", "MTk", "MjA", "MjE",
            "MjI", "MjM", "MjQ", "MjU", "MjY", "Mjc", "Mjg", "Mjk", "MzA", "MzE", "MzI", "MzM",
            "MzQ", "MzU", "MzY", "Mzc", "Mzg", "Mzk", "NDA", "NDE", "NDI", "NDM", "NDQ", "NDU",
            "NDY", "NDc", "NDg", "NDk", "NTA", "NTE", "NTI", "NTM", "NTQ", "NTU", "NTY", "NTc",
            "NTg", "NTk", "NjA", "NjE", "NjI", "NjM", "NjQ", "NjU", "NjY", "Njc", "Njg", "Njk",
            "NzA", "NzE", "NzI", "NzM", "NzQ", "NzU", "NzY", "Nzc", "Nzg", "Nzk", "ODA", "ODE",
            "ODI", "ODM", "ODQ", "ODU", "ODY", "ODc", "ODg", "ODk", "OTA", "OTE", "OTI", "OTM",
            "OTQ", "OTU", "OTY", "OTc", "OTg", "OTk",
        ],
        &[Run(ALNUM, 17, 25), Lit("."), Run(URL64, 6, 7), Lit("."), Run(URL64, 27, 45)],
        [
            "DISCORD_TOKEN=|MTk4NjIyNDgzNDcxOTI1MjQ4.Cl2FMQ.ZnCjm1XVW7vRze4b7Cq4se7kKWs|",
            "|NzkyNzE1NDU0MTk2MDg4ODQy.X-hvzA.Ovy4MCQywSkoMRRclStW4xAYK7I|",
        ],
        ["MTk4NjIyNDgzNDcxOTI1MjQ4", "NzM.a.b"],
    ),
    find(
        "mailchimp-key",
        &["-us"],
        inner::mailchimp,
        [
            "|4f31af3176813e02ea68ef786e4d3cea-us14|",
            "apikey:|9c8b7a6f5e4d3c2b1a0f9e8d7c6b5a4f-us2|",
        ],
        ["en-us", "build-4f31af31-us14"],
    ),
    find(
        "asana-token",
        &["1/1", "2/1", "1/0"],
        inner::asana,
        [
            "|1/1201234567890123:4f31af3176813e02ea68ef786e4d3cea|",
            "|2/1199876543210987/1201112223334445:9c8b7a6f5e4d3c2b1a0f9e8d7c6b5a4f|",
        ],
        ["page 1/1", "2/12 tests:4f31"],
    ),
    find(
        "authorization",
        &[
            "authorization",
            "x-api-key",
            "x-auth-token",
            "private-token",
            "x-vault-token",
            "api-key:",
        ],
        http::authorization,
        [
            "curl -H 'Authorization: ApiKey |abcdef0123456789|'",
            "Authorization: Basic |dXNlcjpwYXNzd29yZA==|",
        ],
        ["Authorization: Bearer ${TOKEN}", "headers['Authorization'] = 'Bearer ' + token;"],
    ),
    find(
        "bearer",
        &["bearer "],
        http::bearer,
        ["it sends bearer |J2OXtPAtLpByQxCGClbaNFDp| with it", "Bearer |k8s7d6f5g4h3j2k1l0m9|"],
        ["a bearer token is sent", "Bearer <your-token-here-123456>"],
    ),
    find(
        "cookie",
        &["cookie"],
        http::cookie,
        [
            "Set-Cookie: sessionid=|k8s7d6f5g4h3j2k1l0m9n8b7|; Path=/; HttpOnly",
            "curl --cookie \"sid=|4f31af3176813e02ea68ef78|\" https://example.org",
        ],
        ["Set-Cookie: theme=dark; Path=/", "cookie: lang=en; consent=all"],
    ),
    find(
        "url-password",
        &["://"],
        http::url_password,
        ["postgres://app:|pa55word|@db.internal:5432/app", "redis://:|s3cr3tvalue|@cache:6379/0"],
        [
            "http://localhost:3000/path@v2",
            "postgres://user:password@localhost/app and https://u:${PW}@h/",
        ],
    ),
    find(
        "command-password",
        command::KEYWORDS,
        command::option,
        ["mysql -u root -p|whjpU05mc4| shop", "sshpass -p |s3cr3t!pass| ssh ada@example.org"],
        [
            "docker run -p 8080:80 -u 1000:1000 app",
            "docker ps\nmkdir -p release2026x && mysql -p shop",
        ],
    ),
    find(
        "command-password",
        &["curl"],
        command::curl,
        [
            "curl -sfu deploy:|Zx81qpl0| https://example.org",
            "curl https://example.org --user 'ada:|s3cr3t!pass|'",
        ],
        [
            "curl -u \"$USER:$PASS\" https://example.org",
            "curl -sS --user-agent x:y1234 https://example.org",
        ],
    ),
    find(
        "command-password",
        &["securestring"],
        command::secure_string,
        [
            "$p = ConvertTo-SecureString '|Zx81qpl0|' -AsPlainText -Force",
            "ConvertTo-SecureString -String \"|hunter22x|\" -AsPlainText",
        ],
        [
            "ConvertTo-SecureString $env:PW -AsPlainText",
            "ConvertTo-SecureString -String \"$plain\"",
        ],
    ),
    find(
        "command-password",
        &["chpasswd"],
        command::chpasswd,
        [
            "chpasswd <<< $(echo root:|Zx81qpl0|); chpasswd",
            "echo 'ada:|hunter22x|' > users; chpasswd < users",
        ],
        ["echo \"$USER:$PW\" | chpasswd", "man chpasswd"],
    ),
    find(
        "command-password",
        &["sqlplus", "oracle:thin:"],
        command::oracle,
        ["sqlplus system/|Zx81qpl0|@//db:1521/X", "jdbc:oracle:thin:ada/|hunter22x|@//db:1521/X"],
        ["sqlplus /nolog", "jdbc:oracle:thin:@//db:1521/X"],
    ),
    find(
        "command-password",
        &["from-literal"],
        command::literal,
        [
            "kubectl create secret generic a --from-literal=token=|Zx81qpl0|",
            "--from-literal='password=|hunter22x|'",
        ],
        ["--from-literal=user=app", "--from-literal=token=$TOKEN"],
    ),
    find(
        "command-password",
        &["pass:"],
        command::pass_argument,
        [
            "openssl rsa -in k.pem -passin pass:|hunter2x| -out o.pem",
            "openssl genrsa -passout pass:|Zk4wq9| 2048",
        ],
        ["tests pass: all of them", "openssl rsa -passin env:PW"],
    ),
    find(
        "sql-password",
        &["identified by", "password"],
        command::sql,
        [
            "CREATE USER app IDENTIFIED BY '|s3cr3tPw9|';",
            "ALTER ROLE app WITH LOGIN PASSWORD '|Zx81qpl0|';",
        ],
        ["CREATE USER app IDENTIFIED BY '${PW}';", "the field password 'name' is a label"],
    ),
    find(
        "netrc-password",
        &["password ", "passwd "],
        command::netrc,
        [
            "machine api.example.org login ada password |hunter22x|",
            "default login ada password |correct-horse|",
        ],
        ["machine and login and password in one line", "login to set a password again"],
    ),
    find(
        "pgpass",
        &[":5432:", ":5433:"],
        command::pgpass,
        ["localhost:5432:shop:ada:|s3cr3tPw9|", "*:5433:*:app:|Zx81qpl0|"],
        ["0.0.0.0:5432:5432", "db:5432:shop:ada:${PW}"],
    ),
    find(
        "password",
        &[
            "password",
            "passwd",
            "passphrase",
            "passcode",
            "pwd",
            "passwort",
            "mot de passe",
            "requirepass",
            "storepass",
            "keypass",
            "masterauth",
        ],
        named::password,
        ["DB_PASSWORD=\"|p4ss.word|\"", "mysqldump --password=|s3cr3t!pass| shop"],
        [
            "password=$DB_PASSWORD and password=${PW} and password=<your password>",
            "password = form.password.value",
        ],
    ),
    find(
        "password",
        &["pass", "_pw", "_auth", "\"auth", "psk"],
        named::short_name,
        ["SMTP_PASS=|hunter2x|", "DB_PW=|Zx81qpl0|"],
        ["pass: ok", "auth: basic"],
    ),
    find(
        "token",
        &["token"],
        named::opaque,
        ["api_token: |J2OXtPAtLpByQxCGClbaNFDp|", "{\"token\":\"|4f31af3176813e02ea68ef786e4d|\"}"],
        ["\"input_tokens\":1000,\"max_tokens\":2000", "const token: string = getToken()"],
    ),
    find(
        "secret",
        &["secret", "credential", "_salt"],
        named::opaque,
        [
            "client_secret=|abc123def456|&grant_type=x",
            "APP_SECRET_KEY = '|bttOofL9H2WjQ5TY4MyWuUFjsUNPjc01|'",
        ],
        ["the secretary: Anna keeps passwords safe", "secret: Option<SecretString>,"],
    ),
    find(
        "api-key",
        &["api_key", "api-key", "apikey", "api key"],
        named::opaque,
        ["config['api_key'] = '|0123456789abcdef|'", "--api-key |k8s7d6f5g4h3j2k1|"],
        ["apiKey := os.Getenv(\"SHOP_API_KEY\")", "if (apiKey == \"\") { return }"],
    ),
    find(
        "key",
        &["key"],
        named::key,
        ["ENCRYPTION_KEY=|k8s7d6f5g4h3j2k1|", "\"signingKey\": \"|J2OXtPAtLpByQxCGClbaNFDp|\""],
        ["const privateKey = hexToBytes(key.slice(2));", "primary_key: user_id2"],
    ),
];
