"""A small YAML file as nodes that know their lines, or what is the matter with it, with file and line."""

from __future__ import annotations

from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import Node


class YamlFileError(Exception):
    """The file is not what is wanted. The text names file, line where there is one, and what is the matter."""


def compose(path: Path, bytes_max: int, example: str) -> Node | None:
    """Return the root node of a file, None of an empty one. `example` is shown for what is allowed. Raises YamlFileError."""
    try:
        with path.open("rb") as file:
            text = file.read(bytes_max + 1)
        if len(text) > bytes_max:
            raise YamlFileError(f"{path}: longer than {bytes_max} bytes, which is allowed at most")
        root: Node | None = YAML(typ="rt").compose(text.decode())
    except OSError as error:
        raise YamlFileError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise YamlFileError(f"{path}: not UTF-8") from error
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise YamlFileError(f"{path}:{line}: not YAML: {error.problem}") from error
    except YAMLError as error:
        raise YamlFileError(f"{path}: not YAML: {str(error).splitlines()[0]}") from error
    except RecursionError as error:
        raise YamlFileError(f"{path}: nested too deeply; allowed: {example}") from error
    return root
