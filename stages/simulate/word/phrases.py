"""The phrases by which explanations name forms, and the phrases that carry nothing."""

import re

from stages.english.word_classes import word_set

FORM_PHRASES: tuple[tuple[str, str], ...] = (
    # The first that matches wins, so the narrower phrases stand first.
    (r"roman numerals?", "roman numerals"),
    (
        r"(?:numbers?|numerals?) (?:written|spelled)(?: out)?(?: in| as)? (?:words|letters)|number words?"
        r"|(?:spelled|written)[- ]out numbers?",
        "number words",
    ),
    (r"ordinals?(?: numbers?| words?| numerals?)?", "ordinals"),
    (r"decimals?(?: numbers?| fractions?)?", "decimals"),
    (r"(?:calendar )?years?(?: numbers?)?|four-digit (?:numbers?|years?)", "years"),
    (r"decades", "decades"),
    (r"(?:calendar )?dates", "dates"),
    (r"digits?|numerals?|numeric(?:al)? (?:values?|tokens?|characters?)|arabic numerals?", "numerals"),
    (
        r"(?:cardinal )?numbers?(?! (?:of|signs?)\b)|numeric(?:al)? (?:words?|terms?|expressions?)|number tokens?",
        "numbers",
    ),
    (r"(?:names? of )?(?:the )?months?(?: of the year)?(?: names?)?", "months"),
    (r"(?:names? of )?(?:the )?days?(?: of the week| names?)?|weekdays?(?: names?)?", "days"),
    (
        r"acronyms?|initialisms?|abbreviations?|all[- ](?:caps?|capitals?|capital letters|upper-?case)(?: words?| letters?)?"
        r"|(?:in )?all (?:capital letters|capitals|caps|upper-?case)|upper-?case (?:words?|letters?)|fully capitali[sz]ed(?: words?)?",
        "acronyms",
    ),
    (r"initials", "initials"),
    (
        r"proper (?:names?|nouns?)|(?:names? of )(?:people|persons?|individuals?)|named entit(?:y|ies)"
        r"|(?:people's |person |personal |first |last |given |family |full )?names(?! (?:of|for)\b)|surnames|forenames",
        "names",
    ),
    (
        r"(?:words? )?(?:that )?(?:start(?:ing)?|begin(?:ning)?|written)? ?(?:with )?(?:an? )?(?:initial )?(?:capital|upper-?case)"
        r"(?: first)? letters?|capitali[sz]ed(?: words?| letters?| first letters?)?|capitali[sz]ation|title case|initial capitals?"
        r"|capitals",
        "capitalised",
    ),
    (r"lower[- ]?case(?: words?| letters?)?", "lower case"),
    (r"(?:single|individual|isolated|lone) (?:letters?|characters?)|letters of the alphabet", "single letters"),
    (
        r"(?:past[- ]tense|past participles?|preterites?)(?: verbs?| forms?)?|verbs? (?:in )?(?:the )?(?:simple )?past(?: tense)?"
        r"|past forms? of verbs",
        "past tense",
    ),
    (r"-ing(?: verbs?| words?| forms?)?|gerunds?|present participles?|(?:progressive|continuous) verbs?", "-ing"),
    (r"plurals?(?: nouns?| forms?| words?)?", "plurals"),
    (
        r"negations?(?: words?| terms?| markers?| particles?)?|negative (?:words?|particles?|adverbs?)|words of negation|negatives"
        r"|denials?",
        "negation",
    ),
    (r"possessive (?:pronouns?|determiners?|adjectives?|markers?|forms?|words?)|possessives?", "possessives"),
    (r"reflexive pronouns?", "reflexive pronouns"),
    (r"relative pronouns?", "relative pronouns"),
    (r"(?:demonstratives?)(?: pronouns?| determiners?)?", "demonstratives"),
    (r"first[- ]person(?: pronouns?)?", "first-person pronouns"),
    (r"second[- ]person(?: pronouns?)?", "second-person pronouns"),
    (r"third[- ]person(?: pronouns?)?", "third-person pronouns"),
    (r"(?:personal )?pronouns?", "pronouns"),
    (r"(?:definite |indefinite )?articles?", "articles"),
    (r"determiners?", "determiners"),
    (r"prepositions?", "prepositions"),
    (r"coordinating conjunctions?", "coordinating conjunctions"),
    (r"conjunctions?", "conjunctions"),
    (r"question words?|interrogatives?(?: words?| pronouns?)?|wh-words?", "question words"),
    (r"modals?(?: verbs?| auxiliar(?:y|ies))?|modal auxiliary verbs?", "modal verbs"),
    (r"auxiliar(?:y|ies)(?: verbs?)?|helping verbs?", "auxiliaries"),
    (r"(?:forms? of )?(?:the )?(?:verb )?to be|copulas?", "forms of to be"),
    (r"comparatives?(?: adjectives?| forms?| words?)?", "comparatives"),
    (r"superlatives?(?: adjectives?| forms?| words?)?", "superlatives"),
    (r"(?:units?|words?) of (?:measure(?:ment)?s?|length|weight|distance)|measurement units?|units", "units"),
    (r"quantifiers?", "quantifiers"),
    (r"intensifiers?|degree adverbs?", "intensifiers"),
    (r"honorifics?|titles? of (?:people|address)", "honorifics"),
    (
        r"(?:discourse|logical) (?:connectives?|markers?)|connectives?|transition(?:al)? words?|linking words?",
        "connectives",
    ),
    (r"function words?|stop ?words?|grammatical words?", "function words"),
    (r"adverbs?", "adverbs"),
    (r"adjectives?", "adjectives"),
    (r"verbs?", "verbs"),
    (r"nouns?", "nouns"),
    (r"semi-?colons?", "semicolons"),
    (r"colons?", "colons"),
    (r"commas?", "commas"),
    (
        r"ends? of (?:a |the |each |every )?sentences?"
        r"|sentence(?:[- ]final)? (?:endings?|ends?|punctuation|terminators?)|sentence-ending punctuation",
        "sentence ends",
    ),
    (r"(?:full stops?|periods?)", "full stops"),
    (r"hyphens?|dashe?s?|hyphenation", "hyphens"),
    (r"apostrophes?", "apostrophes"),
    (r"question marks?", "question marks"),
    (r"exclamation (?:marks?|points?)", "exclamation marks"),
    (
        r"(?:opening |closing |double |single )?(?:quotation|quote|speech) marks?|(?:double |single )?quotes|inverted commas",
        "quotation marks",
    ),
    (r"(?:opening|open|left) (?:parenthes[ei]s|brackets?|round brackets?)", "opening parentheses"),
    (r"(?:closing|close|right) (?:parenthes[ei]s|brackets?|round brackets?)", "closing parentheses"),
    (r"parenthes[ei]s|round brackets", "parentheses"),
    (r"(?:square |curly )?brackets?|braces?", "brackets"),
    (r"(?:back|forward )?slash(?:es)?", "slashes"),
    (r"per ?cent(?:age)? (?:signs?|symbols?)", "percent signs"),
    (r"(?:currency|dollar|euro|money) (?:signs?|symbols?)", "currency signs"),
    (r"(?:number|hash|pound) signs?|hash(?:es|tags?)?", "number signs"),
    (r"at[- ]signs?", "at signs"),
    (r"asterisks?", "asterisks"),
    (r"underscores?", "underscores"),
    (r"equals? signs?", "equals signs"),
    (r"ampersands?", "ampersands"),
    (r"ellips[ei]s", "ellipses"),
    (r"punctuation(?: marks?| characters?| symbols?| signs?)?", "punctuation"),
    (r"(?:special |mathematical )?symbols|special characters?", "symbols"),
    (
        r"new ?lines?(?: characters?)?|line ?breaks?|carriage returns?|paragraph breaks?|blank lines?|ends? of lines?",
        "line breaks",
    ),
    (r"white ?space(?: characters?)?|blanks?|spaces?", "white space"),
    (
        r"(?:non-english|foreign|accented|non-ascii|non-latin) (?:letters?|characters?|words?|scripts?)|diacritics?|accents",
        "non-English letters",
    ),
    (r"(?:broken|garbled|invalid) (?:characters?|bytes?|text)", "broken characters"),
    (r"hyphenated(?: words?| compounds?)?", "hyphenated"),
    (r"contractions?|contracted forms?", "contractions"),
    (
        r"repeated (?:words?|tokens?|phrases?)|repetitions?|(?:words? )?(?:that )?(?:have )?(?:already )?"
        r"(?:appeared|occurred|been mentioned)(?: before| earlier| already)+(?: in the text)?",
        "repeated words",
    ),
    (r"long(?:er)? words", "long words"),
    (r"short(?:er)? words", "short words"),
)
FORM_PATTERNS = tuple((re.compile(rf"(?<![\w-])(?:{pattern})(?![\w-])"), form) for pattern, form in FORM_PHRASES)

