"""A stateful local stand-in for Brevo's contacts API: unique identifiers, silent losses, limits and all.

    with Sandbox(attributes={"TIER": "text"}, faults=[Fault(status=503, times=2)]) as sandbox:
        requests.post(f"{sandbox.url}/contacts", json=…, headers={"api-key": "xkeysib-sandbox"})
        sandbox.contacts, sandbox.calls

Rooms, each importing only from those below:

     server                       threads and connections            control   the doors under /sandbox/
     stand_in                     what becomes of a call             misbehaviour, wire   bytes
     calls, subjects              who was called about what          faults, limits       trouble
     routes                       a call and what it does
     attributes, imports, lists, processes
     account                      the rules                          contacts, values     the state
     messages                     words
"""

from outboxd.brevo.sandbox.calls import Call
from outboxd.brevo.sandbox.faults import Fault, Faults, parse_faults
from outboxd.brevo.sandbox.server import Sandbox
from outboxd.brevo.sandbox.values import Attribute

__all__ = ["Attribute", "Call", "Fault", "Faults", "Sandbox", "parse_faults"]
