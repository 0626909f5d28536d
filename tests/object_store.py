"""A real S3 server on loopback, and the environment that leads to it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from uuid import uuid4

import boto3
import fsspec

from pipeline.storage import stores

SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print("http://{}:{}".format(*server.get_host_and_port()), flush=True)
sys.stdin.read()
"""
"""It ends when what started it does, as that holds the other end of its standard input."""


@cache
def _address() -> str:
    """Of the server, a process that ends with this one."""
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdout
    return server.stdout.readline().strip()


@contextmanager
def new_bucket() -> Iterator[str]:
    """The URL of an empty bucket; within the block this process and those that it starts reach it."""
    own = {
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": _address(),
    }
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    _forget()
    name = f"bucket-{uuid4().hex[:8]}"
    boto3.client("s3").create_bucket(Bucket=name)
    try:
        yield f"s3://{name}"
    finally:
        for key, value in before.items():
            os.environ.pop(key)
            if value is not None:
                os.environ[key] = value
        _forget()


def _forget() -> None:
    """Stores that are known by now were reached by another environment."""
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    stores._reach.cache_clear()
