"""All that a process of the pipeline would else import anew each time it starts; see `workers`."""

import contextlib
import importlib
import os
import pkgutil

for _name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # a process that is forked has no use for the threads of the one it is forked from

import pipeline  # noqa: E402
import stages  # noqa: E402

for _package in (pipeline, stages):
    for _module in pkgutil.walk_packages(_package.__path__, f"{_package.__name__}."):
        with contextlib.suppress(ImportError):  # of an extra that is not installed
            importlib.import_module(_module.name)
