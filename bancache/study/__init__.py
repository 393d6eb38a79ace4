"""Born-again sequences over several seeds: settings, the order of training and dumps, and result lines."""
