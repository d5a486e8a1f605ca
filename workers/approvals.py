"""An expense that somebody has to approve: the mail has a token, and whoever has it decides, within a week.

Run it with `flow dev workers.approvals:app`, then
`flow send finance/expense_claimed --data '{"claim": "c-1", "by": "ada@example.com", "cents": 9900}'`,
read the token in outbox/, and say `flow promise resolve TOKEN true`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from flowlib import App, Event, EventType, Step, StepFailed
from workers.outbox import deliver

app = App("approvals")
PETTY = 5000  # cents that need nobody's approval


@dataclass(frozen=True)
class Claim:
    claim: str
    by: str
    cents: int


claimed = EventType("finance/expense_claimed", Claim)


@app.function(on=claimed)
def approve(event: Event[Claim], step: Step) -> str:
    """Ends as `paid`, `refused` or `forgotten`."""
    claim = event.data
    outcome = "paid"
    if claim.cents > PETTY:
        decision = step.promise("decision", as_=bool, timeout=timedelta(days=7))
        step.run(
            "ask",
            deliver,
            f"ask-{claim.claim}",
            "boss@example.com",
            f"{claim.by} claims {claim.cents}: {decision.token}",
        )
        try:
            outcome = "paid" if decision.result() else "refused"
        except StepFailed as failed:
            outcome = "refused" if failed.type == "Rejected" else "forgotten"
    step.run("tell", deliver, f"{outcome}-{claim.claim}", claim.by, f"your claim of {claim.cents} cents was {outcome}")
    return outcome
