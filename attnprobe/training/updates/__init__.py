"""One update: how a step is carried out, in which arithmetic, with which attention kernel and optimiser."""
