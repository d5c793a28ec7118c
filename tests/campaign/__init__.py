"""Random faults against whole runs: stops, disk errors, damaged files, hostile input; run.py."""
