//! Tells words from random letters.

/// How much more often a letter (the column) follows another (the row) in words than in random text, in
/// powers of two: `e` is as often, `f` twice as often, `d` half as often. Counted in the identifiers and
/// comments of public Rust sources.
const PAIRS: [&[u8; 26]; 26] = [
    b"beffaceaeacgefaeagfgdcbcda",
    b"gcecfcbagcagdbfcaefdfbaada",
    b"gbecfcdfeafeccgcaeefecaaca",
    b"fccehdcbgbaeccfcaffdecbbca",
    b"ecfgdddacabeegcdcggfbdceba",
    b"fcdefgcagaafccfdaffeeabada",
    b"ecdbhbdffabedfedagfdebbaba",
    b"gabdhbbagabcdcgcaedeeacadb",
    b"edfeeeeaaabeehfdadffaeacad",
    b"fbbahccceaeacbgdacgcgabaaa",
    b"eddehdcbgaadceddcdgedabaca",
    b"gbcegcbagacfcbgcabeedbaafa",
    b"gecchbbagabcebfgacedeaaaba",
    b"fbfffegbeaddbdfcabfgddaaca",
    b"cdfebddadacefgefageefdebaa",
    b"gbdcgbcefacfcbffagefebbaca",
    b"dcdeebcacaafddccaeechbcaaa",
    b"gbdehccagaddedfdaeffdcbada",
    b"ebebgbcegaddcceebcfgfbcadb",
    b"fbdcgcbegaadccfdaffeebbcea",
    b"eeededdaeaaffgcfafggaaacaa",
    b"gbdchdbbgaaddcecacddaaacaa",
    b"gbddgcbfgaadcffcafedbacbaa",
    b"fcfdgebdfaaddbdgcddgdcccca",
    b"edecfddbfaaefgegadgebcdabc",
    b"facbhbcafaaddaeaaaeabcbade",
];

/// The runs of letters in `value`, parted where a word of camel case begins.
pub(super) fn segments(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < value.len() && !value[at].is_ascii_alphabetic() {
            at += 1;
        }
        let start = at;
        let upper = |at: usize| value.get(at).is_some_and(u8::is_ascii_uppercase);
        let lower = |at: usize| value.get(at).is_some_and(u8::is_ascii_lowercase);
        while upper(at) && !(at > start && lower(at + 1)) {
            at += 1;
        }
        if at - start <= 1 {
            while lower(at) {
                at += 1;
            }
        }
        (at > start).then(|| &value[start..at])
    })
}

/// Whether a run of letters reads like a word.
pub(super) fn is_wordlike(run: &[u8]) -> bool {
    if run.len() < 3 {
        return false;
    }
    let letter = |byte: u8| usize::from(byte.to_ascii_lowercase() - b'a');
    let weight = |pair: &[u8]| i32::from(PAIRS[letter(pair[0])][letter(pair[1])]) - i32::from(b'e');
    let spoken = run.len() < 4 || run.iter().any(|byte| b"aeiouyAEIOUY".contains(byte));
    spoken && run.windows(2).map(weight).sum::<i32>() >= 0
}
