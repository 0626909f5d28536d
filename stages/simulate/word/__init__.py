"""The word simulator: activations from the meaning and the form of whole words.

What it reads in an explanation, in any mixture, clauses parted by ";" or "and also", the strongest first:

- quoted strings: the words "of" and "in"; the word piece "tion"; words ending in "-ing", beginning with "un-",
  containing "graph"
- places: words right after "of"; before a comma; inside parentheses or quotation marks; the first word of a sentence,
  the last word of a line, the start of a text
- forms, by the names in forms.FORMS and the phrases in phrases.FORM_PHRASES: numbers, past-tense verbs, proper names
- meaning: all that is left, such as "war and the military"; together with a form or a place it narrows that
- exclusions: animals but not "dog"; anything except numbers
- strength: sometimes, weakly, to a lesser degree; especially after "in"
- tokens: the last token of words about music

reader -> rules -> apply, with quoted, forms, text (places) and meaning (embedding, listing) for the parts.
"""

from stages.simulate.word.simulator import WordSimulator

__all__ = ["WordSimulator"]
