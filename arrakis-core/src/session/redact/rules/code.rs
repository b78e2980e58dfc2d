//! Hosts of code, and tools of teams.

use super::{Rule, after, owned, token};
use crate::session::redact::shape::{
    ALNUM, ANYHEX, DIGIT, DOTTED, HEX, LOOSE, LOWER, Lit, Run, UPPER, URL64, WORD,
};

pub(super) const RULES: &[Rule] = &[
    token(
        "github-token",
        &["ghp_", "gho_", "ghu_", "ghs_", "ghr_"],
        &[Run(WORD, 30, 255)],
        [
            "key: |ghp_¦EFTiu0iJBlHJVm23WcPNxIS6hBKBSqB|",
            r#"curl -H "X-Key: |ghr_¦X934XilS5PlGleBeejS8k4pBcc2OgDF|""#,
        ],
        ["ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "values begin with ghr_ and then letters"],
    ),
    token(
        "github-token",
        &["github_pat_"],
        &[Run(WORD, 30, 255)],
        [
            "key: |github_pat_¦QVKfStQ332JksELIYL0J8axvMSpJRA3|",
            r#"curl -H "X-Key: |github_pat_¦8xUQhZ5mEWQObujhrLvS6wfvsWl8ew|""#,
        ],
        [
            "github_pat_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with github_pat_ and then letters",
        ],
    ),
    token(
        "gitlab-token",
        &[
            "glpat-", "gldt-", "glrt-", "glsoat-", "glft-", "glffct-", "glimt-", "glagent-",
            "gloas-", "glptt-", "glrtr-", "glwt-",
        ],
        &[Run(DOTTED, 20, 320)],
        [
            "key: |glpat-¦puJ4NGKwjLejkt6Due6sje|",
            r#"curl -H "X-Key: |glwt-¦V82lVq1cQQ3SJISKvb7p|""#,
        ],
        ["glpat-xxxxxxxxxxxxxxxxxxxx", "values begin with glwt- and then letters"],
    ),
    token(
        "gitlab-job-token",
        &["glcbt-"],
        &[Run(ALNUM, 1, 5), Lit("_"), Run(URL64, 20, 64)],
        [
            "key: |glcbt-¦NH_vly39eDo9LgdCNj0RYxJg|",
            r#"curl -H "X-Key: |glcbt-¦MjKs_mvevzSQaZYs7pTxLBPpzVoa|""#,
        ],
        ["glcbt-x_xxxxxxxxxxxxxxxxxxxx", "values begin with glcbt- and then letters"],
    ),
    token(
        "gitlab-runner-token",
        &["GR1348941"],
        &[Run(URL64, 20, 20)],
        [
            "key: |GR1348941¦keIysQYg3YTcy7Gw3Kos|",
            r#"curl -H "X-Key: |GR1348941¦YiURcp7mpSsDUnKFjF3P|""#,
        ],
        ["GR1348941xxxxxxxxxxxxxxxxxxxx", "values begin with GR1348941 and then letters"],
    ),
    after(
        "gitlab-session",
        &["_gitlab_session="],
        &[Run(LOWER, 32, 32)],
        [
            "_gitla¦b_session=|v4jwif4ramvmmdani93j7pofitvma4aw|",
            r#""_gitla¦b_session=|ubl5rbk3uko2ueju2mwvcbpsiph7zgn6|""#,
        ],
        [
            "_gitlab_session=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with _gitlab_session= and then letters",
        ],
    ),
    token(
        "bitbucket-token",
        &["ATCTT3", "ATBB"],
        &[Run(DOTTED, 28, 255)],
        [
            "key: |ATCTT3¦Rt9bMxlQFRXI6bTvmYRERFnswomJvOZ|",
            r#"curl -H "X-Key: |ATBB¦7Z0uDCU18SMj4OTOL3XnXXRUwZY6z8i|""#,
        ],
        ["ATCTT3xxxxxxxxxxxxxxxxxxxxxxxxxxxx", "values begin with ATBB and then letters"],
    ),
    token(
        "atlassian-token",
        &["ATATT3", "ATOAT3", "ATSTT3"],
        &[Run(DOTTED, 60, 255)],
        [
            "key: |ATATT3¦cQk494Dll4UxdejPxUtYSW9a0t9CHfr2aJOoLnPetUxVYlzBt5waiip6gqAf3Dc|",
            r#"curl -H "X-Key: |ATSTT3¦au3GMYs5roKkwcpmANtgKYCn2UGCdqf4ftzMqOMRssc3n9tUxmmNMbP0h3jMkBG|""#,
        ],
        [
            "ATATT3xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with ATSTT3 and then letters",
        ],
    ),
    token(
        "gitea-token",
        &["gta_"],
        &[Run(ALNUM, 40, 40)],
        [
            "key: |gta_¦E7Viso7D4DfNBvCFTPOIM3TnUmw0HxMNYP31xULx|",
            r#"curl -H "X-Key: |gta_¦yfllOdq8EVLrJ5ENX1WB0JxeiUnf05FPDTJjSYGr|""#,
        ],
        ["gta_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "values begin with gta_ and then letters"],
    ),
    token(
        "postman-key",
        &["PMAK-"],
        &[Run(ANYHEX, 24, 24), Lit("-"), Run(ANYHEX, 34, 34)],
        [
            "key: |PMAK-¦dF45fb5EC86cAA5279C0Fafa-Fd93E5fe59fb2ab3Ef070b4Db2F1cc7cD6|",
            r#"curl -H "X-Key: |PMAK-¦5D58aacBb28059D099E98c31-073bD5DB9c1b2f35cBf4cd81B57AbEeD4d|""#,
        ],
        [
            "PMAK-000000000000000000000000-0000000000000000000000000000000000",
            "values begin with PMAK- and then letters",
        ],
    ),
    token(
        "postman-key",
        &["PMAT-"],
        &[Run(UPPER, 26, 26)],
        [
            "key: |PMAT-¦UJZ9E45WGVJ6F8NBQFAVQJP0PJ|",
            r#"curl -H "X-Key: |PMAT-¦22H9OV008XSD0Y4N56Z4ETJFD2|""#,
        ],
        ["PMAT-xxxxxxxxxxxxxxxxxxxxxxxxxx", "values begin with PMAT- and then letters"],
    ),
    token(
        "readme-key",
        &["rdme_"],
        &[Run(LOWER, 70, 70)],
        [
            "key: |rdme_¦my593j3ixfa3124w86ra64f0ftglpwq3ma3l4swvoz2qenugz1bnfrmesilh2u7m49de56|",
            r#"curl -H "X-Key: |rdme_¦8sf0m8nru6hjafdr3hzlpc62s2i36j1ydn0uqik7nltyeidnby1tldelfihfgvdh4qyy1w|""#,
        ],
        [
            "rdme_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with rdme_ and then letters",
        ],
    ),
    token(
        "linear-key",
        &["lin_api_", "lin_oauth_"],
        &[Run(ALNUM, 40, 64)],
        [
            "key: |lin_api_¦VPhQrn99yD6xtNQpCtsudKmDBtrpxcKyd9dPlNqvY9j|",
            r#"curl -H "X-Key: |lin_oauth_¦SvW7qHkBpIicIJylb2WcKFk8t9vco2A9Iww1GI4XD|""#,
        ],
        [
            "lin_api_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with lin_oauth_ and then letters",
        ],
    ),
    token(
        "notion-token",
        &["ntn_"],
        &[Run(ALNUM, 43, 50)],
        [
            "key: |ntn_¦JCSUsMwlAQwBdDWBxvXDckgt8UQvUu2ge0O5QDzgzQRT0J|",
            r#"curl -H "X-Key: |ntn_¦tLn3bjjepFqYQLq28BoZTLPBVkiZXjFSieRPpUIBQCFJXR|""#,
        ],
        [
            "ntn_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with ntn_ and then letters",
        ],
    ),
    token(
        "notion-token",
        &["secret_"],
        &[Run(ALNUM, 43, 43)],
        [
            "key: |secret_¦TVIdhNsuOBxp8Ms3XYCY2EiOx1Z0vPQlKVkzSCGJCSb|",
            r#"curl -H "X-Key: |secret_¦DBZLKDTCCV3wcIPB7WYOK17GcMQtjfacLfLaMGfQgzf|""#,
        ],
        [
            "secret_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with secret_ and then letters",
        ],
    ),
    token(
        "figma-token",
        &["figd_", "figu_", "figo_"],
        &[Run(URL64, 36, 64)],
        [
            "key: |figd_¦qFxHXiv144BHQCCWregsh6EnlFgS27KqjUYX|",
            r#"curl -H "X-Key: |figo_¦Mp9WFqjOXcuo7m4PKEN5fZlgN0WAgxaz1MIA|""#,
        ],
        ["figd_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "values begin with figo_ and then letters"],
    ),
    token(
        "airtable-token",
        &["pat"],
        &[Run(ALNUM, 14, 14), Lit("."), Run(HEX, 64, 64)],
        [
            "key: |pat¦ldCFkTxSOg7f3q.a204b893f77e8b346fbf14f4792ad6f8d1c8cab47ad132c32e9e813d287ad9f6|",
            r#"curl -H "X-Key: |pat¦FAANr8kx2SNHdY.57d9b73936e9baf8bd92c7d532c9ebcccb042ad98164697f06f582132b2386e8|""#,
        ],
        [
            "patxxxxxxxxxxxxxx.0000000000000000000000000000000000000000000000000000000000000000",
            "values begin with pat and then letters",
        ],
    ),
    token(
        "clickup-token",
        &["pk_"],
        &[Run(DIGIT, 5, 10), Lit("_"), Run(UPPER, 32, 32)],
        [
            "key: |pk_¦2955777_MQXCGMVTR1FVECNWGW3WB2CA1TCB8TF7|",
            r#"curl -H "X-Key: |pk_¦4956091_81PG2I3ETR3I3EHBHQST7C1NZLKZLHD4|""#,
        ],
        ["pk_00000_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "values begin with pk_ and then letters"],
    ),
    token(
        "typeform-token",
        &["tfp_"],
        &[Run(DOTTED, 44, 64)],
        [
            "key: |tfp_¦UggDSRReEQU1XFtzq2isyZmxNIWtmaJhHOI6aMQDlPMcOrY|",
            r#"curl -H "X-Key: |tfp_¦48ze6QrMRG6ErtRsbgsjDHsBoS92UMWVBcQ79T4Y4NZ52|""#,
        ],
        [
            "tfp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with tfp_ and then letters",
        ],
    ),
    token(
        "intra42-secret",
        &["s-s4t2ud-", "s-s4t2af-"],
        &[Run(HEX, 64, 64)],
        [
            "key: |s-s4t2ud-¦62e74722aa5bb58fd5bdaf7e4919c7f76317b0adfcd32c003c0290aa77eb8687|",
            r#"curl -H "X-Key: |s-s4t2af-¦e581c36652298cc3743c0a272ea725a31937b0c8bdb9c1a36910d89561b5088a|""#,
        ],
        [
            "s-s4t2ud-0000000000000000000000000000000000000000000000000000000000000000",
            "values begin with s-s4t2af- and then letters",
        ],
    ),
    token(
        "adobe-secret",
        &["p8e-"],
        &[Run(URL64, 32, 32)],
        [
            "key: |p8e-¦Ycc6l72G9kHTKIhFaD5jQZgfcPOZTbRA|",
            r#"curl -H "X-Key: |p8e-¦BGlzKTTX10oRdtMWcd0vtM5UBPsFxBOh|""#,
        ],
        ["p8e-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "values begin with p8e- and then letters"],
    ),
    token(
        "frameio-token",
        &["fio-u-"],
        &[Run(LOOSE, 64, 64)],
        [
            "key: |fio-u-¦Y0JxS4PwSjGhftcdky52Xt2TF5KFXnvWxNo3HXmsvCXLmDm04ZOTKXZO9NyzjsyK|",
            r#"curl -H "X-Key: |fio-u-¦xLGW3gMbxpH93qaaPTgoVbjhPm9X5cthgQxourH2UZadNY6GS02brfQfrbiFs59T|""#,
        ],
        [
            "fio-u-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with fio-u- and then letters",
        ],
    ),
    token(
        "settlemint-token",
        &["sm_aat_", "sm_pat_", "sm_sat_"],
        &[Run(ALNUM, 16, 64)],
        ["key: |sm_aat_¦OrM1Lw6GGh1R9Ah0|", r#"curl -H "X-Key: |sm_sat_¦Cr8sqGagoH2NiBuE|""#],
        ["sm_aat_xxxxxxxxxxxxxxxx", "values begin with sm_sat_ and then letters"],
    ),
    owned(
        "bitbucket-secret",
        &["bitbucket"],
        &[Run(LOOSE, 40, 64)],
        [
            "BITBUCKET_CLIENT_SECRET=|gTPXThNgpwx4ANneLvwfWXY5NXkx2t3j79Mf7U8Yh0|",
            r#""bitbucket_client_secret": "|XfhC4B9PwZWvcMiIizXccMElmLIjj4gOwvjlH4ZSx|""#,
        ],
        [
            "BITBUCKET_CLIENT_SECRET=${BITBUCKET_KEY}",
            "const bitbucketKey = read_bitbucket_key(config);",
        ],
    ),
    owned(
        "jira-token",
        &["jira", "confluence", "atlassian"],
        &[Run(ALNUM, 24, 24)],
        [
            "JIRA_API_TOKEN=|FhoCsdw6c5nmrdimQk2LTEHg|",
            r#""jira_api_token": "|EjCD2b6O6XODOHnFSWVjTFDJ|""#,
        ],
        ["JIRA_API_TOKEN=${JIRA_KEY}", "const jiraKey = read_jira_key(config);"],
    ),
    owned(
        "asana-token",
        &["asana"],
        &[Run(LOWER, 32, 32)],
        [
            "ASANA_CLIENT_SECRET=|35h2scvfksme7tnugkceftb498sm6cxn|",
            r#""asana_client_secret": "|cmz30hj8lzg8jcwrhsndubhqviehxf4l|""#,
        ],
        ["ASANA_CLIENT_SECRET=${ASANA_KEY}", "const asanaKey = read_asana_key(config);"],
    ),
    owned(
        "airtable-key",
        &["airtable"],
        &[Run(ALNUM, 17, 17)],
        ["AIRTABLE_API_KEY=|XUBt6Tsalzi1qxtxO|", r#""airtable_api_key": "|88kmyc9SSqb7br4jy|""#],
        ["AIRTABLE_API_KEY=${AIRTABLE_KEY}", "const airtableKey = read_airtable_key(config);"],
    ),
    owned(
        "linear-secret",
        &["linear"],
        &[Run(HEX, 32, 32)],
        [
            "LINEAR_CLIENT_SECRET=|1a613074d4bd9e1bce41b1f0e6ccade7|",
            r#""linear_client_secret": "|c241aec472400958c95cc1608153ce76|""#,
        ],
        ["LINEAR_CLIENT_SECRET=${LINEAR_KEY}", "const linearKey = read_linear_key(config);"],
    ),
    owned(
        "gitter-token",
        &["gitter"],
        &[Run(URL64, 40, 40)],
        [
            "GITTER_TOKEN=|PILm9OmtTYbM2KL4Qskcj4p5Si5Wky4QvtaEipIg|",
            r#""gitter_token": "|y1yPEZBd5p6qh3CHXwI0LOaQFmqjy307YWQihyyK|""#,
        ],
        ["GITTER_TOKEN=${GITTER_KEY}", "const gitterKey = read_gitter_key(config);"],
    ),
    owned(
        "adobe-key",
        &["adobe"],
        &[Run(HEX, 32, 32)],
        [
            "ADOBE_CLIENT_SECRET=|b66b8dd8e745526d2460ebf092716d1b|",
            r#""adobe_client_secret": "|49eed0420d720e6a645aa3107061f6be|""#,
        ],
        ["ADOBE_CLIENT_SECRET=${ADOBE_KEY}", "const adobeKey = read_adobe_key(config);"],
    ),
];
