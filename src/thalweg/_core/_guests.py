"""Optional packages: imported when called, with a note on what to install."""

import importlib
from types import ModuleType


def import_guest(name: str, extra: str) -> ModuleType:
    """Import the package `name`.

    Raises:
        ImportError: if it is missing; the message names the extra that brings it.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.split(".", maxsplit=1)[0]:
            raise
        message = f"this needs the package {name}, which is not installed; try: pip install 'thalweg[{extra}]'"
        raise ImportError(message) from error
