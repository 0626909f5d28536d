"""What it costs to have the evidence about units, beside EleutherAI's Delphi (eai-delphi 0.1.3 from its package).

Run: python -m tests.benchmarks.bench_peer [--sequences 1024] [--layers 15] [--kinds dense sparse]

Both sides read the same 64-token windows of the package sample in batches of 32, with the same torch and transformers, in
float32 and with one thread, each in a process of its own. Both first do one batch of everything, so that imports,
compilation and the loading of the model are left out; loading a sparse coder is not.

    Delphi  LatentCache.run, save_splits and save_config, then every record of LatentDataset, with its own constructor and sampler.
            Settings are its defaults (5 splits, windows of 32 tokens, 40 examples to explain and 50 to test, 50 random
            non-activating ones), but for min_examples = 1, so that each unit that fires has its record, as at the ten
            million tokens that Delphi recommends. Its statistics of the cache (generate_statistics_cache) are not run.
    ours    the stages record.scan and record.merge, with their defaults: both polarities, of each the 40 strongest and 40
            random sequences with their activations, quantile bands, moments, histogram, densities and top tokens. Only
            weight_tokens = 0, because Delphi reads nothing from the weights.

dense are the MLP neurons of --layers: the input of the down projection, which Delphi takes as it takes the input of a transcoder.
sparse are the latents of a TopK sparse autoencoder (k = 32) of the residual stream, not trained (see peer/sparse_coder.py),
which both read from the same files. The last line is JSON, theirs over ours for each kind of unit:

    cpu_ratio_*         CPU time beyond the forward pass: all but what is spent in the model outside of hooks; the encoder of
                        a sparse coder counts. That our pass ends at the last recorded layer is not in our favour here,
                        but it is in cpu_total_ratio
    cpu_total_ratio_*   CPU time of everything, the forward pass included
    memory_ratio_*      memory of the process at its peak, the model included
    memory_beyond_ratio_*  of that, what was not there before the work began
    disk_ratio_*        all that is left on disk: Delphi's splits with their tokens; our run's folder. Activations are float16 there, and
                        rounded to as many bits here (record.activation_bits)
    disk_most_ratio_*   the same with our partial tables, whose rows are removed once they are merged

Delphi's files grow by 8 bytes and its memory by 28 to 56 bytes for each active unit at each token, ours do not grow with the
corpus: disk and memory ratios rise with --sequences. Delphi's environment is made on first use; where that fails, the benchmark says
so and ends with exit code 0.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from pipeline.config.run_file import load_config
from pipeline.errors import UserError
from stages.settings import SECTIONS
from tests.benchmarks.peer.clock import MB, bytes_in
from tests.benchmarks.peer.environment import peer_python
from tests.benchmarks.peer.task import BATCH, Task, dense_task, sparse_task

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


def run_side(python: Path, module: str, task: Task, folder: Path) -> dict[str, float]:
    """Run one side in a process of its own and read the costs that it prints."""
    command = [str(python), "-m", f"tests.benchmarks.peer.{module}", str(task.save(folder))]
    log = folder / f"{module}-{task.kind}.log"
    with log.open("w", encoding="utf-8") as stream:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=stream, text=True, env={**os.environ, **ONE_THREAD, **OFFLINE}
        )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{log.read_text(encoding='utf-8')[-3000:]}")
    cost: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return cost


def figures_of(cost: Mapping[str, float], left: float) -> dict[str, float]:
    """What is printed of a side that left some bytes on disk."""
    return {
        "records": cost["records"],
        "cpu": cost["work"] - cost["inside"],
        "hooks": cost["hooks"],
        "cpu_total": cost["work"],
        "cpu_less_bare": cost["work"] - cost["bare"],
        "cpu_bare": cost["bare"],
        "memory": cost["peak_mb"],
        "memory_beyond": cost["beyond_mb"],
        "disk": left / MB,
        "disk_most": left / MB + cost["passing_mb"],
    }


def compare(task: Task, python: Path, folder: Path) -> dict[str, float]:
    """Run both sides, print their costs, and return the ratios."""
    theirs = run_side(python, "delphi_side", task, folder)
    ours = run_side(Path(sys.executable), "our_side", task, folder)
    saved, run = Path(task.delphi_folder), load_config(task.run_file, SECTIONS).root
    sides = figures_of(theirs, bytes_in(saved)), figures_of(ours, bytes_in(run))
    print(f"{task.kind:34}{'Delphi':>12}{'ours':>12}")
    for name, meaning in LINES.items():
        print(f"  {meaning:32}{sides[0][name]:12,.1f}{sides[1][name]:12,.1f}")
    return {f"{name}_ratio_{task.kind}": sides[0][name] / sides[1][name] for name in RATIOS}


LINES = {
    "records": "units with evidence",
    "cpu": "CPU s beyond the forward pass",
    "hooks": "of it in hooks and recorder",
    "cpu_total": "CPU s in all",
    "cpu_less_bare": "CPU s in all less a bare forward",
    "cpu_bare": "CPU s of a bare forward",
    "memory": "peak memory, MB",
    "memory_beyond": "of it since before the work, MB",
    "disk": "disk left, MB",
    "disk_most": "disk with partial tables, MB",
}
RATIOS = ("cpu", "cpu_total", "memory", "memory_beyond", "disk", "disk_most")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=1024, help=f"a multiple of {BATCH}")
    parser.add_argument("--layers", type=int, nargs="+", default=[15], help="of the neurons; the coder takes the first")
    parser.add_argument("--latents", type=int, default=4096, help="of the sparse coder")
    parser.add_argument("--kinds", nargs="+", choices=["dense", "sparse"], default=["dense", "sparse"])
    options = parser.parse_args()
    if options.sequences < BATCH or options.sequences % BATCH:
        parser.error(f"--sequences {options.sequences} is not a multiple of {BATCH}, which Delphi would cut it to")
    if sys.platform != "linux":
        print(f"skipped: memory is measured through Linux's /proc, and this is {sys.platform}")
        return
    try:
        python = peer_python()
    except UserError as error:
        print(f"skipped: Delphi cannot be installed here: {error}")
        return
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="bench-peer-") as name:
        folder = Path(name)
        dense = dense_task(folder, options.layers, options.sequences)
        print(f"sequences {options.sequences:,} of 64 tokens, layers {options.layers}, {options.latents:,} latents")
        if "dense" in options.kinds:
            found |= compare(dense, python, folder)
        if "sparse" in options.kinds:
            found |= compare(sparse_task(folder, options.layers[0], options.latents, dense), python, folder)
    for ratio, value in found.items():
        print(f"{ratio:34}{value:12.2f}")
    print(json.dumps({ratio: round(value, 3) for ratio, value in found.items()}))


if __name__ == "__main__":
    main()
