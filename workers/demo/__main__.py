"""A contact list is imported, its worker killed with SIGKILL in the middle, and every claim is checked."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from rich.console import Console

from workers.contacts_io import Settings
from workers.demo.address_service import address_service
from workers.demo.contact_list import make_contact_list
from workers.demo.mail_server import mail_server
from workers.demo.report import show_mail
from workers.demo.stage import set_stage
from workers.demo.story import tell_story


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m workers.demo", description=__doc__)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave Redis' data, CRM, ledger and logs in DIR")
    parser.add_argument("--neighbours", action="store_true", help="only the neighbours, to try `flow dev` with")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console(highlight=False)
    try:
        return stand_by(console) if arguments.neighbours else run_demo(console, arguments.keep)
    except KeyboardInterrupt:
        console.print("stopped")
        return 130


def run_demo(console: Console, keep: Path | None) -> int:
    began = time.monotonic()
    with set_stage(keep) as stage:
        failed = tell_story(stage, console)
    left = [worker.pid for worker in stage.workers if worker.alive]
    console.rule()
    console.print(f"{time.monotonic() - began:.0f} seconds, {f'{left} still run' if left else 'nothing still runs'}.")
    if keep:
        console.print(f"What it made is in {keep}.")
    console.print(f"[red]{len(failed)} checks failed.[/]" if failed else "[green]Every check holds.[/]")
    return 1 if failed or left else 0


def stand_by(console: Console) -> int:
    """The neighbours where `workers.contacts` looks for them by default, until Ctrl-C; prints the mails that come."""
    store = Path(Settings.store)
    made = make_contact_list(store / "2026" / "list.csv")
    make_contact_list(store / "2026" / "broken.csv", 400, bad_every=3)
    data = '{"key": "2026/list.csv", "user_email": "ada@example.com"}'
    with address_service(8089), mail_server(8025) as mails:
        console.print(f"Address service and mail server are up, {store}/2026/list.csv has {made.good} contacts.")
        console.print("In two other terminals:\n\n  flow dev workers.contacts:app")
        console.print(f"  flow send api/contact_list.uploaded --data '{data}'\n", soft_wrap=True)
        shown = 0
        while True:
            for mail in mails.mails[shown:]:
                show_mail(console, mail)
                shown += 1
            time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())
