"""The threads of BLAS, beside those of XLA on the same cores."""

import contextlib
import importlib
from collections.abc import Iterator

from threadpoolctl import ThreadpoolController


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Let BLAS, NumPy's and the one that XLA calls, use one thread meanwhile.

    Threads of one call wait for each other, and spin where others use these cores as well, as XLA's do: there a
    Cholesky factor of 150 x 150 took 224 ms by two threads, of 2,500 x 2,500 3.6 s, and 0.2 ms and 0.22 s by one; 128
    of 40 x 40 with their gradients, which XLA asks for one by one, 400 ms and 4 ms. On idle cores two were no faster up
    to 1,600 x 1,600.
    """
    # XLA would load it later, but it must be there to be told; not with thalweg, whose import it would lengthen
    importlib.import_module("scipy.linalg.cython_blas")
    pools = ThreadpoolController()
    with pools.limit(limits=1, user_api="blas"):
        yield
