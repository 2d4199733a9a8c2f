"""The parts of a soak: programs, traffic, samples, report."""