FILTERS = frozenset(
    {
        "past tense",
        "-ing",
        "plurals",
        "capitalised",
        "names",
        "acronyms",
        "comparatives",
        "superlatives",
        "adverbs",
        "lower case",
    }
)
"""Forms that go with a meaning: "past-tense verbs of saying"."""
HEADS = frozenset(
    {"numbers", "numerals", "years", "dates", "pronouns", "determiners", "prepositions", "question words"}
)
"""Forms that keep their sense where more is said of them after: "numbers in sports results"."""
PARTS_OF_SPEECH = frozenset({"verbs", "nouns", "adjectives"})
"""Told poorly by form: used only where nothing else is said."""

EMPTY_WORDS = word_set(
    """
    the a an any all some various certain common specific english such of with other different types type kinds
    kind forms form used use uses occurrences occurrence instances instance mentions particularly especially
    mostly mainly often usually generally typically in text texts words word tokens token terms term phrases
    phrase characters character symbol signs sign mark marks names themselves itself that are is being as and or
    like e.g including for both every each single whole entire individual strings string expressions when which
    standing appearing occurring found anything everything something every references reference mention related
    relating to indicating expressing denoting describing involving about associated concepts specifically
    pieces piece
    """
)
"""Words of an explanation that say nothing of their own."""

