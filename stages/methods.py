"""Methods that a run file names: explainers, simulators, judges, summarisers, sources of texts.

A method is a module that holds a `Method`, and a line in the table of its kind, such as `EXPLAINERS` or `SIMULATORS`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.config import LanguageModel, RunConfig
from pipeline.config.section import Choices, choice
from pipeline.errors import UserError
from pipeline.execution.stage import Context, ModelUse
from pipeline.llm.engine import Capabilities, Need, Request
from pipeline.llm.load import load_engine_model
from pipeline.prompts import Prompt
from stages.asking import open_asker


@dataclass(frozen=True)
class Method:
    """One way to explain, or to simulate."""

    summary: str
    """One line for people."""
    build: Callable[[Any, Any, Sequence[Prompt]], Any]
    """Makes it from what its stage gives, mostly its section, its language model and its prompts."""
    model: Literal["asked", "optional", "inside", "none"] = "asked"
    """Its language model: an Asker, which it needs; an Asker or None, as the user likes; a model in this process or None
    likewise; or none at all."""
    prompts: tuple[str, ...] = ()
    """Names of the prompts that it may use."""
    need: Need | None = None
    """What the language model has to do, beyond writing replies."""
    settings: Callable[[Any], dict[str, Any]] = lambda _: {}
    """What else can change its results, from the section of its stage, such as the revision of an embedder.

    Raises:
        UserError: something that it works with is not there.
    """
    check: Callable[[RunConfig], None] = lambda _: None
    """Raises UserError where it could not work in a run; called before anything is run, and free to look at models."""
    reply: Callable[[Request, int], str] | None = None
    """For estimates: makes up a usable reply, given its number, where what is asked next depends on replies."""

    def load_prompts(self, own: str) -> list[Prompt]:
        """Its prompts, in their order; `own` as run.prompts."""
        return [Prompt(name, own) for name in self.prompts]


def refuse_model(setting: str, name: str, choices: Choices, engine: LanguageModel | None, table: str) -> None:
    """Check a named method against its language model.

    Args:
        table: where the run file describes that model, such as explain.engine.

    Raises:
        ValueError: it has none where it needs one, or one behind an endpoint where it can use none.
    """
    method: Method = choice(choices, name)
    if method.model == "asked" and engine is None:
        raise ValueError(f'{setting} = "{name}" needs a language model; add [{table}] with model = "..."')
    if method.model == "inside" and engine is not None and engine.base_url:
        raise ValueError(f'{setting} = "{name}" uses a model in this process; leave engine.base_url out')


def model_use(setting: str, name: str, choices: Choices, engine: LanguageModel | None) -> ModelUse | None:
    """The language model that a named method asks; None where it asks none."""
    if engine is None or choice(choices, name).model not in ("asked", "optional"):
        return None
    return ModelUse(engine, f"{setting} {name}", lambda found: require(found, setting, name, choices))


def require(capabilities: Capabilities, setting: str, name: str, choices: Choices) -> None:
    """Stop a method that needs what the model's server does not do.

    Raises:
        UserError: it names methods that would work, in the order of the table.
    """
    method: Method = choice(choices, name)
    if method.need is None or method.need.met(capabilities):
        return
    others = [(other, choice(choices, other)) for other in choices]
    asked = [(other, found.need) for other, found in others if found.model == "asked"]
    working = [f'{setting} = "{other}"' for other, need in asked if need is None or need.met(capabilities)]
    raise UserError(
        f'{setting} = "{name}" needs {method.need.words}, which this endpoint does not give for this model; '
        f"write {' or '.join(working)} instead, or use an endpoint that does, such as vLLM "
        "with the model's tokenizer in engine.tokenizer (`make doctor` shows what works)"
    )


async def open_method(
    setting: str, name: str, choices: Choices, given: Any, engine: LanguageModel | None, context: Context
) -> Any:
    """A named method of a run, once its language model was found to do what it needs.

    Raises:
        UserError: its language model is not there, or cannot do that.
    """
    method: Method = choice(choices, name)
    if method.need is not None:
        require(await open_asker(engine, context).engine.capabilities(), setting, name, choices)
    return build_method(name, choices, given, engine, context)


def build_method(name: str, choices: Choices, given: Any, engine: LanguageModel | None, context: Context) -> Any:
    """A named method of a run, ready to be used.

    Args:
        given: what it is made from beside its language model and prompts.

    Raises:
        UserError: its language model is not there.
    """
    method: Method = choice(choices, name)
    prompts = method.load_prompts(context.config.run.prompts)
    if method.model == "asked" or (method.model == "optional" and engine):
        return method.build(given, open_asker(engine, context), prompts)
    model = load_engine_model(engine) if method.model == "inside" and engine else None
    return method.build(given, model, prompts)


def prompt_digests(method: Method, engine: LanguageModel | None, own: str) -> dict[str, str]:
    """Digests of the prompt files that a method may use; none without a language model."""
    prompts = [] if engine is None else method.load_prompts(own)
    return {file: digest for prompt in prompts for file, digest in prompt.digests().items()}
