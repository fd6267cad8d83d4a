"""Stan programs as shared libraries: made by stanc and a C++ compiler, kept, and called by ctypes."""

import ctypes
import functools
import hashlib
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from thalweg._core import Shape, requirement, write_atomically

_SOURCE = Path(__file__).with_name("_stan.cpp")
_FLAGS = (
    "-O3",  # compiles as fast as -O1 here, and its log densities are a tenth faster
    "-std=c++17",
    "-shared",
    "-fPIC",
    "-fvisibility=hidden",  # with the next: libraries of two programs must not share Boost's and Stan's globals
    *(("-fno-gnu-unique",) if sys.platform == "linux" else ()),
    "-w",
    "-DBOOST_DISABLE_ASSERTS",
    "-DBOOST_PHOENIX_NO_VARIADIC_EXPRESSION",
    "-DSTAN_THREADS",
    "-D_REENTRANT",
    "-DSTAN_MATH_CONSTRAINT_TOLERANCE=1e-6",  # a simplex in float32 does not add up to 1 within Stan's 1e-8
    "-D_GLIBCXX_USE_CXX11_ABI=0",  # as the libraries that it is linked with
)
_LIBRARIES = ("sundials_cvodes", "sundials_idas", "sundials_kinsol", "sundials_nvecserial", "tbb")


class Quantity(NamedTuple):
    """What a Stan program declares.

    Attributes:
        kind: "parameter", "transformed" or "generated".
        name: as declared.
        shape: its dimensions.
    """

    kind: str
    name: str
    shape: Shape


def cache_folder() -> Path:
    """Where compiled programs are kept: `thalweg/stan` in XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "thalweg" / "stan"


class Translation(NamedTuple):
    """What stanc makes of a program.

    Attributes:
        cpp: the program in C++.
        inputs: name of data -> "int" or "real" (or "complex", or a list of those where it is a tuple).
        parameters: name -> the same.
    """

    cpp: str
    inputs: dict[str, Any]
    parameters: dict[str, Any]


def translate(program: str, name: str, stanc: Path, includes: Path | None) -> Translation:
    """A Stan program in C++.

    Args:
        program: the program's text.
        name: of its file, for messages.
        stanc: the compiler.
        includes: a folder for `#include`, or None.

    Raises:
        ValueError: with stanc's error and its line, in one sentence.
    """
    with tempfile.TemporaryDirectory(prefix="thalweg-") as folder:
        source = Path(folder) / "model.stan"
        source.write_text(program)
        command = [str(stanc), "--name", "model", "--include-paths", ".", str(source)]
        said = []
        # the C++ holds neither its file's name nor its folder's: elsewhere it is no other program
        for wanted, called in (("--info", name), ("--print-cpp", "program")):
            options = [wanted, "--filename-in-msg", called]
            done = subprocess.run([*command, *options], cwd=includes, capture_output=True, text=True, check=False)
            if done.returncode:
                raise ValueError(requirement("program", "be a Stan program that compiles", _complaint(done.stderr)))
            said.append(done.stdout)
    info = json.loads(said[0])
    inputs, parameters = ({n: x["type"] for n, x in info[k].items()} for k in ("inputs", "parameters"))
    return Translation(said[1], inputs, parameters)


def _complaint(text: str) -> str:
    """Stan's message without the drawing of the place."""
    lines = [line.strip() for line in text.splitlines()]
    drawn = [i for i, line in enumerate(lines) if line and not line.strip("-")]
    kept = lines if len(drawn) < 2 else lines[: drawn[0]] + lines[drawn[-1] + 1 :]
    return " ".join(line for line in kept if line) or "no word of why"


def build(cpp: str, home: Path, version: str) -> Path:
    """The shared library of a program's C++, compiled unless it was before.

    Args:
        cpp: from `translate`.
        home: a folder with Stan's `include` and `lib`.
        version: of what is in that folder.

    Raises:
        ValueError: without a C++ compiler, or where it fails, or where the cache cannot be written.
    """
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("g++", "clang++", "c++")), None)
    if compiler is None or shutil.which(compiler) is None:
        got = "none" if compiler is None else compiler
        raise ValueError(requirement("CXX", "be a C++ compiler, which Stan programs need", got, "install g++"))
    told = "\0".join((cpp, _SOURCE.read_text(), version, str(home), compiler, *_FLAGS, platform.machine()))
    folder = cache_folder() / hashlib.sha256(told.encode()).hexdigest()[:24]
    library = folder / "model.so"
    if library.is_file():
        return library
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.cpp").write_text(cpp)
    except OSError as error:
        raise ValueError(requirement("XDG_CACHE_HOME", "be a folder that can be written", error)) from error
    lib = home / "lib"
    command = [compiler, *_FLAGS, f'-DTHALWEG_MODEL="{folder / "model.cpp"}"', f"-I{home / 'include'}", str(_SOURCE)]
    command += [f"-L{lib}", *(f"-l{name}" for name in _LIBRARIES), f"-Wl,-rpath,{lib}"]
    write_atomically(library, lambda temporary: _compile([*command, "-o", str(temporary)]))
    return library


