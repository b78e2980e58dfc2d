//! Monitoring, search, maps, feature flags and the rest.

use super::{Rule, owned, token};
use crate::session::redact::shape::{
    A_UUID, ALNUM, ANYHEX, BASE64, DOTTED, HEX, LOOSE, LOWER, Lit, Run, UPPER, URL64, WORD,
};

pub(super) const RULES: &[Rule] = &[
    token(
        "grafana-key",
        &["eyJrIjoi"],
        &[Run(BASE64, 60, 400)],
        [
            "key: |eyJrIjoi¦DBpmX0UbdG21CoAWf4pC0wSwtapBs2t1J9sTmqawjDJ6NVx8YDI6ZlbqDR3z|",
            r#"curl -H "X-Key: |eyJrIjoi¦0kl8zlwyTVnQE30NmZh9qjPyCHXrPNsUlcraB8MzCzRv8N3cDERvFbhxXkV49NY|""#,
        ],
        [
            "eyJrIjoixxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with eyJrIjoi and then letters",
        ],
    ),
    token(
        "grafana-token",
        &["glc_"],
        &[Run(BASE64, 32, 400)],
        [
            "key: |glc_¦Q1ZyllRCM7CuRMpzuCtV2hYf489BcDG0S5D|",
            r#"curl -H "X-Key: |glc_¦78xNexKHJmwDKF3X2CdCgfaQTEQRYQWr|""#,
        ],
        ["glc_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "values begin with glc_ and then letters"],
    ),
    token(
        "grafana-token",
        &["glsa_"],
        &[Run(ALNUM, 32, 32), Lit("_"), Run(ANYHEX, 8, 8)],
        [
            "key: |glsa_¦6eF1ai3h5yMvSKzg7M6zi4r4ga3SJLhf_7Db99bBD|",
            r#"curl -H "X-Key: |glsa_¦nTGiijTv00HbxZHyWpxJAI1I7wEmRPmN_fb7E05Ec|""#,
        ],
        [
            "glsa_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx_00000000",
            "values begin with glsa_ and then letters",
        ],
    ),
    token(
        "sentry-token",
        &["sntryu_"],
        &[Run(HEX, 64, 64)],
        [
            "key: |sntryu_¦e362456f6b002ed52b81fc7a41575fa76c9c9bcf32ec575db1939fb08d417971|",
            r#"curl -H "X-Key: |sntryu_¦f94f6d5787d442629a36e103601739a3f329cdceb2411e5570b058dc4bb6c888|""#,
        ],
        [
            "sntryu_0000000000000000000000000000000000000000000000000000000000000000",
            "values begin with sntryu_ and then letters",
        ],
    ),
    token(
        "sentry-token",
        &["sntrys_"],
        &[Run(DOTTED, 60, 500)],
        [
            "key: |sntrys_¦cVxGUSuIoZvaCW9dFh641Fq32hJ9FHfZM0VbY0HOJb8yo21FNBNbgjiNttI5|",
            r#"curl -H "X-Key: |sntrys_¦sxj5upM2ibhDg13FIo0KsCvhj8nudJV8t1OPg3xeT2F8iVoywFha73RLchrly|""#,
        ],
        [
            "sntrys_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with sntrys_ and then letters",
        ],
    ),
    token(
        "newrelic-key",
        &["NRAK-"],
        &[Run(UPPER, 27, 27)],
        [
            "key: |NRAK-¦UUHSA5CH6QUGWQCZ30GYXQX0ZHN|",
            r#"curl -H "X-Key: |NRAK-¦KTA5HGO5RDSJY8XMP8IO5KZA7NG|""#,
        ],
        ["NRAK-xxxxxxxxxxxxxxxxxxxxxxxxxxx", "values begin with NRAK- and then letters"],
    ),
    token(
        "newrelic-key",
        &["NRII-"],
        &[Run(URL64, 32, 32)],
        [
            "key: |NRII-¦546kmipprnfGuD5HeasFxNiJQTvEfLB5|",
            r#"curl -H "X-Key: |NRII-¦uxSJaBW6RoYMcSvqejxS2euWNkDyuGST|""#,
        ],
        ["NRII-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "values begin with NRII- and then letters"],
    ),
    token(
        "newrelic-key",
        &["NRJS-"],
        &[Run(HEX, 19, 19)],
        ["key: |NRJS-¦32125c7cf00bd857a2a|", r#"curl -H "X-Key: |NRJS-¦a70a9d53be330311a62|""#],
        ["NRJS-0000000000000000000", "values begin with NRJS- and then letters"],
    ),
    token(
        "newrelic-key",
        &["NRRA-", "NRSP-"],
        &[Run(HEX, 36, 42)],
        [
            "key: |NRRA-¦1ca9344b836ccc20e5007a824148cdff22d097a|",
            r#"curl -H "X-Key: |NRSP-¦4d82072d0928f2084ab7add5252e7c513b0587e|""#,
        ],
        ["NRRA-000000000000000000000000000000000000", "values begin with NRSP- and then letters"],
    ),
    token(
        "dynatrace-token",
        &["dt0c01.", "dt0s01.", "dt0s02."],
        &[Run(UPPER, 24, 24), Lit("."), Run(UPPER, 64, 64)],
        [
            "key: |dt0c01.¦67JQ5VB6BTJR5GG68F57D4Z6.2EGIQC2TUD6HR4TB38MZC1YRJVKH81HEQS59CD1NAPRDBE3QYW28434QNEO2RTFG|",
            r#"curl -H "X-Key: |dt0s02.¦KNUP1IA19TMMZ9SOO5RIPCP7.YE6F32P4Y4P1GXCS9U5EBTK7YPP5H82QLZL9K8RST0PIJZM9ZSXWNSCY24B11IQU|""#,
        ],
        [
            "dt0c01.xxxxxxxxxxxxxxxxxxxxxxxx.xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with dt0s02. and then letters",
        ],
    ),
    token(
        "datadog-token",
        &["ddapp_", "ddpat_", "ddsat_"],
        &[Run(URL64, 34, 64)],
        [
            "key: |ddapp_¦KEQjKunh2aGm5WRO8YN81Vs0lBPbL66OFWfv|",
            r#"curl -H "X-Key: |ddsat_¦rCB8r4cXEOaRAnY7KTik9FgV8hMEgNV4L8h|""#,
        ],
        ["ddapp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "values begin with ddsat_ and then letters"],
    ),
    token(
        "honeycomb-key",
        &["hcaik_", "hcalk_", "hcamk_", "hcbik_"],
        &[Run(LOWER, 40, 64)],
        [
            "key: |hcaik_¦pnvawqlgutatfyatifrvgvowxxfeivok39kkc961wi|",
            r#"curl -H "X-Key: |hcbik_¦qt5jhlkaays1tqkm9tldn3tgln5z007jwz3xkcwtr5|""#,
        ],
        [
            "hcaik_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with hcbik_ and then letters",
        ],
    ),
    token(
        "posthog-key",
        &["phx_", "phs_"],
        &[Run(ALNUM, 40, 64)],
        [
            "key: |phx_¦qqYhjPM8m3KrpQHltRxF5GI4YvyeeyOnYAbhMfGM|",
            r#"curl -H "X-Key: |phs_¦7sFQYXvgJ4M0FTrD9xOMX6IdvELOZMPSDpbmeeFv|""#,
        ],
        ["phx_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "values begin with phs_ and then letters"],
    ),
    token(
        "axiom-token",
        &["xaat-", "xapt-"],
        &[A_UUID],
        [
            "key: |xaat-¦4376d8e9-53cc-c893-8187-4478250b85b6|",
            r#"curl -H "X-Key: |xapt-¦1efd661a-1a55-3f85-13e1-aeb77b9fe6a0|""#,
        ],
        ["xaat-00000000-0000-0000-0000-000000000000", "values begin with xapt- and then letters"],
    ),
    token(
        "logfire-token",
        &["pylf_v1_"],
        &[Run(LOWER, 2, 2), Lit("_"), Run(ALNUM, 40, 64)],
        [
            "key: |pylf_v1_¦d5_OMM3v79hyIdySx2DWAydTh33O2Nhh4Ejw2V7Bko4hB|",
            r#"curl -H "X-Key: |pylf_v1_¦ci_vfpjzAoKYWBJdjwqBBGTGhx4ISjf6ouwfmn80UJu8OE|""#,
        ],
        [
            "pylf_v1_xx_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with pylf_v1_ and then letters",
        ],
    ),
    token(
        "mapbox-token",
        &["sk.eyJ"],
        &[Run(URL64, 40, 200), Lit("."), Run(URL64, 20, 24)],
        [
            "key: |sk.eyJ¦9AVtdD2iJt9Adq388yW16qHmjdrvnsOfGJbxQMKNsps.9ca1eSdcVYqCFX4ISNGq|",
            r#"curl -H "X-Key: |sk.eyJ¦6u3uuNeE9oDkXi4OzNirmLpACQOKr7wmcnbZIU3uDAp.er2SVlQGB6KMZzm4zoY0J69|""#,
        ],
        [
            "sk.eyJxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx.xxxxxxxxxxxxxxxxxxxx",
            "values begin with sk.eyJ and then letters",
        ],
    ),
    token(
        "launchdarkly-key",
        &["sdk-", "api-"],
        &[A_UUID],
        [
            "key: |sdk-¦2acd7dc4-293b-287d-91fe-6b196fcfb473|",
            r#"curl -H "X-Key: |api-¦b33fb53c-e8d4-e1eb-42e5-f39aaa01abd6|""#,
        ],
        ["sdk-00000000-0000-0000-0000-000000000000", "values begin with api- and then letters"],
    ),
    token(
        "statsig-key",
        &["secret-"],
        &[Run(ALNUM, 32, 48)],
        [
            "key: |secret-¦TtbYKWZH8ZwnDIPLp6ZxJK2flgWUaxdKlDV|",
            r#"curl -H "X-Key: |secret-¦nNdnPyHFCslG7vojTshBKQfwzRQxBuq2|""#,
        ],
        ["secret-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "values begin with secret- and then letters"],
    ),
    token(
        "contentful-token",
        &["CFPAT-"],
        &[Run(URL64, 43, 43)],
        [
            "key: |CFPAT-¦wVaFWMREt1iutMgJKCPIJ4V3zxdgTuHK5T24g8nykOn|",
            r#"curl -H "X-Key: |CFPAT-¦LVEUjaes2SDOol0RaehHBlXf3YPMKImc4cFmvZqXXmv|""#,
        ],
        [
            "CFPAT-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with CFPAT- and then letters",
        ],
    ),
    token(
        "apify-token",
        &["apify_api_"],
        &[Run(ALNUM, 30, 44)],
        [
            "key: |apify_api_¦IifdKNvP0R87iYSDG2YmvjdyJ4CWG9P2a|",
            r#"curl -H "X-Key: |apify_api_¦NKrx6bqHY8cVSy9gze3WPwjjBPn7BMO|""#,
        ],
        [
            "apify_api_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with apify_api_ and then letters",
        ],
    ),
    owned(
        "datadog-key",
        &["datadog", "dd_api", "dd_app", "dd_"],
        &[Run(HEX, 32, 40)],
        [
            "DATADOG_API_KEY=|4719956c083fd75024befae4495cd684cef|",
            r#""datadog_api_key": "|48511cf6644fcdd22b9980bb7fa321f9347|""#,
        ],
        ["DATADOG_API_KEY=${DATADOG_KEY}", "const datadogKey = read_datadog_key(config);"],
    ),
    owned(
        "pagerduty-key",
        &["pagerduty", "pd_api"],
        &[Run(DOTTED, 20, 32)],
        [
            "PAGERDUTY_API_KEY=|19D62GzJtzByjtMSvs0Gd|",
            r#""pagerduty_api_key": "|NhdFYFbcoi1QMbiuTrUoZp|""#,
        ],
        ["PAGERDUTY_API_KEY=${PAGERDUTY_KEY}", "const pagerdutyKey = read_pagerduty_key(config);"],
    ),
    owned(
        "newrelic-license-key",
        &["newrelic", "new_relic", "new-relic"],
        &[Run(ANYHEX, 36, 40)],
        [
            "NEWRELIC_LICENSE_KEY=|1B6fB4047284D4Bef29c2beFcc2Af3eEAc1d5|",
            r#""newrelic_license_key": "|0BDB032b85e79beFeD12Beabf435FFCdc0bF1|""#,
        ],
        ["NEWRELIC_LICENSE_KEY=${NEWRELIC_KEY}", "const newrelicKey = read_newrelic_key(config);"],
    ),
    owned(
        "newrelic-license-key",
        &["newrelic", "new_relic", "new-relic"],
        &[Run(ANYHEX, 32, 36), Lit("NRAL")],
        [
            "NEWRELIC_LICENSE_KEY=|dE29EaF33CdbDc86773909fdcF994a52NRAL|",
            r#""newrelic_license_key": "|2Ca4cd0aDa9BB6dDCDD91f71aDFccBdddfNRAL|""#,
        ],
        ["NEWRELIC_LICENSE_KEY=${NEWRELIC_KEY}", "const newrelicKey = read_newrelic_key(config);"],
    ),
    owned(
        "sentry-token",
        &["sentry"],
        &[Run(HEX, 64, 64)],
        [
            "SENTRY_AUTH_TOKEN=|5488c73e7c29e82e3d6497e56fcbe804718ecc08eea4043971521ce42142f6cc|",
            r#""sentry_auth_token": "|b0fb984e790a724fbefd547936e614e0bf09a45d1d865d08fd5211fe5a9dd996|""#,
        ],
        ["SENTRY_AUTH_TOKEN=${SENTRY_KEY}", "const sentryKey = read_sentry_key(config);"],
    ),
    owned(
        "splunk-token",
        &["splunk"],
        &[A_UUID],
        [
            "SPLUNK_HEC_TOKEN=|d3a2206a-70a1-6906-3dad-e67debd9e393|",
            r#""splunk_hec_token": "|cab6061e-4e96-a665-8859-eb8a33668871|""#,
        ],
        ["SPLUNK_HEC_TOKEN=${SPLUNK_KEY}", "const splunkKey = read_splunk_key(config);"],
    ),
    owned(
        "sumologic-key",
        &["sumo"],
        &[Run(ALNUM, 64, 64)],
        [
            "SUMO_ACCESS_KEY=|D2GCUyUCIUiSdnhXNmNrjxoFt4A1Mh5mSPUkFLzaRn5osP1pH9jDC3RCP62IhGuj|",
            r#""sumo_access_key": "|4aC5TATtdNh5PjqqSGD7CnHBtqYKyw2sCri4AnqB7sGUFJ1GQnSvinh0Gd3VhCXp|""#,
        ],
        ["SUMO_ACCESS_KEY=${SUMO_KEY}", "const sumoKey = read_sumo_key(config);"],
    ),
    owned(
        "rollbar-token",
        &["rollbar"],
        &[Run(HEX, 32, 32)],
        [
            "ROLLBAR_ACCESS_TOKEN=|0b21111452c7250d35eeb207b0b70ce3|",
            r#""rollbar_access_token": "|ab90181a2e50bbb5c0acfd223691e098|""#,
        ],
        ["ROLLBAR_ACCESS_TOKEN=${ROLLBAR_KEY}", "const rollbarKey = read_rollbar_key(config);"],
    ),
    owned(
        "bugsnag-key",
        &["bugsnag"],
        &[Run(HEX, 32, 32)],
        [
            "BUGSNAG_API_KEY=|fe68bd17db4ed04ce2f9db4f8a9453d1|",
            r#""bugsnag_api_key": "|f77c193f9a05943210b402ff403585d8|""#,
        ],
        ["BUGSNAG_API_KEY=${BUGSNAG_KEY}", "const bugsnagKey = read_bugsnag_key(config);"],
    ),
    owned(
        "honeycomb-key",
        &["honeycomb"],
        &[Run(ALNUM, 22, 32)],
        [
            "HONEYCOMB_API_KEY=|W4jCyCzSDFAbWRFXvVVESz2V|",
            r#""honeycomb_api_key": "|NVYSZwc65GdOtuU2KrqSIUneL|""#,
        ],
        ["HONEYCOMB_API_KEY=${HONEYCOMB_KEY}", "const honeycombKey = read_honeycomb_key(config);"],
    ),
    owned(
        "loggly-token",
        &["loggly"],
        &[A_UUID],
        [
            "LOGGLY_TOKEN=|44f27437-99bd-f9db-74d2-38049d1c9847|",
            r#""loggly_token": "|d158dd84-6f18-b7cd-6209-d3584b95dcfb|""#,
        ],
        ["LOGGLY_TOKEN=${LOGGLY_KEY}", "const logglyKey = read_loggly_key(config);"],
    ),
    owned(
        "logzio-token",
        &["logzio", "logz_io"],
        &[Run(ALNUM, 32, 32)],
        [
            "LOGZIO_TOKEN=|wxHyfxzjORsG98vobx0g5Idg8RX8aTDh|",
            r#""logzio_token": "|mg5kFKtx2oGaYnJTuC9AeEc3jE9kNODB|""#,
        ],
        ["LOGZIO_TOKEN=${LOGZIO_KEY}", "const logzioKey = read_logzio_key(config);"],
    ),
    owned(
        "amplitude-key",
        &["amplitude"],
        &[Run(HEX, 32, 32)],
        [
            "AMPLITUDE_SECRET_KEY=|db34f8ed7370b3e1aa08a26637316e3e|",
            r#""amplitude_secret_key": "|7372bd8e507e710fa350cbc6124554bb|""#,
        ],
        [
            "AMPLITUDE_SECRET_KEY=${AMPLITUDE_KEY}",
            "const amplitudeKey = read_amplitude_key(config);",
        ],
    ),
    owned(
        "mixpanel-key",
        &["mixpanel"],
        &[Run(HEX, 32, 32)],
        [
            "MIXPANEL_API_SECRET=|70e7a693933208b9fdb4a523ebaa9ed8|",
            r#""mixpanel_api_secret": "|ac117c911bd15c388ccbed048f44cac8|""#,
        ],
        ["MIXPANEL_API_SECRET=${MIXPANEL_KEY}", "const mixpanelKey = read_mixpanel_key(config);"],
    ),
    owned(
        "segment-key",
        &["segment"],
        &[Run(ALNUM, 32, 32)],
        [
            "SEGMENT_WRITE_KEY=|5ThnMI6Ij2C2KhoFsmuj74cs62RBvqG6|",
            r#""segment_write_key": "|RUOZqO0eu9enpjckRZ8bMUIDU1IGzQE4|""#,
        ],
        ["SEGMENT_WRITE_KEY=${SEGMENT_KEY}", "const segmentKey = read_segment_key(config);"],
    ),
    owned(
        "algolia-key",
        &["algolia"],
        &[Run(HEX, 32, 32)],
        [
            "ALGOLIA_API_KEY=|a10b70a0574f25b5beb6f0a37caf799c|",
            r#""algolia_api_key": "|b69bbed4793a0c922b701eca023dee6f|""#,
        ],
        ["ALGOLIA_API_KEY=${ALGOLIA_KEY}", "const algoliaKey = read_algolia_key(config);"],
    ),
    owned(
        "elastic-key",
        &["elastic"],
        &[Run(BASE64, 40, 80)],
        [
            "ELASTIC_API_KEY=|aQB6JYtIQhMZDhYE2Dci5ZnMa4MHDtTJnbmTGdiu|",
            r#""elastic_api_key": "|ryiACESKgyQDKx1roy0ijuqqKzJpHBjKYjX8WOlIG|""#,
        ],
        ["ELASTIC_API_KEY=${ELASTIC_KEY}", "const elasticKey = read_elastic_key(config);"],
    ),
    owned(
        "mapbox-token",
        &["mapbox"],
        &[Lit("pk."), Run(URL64, 60, 120), Lit("."), Run(URL64, 20, 24)],
        [
            "MAPBOX_ACCESS_TOKEN=|pk.VLZUkCsibZ6VSSFGKnYujZQh6OfDER1I5eD7t5ugiWcTAp9LQo71jZJnDhMnJ.Z3PkEXFEJT1M3uuQTsqM|",
            r#""mapbox_access_token": "|pk.YnvuAcXvatllJa0oecVaom6CE1Ywcuihi0U9PS2ZLHf3VQqMWaW9LggR8CVO.woz6WANbxuCcSYepM9XPTIs|""#,
        ],
        ["MAPBOX_ACCESS_TOKEN=${MAPBOX_KEY}", "const mapboxKey = read_mapbox_key(config);"],
    ),
    owned(
        "contentful-token",
        &["contentful"],
        &[Run(URL64, 43, 43)],
        [
            "CONTENTFUL_ACCESS_TOKEN=|6BnIi9NCXAyIcJtwqlK0k9Hs4XzJ3H8UJtUXXGLXLKp|",
            r#""contentful_access_token": "|FkadWZTF1oFUzuFdoset9ZLWQ4sH8XIQfwipBE6UoYY|""#,
        ],
        [
            "CONTENTFUL_ACCESS_TOKEN=${CONTENTFUL_KEY}",
            "const contentfulKey = read_contentful_key(config);",
        ],
    ),
    owned(
        "launchdarkly-token",
        &["launchdarkly"],
        &[Run(LOOSE, 40, 40)],
        [
            "LAUNCHDARKLY_ACCESS_TOKEN=|lfx2WQA6iy7wN3fV5Ec809w693ENaNCBq9khNfec|",
            r#""launchdarkly_access_token": "|5SgJhr4XEB0e2qvBgNBuJwMPd7A74eJre5F7PjCm|""#,
        ],
        [
            "LAUNCHDARKLY_ACCESS_TOKEN=${LAUNCHDARKLY_KEY}",
            "const launchdarklyKey = read_launchdarkly_key(config);",
        ],
    ),
    owned(
        "okta-token",
        &["okta"],
        &[Lit("00"), Run(URL64, 40, 40)],
        [
            "OKTA_API_TOKEN=|00Dym5DV6E09DbL4CknoA2WfSANmYkDDVVm0gwzl9Y|",
            r#""okta_api_token": "|00iTWXEteT4ySniTyPFeTPYdFgJmUkhDWQkrxdIYdQ|""#,
        ],
        ["OKTA_API_TOKEN=${OKTA_KEY}", "const oktaKey = read_okta_key(config);"],
    ),
    owned(
        "auth0-secret",
        &["auth0"],
        &[Run(URL64, 48, 86)],
        [
            "AUTH0_CLIENT_SECRET=|CmaygOVk1WfERmZUlTMh3hNPwPKsNUOF5V3HTmKxx051g71Nr|",
            r#""auth0_client_secret": "|c1V4eUhppUiJequnDGgnmhqStD5wYCat1d2vPzpNli5i4M7pJyP|""#,
        ],
        ["AUTH0_CLIENT_SECRET=${AUTH0_KEY}", "const auth0Key = read_auth0_key(config);"],
    ),
    owned(
        "looker-secret",
        &["looker"],
        &[Run(LOWER, 24, 24)],
        [
            "LOOKER_CLIENT_SECRET=|cqj1t5hml6oe20pydravjiw4|",
            r#""looker_client_secret": "|7gykleqwzfhezajjy6uiis2k|""#,
        ],
        ["LOOKER_CLIENT_SECRET=${LOOKER_KEY}", "const lookerKey = read_looker_key(config);"],
    ),
    owned(
        "dropbox-token",
        &["dropbox"],
        &[Run(LOOSE, 60, 160)],
        [
            "DROPBOX_ACCESS_TOKEN=|PiZ83OONkBHMDJ4Fd2UelE4tWOwluqeuTULlzZ3sycljviltVkfsawPAyLgilR|",
            r#""dropbox_access_token": "|BR57PJfYTs9un4bfuXrcKbtfKzl7dK0iVdu4E4uG0vNe8GYMRTx9XAzaO8GQfh|""#,
        ],
        ["DROPBOX_ACCESS_TOKEN=${DROPBOX_KEY}", "const dropboxKey = read_dropbox_key(config);"],
    ),
    token(
        "dropbox-token",
        &["sl."],
        &[Run(URL64, 100, 2000)],
        [
            "key: |sl.¦ikO6PmqBa9ibdnym0IDaNyHCwDP56AAc7BubdpA5bIgCODcEVZdNElxhIOoY3RtEKXik6jRmuTYzDca40uh537fzI8L8WBV6z9YIXc|",
            r#"curl -H "X-Key: |sl.¦Tz3CUnEuNRCahRHTZgYGi5b9nOKa5WWdwItLtoZVxZMJTeuQLsqcXbqBf0VZ33rQuRhamIjUegZ9DxjgwwCVFLpVMHY9VBW4ritG|""#,
        ],
        [
            "sl.xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with sl. and then letters",
        ],
    ),
    owned(
        "dropbox-secret",
        &["dropbox"],
        &[Run(LOWER, 15, 15)],
        ["DROPBOX_APP_SECRET=|37gptrcirzu2bur|", r#""dropbox_app_secret": "|bq00x9q9nofyoc1|""#],
        ["DROPBOX_APP_SECRET=${DROPBOX_KEY}", "const dropboxKey = read_dropbox_key(config);"],
    ),
    owned(
        "box-secret",
        &["box_client", "box_"],
        &[Run(ALNUM, 32, 32)],
        [
            "BOX_CLIENT_CLIENT_SECRET=|sWU2XZAiJk94DHR5cjvU574ZEDpX9p0l|",
            r#""box_client_client_secret": "|2jpk8SZUEONwnKj1JQ4TbNqeENrdmEpD|""#,
        ],
        [
            "BOX_CLIENT_CLIENT_SECRET=${BOX_CLIENT_KEY}",
            "const box_clientKey = read_box_client_key(config);",
        ],
    ),
    owned(
        "rapidapi-key",
        &["rapidapi"],
        &[Run(ALNUM, 50, 50)],
        [
            "RAPIDAPI_API_KEY=|nXxHRJobukyr1X41EcTNRSIeLvTZY7YukhYWE5JV7yQKuw9crB|",
            r#""rapidapi_api_key": "|CjGVl05c6owYIUKpJat8NyptdVLHX1gPEgmWEecw1ozMF77BrS|""#,
        ],
        ["RAPIDAPI_API_KEY=${RAPIDAPI_KEY}", "const rapidapiKey = read_rapidapi_key(config);"],
    ),
    owned(
        "adafruit-key",
        &["adafruit"],
        &[Run(ALNUM, 32, 32)],
        [
            "ADAFRUIT_API_KEY=|terAEVkKiIWh8TCAb38ZzbBr49WmEZPb|",
            r#""adafruit_api_key": "|8CS6Ly1lF51fY2HGfUmIIv34Ebow5x0V|""#,
        ],
        ["ADAFRUIT_API_KEY=${ADAFRUIT_KEY}", "const adafruitKey = read_adafruit_key(config);"],
    ),
    token(
        "adafruit-key",
        &["aio_"],
        &[Run(ALNUM, 28, 28)],
        [
            "key: |aio_¦iX2mtrgrw45Ueb19suipj4nbOfDa|",
            r#"curl -H "X-Key: |aio_¦1AeWF79lRQiByUmo0yH5ss1PKWXu|""#,
        ],
        ["aio_xxxxxxxxxxxxxxxxxxxxxxxxxxxx", "values begin with aio_ and then letters"],
    ),
    owned(
        "openweather-key",
        &["openweather", "owm_"],
        &[Run(HEX, 32, 32)],
        [
            "OPENWEATHER_API_KEY=|e10c2e7e4a6064730d3845d333815b9e|",
            r#""openweather_api_key": "|0c641dccb8204f8d902bdf512c890be4|""#,
        ],
        [
            "OPENWEATHER_API_KEY=${OPENWEATHER_KEY}",
            "const openweatherKey = read_openweather_key(config);",
        ],
    ),
    owned(
        "shodan-key",
        &["shodan"],
        &[Run(ALNUM, 32, 32)],
        [
            "SHODAN_API_KEY=|FAlmfUBh2slJhLI9cEDDEdwH9DQYWyL6|",
            r#""shodan_api_key": "|D9wY47YF5QXyp2DRDAyb3KGQIlDoxrix|""#,
        ],
        ["SHODAN_API_KEY=${SHODAN_KEY}", "const shodanKey = read_shodan_key(config);"],
    ),
    owned(
        "virustotal-key",
        &["virustotal", "vt_api"],
        &[Run(HEX, 64, 64)],
        [
            "VIRUSTOTAL_API_KEY=|2ee2db0886c1731be652ac82bc4b7b422ba6fa8eb8d9c0321a30465e4a834dd0|",
            r#""virustotal_api_key": "|27543b94474e85e8139e9ca359264e453e708f452dc6d9de91320f09d42cb03d|""#,
        ],
        [
            "VIRUSTOTAL_API_KEY=${VIRUSTOTAL_KEY}",
            "const virustotalKey = read_virustotal_key(config);",
        ],
    ),
    owned(
        "sidekiq-key",
        &["contribsys__com"],
        &[Run(HEX, 8, 8), Lit(":"), Run(HEX, 8, 8)],
        [
            "CONTRIBSYS__COM_AUTH=|70056ab2:a067b007|",
            r#""contribsys__com_auth": "|c208a589:c62de659|""#,
        ],
        [
            "CONTRIBSYS__COM_AUTH=${CONTRIBSYS__COM_KEY}",
            "const contribsys__comKey = read_contribsys__com_key(config);",
        ],
    ),
    owned(
        "freemius-key",
        &["freemius"],
        &[Lit("sk_"), Run(DOTTED, 20, 40)],
        [
            "FREEMIUS_SECRET_KEY=|sk_6IKNQMA7yaVT0toeiNkmfj|",
            r#""freemius_secret_key": "|sk_6CmbcIc7q3G0uFX7bTHeLG|""#,
        ],
        ["FREEMIUS_SECRET_KEY=${FREEMIUS_KEY}", "const freemiusKey = read_freemius_key(config);"],
    ),
    owned(
        "maxmind-key",
        &["maxmind"],
        &[Run(WORD, 16, 40)],
        [
            "MAXMIND_LICENSE_KEY=|kXYlVSrqHiarxPFa0bn|",
            r#""maxmind_license_key": "|eFLaoIBRqeEA7wbj7|""#,
        ],
        ["MAXMIND_LICENSE_KEY=${MAXMIND_KEY}", "const maxmindKey = read_maxmind_key(config);"],
    ),
    owned(
        "wireguard-key",
        &["privatekey", "presharedkey"],
        &[Run(BASE64, 44, 44)],
        [
            "PRIVATEKEY_=|PRJdOzP9GGviJ1kWN3eIRT7DIgZv9w7e1zMb28Yjbfqy|",
            r#""privatekey_": "|iGvD4SFrLramXA06UdCfu3X8ncadIzPn2M4IhfXtZqsW|""#,
        ],
        ["PRIVATEKEY_=${PRIVATEKEY_KEY}", "const privatekeyKey = read_privatekey_key(config);"],
    ),
    token(
        "arrakis-key",
        &["ark_"],
        &[Run(HEX, 8, 8), Lit("_"), Run(HEX, 64, 64)],
        [
            "key: |ark_¦1254c99a_ce389020e56d413f8d6a75a3122f722d277569bc3cdd8e9977f10394383afa26|",
            r#"curl -H "X-Key: |ark_¦360d8082_081b8351c3352b2656df2e7c6ba94e1b7752854465975474f1de47f0724b2025|""#,
        ],
        [
            "ark_00000000_0000000000000000000000000000000000000000000000000000000000000000",
            "values begin with ark_ and then letters",
        ],
    ),
];
