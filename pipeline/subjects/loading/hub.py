"""The Hugging Face hub: commits and files, from its cache where there is no connection."""

import functools
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pipeline.errors import UserError

TIMEOUT = 5.0
"""Seconds to wait for the hub where it need not answer."""
COMMIT = re.compile(r"[0-9a-f]{40}")
CONFIGURATION = ["*.json", "*.jinja", "*.model", "*.py", "*.txt"]
WEIGHTS = ["model.safetensors", "model-*-of-*.safetensors"]
"""Names of the weights; other files, such as those of adapters, are taken where there are none of these."""

RepoType = Literal["model", "dataset"]


@functools.cache
def resolve_on_hub(repo: str, revision: str, repo_type: RepoType = "model") -> str:
    """The commit that `revision` (a branch, tag or commit) of a repository is now.

    A full commit is taken as it is. Without a connection, the commit that was seen last is used. The hub is asked once
    in a process, so that a run sees one commit.

    Raises:
        UserError: no such repository or revision, no permission, only pickled weights, or the hub cannot be reached
            and its cache does not know the commit.
    """
    from huggingface_hub import HfApi

    if COMMIT.fullmatch(revision):
        return revision
    with _told_to_the_user(repo, revision, repo_type):
        commit: str = HfApi().resolve_revision(repo, revision=revision, repo_type=repo_type).resolved
    if repo_type == "model" and not _has_safetensors(repo, commit):
        raise _pickled(repo)
    return commit


def _has_safetensors(repo: str, commit: str) -> bool:
    """Whether there are weights that can be loaded; true as well where the hub cannot be asked."""
    from huggingface_hub import HfApi

    try:
        files = HfApi().model_info(repo, revision=commit, timeout=TIMEOUT).siblings or []
        return any(file.rfilename.endswith(".safetensors") for file in files)
    except Exception:  # noqa: BLE001 - of the connection, for which the libraries have no common class
        return True


def fetch_model(repo: str, commit: str, *, weights: bool, nested: bool = False) -> Path:
    """The folder, in the hub's cache, with a model's files; what is missing there is downloaded.

    Args:
        weights: with the safetensors, or only configuration, tokenizer and code.
        nested: with those in folders, as a model of sentence-transformers has them.

    Raises:
        UserError: no such model or commit, no safetensors, or files are missing and the hub cannot be reached.
    """
    folder = _snapshot(repo, commit, CONFIGURATION)
    if not (folder / "config.json").is_file():
        raise UserError(f"{repo!r} on the hub holds no config.json at its top; give a model that transformers can load")
    if nested:
        _snapshot(repo, commit, [*CONFIGURATION, "*.safetensors"], ["onnx/*", "openvino/*"])
    for patterns in (WEIGHTS, ["*.safetensors"]) if weights else ():
        if any(_snapshot(repo, commit, patterns).glob("*.safetensors")):
            return folder
    if weights:
        raise _pickled(repo)
    return folder


def _snapshot(repo: str, commit: str, patterns: list[str], but: Sequence[str] = ("*/*",)) -> Path:
    """The folder with the files of a repository that fit one of the patterns, those at its top unless said otherwise."""
    from huggingface_hub import snapshot_download

    with _told_to_the_user(repo, commit, "model"):
        return Path(snapshot_download(repo, revision=commit, allow_patterns=patterns, ignore_patterns=list(but)))


def _pickled(repo: str) -> UserError:
    return UserError(
        f"{repo!r} on the hub has no safetensors weights, and pickled ones can run any code when they are loaded; "
        f"choose a revision that has them, often {repo}@refs/pr/N, or convert a copy and give its folder"
    )


@contextmanager
def _told_to_the_user(repo: str, revision: str, repo_type: RepoType) -> Iterator[None]:
    """Turn the hub's refusals, and failures of the connection, into messages."""
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        yield
    except Exception as error:  # noqa: BLE001 - of the connection, for which the libraries have no common class
        match error:
            case GatedRepoError():
                told = (
                    f"{repo!r} is gated: accept its terms on its page, then log in with `hf auth login` or set HF_TOKEN"
                )
            case RepositoryNotFoundError():
                told = (
                    f"the hub has no {repo_type} {repo!r} (or it is private); check the name, or log in with `hf auth login` "
                    "or HF_TOKEN; a local folder is written ./NAME"
                )
            case RevisionNotFoundError():
                told = f"{repo!r} has no revision {revision!r}; give a branch, a tag or a commit after the @"
            case HFValidationError():
                told = f"{repo!r} is not a hub id: {error}"
            case _:
                detail = str(error).splitlines()[:1] or ["no details"]
                told = (
                    f"the hub cannot be reached ({type(error).__name__}: {detail[0]}), and {repo!r} at {revision!r} is not in "
                    f"its cache {constants.HF_HUB_CACHE}; check the network, HF_ENDPOINT and HF_HUB_OFFLINE, or give a local folder"
                )
        raise UserError(told) from None
