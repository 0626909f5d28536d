"""The environment that Delphi runs in: a venv in the user's cache folder, which nothing else uses."""

import hashlib
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from pipeline.errors import UserError
from pipeline.subjects.loading.model_source import folder_made_once

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
NEEDED = "from delphi.latents import LatentCache, LatentDataset; from delphi.sparse_coders import load_sparsify"
"""What must be importable."""


def peer_python() -> Path:
    """The Python that can import Delphi, installed on first use.

    Its own packages come first, and what it lacks (torch, transformers, numpy) it finds in the environment that runs
    this: both sides run the same forward pass, and torch is not downloaded again. Nothing is installed into the latter.

    Raises:
        UserError: the packages cannot be installed or imported; the message says why.
    """
    shared = sorted({str(Path(sysconfig.get_path(name)).resolve()) for name in ("purelib", "platlib")})
    identity = "\0".join([sys.version, *shared, REQUIREMENTS.read_text(encoding="utf-8")])
    name = f"peer/delphi-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    return _python(folder_made_once(name, lambda folder: _install(folder, shared)))


def _install(folder: Path, shared: list[str]) -> None:
    venv.create(folder, with_pip=True)
    python = str(_python(folder))
    pip = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:", "--retries", "2"]
    _run([*pip, "--requirement", str(REQUIREMENTS)])
    found = _run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip()
    (Path(found) / "shared.pth").write_text("\n".join(shared) + "\n", encoding="utf-8")  # after pip, which minds it
    _run([python, "-c", NEEDED])


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        raise UserError(f"{' '.join(command[1:4])} failed: {lines[-1]}")
    return done.stdout


def _python(folder: Path) -> Path:
    """Only this file of it is called: the scripts of a venv that was renamed point to its old place."""
    return folder / "bin" / "python"
