"""The package as it is installed from its wheel works from any folder: prompts and presets are in it."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.integration.reduced import write_run_file

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the wheel; what the package depends on is that of this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(folder),
    ]
    source = folder / "source"
    subprocess.run(["git", "clone", "--quiet", str(PROJECT), str(source)], check=True)
    subprocess.run([*build, str(source)], check=True, capture_output=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "env")], check=True)
    found = folder / "env" / "bin" / "python"
    target = subprocess.run(
        [found, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", target]
    subprocess.run([*install, *map(str, folder.glob("*.whl"))], check=True)
    # Only packages: what a .pth file there does, such as naming this checkout, is not done here.
    (Path(target) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return found


def call(python: Path, folder: Path, *arguments: str) -> str:
    """What a command of the installed package prints; its folder is the working directory."""
    done = subprocess.run(
        [python, "-m", "pipeline", *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_it_runs_from_a_folder_of_its_own(python: Path, tmp_path: Path) -> None:
    where = [str(python), "-c", "import pipeline; print(pipeline.__file__)"]
    assert (
        str(python.parents[1]) in subprocess.run(where, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    )
    assert "[explain]" in call(python, tmp_path, "settings")
    call(python, tmp_path, "init", "mine.toml")
    assert str(tmp_path / "outputs" / "mine") in call(python, tmp_path, "status", "--config", "mine.toml")
    file = write_run_file(tmp_path / "run")
    assert "Best explained" in call(python, tmp_path, "run", "--config", str(file))
    assert "red[10]" in call(
        python, tmp_path, "try", "--explanation", 'the word "red"', "--text", "A red house", "--model", "none"
    )


@pytest.mark.slow
def test_presets_and_prompts_are_in_it(python: Path, tmp_path: Path) -> None:
    code = "from pipeline.prompts import digests, problems; print(len(digests()), problems())"
    printed = subprocess.run([python, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    files = [path for path in (PROJECT / "prompts").rglob("*") if path.is_file() and path.name != "digests.toml"]
    assert printed == f"{len(files)} []\n"
    assert "units explained" in call(python, tmp_path, "estimate", "--config", "demo")
