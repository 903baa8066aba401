"""A YAML document as plain Python, with the line of every key: so that a fault can name its place.

YAML's traps are closed: only `true`, `false` and `null` (or `~`) are words with a meaning, so that `no` is
a text and `22:30` is no number of seconds; a key that is written twice is a fault.
"""

import re
from typing import Any, NamedTuple

import yaml

from outboxd.errors import ConfigError

Path = tuple[str, ...]
"""Where a value stands: the keys that lead to it."""


class Document(NamedTuple):
    """The values, the name to show for the file, and the line (from 1) of each key's path."""

    name: str
    data: Any
    lines: dict[Path, int]

    def place(self, path: Path) -> str:
        """`config.yaml:12: skills.customer-sync.options`"""
        known = next((self.lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self.lines), None)
        where = self.name if known is None else f"{self.name}:{known}"
        return f"{where}: {'.'.join(path)}" if path else where


LIMIT = 10_000
"""Values in a document: a few anchors that name each other could make billions of them."""


DEPTH = 50
"""How deep values may lie; an anchor that names itself has no end."""


class _Loader(yaml.SafeLoader):
    values = 0
    depth = 0
    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012 - the shape that PyYAML wants


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(true|false)$", re.I), list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile("^(~|null|)$", re.I), ["~", "n", "N", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile("^[-+]?[0-9]+$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+\.[0-9]+$"), list("-+0123456789")
)


def load(text: str, name: str) -> Document:
    """Parse YAML. Raises ConfigError for what is no YAML, and for keys written twice."""
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        document = Document(name, None, {})
        faults: list[str] = []
        data = {} if node is None else _plain(loader, node, (), document, faults)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(
            [f"{name}:{line}: not YAML: {error.problem}"],
            hint="look at that line; a text that begins with * or @, as schedules do, needs quotes",
        ) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError([f"{name}:{line}: not YAML: {error.reason}"]) from error
    except RecursionError as error:  # of PyYAML itself, before anything can be counted
        raise ConfigError([f"{name}: not YAML: nested too deeply"]) from error
    finally:
        if loader is not None:
            loader.dispose()
    if faults:
        raise ConfigError(faults)
    return Document(name, data, document.lines)


def _plain(loader: _Loader, node: yaml.Node, path: Path, document: Document, faults: list[str]) -> Any:
    loader.values += 1
    if loader.values > LIMIT:
        raise yaml.MarkedYAMLError(problem=f"more than {LIMIT} values", problem_mark=node.start_mark)
    if loader.depth > DEPTH:
        raise yaml.MarkedYAMLError(problem="nested too deeply", problem_mark=node.start_mark)
    loader.depth += 1
    try:
        return _value(loader, node, path, document, faults)
    finally:
        loader.depth -= 1


def _value(loader: _Loader, node: yaml.Node, path: Path, document: Document, faults: list[str]) -> Any:
    if isinstance(node, yaml.MappingNode):
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                problem = "a name that is no text; put it in quotes"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
            key = str(key_node.value)
            at = (*path, key)
            if key in data:
                line = key_node.start_mark.line + 1
                faults.append(f"{document.name}:{line}: {'.'.join(at)}: written twice; keep one of them")
            document.lines[at] = key_node.start_mark.line + 1
            data[key] = _plain(loader, value_node, at, document, faults)
        return data
    if isinstance(node, yaml.SequenceNode):
        return [_plain(loader, item, path, document, faults) for item in node.value]
    try:
        if node.tag == "tag:yaml.org,2002:int":
            return int(node.value)  # in base ten: a leading zero is no octal number
        if node.tag in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:null", "tag:yaml.org,2002:float"):
            return loader.construct_object(node)
    except (ValueError, LookupError):
        pass  # its tag promised what it is not: a text, which the setting will refuse
    return str(node.value)
