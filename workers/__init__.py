"""What a user of flowlib writes: `contacts.py` is the example to copy, `demo/` runs it among real neighbours."""
