"""Targets from Stan programs; the only file that knows httpstan."""

import collections
import dataclasses
import functools
import math
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thalweg._core import Array, Scalar, Shape, import_guest, precision, requirement
from thalweg.targets._check import check_gradient
from thalweg.targets._data import as_data, leaves_with
from thalweg.targets._data_file import read_data
from thalweg.targets._space import MappedSpace
from thalweg.targets._stan_library import Quantity, StanModel, build, translate
from thalweg.targets._target import Target

Data = Mapping[str, np.ndarray]

_MODELS_KEPT = 16
_PARAMETERS, _ALL = ("parameter",), ("parameter", "transformed", "generated")
_LOG_LIKELIHOOD, _REPLICATE = "log_lik", "_rep"


def _key(library: str, data: Data) -> tuple[Any, ...]:
    return library, *((n, x.dtype.str, x.shape, x.tobytes()) for n, x in sorted(data.items()))


class _Models:
    """Programs with their data, the last few: found again by library and numbers.

    The data come with every call, since they are the target's leaves. Finding their model reads them once; one row of
    its log density reads them too.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: collections.OrderedDict[Any, StanModel] = collections.OrderedDict()

    def get(self, library: str, data: Data) -> StanModel:
        """The model of these data, made if it is not there."""
        key = _key(library, data)
        with self._lock:
            model = self._kept.get(key) or StanModel(library, data)
            self._keep(key, model)
            return model

    def put(self, library: str, data: Data, model: StanModel) -> None:
        """Let `data` stand for those of `model`: the same in single precision."""
        with self._lock:
            self._keep(_key(library, data), model)

    def _keep(self, key: Any, model: StanModel) -> None:
        self._kept[key] = model
        self._kept.move_to_end(key)
        while len(self._kept) > _MODELS_KEPT:
            self._kept.popitem(last=False)


_MODELS = _Models()


@dataclasses.dataclass(frozen=True)
class _Program:
    """A compiled program and what it declares, for data of one form; equal where these are.

    Attributes:
        path: of its shared library.
        size: d.
        quantities: what it declares.
        unit_vectors: names of parameters that are unit vectors, or arrays of them.
    """

    path: str
    size: int
    quantities: tuple[Quantity, ...]
    unit_vectors: tuple[str, ...] = ()

    @classmethod
    def of(cls, library: str, model: StanModel) -> "_Program":
        """What `model` says of itself."""
        return cls(library, model.size, model.quantities, _unit_vectors(model))

    @property
    def log_radii(self) -> float:
        r"""Log of what the lengths of Stan's unit vectors integrate to, $2^{k/2-1} \Gamma(k/2)$ each.

        Stan makes one of k numbers, whose direction it is, and gives their length a normal's density: a part of the
        integral over R^d that is none of the model's.
        """
        shapes = [q.shape for q in self.of_kind(_PARAMETERS) if q.name in self.unit_vectors]
        each = [math.prod(s[:-1]) * ((s[-1] / 2 - 1) * math.log(2) + math.lgamma(s[-1] / 2)) for s in shapes]
        return float(sum(each))

    def of_kind(self, kinds: tuple[str, ...]) -> tuple[Quantity, ...]:
        """What it declares of some kinds."""
        return tuple(q for q in self.quantities if q.kind in kinds)

    def count(self, kinds: tuple[str, ...]) -> int:
        """How many numbers they are."""
        return sum(math.prod(q.shape) for q in self.of_kind(kinds))

    def call(self, compute: Callable[..., Any], rows: Any, data: Any, shapes: tuple[Shape, ...]) -> tuple[Array, ...]:
        """Call the library from within JAX, once for a whole batch.

        Args:
            compute: (model, *rows) -> a tuple of arrays, rows first.
            rows: a tuple of one point's arrays; batches come by `jax.vmap`.
            data: name -> array, or None.
            shapes: of one point's results.
        """
        first = rows[0]
        arguments, treedef = jax.tree.flatten((rows, data or {}))
        dtypes = [x.dtype for x in arguments]

        def on_host(*bits: Any) -> tuple[np.ndarray, ...]:
            arrays = [_from_bits(np.asarray(x), dtype) for x, dtype in zip(bits, dtypes, strict=True)]
            parts, given = jax.tree.unflatten(treedef, arrays)
            axes = parts[0].ndim - first.ndim
            found = self._by_data(compute, list(parts), given, axes)
            with np.errstate(over="ignore"):
                return tuple(_host_bits(x.astype(first.dtype)) for x in found)

        results = tuple(jax.ShapeDtypeStruct(*_form_of_bits(s, first.dtype)) for s in shapes)
        bits = jax.pure_callback(on_host, results, *map(_to_bits, arguments), vmap_method="expand_dims")
        return tuple(jax.lax.bitcast_convert_type(x, first.dtype) for x in bits)

    def _by_data(
        self, compute: Callable[..., Any], rows: list[np.ndarray], data: dict[str, np.ndarray], axes: int
    ) -> list[np.ndarray]:
        """The results for arrays with `axes` batch axes in front, of length 1 where they are the same for all."""
        batch = np.broadcast_shapes(*(x.shape[:axes] for x in (*rows, *data.values())))
        rows = [np.broadcast_to(x, (*batch, *x.shape[axes:])).reshape(-1, *x.shape[axes:]) for x in rows]
        if all(math.prod(x.shape[:axes]) == 1 for x in data.values()):
            own = {n: x.reshape(x.shape[axes:]) for n, x in data.items()}
            found = self._compute(compute, own, rows)
        else:
            data = {
                n: np.broadcast_to(x, (*batch, *x.shape[axes:])).reshape(-1, *x.shape[axes:]) for n, x in data.items()
            }
            groups: dict[Any, list[int]] = {}
            for i in range(len(rows[0])):
                groups.setdefault(tuple(x[i].tobytes() for x in data.values()), []).append(i)
            order = np.argsort(np.concatenate(list(groups.values())))
            parts = [
                self._compute(compute, {n: np.asarray(x[same[0]]) for n, x in data.items()}, [x[same] for x in rows])
                for same in groups.values()
            ]
            found = [np.concatenate(x)[order] for x in zip(*parts, strict=True)]
        return [x.reshape((*batch, *x.shape[1:])) for x in found]

    def _compute(self, compute: Callable[..., Any], data: Data, rows: list[np.ndarray]) -> Any:
        model = _MODELS.get(self.path, data)
        if (model.size, model.quantities) != (self.size, self.quantities):
            remedy = "build a new target with from_stan"
            raise ValueError(requirement("data", "leave the parameters' shapes as they were", "other ones", remedy))
        return compute(model, *rows)

    def as_dict(self, flat: Array, kinds: tuple[str, ...]) -> dict[str, Array]:
        """Numbers in Stan's order, first index fastest, as arrays by name."""
        out, start = {}, 0
        for _, name, shape in self.of_kind(kinds):
            size = math.prod(shape)
            out[name] = flat[start : start + size].reshape(shape[::-1]).transpose()
            start += size
        return out

    def as_flat(self, params: Mapping[str, Array]) -> Array:
        """The inverse of `as_dict`, for the parameters."""
        arrays = [jnp.asarray(params[q.name], jnp.result_type(float)) for q in self.of_kind(_PARAMETERS)]
        return jnp.concatenate([x.transpose().ravel() for x in arrays])


