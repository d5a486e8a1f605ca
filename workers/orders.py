"""An order, fulfilled or undone: each deed is registered with what undoes it, and a failure or a cancel undoes them all.

Run it with `flow dev workers.orders:app`, then
`flow send shop/order_placed --data '{"order": "o-1", "customer": "ada@example.com", "sku": "book", "cents": 4200}'`.
"""

from __future__ import annotations

from dataclasses import dataclass

from flowlib import App, Event, EventType, NonRetriable, Step, matching
from workers.outbox import deliver

app = App("orders")


@dataclass(frozen=True)
class Order:
    order: str
    customer: str
    sku: str
    cents: int


placed = EventType("shop/order_placed", Order)
withdrawn = EventType("shop/order_withdrawn", Order)


@app.function(on=placed, retries=5, cancel_on=matching(withdrawn, "order"))
def fulfil(event: Event[Order], step: Step) -> str:
    """Ends with the number of the parcel; if it fails or is withdrawn, nobody has paid and nothing is set aside."""
    order = event.data
    step.run("reserve", deliver, f"reserved-{order.order}", "stock", order.sku)
    step.on_rollback(deliver, f"released-{order.order}", "stock", order.sku)
    step.run("charge", charge, order)
    step.on_rollback(deliver, f"refunded-{order.order}", order.customer, f"{order.cents} cents")
    parcel = step.run("ship", ship, order)
    step.run("thank", deliver, f"thanks-{order.order}", order.customer, f"parcel {parcel} is on its way")
    return parcel


def charge(order: Order) -> None:
    """The order's id is the payment's idempotency key: tried twice, it is charged once."""
    deliver(f"charged-{order.order}", order.customer, f"{order.cents} cents")


def ship(order: Order) -> str:
    if order.sku == "unicorn":
        raise NonRetriable("no carrier takes it")
    deliver(f"shipped-{order.order}", "carrier", order.sku)
    return f"P-{order.order}"
