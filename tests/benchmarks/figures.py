"""Run benchmarks and keep what they print for the documents: python -m tests.benchmarks.figures bench_record ..."""

import json
import os
import platform
import subprocess
import sys
from datetime import date
from pathlib import Path

from tests.documents import FIGURES, known_figures
from tests.documents import main as make_documents


def machine() -> str:
    """The processor, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} cores of {names[0] if names else platform.processor() or platform.machine()}"


def run(benchmark: str) -> None:
    """Run one benchmark as its make target does; its last line is JSON with the figures."""
    with subprocess.Popen(
        [sys.executable, "-m", f"tests.benchmarks.{benchmark}"], stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        lines = []
        for line in running.stdout:
            sys.stdout.write(line)
            lines.append(line)
    if running.returncode:
        raise SystemExit(running.returncode)
    known = known_figures()
    known[benchmark] = {"date": date.today().isoformat(), "machine": machine(), "figures": json.loads(lines[-1])}
    FIGURES.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        run(name)
    make_documents()
