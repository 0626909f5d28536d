"""Units whose function is known: a rule over the words of real text, and the explanation a person would give of it."""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.english.text import Word, split_words

Activations = npt.NDArray[np.float32]
Fires = Callable[[Sequence[Word], int], bool]


@dataclass(frozen=True)
class Planted:
    """A unit, its true explanation, and an explanation of the opposite."""

    name: str
    explanation: str
    opposite: str
    fires: Fires

    def activations(self, tokens: Sequence[str]) -> Activations:
        """(T,) 0, or 6 to 10 on all tokens of a word that it fires on: the same each time for the same word."""
        values = np.zeros(len(tokens), dtype=np.float32)
        words = split_words(tokens)
        for index, word in enumerate(words):
            if self.fires(words, index):
                values[word.start : word.stop] = 6.0 + hashlib.md5(word.text.lower().encode()).digest()[0] / 64.0
        return values


def listed(words: str) -> Fires:
    members = frozenset(words.split())
    return lambda text, index: text[index].text.lower() in members


def _matching(pattern: str) -> Fires:
    compiled = re.compile(pattern)
    return lambda text, index: compiled.fullmatch(text[index].text) is not None


def _beside(offset: int, words: str) -> Fires:
    members = frozenset(words.split())
    return lambda text, index: (
        0 <= index + offset < len(text)
        and text[index + offset].text.lower() in members
        and text[index].text[:1].isalnum()
    )


def _enclosed(text: Sequence[Word], index: int) -> bool:
    opened = [i for i in range(index) if "(" in text[i].text]
    closed = [i for i in range(index, len(text)) if ")" in text[i].text and "(" not in text[i].text]
    return bool(opened and closed) and not any(")" in text[i].text for i in range(opened[-1], index + 1))


def _opens_sentence(text: Sequence[Word], index: int) -> bool:
    return index > 0 and text[index - 1].text in {".", "?", "!"} and text[index].text[:1].isupper()


def _number(text: Sequence[Word], index: int) -> bool:
    return bool(re.fullmatch(r"\d[\d.,]*", text[index].text)) or text[index].text.lower() in NUMBERS.split()


def _named(text: Sequence[Word], index: int) -> bool:
    return (
        index > 0 and text[index].text[:1].isupper() and text[index - 1].text[:1].isalpha() and text[index].text != "I"
    )


