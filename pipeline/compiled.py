"""Where numba keeps what it has compiled.

Numba compiles a function anew where its own file has changed, but not where a function that it calls has, of another file: after an
update it would go on with the old one. So every state of the sources has a folder of its own.
"""

from hashlib import sha256
from pathlib import Path

SOURCES = ("pipeline/subjects/saes", "stages/record")
"""The folders of all functions that numba compiles."""


def compiled_folder(root: Path) -> Path:
    """The folder for the sources below `root` as they are."""
    files = [path for folder in SOURCES for path in sorted((root / folder).rglob("*.py"))]
    states = [(str(path.relative_to(root)), path.stat().st_mtime_ns, path.stat().st_size) for path in files]
    return root / "pipeline" / "__pycache__" / f"numba-{sha256(repr(states).encode()).hexdigest()[:16]}"
