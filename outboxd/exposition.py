"""The text format of Prometheus: families of samples as lines. Pure; it knows no metric by name.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Family:
    """Samples under one name. `told` is what a reader of the metric sees as its help.

    A sample is what is added to the name (a histogram has several series), its labels, and its value.
    """

    name: str
    kind: str
    told: str
    samples: Sequence[tuple[str, Labels, float]]


def gauge(name: str, told: str, value: float | None) -> Family:
    """A value that goes up and down; None: it is not known, and there is no sample."""
    return Family(name, "gauge", told, [] if value is None else [("", {}, value)])


def gauges(name: str, told: str, label: str, values: Mapping[str, float]) -> Family:
    """Values that go up and down, by one label."""
    return Family(name, "gauge", told, [("", {label: each}, value) for each, value in values.items()])


def counter(name: str, told: str, value: float) -> Family:
    """A value that only grows; its name ends in _total."""
    return Family(name, "counter", told, [("", {}, value)])


def counters(name: str, told: str, label: str, values: Mapping[str, float]) -> Family:
    """Values that only grow, by one label."""
    return Family(name, "counter", told, [("", {label: each}, value) for each, value in values.items()])


def histogram(name: str, told: str, up_to: Mapping[float, int], count: int, total: float) -> Family:
    """How many values there were up to each bound, how many in all, and their sum."""
    buckets = [("_bucket", {"le": repr(float(bound))}, number) for bound, number in up_to.items()]
    rest = [("_bucket", {"le": "+Inf"}, count), ("_sum", {}, total), ("_count", {}, count)]
    return Family(name, "histogram", told, [*buckets, *rest])


def text(families: Iterable[Family]) -> str:
    """All that have samples, as a page; every line ends in a line feed."""
    return "".join(f"{line}\n" for family in families if family.samples for line in _lines(family))


def _lines(family: Family) -> Iterable[str]:
    yield f"# HELP {family.name} {_escaped(family.told)}"
    yield f"# TYPE {family.name} {family.kind}"
    for suffix, labels, value in family.samples:
        told = ",".join(f'{name}="{_quoted(each)}"' for name, each in labels.items())
        yield f"{family.name}{suffix}{f'{{{told}}}' if told else ''} {value!r}"


def _escaped(told: str) -> str:
    return told.replace("\\", r"\\").replace("\n", r"\n")


def _quoted(value: str) -> str:
    return _escaped(value).replace('"', r"\"")