MEANING = [
    ("colours", "words for colours", """
        red blue green yellow orange purple pink brown black white grey gray violet crimson scarlet
        turquoise golden silver beige maroon indigo magenta reddish bluish
    """),
    ("animals", "animals", """
        dog dogs cat cats horse horses cow cattle sheep goat goats pig pigs lion lions tiger elephant
        elephants bear bears wolf wolves fox rabbit rabbits bird birds fish eagle whale whales shark snake
        snakes frog frogs insect insects mouse mice rat rats deer monkey ape apes camel llama alpaca duck
        goose chicken
    """),
    ("body", "parts of the body", """
        head eye eyes ear ears nose mouth teeth tooth tongue neck shoulder shoulders arm arms hand hands
        finger fingers chest heart lung lungs stomach liver kidney leg legs knee foot feet toe skin bone
        bones brain blood hair face throat spine muscle muscles
    """),
    ("professions", "professions and occupations", """
        doctor doctors lawyer lawyers teacher teachers engineer engineers farmer farmers nurse actor actors
        actress singer writer writers author poet poets painter artist artists architect scientist
        scientists physicist philosopher philosophers politician politicians journalist journalists composer
        musician musicians soldier carpenter mechanic economist historian historians mathematician director
        producer professor sailor
    """),
    ("countries", "names of countries", """
        france germany italy spain england britain russia china japan india brazil canada mexico egypt
        greece turkey iran iraq israel poland sweden norway denmark finland ireland scotland australia
        argentina chile cuba albania algeria andorra angola austria belgium portugal netherlands switzerland
        pakistan afghanistan armenia azerbaijan hungary romania bulgaria ukraine vietnam thailand nigeria
        kenya ethiopia morocco tunisia libya
    """),
    ("emotions", "words for emotions and feelings", """
        love hate fear anger angry happy happiness sad sadness joy grief hope despair anxiety shame guilt
        pride proud jealousy envy disgust surprise loved hated afraid excited lonely delight passion sorrow
        worried
    """),
    ("food", "food and drink", """
        bread meat cheese milk butter rice wheat corn fruit fruits vegetable vegetables apple apples potato
        potatoes beef pork wine beer coffee tea sugar salt soup egg eggs cake chocolate honey olive olives
        grain dinner breakfast lunch banana
    """),
    ("music", "words related to music", """
        music musical song songs album albums guitar piano violin drums singer band orchestra opera symphony
        concert jazz melody rhythm chord composer recording tune blues choir lyrics
    """),
    ("family", "family relationships", """
        father mother son sons daughter daughters brother brothers sister sisters wife husband parents child
        children uncle aunt cousin cousins nephew niece grandfather grandmother family families grandson
        married
    """),
    ("war", "war and the military", """
        war wars army armies battle battles soldiers soldier troops military navy generals weapons weapon
        attack attacked invasion defeat defeated siege commander enemy regiment combat warfare invaded
        fought casualties artillery
    """),
    ("religion", "words about religion", """
        god gods church churches priest priests bishop bishops pope religion religious christian
        christianity islam muslim muslims jewish catholic prayer bible temple temples monk monks faith saint
        saints holy divine worship theology baptism mosque
    """),
    ("disease", "illness and medicine", """
        disease diseases illness cancer infection virus symptoms patient patients treatment hospital
        medicine medical drug drugs surgery therapy fever disorder disorders diagnosis vaccine autism
        syndrome chronic clinical
    """),
    ("law", "law and the courts", """
        law laws court courts judge judges trial jury legal crime criminal prison lawyer lawyers justice
        constitution constitutional verdict sentenced convicted guilty attorney lawsuit appeal legislation
        statute convict arrested
    """),
    ("water", "bodies of water", """
        river rivers lake lakes sea seas ocean oceans stream streams bay gulf harbor canal pond coast creek
        strait lagoon waterfall
    """),
    ("sports", "sports", """
        football baseball basketball tennis golf cricket hockey soccer rugby swimming boxing games team
        teams players player league championship tournament coach olympic olympics goals athlete athletes
    """),
    ("education", "schools, universities and education", """
        university universities college colleges school schools student students professor teacher education
        academic degree graduate graduated lecture lectures curriculum faculty campus taught studied
        classroom phd thesis
    """),
]  # fmt: skip
NUMBERS = """
        one two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty hundred
        thousand million
    """
MONTHS = "january february march april may june july august september october november december"
PAST = """
    was were had said went came took made became began gave found left called used wrote won led held
    lost died ended moved played named created served returned received published worked lived formed
    joined founded killed appeared produced developed established considered included started married
    studied wanted tried asked released attacked defeated invaded fought loved hated convicted
"""
FORM = [
    ("numbers", "numbers", "words that are not numbers", _number),
    ("years", "years", "anything except years", _matching(r"1[0-9]{3}|20[0-2][0-9]")),
    ("months", "months of the year", "anything but months", lambda t, i: t[i].text.lower() in MONTHS.split() and t[i].text[:1].isupper()),
    ("past", "past-tense verbs", "words other than past-tense verbs", listed(PAST)),
    ("after_of", 'words right after "of"', 'words that are not right after "of"', _beside(-1, "of")),
    ("before_and", 'words right before "and" or "or"', 'words that are not right before "and" or "or"', _beside(1, "and or")),
    ("parentheses", "words inside parentheses", "words that are not inside parentheses", _enclosed),
    ("names", "capitalised names", "words that are not capitalised", _named),
    ("punctuation", "punctuation marks", "everything but punctuation", _matching(r"[^\w\s]+")),
    ("commas", "commas", "everything except commas", _matching(r"[,]")),
    ("negation", "negation words", "anything but negation", listed("""
        not no never none nothing neither nor without cannot don't didn't doesn't wasn't isn't
    """)),
    ("ing", 'words ending in "-ing"', 'words not ending in "-ing"', _matching(r"[A-Za-z]{3,}ing")),
    ("first", "the first word of a sentence", "words that are not at the start of a sentence", _opens_sentence),
    ("acronyms", "words in all capital letters", "words that are not in all capital letters", _matching(r"[A-Z]{2,}")),
    ("quoted", 'the words "the", "a" and "an"', 'any word but not "the", "a" or "an"', listed("the a an")),
    ("pronouns", "pronouns", "words that are not pronouns", listed("""
        he she it they we i you him her them his their its our my your himself itself themselves who
    """)),
]  # fmt: skip
UNITS = [
    Planted(name, explanation, f"anything except {explanation}", listed(words)) for name, explanation, words in MEANING
] + [Planted(name, explanation, opposite, fires) for name, explanation, opposite, fires in FORM]
