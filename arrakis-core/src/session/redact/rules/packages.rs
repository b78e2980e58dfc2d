//! Packages, builds and deployment.

use super::{Rule, after, owned, token};
use crate::session::redact::shape::{
    A_UUID, ALNUM, ANYHEX, DOTTED, HEX, LOOSE, LOWER, Lit, Run, UPPER, URL64,
};

pub(super) const RULES: &[Rule] = &[
    token(
        "npm-token",
        &["npm_"],
        &[Run(ALNUM, 36, 36)],
        [
            "key: |npm_¦SS1q4E9ZdtAHYW5gMoZwMp6oWag45qoy9rUU|",
            r#"curl -H "X-Key: |npm_¦d9hoLYcYn8KgESKTBN0IQIRCuUVS0hLsSAqZ|""#,
        ],
        ["npm_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "values begin with npm_ and then letters"],
    ),
    after(
        "npm-auth",
        &["_authToken=", "_auth=", "_password="],
        &[Run(DOTTED, 16, 255)],
        ["_authT¦oken=|zMvttdHz9GTDjVRg|", r#""_passw¦ord=|I9OKtjmPGEh1XW11|""#],
        ["_authToken=xxxxxxxxxxxxxxxx", "values begin with _password= and then letters"],
    ),
    token(
        "pypi-token",
        &["pypi-AgEIcHlwaS5vcmc", "pypi-AgENdGVzdC5weXBpLm9yZw", "pypi-"],
        &[Run(URL64, 50, 1000)],
        [
            "key: |pypi-AgEIcHlwaS5vcmc¦5arl2Oo6ql6aYUrSAsfXeSH2PKzLk5xqIA2AJD0JSluRGhnmCxLD|",
            r#"curl -H "X-Key: |pypi-¦t6UZ4WjtkBnuM6mgDxNfPu5Kj2Ou23Mnc3Ir7dNX8se8BmxIspb|""#,
        ],
        [
            "pypi-AgEIcHlwaS5vcmcxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with pypi- and then letters",
        ],
    ),
    token(
        "rubygems-key",
        &["rubygems_"],
        &[Run(HEX, 48, 48)],
        [
            "key: |rubygems_¦5334a1e1c403b326069cac32f5a5703a73ca66211c65827a|",
            r#"curl -H "X-Key: |rubygems_¦6ff4a74f086f30baacf4364a53c84ae54f814b10f106e6e0|""#,
        ],
        [
            "rubygems_000000000000000000000000000000000000000000000000",
            "values begin with rubygems_ and then letters",
        ],
    ),
    token(
        "crates-token",
        &["cio"],
        &[Run(ALNUM, 32, 32)],
        [
            "key: |cio¦ifvimRmlVzkAvpC4uuC80u2l7x1KCYG5|",
            r#"curl -H "X-Key: |cio¦llXHreBWMXZeFLtD486riP2u4yMn3Jlg|""#,
        ],
        ["cioxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "values begin with cio and then letters"],
    ),
    token(
        "nuget-key",
        &["oy2"],
        &[Run(LOWER, 43, 43)],
        [
            "key: |oy2¦v93fjhhah545x7o8q0fernnp9rwwchuvdh0xbtz26iq|",
            r#"curl -H "X-Key: |oy2¦42gyvo3l6n3ff93yf90rmo1jrwjnrt6ffaw6r3odwym|""#,
        ],
        [
            "oy2xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with oy2 and then letters",
        ],
    ),
    token(
        "clojars-token",
        &["CLOJARS_", "clojars_"],
        &[Run(LOWER, 60, 60)],
        [
            "key: |CLOJARS_¦yzfgvlt3mwqiw07nr6vcxqeai169f99rgd8o9z8i1c06i0n6ggcsybfk9v8z|",
            r#"curl -H "X-Key: |clojars_¦52d2wxwcnh2c6vw7eyrcnhv1o65r5qzs9urovls0evhctbh2yt8vfs0p5hon|""#,
        ],
        [
            "CLOJARS_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with clojars_ and then letters",
        ],
    ),
    token(
        "jfrog-key",
        &["AKCp"],
        &[Run(ALNUM, 69, 73)],
        [
            "key: |AKCp¦x9ScT3qZgnS5SrbuInSx939Z9x45RRgN5eFcYfqE2XUnj1oxLfapyifP3c8W317yhkK0eFd|",
            r#"curl -H "X-Key: |AKCp¦rZudBkFrNsnUWUj2fAOOqdEwAqccC2tZilsBKZJBQpNKBNKgG1kUafoOrd9j1G11arvaO|""#,
        ],
        [
            "AKCpxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with AKCp and then letters",
        ],
    ),
    token(
        "jfrog-token",
        &["cmVmd"],
        &[Run(ALNUM, 59, 59)],
        [
            "key: |cmVmd¦Br7qkDlHUlVCzTtirmmqAxNOdLwm1rbzlk37hq48CS2wnNHD3LiXpZeFYMT|",
            r#"curl -H "X-Key: |cmVmd¦ID868lPAWjzCL7HWSKYcHTSS9wIhdoSf9xlnss2NTZKTkfpNTAFx5WlhjiR|""#,
        ],
        [
            "cmVmdxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with cmVmd and then letters",
        ],
    ),
    token(
        "docker-token",
        &["dckr_pat_", "dckr_oat_"],
        &[Run(URL64, 27, 60)],
        [
            "key: |dckr_pat_¦1yP0FjaIVpgqYxEHR8WBbl40Z7ED|",
            r#"curl -H "X-Key: |dckr_oat_¦MLKjkhS00M30mSRjQi1PXuOKRJrVKl|""#,
        ],
        ["dckr_pat_xxxxxxxxxxxxxxxxxxxxxxxxxxx", "values begin with dckr_oat_ and then letters"],
    ),
    token(
        "docker-hub-token",
        &["dhp_"],
        &[Run(URL64, 27, 60)],
        [
            "key: |dhp_¦mPYVYl49YqHNMoQm1j8kNw6CqcHB|",
            r#"curl -H "X-Key: |dhp_¦wsMXQsRkQVkoq8HSNfkVJDNt9Ssy|""#,
        ],
        ["dhp_xxxxxxxxxxxxxxxxxxxxxxxxxxx", "values begin with dhp_ and then letters"],
    ),
    token(
        "circleci-token",
        &["CCIPAT_", "CCIPRJ_"],
        &[Run(ALNUM, 22, 24), Lit("_"), Run(HEX, 40, 40)],
        [
            "key: |CCIPAT_¦ZcmFOmMYUeo8c04PDUXvmm_1ca91329afa7778f48f8787926c99c934597c6e2|",
            r#"curl -H "X-Key: |CCIPRJ_¦riu5v3g2bF2r6kmqkkyFF90Q_68bba1f08dfc3ad2f5eef01313ffa5844a7a9a7b|""#,
        ],
        [
            "CCIPAT_xxxxxxxxxxxxxxxxxxxxxx_0000000000000000000000000000000000000000",
            "values begin with CCIPRJ_ and then letters",
        ],
    ),
    token(
        "buildkite-token",
        &["bkua_", "bkct_", "bkaj_"],
        &[Run(ALNUM, 40, 64)],
        [
            "key: |bkua_¦tVi2J1zScwOWJa7NOKfk1ecA6TdaZyQQFk5TnVaVM2t|",
            r#"curl -H "X-Key: |bkaj_¦qf4kI03fp8GY3MQW2rVk0YStegUSx8N2869ZQWe8H|""#,
        ],
        [
            "bkua_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with bkaj_ and then letters",
        ],
    ),
    token(
        "buildkite-token",
        &["bkt_"],
        &[Run(ALNUM, 40, 64)],
        [
            "key: |bkt_¦u3I97cpw5Z7nINSmXKI3Ro5Wy9KdcJNzXdEznoDYzxi|",
            r#"curl -H "X-Key: |bkt_¦GBezrZPNlrscQHSbtkxzF0eUTqVAQmzh12evaJAWC|""#,
        ],
        ["bkt_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "values begin with bkt_ and then letters"],
    ),
    token(
        "codecov-token",
        &["codecov_"],
        &[Run(LOWER, 36, 40)],
        [
            "key: |codecov_¦wax3w7r5t2livaekra5aq1vfdkqszxvjdgs4rv1|",
            r#"curl -H "X-Key: |codecov_¦z8sohub0it2q9bsbvobksopffqrevod65lfdjrt|""#,
        ],
        [
            "codecov_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with codecov_ and then letters",
        ],
    ),
    token(
        "sonar-token",
        &["squ_", "sqp_", "sqa_"],
        &[Run(HEX, 40, 40)],
        [
            "key: |squ_¦33e763616ba20d367ed28f7741b9957d5e908edc|",
            r#"curl -H "X-Key: |sqa_¦91aadb95bf99d4756d14e899a5868fea7f5522a7|""#,
        ],
        ["squ_0000000000000000000000000000000000000000", "values begin with sqa_ and then letters"],
    ),
    token(
        "sourcegraph-token",
        &["sgp_"],
        &[Run(ANYHEX, 16, 16), Lit("_"), Run(ANYHEX, 40, 40)],
        [
            "key: |sgp_¦E1969EbEd2965561_B87F85Ce31870EecbB3F8D4c3c6c7ffFbcfAEcbf|",
            r#"curl -H "X-Key: |sgp_¦DdAB9E5D9Da97FCb_f95aFa7d566Ee1Db2FfcbA54Fb48bc14a5b1FfEd|""#,
        ],
        [
            "sgp_0000000000000000_0000000000000000000000000000000000000000",
            "values begin with sgp_ and then letters",
        ],
    ),
    token(
        "sourcegraph-token",
        &["sgp_local_", "sgp_"],
        &[Run(ANYHEX, 40, 40)],
        [
            "key: |sgp_local_¦4FFEdbaACA8bE3CfE513C8b8CdDe681440413a2e|",
            r#"curl -H "X-Key: |sgp_¦d1F0bE253434Eb7f6c8CbfdcCFD8daaFFa0f8afF|""#,
        ],
        [
            "sgp_local_0000000000000000000000000000000000000000",
            "values begin with sgp_ and then letters",
        ],
    ),
    token(
        "snyk-token",
        &["snyk_uat.", "snyk_sat."],
        &[Run(DOTTED, 30, 200)],
        [
            "key: |snyk_uat.¦ITTfP4v1a0RJk4XcBbX9ND4FzjExaRq24|",
            r#"curl -H "X-Key: |snyk_sat.¦gSeSdryXv9ZxhjxmTg6JoYMzkrBYoLZLE|""#,
        ],
        ["snyk_uat.xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "values begin with snyk_sat. and then letters"],
    ),
    token(
        "semgrep-token",
        &["sgp_web_"],
        &[Run(HEX, 40, 64)],
        [
            "key: |sgp_web_¦7e35ccdaae9ee3b5bbad1044f99b678a2253932598|",
            r#"curl -H "X-Key: |sgp_web_¦7e3b13f3fd7e5c39cd1d6dfdabb6a38816530a96441|""#,
        ],
        [
            "sgp_web_0000000000000000000000000000000000000000",
            "values begin with sgp_web_ and then letters",
        ],
    ),
    token(
        "deno-token",
        &["ddp_", "ddo_", "ddw_"],
        &[Run(ALNUM, 36, 40)],
        [
            "key: |ddp_¦xxNCkXdztBJrCZWXqSCPEVIAKNTBFFe1jpHzk|",
            r#"curl -H "X-Key: |ddw_¦U4I69Iq985kqQC5SSHUiXjZ2g3CL3YGSIIHQrdK|""#,
        ],
        ["ddp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "values begin with ddw_ and then letters"],
    ),
    token(
        "expo-token",
        &["expo_"],
        &[Run(URL64, 40, 64)],
        [
            "key: |expo_¦OsixAm7xfutxjoqHjEmplGN8PmLrjSSpKEMjCTfNO|",
            r#"curl -H "X-Key: |expo_¦EQpMR2l0ahIASS3ZRGa2RtaezO5WGzA33AVUvq6PjEt|""#,
        ],
        [
            "expo_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with expo_ and then letters",
        ],
    ),
    token(
        "infracost-key",
        &["ico-"],
        &[Run(ALNUM, 32, 32)],
        [
            "key: |ico-¦AJ84WaZi3vPmhNAWMMydB2rRVgnkby48|",
            r#"curl -H "X-Key: |ico-¦B7JXJOGhzG6RUhlIQ1pFtXghwFu6MpHw|""#,
        ],
        ["ico-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "values begin with ico- and then letters"],
    ),
    token(
        "octopus-key",
        &["API-"],
        &[Run(UPPER, 26, 26)],
        [
            "key: |API-¦110GEGMOAZCILHLL3EENK77T8T|",
            r#"curl -H "X-Key: |API-¦WJSYDUGQQLU7WN2BHVCSEAOYW9|""#,
        ],
        ["API-xxxxxxxxxxxxxxxxxxxxxxxxxx", "values begin with API- and then letters"],
    ),
    token(
        "prefect-key",
        &["pnu_", "pnb_"],
        &[Run(ALNUM, 36, 36)],
        [
            "key: |pnu_¦6rjtkvjpuiPH389Ugg0h9HQpcmME9ImXHftk|",
            r#"curl -H "X-Key: |pnb_¦ke6qPN8WHpQY562318vboAYJcN55Sll9oYZv|""#,
        ],
        ["pnu_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "values begin with pnb_ and then letters"],
    ),
    token(
        "pulumi-token",
        &["pul-"],
        &[Run(HEX, 40, 40)],
        [
            "key: |pul-¦96973dcc00db1d8d370b275cd3a9a1c1afed8f58|",
            r#"curl -H "X-Key: |pul-¦38bc30acb18145015630fd32d5910cce18c1a3e1|""#,
        ],
        ["pul-0000000000000000000000000000000000000000", "values begin with pul- and then letters"],
    ),
    token(
        "terraform-token",
        &[".atlasv1."],
        &[Run(LOOSE, 60, 70)],
        [
            "key: |.atlasv1.¦MOwplhEuyBFtKWgrSuBgIh5LJJZjRmOkGdZBzafrOW01q4bHZ8bocAw0ugoe4DP|",
            r#"curl -H "X-Key: |.atlasv1.¦aW247YsfoxCrs73xnxVL8yDcCx6YDypaVTqNNwRocI7S5EVh4rTXX9e1iPFTkwh|""#,
        ],
        [
            ".atlasv1.xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with .atlasv1. and then letters",
        ],
    ),
    token(
        "harness-key",
        &["pat.", "sat."],
        &[Run(URL64, 22, 22), Lit("."), Run(ALNUM, 24, 24), Lit("."), Run(ALNUM, 20, 20)],
        [
            "key: |pat.¦yGwKKWOMNdxnt83uww7cyu.cCHrmGrxylzJj10K0jXMw4m9.JtD9TrWeRKct5gkh8U6p|",
            r#"curl -H "X-Key: |sat.¦S85CDVXkOUmnVBPs7YqjXw.yph61mfTpEOQTr9fQlZKI9hH.raPNUj3L8O2He1dys1zK|""#,
        ],
        [
            "pat.xxxxxxxxxxxxxxxxxxxxxx.xxxxxxxxxxxxxxxxxxxxxxxx.xxxxxxxxxxxxxxxxxxxx",
            "values begin with sat. and then letters",
        ],
    ),
    token(
        "openshift-token",
        &["sha256~"],
        &[Run(URL64, 43, 43)],
        [
            "key: |sha256~¦r87MO5LEsQfkVfYQScTQCeFIhQshqqiyrTwrDgCKHm5|",
            r#"curl -H "X-Key: |sha256~¦eap26xgSqVOIoTY7AslpDluH5c8RczbCsd43yit0qid|""#,
        ],
        [
            "sha256~xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with sha256~ and then letters",
        ],
    ),
    token(
        "scalingo-token",
        &["tk-us-"],
        &[Run(URL64, 48, 48)],
        [
            "key: |tk-us-¦8rMPUYP4jRGtos11XPSErb1kGy7BgihCzXPjELk6abgKJp3I|",
            r#"curl -H "X-Key: |tk-us-¦dXnXlpTwL6p4yzpRTrPD4370hCFmAFwBkjLPML1Z9LLJiqtF|""#,
        ],
        [
            "tk-us-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with tk-us- and then letters",
        ],
    ),
    token(
        "rancher-token",
        &["token-"],
        &[Run(LOWER, 5, 5), Lit(":"), Run(LOWER, 50, 60)],
        [
            "key: |token-¦qeoad:yjxiaaif55yvcqb73hbwk1blaidwzub87wzcpecnv26bm7yt7h5m|",
            r#"curl -H "X-Key: |token-¦3gm7d:j4oko799g7mpel9kgj2stcjyletia0qk8nb79h92thpnks7d5d|""#,
        ],
        [
            "token-xxxxx:xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with token- and then letters",
        ],
    ),
    owned(
        "circleci-token",
        &["circleci", "circle_token"],
        &[Run(HEX, 40, 40)],
        [
            "CIRCLECI_TOKEN=|c25bfcf5fb2b2ceda9bdc6a39b623f372d8b8203|",
            r#""circleci_token": "|73d027d8be36c4c4a88195621646a5e9e5a585a8|""#,
        ],
        ["CIRCLECI_TOKEN=${CIRCLECI_KEY}", "const circleciKey = read_circleci_key(config);"],
    ),
    owned(
        "travis-token",
        &["travis"],
        &[Run(URL64, 22, 22)],
        ["TRAVIS_TOKEN=|TJ10KtMKqXsXjKZgJG1OVc|", r#""travis_token": "|YgwMuGTRkSCQd5v25d6k6f|""#],
        ["TRAVIS_TOKEN=${TRAVIS_KEY}", "const travisKey = read_travis_key(config);"],
    ),
    owned(
        "drone-token",
        &["drone_", "droneci"],
        &[Run(ALNUM, 32, 32)],
        [
            "DRONE_TOKEN=|s2ldlbGjJKpwYFS4NxtfWew7G4NsIlp0|",
            r#""drone_token": "|JdpU7Jd3tmDXkeHsTrvF5dP3GButqKFs|""#,
        ],
        ["DRONE_TOKEN=${DRONE_KEY}", "const droneKey = read_drone_key(config);"],
    ),
    owned(
        "codecov-token",
        &["codecov"],
        &[Run(HEX, 32, 32)],
        [
            "CODECOV_TOKEN=|10c9a7d9c903bb00642f931dbb0c8cf9|",
            r#""codecov_token": "|e119f2d62ffa57a9e529f4cc29cf466e|""#,
        ],
        ["CODECOV_TOKEN=${CODECOV_KEY}", "const codecovKey = read_codecov_key(config);"],
    ),
    owned(
        "codecov-token",
        &["codecov"],
        &[A_UUID],
        [
            "CODECOV_TOKEN=|f74d97db-774e-04db-4f3f-c43b79571cbf|",
            r#""codecov_token": "|6c797f10-42e5-8ee8-8a06-dab9b61408b9|""#,
        ],
        ["CODECOV_TOKEN=${CODECOV_KEY}", "const codecovKey = read_codecov_key(config);"],
    ),
    owned(
        "sonar-token",
        &["sonar"],
        &[Run(HEX, 40, 40)],
        [
            "SONAR_TOKEN=|3339771ab2b91ef6164a416b1565d5b318d06d7b|",
            r#""sonar_token": "|c732c6529d3f9bc5e5a3aa1eb5f829695ec22b5f|""#,
        ],
        ["SONAR_TOKEN=${SONAR_KEY}", "const sonarKey = read_sonar_key(config);"],
    ),
    owned(
        "snyk-token",
        &["snyk"],
        &[A_UUID],
        [
            "SNYK_TOKEN=|f598fcc5-4461-af5d-2c5d-01bc769e25f2|",
            r#""snyk_token": "|250bb048-5481-9473-7adb-a5cbed311022|""#,
        ],
        ["SNYK_TOKEN=${SNYK_KEY}", "const snykKey = read_snyk_key(config);"],
    ),
    owned(
        "jfrog-key",
        &["jfrog", "artifactory", "bintray", "xray"],
        &[Run(ALNUM, 64, 73)],
        [
            "JFROG_API_KEY=|5UXHnJjiBtVzMsA2eAPdkltlsncOJ93QLyHQOhIGMsLOiDZWCbJNcKtOoYFvfLB1E|",
            r#""jfrog_api_key": "|IESoomnU8d6eaYEBMGHcvy9x085nC1GDwJe8OAcOdVXWBzqIesKHfYcakag9Khfbdo5|""#,
        ],
        ["JFROG_API_KEY=${JFROG_KEY}", "const jfrogKey = read_jfrog_key(config);"],
    ),
];
