"""Data sets made from others: a share of one, with wrong labels, or with averaged positions."""
