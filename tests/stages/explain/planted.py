"""Units whose rule is known, in real-looking text, and the noisy evidence about them."""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from stages.english.text import Word, split_words
from stages.evidence import Evidence, Exemplar, TopToken

TEXTS = (
    "The history of the city of Lisbon begins with a small port. In 1755 an earthquake (the worst of the century) "
    "destroyed most of the houses, and the king was living in a tent for years.",
    "She was playing the violin in the orchestra when the fire started. The singer, who had been waiting outside, said "
    'that "nothing was missing" from the hall (not even a chair).',
    "Many kinds of insects are found in the south. Some of them live near water, and 12 of the species (all beetles) are "
    "protected by a law of 1983.",
    "Running a farm means working from early morning. The price of milk fell by 8 percent, so farmers began selling cattle "
    "(mainly cows) to Germany and France.",
    "The melody of the song was written by Anna Berg in 1902. A concert of her music (two hours long) was given in Vienna, "
    "and the audience kept asking for the drums.",
    "Iron and copper are metals. The melting point of iron is 1538 degrees, while copper (used for wires) melts at 1085. "
    "Each of them has been mined for thousands of years.",
    "After leaving the army he wrote a book of poems. The critics (with one exception) hated it, but readers kept buying "
    "copies, and by 1950 it had sold 40000 of them.",
    "Water falling from the rocks has carved a deep valley. A group of walkers from Oslo reached the top of the hill at 7 "
    "in the morning (before sunrise) and took pictures.",
    "In spring the fields of the north turn green. A train of 30 wagons (carrying coal) passes every hour, making the "
    "windows of the houses shake.",
    "The court of appeal heard the case in March. Judge Miller, speaking for the majority, found that the sale of the land "
    "(about 90 acres) had been legal.",
)
Fires = Callable[[Sequence[Word], int], bool]
"""Whether a unit fires on the word at an index of a sequence's words."""


def tokenize(text: str) -> list[str]:
    """Tokens of a text: the space before a word with the word, and long words in two pieces."""
    tokens = []
    for piece in re.findall(r" ?\w+| ?[^\w\s]", text):
        tokens += [piece] if len(piece) < 10 else [piece[:5], piece[5:]]
    return tokens


def evidence(fires: Fires, noise: float = 0.15, seed: int = 0, texts: Sequence[str] = TEXTS) -> Evidence:
    """What was recorded of a unit at 1 where it fires and 0 elsewhere, plus normal noise; the first token is left out."""
    generator = np.random.default_rng(seed)
    exemplars = []
    for number, text in enumerate(texts):
        tokens = tokenize(text)
        activations = generator.normal(0.0, noise, len(tokens)).astype(np.float32)
        words = split_words(tokens)
        for index, word in enumerate(words):
            if fires(words, index):
                activations[word.start : word.stop] += 1.0
        activations[0] = np.nan
        exemplars.append(Exemplar(number, "top" if number % 2 else "random", tokens, activations))
    return Evidence("layers.0.mlp", 7, "+", exemplars, table(exemplars))


def table(exemplars: Sequence[Exemplar]) -> list[TopToken]:
    """The tokens by mean activation."""
    seen: dict[str, list[float]] = defaultdict(list)
    for exemplar in exemplars:
        for token, activation in zip(exemplar.tokens, exemplar.activations, strict=True):
            if np.isfinite(activation):
                seen[token].append(float(activation))
    rows = [TopToken(token, float(np.mean(values)), len(values)) for token, values in seen.items() if len(values) > 2]
    return sorted(rows, key=lambda row: -row.mean_activation)[:16]


def one_of(*names: str) -> Fires:
    return lambda words, index: words[index].text.lower() in names


def after(*names: str) -> Fires:
    return lambda words, index: index > 0 and words[index - 1].text.lower() in names
