"""What every room may use: array types, checks, trees, batching, roots, precision, files and their registry."""

from thalweg._core._ahead import ahead, no_longer_than_this, one_at_a_time
from thalweg._core._angles import wrap_angle
from thalweg._core._batching import in_pieces, over_batch
from thalweg._core._blas import one_blas_thread
from thalweg._core._checks import (
    check_choice,
    check_positive,
    check_positive_int,
    check_shape,
    check_sizes,
    check_trailing_shape,
    requirement,
)
from thalweg._core._count import Count, count, counted, counting
from thalweg._core._files import write_atomically
from thalweg._core._guests import import_guest
from thalweg._core._jit import quick_jit, quick_rows_jit, rows_jit, wide_jit
from thalweg._core._log_sum_exp import log_sum_exp
from thalweg._core._precision import precision, resolve_dtype
from thalweg._core._random import as_key, from_numpy, in_precision, key_words, named_on_host, numpy_rng, split_on_host
from thalweg._core._roots import increasing_root
from thalweg._core._serialisation import FileError, read_file, register, write_file
from thalweg._core._trees import Fixed, Skeleton, freeze, partition_trainable, stack_modules, trainable
from thalweg._core._types import Array, Bool, Cost, Float, Int, Key, PRNGKeyArray, PyTree, Scalar, Seed, Shape

__all__ = [
    "Array",
    "Bool",
    "Cost",
    "Count",
    "FileError",
    "Fixed",
    "Float",
    "Int",
    "Key",
    "PRNGKeyArray",
    "PyTree",
    "Scalar",
    "Seed",
    "Shape",
    "Skeleton",
    "ahead",
    "as_key",
    "check_choice",
    "check_positive",
    "check_positive_int",
    "check_shape",
    "check_sizes",
    "check_trailing_shape",
    "count",
    "counted",
    "counting",
    "freeze",
    "from_numpy",
    "import_guest",
    "in_pieces",
    "in_precision",
    "increasing_root",
    "key_words",
    "log_sum_exp",
    "named_on_host",
    "no_longer_than_this",
    "numpy_rng",
    "one_at_a_time",
    "one_blas_thread",
    "over_batch",
    "partition_trainable",
    "precision",
    "quick_jit",
    "quick_rows_jit",
    "read_file",
    "register",
    "requirement",
    "resolve_dtype",
    "rows_jit",
    "split_on_host",
    "stack_modules",
    "trainable",
    "wide_jit",
    "wrap_angle",
    "write_atomically",
    "write_file",
]
