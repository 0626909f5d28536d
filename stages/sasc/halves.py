"""Which texts choose among the candidates of a unit, and which ones publish the winner's score."""

from collections.abc import Sequence

from stages.sasc.candidates import normalised

HALVES = ("select", "report")


def deal(sets: Sequence[Sequence[str]]) -> list[list[str]]:
    """The half of each text of each set, so that what a text says is in one half alone, whichever sets it is in.

    Candidates of a unit share texts: one that published the score of the winner and chose against a rival would have
    helped to choose after all. Each text goes to the half that evens out the sets it is in: those in many sets first, then
    by their places in the sets, so that both halves hold texts near to the explanation and less near ones. A set that
    shares nothing is dealt in turn.

    Args:
        sets: the texts for each candidate of one unit, and those against each, in an order that is always the same.
    """
    holders: dict[str, list[int]] = {}
    for number, texts in enumerate(sets):
        for said in map(normalised, texts):
            holders.setdefault(said, []).append(number)
    lead = [0] * len(sets)  # texts in the first half less those in the second
    half: dict[str, str] = {}
    for said, numbers in sorted(holders.items(), key=lambda item: -len(item[1])):
        second = sum(lead[number] for number in numbers) > 0
        half[said] = HALVES[second]
        for number in numbers:
            lead[number] += -1 if second else 1
    return [[half[normalised(text)] for text in texts] for texts in sets]
