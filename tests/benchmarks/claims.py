"""The cost of a claim and its record, beside few pending events and beside a million."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import timedelta
from statistics import median

from outboxd.clock import wall
from outboxd.event import Outcome, Result, Verdict
from outboxd.outbox import CHUNK, Outbox
from tests.benchmarks.figures import Figure, in_turns, ratio
from tests.benchmarks.peers import PEERS
from tests.benchmarks.rig import NUMBERS, Rig

LEASE = timedelta(minutes=1)
DELIVERED = Outcome(Verdict.DELIVERED, call="POST /contacts", http_status=201, calls=1)


def figures(rig: Rig) -> Iterator[Figure]:
    """A chunk of customers claimed in one transaction and recorded as delivered in another; a peer's own way,
    which is one after the other.
    """
    few, many = rig.pick(20_000, 200), rig.pick(1_000_000, 2000)
    rounds, size = rig.pick(41, 1), rig.pick(CHUNK, 10)
    floor = f"the same, {few:,} pending"
    for numbers in NUMBERS:
        with ExitStack() as stack:
            paths = [rig.outbox(count, admitted=numbers) for count in (few, many)]
            outboxes = [stack.enter_context(closing(Outbox(path, default_source="custom"))) for path in paths]
            small, large = in_turns([claiming(outbox, size) for outbox in outboxes], rounds)
        yield Figure(
            name=f"claim and record, {many:,} pending, customers {numbers}",
            value=ratio(small, large),
            floor=floor,
            least=0.9,
            note=f"{size} customers in {median(large) * 1000:.1f} ms, {median(small) * 1000:.1f} ms",
        )
    for peer in PEERS:
        if not peer.is_installed:
            yield Figure(name=peer.name, value=None, floor=floor, note="not installed")
            continue
        rooms = {count: rig.room(peer.name) for count in (few, many)}
        for count, room in rooms.items():
            filled = peer.open(room)
            filled.fill(count)
            filled.close()
        queues = [peer.open(room) for room in rooms.values()]
        small, large = in_turns([queue.take for queue in queues], rounds)
        for queue in queues:
            queue.close()
        told = f"one in {median(large) * 1000:.2f} ms, {median(small) * 1000:.2f} ms"
        yield Figure(
            name=peer.name,
            value=ratio(small, large),
            floor=floor,
            note="; ".join(filter(None, (told, peer.note))),
        )


def claiming(outbox: Outbox, size: int) -> Callable[[], None]:
    """What the relay does around a delivery, for so many customers at once."""

    def claim() -> None:
        now = wall()
        claims = outbox.claim(now, limit=size, lease=LEASE)
        results = [
            Result(claim, {event.id: DELIVERED for event in claim.events}, claim.contact) for claim in claims
        ]
        assert len(outbox.record(results, now)) == size

    return claim