# JAX may run a callback in a thread of its own, where the float64 of this one is not known and every float64 argument
# and result would be rounded to float32: they travel as pairs of whole numbers.


def _to_bits(x: Array) -> Array:
    return jax.lax.bitcast_convert_type(x, jnp.uint32) if x.dtype == np.float64 else x


def _from_bits(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return np.ascontiguousarray(x).view(dtype)[..., 0] if dtype == np.float64 else x


def _host_bits(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x[..., None]).view(np.uint32) if x.dtype == np.float64 else x


def _form_of_bits(shape: Shape, dtype: np.dtype) -> tuple[Shape, Any]:
    return ((*shape, 2), np.uint32) if dtype == np.float64 else (shape, dtype)


def _double(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x, float)


def _value(model: StanModel, u: np.ndarray) -> Any:
    return model.log_density(_double(u), gradient=False)[:1]


def _value_and_gradient(model: StanModel, u: np.ndarray) -> Any:
    return model.log_density(_double(u), gradient=True)


def _constrained(model: StanModel, u: np.ndarray) -> Any:
    return model.constrain(_double(u), derived=False)


def _unconstrained(model: StanModel, flat: np.ndarray) -> Any:
    return (model.unconstrain(_double(flat)),)


def _derived(model: StanModel, flat: np.ndarray, seed: np.ndarray) -> Any:
    u = model.unconstrain(_double(flat))
    return (model.constrain(u, derived=True, seeds=seed[:, 0])[0],)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _log_density(program: _Program, u: Array, data: Any) -> Scalar:
    return program.call(_value, (u,), data, ((),))[0]


@functools.partial(_log_density.defjvp, symbolic_zeros=True)
def _log_density_jvp(program: _Program, primals: Any, tangents: Any) -> tuple[Scalar, Any]:
    """Value and gradient in a single call; linear in the tangent, so that reverse mode has it too."""
    zero = jax.custom_derivatives.SymbolicZero
    u_dot, *of_data = jax.tree.leaves(tangents, is_leaf=lambda t: isinstance(t, zero))
    if not all(isinstance(t, zero) for t in of_data):
        remedy = "Stan knows gradients with respect to the parameters alone"
        raise ValueError(requirement("data", "be constant where JAX differentiates", "data that are not", remedy))
    u, data = primals
    value, gradient = program.call(_value_and_gradient, (u,), data, ((), u.shape))
    return value, jnp.zeros_like(value) if isinstance(u_dot, zero) else jnp.dot(gradient, u_dot)


@dataclasses.dataclass(frozen=True)
class _LogDensity:
    program: _Program

    def __call__(self, u: Array, data: Any) -> Scalar:
        return _log_density(self.program, u, data) - self.program.log_radii


@dataclasses.dataclass(frozen=True)
class _Forward:
    program: _Program

    def __call__(self, u: Array, data: Any) -> tuple[dict[str, Array], Scalar]:
        flat, log_det = self.program.call(_constrained, (u,), data, ((self.program.count(_PARAMETERS),), ()))
        return self.program.as_dict(flat, _PARAMETERS), log_det - self.program.log_radii


@dataclasses.dataclass(frozen=True)
class _Inverse:
    program: _Program

    def __call__(self, params: Mapping[str, Array], data: Any) -> Array:
        return self.program.call(_unconstrained, (self.program.as_flat(params),), data, ((self.program.size,),))[0]


@dataclasses.dataclass(frozen=True)
class _LogJoint:
    program: _Program

    def __call__(self, params: Mapping[str, Array], data: Any) -> Scalar:
        u = _Inverse(self.program)(params, data)
        log_det = _Forward(self.program)(u, data)[1]
        return _LogDensity(self.program)(u, data) - log_det


@dataclasses.dataclass(frozen=True)
class _Derived:
    """Some of what the program derives from its parameters, under other names.

    Generated quantities may draw random numbers: by the key for `predictive`, else always the same at a point.

    Attributes:
        program: the program.
        names: what it calls them -> what they are called here.
        random: whether the first argument is a key.
    """

    program: _Program
    names: tuple[tuple[str, str], ...]
    random: bool = False

    def __call__(self, *arguments: Any) -> dict[str, Array]:
        key, params, data = arguments if self.random else (None, *arguments)
        seed = jnp.zeros((1,), jnp.uint32) if key is None else jax.random.bits(key, (1,), jnp.uint32)
        count = self.program.count(_ALL)
        flat = self.program.call(_derived, (self.program.as_flat(params), seed), data, ((count,),))[0]
        found = self.program.as_dict(flat, _ALL)
        return {ours: found[theirs] for theirs, ours in self.names}


def _toolchain() -> tuple[Path, str]:
    """The folder of httpstan, with stanc, Stan's headers and its libraries in it; and its version."""
    httpstan = import_guest("httpstan", "stan")
    return Path(str(httpstan.__file__)).parent, str(httpstan.__version__)


def _read_program(program: Any) -> tuple[str, str, Path | None]:
    """(text, its file's name, its folder).

    Raises:
        ValueError: if it is not a program, nor a file of one.
    """
    if not isinstance(program, str | Path):
        raise ValueError(requirement("program", "be a .stan file or a Stan program", f"a {type(program).__name__}"))
    if isinstance(program, str) and ("{" in program or "\n" in program):
        return program, "program.stan", None
    path = Path(program)
    if not path.is_file():
        raise ValueError(
            requirement("program", "be a .stan file or a Stan program", repr(str(program)), "check the path")
        )
    return path.read_text(), path.name, path.resolve().parent


def _read_values(data: Any, types: Mapping[str, Any]) -> dict[str, np.ndarray] | None:
    """The data as arrays, in the precision they have, of the types that the program declares.

    Raises:
        ValueError: if they are no dict, or hold NaN or what is not numbers.
    """
    if data is None:
        return None
    if isinstance(data, str | Path):
        data = read_data(data)
    if not isinstance(data, Mapping):
        raise ValueError(requirement("data", "be a dict or a data file", f"a {type(data).__name__}"))
    with precision("float64"):
        arrays = as_data(dict(data))
    if any(isinstance(x, Mapping | tuple) for x in arrays.values()):
        raise ValueError(
            requirement("data", "be arrays by name", "a dict or a tuple in them", "tuples are not known here")
        )
    if found := leaves_with(np.isnan, arrays):
        remedy = "Stan has no missing values: leave them out, or make them parameters"
        raise ValueError(requirement("data", "hold no NaN", f"NaN in {', '.join(found)}", remedy))
    return {n: _as_declared(np.asarray(x), types.get(n)) for n, x in arrays.items()} or None


def _as_declared(array: np.ndarray, kind: Any) -> np.ndarray:
    """Whole numbers for an int and reals for a real, however they were written; what does not fit is Stan's to tell."""
    if kind == "real":
        return array.astype(float)
    if kind == "int" and array.dtype.kind == "f" and np.all(np.abs(array) < 2**31) and np.all(array == np.round(array)):
        return array.astype(int)
    return array


def from_stan(
    program: str | Path,
    data: Any = None,
    *,
    name: str | None = None,
    coords: Mapping[str, Any] | None = None,
    dims: Mapping[str, Any] | None = None,
) -> Target:
    """A target from a Stan program and its data.

    The program is compiled once, in about half a minute, and kept in `thalweg/stan` of the user's cache folder; it
    needs a C++ compiler. The point of R^d is Stan's own, and so is the log density, with its normalising constants
    (`_lupdf` terms, too, have them) and its gradient, in double precision: JAX calls them back on the CPU, a whole
    batch at a time. A point that the program rejects has log density -inf. The gradient is known with respect to the
    parameters, and once.

    The log density of a unit vector is with respect to the sphere's area, as that of `unit_vector`. Stan makes it of as
    many numbers as it has, whose length it forgets: such a posterior has no `log_prob`.

    Transformed parameters and generated quantities are the target's deterministic quantities, with two exceptions that
    go by their names: `log_lik` is the pointwise log-likelihood, and `y_rep`, where the data have a `y` of its shape,
    replicates of y.

    Args:
        program: a `.stan` file, or the program itself.
        data: a dict of arrays and numbers, a data file (`.json`, `.json.gz`, `.npz`, `.csv`), or None. They are the
            target's data: other numbers of the same shapes (`target.replace_data`) compile nothing again.
        name: for reports; the file's by default.
        coords: dimension -> its labels.
        dims: quantity -> the names of its dimensions.

    Raises:
        ValueError: if the program does not compile, has no parameters or tuples among them, or fails at all of a few
            points otherwise than by rejecting them; if the data do not fit it.
        ImportError: without httpstan.
    """
    text, file, folder = _read_program(program)
    home, version = _toolchain()
    translation = translate(text, file, home / "stanc", folder)
    if not translation.parameters:
        raise ValueError(requirement("program", "have parameters", "none", "there is nothing to infer"))
    tuples = [name for name, kind in translation.parameters.items() if isinstance(kind, list)]
    if tuples:
        must, remedy = "have parameters that are arrays", "declare their parts one by one"
        raise ValueError(requirement("program", must, f"tuples ({', '.join(tuples)})", remedy))
    values = _read_values(data, translation.inputs)
    library = str(build(translation.cpp, home, version))
    model = StanModel(library, values or {})
    _check(model)
    for dtype in ("float32", "float64"):
        with precision(dtype):
            # what single precision cuts off is not lost to Stan
            _MODELS.put(library, {n: np.asarray(x) for n, x in as_data(values or {}).items()}, model)
    its = _Program.of(library, model)
    shapes = {q.name: q.shape for q in its.of_kind(_PARAMETERS)}
    derived = {q.name: q.shape for q in its.of_kind(_ALL[1:])}
    replicates = _replicates(derived, values or {})
    others = [n for n in derived if n not in replicates and n != _LOG_LIKELIHOOD]
    observed = tuple(replicates.values())
    # of one observed array the pointwise log-likelihood goes by the same name
    of_likelihood = observed[0] if len(observed) == 1 else _LOG_LIKELIHOOD
    target = Target(
        MappedSpace(shapes, model.sizes, _Forward(its), _Inverse(its), its.unit_vectors),
        _LogJoint(its),
        values,
        log_density_in_space=_LogDensity(its),
        log_likelihood=_Derived(its, ((_LOG_LIKELIHOOD, of_likelihood),)) if _LOG_LIKELIHOOD in derived else None,
        deterministic=_Derived(its, tuple((n, n) for n in others)) if others else None,
        predictive=_Derived(its, tuple(replicates.items()), random=True) if replicates else None,
        observed_names=observed,
        name=name or Path(file).stem,
        coords=coords,
        dims=dims,
    )
    return check_gradient(target, "program")


def _unit_vectors(model: StanModel) -> tuple[str, ...]:
    """Names of parameters that are the same, and of length 1, wherever on a ray from 0 their numbers are."""
    u = np.random.default_rng(0).uniform(0.5, 1.5, (1, model.size))
    near, far = (model.constrain(scale * u, derived=False)[0][0] for scale in (1.0, 2.0))
    found, start = [], 0
    for kind, name, shape in model.quantities:
        size = math.prod(shape)
        if kind in _PARAMETERS and size and size == model.sizes[name]:
            values = near[start : start + size].reshape(shape[::-1]).transpose()
            is_same = np.allclose(near[start : start + size], far[start : start + size], rtol=1e-12, atol=0)
            if is_same and shape and np.allclose(np.linalg.norm(values, axis=-1), 1, atol=1e-9):
                found.append(name)
        start += size if kind in _PARAMETERS else 0
    return tuple(found)


def _replicates(derived: Mapping[str, Shape], data: Data) -> dict[str, str]:
    """What is called y_rep, and has the shape of the data's y -> y."""
    pairs = {n: n.removesuffix(_REPLICATE) for n in derived if n.endswith(_REPLICATE)}
    return {n: of for n, of in pairs.items() if of in data and data[of].shape == derived[n]}


def _check(model: StanModel) -> None:
    """Raise for a program that fails at one of a few points.

    Raises:
        ValueError: in one sentence.
    """
    points = np.random.default_rng(0).uniform(-2, 2, (5, model.size))
    points[0] = 0
    model.log_density(points, gradient=True)
    model.constrain(points, derived=True)
