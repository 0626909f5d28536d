"""The stage judge.texts: on which texts of the report split a unit fires, at every strength, and on which it does not.

A recording keeps the strongest sequences of the split and a few random ones, which are not enough of every strength. So the subject is
run once more, on the first judge.sample sequences of the split, a uniform sample as they are shuffled. Of these and the recorded ones

- `fires` are sequences of every strength: those on which the unit fires are cut into ten equal groups by their maximum, and an equal
  number of each is drawn;
- `quiet` are drawn from those on which it does not fire;
- `weak` are the strongest of those that stay below WEAK of the unit's largest activation.

A text fires a unit where its maximum is above record.density_threshold. A dense unit does so on nearly all texts: then it fires on those
above a quantile of the sample's maxima, and is quiet on those up to a lower one, as nothing else would tell texts apart.

Shapes: N sequences, S of them drawn uniformly, T tokens.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.config import RunConfig
from pipeline.execution.stage import Context, EstimateHints, Shard, Stage, Unit, chunks, numbered_shards
from pipeline.imports import IMPORTED
from pipeline.schemas import EXEMPLARS, FLOATS, POLARITY, UNIT, UNIT_KEYS, column, unit_table
from pipeline.storage.by_hand import read_by_hand
from pipeline.storage.tables import Tables
from stages.estimates import corpus_texts
from stages.evidence import RecordedUnits, split_of
from stages.record.sequences import corpus_ids, random_ids
from stages.settings import Judge, Record
from stages.units import draw, unit_name, unit_shards

JUDGED_TEXTS = unit_table(
    "judged_texts",
    1,
    *UNIT,
    POLARITY,
    column(
        "band",
        pa.string(),
        "fires: the unit fires on it; quiet: it does not; weak: it stays below a fifth of its largest activation",
    ),
    column("rank", pa.int32(), "place within the band, from 0 on; judges are asked about the first ones"),
    column("decile", pa.int8(), "of the texts on which the unit fires, 1 for the strongest tenth; null for others"),
    column("seq_id", pa.int64(), "the sequence in `corpus`, of the split report"),
    column("max_activation", pa.float32(), "largest activation, the most negative one for '-'"),
    column("activations", FLOATS, "as of exemplars"),
    column("split", pa.string(), "report"),
    column("fires_above", pa.float64(), "a text fires the unit above this maximum, in the polarity"),
    column("share_firing", pa.float64(), "share of the sequences drawn uniformly that do; what any text has by chance"),
    key=[*UNIT_KEYS, "band", "rank"],
    refers=EXEMPLARS.refers,
)

DECILES = 10
DENSE = 0.9
"""A unit is dense that fires on more than this share of the sample."""
FIRES, QUIET = 0.75, 0.5
"""A dense unit fires on texts above the first quantile of the sample's maxima, and is quiet up to the second."""
WEAK = 0.2
SHARD_UNITS = 512
SPLIT = "report"

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Chosen:
    """Places of the texts that are chosen among those that there are."""

    fires: list[tuple[int, int]]
    """With the decile of each, 1 for the strongest; so that the first n of them are spread evenly over the deciles."""
    quiet: list[int]
    weak: list[int]
    """The strongest first."""
    fires_above: float
    share_firing: float


def choose_texts(
    peaks: Floats, sampled: npt.NDArray[np.bool_], threshold: float, most: int, rng: np.random.Generator
) -> Chosen:
    """Choose at most so many texts of each band.

    Args:
        peaks: (N,) the unit's maxima on the texts, in its polarity.
        sampled: (N,) which of the texts were drawn uniformly.
        threshold: a text fires the unit above it, unless the unit is dense.
    """
    known = peaks[sampled]
    fires_above = quiet_up_to = threshold
    if known.size and (known > threshold).mean() > DENSE:
        fires_above, quiet_up_to = (float(np.quantile(known, share)) for share in (FIRES, QUIET))
    order = np.argsort(-peaks, kind="stable")
    firing = order[peaks[order] > fires_above]
    low = order[(peaks[order] <= WEAK * peaks.max(initial=0.0))]
    quiet = rng.permutation(np.flatnonzero(peaks <= quiet_up_to))[:most]
    share = float((known > fires_above).mean()) if known.size else np.nan
    return Chosen(spread(firing, most, rng), quiet.tolist(), low[:most].tolist(), fires_above, share)


