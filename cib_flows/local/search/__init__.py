"""Globus Search on loopback: indexes, ingest, queries, deletion, and its action providers."""
