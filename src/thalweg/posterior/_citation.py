"""How to cite, and what made a posterior."""

import importlib.metadata
import platform

CITATION = """@software{thalweg,
  title  = {Thalweg: probabilistic inference with normalizing flows},
  author = {{The Thalweg developers}},
  year   = {2026},
  note   = {Python library on JAX, Equinox and Optax}
}"""

_PACKAGES = ("thalweg", "jax", "jaxlib", "equinox", "optax", "numpy", "scipy")


def package_versions() -> dict[str, str]:
    """Versions of this package and what its numbers depend on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
