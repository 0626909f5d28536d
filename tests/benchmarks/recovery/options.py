"""What a run of the recovery benchmark is asked for: which explainers, with which language models."""

import argparse
from collections.abc import Sequence
from typing import Literal

from pipeline.config import LanguageModel
from tests.benchmarks.recovery.modules import SETTINGS

ExplainerName = Literal["embedded", "language_model"]
EXPLAINERS: tuple[ExplainerName, ...] = ("embedded", "language_model")


def read_options(words: Sequence[str] | None, description: str) -> argparse.Namespace:
    """The options of a command line, `explainer` a list of EXPLAINERS; a mistake ends the program with a message."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half", choices=["tuning", "test", "both"], default="both")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=SETTINGS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--few", type=int, help="so many planted, null and reference modules alone, to try an endpoint")
    parser.add_argument("--explainer", nargs="+", choices=EXPLAINERS, help="embedded; with --model, both unless given")
    parser.add_argument("--synthesizer", choices=["retrieved", "language_model"], default="retrieved")
    parser.add_argument("--label", help="model in this process whose label the embedded explainer puts first")
    parser.add_argument(
        "--model", help="the model that explains, or writes texts: as --label; behind an endpoint, its name there"
    )
    parser.add_argument("--base-url", help="an OpenAI-compatible endpoint, which --model runs behind")
    parser.add_argument("--key-variable", help="NAME of the environment variable with the endpoint's key")
    parser.add_argument("--timeout", type=float, help="seconds until a request to the endpoint is given up")
    parser.add_argument("--retries", type=int, help="of a request that fails")
    options = parser.parse_args(words)
    options.explainer = options.explainer or list(EXPLAINERS if options.model else EXPLAINERS[:1])
    if mistake := _mistake(options):
        parser.error(mistake)
    return options


def _mistake(options: argparse.Namespace) -> str | None:
    """What does not fit together, and what to do."""
    asks = "language_model" in (*options.explainer, options.synthesizer)
    if options.model is None and (options.base_url or options.key_variable):
        return "--base-url and --key-variable need --model, the name that the endpoint knows the model by"
    if options.model is None and asks:
        return "--explainer or --synthesizer language_model needs --model"
    if options.model is not None and not asks:
        return (
            f"nothing asks --model {options.model}: leave it out, or give --explainer or --synthesizer language_model"
        )
    if options.base_url and not options.base_url.startswith(("http://", "https://")):
        return "--base-url has to begin with http:// or https://, as in http://localhost:8000/v1"
    if options.key_variable and not options.base_url:
        return "--key-variable is for an endpoint; give --base-url, or leave it out"
    if options.label is not None and "embedded" not in options.explainer:
        return f"--label {options.label} is for the embedded explainer; leave it out, or add --explainer embedded"
    return None


def language_model(options: argparse.Namespace) -> LanguageModel | None:
    """The model of --model, if it is named."""
    if options.model is None:
        return None
    given = {name: getattr(options, name) for name in ("model", "base_url", "key_variable", "timeout", "retries")}
    known = {name: value for name, value in given.items() if value is not None}
    return LanguageModel(**known, patience=0.0)  # what an endpoint fails at is counted, never waited for


def prefix(explainer: ExplainerName, options: argparse.Namespace) -> str:
    """Of the keys of an explainer's figures."""
    if explainer == "embedded":
        return ""
    return "endpoint_" if options.base_url else "language_model_"


def title(explainer: ExplainerName, options: argparse.Namespace) -> str:
    """What the figures below it are of."""
    who = f"explainer {explainer}"
    if explainer == "language_model":
        who += f": {options.model}" + (" behind the endpoint" if options.base_url else "")
    elif options.label is not None:
        who += f", labels by {options.label}"
    return who + (f"; texts by {options.model}" if options.synthesizer == "language_model" else "")
