"""The shell: wires the parts into a node. Read pipeline.py first."""
