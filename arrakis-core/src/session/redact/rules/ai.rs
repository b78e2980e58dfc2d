//! Models and what is built on them.

use super::{Rule, owned, token};
use crate::session::redact::shape::{A_UUID, ALNUM, HEX, LOWER, Lit, Run, URL64, WORD};

pub(super) const RULES: &[Rule] = &[
    token(
        "anthropic-key",
        &["sk-ant-"],
        &[Run(URL64, 24, 255)],
        [
            "key: |sk-ant-¦BZ3lUmj5KGRLGTEPHajU0Gd6V|",
            r#"curl -H "X-Key: |sk-ant-¦lZEVog4PRBwADZ14cpOkcb4SZ|""#,
        ],
        ["sk-ant-xxxxxxxxxxxxxxxxxxxxxxxx", "values begin with sk-ant- and then letters"],
    ),
    token(
        "openai-key",
        &["sk-proj-", "sk-svcacct-", "sk-admin-", "sk-None-"],
        &[Run(URL64, 32, 255)],
        [
            "key: |sk-proj-¦cmO5gUYTNPPBJSjhA84DUGhsykR8i2UKn|",
            r#"curl -H "X-Key: |sk-None-¦ztzcqJbUw9KG6Rqe40IO4KNpuDE9gdCt|""#,
        ],
        ["sk-proj-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "values begin with sk-None- and then letters"],
    ),
    token(
        "openai-key",
        &["sk-"],
        &[Run(ALNUM, 32, 64)],
        [
            "key: |sk-¦QEc4xiUMcb3QMf8nfn1rUhW1IhQfvrEFsM|",
            r#"curl -H "X-Key: |sk-¦HtvEnup5VvzjHrPHqzokVrA0sAliOvzwk5u|""#,
        ],
        ["sk-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "values begin with sk- and then letters"],
    ),
    token(
        "openrouter-key",
        &["sk-or-v1-", "sk-or-"],
        &[Run(HEX, 48, 64)],
        [
            "key: |sk-or-v1-¦4b6eb619a9482666f16a2e60571f6dfd8fd7c17ca9f0d5acb3|",
            r#"curl -H "X-Key: |sk-or-¦5561690bd31fcaa809cf274b0c8f569582967867f154411eee|""#,
        ],
        [
            "sk-or-v1-000000000000000000000000000000000000000000000000",
            "values begin with sk-or- and then letters",
        ],
    ),
    token(
        "langsmith-key",
        &["lsv2_pt_", "lsv2_sk_"],
        &[Run(HEX, 32, 32), Lit("_"), Run(HEX, 10, 10)],
        [
            "key: |lsv2_pt_¦2e4a081994729ccfa031770d50970c03_90ba324909|",
            r#"curl -H "X-Key: |lsv2_sk_¦fc5be3a2827c1ac9e37aaaadfbad7024_78151b0d83|""#,
        ],
        [
            "lsv2_pt_00000000000000000000000000000000_0000000000",
            "values begin with lsv2_sk_ and then letters",
        ],
    ),
    token(
        "langfuse-key",
        &["sk-lf-"],
        &[A_UUID],
        [
            "key: |sk-lf-¦3609480c-6f3d-e6cf-8d08-af921ebae797|",
            r#"curl -H "X-Key: |sk-lf-¦a6124068-d650-e68b-3079-18377879d82b|""#,
        ],
        ["sk-lf-00000000-0000-0000-0000-000000000000", "values begin with sk-lf- and then letters"],
    ),
    token(
        "huggingface-token",
        &["hf_", "api_org_"],
        &[Run(ALNUM, 30, 40)],
        [
            "key: |hf_¦gKVdCGn0uTnge1RJcJi2Zw9gv25ZjNf|",
            r#"curl -H "X-Key: |api_org_¦vVqoH08sZSqbbZAELaogmwKMzHDiEyGi|""#,
        ],
        ["hf_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "values begin with api_org_ and then letters"],
    ),
    token(
        "groq-key",
        &["gsk_"],
        &[Run(ALNUM, 40, 64)],
        [
            "key: |gsk_¦0QbmnVQs9QpKnWJJQhJreH8kqpUJQFI3wALLAoybrip|",
            r#"curl -H "X-Key: |gsk_¦388wdeIh7x6m7XuSh9eqLnumHvR0kz45n6RPi60s|""#,
        ],
        ["gsk_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "values begin with gsk_ and then letters"],
    ),
    token(
        "xai-key",
        &["xai-"],
        &[Run(ALNUM, 64, 90)],
        [
            "key: |xai-¦n5avWFjV5GFfuMZfoe1vc82h7w3i2r7k9bnpm7zqH4ClrYTcrHAVF2NnvIiSV6T9vcS|",
            r#"curl -H "X-Key: |xai-¦shk62OgYOOKjTfdCM3ADxfP75kDygmfzXtj9HwQ0GTnRfV9r34CwI1L5m1PpeO54YsW|""#,
        ],
        [
            "xai-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with xai- and then letters",
        ],
    ),
    token(
        "perplexity-key",
        &["pplx-"],
        &[Run(ALNUM, 40, 64)],
        [
            "key: |pplx-¦G2IS79KXVd4x6BS3nugYqVlbiAdJV33ARLPIzfv4|",
            r#"curl -H "X-Key: |pplx-¦D4YEAbKxJE5MU2oNMkNodoAZAiJi604PfAjQLsi8OR|""#,
        ],
        [
            "pplx-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with pplx- and then letters",
        ],
    ),
    token(
        "replicate-token",
        &["r8_"],
        &[Run(ALNUM, 36, 40)],
        [
            "key: |r8_¦Bv4XTSychdMMQpurrjTf3pdQChOy8ZbZg7o93T|",
            r#"curl -H "X-Key: |r8_¦FcnsanZZsrPVujCb2V91TMZg0Q08FEP4I3NdSF|""#,
        ],
        ["r8_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "values begin with r8_ and then letters"],
    ),
    token(
        "fireworks-key",
        &["fw_"],
        &[Run(ALNUM, 22, 48)],
        [
            "key: |fw_¦2qIiQbKLeaco8ovK6CGB5p|",
            r#"curl -H "X-Key: |fw_¦aHSSyBGtlPObGUdOFX7YN0f4S|""#,
        ],
        ["fw_xxxxxxxxxxxxxxxxxxxxxx", "values begin with fw_ and then letters"],
    ),
    token(
        "together-key",
        &["tgp_v1_"],
        &[Run(URL64, 40, 64)],
        [
            "key: |tgp_v1_¦VfbUubeXBHjMUIQT7U71PjERRBv9Y7D7rC9v56IFF|",
            r#"curl -H "X-Key: |tgp_v1_¦xxifuLMkeoLN5wxkIkvA4MwoKT5SCPXGzbTGuVswE4|""#,
        ],
        [
            "tgp_v1_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with tgp_v1_ and then letters",
        ],
    ),
    token(
        "deepgram-key",
        &["dg_"],
        &[Run(ALNUM, 40, 40)],
        [
            "key: |dg_¦ulWEp3Fr8SOoGfrh3zJnElHskzrZZQjMnFk58j8p|",
            r#"curl -H "X-Key: |dg_¦rgGm7ZkTRYaLeX895HnRa5yEYSXuWG0gf7029YIb|""#,
        ],
        ["dg_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "values begin with dg_ and then letters"],
    ),
    token(
        "elevenlabs-key",
        &["sk_"],
        &[Run(HEX, 48, 48)],
        [
            "key: |sk_¦e15f93fd61a0736ac3a33fc51c7d8525679868094d9b2ada|",
            r#"curl -H "X-Key: |sk_¦0029f6fac72e7b4cb67e8b808bc401ce2b8dd8b0f90cbe0f|""#,
        ],
        [
            "sk_000000000000000000000000000000000000000000000000",
            "values begin with sk_ and then letters",
        ],
    ),
    token(
        "stability-key",
        &["sk-stab-"],
        &[Run(ALNUM, 40, 64)],
        [
            "key: |sk-stab-¦WcDNuss0lJgtQK89nJSjAAwcvLC1iaJ8KfIYCoaXX4|",
            r#"curl -H "X-Key: |sk-stab-¦QPrrrkmMwd6ZwpYtbGxV8pYsWda3QjirdX2L8yVyP9D|""#,
        ],
        [
            "sk-stab-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with sk-stab- and then letters",
        ],
    ),
    token(
        "nvidia-key",
        &["nvapi-"],
        &[Run(URL64, 60, 80)],
        [
            "key: |nvapi-¦jDotEkDis9LOh70vjzEdSebcMHsqa0vqmPg55AAD44XJbbYjzLvtyp8WpIjKMl|",
            r#"curl -H "X-Key: |nvapi-¦kvz6SXWBuVnKXyZs53I3UVdaWhf2y1KtvuC295VR9Q9k0AZhsFYigeZ5e60Q|""#,
        ],
        [
            "nvapi-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with nvapi- and then letters",
        ],
    ),
    token(
        "pinecone-key",
        &["pcsk_"],
        &[Run(WORD, 50, 90)],
        [
            "key: |pcsk_¦rLR9zSHQzFi4NsRZrTRvJJZXaDG7GWsbE8yv8o5jjuOXXxMH2n|",
            r#"curl -H "X-Key: |pcsk_¦KdUy5mb8boF3Wdmnaa9XglZkTaFZaxiQi6NKR9gRFB143SrCrJY|""#,
        ],
        [
            "pcsk_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with pcsk_ and then letters",
        ],
    ),
    token(
        "tavily-key",
        &["tvly-", "tvly-dev-"],
        &[Run(ALNUM, 20, 48)],
        [
            "key: |tvly-¦jh4QLlnf5LWfcD1QFKiMFFd|",
            r#"curl -H "X-Key: |tvly-dev-¦ViZcz5Bds00m5wDyrQq57DO|""#,
        ],
        ["tvly-xxxxxxxxxxxxxxxxxxxx", "values begin with tvly-dev- and then letters"],
    ),
    token(
        "cerebras-key",
        &["csk-"],
        &[Run(LOWER, 40, 64)],
        [
            "key: |csk-¦2e71lnk9o2a8iz6348enuezktqcq7zf0zwhibhkfuor|",
            r#"curl -H "X-Key: |csk-¦3c2mpyi9fb68zvq3d457q8uugut6coijwuyc2y2en|""#,
        ],
        ["csk-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "values begin with csk- and then letters"],
    ),
    token(
        "voyage-key",
        &["pa-"],
        &[Run(URL64, 40, 48)],
        [
            "key: |pa-¦iHG84lL9EKCiqc4gfWEJUpd2EHPt7EiaaGXUyGaGNbA|",
            r#"curl -H "X-Key: |pa-¦mhu8rv91YU9PNShH7IZVr1FDcqXipUuVzuWgFK0K7aK|""#,
        ],
        ["pa-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "values begin with pa- and then letters"],
    ),
    token(
        "jina-key",
        &["jina_"],
        &[Run(URL64, 50, 70)],
        [
            "key: |jina_¦yIOPI2u3NIx5btZ2ZMnF4o5XeNNqVw81UzKhvWoe7FLznYUoQM|",
            r#"curl -H "X-Key: |jina_¦UgUshcm47V83siqwujT1R39opz5CarGH6TxTn6ZtMng7PEL7Vrosv|""#,
        ],
        [
            "jina_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with jina_ and then letters",
        ],
    ),
    token(
        "anyscale-key",
        &["esecret_"],
        &[Run(ALNUM, 24, 40)],
        [
            "key: |esecret_¦eP6M5u43YbMBlwmZs7d2lkvz|",
            r#"curl -H "X-Key: |esecret_¦jt7SKZl4rkeHrm4rsd3AJW6vP|""#,
        ],
        ["esecret_xxxxxxxxxxxxxxxxxxxxxxxx", "values begin with esecret_ and then letters"],
    ),
    token(
        "wandb-key",
        &["wandb_v1_"],
        &[Run(WORD, 40, 90)],
        [
            "key: |wandb_v1_¦pXla3f6HSUi4mjcB8Y5JXNnJ643b9WDLud1WB0R1Zn|",
            r#"curl -H "X-Key: |wandb_v1_¦eWUyaiYjhyQ2PVTFaXvni4lI42LoM1g27p6MfJMxaD|""#,
        ],
        [
            "wandb_v1_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "values begin with wandb_v1_ and then letters",
        ],
    ),
    owned(
        "cohere-key",
        &["cohere", "co_api"],
        &[Run(ALNUM, 40, 40)],
        [
            "COHERE_API_KEY=|YMnR2C4Q2FcUuRI7AjlyKfPn1AALI17Nnlo1AZpl|",
            r#""cohere_api_key": "|9ktj8UYoJcMkZ2hWzgf8y3ucrh5TkSd41q9cm1iz|""#,
        ],
        ["COHERE_API_KEY=${COHERE_KEY}", "const cohereKey = read_cohere_key(config);"],
    ),
    owned(
        "mistral-key",
        &["mistral"],
        &[Run(ALNUM, 32, 32)],
        [
            "MISTRAL_API_KEY=|m6SUPKtMovvj99cFNgPrg2iQgWo5G5AF|",
            r#""mistral_api_key": "|udvOTbQSGUEVdZt4T0xKmCo0R19y0IhY|""#,
        ],
        ["MISTRAL_API_KEY=${MISTRAL_KEY}", "const mistralKey = read_mistral_key(config);"],
    ),
    owned(
        "together-key",
        &["together"],
        &[Run(HEX, 64, 64)],
        [
            "TOGETHER_API_KEY=|dff27167c85c451e1e390d8067cda00a190075f1c49e3c5ef63930f81a1ae14f|",
            r#""together_api_key": "|5e2029b20220fe15624776a5a08ff420528613ecd701700038354fb6b863b8eb|""#,
        ],
        ["TOGETHER_API_KEY=${TOGETHER_KEY}", "const togetherKey = read_together_key(config);"],
    ),
    owned(
        "deepseek-key",
        &["deepseek"],
        &[Run(ALNUM, 32, 64)],
        [
            "DEEPSEEK_API_KEY=|jAVwDLFA9sMbI35N5q8kLDMbWPYmblFW8UW|",
            r#""deepseek_api_key": "|a6E4KIPKV6ATsZNS7cIDNRbDnVhVOrwyN|""#,
        ],
        ["DEEPSEEK_API_KEY=${DEEPSEEK_KEY}", "const deepseekKey = read_deepseek_key(config);"],
    ),
    owned(
        "wandb-key",
        &["wandb"],
        &[Run(HEX, 40, 40)],
        [
            "WANDB_API_KEY=|7f04018326664b54be56b11171bc07c26d5ef651|",
            r#""wandb_api_key": "|aee551e55e7a028dcd280a8dffebce885ec02617|""#,
        ],
        ["WANDB_API_KEY=${WANDB_KEY}", "const wandbKey = read_wandb_key(config);"],
    ),
    owned(
        "elevenlabs-key",
        &["elevenlabs", "eleven_labs"],
        &[Run(HEX, 32, 32)],
        [
            "ELEVENLABS_API_KEY=|d268ce1b745741bd313da244b11d91da|",
            r#""elevenlabs_api_key": "|c883d793170955e7955eb920ea952cd4|""#,
        ],
        [
            "ELEVENLABS_API_KEY=${ELEVENLABS_KEY}",
            "const elevenlabsKey = read_elevenlabs_key(config);",
        ],
    ),
    owned(
        "assemblyai-key",
        &["assemblyai"],
        &[Run(HEX, 32, 32)],
        [
            "ASSEMBLYAI_API_KEY=|02ef698c85eaa44df54a879a683fe54c|",
            r#""assemblyai_api_key": "|4f61c011f1b2bd614192534553ece9ef|""#,
        ],
        [
            "ASSEMBLYAI_API_KEY=${ASSEMBLYAI_KEY}",
            "const assemblyaiKey = read_assemblyai_key(config);",
        ],
    ),
    owned(
        "deepgram-key",
        &["deepgram"],
        &[Run(HEX, 40, 40)],
        [
            "DEEPGRAM_API_KEY=|59beb3e94f91df7ee61877f9a6c0d1358afdb66a|",
            r#""deepgram_api_key": "|7a5223dac11dd97c75c7c9734f84d53b5c32926c|""#,
        ],
        ["DEEPGRAM_API_KEY=${DEEPGRAM_KEY}", "const deepgramKey = read_deepgram_key(config);"],
    ),
    owned(
        "private-ai-key",
        &["privateai", "private_ai", "private-ai"],
        &[Run(LOWER, 32, 32)],
        [
            "PRIVATEAI_API_KEY=|z24aebkbzes58y1f5g1a0zk7o9gzzml3|",
            r#""privateai_api_key": "|mii95r7m8gd1pcq9oovbycz7uyh9gkrw|""#,
        ],
        ["PRIVATEAI_API_KEY=${PRIVATEAI_KEY}", "const privateaiKey = read_privateai_key(config);"],
    ),
];
