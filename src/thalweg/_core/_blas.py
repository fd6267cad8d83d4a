"""The threads of BLAS, beside those of XLA on the same cores."""

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path

from threadpoolctl import ThreadpoolController


@contextlib.contextmanager
def one_blas_thread(*, of_numpy: bool = True) -> Iterator[None]:
    """Let BLAS use one thread meanwhile.

    XLA calls SciPy's for every single matrix of a batch, and its threads wait for each other there: 128 factorisations
    of 40 x 40 with their gradients take 4 ms by one thread, as much by two on idle cores, and 400 ms by two where
    others use these cores as well. Up to 1,600 x 1,600 two threads were no faster. NumPy's are kept for large matrices.

    Args:
        of_numpy: NumPy's as well.
    """
    # XLA would load it later, but it must be there to be told; not with thalweg, whose import it would lengthen
    importlib.import_module("scipy.linalg.cython_blas")
    pools = ThreadpoolController()
    blas = [pool["filepath"] for pool in pools.info() if pool["user_api"] == "blas"]
    if not of_numpy:
        # in a wheel, `numpy.libs` or `numpy/.dylibs`
        blas = [path for path in blas if not any(part.startswith("numpy") for part in Path(path).parts[-3:-1])]
    with pools.select(filepath=blas).limit(limits=1):
        yield
