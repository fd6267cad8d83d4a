"""Tests run strict: double precision, no silent promotion of types or ranks, annotations checked at every call."""

import os

import jax

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

if os.environ.get("THALWEG_NO_HOOK") != "1":
    from jaxtyping import install_import_hook

    # not the doors: what users get wrong there is told in one sentence, which the hook would forestall
    rooms = [
        "_core",
        "bijections",
        "diagnostics",
        "distributions",
        "flows",
        "targets",
        "objectives",
        "run",
        "fit",
        "posterior",
        "ladder",
        "report",
    ]
    install_import_hook([f"thalweg.{room}" for room in rooms], "beartype.beartype")

import itertools
import zlib

import pytest


@pytest.fixture
def getkey(request):
    """New keys, the same in every run of a test; pytest shows the seed where the test fails."""
    seed = zlib.crc32(request.node.nodeid.encode())
    print(f"getkey: seed {seed}")
    counter = itertools.count()
    return lambda: jax.random.fold_in(jax.random.key(seed), next(counter))
