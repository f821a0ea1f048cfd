"""packhouse side by side with the tools nearest to it: `make bench-peers`. __main__.py says how."""
