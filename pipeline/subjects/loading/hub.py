"""Models and data sets of the Hugging Face hub: commits and files, from the hub's cache where there is no connection."""

import functools
import hashlib
import json
import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import UserError
from pipeline.subjects.loading.cache_folder import cache_folder

TIMEOUT = 5.0
"""Seconds to wait for the hub before the caches are asked."""
COMMIT = re.compile(r"[0-9a-f]{40}")
WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
CONFIGURATION = (".json", ".jinja", ".model", ".py", ".txt")

RepoType = Literal["model", "dataset"]


@functools.cache
def resolve_on_hub(repo: str, revision: str, repo_type: RepoType = "model") -> str:
    """The commit that `revision` (a branch, tag or commit) of a repository is now.

    A full commit is taken as it is. Without a connection, the commit that was seen last is used. The hub is asked once
    in a process, so that a run sees one commit.

    Raises:
        UserError: no such repository or revision, no permission, only pickled weights, or the hub cannot be reached
            and no cache knows the commit.
    """
    if COMMIT.fullmatch(revision):
        return revision
    return str(_describe(repo, revision, repo_type)["commit"])


def fetch_model(repo: str, commit: str, *, weights: bool) -> Path:
    """The folder, in the hub's cache, with a model's files; what is missing there is downloaded.

    Args:
        weights: with the safetensors, or only configuration, tokenizer and code.

    Raises:
        UserError: no such model or commit, or files are missing and the hub cannot be reached.
    """
    from httpx2 import HTTPError
    from huggingface_hub import hf_hub_download

    top = [name for name in _describe(repo, commit, "model")["files"] if "/" not in name]
    heavy = [name for name in top if name.endswith(".safetensors")]
    heavy = [name for name in heavy if WEIGHTS.fullmatch(name)] or heavy
    names = [name for name in top if name.endswith(CONFIGURATION)] + (heavy if weights else [])
    if "config.json" not in names:
        raise UserError(f"{repo!r} on the hub holds no config.json at its top; give a model that transformers can load")
    try:
        with _told_to_the_user(repo, commit, "model"):
            files = [Path(hf_hub_download(repo, name, revision=commit)) for name in names]
    except (HTTPError, OSError) as error:
        raise _unreachable(repo, commit, error) from None
    return files[names.index("config.json")].parent


def _describe(repo: str, revision: str, repo_type: RepoType) -> dict[str, Any]:
    """The commit and the files of a repository; what the hub answered is noted for times without a connection."""
    from httpx2 import HTTPError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import OfflineModeIsEnabled

    note = cache_folder() / "hub" / hashlib.sha256(f"{repo_type}\0{repo}\0{revision}".encode()).hexdigest()
    if COMMIT.fullmatch(revision) and note.is_file():
        return _read(note) or {}
    api = HfApi()
    ask = api.dataset_info if repo_type == "dataset" else api.model_info
    try:
        with _told_to_the_user(repo, revision, repo_type):
            info = ask(repo, revision=revision, timeout=TIMEOUT)
    except (HTTPError, OfflineModeIsEnabled, OSError) as error:
        found = _read(note) or _in_hub_cache(repo, revision, repo_type)
        if found is None:
            raise _unreachable(repo, revision, error) from None
        return found
    found = {"commit": str(info.sha), "files": [file.rfilename for file in info.siblings or []]}
    if repo_type == "model" and not any(name.endswith(".safetensors") for name in found["files"]):
        raise UserError(
            f"{repo!r} on the hub has no safetensors weights, and pickled ones can run any code when they are loaded; "
            f"choose a revision that has them, often {repo}@refs/pr/N, or convert a copy and give its folder"
        )
    _write(note, found)
    return found


def _in_hub_cache(repo: str, revision: str, repo_type: RepoType) -> dict[str, Any] | None:
    """What the hub's own cache, filled by other programs, knows of a revision."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type=repo_type)
    commit = revision
    if not COMMIT.fullmatch(revision):
        with suppress(OSError, UnicodeDecodeError):
            commit = (folder / "refs" / revision).read_text(encoding="ascii").strip()
    snapshot = folder / "snapshots" / commit
    if not COMMIT.fullmatch(commit) or not snapshot.is_dir():
        return None
    return {"commit": commit, "files": sorted(file.name for file in snapshot.iterdir())}


def _read(note: Path) -> dict[str, Any] | None:
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(note.read_text(encoding="utf-8"))
        return {"commit": str(found["commit"]), "files": [str(name) for name in found["files"]]}
    return None


def _write(note: Path, found: dict[str, Any]) -> None:
    """Keep a note; a cache that cannot be written is no obstacle."""
    temporary = note.with_name(f"{note.name}.tmp-{os.getpid()}")
    with suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(found), encoding="utf-8")
        temporary.replace(note)


@contextmanager
def _told_to_the_user(repo: str, revision: str, repo_type: RepoType) -> Iterator[None]:
    """Turn the hub's refusals into messages; failures of the connection pass through."""
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        yield
    except GatedRepoError:
        raise UserError(
            f"{repo!r} is gated: accept its terms on its page, then log in with `hf auth login` or set HF_TOKEN"
        ) from None
    except RepositoryNotFoundError:
        raise UserError(
            f"the hub has no {repo_type} {repo!r} (or it is private); check the name, or log in with `hf auth login` "
            "or HF_TOKEN; a local folder is written ./NAME"
        ) from None
    except RevisionNotFoundError:
        raise UserError(
            f"{repo!r} has no revision {revision!r}; give a branch, a tag or a commit after the @"
        ) from None
    except HFValidationError as error:
        raise UserError(f"{repo!r} is not a hub id: {error}") from None


def _unreachable(repo: str, revision: str, reason: Exception) -> UserError:
    from huggingface_hub import constants

    detail = str(reason).splitlines()[:1] or ["no details"]
    return UserError(
        f"the hub cannot be reached ({type(reason).__name__}: {detail[0]}), and {repo!r} at {revision!r} is not in its "
        f"cache {constants.HF_HUB_CACHE}; check the network, HF_ENDPOINT and HF_HUB_OFFLINE, or give a local folder"
    )


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars, warnings or notes of transformers and huggingface_hub inside the block; errors still raise."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    had_bars = transformers_logging.is_progress_bar_enabled()
    hub_bars = not are_progress_bars_disabled()
    transformers_logging.set_verbosity(logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if had_bars:
            transformers_logging.enable_progress_bar()
        if hub_bars:
            enable_progress_bars()
