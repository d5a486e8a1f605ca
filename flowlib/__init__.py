"""Durable functions on RQ: each step of a run is one queue job, tried until it succeeds and then remembered."""
