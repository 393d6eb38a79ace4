"""The born-again sequence over several seeds: what to train and dump, in which order, and what is recorded."""
