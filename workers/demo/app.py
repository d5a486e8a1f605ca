"""`workers.contacts` as it is, but each step body leaves its lines in the ledger that CONTACTS_LEDGER names."""

from __future__ import annotations

import os
from pathlib import Path

from workers import contacts
from workers.demo.ledger import keep_ledger, witnessed

STEPS = [
    "validate_contents", "send_import_failed_email", "split_contacts", "enrich_addresses", "upload_enriched",
    "create_contacts", "send_import_success_email", "remove_parts",
]  # fmt: skip

keep_ledger(Path(os.environ["CONTACTS_LEDGER"]))
for name in STEPS:
    setattr(contacts, name, witnessed(getattr(contacts, name)))

app = contacts.app
