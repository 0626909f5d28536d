"""Which class an English word belongs to: classes of few members by name, inflected words by their endings.

Every function answers for one word in lower case. A vocabulary is a set of common words in lower case, by which an ending is
told from the end of a stem.
"""

from typing import Any

Vocabulary = frozenset[str]


def word_set(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


NUMBER_WORDS = word_set(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion trillion "
    "hundreds thousands millions billions dozen dozens half"
)
IRREGULAR_PAST = word_set(
    "was were had did went said made took came saw knew got gave found thought told became left felt brought began kept "
    "held wrote stood heard meant met ran paid sat spoke lay led grew lost fell sent built understood drew broke spent "
    "drove bought wore chose taught caught fought sought sold won rose threw flew rode swam sang sank shook slept stole "
    "struck stuck swept swore swung tore woke withdrew wound ate bit blew bore bound bred clung crept dealt dug drank fed "
    "fled forgot forgave froze hid hung knelt laid leapt lent lit overcame overthrew proved rang sprang sprung shot shone "
    "shrank slid spun spread stung undertook undid wept underwent forbade arose awoke befell forsook mistook oversaw"
)
CLASSES: dict[str, frozenset[str]] = {
    "articles": word_set("a an the"),
    "relative pronouns": word_set("who whom whose which that where when"),
    "determiners": word_set(
        "a an the this that these those my your his her its our their some any no every each either neither another "
        "such both all"
    ),
    "demonstratives": word_set("this that these those"),
    "possessives": word_set("my your his her its our their mine yours hers ours theirs whose 's ’s"),
    "reflexive pronouns": word_set("myself yourself himself herself itself ourselves yourselves themselves oneself"),
    "pronouns": word_set(
        "i me my mine myself you your yours yourself yourselves he him his himself she her hers herself it its itself we "
        "us our ours ourselves they them their theirs themselves who whom whose one someone somebody anyone anybody "
        "everyone everybody nobody something anything everything nothing"
    ),
    "first-person pronouns": word_set("i me my mine myself we us our ours ourselves"),
    "second-person pronouns": word_set("you your yours yourself yourselves"),
    "third-person pronouns": word_set(
        "he him his himself she her hers herself it its itself they them their theirs themselves"
    ),
    "prepositions": word_set(
        "of in to for with on at by from about as into like through after over between out against during without before "
        "under around among within along across behind beyond near toward towards upon above below beneath beside "
        "besides despite except inside outside off onto since until till throughout via per amid versus concerning "
        "regarding"
    ),
    "conjunctions": word_set(
        "and or but nor so yet for because although though while whereas if unless since until that whether when where "
        "as than once lest"
    ),
    "coordinating conjunctions": word_set("and or but nor yet so"),
    "question words": word_set("who what when where why how which whose whom whether"),
    "modal verbs": word_set(
        "can could may might must shall should will would ought cannot can't couldn't won't wouldn't 'll ’ll"
    ),
    "auxiliaries": word_set(
        "be am is are was were been being have has had having do does did can could may might must shall should will would"
    ),
    "forms of to be": word_set("be am is are was were been being 's ’s 're ’re 'm ’m"),
    "negation": word_set(
        "not no never none nothing nobody neither nor nowhere without cannot can't don't doesn't didn't won't wouldn't "
        "isn't aren't wasn't weren't couldn't shouldn't hasn't haven't hadn't n't hardly barely scarcely non unable lack"
    ),
    "quantifiers": word_set(
        "all some many much few several most more less fewer least any each every both half enough various numerous none"
    ),
    "months": word_set(
        "january february march april may june july august september october november december jan feb mar apr jun jul "
        "aug sep sept oct nov dec"
    ),
    "days": word_set(
        "monday tuesday wednesday thursday friday saturday sunday mon tue tues wed thu thurs fri sat mondays tuesdays "
        "wednesdays thursdays fridays saturdays sundays"
    ),
    "ordinals": word_set(
        "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth "
        "sixteenth seventeenth eighteenth nineteenth twentieth thirtieth fortieth fiftieth sixtieth hundredth thousandth"
    ),
    "units": word_set(
        "km m cm mm mi ft in mile miles kilometre kilometres kilometer kilometers metre metres meter meters foot feet inch "
        "inches yard yards acre acres hectare hectares kg g mg lb lbs oz pound pounds kilogram kilograms gram grams ton "
        "tons tonne tonnes ounce ounces litre litres liter liters gallon gallons degree degrees celsius fahrenheit kelvin "
        "volt volts watt watts hz khz mhz ghz mph kph second seconds minute minutes hour hours day days week weeks month "
        "months year years percent joule joules bytes byte kb mb gb"
    ),
    "intensifiers": word_set(
        "very extremely quite rather too so really highly fairly incredibly absolutely totally especially"
    ),
    "honorifics": word_set(
        "mr mrs ms miss dr sir lord lady king queen prince princess president prof professor general captain saint st"
    ),
    "connectives": word_set(
        "however therefore thus moreover furthermore nevertheless nonetheless hence consequently meanwhile otherwise "
        "instead indeed besides additionally although though"
    ),
}
IRREGULAR_PLURALS = word_set(
    "men women children people feet teeth mice geese oxen criteria phenomena data media lives wolves"
)
NOT_PLURAL = word_set(
    "is was this his has its us as does thus yes always perhaps across various besides plus gas bus virus status basis "
    "series species news politics physics mathematics economics towards afterwards sometimes whereas unless less "
    "previous famous religious serious james charles chris jesus paris texas christmas it's that's let's 's"
)
NOT_PAST = word_set(
    "need seed feed speed bleed breed weed reed heed deed exceed proceed indeed red bed led bred fed sacred"
)
NOT_ING = word_set(
    "king thing ring sing bring wing spring string during something nothing anything everything morning evening "
    "ceiling beijing ping ding sibling"
)
IRREGULAR_COMPARATIVES = word_set(
    "more less better worse further farther elder fewer older larger greater smaller higher lower"
)
IRREGULAR_SUPERLATIVES = word_set("most least best worst furthest farthest eldest fewest")
NOT_ADVERB = word_set(
    "family only early italy july reply supply apply fly daily holy ugly lonely friendly assembly rely monopoly likely"
)
COMMON_ADJECTIVES = word_set(
    "good bad big small large great new old young long short high low early late right wrong same different few own free "
    "full hot cold warm dark light white black red blue green hard soft easy fast slow strong weak rich poor clean dirty "
    "dry wet deep wide thin thick heavy sharp smooth rough sweet happy sad main major minor several whole true false"
)
FUNCTION_WORDS = frozenset[str]().union(
    *(CLASSES[name] for name in ("pronouns", "prepositions", "conjunctions", "determiners", "auxiliaries", "negation")),
    ("also", "there", "then", "than", "more", "most"),
)
"""Words that say nothing of what a text is about."""
COMMON = 1500
"""Words of a vocabulary, from the commonest on, that scores are standardised on."""
ENDINGS = (("ies", "y"), ("es", ""), ("s", ""), ("ed", ""), ("ed", "e"), ("ing", ""), ("ing", "e"))
"""Endings of inflected words, and what uninflected ones have in their place."""


def whole_words(tokenizer: Any) -> list[str]:
    """The whole lower-case English words of a tokenizer's vocabulary, in its order, the commonest first.

    WordPiece vocabularies mark what continues a word by "##", the others what begins one by "▁" or "Ġ".
    """
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    entries = sorted(vocabulary, key=vocabulary.__getitem__)
    marks = ("▁", "Ġ")
    mark = next((mark for mark in marks if sum(e.startswith(mark) for e in entries) > len(entries) // 10), "")
    words = dict.fromkeys(entry.removeprefix(mark) for entry in entries if entry.startswith(mark))
    return [word for word in words if len(word) > 1 and word.isascii() and word.isalpha() and word.islower()]


def content_words(text: str) -> list[str]:
    """Words of a text in lower case that say what it is about."""
    words = "".join(letter if letter.isalnum() or letter in "'’-" else " " for letter in text.lower()).split()
    bare = [word.strip("'’-") for word in words]
    return [word for word in bare if len(word) > 2 and word not in FUNCTION_WORDS and not word.isdigit()]


def stems(word: str) -> list[str]:
    """A word, and what it may be an inflection of."""
    return [word, *(word.removesuffix(ending) + last for ending, last in ENDINGS if word.endswith(ending))]


def _stems(word: str, ending: str) -> list[str]:
    """What may stand before an ending: "stopp" gives "stopp", "stoppe" and "stop"."""
    stem = word[: -len(ending)]
    found = [stem, stem + "e"]
    if len(stem) > 2 and stem[-1] == stem[-2]:
        found.append(stem[:-1])
    if stem.endswith("i"):
        found.append(stem[:-1] + "y")
    return [candidate for candidate in found if len(candidate) > 1]


def is_past(word: str, vocabulary: Vocabulary) -> bool:
    """Past-tense verbs and past participles in -ed, and the irregular past tenses."""
    if word in IRREGULAR_PAST:
        return True
    if not word.endswith("ed") or len(word) < 4 or word in NOT_PAST:
        return False
    return any(stem in vocabulary for stem in _stems(word, "ed")) or (len(word) > 6 and word not in vocabulary)


def is_ing(word: str, vocabulary: Vocabulary) -> bool:
    """Present participles and gerunds."""
    if not word.endswith("ing") or len(word) < 5 or word in NOT_ING:
        return False
    return any(stem in vocabulary for stem in _stems(word, "ing")) or len(word) > 6


def is_plural(word: str, vocabulary: Vocabulary) -> bool:
    """Plural nouns; a verb in the third person looks the same and is taken for one."""
    if word in IRREGULAR_PLURALS:
        return True
    if not word.endswith("s") or word.endswith(("ss", "us", "is", "'s", "’s")) or len(word) < 4 or word in NOT_PLURAL:
        return False
    if word.endswith("ies") and word[:-3] + "y" in vocabulary:
        return True
    singulars = [word[:-1]] + ([word[:-2]] if word.endswith("es") else [])
    return any(singular in vocabulary for singular in singulars) or word not in vocabulary


def is_comparative(word: str, vocabulary: Vocabulary) -> bool:
    """Adjectives in -er that also have an -est, and the irregular ones."""
    regular = word.endswith("er") and len(word) > 4 and word[:-2] + "est" in vocabulary
    return regular or word in IRREGULAR_COMPARATIVES


def is_superlative(word: str, vocabulary: Vocabulary) -> bool:
    """Adjectives in -est that also have an -er, and the irregular ones."""
    regular = word.endswith("est") and len(word) > 5 and word[:-3] + "er" in vocabulary
    return regular or word in IRREGULAR_SUPERLATIVES


def is_adverb(word: str, vocabulary: Vocabulary) -> bool:
    """Adverbs in -ly."""
    if not word.endswith("ly") or len(word) < 5 or word in NOT_ADVERB:
        return False
    stem = word[:-2]
    return len(word) > 6 or any(s in vocabulary for s in (stem, stem + "le", stem[:-1] + "y", stem + "l"))


def is_verb(word: str, vocabulary: Vocabulary) -> bool:
    """Verbs: auxiliaries, past tenses, participles, and words that a participle in -ing exists of."""
    if word in CLASSES["auxiliaries"] or is_past(word, vocabulary) or is_ing(word, vocabulary):
        return True
    if len(word) < 3 or word not in vocabulary or word.endswith("ly"):
        return False
    stem = word[:-1] if word.endswith("s") else word
    return stem.removesuffix("e") + "ing" in vocabulary and stem.removesuffix("e") + "ed" in vocabulary


def is_adjective(word: str, vocabulary: Vocabulary) -> bool:
    """Adjectives by their endings, and some of the commonest."""
    if word in COMMON_ADJECTIVES or is_comparative(word, vocabulary) or is_superlative(word, vocabulary):
        return True
    return len(word) > 5 and word.endswith(
        ("al", "ive", "ous", "ful", "ic", "able", "ible", "less", "ish", "ary", "ant", "ent")
    )


def is_noun(word: str, vocabulary: Vocabulary) -> bool:
    """Words of content that are not told to be anything else."""
    if not word.isalpha() or len(word) < 3 or any(word in members for members in CLASSES.values()):
        return False
    told = is_past(word, vocabulary) or is_ing(word, vocabulary) or is_adverb(word, vocabulary)
    return not told and not is_adjective(word, vocabulary)