def spread(strongest_first: npt.NDArray[np.int64], most: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """So many of some places, drawn in turn from each of DECILES groups of equal size, with the number of the group from 1 on."""
    groups = [rng.permutation(group) for group in np.array_split(strongest_first, DECILES)]
    longest = max(map(len, groups))
    taken = [
        (int(group[turn]), number)
        for turn in range(longest)
        for number, group in enumerate(groups, 1)
        if turn < len(group)
    ]
    return taken[:most]


def settings(config: RunConfig) -> dict[str, Any]:
    """What can change the choice."""
    judge = config[Judge]
    return {"seed": config.run.seed, "sample": judge.sample, "examples": judge.examples} if judge.names else {}


def plan(config: RunConfig, tables: Tables) -> list[Shard]:
    """Shards of SHARD_UNITS units to be explained, and of those that people explained; none where nothing is judged."""
    if not config[Judge].names:
        return []
    shards = [dict(shard.key) for shard in unit_shards(config, tables, SHARD_UNITS)]
    planned = {(key["module"], key["polarity"], index) for key in shards for index in key["indices"]}
    by_hand: dict[tuple[str, str], list[int]] = {}
    for module, polarity, index in sorted({(one.module, one.polarity, one.index) for one in read_by_hand(config.root)}):
        if (module, polarity, index) not in planned:
            by_hand.setdefault((module, polarity), []).append(index)
    for (module, polarity), indices in by_hand.items():
        shards += [{"module": module, "polarity": polarity, "indices": part} for part in chunks(indices, SHARD_UNITS)]
    return numbered_shards(shards)


def process(shard: Shard, context: Context) -> Mapping[str, pa.Table]:
    """Choose the texts of the units of one shard."""
    module, polarity, indices = shard.key["module"], shard.key["polarity"], shard.key["indices"]
    record, judge = context.config[Record], context.config[Judge]
    recorded = RecordedUnits.of(context).exemplars(module, indices, (SPLIT,), polarity, texts=False)
    run = activations_on_sample(module, polarity, indices, context)
    rows: list[dict[str, Any]] = []
    for index in indices:
        drawn = {one.seq_id for one in recorded[index] if one.band == "random"} | run.get(index, {}).keys()
        values = run.get(index, {}) | {one.seq_id: one.activations for one in recorded[index]}
        seq_ids = sorted(seq_id for seq_id, one in values.items() if np.isfinite(one).any())
        peaks = np.array([np.nanmax(values[seq_id]) for seq_id in seq_ids], np.float32)
        rng = draw(context.config.run.seed, "judged/" + unit_name(module, index, polarity))
        sampled = np.isin(seq_ids, list(drawn))
        chosen = choose_texts(peaks, sampled, record.density_threshold, judge.examples, rng)
        keys = {"module": module, "index": index, "polarity": polarity, "split": SPLIT}
        keys |= {"fires_above": chosen.fires_above, "share_firing": chosen.share_firing}
        rows += [keys | row | {"values": values[row["seq_id"]]} for row in _listed(chosen, seq_ids)]
    return {JUDGED_TEXTS.name: rows_of(rows, 1.0 if polarity == "+" else -1.0, record.activation_bits)}


def _listed(chosen: Chosen, seq_ids: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Band, rank, decile and seq_id of each text that was chosen."""
    bands: dict[str, list[tuple[int, int | None]]] = {
        "fires": list(chosen.fires),
        "quiet": [(place, None) for place in chosen.quiet],
        "weak": [(place, None) for place in chosen.weak],
    }
    for band, places in bands.items():
        for rank, (place, decile) in enumerate(places):
            yield {"band": band, "rank": rank, "decile": decile, "seq_id": seq_ids[place]}


def runs_subject(config: RunConfig) -> bool:
    """Whether the subject does on further texts what was recorded: an imported run has none, and a null run recorded other things."""
    return config.corpus.source != IMPORTED and config.run.null == "none"


def activations_on_sample(
    module: str, polarity: str, indices: Sequence[int], context: Context
) -> dict[int, dict[int, Floats]]:
    """(T,) activations, in the polarity, by unit and seq_id, on the sampled sequences that are not recorded for every unit.

    Where the subject cannot be run, there are none.
    """
    from stages.record.negatives import activations_tried

    config = context.config
    if not config[Judge].sample or not runs_subject(config):
        return {}
    of_split = [seq_id for seq_id in context.once("seq_ids", lambda _: corpus_ids(context.tables)).tolist()
                if split_of(seq_id) == SPLIT]  # fmt: skip
    wanted = sorted(set(of_split[: config[Judge].sample]) - set(random_ids(config[Record]).tolist()))
    tried = {(index, polarity, SPLIT): {"sample": wanted} for index in indices}
    sign = np.float32(1.0 if polarity == "+" else -1.0)
    found: dict[int, dict[int, Floats]] = {}
    for (index, seq_id), values in activations_tried(module, indices, tried, context).items():
        found.setdefault(index, {})[seq_id] = sign * values
    return found


def rows_of(rows: Sequence[Mapping[str, Any]], sign: float, bits: int) -> pa.Table:
    """Rows of JUDGED_TEXTS, in the order given.

    Args:
        rows: with `values`, (T,) activations in the polarity.
        sign: what makes of these the activations as they are.
    """
    from stages.record.exemplars import activation_lists, stacked

    if not rows:
        return JUDGED_TEXTS.schema.empty_table()
    whole = [(sign * row["values"]).astype(np.float32) for row in rows]
    lists = activation_lists(stacked([one[None] for one in whole]), np.array([len(one) for one in whole]), bits)
    maxima = [sign * float(np.nanmax(row["values"])) for row in rows]
    columns: dict[str, Any] = {"max_activation": maxima, "activations": lists}
    columns |= {name: [row[name] for row in rows] for name in JUDGED_TEXTS.schema.names if name not in columns}
    arrays = {name: pa.array(values, from_pandas=True) for name, values in columns.items()}
    return pa.table([arrays[field.name].cast(field.type) for field in JUDGED_TEXTS.schema], schema=JUDGED_TEXTS.schema)


def made_up_judged_texts(config: RunConfig, tables: Tables, units: Sequence[Unit]) -> Mapping[str, pa.Table]:
    """As many texts for judges as units that fire everywhere have: they fire on a quarter of the sample and are quiet on a half."""
    judge, record = config[Judge], config[Record]
    texts = corpus_texts(tables) if units and judge.names else {}
    report = [seq_id for seq_id in texts if split_of(seq_id) == "report"]
    drawn = min(len(report), max(judge.sample, record.random.report))
    beside = 0 if drawn == config.corpus.max_sequences // 4 else record.top.report
    counts = {"fires": -(-drawn // 4) + beside, "quiet": drawn // 2, "weak": drawn // 4}
    rows = [
        {"module": module, "index": index, "polarity": polarity, "band": band, "rank": rank, "seq_id": report[rank], "split": "report",
         "decile": 1 if band == "fires" else None, "fires_above": 0.0,
         "activations": [*[0.0] * (len(texts[report[rank]]) - 1), float(band == "fires")]}
        for module, polarity, index in units
        for band, count in counts.items() for rank in range(min(count, judge.examples, len(report)))
    ]  # fmt: skip
    return {JUDGED_TEXTS.name: JUDGED_TEXTS.of_rows(rows)}


TEXTS = Stage(
    name="judge.texts",
    title="choose texts for judges",
    reads=("record.merge", "corpus"),
    writes=(JUDGED_TEXTS,),
    settings=settings,
    plan=plan,
    process=process,
    splits=(SPLIT,),
    estimate=EstimateHints(made_up_tables=made_up_judged_texts),
    method="simulation",
)
