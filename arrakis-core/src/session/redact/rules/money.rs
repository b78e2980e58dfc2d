//! Payments and shops.

use super::{Rule, owned, token};
use crate::session::redact::shape::{
    A_UUID, ALNUM, ANYHEX, BASE64, HEX, LOOSE, LOWER, Lit, PERCENT, Run, URL64,
};

pub(super) const RULES: &[Rule] = &[
    token(
        "stripe-key",
        &["sk_live_", "sk_test_", "rk_live_", "rk_test_", "sk_prod_", "rk_prod_", "sk_org_"],
        &[Run(ALNUM, 16, 255)],
        ["key: |sk_live_¦gLNOmTx2Qtp27NtxcGT|", r#"curl -H "X-Key: |sk_org_¦ERFLa1pWXKpfViEU|""#],
        ["sk_live_xxxxxxxxxxxxxxxx", "values begin with sk_org_ and then letters"],
    ),
    token(
        "stripe-webhook-secret",
        &["whsec_"],
        &[Run(BASE64, 24, 80)],
        [
            "key: |whsec_¦2qqVTiFH2BKlRPamjxPcf3TA|",
            r#"curl -H "X-Key: |whsec_¦WqHBDiNuUZZy0bMG1EXZl03oVpk|""#,
        ],
        ["whsec_xxxxxxxxxxxxxxxxxxxxxxxx", "values begin with whsec_ and then letters"],
    ),
    token(
        "square-token",
        &["sq0atp-", "sq0csp-", "sq0idp-"],
        &[Run(URL64, 22, 60)],
        [
            "key: |sq0atp-¦YNZBLHbrelMc17ZkpJmlxOc|",
            r#"curl -H "X-Key: |sq0idp-¦zqe2oCay9WG7ZLqykXmKIvQvo|""#,
        ],
        ["sq0atp-xxxxxxxxxxxxxxxxxxxxxx", "values begin with sq0idp- and then letters"],
    ),
    token(
        "square-token",
        &["EAAA"],
        &[Run(URL64, 60, 64)],
        [
            "key: |EAAA¦C5nlSu7Hl1DI0l7wmRKQs8CXl66aZ22tispMbpC9B6x1wVw8R107F5ZPtYIkLb|",
            r#"curl -H "X-Key: |EAAA¦Nrj7UGmwDQ2X3UtZNTKtKpFwkVkjpyZNmg4rMthZHkztJQrxuHOKdlo2KehRt|""#,
        ],
        [
            "EAAAxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with EAAA and then letters",
        ],
    ),
    token(
        "shopify-token",
        &["shpat_", "shpca_", "shppa_", "shpss_", "shpua_"],
        &[Run(ANYHEX, 32, 32)],
        [
            "key: |shpat_¦246Bd5DcEf9bDDcfDabAF9293e6EBCf7|",
            r#"curl -H "X-Key: |shpua_¦44D3143Cb5AE3bcB9022e1df47EDFd15|""#,
        ],
        ["shpat_00000000000000000000000000000000", "values begin with shpua_ and then letters"],
    ),
    token(
        "braintree-token",
        &["access_token$production$", "access_token$sandbox$"],
        &[Run(LOWER, 16, 16), Lit("$"), Run(HEX, 32, 32)],
        [
            "key: |access_token$production$¦1ej9hu29e3vgilr8$fdb0f55ff816bbfb634a89d729bd789d|",
            r#"curl -H "X-Key: |access_token$sandbox$¦vh92ns813atoi7y3$f1aca898ea9240ea82451991f799aeb1|""#,
        ],
        [
            "access_token$production$xxxxxxxxxxxxxxxx$00000000000000000000000000000000",
            "values begin with access_token$sandbox$ and then letters",
        ],
    ),
    token(
        "plaid-token",
        &["access-sandbox-", "access-development-", "access-production-"],
        &[A_UUID],
        [
            "key: |access-sandbox-¦dabbae41-7577-47a6-3a26-ae8ca8784849|",
            r#"curl -H "X-Key: |access-production-¦e4cd4811-12ab-66f7-0997-83a296b754ef|""#,
        ],
        [
            "access-sandbox-00000000-0000-0000-0000-000000000000",
            "values begin with access-production- and then letters",
        ],
    ),
    token(
        "adyen-key",
        &["AQE"],
        &[Run(PERCENT, 80, 400)],
        [
            "key: |AQE¦seV9yyRS1eeAJWd5BmkHDOkNltzqjwVdbVg5VSlUC6E7MluGzG5L42W3JZa1cMwZFXg8DeLZntklOJQ6cyZ|",
            r#"curl -H "X-Key: |AQE¦xmKQl61LiOyz1CGHsAvPMGn6fVZNU3jdlSupaufzESIizqj51r0rhQspyePzQJDfC5a2erTGOtWvt0JMF|""#,
        ],
        [
            "AQExxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with AQE and then letters",
        ],
    ),
    token(
        "easypost-key",
        &["EZAK", "EZTK"],
        &[Run(ALNUM, 54, 54)],
        [
            "key: |EZAK¦PTUA9WuvRJ7N318iKntnRaUbFBsu3nzStSFD5NZkn7k97LYGvGxgkP|",
            r#"curl -H "X-Key: |EZTK¦frbmha22uzlBm23FSPoNOo6icRWNNKTh3K6KHC8tgsCkctYJxO9ZvL|""#,
        ],
        [
            "EZAKxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with EZTK and then letters",
        ],
    ),
    token(
        "shippo-token",
        &["shippo_live_", "shippo_test_"],
        &[Run(ANYHEX, 40, 40)],
        [
            "key: |shippo_live_¦fc7eB93CfaBbAbB4F18f4d4BcD50FdeEb34986fE|",
            r#"curl -H "X-Key: |shippo_test_¦424e4202E8b7C8Af338bC55B6CB9De22CCFB310f|""#,
        ],
        [
            "shippo_live_0000000000000000000000000000000000000000",
            "values begin with shippo_test_ and then letters",
        ],
    ),
    token(
        "lob-key",
        &["live_", "test_"],
        &[Run(HEX, 35, 35)],
        [
            "key: |live_¦f1c71fde1739f13cd9bf4a01d4a66661998|",
            r#"curl -H "X-Key: |test_¦b9f77737fafd4269a9e6c7184a2d279854b|""#,
        ],
        ["live_00000000000000000000000000000000000", "values begin with test_ and then letters"],
    ),
    token(
        "flutterwave-key",
        &["FLWSECK_TEST-", "FLWSECK-", "FLWPUBK_TEST-"],
        &[Run(LOWER, 32, 32), Lit("-X")],
        [
            "key: |FLWSECK_TEST-¦40iyb6rtutyd7iye333rtk4legdouu48-X|",
            r#"curl -H "X-Key: |FLWPUBK_TEST-¦c08t6wcaun292l38b5nhi32avrb2ftr8-X|""#,
        ],
        [
            "FLWSECK_TEST-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx-X",
            "values begin with FLWPUBK_TEST- and then letters",
        ],
    ),
    token(
        "duffel-token",
        &["duffel_test_", "duffel_live_"],
        &[Run(LOOSE, 43, 43)],
        [
            "key: |duffel_test_¦y7QXGePOgBKWB1PmUcgU8oSFn92ZKhjJd26WydLJaKs|",
            r#"curl -H "X-Key: |duffel_live_¦SCdpTZHDcbfKOnrIQPStxARkdhiYpsQG5CtPWFnm6ob|""#,
        ],
        [
            "duffel_test_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with duffel_live_ and then letters",
        ],
    ),
    token(
        "razorpay-key",
        &["rzp_live_", "rzp_test_"],
        &[Run(ALNUM, 14, 24)],
        ["key: |rzp_live_¦1YMOlWcQChPxbI|", r#"curl -H "X-Key: |rzp_test_¦yGBZRPniZ6gS9Nx1|""#],
        ["rzp_live_xxxxxxxxxxxxxx", "values begin with rzp_test_ and then letters"],
    ),
    token(
        "mollie-key",
        &["live_", "test_"],
        &[Run(ALNUM, 30, 30)],
        [
            "key: |live_¦5STqSeE7HN8k2sJfdtoGfejrAk4qM5|",
            r#"curl -H "X-Key: |test_¦QOvZAc7FGsBiwS8Wq4POMgcfQlDfl9|""#,
        ],
        ["live_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "values begin with test_ and then letters"],
    ),
    token(
        "paypal-token",
        &["A21AA"],
        &[Run(URL64, 60, 100)],
        [
            "key: |A21AA¦bbwT4eVWjEOmvvugqOXyDAsNgCgEwo99dPK9CPLgE2Ishc6G6Zrv9XFWMSii|",
            r#"curl -H "X-Key: |A21AA¦L8xl88ZSD9LB2G5rCzG8IKgMMc18OPOgiclh4QyhgBlbVwyWYWUtmoaBMmxz|""#,
        ],
        [
            "A21AAxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with A21AA and then letters",
        ],
    ),
    owned(
        "paypal-secret",
        &["paypal"],
        &[Run(URL64, 40, 90)],
        [
            "PAYPAL_CLIENT_SECRET=|rWLiOHdiVOUjiKVd3NQc4Qfe78OiiWty6ben560W|",
            r#""paypal_client_secret": "|KewO726BIapbrSFFhAHhtrvBhE9pf6oHpeVTsLhfi|""#,
        ],
        ["PAYPAL_CLIENT_SECRET=${PAYPAL_KEY}", "const paypalKey = read_paypal_key(config);"],
    ),
    owned(
        "braintree-key",
        &["braintree"],
        &[Run(HEX, 32, 32)],
        [
            "BRAINTREE_PRIVATE_KEY=|aab322a977008ec13af2a29979151e55|",
            r#""braintree_private_key": "|edb8a8c2dca3fd57a337188d6ab7db3e|""#,
        ],
        [
            "BRAINTREE_PRIVATE_KEY=${BRAINTREE_KEY}",
            "const braintreeKey = read_braintree_key(config);",
        ],
    ),
    owned(
        "plaid-secret",
        &["plaid"],
        &[Run(HEX, 30, 30)],
        [
            "PLAID_SECRET=|b180b06831962e1a9bf8a85b74e84e|",
            r#""plaid_secret": "|d3e2fc901d73b45aab7ebe1474b41a|""#,
        ],
        ["PLAID_SECRET=${PLAID_KEY}", "const plaidKey = read_plaid_key(config);"],
    ),
    owned(
        "coinbase-key",
        &["coinbase"],
        &[Run(URL64, 32, 90)],
        [
            "COINBASE_API_SECRET=|k5NUJ4AaFXIkbNcZFhUa1NtjUweot37lNv5|",
            r#""coinbase_api_secret": "|5XKbvuoaBMH6wRf87RQFwn1C8kshabDFV|""#,
        ],
        ["COINBASE_API_SECRET=${COINBASE_KEY}", "const coinbaseKey = read_coinbase_key(config);"],
    ),
    owned(
        "kraken-key",
        &["kraken"],
        &[Run(BASE64, 80, 90)],
        [
            "KRAKEN_PRIVATE_KEY=|LvaQraYlGIpJW2XxVgXXwGZiiQLDCBLTVYY000ASMR2eIawk4mZBBUXWC284Ar3X5XG4Aj8ZeMzcDt2M|",
            r#""kraken_private_key": "|WzEh0Uxlc07LSDGThBYZMqEiLYVTRFMrrDdvX12ewsYaS55y8WMvQMkfE5xvu5YumE5m12FWpO9hYK7bN2|""#,
        ],
        ["KRAKEN_PRIVATE_KEY=${KRAKEN_KEY}", "const krakenKey = read_kraken_key(config);"],
    ),
    owned(
        "kucoin-secret",
        &["kucoin"],
        &[A_UUID],
        [
            "KUCOIN_SECRET_KEY=|da9abc33-80f7-c2cc-5ba3-c144a00b300c|",
            r#""kucoin_secret_key": "|553d089a-e5f3-db88-7cac-b7abd120319c|""#,
        ],
        ["KUCOIN_SECRET_KEY=${KUCOIN_KEY}", "const kucoinKey = read_kucoin_key(config);"],
    ),
    owned(
        "kucoin-key",
        &["kucoin"],
        &[Run(HEX, 24, 24)],
        [
            "KUCOIN_API_KEY=|67930bd76449393bbb5c921a|",
            r#""kucoin_api_key": "|069c8da3203a9e8a3b236048|""#,
        ],
        ["KUCOIN_API_KEY=${KUCOIN_KEY}", "const kucoinKey = read_kucoin_key(config);"],
    ),
    owned(
        "bittrex-key",
        &["bittrex"],
        &[Run(HEX, 32, 32)],
        [
            "BITTREX_API_KEY=|ba4b0ea0b4af21379185e42bd3faf85f|",
            r#""bittrex_api_key": "|9368a53d280ab9e007e730d9154df2c0|""#,
        ],
        ["BITTREX_API_KEY=${BITTREX_KEY}", "const bittrexKey = read_bittrex_key(config);"],
    ),
    owned(
        "binance-key",
        &["binance"],
        &[Run(ALNUM, 64, 64)],
        [
            "BINANCE_SECRET_KEY=|DabQJghKSCk27GhM2HbtIMKURQau2Y5M1G5Dh0Nej04U2lWctkGvCdTqop3XBeBI|",
            r#""binance_secret_key": "|Dr630rSd9PYUIeyOdqibf95u0BL2nXeFW47vv9TwHZabXa1KB7zF6wRYY18ESz0i|""#,
        ],
        ["BINANCE_SECRET_KEY=${BINANCE_KEY}", "const binanceKey = read_binance_key(config);"],
    ),
    owned(
        "finicity-secret",
        &["finicity"],
        &[Run(ALNUM, 20, 32)],
        [
            "FINICITY_CLIENT_SECRET=|GS54RR5n6eZuTrEsNcUqnKL|",
            r#""finicity_client_secret": "|lx15zlx1gr1Y77LEzQZzT|""#,
        ],
        [
            "FINICITY_CLIENT_SECRET=${FINICITY_KEY}",
            "const finicityKey = read_finicity_key(config);",
        ],
    ),
    owned(
        "finnhub-token",
        &["finnhub"],
        &[Run(LOWER, 20, 20)],
        ["FINNHUB_TOKEN=|2e9qldfveitf09hbf5h7|", r#""finnhub_token": "|bcwko9wyx148dzjr961p|""#],
        ["FINNHUB_TOKEN=${FINNHUB_KEY}", "const finnhubKey = read_finnhub_key(config);"],
    ),
    owned(
        "gocardless-token",
        &["gocardless"],
        &[Lit("live_"), Run(URL64, 40, 40)],
        [
            "GOCARDLESS_ACCESS_TOKEN=|live_FOefiqQ1gvUYOGyg0jpErE4Gv7CIgYgtKSsD2M3E|",
            r#""gocardless_access_token": "|live_0cnr7Bh53NiAmAHnzjU19TnVwFZnMbtXDjvWpVm6|""#,
        ],
        [
            "GOCARDLESS_ACCESS_TOKEN=${GOCARDLESS_KEY}",
            "const gocardlessKey = read_gocardless_key(config);",
        ],
    ),
    owned(
        "freshbooks-token",
        &["freshbooks"],
        &[Run(HEX, 64, 64)],
        [
            "FRESHBOOKS_ACCESS_TOKEN=|b08db25a63a72bd45a68ff23c97b5fe6405d864e1196696fb74ab3460e8ff3e1|",
            r#""freshbooks_access_token": "|aad9a27f51a7725b4c6c45df259ed01514fb90694bcbdcf661722f140d94a207|""#,
        ],
        [
            "FRESHBOOKS_ACCESS_TOKEN=${FRESHBOOKS_KEY}",
            "const freshbooksKey = read_freshbooks_key(config);",
        ],
    ),
    owned(
        "etsy-key",
        &["etsy"],
        &[Run(LOWER, 24, 24)],
        [
            "ETSY_API_KEY=|5qfefbgcd571xuaqh0l8smy3|",
            r#""etsy_api_key": "|049tq9jz50qbzumy74b4cb2h|""#,
        ],
        ["ETSY_API_KEY=${ETSY_KEY}", "const etsyKey = read_etsy_key(config);"],
    ),
    owned(
        "squarespace-token",
        &["squarespace"],
        &[A_UUID],
        [
            "SQUARESPACE_ACCESS_TOKEN=|19d33eb7-7eb6-5910-2fc4-0937e32845fa|",
            r#""squarespace_access_token": "|cdc1de72-338e-b2e0-d1e1-5ecabf49fbc1|""#,
        ],
        [
            "SQUARESPACE_ACCESS_TOKEN=${SQUARESPACE_KEY}",
            "const squarespaceKey = read_squarespace_key(config);",
        ],
    ),
    owned(
        "adyen-key",
        &["adyen"],
        &[Run(BASE64, 40, 400)],
        [
            "ADYEN_API_KEY=|BPr5zNk1rR7TRqTNLB6Ztj1PQ8bQPNYx4CglAl9wlYW|",
            r#""adyen_api_key": "|et5KAoaNXgQ795R3GQqNHrudkGFEqzOjT8a4bABL|""#,
        ],
        ["ADYEN_API_KEY=${ADYEN_KEY}", "const adyenKey = read_adyen_key(config);"],
    ),
];
