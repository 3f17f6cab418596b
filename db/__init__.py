"""Memory of the node: tables, legal moves, sessions and queries."""
