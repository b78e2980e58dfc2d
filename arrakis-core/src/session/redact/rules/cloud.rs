//! Clouds and hosting.

use super::{Rule, after, owned, token};
use crate::session::redact::shape::{
    A_UUID, ALNUM, ANYHEX, BASE64, DOTTED, HEX, Lit, PERCENT, Run, UPPER, URL64, WORD,
};

pub(super) const RULES: &[Rule] = &[
    token(
        "aws-key-id",
        &["AKIA", "ASIA", "ABIA", "ACCA", "A3T"],
        &[Run(UPPER, 16, 17)],
        ["key: |AKIA¦W9BILM0GA9FDBQMG|", r#"curl -H "X-Key: |A3T¦POXDDYRHYSI24OF6|""#],
        ["AKIAxxxxxxxxxxxxxxxx", "values begin with A3T and then letters"],
    ),
    owned(
        "aws-secret-key",
        &["aws_secret", "secretaccesskey", "secret_access_key", "aws"],
        &[Run(BASE64, 40, 40)],
        [
            "AWS_SECRET_SECRET_ACCESS_KEY=|FBgJwUmSs9yPBVhSRguQbaWUrhtL92KsThU4LJsZ|",
            r#""aws_secret_secret_access_key": "|rnqElGyi26andt49YAFg9Ryeu1h7DYHILZcqBC4W|""#,
        ],
        [
            "AWS_SECRET_SECRET_ACCESS_KEY=${AWS_SECRET_KEY}",
            "const aws_secretKey = read_aws_secret_key(config);",
        ],
    ),
    owned(
        "aws-session-token",
        &["aws_session", "sessiontoken", "session_token", "aws_security"],
        &[Run(BASE64, 100, 2000)],
        [
            "AWS_SESSION_SESSION_TOKEN=|FyZ6JGSOQJkVKvT3nwArdAYdKNPaLIxGf8e3IWYvQ5U4fVsX5d8InC9OSDFYDuJY9cc7gWSOhdqSIiTS398vEz0jIB0K5bWa41OfgVi|",
            r#""aws_session_session_token": "|uBpUWlVcGX7JYS0km32Bi3O69AiF3lQy4wqO4BFeTBVWlpXtLkM0mAYaWVKdX6CbOkIG7pBNzES6WfPL91w8HCH2X1xedQZE1bKX|""#,
        ],
        [
            "AWS_SESSION_SESSION_TOKEN=${AWS_SESSION_KEY}",
            "const aws_sessionKey = read_aws_session_key(config);",
        ],
    ),
    token(
        "aws-bedrock-key",
        &["ABSK"],
        &[Run(BASE64, 100, 280)],
        [
            "key: |ABSK¦2cSSn3IWMBXV3r7P1jzvCfGivafjpHybhOqzBiKoLs1rZiBheAWzBGkazYGLXMbBUggFHE2p7ehpGsH0oe6L4iMeJhBgHeNaUop3w4|",
            r#"curl -H "X-Key: |ABSK¦hehFODN7nt1a44Uav1KW6dAg8parENQymaWe0K2jHVYdcCJHD60uANCm5BOPGOhJLfaprzepf6xuCnsjzgiesRJLrJlzc1kMqOXY|""#,
        ],
        [
            "ABSKxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with ABSK and then letters",
        ],
    ),
    token(
        "aws-bedrock-key",
        &["bedrock-api-key-"],
        &[Run(BASE64, 40, 2000)],
        [
            "key: |bedrock-api-key-¦PEYsyQtb5eMH9nMaOoPUgyFxdEfC29Z75wb1J3SmOYC|",
            r#"curl -H "X-Key: |bedrock-api-key-¦bkJo4kOa6pXyKeddWuJ1Nx3Si6Qk68bW9f2LefU8UG|""#,
        ],
        [
            "bedrock-api-key-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with bedrock-api-key- and then letters",
        ],
    ),
    after(
        "aws-signature",
        &["X-Amz-Signature=", "x-amz-signature="],
        &[Run(ANYHEX, 64, 64)],
        [
            "X-Amz-¦Signature=|e5088fA4ab65dD7358f5DCbbec02Dd7B8ee08CDecBfD9bb3CBFe4F8EDceEaedC|",
            r#""x-amz-¦signature=|Da089e8aB6f7BcB7e689E277D81ffaFCD8b15aCBCcf8c4DdC482EaDbA8B15BCD|""#,
        ],
        [
            "X-Amz-Signature=0000000000000000000000000000000000000000000000000000000000000000",
            "values begin with x-amz-signature= and then letters",
        ],
    ),
    after(
        "aws-session-token",
        &["X-Amz-Security-Token=", "x-amz-security-token="],
        &[Run(PERCENT, 100, 2000)],
        [
            "X-Amz-¦Security-Token=|Ei90Ff0T7E1nHCY4WL7eSpHH9xKaJIqxJXjJf3RCDYLdnbwWdVEmlyaDGUyQmxlcM8tL9lhz0p7xAPyJwpf9C8HGFyiccLsSVE7aG9|",
            r#""x-amz-¦security-token=|rGAcGxYiTdgt1jYwrvr7jKmy82eyspnVSzi5qbU1VwIQBIS33ddFpMBAE7ucxxhIcNdsbFxGwMaIoHPIDaostRzwi0CIhQKHn9D9o|""#,
        ],
        [
            "X-Amz-Security-Token=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with x-amz-security-token= and then letters",
        ],
    ),
    token(
        "google-key",
        &["AIza"],
        &[Run(URL64, 35, 35)],
        [
            "key: |AIza¦UpWwADUzNsvEjtkt4FmShWLMQvpZwZMQCLw|",
            r#"curl -H "X-Key: |AIza¦180ON4mdRxFXR4f1KtTQS3zQsYRJRJbMfdN|""#,
        ],
        ["AIzaxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "values begin with AIza and then letters"],
    ),
    token(
        "google-token",
        &["ya29."],
        &[Run(DOTTED, 20, 2048)],
        ["key: |ya29.¦PiC82Oa6yGbZ0EQsjB1R|", r#"curl -H "X-Key: |ya29.¦lW7slaYKE01uutnBT8QL|""#],
        ["ya29.xxxxxxxxxxxxxxxxxxxx", "values begin with ya29. and then letters"],
    ),
    token(
        "google-refresh-token",
        &["1//0"],
        &[Run(URL64, 40, 255)],
        [
            "key: |1//0¦dJQO0iaWlwt7bCq5aObGQ32sxfhVArBvwESd1B1xY|",
            r#"curl -H "X-Key: |1//0¦Bv6FVE0PdWeJ1Rl2TSqPWPEkhJADsJAAKd9l67MI7w9|""#,
        ],
        ["1//0xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "values begin with 1//0 and then letters"],
    ),
    token(
        "google-client-secret",
        &["GOCSPX-"],
        &[Run(URL64, 24, 40)],
        [
            "key: |GOCSPX-¦k6Y3F8ipXZ9mec5W6vsCb5T10D|",
            r#"curl -H "X-Key: |GOCSPX-¦FmD4GS01V4GoF241oBPpC3QO|""#,
        ],
        ["GOCSPX-xxxxxxxxxxxxxxxxxxxxxxxx", "values begin with GOCSPX- and then letters"],
    ),
    after(
        "google-signature",
        &["X-Goog-Signature="],
        &[Run(ANYHEX, 64, 1024)],
        [
            "X-Goog¦-Signature=|Da78C4B46ABcAf6Ab70FEe5b87Cb3FAA6876BDF8FF2ABb41e8eDaE2633EeF48Bab|",
            r#""X-Goog¦-Signature=|34A5Cc7e5d56da1ec3550EC51F821B52439Bc5e150be6eeFFea9DbC1b2F5efabCc8|""#,
        ],
        [
            "X-Goog-Signature=0000000000000000000000000000000000000000000000000000000000000000",
            "values begin with X-Goog-Signature= and then letters",
        ],
    ),
    after(
        "azure-account-key",
        &["AccountKey=", "accountkey="],
        &[Run(BASE64, 60, 100)],
        [
            "Accoun¦tKey=|tdvfkGHHSBLtIZRokFNMGlZStr4CH83kQZMLQSKQyr0DeDpaZTgc99qedDF8|",
            r#""accoun¦tkey=|9gQNWb2yeJIBlWnTm4tlyWI655VWSpxhE3uXm9E9dvqTnQI8ooS4DxtXQp4dS9K|""#,
        ],
        [
            "AccountKey=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with accountkey= and then letters",
        ],
    ),
    after(
        "azure-shared-key",
        &["SharedAccessKey=", "sharedaccesskey="],
        &[Run(BASE64, 40, 100)],
        [
            "Shared¦AccessKey=|Y9sNLizjHIDQJ9jKeJEfmsWBj1U2lIH2rtRXEu1g6qS|",
            r#""shared¦accesskey=|5ahmNOhWMA2VLKHo6t0vCnq0EhFekCNz2iOCM7kgrk|""#,
        ],
        [
            "SharedAccessKey=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with sharedaccesskey= and then letters",
        ],
    ),
    after(
        "azure-sas",
        &["?sig=", "&sig=", ";sig=", "u0026sig="],
        &[Run(PERCENT, 40, 120)],
        [
            "?sig=¦|LnWCv8dD3Jdj18MFRlXJ0WW040zHLlzUEmRlUryY|",
            r#""u0026s¦ig=|mGwbjpCh41SOVYnpZgoE0qphEja1OQ1yw1Wc1Sry4hc|""#,
        ],
        [
            "?sig=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with u0026sig= and then letters",
        ],
    ),
    after(
        "azure-function-code",
        &["azurewebsites.net/api/"],
        &[Run(WORD, 1, 60), Lit("?code="), Run(PERCENT, 40, 120)],
        [
            "azurew¦ebsites.net/api/|o8g?code=INeUIwNoQxOouXBhrLIclrvRT6Jtt5UsUrVAdeguV6|",
            r#""azurew¦ebsites.net/api/|Yd2f?code=4exCsFdN9xhxG4bzLMLjzzTkRhC782hXeiQN6nALnaY|""#,
        ],
        [
            "azurewebsites.net/api/x?code=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with azurewebsites.net/api/ and then letters",
        ],
    ),
    token(
        "digitalocean-token",
        &["dop_v1_", "doo_v1_", "dor_v1_"],
        &[Run(HEX, 64, 64)],
        [
            "key: |dop_v1_¦884bf649b86ed40f6f39442921385512ca5bdc5a8f56662bf11b70b56b2dcfab|",
            r#"curl -H "X-Key: |dor_v1_¦6548bc4cd09c35f8eee8b3e49a2037bc2a9437222d5d92e0a5edac8ab06a4988|""#,
        ],
        [
            "dop_v1_0000000000000000000000000000000000000000000000000000000000000000",
            "values begin with dor_v1_ and then letters",
        ],
    ),
    token(
        "digitalocean-spaces-key",
        &["DO00"],
        &[Run(UPPER, 16, 16)],
        ["key: |DO00¦UOP29N4XVDJ47U6L|", r#"curl -H "X-Key: |DO00¦MNBDYA3LE3KS86A1|""#],
        ["DO00xxxxxxxxxxxxxxxx", "values begin with DO00 and then letters"],
    ),
    token(
        "alibaba-key-id",
        &["LTAI"],
        &[Run(ALNUM, 17, 24)],
        ["key: |LTAI¦1rZMZyabaIC6m7tzzuUZ|", r#"curl -H "X-Key: |LTAI¦2BBavMeUZwnYzcKLljO4|""#],
        ["LTAIxxxxxxxxxxxxxxxxx", "values begin with LTAI and then letters"],
    ),
    token(
        "tencent-key-id",
        &["AKID"],
        &[Run(ALNUM, 32, 36)],
        [
            "key: |AKID¦U6t91esdYdIHHNOMtWOszhuQ0pgSae4ZAv|",
            r#"curl -H "X-Key: |AKID¦20LqD9bo1q8r4e8NwAzFz4Z2NiZLsmvo|""#,
        ],
        ["AKIDxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "values begin with AKID and then letters"],
    ),
    token(
        "yandex-key",
        &["AQVN"],
        &[Run(URL64, 35, 38)],
        [
            "key: |AQVN¦bxz2LInJOpE5V5asTuIXqagUyXABgTRrGxKZ|",
            r#"curl -H "X-Key: |AQVN¦IvL13Rgg7awt4nxdXu6C5sc7K8AMurWtaIIKU|""#,
        ],
        ["AQVNxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "values begin with AQVN and then letters"],
    ),
    token(
        "yandex-token",
        &["y0_", "t1."],
        &[Run(DOTTED, 50, 300)],
        [
            "key: |y0_¦LXdsjo3IfoTgkiABNNI524rxhR0wkIJSP53jdYoDs5K6uFb7Mj|",
            r#"curl -H "X-Key: |t1.¦dgKiRhRlYu3uMJC5pfFkiRp80XPOMSjpNWvO3W3E7phMRjoIqzJrA|""#,
        ],
        [
            "y0_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with t1. and then letters",
        ],
    ),
    token(
        "yandex-key-id",
        &["YCAJ"],
        &[Run(URL64, 18, 40)],
        ["key: |YCAJ¦KZ6O8wikph0mHPkptuYy|", r#"curl -H "X-Key: |YCAJ¦I7aOb55wzZCnVk6PdP|""#],
        ["YCAJxxxxxxxxxxxxxxxxxx", "values begin with YCAJ and then letters"],
    ),
    token(
        "yandex-secret",
        &["YCM", "YCP", "YCN", "YCO"],
        &[Run(URL64, 36, 38)],
        [
            "key: |YCM¦9bjzSrJly5zixEY4FrOBgyVsDgR9Pt7GxIsX|",
            r#"curl -H "X-Key: |YCO¦sqNPeRBZby7iaX0tmfI5CoNOeAFGxkE1J5kT8u|""#,
        ],
        ["YCMxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "values begin with YCO and then letters"],
    ),
    token(
        "fly-token",
        &["fo1_"],
        &[Run(URL64, 43, 43)],
        [
            "key: |fo1_¦5cmRH8wAFl6bcRBiTJi36cl6AJ1jwmMTTwxKTaDmHzl|",
            r#"curl -H "X-Key: |fo1_¦OFBzcgJGlbeDZ02zxqSm0pdJtFEhC4GfsBaPoEK33m9|""#,
        ],
        [
            "fo1_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with fo1_ and then letters",
        ],
    ),
    token(
        "fly-token",
        &["FlyV1 fm1r_", "FlyV1 fm1a_", "FlyV1 fm2_", "fm1r_", "fm1a_", "fm2_"],
        &[Run(BASE64, 60, 2000)],
        [
            "key: |FlyV1 fm1r_¦HRx06zJpafxfSmd6VraFxmx7nDrbHVFfaTopbOhCJsLuXRKRsGDRsYgQa2Ibx|",
            r#"curl -H "X-Key: |fm2_¦8VgCAhTaZtgOKaPQIaTSSdE6Tm8CwV1iEhmoPIhdiqYfRMza3FgYWt3EBGvmjS|""#,
        ],
        [
            "FlyV1 fm1r_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with fm2_ and then letters",
        ],
    ),
    token(
        "heroku-key",
        &["HRKU-AA", "HRKU-"],
        &[Run(URL64, 36, 64)],
        [
            "key: |HRKU-AA¦kEHBCObnO8PVPQuyhErACi7Sbjn9wam0O1K6K|",
            r#"curl -H "X-Key: |HRKU-¦4jxYpWvJJvPiOuJZAi0dt3Z5IRO09tT5kyfx|""#,
        ],
        ["HRKU-AAxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "values begin with HRKU- and then letters"],
    ),
    token(
        "netlify-token",
        &["nfp_", "nfc_", "nfo_", "nfu_"],
        &[Run(ALNUM, 36, 64)],
        [
            "key: |nfp_¦B7KPaI0IZnM0doidyBosd2c2xGz25Eq9raoRl|",
            r#"curl -H "X-Key: |nfu_¦rv0TZXgLvt5TZxCEE0fKmaIHDhxkGeNifp63TN9|""#,
        ],
        ["nfp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "values begin with nfu_ and then letters"],
    ),
    token(
        "vercel-token",
        &["vcp_", "vci_", "vca_", "vcr_", "vck_"],
        &[Run(ALNUM, 24, 80)],
        [
            "key: |vcp_¦BdgytoUwHKpwwe9uE3PSu2i4|",
            r#"curl -H "X-Key: |vck_¦oSgZ9vn7psCp6qJSAkyBky2cI|""#,
        ],
        ["vcp_xxxxxxxxxxxxxxxxxxxxxxxx", "values begin with vck_ and then letters"],
    ),
    token(
        "vercel-blob-token",
        &["vercel_blob_rw_"],
        &[Run(WORD, 30, 80)],
        [
            "key: |vercel_blob_rw_¦Ytac9adEr88GmZRRS7zwUna8hVjzdJZI|",
            r#"curl -H "X-Key: |vercel_blob_rw_¦aY8Shg8BCRpLObUFV1jqF7JAxa8lypPcp|""#,
        ],
        [
            "vercel_blob_rw_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with vercel_blob_rw_ and then letters",
        ],
    ),
    token(
        "cloudflare-origin-key",
        &["v1.0-"],
        &[Run(HEX, 24, 24), Lit("-"), Run(HEX, 146, 146)],
        [
            "key: |v1.0-¦61e3017f02d73faaddc94c98-2e06b043c5c3419115ec1d8b5b6b825ef121b3bd873db91766560de172c926f872a6ef80827e63c31ecd5d778e59b351f767a7261d82b7e6bb21dcbd5dff97b6745ec1591718428031|",
            r#"curl -H "X-Key: |v1.0-¦8a2341cc9be4d6b7fbb11658-be5f48be88869b67d0ccd93d7d3e2e62235f03cde860ba126e5c035d21b71150ee53a68738e8bb8fd80097a649ab711d92475976601ff3795c6ad446407f8e8867784d6b52273aacb5|""#,
        ],
        [
            "v1.0-000000000000000000000000-00000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000",
            "values begin with v1.0- and then letters",
        ],
    ),
    token(
        "cloudflare-token",
        &["cfut_", "cfat_", "cfk_"],
        &[Run(URL64, 36, 64)],
        [
            "key: |cfut_¦f3Vop1KwVA0orjT4jTPc4MBNHZCTvsGC1jBag|",
            r#"curl -H "X-Key: |cfk_¦Trq56DH5sdQqfbWVr1Sh4buWBWyu6opLxToC|""#,
        ],
        ["cfut_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "values begin with cfk_ and then letters"],
    ),
    token(
        "scaleway-key",
        &["SCW"],
        &[Run(UPPER, 17, 17)],
        ["key: |SCW¦UI3L9MT90OZT1SZ4Y|", r#"curl -H "X-Key: |SCW¦JUWCW8T6IB31WUPTQ|""#],
        ["SCWxxxxxxxxxxxxxxxxx", "values begin with SCW and then letters"],
    ),
    token(
        "render-key",
        &["rnd_"],
        &[Run(ALNUM, 28, 40)],
        [
            "key: |rnd_¦HYlpnslBvUErhnMCWPnsPXnv5y1IEq|",
            r#"curl -H "X-Key: |rnd_¦1eMRC0H7jcy4enlozpGFubmLVevjPpt|""#,
        ],
        ["rnd_xxxxxxxxxxxxxxxxxxxxxxxxxxxx", "values begin with rnd_ and then letters"],
    ),
    owned(
        "heroku-key",
        &["heroku"],
        &[A_UUID],
        [
            "HEROKU_API_KEY=|5ec67d0d-bb38-458e-83ef-de95ae332ff6|",
            r#""heroku_api_key": "|f16f2a44-048c-30cc-765f-86a09dbfc1ec|""#,
        ],
        ["HEROKU_API_KEY=${HEROKU_KEY}", "const herokuKey = read_heroku_key(config);"],
    ),
    owned(
        "vercel-token",
        &["vercel"],
        &[Run(ALNUM, 24, 24)],
        [
            "VERCEL_TOKEN=|SZUz1SLfPAUnbEHdDi5invL7|",
            r#""vercel_token": "|ojTJQJ4jiMJWxm7FTBtP2hxJ|""#,
        ],
        ["VERCEL_TOKEN=${VERCEL_KEY}", "const vercelKey = read_vercel_key(config);"],
    ),
    owned(
        "netlify-token",
        &["netlify"],
        &[Run(URL64, 40, 46)],
        [
            "NETLIFY_AUTH_TOKEN=|bp7KoupBUfIEKAvKP9L8WlQsIPaROeG0Bsd2Quu058|",
            r#""netlify_auth_token": "|BjJqmX6PBBmEUxpxXXfHnRkm1LgNE9DPCfRBYZA6c|""#,
        ],
        ["NETLIFY_AUTH_TOKEN=${NETLIFY_KEY}", "const netlifyKey = read_netlify_key(config);"],
    ),
    owned(
        "cloudflare-key",
        &["cloudflare", "cf_api"],
        &[Run(URL64, 37, 45)],
        [
            "CLOUDFLARE_API_KEY=|xqhceXWKiE13OAW86IISu2u6r0FoBOVm36ZYw|",
            r#""cloudflare_api_key": "|I4pw7Yf7t1pW3nGCvkEf5cdfnah2wrQHOgIlr|""#,
        ],
        [
            "CLOUDFLARE_API_KEY=${CLOUDFLARE_KEY}",
            "const cloudflareKey = read_cloudflare_key(config);",
        ],
    ),
    owned(
        "digitalocean-spaces-secret",
        &["spaces_secret", "spaces"],
        &[Run(BASE64, 43, 43)],
        [
            "SPACES_SECRET_SECRET_KEY=|YwSEfbnYJFiUOvyfqrwD36Ksd2MIFDfL1D60pOinD1y|",
            r#""spaces_secret_secret_key": "|5fPN6I7ghZMzer2bqhqa42jEmpnUpjASfhbjIvUnFMl|""#,
        ],
        [
            "SPACES_SECRET_SECRET_KEY=${SPACES_SECRET_KEY}",
            "const spaces_secretKey = read_spaces_secret_key(config);",
        ],
    ),
    owned(
        "alibaba-secret",
        &["alibaba", "aliyun", "alicloud"],
        &[Run(ALNUM, 30, 30)],
        [
            "ALIBABA_ACCESS_KEY_SECRET=|faKNzH1snwhjJoAEIdWbpkZCpRgE8e|",
            r#""alibaba_access_key_secret": "|pyvlg5NrudV9AlA5Hw3ga6RcIqv0KG|""#,
        ],
        [
            "ALIBABA_ACCESS_KEY_SECRET=${ALIBABA_KEY}",
            "const alibabaKey = read_alibaba_key(config);",
        ],
    ),
    owned(
        "tencent-secret",
        &["tencent"],
        &[Run(ALNUM, 32, 32)],
        [
            "TENCENT_SECRET_KEY=|NeZzW0ADe6xVJ79FDKrSPMAuZu63ASSI|",
            r#""tencent_secret_key": "|bPz9UcYxw8ufcgj4ZNrc7G38es798gOS|""#,
        ],
        ["TENCENT_SECRET_KEY=${TENCENT_KEY}", "const tencentKey = read_tencent_key(config);"],
    ),
    owned(
        "ibm-key",
        &["ibm", "bluemix", "watson"],
        &[Run(URL64, 44, 44)],
        [
            "IBM_API_KEY=|eZXFhRVQ5KcQxxSqCmWK8nQLUENbR5kjcGP2WeEvlKhb|",
            r#""ibm_api_key": "|lIzkrG2R69j2Rkl6Do9rYEfLrVVMsOelZoC9WeoSZuxT|""#,
        ],
        ["IBM_API_KEY=${IBM_KEY}", "const ibmKey = read_ibm_key(config);"],
    ),
    owned(
        "oracle-token",
        &["oci_", "oracle"],
        &[Run(URL64, 20, 64)],
        [
            "OCI_AUTH_TOKEN=|K4gXMrL3Z4r5aDj7LBlS7|",
            r#""oci_auth_token": "|uGWmLY3yd90WjdGLnC0GFGQ|""#,
        ],
        ["OCI_AUTH_TOKEN=${OCI_KEY}", "const ociKey = read_oci_key(config);"],
    ),
    owned(
        "azure-key",
        &["azure", "cosmos"],
        &[Run(BASE64, 32, 88)],
        [
            "AZURE_CLIENT_SECRET=|IYdoft3kJlcWEveBJzYkExCAqzwHRuQM|",
            r#""azure_client_secret": "|vqM6nGzCH51h7vYRza7U1xxzBizMPx0KZE|""#,
        ],
        ["AZURE_CLIENT_SECRET=${AZURE_KEY}", "const azureKey = read_azure_key(config);"],
    ),
    owned(
        "azure-devops-token",
        &["azure_devops", "vsts", "ado_pat"],
        &[Run(ALNUM, 52, 84)],
        [
            "AZURE_DEVOPS_PAT=|plFSndHKTPWwsmiKPz6G0bLuhgbev6EbYtSjZcgKNeUksDhpO7UUQ|",
            r#""azure_devops_pat": "|T9OZJMfn1sffqYMN3eLUtYY1OlubX13PO2OeF5woLN5dcW8aBqm6PAn|""#,
        ],
        [
            "AZURE_DEVOPS_PAT=${AZURE_DEVOPS_KEY}",
            "const azure_devopsKey = read_azure_devops_key(config);",
        ],
    ),
    owned(
        "linode-token",
        &["linode"],
        &[Run(HEX, 64, 64)],
        [
            "LINODE_TOKEN=|20c3869379770b8c3c5846ead9d7130141aaed765f19415a84c79bb13fa28e0d|",
            r#""linode_token": "|632b9e22572b70eb87b3ee306d19c7c60719e603005d19f3cb612c9ccf55c13a|""#,
        ],
        ["LINODE_TOKEN=${LINODE_KEY}", "const linodeKey = read_linode_key(config);"],
    ),
    owned(
        "hetzner-token",
        &["hcloud", "hetzner"],
        &[Run(ALNUM, 64, 64)],
        [
            "HCLOUD_TOKEN=|UIUjDKV5hmlREUm4fu3E2cb0FCK3Qh1QhbQGh0xyQx7R8XM3oHMC5zi7lf73c34h|",
            r#""hcloud_token": "|PEAhy4W3ZUIA72AzcA9Jw7vdARpmkR9cD0P8aYz3rhqxc12UGPnPlv7zP2azNfjl|""#,
        ],
        ["HCLOUD_TOKEN=${HCLOUD_KEY}", "const hcloudKey = read_hcloud_key(config);"],
    ),
    owned(
        "scaleway-secret",
        &["scw_", "scaleway"],
        &[A_UUID],
        [
            "SCW_SECRET_KEY=|6e5c079a-8fc9-df55-a124-1cd680562a7f|",
            r#""scw_secret_key": "|67eb7e0f-c8e3-1063-97d4-30d85c849879|""#,
        ],
        ["SCW_SECRET_KEY=${SCW_KEY}", "const scwKey = read_scw_key(config);"],
    ),
    owned(
        "fastly-token",
        &["fastly"],
        &[Run(URL64, 32, 32)],
        [
            "FASTLY_API_TOKEN=|fdeKzZXsEbq9YLmeoxg7bFgVYHY11PXx|",
            r#""fastly_api_token": "|ouJ773UFBxXX3n4aZ8ubzta15Oy5tuUL|""#,
        ],
        ["FASTLY_API_TOKEN=${FASTLY_KEY}", "const fastlyKey = read_fastly_key(config);"],
    ),
    owned(
        "render-key",
        &["render"],
        &[Run(ALNUM, 28, 40)],
        [
            "RENDER_API_KEY=|nzB0GCARtU0wE4hKripIEhVgUAccqY2|",
            r#""render_api_key": "|CJC43vsXARtEpYfKdrFGe5zMlliiV|""#,
        ],
        ["RENDER_API_KEY=${RENDER_KEY}", "const renderKey = read_render_key(config);"],
    ),
    owned(
        "railway-token",
        &["railway"],
        &[A_UUID],
        [
            "RAILWAY_TOKEN=|4b2384e1-f30c-3334-66e7-3625f5743e81|",
            r#""railway_token": "|807318c6-5ac6-e052-2d16-0685e1a884ac|""#,
        ],
        ["RAILWAY_TOKEN=${RAILWAY_KEY}", "const railwayKey = read_railway_key(config);"],
    ),
];
