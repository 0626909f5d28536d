"""The phrases by which explanations name forms, and the phrases that carry nothing."""

import re

from stages.english.word_classes import word_set

_FORM_PHRASES = r"""
roman numerals = roman numerals?
number words = (?:numbers?|numerals?) (?:written|spelled)(?: out)?(?: in| as)? (?:words|letters)|number words?
number words = (?:spelled|written)[- ]out numbers?
ordinals = ordinals?(?: numbers?| words?| numerals?)?
decimals = decimals?(?: numbers?| fractions?)?
years = (?:calendar )?years?(?: numbers?)?|four-digit (?:numbers?|years?)
decades = decades
dates = (?:calendar )?dates
numerals = digits?|numerals?|numeric(?:al)? (?:values?|tokens?|characters?)|arabic numerals?
numbers = (?:cardinal )?numbers?(?! (?:of|signs?)\b)|numeric(?:al)? (?:words?|terms?|expressions?)|number tokens?
months = (?:names? of )?(?:the )?months?(?: of the year)?(?: names?)?
days = (?:names? of )?(?:the )?days?(?: of the week| names?)?|weekdays?(?: names?)?
acronyms = acronyms?|initialisms?|abbreviations?|all[- ](?:caps?|capitals?|capital letters|upper-?case)(?: words?| letters?)?
acronyms = (?:in )?all (?:capital letters|capitals|caps|upper-?case)|upper-?case (?:words?|letters?)
acronyms = fully capitali[sz]ed(?: words?)?
initials = initials
names = proper (?:names?|nouns?)|(?:names? of )(?:people|persons?|individuals?)|named entit(?:y|ies)
names = (?:people's |person |personal |first |last |given |family |full )?names(?! (?:of|for)\b)|surnames|forenames
capitalised = (?:words? )?(?:that )?(?:start(?:ing)?|begin(?:ning)?|written)? ?(?:with )?(?:an? )?(?:initial )?
    (?:capital|upper-?case)(?: first)? letters?
capitalised = capitali[sz]ed(?: words?| letters?| first letters?)?|capitali[sz]ation|title case|initial capitals?|capitals
lower case = lower[- ]?case(?: words?| letters?)?
single letters = (?:single|individual|isolated|lone) (?:letters?|characters?)|letters of the alphabet
past tense = (?:past[- ]tense|past participles?|preterites?)(?: verbs?| forms?)?
past tense = verbs? (?:in )?(?:the )?(?:simple )?past(?: tense)?|past forms? of verbs
-ing = -ing(?: verbs?| words?| forms?)?|gerunds?|present participles?|(?:progressive|continuous) verbs?
plurals = plurals?(?: nouns?| forms?| words?)?
negation = negations?(?: words?| terms?| markers?| particles?)?|negative (?:words?|particles?|adverbs?)|words of negation
negation = negatives|denials?
possessives = possessive (?:pronouns?|determiners?|adjectives?|markers?|forms?|words?)|possessives?
reflexive pronouns = reflexive pronouns?
relative pronouns = relative pronouns?
demonstratives = (?:demonstratives?)(?: pronouns?| determiners?)?
first-person pronouns = first[- ]person(?: pronouns?)?
second-person pronouns = second[- ]person(?: pronouns?)?
third-person pronouns = third[- ]person(?: pronouns?)?
pronouns = (?:personal )?pronouns?
articles = (?:definite |indefinite )?articles?
determiners = determiners?
prepositions = prepositions?
coordinating conjunctions = coordinating conjunctions?
conjunctions = conjunctions?
question words = question words?|interrogatives?(?: words?| pronouns?)?|wh-words?
modal verbs = modals?(?: verbs?| auxiliar(?:y|ies))?|modal auxiliary verbs?
auxiliaries = auxiliar(?:y|ies)(?: verbs?)?|helping verbs?
forms of to be = (?:forms? of )?(?:the )?(?:verb )?to be|copulas?
comparatives = comparatives?(?: adjectives?| forms?| words?)?
superlatives = superlatives?(?: adjectives?| forms?| words?)?
units = (?:units?|words?) of (?:measure(?:ment)?s?|length|weight|distance)|measurement units?|units
quantifiers = quantifiers?
intensifiers = intensifiers?|degree adverbs?
honorifics = honorifics?|titles? of (?:people|address)
connectives = (?:discourse|logical) (?:connectives?|markers?)|connectives?|transition(?:al)? words?|linking words?
function words = function words?|stop ?words?|grammatical words?
adverbs = adverbs?
adjectives = adjectives?
verbs = verbs?
nouns = nouns?
semicolons = semi-?colons?
colons = colons?
commas = commas?
sentence ends = ends? of (?:a |the |each |every )?sentences?|sentence(?:[- ]final)? (?:endings?|ends?|punctuation|terminators?)
sentence ends = sentence-ending punctuation
full stops = (?:full stops?|periods?)
hyphens = hyphens?|dashe?s?|hyphenation
apostrophes = apostrophes?
question marks = question marks?
exclamation marks = exclamation (?:marks?|points?)
quotation marks = (?:opening |closing |double |single )?(?:quotation|quote|speech) marks?|(?:double |single )?quotes|inverted commas
opening parentheses = (?:opening|open|left) (?:parenthes[ei]s|brackets?|round brackets?)
closing parentheses = (?:closing|close|right) (?:parenthes[ei]s|brackets?|round brackets?)
parentheses = parenthes[ei]s|round brackets
brackets = (?:square |curly )?brackets?|braces?
slashes = (?:back|forward )?slash(?:es)?
percent signs = per ?cent(?:age)? (?:signs?|symbols?)
currency signs = (?:currency|dollar|euro|money) (?:signs?|symbols?)
number signs = (?:number|hash|pound) signs?|hash(?:es|tags?)?
at signs = at[- ]signs?
asterisks = asterisks?
underscores = underscores?
equals signs = equals? signs?
ampersands = ampersands?
ellipses = ellips[ei]s
punctuation = punctuation(?: marks?| characters?| symbols?| signs?)?
symbols = (?:special |mathematical )?symbols|special characters?
line breaks = new ?lines?(?: characters?)?|line ?breaks?|carriage returns?|paragraph breaks?|blank lines?|ends? of lines?
white space = white ?space(?: characters?)?|blanks?|spaces?
non-English letters = (?:non-english|foreign|accented|non-ascii|non-latin) (?:letters?|characters?|words?|scripts?)|diacritics?|accents
broken characters = (?:broken|garbled|invalid) (?:characters?|bytes?|text)
hyphenated = hyphenated(?: words?| compounds?)?
contractions = contractions?|contracted forms?
repeated words = repeated (?:words?|tokens?|phrases?)|repetitions?
repeated words = (?:words? )?(?:that )?(?:have )?(?:already )?(?:appeared|occurred|been mentioned)
    (?: before| earlier| already)+(?: in the text)?
long words = long(?:er)? words
short words = short(?:er)? words
"""
"""The phrases for each form. The first form whose phrase is found wins, so the narrower phrases stand first; a line that begins
with white space carries on the one before."""


def _compiled(lines: str) -> dict[str, re.Pattern[str]]:
    """By form, what finds any of its phrases as whole words."""
    phrases: dict[str, list[str]] = {}
    for line in lines.strip().replace("\n    ", "").splitlines():
        form, _, phrase = line.partition(" = ")
        phrases.setdefault(form, []).append(phrase)
    return {form: re.compile(rf"(?<![\w-])(?:{'|'.join(found)})(?![\w-])") for form, found in phrases.items()}


FORM_PHRASES = _compiled(_FORM_PHRASES)
FILTERS = frozenset({
    "past tense", "-ing", "plurals", "capitalised", "names", "acronyms", "comparatives", "superlatives", "adverbs", "lower case",
})  # fmt: skip
"""Forms that go with a meaning: "past-tense verbs of saying"."""
HEADS = frozenset({
    "numbers", "numerals", "years", "dates", "pronouns", "determiners", "prepositions", "question words",
})  # fmt: skip
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
    for form, pattern in FORM_PHRASES.items():
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
