"""Parts of `bench/chaos.py`: the stage, its faults, the traffic, the verdict."""
