"""One thread of BLAS meanwhile, and as many as before afterwards."""

import contextlib
import importlib

from threadpoolctl import ThreadpoolController

from thalweg import _core as core


def threads():
    """(of NumPy's, of SciPy's)."""
    found = {"numpy": set(), "scipy": set()}
    for pool in ThreadpoolController().info():
        if pool["user_api"] == "blas":
            found["numpy" if "/numpy" in pool["filepath"] else "scipy"].add(pool["num_threads"])
    return found["numpy"], found["scipy"]


def test_one_thread_meanwhile():
    importlib.import_module("scipy.linalg.cython_blas")  # to be counted
    with ThreadpoolController().limit(limits=2, user_api="blas"):
        with core.one_blas_thread():
            assert threads() == ({1}, {1})
        assert threads() == ({2}, {2})
        with contextlib.suppress(ValueError), core.one_blas_thread():
            raise ValueError
        assert threads() == ({2}, {2})
