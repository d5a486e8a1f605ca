"""Onboarding a new user: a welcome, a reminder, and mails over days, as one function that may sleep and wait for weeks.

Run it with `flow dev workers.onboarding:app`, then
`flow send user/signed_up --data '{"user": "ada", "email": "ada@example.com"}'`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from flowlib import App, Event, EventType, Step, matching
from workers.outbox import deliver

app = App("onboarding")


@dataclass(frozen=True)
class Account:
    user: str
    email: str


signed_up = EventType("user/signed_up", Account)
confirmed = EventType("user/confirmed", Account)
first_project = EventType("user/created_project", Account)
closed = EventType("user/closed_account", Account)

TIPS = ["Invite your team", "Connect your calendar", "Ask us anything"]


@app.function(on=signed_up, cancel_on=matching(closed, "user"))
def onboard(event: Event[Account], step: Step) -> str:
    """Ends with what has become of the user: `silent`, `reading` or `active`."""
    account = event.data

    def send(name: str, text: str) -> None:
        step.run(name, deliver, f"{account.user}-{name}", account.email, text)

    send("welcome", "Welcome! Please confirm your address.")
    mine = {"user": account.user}
    answer = step.wait_for_event("answer", confirmed, match=mine, timeout=timedelta(days=3), since=event.ts)
    if answer is None:
        send("reminder", "Your address is still to be confirmed.")
        late = step.wait_for_event("late-answer", confirmed, match=mine, timeout=timedelta(days=7), since=event.ts)
        if late is None:
            return "silent"

    project = step.expect_event("project", first_project, match=mine, since=event.ts)
    for day, tip in enumerate(TIPS, start=1):
        if step.first(project, step.timer(f"day-{day}", timedelta(days=1))) is project:
            send("well-done", "Your first project! Here is what others did next.")
            return "active"
        send(f"tip-{day}", tip)
    return "reading"
