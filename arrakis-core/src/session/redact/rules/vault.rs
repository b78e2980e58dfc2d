//! Databases, vaults and private networks.

use super::{Rule, after, owned, token};
use crate::session::redact::shape::{
    ALNUM, BASE64, DIGIT, DOTTED, HEX, LOOSE, Lit, Run, UPPER, URL64, WORD,
};

pub(super) const RULES: &[Rule] = &[
    token(
        "supabase-token",
        &["sbp_", "sb_secret_"],
        &[Run(WORD, 30, 64)],
        [
            "key: |sbp_¦HwAci7SFyu1Wx2SvlM49MEnTtIkzbc|",
            r#"curl -H "X-Key: |sb_secret_¦05LjsyNr4p0MToWtYptohTCRLjYaTooSj|""#,
        ],
        ["sbp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "values begin with sb_secret_ and then letters"],
    ),
    token(
        "planetscale-token",
        &["pscale_tkn_", "pscale_oauth_", "pscale_pw_"],
        &[Run(DOTTED, 32, 64)],
        [
            "key: |pscale_tkn_¦f1OmoFlL4xbOc2RweGndcM9FwwfnOtgcSt4|",
            r#"curl -H "X-Key: |pscale_pw_¦ngAqxirZwg6UiyhLnMZEZN4SAPaVN2fB|""#,
        ],
        [
            "pscale_tkn_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with pscale_pw_ and then letters",
        ],
    ),
    token(
        "neon-key",
        &["napi_", "npg_"],
        &[Run(ALNUM, 12, 80)],
        ["key: |napi_¦4uBMLfiajtxGR|", r#"curl -H "X-Key: |npg_¦d8TuJ340UJqKC|""#],
        ["napi_xxxxxxxxxxxx", "values begin with npg_ and then letters"],
    ),
    token(
        "databricks-token",
        &["dapi"],
        &[Run(HEX, 32, 32)],
        [
            "key: |dapi¦383d9a2b2d431a0db4513629c1e950c6|",
            r#"curl -H "X-Key: |dapi¦7f583b2466d0aa0a44787cc48e530444|""#,
        ],
        ["dapi00000000000000000000000000000000", "values begin with dapi and then letters"],
    ),
    token(
        "databricks-token",
        &["dapi"],
        &[Run(HEX, 32, 32), Lit("-"), Run(DIGIT, 1, 2)],
        [
            "key: |dapi¦5026cf9025cff09a6a98a9480373549a-4|",
            r#"curl -H "X-Key: |dapi¦253474770e7958a791462e72551a532b-14|""#,
        ],
        ["dapi00000000000000000000000000000000-0", "values begin with dapi and then letters"],
    ),
    token(
        "databricks-secret",
        &["dose"],
        &[Run(HEX, 32, 32)],
        [
            "key: |dose¦e9999d0cb0d011e6bc6089e1fd1c962d|",
            r#"curl -H "X-Key: |dose¦eba8afb38a39cf5dd4493b6d1984012c|""#,
        ],
        ["dose00000000000000000000000000000000", "values begin with dose and then letters"],
    ),
    token(
        "doppler-token",
        &["dp.pt.", "dp.st.", "dp.sa.", "dp.ct.", "dp.scim.", "dp.audit."],
        &[Run(DOTTED, 40, 64)],
        [
            "key: |dp.pt.¦VaKsAuxZLbyOYoLCj6qsps1BrxIqzzElMG5XRzTO5j|",
            r#"curl -H "X-Key: |dp.audit.¦mRXpZLNUuFqbPYIID1eIFMPCMRGYGdl2XPw9gshM|""#,
        ],
        [
            "dp.pt.xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with dp.audit. and then letters",
        ],
    ),
    token(
        "vault-token",
        &["hvs.", "hvb.", "hvr."],
        &[Run(URL64, 24, 300)],
        [
            "key: |hvs.¦Yow1Ao4VlhLtngkl98pm7bqMRo|",
            r#"curl -H "X-Key: |hvr.¦4J769GrRrCICGx8X9w3DtlyMG|""#,
        ],
        ["hvs.xxxxxxxxxxxxxxxxxxxxxxxx", "values begin with hvr. and then letters"],
    ),
    after(
        "vault-token",
        &[" s.", "=s.", "\"s.", "'s.", "ns."],
        &[Run(ALNUM, 24, 24)],
        [" s.¦|wiPE56yfc980sZmrPTMGlc0U|", r#""ns.¦|eN8jQM7TBCZUmM7LZ4nIIAGo|""#],
        [" s.xxxxxxxxxxxxxxxxxxxxxxxx", "values begin with ns. and then letters"],
    ),
    owned(
        "vault-token",
        &["vault"],
        &[Lit("s."), Run(ALNUM, 24, 24)],
        [
            "VAULT_TOKEN=|s.rVCYmHEJ7gXB6UQQwu6ydUQZ|",
            r#""vault_token": "|s.WxJBbcq2IdWRXZwofqCWV2nD|""#,
        ],
        ["VAULT_TOKEN=${VAULT_KEY}", "const vaultKey = read_vault_key(config);"],
    ),
    token(
        "tailscale-key",
        &["tskey-", "tskey-auth-", "tskey-api-", "tskey-client-"],
        &[Run(URL64, 24, 80)],
        [
            "key: |tskey-¦E3dnk1AKGEAK0Zg6ylA7qA98|",
            r#"curl -H "X-Key: |tskey-client-¦8wYGD5W9meI6yn1bdpOMNNmm3a|""#,
        ],
        ["tskey-xxxxxxxxxxxxxxxxxxxxxxxx", "values begin with tskey-client- and then letters"],
    ),
    token(
        "defined-networking-key",
        &["dnkey-"],
        &[Run(LOOSE, 26, 26), Lit("-"), Run(LOOSE, 52, 52)],
        [
            "key: |dnkey-¦lh8p9X11tIb17cID6Cv37DunN9-KHRF0OX8CIkEndMyGdnl27YWlEjHJugVRsKmAGtcmbAh68K8UQTS|",
            r#"curl -H "X-Key: |dnkey-¦zXZLqLKm1tMSkbHEBhohbkGCRF-Tz9U7HTwB4mZaljzY3TvyhHDxb3Dtqo9WnHlSqRKBWzX6t0e9iPj|""#,
        ],
        [
            "dnkey-xxxxxxxxxxxxxxxxxxxxxxxxxx-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with dnkey- and then letters",
        ],
    ),
    token(
        "clickhouse-key",
        &["4b1d"],
        &[Run(ALNUM, 38, 38)],
        [
            "key: |4b1d¦82OBPyC6b79SbCyy8F5PvFHHqePmpya22Usj6c|",
            r#"curl -H "X-Key: |4b1d¦DEWnMXYF7bLaP94RfY8ZJIG8C8d0Rie3uxOdu2|""#,
        ],
        ["4b1dxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "values begin with 4b1d and then letters"],
    ),
    token(
        "confluent-secret",
        &["cflt"],
        &[Run(BASE64, 60, 60)],
        [
            "key: |cflt¦1cAY7Ave1V0Wxk7SrFwQgR74VvvSa4qgTrFZdpl4LF7tWXA9QUt63XflywWO|",
            r#"curl -H "X-Key: |cflt¦1xExC1brbYFXgy4mCA4bFDQ4BLfAUbaCorjWbZj8os6gTaZZonJ8B18q9umn|""#,
        ],
        [
            "cfltxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with cflt and then letters",
        ],
    ),
    token(
        "mongodb-key",
        &["mdb_sa_sk_"],
        &[Run(URL64, 36, 64)],
        [
            "key: |mdb_sa_sk_¦dyrKCI9XMhk0PSc28XD7oGoFbPAEiY9QvmR2zx|",
            r#"curl -H "X-Key: |mdb_sa_sk_¦uboLPp2lkEMdkQXkGvt9D3NyTXEHoxiiwFiS|""#,
        ],
        [
            "mdb_sa_sk_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with mdb_sa_sk_ and then letters",
        ],
    ),
    token(
        "aiven-token",
        &["aivenv1"],
        &[Run(BASE64, 40, 400)],
        [
            "key: |aivenv1¦k4HcNrCmTcZrFpXG0IfGIkpobxEd21Gx17RcVMBCBR0|",
            r#"curl -H "X-Key: |aivenv1¦ao7p4RESzxZZYvUzfsJIbhdgMUwDwtDciui8kp6jR|""#,
        ],
        [
            "aivenv1xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with aivenv1 and then letters",
        ],
    ),
    token(
        "age-key",
        &["AGE-SECRET-KEY-1"],
        &[Run(UPPER, 58, 58)],
        [
            "key: |AGE-SECRET-KEY-1¦TOFKA0F8817TKZIO6MF92BXDPVSOGYJ97ABGJL3PLC2M6VNRCOO70P063R|",
            r#"curl -H "X-Key: |AGE-SECRET-KEY-1¦F7WHTT84RF11KLIJ4BYIOAT4WNQT5LJX7UEAW7S5V8ZFKC2SS43KVPS6HY|""#,
        ],
        [
            "AGE-SECRET-KEY-1xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with AGE-SECRET-KEY-1 and then letters",
        ],
    ),
    token(
        "onepassword-token",
        &["ops_eyJ"],
        &[Run(BASE64, 100, 2000)],
        [
            "key: |ops_eyJ¦dhf9ZFRVCKnRiBnlmU0ykOG7ZidoYnZ1SUkOILzf3AmD0K7p2YhT6aDWjdEsoMDif4JeMdCDkknfZ5oKfkMnSe6yz0CCiS4PEqKiaXx|",
            r#"curl -H "X-Key: |ops_eyJ¦6TbbpBUSfpeK5wR9Sxw3BA2ktpfCEMFmSqWGAEfTotRWoZTGxiIcIS9I48Z3LHtSl8kBpAzrg5VI9Ubuw8T50jOHwpeO8U3Tq8wg|""#,
        ],
        [
            "ops_eyJxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with ops_eyJ and then letters",
        ],
    ),
    token(
        "onepassword-key",
        &["A3-"],
        &[
            Run(UPPER, 6, 6),
            Lit("-"),
            Run(UPPER, 11, 11),
            Lit("-"),
            Run(UPPER, 5, 5),
            Lit("-"),
            Run(UPPER, 5, 5),
            Lit("-"),
            Run(UPPER, 5, 5),
        ],
        [
            "key: |A3-¦FNSYOP-N6Z95BW0GTL-84MW4-TKCL5-ANHAF|",
            r#"curl -H "X-Key: |A3-¦W2V2MQ-DCJ66X2DWZT-7MX7A-3CU7A-EIPQ6|""#,
        ],
        ["A3-xxxxxx-xxxxxxxxxxx-xxxxx-xxxxx-xxxxx", "values begin with A3- and then letters"],
    ),
    token(
        "onepassword-key",
        &["A3-"],
        &[
            Run(UPPER, 6, 6),
            Lit("-"),
            Run(UPPER, 6, 6),
            Lit("-"),
            Run(UPPER, 5, 5),
            Lit("-"),
            Run(UPPER, 5, 5),
            Lit("-"),
            Run(UPPER, 5, 5),
            Lit("-"),
            Run(UPPER, 5, 5),
        ],
        [
            "key: |A3-¦M2KP25-KUDO1I-JSE0U-JP170-DOQ4A-G2JPH|",
            r#"curl -H "X-Key: |A3-¦F3RFZP-ABN071-FNLPI-3A1CU-DEKEZ-MDJJ8|""#,
        ],
        ["A3-xxxxxx-xxxxxx-xxxxx-xxxxx-xxxxx-xxxxx", "values begin with A3- and then letters"],
    ),
    owned(
        "upstash-token",
        &["upstash"],
        &[Run(LOOSE, 40, 120)],
        [
            "UPSTASH_REDIS_TOKEN=|J1bahFG3gU81U1TslsqZovD7YFv2hHEEraVIn9tvX7w|",
            r#""upstash_redis_token": "|TO2Rbqoaep028PknWKgQAJOHnSVN9zYYPCKVM83Q|""#,
        ],
        ["UPSTASH_REDIS_TOKEN=${UPSTASH_KEY}", "const upstashKey = read_upstash_key(config);"],
    ),
    owned(
        "confluent-secret",
        &["confluent"],
        &[Run(BASE64, 64, 64)],
        [
            "CONFLUENT_SECRET=|jl52HL5somplNBHMEE4B1LOXJQlx0C9EYltDM4QRPgq1zkWfirJHRJ72xA7oe0pM|",
            r#""confluent_secret": "|DHcxt50BbYJQRKNq5EEcIhUeBpXQSG1AqnMyluML0r0lFUOzYViP3wofzdYKkjCK|""#,
        ],
        ["CONFLUENT_SECRET=${CONFLUENT_KEY}", "const confluentKey = read_confluent_key(config);"],
    ),
    owned(
        "bitwarden-secret",
        &["bitwarden", "bw_client", "bws_"],
        &[Run(ALNUM, 30, 30)],
        [
            "BITWARDEN_CLIENT_SECRET=|2tP8NYLG9ioMSSKFgqi9DQyQX5c2Ef|",
            r#""bitwarden_client_secret": "|esPyP0Ezihijmx4PDvXLAS38AwujkI|""#,
        ],
        [
            "BITWARDEN_CLIENT_SECRET=${BITWARDEN_KEY}",
            "const bitwardenKey = read_bitwarden_key(config);",
        ],
    ),
    owned(
        "bitwarden-token",
        &["bws_access", "bitwarden"],
        &[Run(DOTTED, 60, 120)],
        [
            "BWS_ACCESS_ACCESS_TOKEN=|ukMiIos7nYMVmUrATtQYI4pc2zmHcxZZBrOjEH0dxfXDasFQVjrXyCDZFxl7|",
            r#""bws_access_access_token": "|hPDY4Afg9hceO6gb8FOigJHVuA2AUGf96rhzVO9IbMpI882Izr0UjSrkhLX8|""#,
        ],
        [
            "BWS_ACCESS_ACCESS_TOKEN=${BWS_ACCESS_KEY}",
            "const bws_accessKey = read_bws_access_key(config);",
        ],
    ),
    owned(
        "bitwarden-session",
        &["bw_session"],
        &[Run(BASE64, 88, 88)],
        [
            "BW_SESSION_=|Hs5Jc9zoJcmDVSa56lqzCEw0eE0THF7mQhIGhCB8Gt9wgBXEFOLS36EMVrB1zMID2o74yCdaF50neq9rhbRWD5fV|",
            r#""bw_session_": "|XZUHLOave7Jvme1fMoAD1Ddse5C1rqBiwmSYdE4iHU1DkxnaLcYtfZNH7hWUhJ3drs0rn9v2fiC3Ky6YmGdcV958|""#,
        ],
        ["BW_SESSION_=${BW_SESSION_KEY}", "const bw_sessionKey = read_bw_session_key(config);"],
    ),
    owned(
        "meraki-key",
        &["meraki"],
        &[Run(HEX, 40, 40)],
        [
            "MERAKI_API_KEY=|c002aaec852f48b61936a9e41704a83642ab5213|",
            r#""meraki_api_key": "|83a1cf85eeeea5c172779720cd604a8e10e1d53e|""#,
        ],
        ["MERAKI_API_KEY=${MERAKI_KEY}", "const merakiKey = read_meraki_key(config);"],
    ),
];