def _compile(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
        got = errors[0].strip() if errors else f"exit status {done.returncode}"
        raise ValueError(requirement("program", f"be compiled by {command[0]}", got, "is the compiler a recent one?"))


_DOUBLES = np.ctypeslib.ndpointer(float, flags="C_CONTIGUOUS")
_INTS = np.ctypeslib.ndpointer(np.int32, flags="C_CONTIGUOUS")
_SEEDS = np.ctypeslib.ndpointer(np.uint32, flags="C_CONTIGUOUS")
_TEXT, _WHOLE, _MODEL = ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p


@functools.cache
def _library(path: str) -> ctypes.CDLL:
    library = ctypes.CDLL(path)
    of: dict[str, list[Any]] = {
        "forget": [_TEXT],
        "new": [ctypes.c_char_p, _INTS, _DOUBLES, ctypes.POINTER(_MODEL)],
        "delete": [_MODEL],
        "describe": [_MODEL],
        "log_density": [_MODEL, _DOUBLES, _WHOLE, _WHOLE, _DOUBLES, ctypes.c_void_p, _WHOLE],
        "constrain": [
            *(_MODEL, _DOUBLES, _WHOLE, _WHOLE, _DOUBLES, _WHOLE),
            *(ctypes.c_void_p, _WHOLE, _SEEDS, _WHOLE),
        ],
        "unconstrain": [_MODEL, _DOUBLES, _WHOLE, _WHOLE, _DOUBLES, _WHOLE, _WHOLE],
    }
    for name, arguments in of.items():
        function = getattr(library, f"thalweg_{name}")
        function.argtypes, function.restype = arguments, None if name in ("forget", "delete") else _TEXT
    return library


def _n_threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class StanModel:
    """A program and its data: batched functions from NumPy to NumPy, in double precision.

    Args:
        path: the shared library.
        data: name -> array of whole numbers or reals.

    Attributes:
        quantities: what the program declares, in order.
        sizes: parameter -> how many unconstrained numbers it takes.

    Raises:
        ValueError: if the data do not fit the program: Stan's own words.
    """

    def __init__(self, path: str, data: Mapping[str, np.ndarray]) -> None:
        self._library, pointer = _library(path), _MODEL()
        whole = {n: x for n, x in data.items() if x.dtype.kind in "biu"}
        reals = {n: x for n, x in data.items() if n not in whole}
        names = [
            f"{'i' if n in whole else 'r'} {' '.join(map(str, (n, *x.shape)))}" for n, x in (whole | reals).items()
        ]
        # Stan's arrays have their first index fastest
        ints = np.concatenate([np.empty(0, np.int64), *(x.ravel(order="F") for x in whole.values())])
        if ints.size and np.abs(ints).max() >= 2**31:
            got = ints[np.abs(ints).argmax()]
            raise ValueError(requirement("data", "have whole numbers of 32 bits, as Stan's are", got, "make it a real"))
        floats = np.concatenate([np.empty(0), *(x.ravel(order="F") for x in reals.values())]).astype(float)
        said = self._library.thalweg_new(
            "\n".join(names).encode(), ints.astype(np.int32), floats, ctypes.byref(pointer)
        )
        self._raise(said, "data", "fit the program's data block")
        self._pointer = pointer
        weakref.finalize(self, self._library.thalweg_delete, pointer)
        lines = [line.split() for line in self._take(self._library.thalweg_describe(pointer)).splitlines()]
        declared = [Quantity(kind, n, tuple(map(int, dims))) for kind, n, *dims in lines if kind != "unconstrained"]
        self.quantities = tuple(declared)
        flat = [n.split(".")[0] for kind, n, *_ in lines if kind == "unconstrained"]
        self.sizes = {q.name: flat.count(q.name) for q in declared if q.kind == "parameter"}
        self.size = len(flat)

    def _take(self, text: int | None) -> str:
        """A text of the library's, which is then forgotten."""
        if text is None:
            return ""
        words = ctypes.string_at(text).decode(errors="replace")
        self._library.thalweg_forget(text)
        return words

    def _raise(self, said: int | None, argument: str, must: str) -> None:
        words = " ".join(self._take(said).split())
        if words:
            raise ValueError(requirement(argument, must, words.removeprefix("Exception: ")))

    def count(self, *, derived: bool) -> int:
        """How many constrained numbers there are, with or without what the program derives from its parameters."""
        return sum(math.prod(q.shape) for q in self.quantities if derived or q.kind == "parameter")

    def log_density(self, u: np.ndarray, *, gradient: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """(values, gradients or None) at rows of R^d; -inf and 0 where the model rejects them.

        Raises:
            ValueError: for other errors in the program, such as an index out of range.
        """
        value, slope = np.empty(len(u)), np.empty(u.shape) if gradient else None
        pointer = None if slope is None else slope.ctypes.data
        said = self._library.thalweg_log_density(self._pointer, u, *u.shape, value, pointer, _n_threads())
        self._raise(said, "program", "run at every point, or reject it")
        return value, slope

    def constrain(
        self, u: np.ndarray, *, derived: bool, seeds: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """(constrained numbers, log-determinants) at rows of R^d; NaN where the model rejects them.

        Args:
            u: (n, d).
            derived: whether transformed parameters and generated quantities are wanted too.
            seeds: (n,) of what generated quantities draw; a row's own numbers are part of its seed.
        """
        k = self.count(derived=derived)
        constrained, log_det = np.empty((len(u), k)), np.empty(len(u))
        seeds = np.zeros(len(u), np.uint32) if seeds is None else np.ascontiguousarray(seeds, np.uint32)
        pointer = None if derived else log_det.ctypes.data
        said = self._library.thalweg_constrain(
            self._pointer, u, *u.shape, constrained, k, pointer, derived, seeds, _n_threads()
        )
        self._raise(said, "program", "run at every point, or reject it")
        return constrained, log_det

    def unconstrain(self, constrained: np.ndarray) -> np.ndarray:
        """Rows of R^d from the parameters' numbers; NaN where they are outside their supports."""
        u = np.empty((len(constrained), self.size))
        said = self._library.thalweg_unconstrain(
            self._pointer, constrained, *constrained.shape, u, self.size, _n_threads()
        )
        self._raise(said, "values", "be values of the program's parameters")
        return u
