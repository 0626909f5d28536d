"""Wiki markup becomes plain sentences."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.corpora.wikipedia import clean_wikitext
from tests.tiers import examples

FRONT = "The subject of this page is well known."


@pytest.mark.parametrize(
    ("markup", "prose"),
    [
        ("'''Anarchism''' is a ''political'' idea.", "Anarchism is a political idea."),
        ("It lies in [[Lima|the city of Lima]] and [[Peru]].", "It lies in the city of Lima and Peru."),
        ("A claim is made.<ref name=x>{{cite web|url=http://a}}</ref> It stands.<ref name=x />", "A claim is made. It stands."),
        ("It is {{convert|12|km|mi}} long by road.", "It is 12 km long by road."),
        ("It is {{convert|3|to|5|m}} long by road.", "It is 3 to 5 m long by road."),
        ("The word {{lang|el|[[logos|λόγος]]}} means reason.", "The word λόγος means reason."),
        ("The word {{lang-fr|été}} means summer.", "The word été means summer."),
        ("A {{cite|a={{nested|b={{deep}}}}}}word with nothing else.", "A word with nothing else."),
        ("Before this table stands.\n{| class=x\n! a\n|-\n| {| b |}\n|}\nAfter the whole table.",
         "Before this table stands.\n\nAfter the whole table."),
        ("[[File:A.jpg|thumb|A [[cat]] in {{convert|3|m}}.]]The cat sat there.", "The cat sat there."),
        ("Links go to [http://a.org the site] and [https://b.org].", "Links go to the site and."),
        ("Water is H<sub>2</sub>O and so on.", "Water is H2O and so on."),
        ("A formula <math>x^{2}</math> is left out.", "A formula is left out."),
        ("A name ({{IPA|x}}; from [[Greek language|Greek]]) is given.", "A name (from Greek) is given."),
        ("A name ({{IPA|x}}, {{small|}}) is given here.", "A name is given here."),
        ("Less than 5&nbsp;km &ndash; or &lt; 6.", "Less than 5 km – or < 6."),
        ("== Early life ==\nHe was born in Rome.", "He was born in Rome."),
        ("He wrote three books.\n==See also==\n* A page of many words that looks like prose.\n==Death==\nHe died in 1999.",
         "He wrote three books.\n\nHe died in 1999."),
        ("* [[A]]\n* [[B]]\n* This entry is a whole sentence of many words.", "This entry is a whole sentence of many words."),
        ("A hidden <!-- note\nover lines --> remark is gone.", "A hidden remark is gone."),
        ("Cats are small animals. __NOTOC__\n[[Category:Cats]]\n[[de:Katze]]", "Cats are small animals."),
        ("Unclosed {{template here and [[link here.", "Unclosed template here and link here."),
        ("#REDIRECT [[Another page]]", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_markup_is_read(markup: str, prose: str) -> None:
    assert clean_wikitext(markup) == prose


@settings(max_examples=examples(200), deadline=None)
@given(st.text(st.sampled_from("{}[]|<>=!'*#:;\n ab/ref-")))
def test_any_markup_ends_and_spares_the_text_in_front(markup: str) -> None:
    prose = clean_wikitext(f"{FRONT}\n\n{markup}")
    assert prose.startswith(FRONT)
    assert "[[" not in prose
    assert "{{" not in prose


def test_deep_nesting_ends_soon() -> None:
    assert clean_wikitext("{{a|" * 2000 + "}}" * 2000 + "The end of the page.") == "The end of the page."
    assert clean_wikitext(FRONT + "[[File:a|" * 500 + "]]" * 500) == FRONT
    assert clean_wikitext(FRONT + "{|" * 2000) != ""