_SUBJECT = r"(?:this|the|that|it|an?)?\s*(?:neuron|unit|feature|latent|node|direction|module|it)"
_DEGREE = (
    r"(?:strongly|mainly|mostly|primarily|chiefly|typically|usually|often|generally|specifically|especially|highly|very|most"
    r"|frequently|consistently|also|seems? to|appears? to|tends? to|likely|probably)"
)
_VERB = (
    r"(?:fires?|activates?|responds?|reacts?|detects?|finds?|looks? for|attends? to|recogni[sz]es?|identif(?:y|ies)|represents?"
    r"|encodes?|tracks?|captures?|picks? up|spikes?|lights? up|is (?:\w+ )?(?:active|activated|sensitive|selective|triggered"
    r"|tuned|specialized|specialised|responsive)|finding|detecting|firing|activating|responding|looking for|find)"
)
BOILERPLATE = re.compile(
    rf"^\s*(?:explanation\s*:)?\s*(?:the main thing (?:that )?)?(?:{_SUBJECT}\s+)?(?:does\s+is\s+)?(?:{_DEGREE}\s+)*"
    rf"(?:{_VERB})\s+(?:{_DEGREE}\s+)*(?:(?:on|for|to|at|by|in response to|with|when it (?:sees|reads)|whenever|when)\s+)?",
    re.IGNORECASE,
)
INTRODUCTIONS = re.compile(
    r"^\s*(?:the |any |all |some |various |certain |other |mentions? of |references? to |occurrences? of |instances? of |presence of )*"
    r"(?:(?:words?|tokens?|terms?|phrases?|concepts?|nouns?|vocabulary|things|text|language|content|topics?|expressions?)"
    r"(?: (?:and|or|/) (?:words?|phrases?|concepts?|terms?|tokens?|names|ideas))?\s+)?"
    r"(?:that |which |(?:are |is )?(?:closely |strongly |generally )?)?"
    r"(?:(?:are |is )?(?:related|relating|connected|associated|linked|pertaining)(?: to| with)|about|concerning|involving|regarding"
    r"|denoting|describing|meaning|mean|describe|denote|refer to|referring to|having to do with|have to do with|to do with"
    r"|indicating|indicate|expressing|express|naming|name|names? (?:of|for)|for|of|like)\s+",
    re.IGNORECASE,
)
"""What may stand before the subject matter: "words related to"."""


def read_forms(text: str) -> tuple[tuple[str, ...], str]:
    """The forms that a phrase names, and the phrase itself if it also has a meaning of its own."""
    rest = text.lower()
    forms: list[str] = []
    for pattern, form in FORM_PATTERNS:
        match = pattern.search(rest)
        if match and match.group().strip():
            leading = not _content(rest[: match.start()])
            following = _content(rest[match.end() :])
            alone = leading and not following
            if alone or form in FILTERS or (form in HEADS and leading):
                forms.append(form)
                rest = rest[: match.start()] + " " + rest[match.end() :]
    left = _content(rest)
    if left and any(form in PARTS_OF_SPEECH for form in forms):
        forms = [form for form in forms if form not in PARTS_OF_SPEECH]
    return tuple(forms), text.strip(" .,:-") if left else ""


def _content(text: str) -> list[str]:
    """The words of a phrase that say something."""
    return [word for word in re.findall(r"[^\W_]+(?:[.'-][^\W_]+)*", text) if word not in EMPTY_WORDS]
