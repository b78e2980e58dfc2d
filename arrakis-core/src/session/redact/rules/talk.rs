//! Messages, mail and social networks.

use super::{Rule, after, owned, token};
use crate::session::redact::shape::{
    A_UUID, ALNUM, BASE64, DIGIT, DOTTED, HEX, LOOSE, LOWER, Lit, PERCENT, Run, UPPER, URL64,
};

pub(super) const RULES: &[Rule] = &[
    token(
        "slack-token",
        &["xoxb-", "xoxp-", "xoxa-", "xoxr-", "xoxs-", "xoxo-", "xoxd-", "xoxc-"],
        &[Run(URL64, 10, 255)],
        ["key: |xoxb-¦2AM02bmSHGGS|", r#"curl -H "X-Key: |xoxc-¦jDO689KyvA0T|""#],
        ["xoxb-xxxxxxxxxx", "values begin with xoxc- and then letters"],
    ),
    token(
        "slack-app-token",
        &["xapp-"],
        &[
            Run(DIGIT, 1, 1),
            Lit("-"),
            Run(UPPER, 9, 13),
            Lit("-"),
            Run(DIGIT, 10, 14),
            Lit("-"),
            Run(LOWER, 32, 64),
        ],
        [
            "key: |xapp-¦7-G2Q4JTUCSY5-62267340725-e5t1hmrdctpw5dogjnbtqf9wvpfq0abyi|",
            r#"curl -H "X-Key: |xapp-¦6-SC650GVAWGO-156763263862-4pacc77ep0vt8zve190940z169s35ahlw|""#,
        ],
        [
            "xapp-0-xxxxxxxxx-0000000000-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with xapp- and then letters",
        ],
    ),
    token(
        "slack-config-token",
        &["xoxe.xoxp-", "xoxe.xoxb-", "xoxe-"],
        &[Run(DIGIT, 1, 1), Lit("-"), Run(ALNUM, 100, 180)],
        [
            "key: |xoxe.xoxp-¦2-wcEqEEN2BZGmUDOKpCjvDGvMu4QqHib5OfzpZ09dQSolTE7uk32UI3oisHAsRJO9Dd2L8bB664ipo3ngusZJ5mi4xPw5LnUOTyM5|",
            r#"curl -H "X-Key: |xoxe-¦2-EDwd5sONiEEw8yYBrcoqKVkSJg5jifAooKSiv1T6tGAEa6aWRnWhfmEzZMNdGkLvDEI0pQ4N8AVrRpGe3siEsSfuyfkBZwM9myrQa|""#,
        ],
        [
            "xoxe.xoxp-0-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with xoxe- and then letters",
        ],
    ),
    after(
        "slack-webhook",
        &["hooks.slack.com/services/"],
        &[Run(UPPER, 8, 12), Lit("/"), Run(UPPER, 8, 12), Lit("/"), Run(ALNUM, 20, 26)],
        [
            "hooks.¦slack.com/services/|MBKLYI1KFC/3NG7UAHCX1Y/SoYHUS4LFVifKaUMQrtX|",
            r#""hooks.¦slack.com/services/|LTAZ028O/YQV0CNI3S/LBczZ0MLRFmGn0VQ4NQfh5M|""#,
        ],
        [
            "hooks.slack.com/services/xxxxxxxx/xxxxxxxx/xxxxxxxxxxxxxxxxxxxx",
            "values begin with hooks.slack.com/services/ and then letters",
        ],
    ),
    after(
        "slack-webhook",
        &["hooks.slack.com/workflows/", "hooks.slack.com/triggers/"],
        &[Run(ALNUM, 8, 13), Lit("/"), Run(ALNUM, 8, 20), Lit("/"), Run(ALNUM, 12, 40)],
        [
            "hooks.¦slack.com/workflows/|qf6Vl1Sz2u5/5vJrdPSu/u0ff2fXZrNpz|",
            r#""hooks.¦slack.com/triggers/|TlsYDUg41/h85A21q0m3/5daGST8dioM9|""#,
        ],
        [
            "hooks.slack.com/workflows/xxxxxxxx/xxxxxxxx/xxxxxxxxxxxx",
            "values begin with hooks.slack.com/triggers/ and then letters",
        ],
    ),
    after(
        "slack-webhook",
        &["hooks.slack.com/workflows/"],
        &[
            Run(ALNUM, 8, 13),
            Lit("/"),
            Run(ALNUM, 8, 20),
            Lit("/"),
            Run(DIGIT, 8, 20),
            Lit("/"),
            Run(ALNUM, 16, 40),
        ],
        [
            "hooks.¦slack.com/workflows/|7Eea8OUZ/8bVqGpTtql5/411410228/xEknb90PCDVLeR93Da|",
            r#""hooks.¦slack.com/workflows/|4G5y12LKq/vD5zXClPM/455641452/aKIa2iInnZCAMTQl|""#,
        ],
        [
            "hooks.slack.com/workflows/xxxxxxxx/xxxxxxxx/00000000/xxxxxxxxxxxxxxxx",
            "values begin with hooks.slack.com/workflows/ and then letters",
        ],
    ),
    after(
        "discord-webhook",
        &["discord.com/api/webhooks/", "discordapp.com/api/webhooks/"],
        &[Run(DIGIT, 17, 20), Lit("/"), Run(URL64, 60, 80)],
        [
            "discor¦d.com/api/webhooks/|84594080936150717/yxdnElzsj4xpAYHoEEq48QqapjrtMh7r7EvaNYKl0LxPh226wKQoUxA6CaIBbly|",
            r#""discor¦dapp.com/api/webhooks/|26662037072712816603/QozkA7CH2Md7bBt4ss4JJdzGrOuiouWCxv4s1iN846yFCojMsHN0ubaH6bAtL|""#,
        ],
        [
            "discord.com/api/webhooks/00000000000000000/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with discordapp.com/api/webhooks/ and then letters",
        ],
    ),
    after(
        "teams-webhook",
        &[".webhook.office.com/webhookb2/"],
        &[A_UUID, Lit("@"), A_UUID, Lit("/IncomingWebhook/"), Run(HEX, 32, 32), Lit("/"), A_UUID],
        [
            ".webho¦ok.office.com/webhookb2/|117df778-dd12-0dad-2234-8fbe36b8c7f7@52d0bae6-2f7e-d9bd-857e-271088dd1775|/IncomingWebhook/|42e0cc1477df5bf20f8e9a3ee4baae70/24d34d99-387f-00cc-f764-033d76077d19|",
            r#"".webho¦ok.office.com/webhookb2/|75331aa6-79e3-f77f-4329-100955dffbd5@28ad13cf-19b2-c28d-2698-aac467cdf122|/IncomingWebhook/|0c2c16aa9c7d452fee6b3b885caafadf/e17d38d0-f1fc-a1d3-e02a-72126e8cb831|""#,
        ],
        [
            ".webhook.office.com/webhookb2/00000000-0000-0000-0000-000000000000@00000000-0000-0000-0000-000000000000/IncomingWebhook/00000000000000000000000000000000/00000000-0000-0000-0000-000000000000",
            "values begin with .webhook.office.com/webhookb2/ and then letters",
        ],
    ),
    token(
        "twilio-key",
        &[
            "SK0", "SK1", "SK2", "SK3", "SK4", "SK5", "SK6", "SK7", "SK8", "SK9", "SKa", "SKb",
            "SKc", "SKd", "SKe", "SKf",
        ],
        &[Run(HEX, 31, 31)],
        [
            "key: |SK0¦3c94dabaa00fd9ef0071537f6127aa9|",
            r#"curl -H "X-Key: |SKf¦02d202c547b13e681259a10996cb740|""#,
        ],
        ["SK00000000000000000000000000000000", "values begin with SKf and then letters"],
    ),
    token(
        "sendgrid-key",
        &["SG."],
        &[Run(URL64, 16, 32), Lit("."), Run(URL64, 32, 64)],
        [
            "key: |SG.¦y8hLHbklO5HEK0oSBFd.V4dryvKraFNE0UGf5n4exUq73k5oohbpv|",
            r#"curl -H "X-Key: |SG.¦s8TuDIjShl0sl2XxQ4.yU3H2yswaSs1CVNQRBaePedgYLWzO9CX|""#,
        ],
        [
            "SG.xxxxxxxxxxxxxxxx.xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with SG. and then letters",
        ],
    ),
    token(
        "mailgun-key",
        &["key-", "pubkey-"],
        &[Run(HEX, 32, 32)],
        [
            "key: |key-¦4471bbb8e4d96c596cd7470477c27e48|",
            r#"curl -H "X-Key: |pubkey-¦6d763a348c632f36c683221b40c57fba|""#,
        ],
        ["key-00000000000000000000000000000000", "values begin with pubkey- and then letters"],
    ),
    token(
        "brevo-key",
        &["xkeysib-", "xsmtpsib-"],
        &[Run(HEX, 64, 64), Lit("-"), Run(ALNUM, 16, 16)],
        [
            "key: |xkeysib-¦46297ff83eac7b6e9605ba78eccedf2366a515ef719df8c12a3f4d1289452e8f-V5fN2rgNeHyxG490|",
            r#"curl -H "X-Key: |xsmtpsib-¦aef130acd42a179fe452f9b6826af127fc5d0de7e2d3cd2e2565cd0f4946ae87-kRTF39huPBOJbjay|""#,
        ],
        [
            "xkeysib-0000000000000000000000000000000000000000000000000000000000000000-xxxxxxxxxxxxxxxx",
            "values begin with xsmtpsib- and then letters",
        ],
    ),
    token(
        "resend-key",
        &["re_"],
        &[Run(ALNUM, 8, 8), Lit("_"), Run(ALNUM, 20, 30)],
        [
            "key: |re_¦rwOd8nsf_k6mKhihfsHDvGtwVwNeP|",
            r#"curl -H "X-Key: |re_¦Qt3XUUsT_yFzH0lOfSqCkaX1MZ1dl|""#,
        ],
        ["re_xxxxxxxx_xxxxxxxxxxxxxxxxxxxx", "values begin with re_ and then letters"],
    ),
    token(
        "facebook-token",
        &["EAAM", "EAAC", "EAAB", "EAAG", "EAAJ"],
        &[Run(ALNUM, 80, 400)],
        [
            "key: |EAAM¦H3IbIJiiDev32rrh5pdaLGAvRlKNcJuE5rprSJD2jKBaGV6ql9Yp1b3P2y1lRfewqCI8bMIq4tIqH3KBWwB|",
            r#"curl -H "X-Key: |EAAJ¦ZAmiNPcQZDlagonVquufavcNJuB68tiJHbMB3FBsxaqbgmsFjKjLUawvvOmlSsRbZf5za6o5xYQtNSjAu5w|""#,
        ],
        [
            "EAAMxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with EAAJ and then letters",
        ],
    ),
    token(
        "twitter-bearer",
        &["AAAAAAAAAAAAAAAAAAAAA"],
        &[Run(PERCENT, 60, 130)],
        [
            "key: |AAAAAAAAAAAAAAAAAAAAA¦IXuqQIyi7AkeQJmeM76o8XW7sWCsfFckInu1hKp62Z89AucENeE2kQD5AOqgyQ|",
            r#"curl -H "X-Key: |AAAAAAAAAAAAAAAAAAAAA¦orz7hwTkkgDiH4vOGaEta94CfeOTC7nigNK5SYLLeXm6HNq3RGbESimfxylZQ|""#,
        ],
        [
            "AAAAAAAAAAAAAAAAAAAAAxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with AAAAAAAAAAAAAAAAAAAAA and then letters",
        ],
    ),
    owned(
        "discord-token",
        &["discord"],
        &[Run(ALNUM, 23, 28), Lit("."), Run(URL64, 6, 7), Lit("."), Run(URL64, 27, 40)],
        [
            "DISCORD_BOT_TOKEN=|3pDULpglqhioMjHXhW5XE6X.VFl6HUD.n8fBamRqdXtPXGPt0AFatXagqBus|",
            r#""discord_bot_token": "|TwxY9MDZ3NiNFledY6F1494Zw.6MaKmM.ebFnlUKbJEOep521bd9zeCebtHj|""#,
        ],
        ["DISCORD_BOT_TOKEN=${DISCORD_KEY}", "const discordKey = read_discord_key(config);"],
    ),
    owned(
        "discord-secret",
        &["discord"],
        &[Run(URL64, 32, 32)],
        [
            "DISCORD_CLIENT_SECRET=|K5rkoRXGas3REIxflfUSC331FEHIxpjs|",
            r#""discord_client_secret": "|UsKJ9aKfdslvtxCXoF1qpajqECTQ3SnJ|""#,
        ],
        ["DISCORD_CLIENT_SECRET=${DISCORD_KEY}", "const discordKey = read_discord_key(config);"],
    ),
    owned(
        "discord-key",
        &["discord"],
        &[Run(HEX, 64, 64)],
        [
            "DISCORD_API_KEY=|54aa6ad0db8110f9cc465e1c5a2a38c667527ef43c9b2f7db86a072421c12a02|",
            r#""discord_api_key": "|160b5b9a1866a274e1ba8d202f108c6d9ea2088e06a7526839bfcf1bae2a1d34|""#,
        ],
        ["DISCORD_API_KEY=${DISCORD_KEY}", "const discordKey = read_discord_key(config);"],
    ),
    owned(
        "twilio-token",
        &["twilio"],
        &[Run(HEX, 32, 32)],
        [
            "TWILIO_AUTH_TOKEN=|48e2a8a8182eb3459fec4f29ba51b7c8|",
            r#""twilio_auth_token": "|84ace52f2696cb9cddc022534c202658|""#,
        ],
        ["TWILIO_AUTH_TOKEN=${TWILIO_KEY}", "const twilioKey = read_twilio_key(config);"],
    ),
    owned(
        "mailchimp-key",
        &["mailchimp"],
        &[Run(HEX, 32, 32), Lit("-us"), Run(DIGIT, 1, 2)],
        [
            "MAILCHIMP_API_KEY=|adfcda6f0b2dea7902ab7ce394fba905-us1|",
            r#""mailchimp_api_key": "|3bbff704f2351ec149d57735a84553c8-us77|""#,
        ],
        ["MAILCHIMP_API_KEY=${MAILCHIMP_KEY}", "const mailchimpKey = read_mailchimp_key(config);"],
    ),
    owned(
        "mailgun-key",
        &["mailgun"],
        &[Run(HEX, 32, 32), Lit("-"), Run(HEX, 8, 8), Lit("-"), Run(HEX, 8, 8)],
        [
            "MAILGUN_SIGNING_KEY=|7743ecb1283efb1419396ba6ed694dfb-4b0dad67-bb5ef6e4|",
            r#""mailgun_signing_key": "|5874976ecbc05712fca4c8a328fe9c49-816a0d38-ff65e2d1|""#,
        ],
        ["MAILGUN_SIGNING_KEY=${MAILGUN_KEY}", "const mailgunKey = read_mailgun_key(config);"],
    ),
    owned(
        "postmark-token",
        &["postmark"],
        &[A_UUID],
        [
            "POSTMARK_SERVER_TOKEN=|ecfdf05a-fc4b-eacd-5fb2-ebbbd8499208|",
            r#""postmark_server_token": "|2752144f-e18e-602d-cead-5b810896403f|""#,
        ],
        ["POSTMARK_SERVER_TOKEN=${POSTMARK_KEY}", "const postmarkKey = read_postmark_key(config);"],
    ),
    owned(
        "sparkpost-key",
        &["sparkpost"],
        &[Run(HEX, 40, 40)],
        [
            "SPARKPOST_API_KEY=|7d036f067e24e369b065a4df1a2ef95f6616c7eb|",
            r#""sparkpost_api_key": "|4ec7c56b3014c9a0c021347f40c36b8a8e36e4ac|""#,
        ],
        ["SPARKPOST_API_KEY=${SPARKPOST_KEY}", "const sparkpostKey = read_sparkpost_key(config);"],
    ),
    owned(
        "intercom-token",
        &["intercom"],
        &[Run(LOOSE, 60, 60)],
        [
            "INTERCOM_ACCESS_TOKEN=|F26QiKVbzm5bU4DYiwnTjeOnqaPj7j47qNaxjT45VwRG5HUxpNLwsSsOvFMH|",
            r#""intercom_access_token": "|oeuVfRc1TFlox6LawaBIFcD1rWSNqbDPMw0rxxmv2eQnir86tLuGvbu08qvb|""#,
        ],
        ["INTERCOM_ACCESS_TOKEN=${INTERCOM_KEY}", "const intercomKey = read_intercom_key(config);"],
    ),
    owned(
        "zendesk-key",
        &["zendesk"],
        &[Run(ALNUM, 40, 40)],
        [
            "ZENDESK_API_TOKEN=|FJZCBQAOgzTtX99FEzh5JZYfp5V5BarRqunv1bNq|",
            r#""zendesk_api_token": "|FiwYIoSP4Or2nU5dPKue3QxHfh92XBg9sDvUdHYi|""#,
        ],
        ["ZENDESK_API_TOKEN=${ZENDESK_KEY}", "const zendeskKey = read_zendesk_key(config);"],
    ),
    owned(
        "hubspot-key",
        &["hubspot"],
        &[A_UUID],
        [
            "HUBSPOT_API_KEY=|1aced415-daf7-15f4-9a0d-7eed686f84cd|",
            r#""hubspot_api_key": "|b7b77e39-06c5-45b3-037f-b634fdd88a0f|""#,
        ],
        ["HUBSPOT_API_KEY=${HUBSPOT_KEY}", "const hubspotKey = read_hubspot_key(config);"],
    ),
    token(
        "hubspot-token",
        &["pat-na1-", "pat-na2-", "pat-eu1-", "pat-ap1-"],
        &[A_UUID],
        [
            "key: |pat-na1-¦ecb51fc1-6af0-52fa-7966-f005e25e6a11|",
            r#"curl -H "X-Key: |pat-ap1-¦0591bd61-0c9e-0e9c-2556-6ac0a07ee289|""#,
        ],
        [
            "pat-na1-00000000-0000-0000-0000-000000000000",
            "values begin with pat-ap1- and then letters",
        ],
    ),
    owned(
        "messagebird-key",
        &["messagebird", "message_bird", "message-bird"],
        &[Run(ALNUM, 25, 25)],
        [
            "MESSAGEBIRD_API_KEY=|k1EqnK4jEHux6HOpg7Xnc5Ea9|",
            r#""messagebird_api_key": "|15ONpJhswwLAw2pJ0JhDJrQOa|""#,
        ],
        [
            "MESSAGEBIRD_API_KEY=${MESSAGEBIRD_KEY}",
            "const messagebirdKey = read_messagebird_key(config);",
        ],
    ),
    owned(
        "sendbird-token",
        &["sendbird"],
        &[Run(HEX, 40, 40)],
        [
            "SENDBIRD_API_KEY=|92b68bfc3ad8ac7eed072ffdba6f6e5c73b2b396|",
            r#""sendbird_api_key": "|e57603e0203e708b85be03b02131d33341eadee4|""#,
        ],
        ["SENDBIRD_API_KEY=${SENDBIRD_KEY}", "const sendbirdKey = read_sendbird_key(config);"],
    ),
    owned(
        "mattermost-token",
        &["mattermost"],
        &[Run(LOWER, 26, 26)],
        [
            "MATTERMOST_TOKEN=|rpwaeo82bdbq6kg3syfgqrd632|",
            r#""mattermost_token": "|n1cik1oy9jdpekqeor5wcndv1w|""#,
        ],
        [
            "MATTERMOST_TOKEN=${MATTERMOST_KEY}",
            "const mattermostKey = read_mattermost_key(config);",
        ],
    ),
    owned(
        "facebook-secret",
        &["facebook"],
        &[Run(HEX, 32, 32)],
        [
            "FACEBOOK_APP_SECRET=|34e193e846db541c29dfbbdb2aeee112|",
            r#""facebook_app_secret": "|9271041e0b0c584106e9e6985b4e2e68|""#,
        ],
        ["FACEBOOK_APP_SECRET=${FACEBOOK_KEY}", "const facebookKey = read_facebook_key(config);"],
    ),
    owned(
        "instagram-token",
        &["instagram"],
        &[Run(DOTTED, 40, 255)],
        [
            "INSTAGRAM_ACCESS_TOKEN=|h1UtExD2P99zr0PxDf3NP8VLpFB9PC88pIp6u7942|",
            r#""instagram_access_token": "|1hlFvHSJsn0kkBnYfi0OJTIBji4j9o1LNLhapftB|""#,
        ],
        [
            "INSTAGRAM_ACCESS_TOKEN=${INSTAGRAM_KEY}",
            "const instagramKey = read_instagram_key(config);",
        ],
    ),
    owned(
        "twitter-secret",
        &["twitter"],
        &[Run(ALNUM, 35, 50)],
        [
            "TWITTER_API_SECRET=|uzoP9v1QS8B77yBuuVeh6OXy6TUxgm1BXqJZSS|",
            r#""twitter_api_secret": "|8kOWnbuDKeS6fKQc8XaIFsJAWyAjGuumaAl|""#,
        ],
        ["TWITTER_API_SECRET=${TWITTER_KEY}", "const twitterKey = read_twitter_key(config);"],
    ),
    owned(
        "twitter-token",
        &["twitter"],
        &[Run(DIGIT, 15, 25), Lit("-"), Run(ALNUM, 20, 40)],
        [
            "TWITTER_ACCESS_TOKEN=|50056020034904038-IlbpYNq08q9H5w3ZnWRecy|",
            r#""twitter_access_token": "|8952022696772305-b6ADd2SvU6VNViNkY1Yz9c|""#,
        ],
        ["TWITTER_ACCESS_TOKEN=${TWITTER_KEY}", "const twitterKey = read_twitter_key(config);"],
    ),
    owned(
        "linkedin-secret",
        &["linkedin", "linked_in"],
        &[Run(ALNUM, 16, 16)],
        [
            "LINKEDIN_CLIENT_SECRET=|hIIAZYfi0wgcTu8X|",
            r#""linkedin_client_secret": "|L4duV1owZUiAABDj|""#,
        ],
        [
            "LINKEDIN_CLIENT_SECRET=${LINKEDIN_KEY}",
            "const linkedinKey = read_linkedin_key(config);",
        ],
    ),
    owned(
        "twitch-secret",
        &["twitch"],
        &[Run(LOWER, 30, 30)],
        [
            "TWITCH_CLIENT_SECRET=|gfsse986x2kw23j6jhej3bjlh9yzjl|",
            r#""twitch_client_secret": "|k29c84l9cnk2e61yvjsho7zn85gibe|""#,
        ],
        ["TWITCH_CLIENT_SECRET=${TWITCH_KEY}", "const twitchKey = read_twitch_key(config);"],
    ),
    owned(
        "reddit-secret",
        &["reddit"],
        &[Run(URL64, 20, 40)],
        [
            "REDDIT_CLIENT_SECRET=|vm7nAY1qVPeW6Lj0pPeKZ|",
            r#""reddit_client_secret": "|fDwS8PlhvuWd2YEYZ79Y|""#,
        ],
        ["REDDIT_CLIENT_SECRET=${REDDIT_KEY}", "const redditKey = read_reddit_key(config);"],
    ),
    owned(
        "spotify-secret",
        &["spotify"],
        &[Run(HEX, 32, 32)],
        [
            "SPOTIFY_CLIENT_SECRET=|fe10873f8b2232bc7c822c770f9e0ccf|",
            r#""spotify_client_secret": "|2280550876ca7c0621da20d850b875fb|""#,
        ],
        ["SPOTIFY_CLIENT_SECRET=${SPOTIFY_KEY}", "const spotifyKey = read_spotify_key(config);"],
    ),
    owned(
        "flickr-secret",
        &["flickr"],
        &[Run(HEX, 16, 32)],
        ["FLICKR_API_SECRET=|35e028a3676e34a3|", r#""flickr_api_secret": "|0401a2ed52faba7dda|""#],
        ["FLICKR_API_SECRET=${FLICKR_KEY}", "const flickrKey = read_flickr_key(config);"],
    ),
    owned(
        "nytimes-key",
        &["nytimes", "newyorktimes"],
        &[Run(ALNUM, 32, 32)],
        [
            "NYTIMES_API_KEY=|Rk4uzyffoGjFzFA7A04G1Kuwqf5kKHSg|",
            r#""nytimes_api_key": "|SaFiegJHSddKSltFZbRhnW2KaAXp86TC|""#,
        ],
        ["NYTIMES_API_KEY=${NYTIMES_KEY}", "const nytimesKey = read_nytimes_key(config);"],
    ),
    owned(
        "beamer-key",
        &["beamer"],
        &[Lit("b_"), Run(LOOSE, 44, 44)],
        [
            "BEAMER_API_KEY=|b_Is8zPv9n0hoT10UbWgL4l5vRTKIntbsYqeUtGMDtTQv6|",
            r#""beamer_api_key": "|b_CVPcSx2Tenfn4TIokE3fayHkUyVisiFhlwL0MeB0eoJ3|""#,
        ],
        ["BEAMER_API_KEY=${BEAMER_KEY}", "const beamerKey = read_beamer_key(config);"],
    ),
    owned(
        "line-token",
        &["line_channel"],
        &[Run(BASE64, 100, 200)],
        [
            "LINE_CHANNEL_ACCESS_TOKEN=|IhsErZQ6nlwYt7DZovEgodyMUJHmleeOLK3qXvQ6O4YyBACKpwSMIMPuHrUvLXZ1O5AJ91NCIXsf4ilPfVd7feWIBQ3ymWNTu5mN1|",
            r#""line_channel_access_token": "|UPcjf5XzoeKLdAS6F3H2BveMJFxUrjGe4Myx6iqVmpW2STfVv9ZyeRS2IEpGndvXiIhQcMY8uHTFZ456OimITsAbWS5urcalHZSx|""#,
        ],
        [
            "LINE_CHANNEL_ACCESS_TOKEN=${LINE_CHANNEL_KEY}",
            "const line_channelKey = read_line_channel_key(config);",
        ],
    ),
    owned(
        "zoom-secret",
        &["zoom"],
        &[Run(ALNUM, 32, 32)],
        [
            "ZOOM_CLIENT_SECRET=|7MkSLSFvzCQUtwC5DlD2pnim05FZl6C5|",
            r#""zoom_client_secret": "|UaTK6M2LRgo4iWPSYutURmy94Dj2DGLZ|""#,
        ],
        ["ZOOM_CLIENT_SECRET=${ZOOM_KEY}", "const zoomKey = read_zoom_key(config);"],
    ),
    token(
        "rootly-key",
        &["rootly_"],
        &[Run(HEX, 64, 64)],
        [
            "key: |rootly_¦14aa71ab13df706464b8f8f3b732a141055d490a698bf0f3e546c97139e481f5|",
            r#"curl -H "X-Key: |rootly_¦71754b47d3c8adff6472f7c617bbee7ae182e4cb1876199bd721d8d9709ddbc6|""#,
        ],
        [
            "rootly_0000000000000000000000000000000000000000000000000000000000000000",
            "values begin with rootly_ and then letters",
        ],
    ),
    token(
        "zoho-token",
        &["1000."],
        &[Run(HEX, 32, 32), Lit("."), Run(HEX, 32, 32)],
        [
            "key: |1000.¦3bb409e5001169af202a52fb704d125e.4e561ae9e1eb4a66b73f44216e0a8e5c|",
            r#"curl -H "X-Key: |1000.¦3ac95f0bf7803e89cd7dc21215873108.652f21ee79af75bcb9c5b9a6063bb232|""#,
        ],
        [
            "1000.00000000000000000000000000000000.00000000000000000000000000000000",
            "values begin with 1000. and then letters",
        ],
    ),
    token(
        "salesforce-session",
        &["00D"],
        &[Run(ALNUM, 12, 15), Lit("!"), Run(DOTTED, 80, 200)],
        [
            "key: |00D¦d2gPDbmP7nSfx!IcV6JNqhYJspLm5raOV5cGAk5QAgS465zd1PQ13bjIInB2y5VNRqC7wqGzx4xe9JaA2CC0HTEn6vYeqEX5|",
            r#"curl -H "X-Key: |00D¦xXxz7vmkIq0E!Z5fzMGo973ru38uyqUCOzzdx8BnsKiwzQ5KZHwWcDEfVGEsUpFMhwaNAzpc55bP8oB2GqN4x1FOksEceBDn|""#,
        ],
        [
            "00Dxxxxxxxxxxxx!xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with 00D and then letters",
        ],
    ),
    owned(
        "opsgenie-key",
        &["opsgenie"],
        &[A_UUID],
        [
            "OPSGENIE_API_KEY=|a54e5ab1-d8dd-88ae-2dc3-a9a28a1df71b|",
            r#""opsgenie_api_key": "|86618607-17a9-baa9-869d-d9d65deb284d|""#,
        ],
        ["OPSGENIE_API_KEY=${OPSGENIE_KEY}", "const opsgenieKey = read_opsgenie_key(config);"],
    ),
];
