"""What the operator decided about every contact."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from outboxd.event import Attribute


@dataclass(frozen=True, slots=True)
class Policy:
    """What the operator decided about every contact, and the attributes of the account as far as known."""

    list_ids: tuple[int, ...] = ()
    deletes_softly: bool = True
    attributes: Mapping[str, Attribute] = field(default_factory=dict)

    def can_empty(self, name: str) -> bool:
        """Whether Brevo can be told to empty an attribute; of unknown ones that is tried."""
        return name not in self.attributes or self.attributes[name].can_be_emptied
