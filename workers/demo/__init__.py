"""The contact import among real neighbours, with a worker killed in the middle: `python -m workers.demo`."""
