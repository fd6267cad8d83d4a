"""Targets from files: a Python or Stan model file and a data file, with errors that are one sentence each."""

import inspect
import sys
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from thalweg._core import requirement
from thalweg.targets._data_file import Data, one_line, read_data
from thalweg.targets._function import from_function, from_likelihood
from thalweg.targets._numpyro import from_numpyro
from thalweg.targets._pymc import from_pymc, is_pymc_model
from thalweg.targets._stan import from_stan
from thalweg.targets._target import Target


def run_model_file(path: str | Path) -> types.ModuleType:
    """The module that a model file defines.

    Raises:
        ValueError: in one sentence, if the file is missing, is not Python, or raises.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(requirement("model", "be a file", str(path), "check the path"))
    if path.suffix != ".py":
        raise ValueError(requirement("model", "be a .py or .stan file", str(path)))
    module = types.ModuleType(f"thalweg_model_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # where dataclasses look up what annotations mean
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        exec(compile(path.read_text(), str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        raise ValueError(f"`model` {path} cannot be run: {_where(error, path)}") from error
    finally:
        sys.path.remove(str(path.parent.resolve()))
    return module


def _where(error: BaseException, path: Path) -> str:
    """Type, message and the line of `path` that the error came through."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"{type(error).__name__} in line {error.lineno}: {error.msg}"
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    where = f" in line {lines[-1]}" if lines else ""
    return f"{type(error).__name__}{where}: {one_line(error)}"


def from_file(path: str | Path, data: str | Path | Data | None = None) -> Target:
    """A target from a model file and a data file.

    A `.stan` file is a Stan program, as for `from_stan`. A Python file holds one of

    - `log_density(params)` or `log_density(params, data)`, and `supports`, as for `from_function`;
    - `log_prior(params)`, `log_likelihood(params, data)` and `supports`, as for `from_likelihood`;
    - `model`, a NumPyro model whose arguments are the data's names;
    - `model`, a `pm.Model` of PyMC, or a function that returns one and whose arguments are the data's names.

    The first two may add `deterministic(params, data)`, `predictive(key, params, data)`; the first `log_likelihood`.
    All may add `simulate(key, data)`, for `calibrate`.

    Args:
        path: the model file, `.py` or `.stan`.
        data: the data file (`.json`, `.npz`, `.csv`), or a dict.

    Raises:
        ValueError: in one sentence, if a file cannot be used.
    """
    path = Path(path)
    values = data if data is None or isinstance(data, dict) else read_data(data)
    name = path.parent.name if path.stem == "model" and path.parent.name else path.stem
    if path.suffix == ".stan":
        return from_stan(path, values, name=name)
    module = run_model_file(path)
    found = {k: v for k, v in vars(module).items() if not k.startswith("_")}
    extras = {k: found[k] for k in ("deterministic", "predictive", "simulate") if callable(found.get(k))}
    if "log_density" in found or ("log_prior" in found and "log_likelihood" in found):
        if "supports" not in found:
            raise ValueError(f"`model` {path} must define supports, a dict name -> support, beside its log density")
        if "log_density" in found:
            likelihood = found.get("log_likelihood")
            return from_function(
                found["log_density"], found["supports"], values, log_likelihood=likelihood, name=name, **extras
            )
        if values is None:
            raise ValueError(f"`data` must be given: `model` {path} has a log_likelihood of data")
        return from_likelihood(
            found["log_prior"], found["log_likelihood"], found["supports"], values, name=name, **extras
        )
    if is_pymc_model(found.get("model")) or (callable(found.get("model")) and _is_about_pymc(found)):
        made = from_pymc(_pymc_model(found["model"], values, path)).renamed(name)
        return made.changed(simulate=extras.get("simulate"))
    if callable(found.get("model")):
        arguments = _arguments(found["model"], values or {}, path)
        target = from_numpyro(found["model"], **arguments).renamed(name)
        left_out = [n for n, p in inspect.signature(found["model"]).parameters.items() if p.default is None]
        left_out = [n for n in left_out if n not in arguments]
        if left_out and not target.observed():
            remedy = "no site is observed without it, and the posterior is the prior (give null to mean that)"
            raise ValueError(
                requirement("data", f"have {' or '.join(left_out)}", ", ".join(arguments) or "none", remedy)
            )
        return target.changed(simulate=extras.get("simulate"))
    must = "define log_density and supports, log_prior and log_likelihood and supports, or a NumPyro or PyMC model"
    raise ValueError(f"`model` {path} must {must}, got {', '.join(sorted(found)) or 'nothing'}")


def _is_about_pymc(found: dict[str, Any]) -> bool:
    """Whether a model file imports PyMC, or things of it, and nothing of NumPyro."""

    def root(value: Any) -> str:
        name = value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", None)
        return str(name).split(".")[0]

    roots = {root(value) for value in found.values()}
    return "pymc" in roots and "numpyro" not in roots


def _pymc_model(model: Any, data: Data | None, path: Path) -> Any:
    """The `pm.Model` of a model file.

    Raises:
        ValueError: if there are data for a model that has its own, the function raises, or returns something else.
    """
    if is_pymc_model(model):
        if data:
            remedy = f"make `model` in {path} a function of {', '.join(data)} that returns the pm.Model"
            raise ValueError(requirement("data", "be left out for a pm.Model, which has its own", "some", remedy))
        return model
    try:
        made = model(**_arguments(model, data or {}, path))
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"`model` {path} cannot be run: {_where(error, path)}") from error
    if not is_pymc_model(made):
        raise ValueError(requirement(f"model {path}", "return a pm.Model", f"a {type(made).__name__}"))
    return made


def _arguments(model: Callable[..., Any], data: Data, path: Path) -> Data:
    """The data as the model's arguments.

    Raises:
        ValueError: if a name is missing, or is not an argument (a misspelt observation would be no observation).
    """
    parameters = inspect.signature(model).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return data
    missing = [
        n for n, p in parameters.items() if p.default is p.empty and n not in data and p.kind is not p.VAR_POSITIONAL
    ]
    if missing:
        got = ", ".join(data) or "nothing"
        raise ValueError(f"`data` must have {', '.join(missing)} for the model in {path}, got {got}")
    unknown = [n for n in data if n not in parameters]
    if unknown:
        takes = ", ".join(parameters) or "nothing"
        raise ValueError(f"`data` must only have arguments of the model in {path} ({takes}), got {', '.join(unknown)}")
    return data
