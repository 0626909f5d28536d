"""Inflected English words, told by their endings and by whether what is left is a word.

The vocabulary is a set of common words in lower case; every function answers for one word in lower case.
"""

from stages.english import word_classes

Vocabulary = frozenset[str]


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
    if word in word_classes.IRREGULAR_PAST:
        return True
    if not word.endswith("ed") or len(word) < 4 or word in word_classes.NOT_PAST:
        return False
    return any(stem in vocabulary for stem in _stems(word, "ed")) or (len(word) > 6 and word not in vocabulary)


def is_ing(word: str, vocabulary: Vocabulary) -> bool:
    """Present participles and gerunds."""
    if not word.endswith("ing") or len(word) < 5 or word in word_classes.NOT_ING:
        return False
    return any(stem in vocabulary for stem in _stems(word, "ing")) or len(word) > 6


def is_plural(word: str, vocabulary: Vocabulary) -> bool:
    """Plural nouns; a verb in the third person looks the same and is taken for one."""
    if word in word_classes.IRREGULAR_PLURALS:
        return True
    if (
        not word.endswith("s")
        or len(word) < 4
        or word in word_classes.NOT_PLURAL
        or word.endswith(("ss", "us", "is", "'s", "’s"))
    ):
        return False
    if word.endswith("ies") and word[:-3] + "y" in vocabulary:
        return True
    singulars = [word[:-1]] + ([word[:-2]] if word.endswith("es") else [])
    return any(singular in vocabulary for singular in singulars) or word not in vocabulary


def is_comparative(word: str, vocabulary: Vocabulary) -> bool:
    """Adjectives in -er that also have an -est, and the irregular ones."""
    regular = word.endswith("er") and len(word) > 4 and word[:-2] + "est" in vocabulary
    return regular or word in word_classes.IRREGULAR_DEGREES["comparatives"]


def is_superlative(word: str, vocabulary: Vocabulary) -> bool:
    """Adjectives in -est that also have an -er, and the irregular ones."""
    regular = word.endswith("est") and len(word) > 5 and word[:-3] + "er" in vocabulary
    return regular or word in word_classes.IRREGULAR_DEGREES["superlatives"]


def is_adverb(word: str, vocabulary: Vocabulary) -> bool:
    """Adverbs in -ly."""
    if not word.endswith("ly") or len(word) < 5 or word in word_classes.NOT_ADVERB:
        return False
    stem = word[:-2]
    return len(word) > 6 or any(s in vocabulary for s in (stem, stem + "le", stem[:-1] + "y", stem + "l"))


def is_verb(word: str, vocabulary: Vocabulary) -> bool:
    """Verbs: auxiliaries, past tenses, participles, and words that a participle in -ing exists of."""
    if word in word_classes.CLASSES["auxiliaries"] or is_past(word, vocabulary) or is_ing(word, vocabulary):
        return True
    if len(word) < 3 or word not in vocabulary or word.endswith("ly"):
        return False
    stem = word[:-1] if word.endswith("s") else word
    return stem.removesuffix("e") + "ing" in vocabulary and stem.removesuffix("e") + "ed" in vocabulary


def is_adjective(word: str, vocabulary: Vocabulary) -> bool:
    """Adjectives by their endings, and some of the commonest."""
    if word in word_classes.COMMON_ADJECTIVES or is_comparative(word, vocabulary) or is_superlative(word, vocabulary):
        return True
    return len(word) > 5 and word.endswith(
        ("al", "ive", "ous", "ful", "ic", "able", "ible", "less", "ish", "ary", "ant", "ent")
    )


def is_noun(word: str, vocabulary: Vocabulary) -> bool:
    """Words of content that are not told to be anything else."""
    if not word.isalpha() or len(word) < 3 or any(word in members for members in word_classes.CLASSES.values()):
        return False
    told = is_past(word, vocabulary) or is_ing(word, vocabulary) or is_adverb(word, vocabulary)
    return not told and not is_adjective(word, vocabulary)
