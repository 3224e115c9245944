"""Network namespaces, the programs in them, and what crosses them."""
