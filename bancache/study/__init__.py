"""Studies over several seeds, from a file or born-again sequences: settings, the order of the work, and result lines."""
